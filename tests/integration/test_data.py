"""Data changes: every document once, never over somebody else's write, and on from where a killed run was."""

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import anyio
import bson
import pymongo
import pytest
from bson import Binary, CodecOptions, Int64, ObjectId
from bson.binary import UuidRepresentation
from bson.codec_options import DatetimeConversion
from bson.datetime_ms import DatetimeMS

import mydocs
from mydocs.localserver import LocalServer
from mydocs.localserver.clock import ManualClock
from mydocs.localserver.controls import Recorded
from mydocs.migrations import LeaseLost, MigrationFailed, migrate, rename_field, transform, unset_field
from mydocs.migrations.data import job, statements, walk
from mydocs.migrations.driver import commands
from mydocs.migrations.driver.client import Database
from mydocs.migrations.errors import ChangeInvalid, NotPossible
from mydocs.migrations.reporting.events import BatchDone, Event
from mydocs.migrations.scripts.script_context import ScriptContext, current

Write = Callable[[str, str], Path]
Other = pymongo.collection.Collection[dict[str, Any]]

pytestmark = pytest.mark.anyio

# In the order of a server: null, numbers, text, documents, binary, ObjectId, boolean, dates.
MIXED = [
    None,
    -1.5,
    Int64(7),
    "a",
    "b",
    {"a": 1, "b": 2},
    {"b": 1},
    Binary(b"0123456789abcdef", 4),
    ObjectId("65f000000000000000000001"),
    False,
    datetime(2020, 1, 1, tzinfo=UTC),
]
TRANSFORM = """
    from mydocs.migrations import transform

    async def up(db):
        is_broken = await db.broken.find_one()

        def change(document):
            if is_broken and document["n"] == 20:
                raise ValueError("broken")
            return None if "m" in document else {"$set": {"m": document["n"]}}

        await transform(db.things, {}, change, batch_size=10)
"""


@pytest.fixture
def other(local_server: LocalServer) -> Iterator[Other]:
    """The collection through a client of somebody else, for use in a thread."""
    with pymongo.MongoClient[dict[str, Any]](local_server.url) as client:
        yield client["app"]["things"]


async def documents(db: Database) -> list[dict[str, Any]]:
    return await db["things"].find().sort("_id", 1).to_list(None)


async def numbered(db: Database, count: int) -> None:
    await db["things"].insert_many([{"_id": n, "n": n} for n in range(count)])


def updates(server: LocalServer) -> list[Recorded]:
    """The update commands on documents, not on the ledger."""
    return [recorded for recorded in server.controls.counted() if is_update(recorded)]


def is_update(recorded: Recorded) -> bool:
    return recorded.name == "update" and bool(recorded.body["update"] == "things")


# -- transform


async def test_every_document_is_asked_for_once_and_in_order_whatever_the_types_of_its_id(any_db: Database) -> None:
    await any_db["things"].insert_many([{"_id": identity} for identity in reversed(MIXED)])
    seen: list[Any] = []

    def change(document: dict[str, Any]) -> dict[str, Any]:
        seen.append(document["_id"])
        return {"$inc": {"visits": 1}}

    assert await transform(any_db["things"], {}, change, batch_size=2) == len(MIXED)
    assert [str(identity) for identity in seen] == [str(identity) for identity in MIXED]
    assert [document["visits"] for document in await documents(any_db)] == [1] * len(MIXED)


