"""Changes that the server makes by itself, a bounded update a batch, and never twice."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import bson
import pymongo
import pytest
from bson import Binary, Int64, MaxKey, MinKey, ObjectId, Timestamp

from mydocs.localserver import LocalServer
from mydocs.localserver.controls import Recorded
from mydocs.migrations import MigrationFailed, migrate, rename_field, update_in_batches
from mydocs.migrations.data.statements import MESSAGE_BYTES
from mydocs.migrations.driver.client import Database
from mydocs.migrations.errors import NotPossible

Write = Callable[[str, str], Path]
WITHOUT_M = {"m": {"$exists": False}}

pytestmark = pytest.mark.anyio


async def numbered(db: Database, count: int) -> None:
    await db["things"].insert_many([{"_id": n, "n": n} for n in range(count)])


async def documents(db: Database) -> list[dict[str, Any]]:
    return await db["things"].find().sort("_id", 1).to_list(None)


def is_update(recorded: Recorded) -> bool:
    return recorded.name == "update" and bool(recorded.body["update"] == "things")


def statements(server: LocalServer) -> list[dict[str, Any]]:
    return [each for r in server.controls.counted() if is_update(r) for each in r.body["updates"]]


@pytest.mark.parametrize(
    "update",
    [
        pytest.param([{"$set": {"m": {"$add": ["$n", 1]}}}], id="pipeline"),
        pytest.param({"$set": {"m": 1}, "$inc": {"n": 1}}, id="update document"),
    ],
)
async def test_every_document_is_changed_once_and_none_travels(
    any_db: Database, local_server: LocalServer, update: Any
) -> None:
    await any_db["things"].insert_many([{"_id": n, "n": n, "text": "x" * 1000} for n in range(250)])
    local_server.controls.clear()
    assert await update_in_batches(any_db["things"], WITHOUT_M, update, batch_size=100) == 250
    assert await any_db["things"].count_documents({"m": {"$exists": True}}) == 250
    assert sum([d["n"] for d in await documents(any_db)]) == sum(range(250)) + 250 * isinstance(update, dict)
    sent = sum(len(bson.encode(recorded.body)) for recorded in local_server.controls.counted())
    assert sent < 10_000
    assert await update_in_batches(any_db["things"], WITHOUT_M, update, batch_size=100) == 0


async def test_each_update_is_bounded_whatever_the_types_of_the_ids(db: Database, local_server: LocalServer) -> None:
    ids = [
        *(MinKey(), None, float("nan"), -1.5, Int64(7), "a", "b", {"a": 1}, Binary(b"1"), ObjectId(), False, True),
        *(datetime(2020, 1, 1, tzinfo=UTC), datetime(2021, 1, 1, tzinfo=UTC), Timestamp(1, 1), MaxKey()),
    ]
    await db["things"].insert_many([{"_id": identity} for identity in ids])
    assert await update_in_batches(db["things"], WITHOUT_M, {"$set": {"m": 1}}, batch_size=5) == len(ids)
    assert await db["things"].count_documents({"m": 1}) == len(ids)
    bounds = [list(statement["q"]["$and"][0]["_id"]) for statement in statements(local_server)]
    assert ["$gte", "$lte"] in bounds
    assert ["$in"] in bounds
    assert all(statement["multi"] for statement in statements(local_server))


@pytest.mark.parametrize(
    ("filter_", "update", "problem"),
    [
        pytest.param({}, {"$set": {"m": 1}}, r"leaves out what is done, and \{\} matches", id="no filter"),
        pytest.param(WITHOUT_M, {"m": 1}, "with operators such as", id="replacement"),
        pytest.param(WITHOUT_M, {}, "with operators such as", id="empty"),
        pytest.param(WITHOUT_M, [], "with operators such as", id="empty pipeline"),
    ],
)
async def test_what_cannot_be_done_in_batches_is_refused(db: Database, filter_: Any, update: Any, problem: str) -> None:
    await numbered(db, 3)
    with pytest.raises(NotPossible, match=problem):
        await update_in_batches(db["things"], filter_, update)
    assert await documents(db) == [{"_id": n, "n": n} for n in range(3)]


NOT_IDEMPOTENT = """
    from mydocs.migrations import update_in_batches

    async def up(db):
        await update_in_batches(db.things, {"n": {"$gte": 0}}, {"$inc": {"n": 100}}, batch_size=10)
