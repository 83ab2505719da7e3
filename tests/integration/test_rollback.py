"""The way back: newest first, checked before the first, recorded as truly as the way forth."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from functools import partial
from math import inf
from pathlib import Path
from typing import Any

import anyio.to_thread
import pytest

from mydocs.localserver import LocalServer
from mydocs.localserver.search import Dialect
from mydocs.migrations import LeaseHeld, MigrationError, MigrationFailed, NotReady, migrate, wait_for_indexes
from mydocs.migrations.driver.client import Database
from mydocs.migrations.errors import NotReversible, UnknownVersion
from mydocs.migrations.indexes import waiter as waits
from mydocs.migrations.indexes.readiness import Track
from mydocs.migrations.ledger.lease import Owner, acquire
from mydocs.migrations.model import MigrationState
from mydocs.migrations.operations import wait as waiting
from mydocs.migrations.operations.rollback import rollback
from mydocs.migrations.operations.status import status
from mydocs.migrations.reporting.events import Event, LeaseWaiting, Planned, StepFinished
from mydocs.migrations.reporting.report import Outcome, RunReport

Write = Callable[[str, str], Path]

pytestmark = pytest.mark.anyio

BOTH = """
    async def up(db):
        await db["runs"].insert_one({"up": __file__[-4:-3]})
    async def down(db):
        await db["runs"].insert_one({"down": __file__[-4:-3]})
"""
SEARCH = """
    from pymongo.operations import SearchIndexModel
    from mydocs.migrations import drop_search_indexes, ensure_search_indexes
    async def up(db):
        await ensure_search_indexes(db["pages"], [SearchIndexModel(name="ft", definition={"mappings": {}})])
    async def down(db):
        await drop_search_indexes(db["pages"], "ft")
