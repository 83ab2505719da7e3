"""What stands in the ledger: written around each script, fenced by run and term, read with suspicion."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import bson
import pytest
from bson import ObjectId
from bson.datetime_ms import DatetimeMS
from motor.motor_asyncio import AsyncIOMotorDatabase

from mydocs.localserver import LocalServer
from mydocs.migrations import migrate
from mydocs.migrations.driver import commands
from mydocs.migrations.errors import (
    ChangedScripts,
    LeaseLost,
    LedgerChanged,
    LedgerInvalid,
    NotPossible,
    ServerError,
)
from mydocs.migrations.ledger import documents
from mydocs.migrations.ledger import lease as leases
from mydocs.migrations.ledger.documents import attempt_of, finished_fields, parse, parse_attempt
from mydocs.migrations.ledger.entries import opening, read
from mydocs.migrations.ledger.held_ledger import HeldLedger
from mydocs.migrations.ledger.lease import Lease, Owner, acquire, clock, release
from mydocs.migrations.model import (
    Entry,
    IndexAction,
    IndexType,
    MigrationState,
    RunStamp,
    SearchAlias,
    StoredError,
    TrackedIndex,
)
from mydocs.migrations.scripts.source import checksum

Db = AsyncIOMotorDatabase[dict[str, Any]]

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
OK: dict[str, Any] = {"_id": "001", "name": "a", "state": "applied"}
UP = "async def up(db):\n    await db['runs'].insert_one({})\n"


def stamp(run: str = "run", term: int = 1) -> RunStamp:
    return RunStamp(run_id=run, term=term, host="h", pid=1, tool="t")


def lease(run: str = "run", term: int = 1) -> Lease:
    return Lease(owner=Owner(run_id=run), term=term, deadline=clock() + 30)


async def begin(db: Db, *, previous: Entry | None = None, run: str = "run", term: int = 1, **fields: Any) -> Entry:
    given = {"version": "001", "name": "a", "script": "001_a.py", "checksum": "sha256:1"} | fields
    entry = opening(stamp(run, term), at=NOON, previous=previous, **given)
    await HeldLedger(db=db, lease=lease(run, term)).start(entry, previous)
    return entry


def ended(entry: Entry, state: MigrationState = MigrationState.APPLIED, **fields: Any) -> Entry:
    return replace(entry, state=state, finished_at=NOON, seconds=1.5, **fields)


async def stored(db: Db) -> list[dict[str, Any]]:
    return await db[documents.COLLECTION].find().sort("_id", 1).to_list(None)


async def logged(db: Db) -> list[dict[str, Any]]:
    return await db[documents.LOG_COLLECTION].find().sort("_id", 1).to_list(None)


# Reading


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        pytest.param({"_id": 1}, "its _id is not a version", id="number as version"),
        pytest.param({"_id": "one"}, "its _id is not a version", id="word as version"),
        pytest.param({"_id": "\u0660\u0660\u0661"}, "its _id is not a version", id="digits beyond ASCII"),
        pytest.param({"_id": ObjectId()}, "its _id is not a version", id="a foreign document"),
        pytest.param({"state": "done"}, "its state is 'done'", id="unknown state"),
        pytest.param({"state": None}, "its state is None", id="no state"),
        pytest.param({"state": 7}, "its state is 7", id="number as state"),
        pytest.param({"state": ["applied"]}, r"its state is \['applied'\]", id="list as state"),
        pytest.param({"state": "pending"}, "its state is 'pending'", id="a state that is never stored"),
        pytest.param({"state": "interrupted"}, "its state is 'interrupted'", id="another one"),
        pytest.param({"indexes": "ft"}, "its `indexes` are not a list", id="text as indexes"),
        pytest.param({"indexes": None}, "its `indexes` are not a list", id="null as indexes"),
        pytest.param({"indexes": ["ft"]}, "its `indexes` hold 'ft'", id="text as index"),
        pytest.param({"indexes": [{"name": "ft"}]}, "its `indexes` hold", id="index without collection"),
        pytest.param({"indexes": [{"name": 1, "collection": "p"}]}, "its `indexes` hold", id="index with a number"),
        pytest.param(
            {"indexes": [{"name": "ft", "collection": "p", "type": "fancy"}]}, "index ft: .*fancy", id="unknown type"
        ),
        pytest.param(
            {"indexes": [{"name": "ft", "collection": "p", "action": "eaten"}]}, "index ft: .*eaten", id="bad action"
        ),
        pytest.param({"file_name": "notes.txt"}, "its file_name 'notes.txt' has no version", id="legacy, no version"),
    ],
)
@pytest.mark.anyio
async def test_a_document_of_another_shape_is_named_and_nothing_is_written(
    local_db: Db, local_server: LocalServer, tmp_path: Path, changes: dict[str, Any], says: str
) -> None:
    document = OK | changes
    await local_db[documents.COLLECTION].insert_one(document)
    (tmp_path / "001_a.py").write_text(UP)
    local_server.controls.clear()
    with pytest.raises(LedgerInvalid, match=says) as caught:
        await migrate(local_db, directory=tmp_path)
    assert repr(document["_id"]) in str(caught.value)
    assert caught.value.exit_code == 1
    assert local_server.controls.counts().keys() == {"aggregate"}
    assert await stored(local_db) == [document]


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"attempts": "three"}, id="attempts"),
        pytest.param({"attempts": True}, id="attempts as a flag"),
        pytest.param({"seconds": "1"}, id="seconds"),
        pytest.param({"started_at": "yesterday"}, id="time"),
        pytest.param({"error": "it broke"}, id="error"),
        pytest.param({"run": 5}, id="run"),
        pytest.param({"run": {"term": "1"}}, id="term"),
        pytest.param({"checksum": 5}, id="checksum"),
        pytest.param({"note": "by hand"}, id="one field more"),
    ],
)
def test_a_field_that_only_informs_is_read_as_absent_when_it_is_wrong(changes: dict[str, Any]) -> None:
    entry = parse(OK | changes)
    assert (entry.version, entry.state, entry.attempts) == ("001", MigrationState.APPLIED, 1)


@pytest.mark.anyio
async def test_what_is_written_is_read_again(local_db: Db) -> None:
    entry = await begin(local_db)
    assert (await read(local_db)).entries == (entry,)
    record = TrackedIndex(
        collection="pages",
        name="ft",
        type=IndexType.VECTOR,
        action=IndexAction.UPDATED,
        definition={"fields": [{"type": "vector", "path": "a.b"}]},
        asked_at=NOON,
    )
    done = ended(entry, MigrationState.FAILED, error=StoredError(type="ValueError", message="no"), indexes=(record,))
    await HeldLedger(db=local_db, lease=lease()).finish(done)
    assert (await read(local_db)).entries == (done,)


def test_the_aliases_that_a_script_has_switched_are_read_again() -> None:
    alias = SearchAlias(alias="vec", collection="pages", index="vec_2", previous="vec_1")
    entry = parse(OK | {"aliases": [{"alias": "vec", "collection": "pages", "index": "vec_2", "previous": "vec_1"}]})
    assert entry.aliases == (alias,)
    assert parse(documents.document_of(entry)).aliases == (alias,)
    assert finished_fields(entry)["aliases"] == documents.document_of(entry)["aliases"]


@pytest.mark.parametrize("aliases", [None, "vec", [3], [{"alias": "vec", "collection": "pages", "index": None}]])
def test_what_is_no_alias_is_passed_over(aliases: object) -> None:
    assert parse(OK | {"aliases": aliases}).aliases == ()


def test_what_the_log_keeps_of_an_attempt_is_read_again() -> None:
    entry = Entry(
        version="001",
        name="a",
        script="001_a.py",
        checksum=None,
        state=MigrationState.FAILED,
        attempts=3,
        started_at=NOON,
        finished_at=NOON,
        seconds=1.5,
        error=StoredError(type="ValueError", message="no"),
        run=stamp(),
    )
    assert parse_attempt(attempt_of(entry, "up")) == entry


@pytest.mark.anyio
async def test_reading_is_one_command_and_creates_nothing(local_db: Db, local_server: LocalServer) -> None:
    snapshot = await read(local_db)
    assert (snapshot.entries, snapshot.lease) == ((), None)
    assert local_server.controls.counts() == {"aggregate": 1}
    assert await local_db.list_collection_names() == []


@pytest.mark.anyio
async def test_the_lease_is_read_with_the_entries_by_the_clock_of_the_server(local_db: Db) -> None:
    owner = Owner(host="h", pid=5, run_id="run")
    held = await acquire(local_db, owner)
    assert held is not None
    view = (await read(local_db)).lease
    assert view is not None
    assert (view.run_id, view.term, view.live) == ("run", 1, True)
    assert 25 < view.remaining <= 30
    await release(local_db, held)
    view = (await read(local_db)).lease
    assert view is not None
    assert (view.run_id, view.live, view.remaining) == (None, False, 0.0)


# Writing


@pytest.mark.anyio
async def test_the_ledger_says_running_before_the_script_and_applied_after_it(
    local_db: Db, local_server: LocalServer, tmp_path: Path
) -> None:
    (tmp_path / "001_a.py").write_text(UP)
    await migrate(local_db, directory=tmp_path, standard_indexes={})
    told = []
    for recorded in local_server.controls.counted():
        if recorded.name == "insert":
            told.append("script")
        elif recorded.name == "update" and recorded.body["update"] == documents.COLLECTION:
            update = recorded.body["updates"][0]["u"]
            told.append(update.get("state") or update["$set"]["state"])
            assert recorded.body["writeConcern"] == {"w": "majority"}
    assert told == ["running", "script", "applied"]


@pytest.mark.anyio
async def test_a_first_attempt_writes_nothing_to_the_log(local_db: Db, local_server: LocalServer) -> None:
    entry = await begin(local_db)
    await HeldLedger(db=local_db, lease=lease()).finish(ended(entry))
    assert local_server.controls.counts()["update"] == 2
    assert await logged(local_db) == []


@pytest.mark.anyio
async def test_a_second_attempt_moves_the_first_one_to_the_log(local_db: Db) -> None:
    failed = ended(await begin(local_db), MigrationState.FAILED, error=StoredError(type="E", message="m"))
    await HeldLedger(db=local_db, lease=lease()).finish(failed)
    again = await begin(local_db, previous=failed, run="second", term=2)
    assert again.attempts == 2
    (kept,) = await logged(local_db)
    assert (kept["version"], kept["attempt"], kept["outcome"], kept["error"]) == (
        *("001", 1, "failed"),
        {"type": "E", "message": "m"},
    )
    await HeldLedger(db=local_db, lease=lease()).log(failed, direction="up")
    assert len(await logged(local_db)) == 1, "keeping an attempt twice changes nothing"


@pytest.mark.parametrize(
    ("changes", "kept"),
    [
        pytest.param({}, {"step": 1}, id="same text"),
        pytest.param({"checksum": "sha256:2"}, None, id="edited"),
        pytest.param({"direction": "down"}, None, id="the other way"),
    ],
)
@pytest.mark.anyio
async def test_checkpoints_count_only_for_the_same_function_of_the_same_text(
    local_db: Db, changes: dict[str, Any], kept: object
) -> None:
    failed = ended(await begin(local_db), MigrationState.FAILED)
    await HeldLedger(db=local_db, lease=lease()).finish(failed)
    previous = replace(failed, checkpoint={"step": 1})
    again = await begin(local_db, previous=previous, run="second", term=2, **changes)
    assert again.checkpoint == kept


@pytest.mark.anyio
async def test_starting_again_after_a_lost_reply_changes_nothing(local_db: Db) -> None:
    first = await begin(local_db)
    second = await begin(local_db)
    assert second.attempts == 1
    assert len(await stored(local_db)) == 1
    assert first.run == second.run


# Fencing


async def taken_over(db: Db) -> tuple[Entry, Entry]:
    """A script whose run of term 1 is paused, and the attempt of its successor of term 2."""
    old = await begin(db, run="old", term=1)
    (known,) = (await read(db)).entries
    return old, await begin(db, previous=known, run="new", term=2)


@pytest.mark.anyio
async def test_the_end_of_an_older_term_does_not_overwrite_a_successor(local_db: Db) -> None:
    old, new = await taken_over(local_db)
    with pytest.raises(LeaseLost):
        await HeldLedger(db=local_db, lease=lease("old", 1)).finish(ended(old))
    assert (await read(local_db)).entries == (new,)


@pytest.mark.anyio
async def test_the_start_of_an_older_term_does_not_overwrite_a_successor(local_db: Db) -> None:
    _, new = await taken_over(local_db)
    with pytest.raises(LeaseLost):
        await begin(local_db, run="late", term=1)
    assert (await read(local_db)).entries == (new,)


@pytest.mark.anyio
async def test_a_successor_that_meets_a_late_end_is_told_and_does_not_run_the_script_again(local_db: Db) -> None:
    old = await begin(local_db, run="old", term=1)
    (known,) = (await read(local_db)).entries
    await HeldLedger(db=local_db, lease=lease("old", 1)).finish(ended(old))
    with pytest.raises(LeaseLost):
        await begin(local_db, previous=known, run="new", term=2)
    assert (await stored(local_db))[0]["state"] == "applied"


@pytest.mark.anyio
async def test_put_remove_and_untrack_leave_an_entry_alone_that_somebody_else_has_changed(local_db: Db) -> None:
    old, new = await taken_over(local_db)
    record = TrackedIndex(collection="p", name="ft", type=IndexType.SEARCH, action=IndexAction.CREATED)
    with pytest.raises(LeaseLost):
        await HeldLedger(db=local_db, lease=lease()).put(ended(old), old)
    with pytest.raises(LeaseLost):
        await HeldLedger(db=local_db, lease=lease()).put(ended(old), None)
    await HeldLedger(db=local_db, lease=lease()).remove(old)
    await HeldLedger(db=local_db, lease=lease()).untrack([replace(old, indexes=(record,))], [record])
    assert (await read(local_db)).entries == (new,)


def following(run: str = "run", term: int = 1) -> Entry:
    return opening(stamp(run, term), at=NOON, version="002", name="b", script="002_b.py", checksum="sha256:2")


@pytest.mark.anyio
async def test_an_end_and_the_next_start_are_one_command_that_may_be_sent_again(
    local_db: Db, local_server: LocalServer
) -> None:
    first, second = await begin(local_db), following()
    record = TrackedIndex(
        collection="p",
        name="ft",
        type=IndexType.SEARCH,
        action=IndexAction.CREATED,
        definition={"mappings": {"fields": {"a": [{"type": "string"}], "price": {"type": "$number"}}}},
    )
    await local_db[documents.COLLECTION].update_one({"_id": "001"}, {"$set": {"checkpoint": {"a": 1}, "note": "kept"}})
    local_server.controls.clear()
    local_server.controls.cut_after()
    assert (await HeldLedger(db=local_db, lease=lease()).finish_and_start(ended(first, indexes=(record,)), second))[
        1
    ] == second
    assert local_server.controls.counts() == {"update": 2}
    assert (await read(local_db)).entries == (ended(first, indexes=(record,)), second)
    stored_first, _ = await stored(local_db)
    assert "checkpoint" not in stored_first
    assert stored_first["note"] == "kept"


@pytest.mark.parametrize("is_there", [True, False])
@pytest.mark.anyio
async def test_a_holder_that_has_lost_its_lease_unknowingly_begins_nothing(local_db: Db, is_there: bool) -> None:
    old, new = await taken_over(local_db)
    held_by_new = {"_id": "lease", "term": 2, "owner": {"id": "new"}, "expires_at": NOON}
    await local_db[leases.COLLECTION].insert_one(held_by_new)
    if not is_there:
        await HeldLedger(db=local_db, lease=lease()).remove(new)
    before = await stored(local_db)
    with pytest.raises(LeaseLost):
        await HeldLedger(db=local_db, lease=lease("old", 1)).finish_and_start(ended(old), following("old", 1))
    assert await stored(local_db) == before


@pytest.mark.anyio
async def test_a_next_start_that_finds_an_entry_of_somebody_else_leaves_it_and_keeps_the_end(local_db: Db) -> None:
    first = await begin(local_db)
    late = following("late", 0)
    await HeldLedger(db=local_db, lease=lease("late", 0)).start(late, None)
    assert await HeldLedger(db=local_db, lease=lease()).finish_and_start(ended(first), following()) == (
        ended(first),
        None,
    )
    assert (await read(local_db)).entries == (ended(first), late)


@pytest.mark.anyio
async def test_nothing_is_written_by_a_holder_whose_time_is_up(local_db: Db, local_server: LocalServer) -> None:
    late = Lease(owner=Owner(run_id="run"), term=1, deadline=clock() - 1)
    entry = Entry(version="001", name="a", script=None, checksum=None, state=MigrationState.APPLIED, run=stamp())
    writes = [
        HeldLedger(db=local_db, lease=late).start(entry, None),
        HeldLedger(db=local_db, lease=late).finish(entry),
        HeldLedger(db=local_db, lease=late).finish_and_start(entry, entry),
        HeldLedger(db=local_db, lease=late).put(entry, None),
        HeldLedger(db=local_db, lease=late).remove(entry),
        HeldLedger(db=local_db, lease=late).untrack([entry], []),
        HeldLedger(db=local_db, lease=late).adopt([replace(entry, legacy=True)], []),
    ]
    for write in writes:
        with pytest.raises(LeaseLost):
            await write
    assert not local_server.controls.counted()


def test_the_end_of_a_script_touches_only_the_fields_that_it_decides() -> None:
    entry = Entry(version="001", name="a", script=None, checksum=None, state=MigrationState.APPLIED, run=stamp())
    assert finished_fields(entry).keys() == {"state", "finished_at", "seconds", "error", "indexes"}


# The application's earlier runner


@pytest.mark.parametrize(
    "run_at",
    [
        pytest.param("2025-03-04T05:06:07", id="text"),
        pytest.param("2025-03-04T05:06:07+00:00", id="text with a zone"),
        pytest.param("2025-03-04T06:06:07+01:00", id="text in another zone"),
        pytest.param(datetime(2025, 3, 4, 5, 6, 7), id="date"),  # noqa: DTZ001  # as a client without tz_aware gives it
    ],
)
def test_a_document_of_the_earlier_runner_counts_as_applied(run_at: object) -> None:
    entry = parse({"_id": ObjectId(), "file_name": "001_fulltext_documents.py", "run_at": run_at})
    assert (entry.version, entry.name, entry.state, entry.legacy) == (
        *("001", "fulltext_documents"),
        *(MigrationState.APPLIED, True),
    )
    assert entry.finished_at == datetime(2025, 3, 4, 5, 6, 7, tzinfo=UTC)


def test_a_time_of_the_earlier_runner_that_makes_no_sense_is_no_error() -> None:
    entry = parse({"_id": ObjectId(), "file_name": "001_a.py", "run_at": "last spring"})
    assert (entry.state, entry.finished_at) == (MigrationState.APPLIED, None)


@pytest.fixture
async def legacy(local_db: Db, tmp_path: Path) -> Path:
    """A folder of two scripts of which the earlier runner has applied the first."""
    for name in ("001_a.py", "002_b.py"):
        (tmp_path / name).write_text(UP)
    await local_db[documents.COLLECTION].insert_one({"file_name": "001_a.py", "run_at": "2025-03-04T05:06:07"})
    return tmp_path


async def assert_adopted(db: Db, text: str = UP) -> None:
    first, second = await stored(db)
    assert (first["_id"], second["_id"]) == ("001", "002")
    assert (first["state"], first["name"], first["script"]) == ("applied", "a", "001_a.py")
    assert first["checksum"] == checksum(text)
    assert first["finished_at"] == datetime(2025, 3, 4, 5, 6, 7)  # noqa: DTZ001  # this client gives no zone
    assert await db["runs"].count_documents({}) == 1


@pytest.mark.anyio
async def test_the_next_run_with_something_to_do_rewrites_the_earlier_runners_documents(
    local_db: Db, legacy: Path
) -> None:
    await migrate(local_db, directory=legacy, standard_indexes={})
    await assert_adopted(local_db)


@pytest.mark.anyio
async def test_a_run_with_nothing_to_do_leaves_the_earlier_runners_documents(local_db: Db, legacy: Path) -> None:
    (legacy / "002_b.py").unlink()
    await migrate(local_db, directory=legacy, standard_indexes={})
    assert [document["file_name"] for document in await stored(local_db)] == ["001_a.py"]


@pytest.mark.anyio
async def test_a_stop_between_the_two_steps_of_the_adoption_loses_nothing(
    local_db: Db, local_server: LocalServer, legacy: Path
) -> None:
    local_server.controls.error(13, "stop here", command="delete")
    with pytest.raises(ServerError):
        await migrate(local_db, directory=legacy, standard_indexes={})
    assert len(await stored(local_db)) == 2, "the old document and the new one"
    await migrate(local_db, directory=legacy, standard_indexes={})
    await assert_adopted(local_db)


@pytest.mark.anyio
async def test_an_adopted_script_that_was_edited_since_is_accepted_once_and_then_compared(
    local_db: Db, legacy: Path
) -> None:
    edited = UP + "# edited before the adoption\n"
    (legacy / "001_a.py").write_text(edited)
    await migrate(local_db, directory=legacy, standard_indexes={})
    await assert_adopted(local_db, edited)
    (legacy / "001_a.py").write_text(UP)
    with pytest.raises(ChangedScripts):
        await migrate(local_db, directory=legacy, standard_indexes={})


# What others have stored

LATE = DatetimeMS(253_402_300_800_000)  # the first moment of the year 10000, which Python has no date for


@pytest.mark.anyio
async def test_a_date_beyond_9999_is_passed_over(local_db: Db) -> None:
    await local_db[documents.COLLECTION].insert_one(OK | {"started_at": LATE, "finished_at": LATE})
    (entry,) = (await read(local_db)).entries
    assert (entry.state, entry.started_at, entry.finished_at) == (MigrationState.APPLIED, None, None)


def test_a_lease_until_beyond_9999_is_shown() -> None:
    held = {"_id": "lease", "owner": {"id": "x", "host": "h", "pid": 1}, "term": 3, "acquired_at": LATE}
    view = leases.parse(held | {"expires_at": LATE, "remaining": 1000.0})
    assert (view.run_id, view.live, view.acquired_at) == ("x", True, None)


def test_text_that_is_no_utf_8_is_read() -> None:
    document = bson.encode(OK | {"script": "001_XX.py"}).replace(b"XX", b"\xff\xff")
    assert parse(bson.decode(document, commands.OWN_CODEC)).script == "001_\ufffd\ufffd.py"


@pytest.mark.parametrize(
    "document",
    [
        pytest.param({"_id": "1" * 5000, "name": "a", "state": "applied"}, id="version"),
        pytest.param({"_id": ObjectId(), "file_name": "1" * 5000 + "_a.py", "run_at": ""}, id="file name"),
    ],
)
def test_a_version_that_no_file_can_have_is_named_in_short(document: dict[str, Any]) -> None:
    with pytest.raises(LedgerInvalid) as caught:
        parse(document)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "run_at", ["0001-01-01T00:00:00+05:00", datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=5)))]
)
def test_an_earlier_runner_s_time_that_has_no_date_in_utc_is_passed_over(run_at: Any) -> None:
    assert parse({"_id": ObjectId(), "file_name": "001_a.py", "run_at": run_at}).started_at is None


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), float("-inf")])
def test_a_duration_that_is_no_finite_number_is_passed_over(seconds: float) -> None:
    assert parse(OK | {"seconds": seconds}).seconds is None


@pytest.mark.anyio
async def test_an_attempt_after_the_last_that_can_be_counted_can_be_stored(local_db: Db) -> None:
    await local_db[documents.COLLECTION].insert_one(OK | {"state": "failed", "attempts": 2**63 - 1})
    (previous,) = (await read(local_db)).entries
    entry = await begin(local_db, previous=previous)
    await HeldLedger(db=local_db, lease=lease()).finish(ended(entry))
    assert (await stored(local_db))[0]["state"] == "applied"


@pytest.mark.anyio
async def test_an_entry_that_is_too_large_is_stored_without_its_definitions(local_db: Db) -> None:
    large = {"mappings": {"fields": {"a" * 9_000_000: {"type": "string"}}}}
    index = TrackedIndex(collection="p", name="ft", type=IndexType.SEARCH, action=IndexAction.CREATED, definition=large)
    both = (index, replace(index, name="other"))
    held = HeldLedger(db=local_db, lease=lease())
    entry = await begin(local_db)
    kept, begun = await held.finish_and_start(ended(entry, indexes=both), following())
    assert ([index.definition for index in kept.indexes], begun) == ([None, None], None)
    (found,) = (await read(local_db)).entries
    assert (found.state, found.indexes) == (MigrationState.APPLIED, kept.indexes)


@pytest.mark.anyio
async def test_a_unique_index_on_the_ledger_is_named(local_db: Db) -> None:
    await local_db[documents.COLLECTION].create_index("state", unique=True, name="one_of_each")
    await begin(local_db)
    with pytest.raises(NotPossible, match=r"unique index one_of_each of _migrations does not take the entry of 002"):
        await HeldLedger(db=local_db, lease=lease()).start(following(), None)


@pytest.mark.anyio
async def test_a_unique_index_on_the_lease_is_named(local_db: Db) -> None:
    await local_db[leases.COLLECTION].create_index("term", unique=True, name="terms")
    await local_db[leases.COLLECTION].insert_one({"_id": "other", "term": 1})
    with pytest.raises(NotPossible, match="unique index terms of _migrations_lock does not take the lease"):
        await acquire(local_db, Owner())


@pytest.mark.parametrize("drop", ['drop_collection("_migrations")', "client.drop_database(db.name)"])
@pytest.mark.anyio
async def test_a_script_that_drops_the_ledger_is_told_so(local_db: Db, tmp_path: Path, drop: str) -> None:
    (tmp_path / "001_drops.py").write_text(f"async def up(db):\n    await db.{drop}\n")
    (tmp_path / "002_next.py").write_text(UP)
    with pytest.raises(LedgerChanged, match="the entry of 001 is gone from _migrations") as caught:
        await migrate(local_db, directory=tmp_path, standard_indexes={})
    assert caught.value.exit_code == 1
    assert await local_db["runs"].count_documents({}) == 0
