"""A plan only reads, lets scripts reach nothing else, and says plainly what it cannot know."""

import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from motor.motor_asyncio import AsyncIOMotorClient
from pymongo import ASCENDING, AsyncMongoClient, IndexModel

from mydocs.localserver import LocalServer
from mydocs.migrations import MigrationError, PlanReport, migrate, plan
from mydocs.migrations.driver.client import Database
from mydocs.migrations.errors import OutOfOrder
from mydocs.migrations.reporting.plan_report import Effect, step_json

pytestmark = [pytest.mark.anyio, pytest.mark.seconds(90)]


@pytest.fixture
async def db(local_server: LocalServer) -> AsyncIterator[Any]:
    """A database with 30 notes, of which a small sample has the first."""
    client: AsyncIOMotorClient[dict[str, Any]] = AsyncIOMotorClient(local_server.url, tz_aware=True)
    await client["app"]["notes"].insert_many([{"_id": i, "n": i} for i in range(30)])
    local_server.controls.clear()
    yield client["app"]
    client.close()


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str], Path]:
    """Write an async script of the given lines."""

    def put(name: str, body: str, head: str = "from mydocs.migrations import *\n") -> Path:
        path = tmp_path / name
        path.write_text(f"{head}async def up(db):\n" + "".join(f"    {line}\n" for line in body.splitlines()))
        return path

    return put


async def planned(db: Database, folder: Path, **options: Any) -> PlanReport:
    return await plan(db, directory=folder, standard_indexes={}, **options)


def lines(effects: tuple[Effect, ...]) -> list[tuple[str, str, int | None]]:
    return [(effect.kind.value, effect.collection, effect.documents) for effect in effects]


WRITES = {"insert", "update", "delete", "findAndModify", "create", "createIndexes", "drop", "dropIndexes", "collMod"}


async def test_nothing_pending_reads_the_ledger_alone(db: Database, tmp_path: Path, local_server: LocalServer) -> None:
    report = await planned(db, tmp_path)
    assert (report.steps, report.exit_code) == ((), 0)
    assert sum(local_server.controls.counts().values()) == 1


async def test_the_database_is_only_read_whatever_the_script_does(
    db: Database, tmp_path: Path, write: Callable[..., Path], local_server: LocalServer
) -> None:
    write("001_all.py", "await db.notes.drop()\nawait db.other.insert_one({})\nawait db.client.drop_database('app')")
    report = await planned(db, tmp_path)
    assert lines(report.steps[0].effects) == [("drop_collection", "notes", 30)]
    assert report.exit_code in (1, 8)  # the ledger goes with the database, which ends a run as well
    assert not WRITES & set(local_server.controls.counts())
    assert await db["notes"].count_documents({}) == 30


async def test_a_client_of_another_server_is_refused_by_its_address(
    db: Database, tmp_path: Path, write: Callable[..., Path], local_server: LocalServer
) -> None:
    url = local_server.url
    write("001_own.py", f"import pymongo\npymongo.MongoClient({url!r}).app.notes.delete_many({{}})")
    (step,) = (await planned(db, tmp_path)).steps
    assert step.error is not None
    assert step.error.type == "OnlyTheCopy"
    assert f"127.0.0.1:{local_server.port}" in step.error.message
    assert not WRITES & set(local_server.controls.counts())


