"""A search alias names an index that answers, at every moment, whoever switches it and however that ends."""

import asyncio
import time
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from motor.motor_asyncio import AsyncIOMotorDatabase
from pymongo.operations import SearchIndexModel

from mydocs.localserver import LocalServer
from mydocs.localserver.clock import ManualClock
from mydocs.localserver.search.settings import Dialect
from mydocs.migrations import (
    IndexConflict,
    IndexFailed,
    LeaseLost,
    MigrationFailed,
    NotPossible,
    NotReady,
    UsageError,
    drop_search_indexes,
    ensure_search_indexes,
    migrate,
    switch_search_alias,
    wait_until_ready,
)
from mydocs.migrations.driver.client import Database
from mydocs.migrations.indexes.capture import Capture, under_way
from mydocs.migrations.model import RunStamp
from mydocs.migrations.reporting.events import AliasSwitched, Event, StillWaiting
from mydocs.migrations.scripts.script_context import ScriptContext
from mydocs.search_aliases import SearchAliases

pytestmark = pytest.mark.anyio

SWITCH = """
    from mydocs.migrations import ensure_search_indexes, switch_search_alias
    from pymongo.operations import SearchIndexModel
    def vector(name, path):
        return SearchIndexModel(name=name, type="vectorSearch", definition={
            "fields": [{"type": "vector", "path": path, "numDimensions": 3, "similarity": "cosine"}]})
    async def up(db):
        await ensure_search_indexes(db["pages"], [vector("vec_2", "v2")])
        await switch_search_alias(db["pages"], "vec", to="vec_2")
    async def down(db):
        await switch_search_alias(db["pages"], "vec", to="vec_1")
"""


def vector(name: str, path: str = "v") -> SearchIndexModel:
    fields = [{"type": "vector", "path": path, "numDimensions": 3, "similarity": "cosine"}]
    return SearchIndexModel(name=name, type="vectorSearch", definition={"fields": fields})


async def alias(db: Database, name: str = "vec") -> Any:
    return await db["_search_aliases"].find_one({"_id": name})


async def two_indexes(db: Database) -> None:
    await ensure_search_indexes(db["pages"], [vector("vec_1"), vector("vec_2", "v2")])


def stamp(term: int) -> RunStamp:
    return RunStamp(run_id=f"run{term}", term=term, host="h", pid=1, tool="t")


async def switch_in_run(db: Database, term: int, to: str) -> None:
    """Switch as a script of the run with this term does it."""
    with under_way(Capture(ScriptContext(run=stamp(term))), db.name):
        await switch_search_alias(db["pages"], "vec", to)


async def test_the_document_says_what_is_named_and_what_was(any_db: Database) -> None:
    await two_indexes(any_db)
    first = await switch_search_alias(any_db["pages"], "vec", to="vec_1")
    assert (first.index, first.previous) == ("vec_1", None)
    await switch_search_alias(any_db["pages"], "vec", to="vec_2")
    document = await alias(any_db)
    assert list(document) == ["_id", "collection", "index", "previous", "switched_at", "run"]
    assert (document["collection"], document["index"], document["previous"]) == ("pages", "vec_2", "vec_1")
    again = await switch_search_alias(any_db["pages"], "vec", to="vec_2")
    assert (again.previous, await alias(any_db)) == ("vec_1", document)


async def test_a_switch_is_one_write_to_one_document(any_db: Database, local_server: LocalServer) -> None:
    await two_indexes(any_db)
    local_server.controls.clear()
    await switch_search_alias(any_db["pages"], "vec", to="vec_1")
    assert [record.name for record in local_server.controls.counted()] == ["aggregate", "findAndModify"]


async def test_the_alias_stays_until_the_new_index_is_ready(
    db: Database, local_server: LocalServer, local_clock: ManualClock
) -> None:
    await two_indexes(db)
    await switch_search_alias(db["pages"], "vec", to="vec_1")
    local_server.search.outcome("vec_3", build_seconds=3600.0)
    await ensure_search_indexes(db["pages"], [vector("vec_3", "v3")])
    with pytest.raises(NotReady):
        await switch_search_alias(db["pages"], "vec", to="vec_3", timeout=0.3)
    assert (await alias(db))["index"] == "vec_1"
    local_clock.advance(3600)
    await switch_search_alias(db["pages"], "vec", to="vec_3")
    assert (await alias(db))["index"] == "vec_3"


