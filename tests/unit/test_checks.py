"""What parsing refuses: scripts that would leave something undone. A script that may do something is always taken."""

import ast
import inspect

import pytest

import mydocs.migrations
from mydocs.migrations.scripts.checks import HELPERS, problems_of

PLAIN_TAKEN = [
    "print('x')",
    "import lightodm\ndb=lightodm.get_database()\ndb.x.insert_one({})",
    "def run(): pass\nif __name__=='__main__':\n    run()",
    "x = collection.update_many({}, {})",
    "@app.command()\ndef f(): pass",
    "import atexit\n@atexit.register\ndef f(): ...",
    "for i in range(3): print(i)",
    "import asyncio\nasync def main(): ...\nasyncio.run(main())",
    "with open('x') as f: pass",
    "raise SystemExit",
    "class A(metaclass=M): pass",
    "class A:\n    x = f()\n",
    "1 / 0",
    "import os\nos.environ['X'] = 'y'",
    "import sys\nsys.stderr = None",
]
PLAIN_REFUSED = [
    "",
    "'''doc'''",
    "async def upgrade(db):\n    await db.x.insert_one({})",
    "async def forward(db): ...",
    "async def UP(db): ...",
    (
        "from mongodb_migrations.base import BaseMigration\n"
        "class Migration(BaseMigration):\n    def upgrade(self): self.db.x.drop()"
    ),
    "name='x'\ndependencies=[]\ndef upgrade(db): ...",
    "import logging\nlog=logging.getLogger(__name__)\ndef run(): ...",
    "if __name__=='__main__':\n    pass",
    "try:\n    import a\nexcept ImportError:\n    a=None",
    "async def main(): ...\nmain()",
    "if True:\n    async def up(db): ...",
    "@dataclass\nclass A:\n    x: int = 1\n    @property\n    def y(self): return 1",
]
ASYNC_TAKEN = [
    "async def up(db):\n    await db.x.insert_one({})",
    "async def up(db):\n    db.client.close()",
    "async def fill(db): ...\nasync def up(db):\n    await fill(db)",
    "import asyncio\nasync def up(db):\n    t=asyncio.create_task(db.x.insert_one({}))\n    await t",
    "async def up(db):\n    c=db.x.find()\n    c.sort('a')",
    "import lightodm\nasync def up(db):\n    db=lightodm.get_database()\n    db.x.insert_one({})",
    "def fill(db):\n    db.x.insert_one({})\nasync def up(db):\n    import asyncio; await asyncio.to_thread(fill, db)",
    "async def up(db):\n    [await db.x.drop() for _ in range(1)]",
    "async def up(db):\n    things=[]\n    things.insert_one(1)",
    "async def up(db):\n    async def inner():\n        yield 1\n    async for _ in inner(): ...",
    "async def up(db):\n    rows = [r async for r in db.x.find()]\n    rows.drop()",
    "async def up(db): ...\nasync def verify(db):\n    assert await db.x.find_one({}) and not await db.y.find_one({})",
    "async def up(db): ...\nasync def verify(db):\n    assert len(await db.x.find({}).to_list(None)) == 3",
    "async def up(db): ...\nasync def verify(db):\n    found = await db.x.find_one({})\n    assert found.get('find')",
    "import asyncio\nasync def fill(db): ...\nasync def up(db):\n    assert asyncio.iscoroutinefunction(fill)",
    "from mydocs.migrations import transform\nasync def up(db):\n    await transform(db.x, {}, lambda d: None)",
]
ASYNC_REFUSED = [
    "async def up(db):\n    db.x.insert_one({})",
    "async def up(database):\n    database['x'].update_many({},{})",
    "async def up(db):\n    things=db.things\n    things.create_index('a')",
    "from mydocs.migrations import ensure_indexes as e\nasync def up(db):\n    e(db.x, [])",
    "import mydocs.migrations as m\nasync def up(db):\n    m.transform(db.x, {}, f)",
    "async def fill(db): ...\nasync def up(db):\n    fill(db)",
    "async def up(db):\n    yield 1",
    "async def up(db):\n    db.get_collection('x').insert_one({})",
    "async def fill(db):\n    db.x.insert_one({})\nasync def up(db):\n    await fill(db)",
    "async def up(db, session):\n    db.x.insert_one({}, session=session)",
    "async def up(db): ...\nasync def down(db):\n    db.x.drop()",
    "async def up(db): ...\nasync def verify(db):\n    assert db.x.find_one({})",
    "async def up(db): ...\nasync def verify(db):\n    assert 1 and not db.x.find_one({}), 'found'",
    "async def up(db): ...\nasync def verify(db):\n    assert db.x.find_one({}) is not None",
    "async def up(db): ...\nasync def verify(db):\n    if db.x.count_documents({}) != 3:\n        raise ValueError",
    "async def up(db): ...\nasync def verify(database):\n    database.x.find_one({})",
    "async def right(db): ...\nasync def up(db): ...\nasync def verify(db):\n    assert right(db)",
    "async def up(db):\n    while db.x.find_one({}):\n        pass",
    "async def up(db):\n    if 1:\n        for i in range(2):\n            db.x.insert_one({'a': i})",
]


@pytest.mark.parametrize("text", PLAIN_TAKEN)
def test_a_plain_script_that_may_do_something_is_taken(text: str) -> None:
    assert problems_of(ast.parse(text), is_async=False) == ()


@pytest.mark.parametrize("text", PLAIN_REFUSED)
def test_a_plain_script_that_does_nothing_is_refused_with_its_line(text: str) -> None:
    ((line, _), *_) = problems_of(ast.parse(text), is_async=False)
    assert 1 <= line <= max(1, len(text.splitlines()))


@pytest.mark.parametrize("text", ASYNC_TAKEN)
def test_an_async_script_that_awaits_what_it_calls_is_taken(text: str) -> None:
    assert problems_of(ast.parse(text), is_async=True) == ()


@pytest.mark.parametrize("text", ASYNC_REFUSED)
def test_a_coroutine_that_is_thrown_away_is_refused_with_its_line(text: str) -> None:
    ((line, _),) = problems_of(ast.parse(text), is_async=True)
    assert 1 <= line <= len(text.splitlines())


def test_every_helper_that_scripts_call_is_known() -> None:
    helpers = {
        name
        for name in mydocs.migrations.__all__
        if inspect.iscoroutinefunction(function := getattr(mydocs.migrations, name))
        and next(iter(inspect.signature(function).parameters), None) == "collection"
    }
    assert helpers <= HELPERS
