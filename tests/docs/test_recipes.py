"""The recipes for other engines work, over a plain pool of processes in the place of the engine."""

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from motor.motor_asyncio import AsyncIOMotorDatabase

from mydocs.migrations import migrate

PAGE = Path(__file__).parents[2] / "docs" / "data-changes.md"
SCRIPT = """
from mydocs.migrations import transform

def change(document):
    return {"$set": {"m": document["n"] + 1}, "$inc": {"times": 1}}

async def up(db):
    await transform(db.things, {"m": {"$exists": False}}, change, batch_size=10)
"""

pytestmark = [pytest.mark.anyio, pytest.mark.seconds(180)]


def recipe(name: str) -> Any:
    """Execute the block of the page that defines a class."""
    blocks = [part.split("```")[0] for part in PAGE.read_text("utf-8").split("```python\n")[1:]]
    (code,) = [block for block in blocks if f"class {name}(" in block]
    names: dict[str, Any] = {}
    exec(compile(code, str(PAGE), "exec"), names)
    return names[name]


@pytest.fixture
def pool() -> Iterator[ProcessPoolExecutor]:
    with ProcessPoolExecutor(2, get_context("spawn")) as executor:
        yield executor


def ray(pool: Executor, monkeypatch: pytest.MonkeyPatch) -> Executor:
    def remote(function: Callable[..., Any]) -> SimpleNamespace:
        def call(*arguments: Any) -> SimpleNamespace:
            future: Future[Any] = pool.submit(function, *arguments)
            return SimpleNamespace(future=lambda: future)

        return SimpleNamespace(remote=call)

    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(remote=remote))
    executor: Executor = recipe("RayExecutor")()
    return executor


def spark(pool: Executor, monkeypatch: pytest.MonkeyPatch) -> Executor:
    def parallelize(items: list[Any], slices: int) -> SimpleNamespace:
        assert slices == 1
        return SimpleNamespace(
            map=lambda function: SimpleNamespace(collect=lambda: list(pool.map(function, items))),
        )

    executor: Executor = recipe("SparkExecutor")(SimpleNamespace(parallelize=parallelize), 2)
    return executor


@pytest.mark.parametrize("engine", [ray, spark])
async def test_an_engine_of_the_page_changes_every_document_once(
    engine: Callable[..., Executor],
    pool: Executor,
    local_db: AsyncIOMotorDatabase[dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await local_db["things"].insert_many([{"_id": n, "n": n} for n in range(200)])
    (tmp_path / "001_things.py").write_text(SCRIPT)
    executor = engine(pool, monkeypatch)
    await migrate(local_db, directory=tmp_path, standard_indexes={}, executor=executor)
    found = await local_db["things"].find().to_list(None)
    assert [(each["m"] - each["n"], each["times"]) for each in found] == [(1, 1)] * 200