@pytest.mark.parametrize(
    ("body", "named"),
    [
        pytest.param("import socket\nsocket.create_connection(('192.0.2.1', 80))", "192.0.2.1:80", id="socket"),
        pytest.param(
            "import urllib.request\nurllib.request.urlopen('http://models.example.com/')",
            "models.example.com",
            id="name",
        ),
        pytest.param("import os\nos.system('true')", "the command 'true'", id="shell"),
        pytest.param("import subprocess\nsubprocess.run(['mongosh'])", "the program mongosh", id="program"),
        pytest.param(
            "import subprocess, sys\n"
            "code = 'import socket; socket.create_connection((\"192.0.2.1\", 80))'\n"
            "done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)\n"
            "raise OSError(done.stderr)",
            "192.0.2.1:80",
            id="another Python",
        ),
        pytest.param(
            "import motor.motor_asyncio\nmotor.motor_asyncio.AsyncIOMotorClient('mongodb+srv://a.example.com')",
            "a.example.com",
            id="SRV",
        ),
    ],
)
async def test_nothing_else_can_be_reached(
    db: Database, tmp_path: Path, write: Callable[..., Path], body: str, named: str
) -> None:
    write("001_out.py", body)
    (step,) = (await planned(db, tmp_path)).steps
    assert step.error is not None
    assert named in step.error.message
    assert "a plan lets scripts reach its copy only" in step.error.message