async def later(document: dict[str, Any]) -> dict[str, Any]:
    await anyio.lowlevel.checkpoint()
    return {"$set": {"m": document["n"] + 1}}


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        pytest.param(lambda d: {"$set": {"m": d["n"] + 1}}, {"_id": 1, "n": 1, "m": 2}, id="update document"),
        pytest.param(lambda d: {"$set": {**d, "m": d["n"] + 1}}, {"_id": 1, "n": 1, "m": 2}, id="the same _id set"),
        pytest.param(lambda d: [{"$set": {"m": {"$add": ["$n", 1]}}}], {"_id": 1, "n": 1, "m": 2}, id="pipeline"),
        pytest.param(lambda d: {**d, "n": 5}, {"_id": 1, "n": 5}, id="replacement"),
        pytest.param(lambda d: {"m": 3}, {"_id": 1, "m": 3}, id="replacement without _id"),
        pytest.param(later, {"_id": 1, "n": 1, "m": 2}, id="async function"),
        pytest.param(lambda d: None, {"_id": 1, "n": 1}, id="leave it"),
    ],
)
async def test_a_function_may_answer_in_each_of_these_ways(db: Database, function: Any, expected: Any) -> None:
    await db["things"].insert_one({"_id": 1, "n": 1})
    assert await transform(db["things"], {"n": 1}, function) == (expected != {"_id": 1, "n": 1})
    assert await documents(db) == [expected]


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        pytest.param({"$set": {"m": 1}, "n": 2}, r"a mixture of operators \(\$set\) and fields \(n\)", id="mixture"),
        pytest.param({"_id": 2, "n": 1}, "changed _id", id="replacement changes _id"),
        pytest.param({"$set": {"_id.a": 2}}, "changed _id", id="operator changes _id"),
        pytest.param({"$set": {"_id": 2}}, "changed _id", id="operator sets another _id"),
        pytest.param({"$unset": {"_id": ""}}, "changed _id", id="operator takes _id away"),
        pytest.param({}, "an empty document; return None", id="empty"),
        pytest.param([], "a list that is not a pipeline", id="empty pipeline"),
        pytest.param(["n"], "a list that is not a pipeline", id="list of something else"),
        pytest.param(3, "returned int", id="number"),
    ],
)
async def test_any_other_answer_is_an_error_that_names_the_document(db: Database, answer: Any, problem: str) -> None:
    await db["things"].insert_one({"_id": {"a": 1}, "n": 1})
    with pytest.raises(ChangeInvalid, match=rf"^things, document with _id {{'a': 1}}: .*{problem}"):
        await transform(db["things"], {}, lambda document: answer)
    assert await documents(db) == [{"_id": {"a": 1}, "n": 1}]


async def test_what_others_write_between_read_and_write_stays(
    any_db: Database, local_server: LocalServer, other: Other
) -> None:
    await numbered(any_db, 4)

    def interfere(recorded: Recorded) -> None:
        other.find_one_and_update({"_id": 1}, {"$set": {"n": 100}})
        other.delete_one({"_id": 2})

    local_server.controls.call(interfere, when=is_update)
    written = await transform(any_db["things"], {}, lambda d: {**d, "m": d["n"]} if "m" not in d else None)
    assert written == 3
    assert await documents(any_db) == [
        {"_id": 0, "n": 0, "m": 0},
        {"_id": 1, "n": 100, "m": 100},
        {"_id": 3, "n": 3, "m": 3},
    ]


async def test_a_document_that_no_longer_matches_is_left_alone(
    db: Database, local_server: LocalServer, other: Other
) -> None:
    await numbered(db, 2)
    local_server.controls.call(lambda _: other.find_one_and_update({"_id": 1}, {"$set": {"n": 9}}), when=is_update)
    assert await transform(db["things"], {"n": {"$lt": 9}}, lambda d: {"$set": {"m": 1}}) == 1
    assert (await documents(db))[1] == {"_id": 1, "n": 9}


async def test_a_document_that_never_stands_still_is_given_up_by_name(
    db: Database, local_server: LocalServer, other: Other
) -> None:
    await numbered(db, 1)
    local_server.controls.call(lambda _: other.find_one_and_update({}, {"$inc": {"n": 1}}), when=is_update, times=None)
    with pytest.raises(NotPossible, match=f"{job.ROUNDS} times, one of them that with _id 0"):
        await transform(db["things"], {}, lambda d: {"$set": {"m": 1}})


async def test_a_lost_reply_changes_nothing_twice(any_db: Database, local_server: LocalServer) -> None:
    await numbered(any_db, 3)
    local_server.controls.cut_after(when=is_update)
    await transform(any_db["things"], {}, lambda d: None if "m" in d else {"$set": {"m": 1}, "$inc": {"n": 1}})
    assert [document["n"] for document in await documents(any_db)] == [1, 2, 3]


