"""Break a switch of an alias at every one of its commands: the alias names an index that answers, before and after."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from motor.motor_asyncio import AsyncIOMotorClient
from pymongo.errors import PyMongoError

from mydocs.localserver import LocalServer
from mydocs.migrations import MigrationError, migrate

pytestmark = [pytest.mark.anyio, pytest.mark.seconds(120)]

INDEX = """
    from mydocs.migrations import drop_search_indexes, ensure_search_indexes, switch_search_alias
    def vector(name, path):
        fields = [{"type": "vector", "path": path, "numDimensions": 3, "similarity": "cosine"}]
        return {"name": name, "type": "vectorSearch", "definition": {"fields": fields}}
"""
SCRIPTS = {
    "002_switch.py": """
    async def up(db):
        await ensure_search_indexes(db["pages"], [SearchIndexModel(**vector("vec_2", "v2"))])
        await switch_search_alias(db["pages"], "vec", to="vec_2")
""",
    "003_contract.py": """
    async def up(db):
        await drop_search_indexes(db["pages"], "vec_1")
""",
}
FIRST = """
    async def up(db):
        await ensure_search_indexes(db["pages"], [SearchIndexModel(**vector("vec_1", "v1"))])
        await switch_search_alias(db["pages"], "vec", to="vec_1")
"""
FAULTS: dict[str, Callable[[LocalServer, int], object]] = {
    "cut before": lambda server, at: server.controls.cut_before(at=at),
    "cut after": lambda server, at: server.controls.cut_after(at=at),
    "error that passes": lambda server, at: server.controls.error(91, "shutting down", at=at),
    "error that stays": lambda server, at: server.controls.error(13, "not authorised", at=at),
}


@pytest.fixture
def local_server(local_clock: Any) -> Any:
    """A new, empty server whose index builds take no time."""
    with LocalServer(clock=local_clock) as server:
        settings = server.search.settings
        server.search.settings = replace(settings, pending_seconds=0.0, build_seconds=0.0, delete_seconds=0.0)
        yield server


def put(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text("from pymongo.operations import SearchIndexModel\n" + dedent(INDEX) + dedent(text))


async def answers(db: Any) -> str:
    """Return what the alias names, once it is seen that it can be queried."""
    document = await db["_search_aliases"].find_one({"_id": "vec"})
    listed = [index async for index in db["pages"].aggregate([{"$listSearchIndexes": {"name": document["index"]}}])]
    assert [(index["status"], index["queryable"]) for index in listed] == [("READY", True)]
    return str(document["index"])


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.limits(alias_grace=0.0)
async def test_the_alias_answers_whatever_breaks(fault: str, tmp_path: Path, local_server: LocalServer) -> None:
    client: AsyncIOMotorClient[dict[str, Any]] = AsyncIOMotorClient(local_server.url, serverSelectionTimeoutMS=5_000)
    folder = tmp_path / "scripts"
    folder.mkdir()
    put(folder, "001_first.py", FIRST)
    at, broken, hit = 0, 0, True
    while hit:
        at += 1
        db = client[f"app{at}"]
        for name in SCRIPTS:
            (folder / name).unlink(missing_ok=True)
        await migrate(db, directory=folder, standard_indexes={})
        for name, text in SCRIPTS.items():
            put(folder, name, text)
        made: Any = FAULTS[fault](local_server, at)
        try:
            await migrate(db, directory=folder, standard_indexes={})
        except (MigrationError, PyMongoError):
            broken += 1
        hit = made.fired > 0
        local_server.controls.clear_faults()
        await answers(db)
        await migrate(db, directory=folder, standard_indexes={})
        assert await answers(db) == "vec_2"
    assert at > 12
    assert broken > 0 if fault == "error that stays" else broken == 0
    client.close()