@pytest.mark.limits(failed=0.1)
async def test_an_index_that_failed_is_not_named(db: Database, local_server: LocalServer) -> None:
    await two_indexes(db)
    await switch_search_alias(db["pages"], "vec", to="vec_1")
    local_server.search.outcome("vec_3", fails="out of space")
    await ensure_search_indexes(db["pages"], [vector("vec_3", "v3")])
    with pytest.raises(IndexFailed, match="out of space"):
        await switch_search_alias(db["pages"], "vec", to="vec_3")
    assert (await alias(db))["index"] == "vec_1"


async def test_a_switch_that_may_not_wait_looks_once(any_db: Database) -> None:
    await two_indexes(any_db)
    await wait_until_ready(any_db["pages"], "vec_1", "vec_2")
    switched = await switch_search_alias(any_db["pages"], "vec", to="vec_1", timeout=0.0)
    assert (switched.index, await alias(any_db) is not None) == ("vec_1", True)


async def test_an_index_that_nobody_has_asked_for_is_perhaps_another_name(db: Database) -> None:
    await two_indexes(db)
    with pytest.raises(IndexFailed, match="vec_9 failed: it was never listed; check its name; create it") as caught:
        await switch_search_alias(db["pages"], "vec", to="vec_9", timeout=0.0)
    assert "drop_search_indexes" not in str(caught.value)


async def test_an_alias_is_of_one_collection(db: Database) -> None:
    await two_indexes(db)
    await ensure_search_indexes(db["documents"], [vector("vec_d")])
    await switch_search_alias(db["pages"], "vec", to="vec_1")
    with pytest.raises(IndexConflict, match="the search alias vec names an index of pages; take another alias"):
        await switch_search_alias(db["documents"], "vec", to="vec_d")


@pytest.mark.parametrize(("name", "to"), [("", "vec_1"), ("vec", ""), (None, "vec_1"), ("vec", 3)])
async def test_names_are_texts(db: Database, name: Any, to: Any) -> None:
    with pytest.raises(UsageError, match="are names"):
        await switch_search_alias(db["pages"], name, to=to)


async def test_a_transaction_switches_nothing(db: Database) -> None:
    in_transaction = Capture(ScriptContext(transactional=True))
    refused = pytest.raises(NotPossible, match="switch_search_alias cannot be used")
    with under_way(in_transaction, db.name), refused:
        await switch_search_alias(db["pages"], "vec", to="vec_1")


# A late holder of the lease


async def test_a_run_of_an_earlier_term_switches_nothing(db: Database) -> None:
    await two_indexes(db)
    await switch_in_run(db, 5, "vec_2")
    with pytest.raises(LeaseLost):
        await switch_in_run(db, 4, "vec_1")
    assert ((await alias(db))["index"], (await alias(db))["run"]["term"]) == ("vec_2", 5)


async def test_a_run_that_leaves_the_alias_as_it_is_keeps_earlier_terms_off_too(db: Database) -> None:
    await two_indexes(db)
    await switch_in_run(db, 3, "vec_1")
    at = (await alias(db))["switched_at"]
    await switch_in_run(db, 6, "vec_1")
    with pytest.raises(LeaseLost):
        await switch_in_run(db, 5, "vec_2")
    assert [(await alias(db))[key] for key in ("index", "previous", "switched_at")] == ["vec_1", None, at]


async def test_a_run_that_has_lost_its_lease_sends_nothing(db: Database) -> None:
    await two_indexes(db)

    def lost() -> None:
        raise LeaseLost(1)

    with under_way(Capture(ScriptContext(run=stamp(1), check_lease=lost)), db.name), pytest.raises(LeaseLost):
        await switch_search_alias(db["pages"], "vec", to="vec_1")
    assert await alias(db) is None


# To drop what an alias names


async def test_what_an_alias_names_is_not_dropped(any_db: Database, local_server: LocalServer) -> None:
    await two_indexes(any_db)
    await switch_search_alias(any_db["pages"], "vec", to="vec_1")
    local_server.controls.clear()
    with pytest.raises(IndexConflict, match="nothing was dropped: the search alias vec names vec_1"):
        await drop_search_indexes(any_db["pages"], "vec_2", "vec_1")
    assert local_server.controls.counts()["dropSearchIndex"] == 0