async def test_documents_are_compared_as_they_are_and_decoded_as_the_application_wants(any_db: Database) -> None:
    key = UUID("00112233-4455-6677-8899-aabbccddeeff")
    options: CodecOptions[dict[str, Any]] = CodecOptions(
        uuid_representation=UuidRepresentation.JAVA_LEGACY, datetime_conversion=DatetimeConversion.DATETIME_MS
    )
    things = any_db["things"].with_options(codec_options=options)
    await things.insert_one({"_id": DatetimeMS(-(10**15)), "key": key, "at": DatetimeMS(10**15)})
    seen: list[Any] = []

    def change(document: dict[str, Any]) -> dict[str, Any]:
        seen.append(document["key"])
        return {"$set": {"copy": document["key"], "at": document["at"]}}

    assert await transform(things, {"key": key}, change) == 1
    found = await things.find_one({})
    assert seen == [key]
    assert found == {"_id": DatetimeMS(-(10**15)), "key": key, "at": DatetimeMS(10**15), "copy": key}


async def test_a_reply_that_is_cut_for_its_size_is_not_the_end(db: Database, local_server: LocalServer) -> None:
    text = "x" * 7_000_000
    for n in range(5):
        await db["things"].insert_one({"_id": n, "text": text})
    assert await transform(db["things"], {}, lambda d: [{"$set": {"text": {"$strLenCP": "$text"}}}]) == 5
    assert [document["text"] for document in await documents(db)] == [7_000_000] * 5
    assert local_server.controls.counts()["killCursors"] == 2  # two documents a reply, the last one alone


async def test_a_document_that_fits_no_statement_twice_is_an_error_before_it_is_sent(db: Database) -> None:
    await db["things"].insert_one({"_id": 1, "text": "x" * 9_000_000})
    with pytest.raises(ChangeInvalid, match="an update document or a pipeline in place of a replacement"):
        await transform(db["things"], {}, lambda d: {**d, "n": 1})


async def test_a_batch_is_written_in_as_few_commands_as_hold_it(
    db: Database, local_server: LocalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statements, "STATEMENTS", 3)
    await numbered(db, 8)
    assert await transform(db["things"], {}, lambda d: {"$set": {"m": 1}}) == 8
    assert [len(recorded.body["updates"]) for recorded in updates(local_server)] == [3, 3, 2]


async def test_a_batch_costs_two_commands_and_is_an_event(db: Database, local_server: LocalServer) -> None:
    events: list[Event] = []
    token = current.set(ScriptContext(events.append))  # as within a run
    await numbered(db, 25)
    local_server.controls.clear()
    await transform(db["things"], {"n": {"$gte": 5}}, lambda d: {"$set": {"m": 1}}, batch_size=8)
    current.reset(token)
    assert local_server.controls.counts() == Counter(
        count=3, find=4, update=3
    )  # before, after, and whether the filter tells
    done = [(e.collection, e.done, e.total) for e in events if isinstance(e, BatchDone)]
    assert done == [("things", 8, 20), ("things", 16, 20), ("things", 20, 20)]


# -- rename_field and unset_field


@pytest.mark.parametrize(
    ("old", "new", "before", "after"),
    [
        pytest.param("a", "b", {"a": 1}, {"b": 1}, id="field"),
        pytest.param("a.b", "c.d", {"a": {"b": 1}}, {"a": {}, "c": {"d": 1}}, id="paths"),
        pytest.param("a", "ab", {"a": [1]}, {"ab": [1]}, id="one name begins with the other"),
    ],
)
async def test_a_field_is_renamed_in_every_document_and_again_changes_nothing(
    any_db: Database, old: str, new: str, before: Any, after: Any
) -> None:
    await any_db["things"].insert_many([{"_id": n, **before} for n in range(5)] + [{"_id": "without"}])
    assert await rename_field(any_db["things"], old, new, batch_size=2) == 5
    assert await rename_field(any_db["things"], old, new, batch_size=2) == 0
    assert await documents(any_db) == [{"_id": n, **after} for n in range(5)] + [{"_id": "without"}]


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        pytest.param("a", "b", "2 documents have both a and b, among them that with _id 2", id="both"),
        pytest.param("list.x", "y", "1 documents have an array, among them that with _id 'array'", id="array"),
        pytest.param("y.z", "list.x", "1 documents have an array", id="array on the way to the new one"),
        pytest.param("", "b", "not a name of a field", id="empty"),
        pytest.param("a", "b..c", "not a name of a field", id="empty part"),
        pytest.param("a", "$b", "not a name of a field", id="operator"),
        pytest.param("_id", "b", "_id cannot be changed", id="_id"),
        pytest.param("a", "_id.b", "_id cannot be changed", id="part of _id"),
        pytest.param("a", "a.b", "inside the other", id="new is inside old"),
        pytest.param("a.b", "a", "inside the other", id="old is inside new"),
        pytest.param("a", "a", "they are one", id="the same"),
    ],
)
async def test_a_renaming_that_would_lose_something_is_refused_before_it_starts(
    db: Database, local_server: LocalServer, old: str, new: str, problem: str
) -> None:
    await db["things"].insert_many([{"_id": 1, "a": 1}, {"_id": 2, "a": 1, "b": 2}, {"_id": 3, "a": 1, "b": 2}])
    await db["things"].insert_one({"_id": "array", "list": [{"x": 1}], "y": {"z": 1}})
    with pytest.raises(NotPossible, match=problem):
        await rename_field(db["things"], old, new)
    assert updates(local_server) == []


