"""An application asks which index stands behind an alias, and hears it while the server is away."""

import asyncio
import subprocess
import sys
import threading
from typing import Any

import pymongo
import pytest
from motor.motor_asyncio import AsyncIOMotorClient
from pymongo.errors import PyMongoError

from mydocs import search_aliases
from mydocs.localserver import LocalServer
from mydocs.migrations.driver.client import Database
from mydocs.search_aliases import SearchAliases

pytestmark = pytest.mark.anyio


@pytest.fixture
async def hurried_db(local_server: LocalServer) -> Any:
    """A database whose driver gives up soon."""
    client: AsyncIOMotorClient[dict[str, Any]] = AsyncIOMotorClient(local_server.url, serverSelectionTimeoutMS=500)
    yield client["app"]
    client.close()


async def names(db: Database, alias: str, index: str) -> None:
    await db["_search_aliases"].replace_one({"_id": alias}, {"collection": "pages", "index": index}, upsert=True)


def reads(server: LocalServer) -> int:
    return server.controls.counts()["find"]


async def test_the_answer_is_kept_for_the_time_that_was_said(any_db: Database, local_server: LocalServer) -> None:
    await names(any_db, "vec", "one")
    kept, fresh = SearchAliases(any_db, ttl=60), SearchAliases(any_db, ttl=0)
    assert [await kept.index("vec"), await fresh.index("vec")] == ["one", "one"]
    await names(any_db, "vec", "two")
    local_server.controls.clear()
    assert [await kept.index("vec"), await fresh.index("vec")] == ["one", "two"]
    assert reads(local_server) == 1


async def test_two_hundred_who_ask_at_once_cost_one_read(any_db: Database, local_server: LocalServer) -> None:
    await names(any_db, "vec", "one")
    local_server.controls.clear()
    aliases = SearchAliases(any_db)
    assert set(await asyncio.gather(*(aliases.index("vec") for _ in range(200)))) == {"one"}
    assert reads(local_server) == 1


async def test_who_leaves_does_not_take_the_answer_from_the_others(db: Database, local_server: LocalServer) -> None:
    await names(db, "vec", "one")
    aliases = SearchAliases(db)
    local_server.controls.delay(0.2, command="find")
    leaving, staying = (asyncio.create_task(aliases.index("vec")) for _ in range(2))
    await asyncio.sleep(0)
    leaving.cancel()
    assert await staying == "one"


async def test_an_unknown_alias_is_a_key_error_until_it_is_there(any_db: Database) -> None:
    aliases = SearchAliases(any_db)
    with pytest.raises(KeyError, match="vec: no such search alias in database app"):
        await aliases.index("vec")
    await names(any_db, "vec", "one")
    assert await aliases.index("vec") == "one"
    assert await any_db.list_collection_names() == ["_search_aliases"]


async def test_to_ask_creates_no_collection(any_db: Database) -> None:
    with pytest.raises(KeyError):
        await SearchAliases(any_db).index("vec")
    assert await any_db.list_collection_names() == []


async def test_while_the_server_is_away_the_last_answer_stands(hurried_db: Any, local_server: LocalServer) -> None:
    await names(hurried_db, "vec", "one")
    aliases = SearchAliases(hurried_db, ttl=0)
    await aliases.index("vec")
    local_server.controls.down()
    assert [await aliases.index("vec") for _ in range(3)] == ["one"] * 3
    with pytest.raises(PyMongoError):
        await aliases.index("other")
    with pytest.raises(PyMongoError):
        await SearchAliases(hurried_db).index("vec")


async def test_nobody_waits_for_a_server_that_does_not_answer(
    db: Database, local_server: LocalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search_aliases, "PATIENCE_SECONDS", 0.05)
    await names(db, "vec", "one")
    aliases = SearchAliases(db, ttl=0)
    await aliases.index("vec")
    await names(db, "vec", "two")
    gate = threading.Event()
    local_server.controls.delay(gate, command="find")
    assert await aliases.index("vec") == "one"
    gate.set()
    monkeypatch.setattr(search_aliases, "PATIENCE_SECONDS", 10.0)
    monkeypatch.setattr(aliases, "_quiet_until", -1.0)
    assert await aliases.index("vec") == "two"


async def test_a_connection_that_falls_silent_keeps_nobody_from_the_next_answer(
    any_db: Database, local_server: LocalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PATIENCE_SECONDS", "PAUSE_SECONDS", "READ_SECONDS"):
        monkeypatch.setattr(search_aliases, name, 0.2)
    await names(any_db, "vec", "one")
    aliases = SearchAliases(any_db, ttl=0)
    await aliases.index("vec")
    await names(any_db, "vec", "two")
    local_server.controls.hang(command="find")
    assert await aliases.index("vec") == "one"
    while await aliases.index("vec") != "two":  # noqa: ASYNC110  # it is the asking that is tested
        await asyncio.sleep(0.05)


async def test_the_first_read_comes_to_an_end_too(
    any_db: Database, local_server: LocalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search_aliases, "FIRST_READ_SECONDS", 0.3)
    await names(any_db, "vec", "one")
    local_server.controls.hang(command="find")
    aliases = SearchAliases(any_db)
    with pytest.raises(PyMongoError):
        await aliases.index("vec")
    monkeypatch.setattr(search_aliases, "FIRST_READ_SECONDS", 30.0)
    assert await aliases.index("vec") == "one"


async def test_the_time_limit_of_one_who_asks_is_not_that_of_the_others(
    any_db: Database, local_server: LocalServer
) -> None:
    await names(any_db, "vec", "one")
    local_server.controls.delay(0.5, command="find")
    aliases = SearchAliases(any_db)
    with pymongo.timeout(0.1):
        hurried = asyncio.create_task(aliases.index("vec"))
    assert [await aliases.index("vec"), await hurried] == ["one", "one"]


async def test_what_is_no_alias_in_the_collection_is_passed_over(db: Database) -> None:
    await db["_search_aliases"].insert_one({"_id": "note"})
    await names(db, "vec", "one")
    assert await SearchAliases(db).index("vec") == "one"


def test_an_application_imports_neither_the_runner_nor_a_driver() -> None:
    code = "import sys, mydocs.search_aliases; print([m for m in sys.modules if m.split('.')[0] in "
    code += "('motor', 'pymongo', 'bson', 'anyio', 'typer') or m.startswith('mydocs.')])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "['mydocs.search_aliases']"