async def test_an_index_of_that_name_elsewhere_is_dropped(db: Database, local_server: LocalServer) -> None:
    await two_indexes(db)
    await ensure_search_indexes(db["documents"], [vector("vec_1")])
    await switch_search_alias(db["pages"], "vec", to="vec_1")
    await drop_search_indexes(db["documents"], "vec_1")
    assert local_server.controls.counts()["dropSearchIndex"] == 1


@pytest.mark.limits(alias_grace=2.0)
async def test_what_was_named_a_moment_ago_is_dropped_after_the_cache_of_applications(
    db: Database, local_server: LocalServer
) -> None:
    await two_indexes(db)
    await switch_search_alias(db["pages"], "vec", to="vec_1")
    before, dropped = time.monotonic(), list[float]()
    await switch_search_alias(db["pages"], "vec", to="vec_2")
    local_server.controls.call(lambda _: dropped.append(time.monotonic()), command="dropSearchIndex")
    events: list[Event] = []
    with under_way(Capture(ScriptContext(events.append)), db.name):
        await drop_search_indexes(db["pages"], "vec_1")
    assert dropped[0] - before >= 1.9  # the server's clock has milliseconds
    assert [event.what for event in events if isinstance(event, StillWaiting)] == [
        ("applications that use pages.vec_1",)
    ]


@pytest.mark.limits(alias_grace=1_000.0)
async def test_nobody_waits_for_an_index_that_is_gone(db: Database) -> None:
    await two_indexes(db)
    await switch_search_alias(db["pages"], "vec", to="vec_1")
    await db["_search_aliases"].update_one({"_id": "vec"}, {"$set": {"previous": "vec_0"}})
    await drop_search_indexes(db["pages"], "vec_0")


async def test_an_alias_that_somebody_edited_stops_no_drop(db: Database, local_server: LocalServer) -> None:
    await two_indexes(db)
    edited = {"_id": "vec", "collection": "pages", "previous": "vec_1", "switched_at": "yesterday"}
    await db["_search_aliases"].insert_one(edited)
    await drop_search_indexes(db["pages"], "vec_1")
    assert local_server.controls.counts()["dropSearchIndex"] == 1


# To replace what an alias names


def search(name: str) -> SearchIndexModel:
    return SearchIndexModel(name=name, definition={"mappings": {"dynamic": True}})


async def test_what_an_alias_names_is_not_replaced_either(any_db: Database, local_server: LocalServer) -> None:
    await two_indexes(any_db)
    await switch_search_alias(any_db["pages"], "vec", to="vec_1")
    local_server.controls.clear()
    # Asked for first, so that it would have been replaced before the other one is found to be named.
    with pytest.raises(
        IndexConflict, match="nothing was dropped: the search alias vec names vec_1; let it name another"
    ):
        await ensure_search_indexes(any_db["pages"], [search("vec_2"), search("vec_1")], replace=True)
    counts = local_server.controls.counts()
    assert (counts["dropSearchIndex"], counts["createSearchIndexes"]) == (0, 0)


async def test_what_an_alias_names_is_not_replaced_where_the_server_refuses_the_update(
    db: Database, local_server: LocalServer
) -> None:
    local_server.search.settings = replace(
        local_server.search.settings, dialect=Dialect.ATLAS_LOCAL, vector_updates=False
    )
    await two_indexes(db)
    await switch_search_alias(db["pages"], "vec", to="vec_1")
    with pytest.raises(IndexConflict, match="the search alias vec names vec_1"):
        await ensure_search_indexes(db["pages"], [vector("vec_1", "other")], replace=True)
    assert local_server.controls.counts()["dropSearchIndex"] == 0


async def test_an_alias_stops_no_update_and_no_replacement_of_what_serves_nothing(
    db: Database, local_server: LocalServer
) -> None:
    await two_indexes(db)
    await switch_search_alias(db["pages"], "vec", to="vec_1")
    (updated,) = await ensure_search_indexes(db["pages"], [vector("vec_1", "other")], replace=True)
    local_server.search.outcome("vec_3", fails="out of space")
    await ensure_search_indexes(db["pages"], [vector("vec_3")])
    await db["_search_aliases"].update_one({"_id": "vec"}, {"$set": {"index": "vec_3"}})
    (replaced,) = await ensure_search_indexes(db["pages"], [search("vec_3")])
    assert (str(updated.action), str(replaced.action)) == ("updated", "replaced")