async def test_a_new_field_that_appears_meanwhile_is_not_overwritten(
    db: Database, local_server: LocalServer, other: Other
) -> None:
    await db["things"].insert_many([{"_id": n, "a": n} for n in range(3)])
    local_server.controls.call(lambda _: other.find_one_and_update({"_id": 1}, {"$set": {"b": "new"}}), when=is_update)
    with pytest.raises(NotPossible, match="1 documents have both a and b, among them that with _id 1"):
        await rename_field(db["things"], "a", "b")
    assert await documents(db) == [{"_id": 0, "b": 0}, {"_id": 1, "a": 1, "b": "new"}, {"_id": 2, "b": 2}]


async def test_a_field_is_removed_from_every_document(any_db: Database) -> None:
    await any_db["things"].insert_many([{"_id": n, "a": {"b": n, "c": 0}} for n in range(5)])
    assert await unset_field(any_db["things"], "a.b", batch_size=2) == 5
    assert await unset_field(any_db["things"], "a.b", batch_size=2) == 0
    assert await documents(any_db) == [{"_id": n, "a": {"c": 0}} for n in range(5)]


async def test_a_field_in_the_elements_of_an_array_is_refused_and_not_left_silently(db: Database) -> None:
    await db["things"].insert_one({"_id": 1, "a": [{"b": 1}]})
    with pytest.raises(NotPossible, match=r"an array, among them that with _id 1; .* use transform"):
        await unset_field(db["things"], "a.b")


# -- in a run