"""


async def test_a_filter_that_still_matches_what_is_done_ends_it_after_one_batch(
    any_db: Database, folder: Path, write: Write
) -> None:
    await numbered(any_db, 30)
    write("001_things.py", NOT_IDEMPOTENT)
    for _ in range(3):  # the same script again does not do it again
        with pytest.raises(MigrationFailed, match=r"still matches documents that were just changed, .* with _id 0, so"):
            await migrate(any_db, directory=folder, standard_indexes={})
        changed = [document["_id"] for document in await documents(any_db) if document["n"] != document["_id"]]
        assert changed == list(range(10))
        assert {d["n"] - d["_id"] for d in await documents(any_db)} == {0, 100}
    await any_db["things"].update_one({"_id": 0}, {"$set": {"n": -1}})  # settled by hand
    with pytest.raises(MigrationFailed, match="with _id 1, so"):
        await migrate(any_db, directory=folder, standard_indexes={})


async def test_what_others_insert_meanwhile_is_no_reason_to_stop(db: Database, local_server: LocalServer) -> None:
    await numbered(db, 20)

    def insert(_: Recorded) -> None:
        with pymongo.MongoClient[Any](local_server.url) as client:
            client["app"]["things"].insert_one({"_id": 4.5, "n": 1})

    local_server.controls.call(insert, when=is_update, after=True)
    assert await update_in_batches(db["things"], WITHOUT_M, {"$set": {"m": 1}}, batch_size=10) == 20


async def test_a_lost_reply_changes_nothing_twice(any_db: Database, local_server: LocalServer) -> None:
    await numbered(any_db, 3)
    local_server.controls.cut_after(when=is_update)
    await update_in_batches(any_db["things"], WITHOUT_M, {"$set": {"m": 1}, "$inc": {"n": 1}})
    assert [document["n"] for document in await documents(any_db)] == [1, 2, 3]


@pytest.mark.parametrize("is_done", [pytest.param(True, id="done"), pytest.param(False, id="not done")])
async def test_a_first_batch_whose_reply_is_lost_is_not_done_twice_where_the_filter_is_wrong(
    any_db: Database, local_server: LocalServer, is_done: bool
) -> None:
    await numbered(any_db, 30)
    (local_server.controls.cut_after if is_done else local_server.controls.cut_before)(when=is_update)
    with pytest.raises(NotPossible, match="with _id 0, so nothing more is done"):
        await update_in_batches(any_db["things"], {"n": {"$gte": 0}}, {"$inc": {"n": 100}}, batch_size=10)
    changed = {d["_id"]: d["n"] - d["_id"] for d in await documents(any_db) if d["n"] != d["_id"]}
    assert changed == dict.fromkeys(range(10 if is_done else 1), 100)


async def test_a_first_batch_that_is_lost_on_its_way_is_sent_again_where_the_filter_is_right(
    any_db: Database, local_server: LocalServer
) -> None:
    await numbered(any_db, 30)
    local_server.controls.cut_before(when=is_update)
    changed = await update_in_batches(any_db["things"], WITHOUT_M, {"$set": {"m": 1}, "$inc": {"n": 1}}, batch_size=10)
    assert changed == 30
    assert [document["n"] for document in await documents(any_db)] == list(range(1, 31))


async def test_large_ids_are_bounds_or_fit_into_lists(db: Database, local_server: LocalServer) -> None:
    for n in range(18):
        await db["things"].insert_one({"_id": {"a": str(n) + "x" * 1_000_000}})
    assert await update_in_batches(db["things"], WITHOUT_M, {"$set": {"m": 1}}) == 18
    updates = [r.body for r in local_server.controls.counted() if is_update(r)]
    assert max(len(bson.encode(body)) for body in updates) <= MESSAGE_BYTES + 16_000


async def test_a_batch_costs_a_read_an_update_and_a_check(db: Database, local_server: LocalServer) -> None:
    await numbered(db, 25)
    local_server.controls.clear()
    await update_in_batches(db["things"], WITHOUT_M, {"$set": {"m": 1}}, batch_size=10)
    assert local_server.controls.counts() == {"count": 2, "find": 7, "update": 3}  # and one document before
    local_server.controls.clear()
    await rename_field(db["things"], "n", "k", batch_size=10)
    assert local_server.controls.counts() == {"aggregate": 1, "count": 2, "find": 3, "update": 3}