@pytest.mark.limits(alias_grace=2.0)
async def test_what_was_named_a_moment_ago_is_replaced_after_the_cache_of_applications(
    db: Database, local_server: LocalServer
) -> None:
    await two_indexes(db)
    await switch_search_alias(db["pages"], "vec", to="vec_1")
    before, dropped = time.monotonic(), list[float]()
    await switch_search_alias(db["pages"], "vec", to="vec_2")
    local_server.controls.call(lambda _: dropped.append(time.monotonic()), command="dropSearchIndex")
    await ensure_search_indexes(db["pages"], [search("vec_1")], replace=True)
    assert dropped[0] - before >= 1.9  # the server's clock has milliseconds


# In a run


async def test_the_ledger_keeps_what_a_script_has_switched(db: Database, folder: Any, write: Any) -> None:
    await two_indexes(db)
    await switch_search_alias(db["pages"], "vec", to="vec_1")
    write("001_switch.py", SWITCH)
    events: list[Event] = []
    await migrate(db, directory=folder, standard_indexes={}, on_event=events.append)
    entry = await db["_migrations"].find_one({"_id": "001"})
    assert entry is not None
    assert entry["aliases"] == [{"alias": "vec", "collection": "pages", "index": "vec_2", "previous": "vec_1"}]
    assert (await alias(db))["run"] == entry["run"]
    switched = [event for event in events if isinstance(event, AliasSwitched)]
    assert [(event.alias, event.index, event.previous) for event in switched] == [("vec", "vec_2", "vec_1")]


async def test_a_second_attempt_forgets_nothing_of_the_first(db: Database, folder: Any, write: Any) -> None:
    await two_indexes(db)
    await switch_search_alias(db["pages"], "vec", to="vec_1")
    text = (
        SWITCH
        + '    async def up(db, before=up):\n        await before(db)\n        assert await db["go"].find_one()\n'
    )
    write("001_switch.py", text)
    with pytest.raises(MigrationFailed):
        await migrate(db, directory=folder, standard_indexes={})
    await db["go"].insert_one({})
    await migrate(db, directory=folder, standard_indexes={})
    entry = await db["_migrations"].find_one({"_id": "001"})
    assert entry is not None
    assert entry["aliases"][0]["previous"] == "vec_1"


async def test_an_entry_without_a_switch_has_no_such_key(db: Database, folder: Any, write: Any) -> None:
    write("001_nothing.py", "async def up(db):\n    pass\n")
    await migrate(db, directory=folder, standard_indexes={})
    assert "aliases" not in (await db["_migrations"].find_one({"_id": "001"}) or {})


@pytest.mark.seconds(60)
@pytest.mark.limits(alias_grace=10.0)
async def test_two_hundred_replicas_never_get_a_name_that_does_not_answer(
    db: AsyncIOMotorDatabase[dict[str, Any]], local_server: LocalServer
) -> None:
    """All ask while a new index is built, switched to, and the old one dropped; their cache is short for the test."""
    # Long beside the cache: two hundred reads at once take their time on a busy machine.
    await ensure_search_indexes(db["pages"], [vector("vec_1")])
    await switch_search_alias(db["pages"], "vec", to="vec_1")
    replicas = [SearchAliases(db, ttl=2.0) for _ in range(200)]
    dropped: list[str] = []
    local_server.controls.call(lambda _: dropped.append("vec_1"), command="dropSearchIndex")
    local_server.search.outcome("vec_2", build_seconds=1.0)
    got: set[str] = set()
    dead: list[str] = []
    asked_since = Counter[SearchAliases]()  # the index was dropped
    over = asyncio.Event()

    async def ask(replica: SearchAliases) -> None:
        while not over.is_set():
            was_dropped = list(dropped)
            name = await replica.index("vec")
            if name in was_dropped:
                dead.append(name)
            if was_dropped:
                asked_since[replica] += 1
                if len(asked_since) == len(replicas):
                    over.set()
            if name not in got:
                got.add(name)
                listing = [{"$listSearchIndexes": {"name": name}}]
                dead.extend([index["name"] async for index in db["pages"].aggregate(listing) if not index["queryable"]])
            await asyncio.sleep(0.05)  # from one question of an application to its next one

    asking = [asyncio.create_task(ask(replica)) for replica in replicas]
    await ensure_search_indexes(db["pages"], [vector("vec_2", "v2")])
    await switch_search_alias(db["pages"], "vec", to="vec_2")
    await drop_search_indexes(db["pages"], "vec_1")
    await asyncio.gather(*asking)
    assert (got, dead) == ({"vec_1", "vec_2"}, [])