async def test_a_killed_run_goes_on_after_the_last_finished_batch(
    db: Database, local_server: LocalServer, local_clock: ManualClock, folder: Path, write: Write
) -> None:
    await numbered(db, 100)
    write("001_things.py", TRANSFORM)
    program = (
        "import asyncio, sys; from motor.motor_asyncio import AsyncIOMotorClient as Client\n"
        "from mydocs.migrations import migrate\n"
        "from mydocs.migrations.limits import Limits, limited_to\n"
        "async def main(): await migrate(Client(sys.argv[1])['app'], directory=sys.argv[2])\n"
        "with limited_to(Limits(noise=float('inf'))): asyncio.run(main())"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(mydocs.__file__).parents[1])}
    command = [sys.executable, "-c", program, local_server.url, str(folder)]
    async with await anyio.open_process(command, env=environment, stdout=None, stderr=None) as process:
        local_server.controls.call(lambda _: process.kill(), when=is_update, at=6)
        assert await process.wait() == -9
    local_server.controls.wait_for(lambda r: is_update(r) and len(updates(local_server)) == 6)
    local_clock.advance(31)  # what is left of the lease
    seen: list[Event] = []
    await migrate(db, directory=folder, on_event=seen.append)
    assert [document["m"] for document in await documents(db)] == list(range(100))
    batches = [e for e in seen if isinstance(e, BatchDone)]
    kept = batches[0].done - 10
    assert kept in (40, 50)  # a place is kept while the next batch is written
    assert (batches[-1].done, batches[-1].total) == (100, 100)
    read = [r for r in local_server.controls.counted() if r.name == "find" and r.body["find"] == "things"]
    # Ten batches, some of them twice, the empty one at the end, and the listing above.
    ahead = len(read) - (10 + (60 - kept) // 10 + 1 + 1)
    assert 0 <= ahead <= 2  # what the killed run had read and not written
    entry = await db["_migrations"].find_one({"_id": "001"})
    assert entry is not None
    assert (entry["state"], entry["attempts"], "checkpoint" in entry) == ("applied", 2, False)


async def test_a_plain_script_with_a_loop_and_a_client_of_its_own_keeps_its_place_too(
    any_db: Database, local_server: LocalServer, folder: Path, write: Write
) -> None:
    write(
        "001_things.py",
        f"""
        import asyncio
        from motor.motor_asyncio import AsyncIOMotorClient
        from mydocs.migrations import transform

        def change(document):
            if "stop" in document:
                raise ValueError("stop")
            return {{"$set": {{"m": 1}}}}

        async def main():
            await transform(client.app.things, {{}}, change, batch_size=10)

        client = AsyncIOMotorClient({local_server.url!r})
        try:
            asyncio.run(main())
        finally:
            client.close()
        """,
    )
    await numbered(any_db, 30)
    await any_db["things"].update_one({"_id": 20}, {"$set": {"stop": True}})
    with pytest.raises(MigrationFailed, match="ValueError: stop"):
        await migrate(any_db, directory=folder, standard_indexes={})
    await any_db["things"].update_one({"_id": 20}, {"$unset": {"stop": 1}})
    events: list[Event] = []
    await migrate(any_db, directory=folder, standard_indexes={}, on_event=events.append)
    assert [event.done for event in events if isinstance(event, BatchDone)] == [30]  # the first two are not done again
    assert {document.get("m") for document in await documents(any_db)} == {1}


@pytest.mark.parametrize(
    ("edit", "first_done"),
    [pytest.param("", 30, id="same text"), pytest.param("\nEDITED = True\n", 10, id="edited text")],
)
async def test_a_failed_script_goes_on_from_its_checkpoint_as_long_as_it_is_the_same(
    any_db: Database, folder: Path, write: Write, edit: str, first_done: int
) -> None:
    await numbered(any_db, 50)
    script = write("001_things.py", TRANSFORM)
    await any_db["broken"].insert_one({})
    with pytest.raises(MigrationFailed, match="broken"):
        await migrate(any_db, directory=folder)
    await any_db["broken"].drop()
    script.write_text(script.read_text() + edit)
    seen: list[Event] = []
    await migrate(any_db, directory=folder, on_event=seen.append)
    assert next(e.done for e in seen if isinstance(e, BatchDone)) == first_done
    assert [document["m"] for document in await documents(any_db)] == list(range(50))


async def test_a_call_that_is_left_out_the_second_time_lends_its_place_to_no_other(
    db: Database, folder: Path, write: Write
) -> None:
    await numbered(db, 30)
    write(
        "001_things.py",
        """
        from mydocs.migrations import transform, unset_field
        async def up(db):
            if await db.things.find_one({"a": 1}) is None:
                await transform(db.things, {}, lambda d: {"$set": {"a": 1}})
                raise ValueError("after the first")
            await transform(db.things, {}, lambda d: {"$set": {"b": 1}})
            await unset_field(db.things, "n")
        """,
    )
    with pytest.raises(MigrationFailed, match="after the first"):
        await migrate(db, directory=folder)
    await migrate(db, directory=folder)
    assert await documents(db) == [{"_id": n, "a": 1, "b": 1} for n in range(30)]


async def test_a_run_that_lost_its_entry_writes_at_most_one_batch_more(
    db: Database, local_server: LocalServer, folder: Path, write: Write, other: Other
) -> None:
    await numbered(db, 30)
    write("001_things.py", TRANSFORM)
    ledger = other.database["_migrations"]
    successor = {"$set": {"run.id": "successor"}}
    local_server.controls.call(lambda _: ledger.update_one({"_id": "001"}, successor), when=is_update, at=2)
    with pytest.raises(LeaseLost):
        await migrate(db, directory=folder)
    assert 2 <= len(updates(local_server)) <= 3  # a batch is written while the place of the one before is kept


# -- at the limits of a message


@pytest.mark.parametrize("size", [16_000, 17_000, 40_000])
async def test_a_batch_of_any_size_is_written_in_messages_that_the_driver_sends(
    any_db: Database, local_server: LocalServer, size: int
) -> None:
    await any_db["things"].insert_many([{"_id": n, "text": "x" * size} for n in range(1_000)])
    assert await transform(any_db["things"], {"m": {"$exists": False}}, lambda d: {"$set": {"m": 1}}) == 1_000
    assert await any_db["things"].count_documents({"m": 1}) == 1_000
    sent = [bson.encode(recorded.body) for recorded in updates(local_server)]
    assert max(map(len, sent)) < statements.MESSAGE_BYTES + 16_000
    assert (len(sent) == 1) == (size == 16_000)


@pytest.mark.parametrize("over", [pytest.param(0, id="as large as may be"), pytest.param(1, id="a byte more")])
async def test_a_statement_may_be_as_large_as_a_message(db: Database, local_server: LocalServer, over: int) -> None:
    await db["things"].insert_many([{"_id": n, "text": ""} for n in range(2)])
    empty = _statement_of(await db["things"].find_one({"_id": 0}))
    text = "x" * (statements.MESSAGE_BYTES - empty + over)
    await db["things"].update_one({"_id": 0}, {"$set": {"text": text}})
    if over:
        with pytest.raises(ChangeInvalid, match=f"have {statements.MESSAGE_BYTES + 1} bytes together"):
            await transform(db["things"], {}, lambda d: {"$set": {"m": 1}})
    else:
        assert await transform(db["things"], {}, lambda d: {"$set": {"m": 1}}) == 2
        assert [len(recorded.body["updates"]) for recorded in updates(local_server)[1:]] == [1, 1]


async def test_documents_are_read_again_by_any_number_of_large_ids(
    db: Database, local_server: LocalServer, other: Other
) -> None:
    ids = [f"{n}" * 1_000_000 for n in range(9)] + [f"{n}x" * 500_000 for n in range(9)]
    for identity in ids:
        await db["things"].insert_one({"_id": identity, "n": 0})
    local_server.controls.call(lambda _: other.find_one_and_update({"_id": ids[3]}, {"$set": {"n": 5}}), when=is_update)
    assert await transform(db["things"], {}, lambda d: None if "m" in d else {"$set": {"m": d["n"]}}) == len(ids)
    assert await db["things"].count_documents({"m": 5}) == 1


async def test_a_field_is_renamed_and_removed_by_any_number_of_large_ids(db: Database) -> None:
    for n in range(18):
        await db["things"].insert_one({"_id": str(n) * 500_000 + "x" * 500_000, "a": n})
    assert await rename_field(db["things"], "a", "b") == 18
    assert await unset_field(db["things"], "b") == 18


# -- an engine that does otherwise


async def test_an_engine_that_ignores_min_is_an_error_that_says_so(db: Database, local_server: LocalServer) -> None:
    await numbered(db, 6)

    def ignore_min(recorded: Recorded) -> None:
        cast(dict[str, Any], recorded.body).pop("min", None)

    local_server.controls.call(ignore_min, when=lambda recorded: recorded.name == "find", times=None)
    with pytest.raises(NotPossible, match=r"ended with _id 1 the server sent one that begins with _id 0; .* `min`"):
        await transform(db["things"], {}, lambda d: None, batch_size=2)
    with pytest.raises(NotPossible, match="does not keep to `min`"):
        await unset_field(db["things"], "n", batch_size=2)


@pytest.mark.parametrize("options", [{"collation": {"locale": "en", "strength": 2}}, {}], ids=["collation", "none"])
async def test_only_a_collation_may_put_texts_into_another_order(
    db: Database, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    async def listed(db: Database, body: dict[str, Any]) -> list[dict[str, Any]]:
        return [{"name": body["filter"]["name"], "options": options}]

    monkeypatch.setattr(commands, "documents_again", listed)  # the local server has no collations
    after, source = bson.encode({"_id": "a"}), walk.Source(db=db, name="things", wanted=statements.encoded({}))
    await walk._check_order(source, after, "b", "a")  # noqa: SLF001
    if options:
        await walk._check_order(source, after, "B", "a")  # noqa: SLF001
    for found, first in (("B", "B"), (7, 6)) if options else (("B", "a"), (7, 6)):
        with pytest.raises(NotPossible, match="does not keep to `min`"):
            await walk._check_order(source, after, found, first)  # noqa: SLF001


def _statement_of(document: Any) -> int:
    """The bytes of what is sent to change it."""
    read = statements.encoded(document)
    return len(statements.encoded({"q": statements.Guard().query(read), "u": {"$set": {"m": 1}}}).raw)