async def test_the_environment_names_the_copy_and_no_credentials(
    db: Database, tmp_path: Path, write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MONGO_URL", "mongodb://real.example.com")
    monkeypatch.setenv("MONGO_PASSWORD", "real-secret")
    write(
        "001_env.py",
        "import os, lightodm, pymongo\n"
        "assert 'real' not in str(os.environ)\n"
        "url, user, password = (os.environ[f'MONGO_{each}'] for each in ('URL', 'USER', 'PASSWORD'))\n"
        "client = pymongo.MongoClient(url, username=user, password=password)\n"
        "client[os.environ['MONGO_DB_NAME']].notes.delete_many({'n': {'$lt': 3}})\n"
        "client.close()",
    )
    report = await planned(db, tmp_path)
    assert report.steps[0].error is None
    assert lines(report.steps[0].effects) == [("delete", "notes", 3)]


async def test_a_script_that_never_ends_is_stopped(db: Database, tmp_path: Path, write: Callable[..., Path]) -> None:
    write("001_loop.py", "import time\nopen('pid', 'w').write(str(__import__('os').getpid()))\ntime.sleep(3600)")
    write("002_next.py", "await db.notes.delete_many({})")
    os.chdir(tmp_path)
    report = await planned(db, tmp_path, script_timeout=8.0)
    assert report.steps[0].error is not None
    assert report.steps[0].error.type == "Timeout"
    assert report.steps[1].unknown == ("it was not tried, since 001 fails before it",)
    assert report.exit_code == 1
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


async def test_what_the_sample_lacks_is_said(db: Database, tmp_path: Path, write: Callable[..., Path]) -> None:
    write("001_late.py", "async for d in db.notes.find({'n': {'$gte': 20}}): await db.notes.delete_one(d)")
    (step,) = (await planned(db, tmp_path, sample=10)).steps
    assert step.effects == ()
    assert step.unknown == (
        'what it does with the 10 documents of notes where {"n": {"$gte": 20}}: none of them is in the sample',
    )


async def test_documents_are_counted_where_they_are(db: Database, tmp_path: Path, write: Callable[..., Path]) -> None:
    write(
        "001_some.py",
        "await db.notes.update_many({'n': {'$gte': 5}}, {'$set': {'big': True}})\n"
        "await transform(db.notes, {'n': {'$gte': 3}}, lambda d: {'$set': {'small': True}})\n"
        "await db.notes.update_one({'n': {'$gte': 0}}, {'$set': {'one': True}})",
    )
    (step,) = (await planned(db, tmp_path, sample=10)).steps
    assert [(e.documents, e.detail) for e in step.effects] == [
        (25, 'where {"n": {"$gte": 5}}'),
        (27, 'where {"n": {"$gte": 3}}'),
        (1, 'where {"n": {"$gte": 0}}'),
    ]


async def test_what_the_copy_cannot_do_is_named(db: Database, tmp_path: Path, write: Callable[..., Path]) -> None:
    write("001_search.py", "await db.notes.aggregate([{'$graphLookupNot': {}}]).to_list(None)")
    report = await planned(db, tmp_path)
    assert "$graphLookupNot" in str(report.steps[0].error)
    write("001_search.py", "await db.notes.aggregate([{'$search': {}}]).to_list(None)")
    report = await planned(db, tmp_path)
    assert any("$search" in sentence for sentence in report.steps[0].unknown)
    assert report.exit_code == 1


async def test_the_ledger_counts(db: Database, tmp_path: Path, write: Callable[..., Path]) -> None:
    write("002_second.py", "await db.notes.update_one({'_id': 0}, {'$inc': {'n': 1}})")
    await migrate(db, directory=tmp_path, standard_indexes={})
    write("001_first.py", "pass")
    write("003_third.py", "await db.notes.update_one({'_id': 1}, {'$set': {'x': 1}})")
    with pytest.raises(OutOfOrder):
        await planned(db, tmp_path)
    report = await planned(db, tmp_path, allow_out_of_order=True)
    assert [step.version for step in report.steps] == ["001", "003"]
    assert [step.version for step in (await planned(db, tmp_path, target="001", allow_out_of_order=True)).steps] == [
        "001"
    ]


async def test_standard_indexes_are_a_step(local_server: LocalServer, tmp_path: Path) -> None:
    async with AsyncMongoClient[dict[str, Any]](local_server.url) as client:
        models = {"notes": [IndexModel([("a", ASCENDING)])]}
        report = await plan(client["empty"], directory=tmp_path, standard_indexes=models)
        assert [step.version for step in report.steps] == ["standard"]
        assert [e.kind.value for e in report.steps[0].effects] == ["create_collection", "create_index"]


async def test_documents_before_and_after_are_shown(db: Database, tmp_path: Path, write: Callable[..., Path]) -> None:
    write("001_show.py", "await db.notes.update_many({}, {'$set': {'x': 1}})\nawait db.notes.delete_many({'n': 4})")
    report = await planned(db, tmp_path, show=2)
    update, delete = step_json(report.steps[0])["effects"]
    assert (update["before"], update["after"]) == (
        [{"_id": 0, "n": 0}, {"_id": 1, "n": 1}],
        [{"_id": 0, "n": 0, "x": 1}, {"_id": 1, "n": 1, "x": 1}],
    )
    assert (delete["before"], delete["after"]) == ([{"_id": 4, "n": 4}], [])


async def test_a_script_that_raises_ends_the_plan(db: Database, tmp_path: Path, write: Callable[..., Path]) -> None:
    write("001_raises.py", "await db.notes.delete_many({'n': 1})\nraise ValueError('no')")
    report = await planned(db, tmp_path)
    assert report.steps[0].error is not None
    assert (report.steps[0].error.type, report.exit_code) == ("ValueError", 1)
    assert "001_raises.py failed, line 4: ValueError: no" in report.steps[0].error.message
    assert lines(report.steps[0].effects) == [("delete", "notes", 1)]
    with pytest.raises(MigrationError, match="0 or more"):
        await planned(db, tmp_path, sample=-1)


async def test_a_process_that_is_left_at_once_is_told(db: Database, tmp_path: Path, write: Callable[..., Path]) -> None:
    write("001_exits.py", "import os, sys\nsys.stderr.write('last words\\n')\nsys.stderr.flush()\nos._exit(3)")
    (step,) = (await planned(db, tmp_path)).steps
    assert step.error is not None
    assert step.error.message == "its process ended with status 3 before the script came to its end: last words"


async def test_a_plain_script_is_tried_as_it_runs(db: Database, tmp_path: Path) -> None:
    (tmp_path / "001_plain.py").write_text(
        "import lightodm, multiprocessing\n"
        "assert __name__ == '__main__'\n"
        "lightodm.get_database().notes.delete_many({'n': {'$lt': 4}})\n"
    )
    (tmp_path / "002_out.py").write_text("import pymongo\npymongo.MongoClient('mongodb://db.example.com').a.b.drop()\n")
    report = await planned(db, tmp_path)
    assert lines(report.steps[0].effects) == [("delete", "notes", 4)]
    assert report.steps[1].error is not None
    assert "asks for db.example.com:27017" in report.steps[1].error.message