"""


async def states(db: Database) -> dict[str, str]:
    return {document["_id"]: document["state"] async for document in db["_migrations"].find().sort("_id", 1)}


async def downs(db: Database) -> str:
    return "".join([d["down"] async for d in db["runs"].find({"down": {"$exists": True}}).sort("_id", 1)])


@pytest.fixture
async def three(any_db: Database, folder: Path, write: Write) -> Database:
    """A database on which three scripts with a way back are applied."""
    for name in ("001_a.py", "002_b.py", "003_c.py"):
        write(name, BOTH)
    await migrate(any_db, directory=folder, standard_indexes={})
    return any_db


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        pytest.param({}, "c", id="one step"),
        pytest.param({"steps": 2}, "cb", id="two steps"),
        pytest.param({"target": "001"}, "cb", id="to a version that stays"),
        pytest.param({"target": "003"}, "", id="to the newest"),
    ],
)
async def test_migrations_are_taken_back_newest_first(
    three: Database, folder: Path, options: dict[str, Any], expected: str
) -> None:
    report = await rollback(three, directory=folder, **options)
    assert await downs(three) == expected
    assert [m.name for m in report.migrations] == list(expected)
    assert {m.state for m in report.migrations} <= {MigrationState.PENDING}
    assert len(await states(three)) == 3 - len(expected)


async def test_what_was_taken_back_is_pending_again_and_its_history_is_kept(three: Database, folder: Path) -> None:
    await rollback(three, directory=folder)
    report = await status(three, directory=folder, history=True, standard_indexes={})
    assert [m.state.value for m in report.migrations] == ["applied", "applied", "pending"]
    assert report.history is not None
    assert [(attempt.version, attempt.direction, attempt.outcome) for attempt in report.history] == [
        *(("001", "up", "applied"), ("002", "up", "applied"), ("003", "up", "applied"), ("003", "down", "applied")),
    ]
    await migrate(three, directory=folder, standard_indexes={})
    assert await three["runs"].count_documents({"up": "c"}) == 2


async def test_nothing_is_touched_where_one_of_them_has_no_way_back(
    three: Database, folder: Path, write: Write
) -> None:
    write("004_plain.py", "print()")
    await migrate(three, directory=folder, standard_indexes={})
    with pytest.raises(NotReversible, match=r"004_plain\.py is a plain script") as caught:
        await rollback(three, directory=folder, steps=2)
    assert caught.value.exit_code == 1
    assert await downs(three) == ""
    assert len(await states(three)) == 4


async def test_an_unknown_target_is_a_usage_error(three: Database, folder: Path) -> None:
    with pytest.raises(UnknownVersion):
        await rollback(three, directory=folder, target="009")


async def test_a_dry_run_writes_nothing(three: Database, folder: Path, local_server: LocalServer) -> None:
    local_server.controls.clear()
    report = await rollback(three, directory=folder, steps=2, dry_run=True)
    assert report.outcome is Outcome.PLANNED
    assert [m.version for m in report.migrations] == ["003", "002"]
    assert local_server.controls.counts().keys() == {"aggregate"}


async def test_nothing_to_take_back_is_success_without_the_lease(db: Database, folder: Path) -> None:
    report = await rollback(db, directory=folder)
    assert (report.outcome, report.migrations) == (Outcome.OK, ())
    assert await db.list_collection_names() == []


async def test_a_way_back_that_fails_is_recorded_and_stops_the_others(
    any_db: Database, folder: Path, write: Write
) -> None:
    write("001_a.py", BOTH)
    write("002_b.py", BOTH)
    broken = write("003_c.py", "async def up(db): pass\nasync def down(db): raise ValueError('no way back')\n")
    await migrate(any_db, directory=folder, standard_indexes={})
    with pytest.raises(MigrationFailed, match=r"003_c\.py failed, line 2: ValueError: no way back"):
        await rollback(any_db, directory=folder, steps=2)
    assert await states(any_db) == {"001": "applied", "002": "applied", "003": "failed"}
    entry = await any_db["_migrations"].find_one({"_id": "003"})
    assert entry is not None
    assert (entry["direction"], entry["error"]["message"]) == ("down", "no way back")
    assert await downs(any_db) == ""
    broken.write_text("async def up(db): pass\nasync def down(db): pass\n")
    await rollback(any_db, directory=folder, steps=1)
    assert await states(any_db) == {"001": "applied", "002": "applied"}


async def test_an_index_that_was_dropped_on_the_way_back_is_tracked_no_more(
    any_db: Database, folder: Path, write: Write, local_server: LocalServer
) -> None:
    write("001_search.py", SEARCH)
    await migrate(any_db, directory=folder, wait=True, standard_indexes={})
    await rollback(any_db, directory=folder, wait=True)
    assert (await wait_for_indexes(any_db)).indexes == ()
    reply = await any_db.command({"aggregate": "pages", "pipeline": [{"$listSearchIndexes": {}}], "cursor": {}})
    assert reply["cursor"]["firstBatch"] == []


async def test_an_index_of_an_entry_that_stays_is_untracked_where_a_way_back_has_dropped_it(
    any_db: Database, folder: Path, write: Write
) -> None:
    write("001_search.py", SEARCH)
    write("002_again.py", SEARCH)
    await migrate(any_db, directory=folder, standard_indexes={})
    await rollback(any_db, directory=folder)
    assert await states(any_db) == {"001": "applied"}
    assert (await wait_for_indexes(any_db, timeout=1)).indexes == ()


async def test_a_way_back_waits_until_a_dropped_index_is_gone(
    any_db: Database, folder: Path, write: Write, local_server: LocalServer
) -> None:
    write("001_search.py", SEARCH)
    await migrate(any_db, directory=folder, standard_indexes={})
    local_server.search.outcome("ft", delete_seconds=0.2)
    await rollback(any_db, directory=folder, wait=True)
    reply = await any_db.command({"aggregate": "pages", "pipeline": [{"$listSearchIndexes": {}}], "cursor": {}})
    assert reply["cursor"]["firstBatch"] == []


async def test_a_way_back_whose_time_is_up_names_what_is_still_listed(
    any_db: Database, folder: Path, write: Write, local_server: LocalServer
) -> None:
    write("001_search.py", SEARCH)
    write("002_other.py", SEARCH.replace('"ft"', '"other"'))
    await migrate(any_db, directory=folder, standard_indexes={})
    for name in ("ft", "other"):
        local_server.search.outcome(name, delete_seconds=inf)
    with pytest.raises(NotReady, match=r"pages\.other is dropped.*, pages\.ft is.*; the server goes on") as caught:
        await rollback(any_db, directory=folder, steps=2, wait=True, timeout=0.1)
    assert caught.value.exit_code == 5
    assert await states(any_db) == {}


async def test_a_way_back_waits_for_the_run_that_is_under_way(
    any_db: Database, folder: Path, write: Write, local_server: LocalServer
) -> None:
    write("001_both.py", BOTH)
    gate, waiting = threading.Event(), asyncio.Event()
    local_server.controls.delay(gate, when=lambda recorded: recorded.body.get("insert") == "runs")

    def sink(event: Event) -> None:
        if isinstance(event, LeaseWaiting):
            waiting.set()

    async with asyncio.TaskGroup() as group:
        run = group.create_task(migrate(any_db, directory=folder, standard_indexes={}))
        await anyio.to_thread.run_sync(local_server.controls.wait_for, lambda r: r.body.get("insert") == "runs")
        with pytest.raises(LeaseHeld):
            await rollback(any_db, directory=folder, lock_timeout=0)
        back = group.create_task(rollback(any_db, directory=folder, on_event=sink))
        await waiting.wait()
        gate.set()
    assert [report.result().migrations[0].state for report in (run, back)] == ["applied", "pending"]
    assert await states(any_db) == {}


@pytest.mark.parametrize(
    ("other", "says", "left"),
    [
        pytest.param(
            partial(migrate, standard_indexes={}), "002 would", {"001": "applied", "002": "applied"}, id="a run"
        ),
        pytest.param(rollback, "nothing would", {}, id="another way back"),
    ],
)
async def test_a_way_back_takes_back_nothing_that_it_had_not_named(
    any_db: Database,
    folder: Path,
    write: Write,
    local_server: LocalServer,
    other: Callable[..., Coroutine[Any, Any, RunReport]],
    says: str,
    left: dict[str, str],
) -> None:
    write("001_both.py", BOTH)
    await migrate(any_db, directory=folder, standard_indexes={})
    write("002_both.py", BOTH)
    gate, waiting = threading.Event(), asyncio.Event()
    local_server.controls.clear()
    local_server.controls.delay(gate, command="findAndModify", after=True)  # another has the lease, and not begun

    def sink(event: Event) -> None:
        if isinstance(event, LeaseWaiting):
            waiting.set()

    async with asyncio.TaskGroup() as group:
        run = group.create_task(other(any_db, directory=folder))
        await anyio.to_thread.run_sync(local_server.controls.wait_for, lambda r: r.name == "findAndModify")
        back = group.create_task(in_vain(rollback(any_db, directory=folder, on_event=sink)))
        await waiting.wait()
        gate.set()
    assert f"{says} be rolled back instead of 001" in str(back.result())
    assert run.result().outcome is Outcome.OK
    assert await states(any_db) == left


async def in_vain(call: Awaitable[object]) -> MigrationError:
    with pytest.raises(MigrationError) as caught:
        await call
    return caught.value


async def test_the_dropped_and_the_others_share_the_time_of_a_way_back(
    db: Database, folder: Path, write: Write, local_server: LocalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits: list[float | None] = []

    async def wait_for(*arguments: Any, timeout: float | None, **options: Any) -> tuple[Track, ...]:
        limits.append(timeout)
        return await waits.wait_for(*arguments, timeout=timeout, **options)

    monkeypatch.setattr(waiting, "wait_for", wait_for)
    write("001_stays.py", SEARCH.replace('"ft"', '"stays"'))
    write("002_search.py", SEARCH)
    local_server.search.outcome("stays", build_seconds=inf)
    await migrate(db, directory=folder, standard_indexes={})
    with pytest.raises(NotReady, match=r"not ready after 1 s: pages\.stays \(building\)"):
        await rollback(db, directory=folder, wait=True, timeout=1.0)
    (left,) = limits
    assert left is not None
    assert left < 1.0  # the wait for what is dropped has taken some


@pytest.mark.limits(gone=0.0, gone_gap=0.02)
async def test_a_way_back_without_a_limit_has_none(
    db: Database, folder: Path, write: Write, local_server: LocalServer
) -> None:
    write("001_search.py", SEARCH)
    await migrate(db, directory=folder, standard_indexes={})
    local_server.search.outcome("ft", delete_seconds=0.3)
    await rollback(db, directory=folder, wait=True, timeout=None)
    reply = await db.command({"aggregate": "pages", "pipeline": [{"$listSearchIndexes": {}}], "cursor": {}})
    assert reply["cursor"]["firstBatch"] == []


@pytest.mark.parametrize("dialect", list(Dialect))
async def test_an_update_that_is_taken_back_is_ready_when_the_old_definition_is(
    any_db: Database, folder: Path, write: Write, local_server: LocalServer, dialect: Dialect
) -> None:
    old, new = '{"mappings": {"dynamic": False}}', '{"mappings": {"dynamic": True}}'
    ensure = 'await ensure_search_indexes(db["pages"], [SearchIndexModel(name="ft", definition={})])\n'
    start = SEARCH.partition("    async def down")[0].replace('{"mappings": {}}', old)
    write("001_search.py", start)
    down = f"    async def down(db):\n        {ensure.replace('{}', old)}"
    write("002_update.py", start.replace(old, new) + down)
    local_server.search.settings = replace(local_server.search.settings, dialect=dialect)
    await migrate(any_db, directory=folder, wait=True, standard_indexes={})
    # The listing shows the definition of 002 as READY for some looks more.
    local_server.search.outcome("ft", old_looks=3)
    report = await rollback(any_db, directory=folder, wait=True, timeout=10)
    assert [(index.name, index.state.value) for index in report.indexes] == [("ft", "ready")]
    reply = await any_db.command({"aggregate": "pages", "pipeline": [{"$listSearchIndexes": {}}], "cursor": {}})
    (listed,) = reply["cursor"]["firstBatch"]
    assert listed["latestDefinition"] == {"mappings": {"dynamic": False}}


async def test_an_entry_of_the_earlier_runner_can_be_taken_back(any_db: Database, folder: Path, write: Write) -> None:
    write("001_a.py", BOTH)
    write("002_b.py", BOTH)
    for name in ("001_a.py", "002_b.py"):
        await any_db["_migrations"].insert_one({"file_name": name, "run_at": "2025-03-04T05:06:07"})
    report = await rollback(any_db, directory=folder)
    assert [(m.version, m.state) for m in report.migrations] == [("002", MigrationState.PENDING)]
    assert await downs(any_db) == "b"
    assert await states(any_db) == {"001": "applied"}


async def test_a_way_back_needs_the_lease(three: Database, folder: Path) -> None:
    assert await acquire(three, Owner(host="elsewhere"))
    with pytest.raises(LeaseHeld):
        await rollback(three, directory=folder, lock_timeout=0)
    assert await downs(three) == ""


async def test_the_events_say_in_which_direction_it_goes(three: Database, folder: Path) -> None:
    seen: list[Event] = []
    await rollback(three, directory=folder, on_event=seen.append)
    told = [(type(e).__name__, e.direction) for e in seen if isinstance(e, Planned | StepFinished)]
    assert told == [("Planned", "down"), ("Planned", "down"), ("StepFinished", "down")]
