"""Waits on a local server whose index builds go well, go wrong, lag, vanish or never end."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from math import inf
from pathlib import Path
from typing import Any

import pytest
from motor.motor_asyncio import AsyncIOMotorClient
from pymongo.errors import OperationFailure
from pymongo.operations import SearchIndexModel

from mydocs.localserver import LocalServer
from mydocs.localserver.clock import ManualClock
from mydocs.localserver.search import Dialect
from mydocs.migrations import (
    IndexFailed,
    MigrationError,
    MigrationFailed,
    NotReady,
    ensure_search_indexes,
    migrate,
    wait_for_indexes,
    wait_until_current,
)
from mydocs.migrations.driver import backoff
from mydocs.migrations.driver.client import Database
from mydocs.migrations.errors import NotAuthorised, ServerUnreachable
from mydocs.migrations.indexes import readiness
from mydocs.migrations.indexes.readiness import Track
from mydocs.migrations.indexes.waiter import raise_unready, wait_for
from mydocs.migrations.limits import Limits, limited_to
from mydocs.migrations.model import IndexState, MigrationState, StoredError, TrackedIndex
from mydocs.migrations.operations import wait as waiting
from mydocs.migrations.reporting.events import Event, IndexChanged, StillWaiting, Warned
from mydocs.migrations.reporting.report import Outcome, RunFinished

Write = Callable[[str, str], Path]

# Look often and be patient for a moment only, so that a wait takes as long as the builds that a test sets.
pytestmark = [pytest.mark.anyio, pytest.mark.limits(look_gap=0.02, failed=0.1, failed_self_managed=0.1, appear=0.1)]

OLD: dict[str, Any] = {"mappings": {"dynamic": False, "fields": {"content": {"type": "string"}}}}
NEW: dict[str, Any] = {"mappings": {"dynamic": False, "fields": {"title": {"type": "string"}}}}
LIMIT = 15.0  # seconds; what should happen does so within one


@pytest.fixture(params=list(Dialect))
def dialect(request: pytest.FixtureRequest, local_server: LocalServer) -> Dialect:
    """Make the server one of each kind."""
    local_server.search.settings = replace(local_server.search.settings, dialect=request.param)
    found: Dialect = request.param
    return found


async def asked(db: Database, *names: str, definition: dict[str, Any] | None = None) -> list[TrackedIndex]:
    """Ensure indexes on `pages` and say what to wait for."""
    models = [SearchIndexModel(name=name, definition=definition or OLD) for name in names]
    return list(await ensure_search_indexes(db["pages"], models))


async def waited(
    db: Database, targets: list[TrackedIndex], timeout: float | None = LIMIT, seen: list[Event] | None = None
) -> dict[str, Track]:
    tracks = await wait_for(db, targets, timeout=timeout, sink=None if seen is None else seen.append)
    return {track.index.name: track for track in tracks}


def looks(server: LocalServer) -> int:
    return server.controls.counts()["aggregate"]


class Told(list[Event]):
    """Events in their order; a state that is told lets the server's clock pass the end of it."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__()
        self._clock = clock

    def append(self, event: Event) -> None:
        super().append(event)
        if isinstance(event, IndexChanged) and event.state is not IndexState.READY:
            self._clock.advance(3601)


async def test_a_new_index_is_ready_when_it_can_be_queried_and_each_state_is_told_once(
    any_db: Database, dialect: Dialect, local_server: LocalServer, local_clock: ManualClock
) -> None:
    local_server.search.outcome("ft", pending_seconds=3600.0, build_seconds=3600.0)
    seen = Told(local_clock)
    tracks = await waited(any_db, await asked(any_db, "ft"), seen=seen)
    assert tracks["ft"].outcome is IndexState.READY
    assert [event.state for event in seen if isinstance(event, IndexChanged)] == [
        *(IndexState.PENDING, IndexState.BUILDING, IndexState.READY)
    ]


@pytest.mark.parametrize("timeout", [0.0, None], ids=["no time", "no limit"])
async def test_what_is_ready_already_needs_one_look(
    any_db: Database, local_server: LocalServer, timeout: float | None
) -> None:
    targets = await asked(any_db, "ft", "other")
    local_server.controls.clear()
    tracks = await waited(any_db, targets, timeout)
    if timeout is None:
        assert {track.outcome for track in tracks.values()} == {IndexState.READY}
        assert looks(local_server) == 1


async def test_a_listing_that_is_as_it_was_is_not_judged_again(
    any_db: Database, local_server: LocalServer, local_clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    local_server.search.outcome("ft", build_seconds=3600.0)
    targets = await asked(any_db, "ft")
    judged: list[Track] = []
    look = readiness.look

    def counted(track: Track, *facts: Any) -> Track:
        judged.append(look(track, *facts))
        return judged[-1]

    monkeypatch.setattr(readiness, "look", counted)
    local_server.controls.clear()
    local_server.controls.call(lambda _: local_clock.advance(3601), at=8)
    await waited(any_db, targets)
    assert looks(local_server) >= 8
    assert [track.verdict.state for track in judged] == [IndexState.BUILDING, IndexState.READY]


async def test_an_update_is_not_ready_while_the_listing_still_shows_the_old_definition_as_ready(
    any_db: Database, dialect: Dialect, local_server: LocalServer
) -> None:
    await asked(any_db, "ft")
    local_server.search.outcome("ft", old_looks=4, build_seconds=0.05)
    targets = await asked(any_db, "ft", definition=NEW)
    local_server.controls.clear()
    tracks = await waited(any_db, targets)
    assert tracks["ft"].outcome is IndexState.READY
    assert looks(local_server) > 4


async def test_an_update_is_not_ready_while_the_new_definition_is_built_behind_the_old_one(
    any_db: Database, dialect: Dialect, local_server: LocalServer, local_clock: ManualClock
) -> None:
    await asked(any_db, "ft")
    local_clock.advance(60)
    local_server.search.outcome("ft", build_seconds=3600.0)
    seen = Told(local_clock)
    tracks = await waited(any_db, await asked(any_db, "ft", definition=NEW), seen=seen)
    assert tracks["ft"].outcome is IndexState.READY
    first = next(event for event in seen if isinstance(event, IndexChanged))
    assert (first.state, first.queryable) == (IndexState.BUILDING, True)


async def test_a_replacement_is_ready_when_the_new_index_is(
    any_db: Database, dialect: Dialect, local_server: LocalServer
) -> None:
    await asked(any_db, "ft")
    local_server.search.outcome("ft", build_seconds=0.2)
    vector = {"fields": [{"type": "vector", "path": "v", "numDimensions": 3, "similarity": "cosine"}]}
    model = SearchIndexModel(name="ft", type="vectorSearch", definition=vector)
    (record,) = await ensure_search_indexes(any_db["pages"], [model], replace=True)
    assert record.id is not None
    tracks = await waited(any_db, [record])
    assert tracks["ft"].outcome is IndexState.READY
    stranger = replace(record, id="0" * 24)
    tracks = await waited(any_db, [stranger], 0.1)
    assert tracks["ft"].outcome is not IndexState.READY


async def test_a_host_that_lags_behind_an_update_is_waited_for(
    any_db: Database, local_server: LocalServer, local_clock: ManualClock
) -> None:
    """The host keeps up once a look has shown that it lags."""
    local_server.search.outcome("ft", hosts=("one", "two", "three"), lags=(0.0, 3_600.0, 0.0))
    await asked(any_db, "ft")
    local_clock.advance(7_200)
    seen: list[IndexChanged] = []

    def tell(event: Event) -> None:
        assert isinstance(event, IndexChanged)
        seen.append(event)
        local_clock.advance(3_600)

    tracks = await wait_for(any_db, await asked(any_db, "ft", definition=NEW), timeout=LIMIT, sink=tell)
    assert tracks[0].outcome is IndexState.READY
    assert [(event.hosts_ready, event.hosts_total) for event in seen] == [(2, 3), (3, 3)]


@pytest.mark.parametrize("fill_defaults", [False, True], ids=["as asked", "with the server's defaults"])
async def test_a_new_index_is_ready_with_whatever_a_server_makes_of_its_definition(
    db: Database, dialect: Dialect, local_server: LocalServer, fill_defaults: bool
) -> None:
    local_server.search.settings = replace(local_server.search.settings, fill_defaults=fill_defaults)
    fields = {"t": {"type": "string"}, "n": [{"type": "number"}, {"type": "token"}], "d": {"type": "document"}}
    vector = {"fields": [{"type": "vector", "path": "v", "numDimensions": 3, "similarity": "cosine"}]}
    models = [
        SearchIndexModel(name="ft", definition={"mappings": {"fields": fields}}),
        SearchIndexModel(name="vec", type="vectorSearch", definition=vector),
    ]
    records = await ensure_search_indexes(db["pages"], models)
    targets = list(records)
    tracks = await waited(db, targets)
    assert {track.outcome for track in tracks.values()} == {IndexState.READY}


@pytest.mark.limits(differs=0.1)
async def test_a_create_that_a_server_ignores_is_told_with_what_differs(
    db: Database, folder: Path, write: Write, local_server: LocalServer
) -> None:
    local_server.search.settings = replace(local_server.search.settings, dialect=Dialect.SELF_MANAGED)
    for name, stored in (("001_a.py", '{"include": ["a"]}'), ("002_b.py", '{"include": ["b"]}')):
        write(name, IGNORED.replace("STORED", stored))
    await migrate(db, directory=folder, standard_indexes={})
    with pytest.raises(
        IndexFailed, match=r"another definition than the one asked for: storedSource.*'b'.*'a'"
    ) as caught:
        await migrate(db, directory=folder, wait=True, timeout=LIMIT, standard_indexes={})
    assert caught.value.exit_code == 6


async def test_a_failed_build_is_reported_with_the_hosts_message_and_the_others_go_on(
    any_db: Database, dialect: Dialect, local_server: LocalServer
) -> None:
    local_server.search.outcome("bad", fails="Invalid definition: no such analyzer")
    local_server.search.outcome("slow", build_seconds=0.4)
    tracks = await waited(any_db, await asked(any_db, "bad", "slow"))
    assert (tracks["bad"].outcome, tracks["slow"].outcome) == (IndexState.FAILED, IndexState.READY)
    message = "no such analyzer" if dialect is not Dialect.ATLAS_LOCAL else "no reason"
    with pytest.raises(IndexFailed, match=rf"index pages\.bad failed: .*{message}") as caught:
        raise_unready(tracks.values(), LIMIT)
    assert caught.value.exit_code == 6


@pytest.mark.limits(failed=LIMIT)
async def test_a_build_that_recovers_within_the_grace_is_no_failure(
    any_db: Database, local_server: LocalServer, local_clock: ManualClock
) -> None:
    local_server.search.outcome("ft", fails="initial sync was lost", recovers_after=3600.0)
    seen = Told(local_clock)
    tracks = await waited(any_db, await asked(any_db, "ft"), seen=seen)
    assert tracks["ft"].outcome is IndexState.READY
    assert IndexState.FAILED in [event.state for event in seen if isinstance(event, IndexChanged)]


async def test_a_failed_update_says_that_the_old_definition_still_serves(
    any_db: Database, local_server: LocalServer
) -> None:
    await asked(any_db, "ft")
    local_server.search.outcome("ft", fails="out of space")
    tracks = await waited(any_db, await asked(any_db, "ft", definition=NEW))
    assert tracks["ft"].reason == "out of space; the old definition still serves"


async def test_a_stale_index_warns_and_is_waited_for(any_db: Database, local_server: LocalServer) -> None:
    local_server.search.outcome("ft", stale_after=0.0, stale_seconds=0.3, stale_message="fell off the oplog")
    seen: list[Event] = []
    tracks = await waited(any_db, await asked(any_db, "ft"), seen=seen)
    assert tracks["ft"].outcome is IndexState.READY
    warnings = [event.message for event in seen if isinstance(event, Warned)]
    assert warnings == ["pages.ft is stale: fell off the oplog"]


async def test_an_index_that_is_late_is_an_error_that_says_how_to_go_on(
    any_db: Database, local_server: LocalServer
) -> None:
    local_server.search.outcome("ft", build_seconds=inf)
    tracks = await waited(any_db, await asked(any_db, "ft", "fine"), 0.0)
    assert (tracks["ft"].outcome, tracks["fine"].outcome) == (None, IndexState.READY)
    with pytest.raises(NotReady, match=r"pages\.ft \(building\).*mydocs migrate wait") as caught:
        raise_unready(tracks.values(), 0.1)
    assert caught.value.exit_code == 5


async def test_an_index_that_nobody_has_looked_at_is_unknown(any_db: Database, local_server: LocalServer) -> None:
    targets = await asked(any_db, "ft")
    local_server.controls.hang(command="aggregate", times=None)
    tracks = await waited(any_db, targets, 0.1)
    with pytest.raises(NotReady, match=r"pages\.ft \(unknown\)"):
        raise_unready(tracks.values(), 0.1)


async def test_no_time_at_all_is_one_look(any_db: Database, local_server: LocalServer) -> None:
    local_server.search.outcome("late", build_seconds=inf)
    targets = await asked(any_db, "ft", "late")
    await waited(any_db, targets[:1])
    local_server.controls.clear()
    tracks = await waited(any_db, targets, 0.0)
    assert (tracks["ft"].outcome, tracks["late"].outcome) == (IndexState.READY, None)
    assert looks(local_server) == 1


async def test_no_time_at_all_is_one_look_that_may_fail(any_db: Database, local_server: LocalServer) -> None:
    targets = await asked(any_db, "ft")
    local_server.controls.clear()
    local_server.controls.error(
        125, "Error connecting to Search Index Management service.", command="aggregate", times=None
    )
    with limited_to(Limits(retries=0.0)), pytest.raises(OperationFailure):
        await waited(any_db, targets, 0.0)
    assert looks(local_server) == 1


@pytest.mark.parametrize(
    ("outcome", "reason"),
    [
        pytest.param({"appears_after": inf}, "it was never listed", id="never listed"),
        pytest.param({"build_seconds": inf, "vanishes_after": 3600.0}, "it was listed and is gone", id="vanished"),
    ],
)
async def test_an_index_that_is_not_there_ends_the_wait_for_it(
    any_db: Database, local_server: LocalServer, local_clock: ManualClock, outcome: dict[str, Any], reason: str
) -> None:
    local_server.search.outcome("ft", **outcome)
    tracks = await waited(any_db, await asked(any_db, "ft"), seen=Told(local_clock))
    assert tracks["ft"].outcome is IndexState.FAILED
    assert reason in str(tracks["ft"].reason)


@pytest.mark.limits(failed=LIMIT)
async def test_what_has_failed_when_the_time_is_up_wins_over_what_is_late(
    any_db: Database, local_server: LocalServer
) -> None:
    local_server.search.outcome("bad", fails="no")
    local_server.search.outcome("slow", build_seconds=inf)
    tracks = await waited(any_db, await asked(any_db, "bad", "slow"), 0.0)
    with pytest.raises(IndexFailed):
        raise_unready(tracks.values(), 0.2)


async def test_a_listing_that_is_too_large_is_read_by_name(any_db: Database, local_server: LocalServer) -> None:
    targets = await asked(any_db, "one", "two", "not_ours")
    local_server.search.settings = replace(local_server.search.settings, listing_too_large=True)
    local_server.controls.clear()
    tracks = await waited(any_db, targets[:2])
    assert {track.outcome for track in tracks.values()} == {IndexState.READY}
    assert looks(local_server) == 3


def cut(server: LocalServer) -> None:
    server.controls.cut_before(command="aggregate", times=2)


def starting(server: LocalServer) -> None:
    server.search.unreachable(0.2)


def election(server: LocalServer) -> None:
    server.controls.election(0.2)


def overload(server: LocalServer) -> None:
    server.controls.error(462, "rate limit", ["SystemOverloadedError", "RetryableError"], command="aggregate", times=2)


@pytest.mark.parametrize("trouble", [cut, starting, election, overload])
async def test_a_passing_trouble_does_not_end_a_wait(
    any_db: Database, local_server: LocalServer, trouble: Callable[[LocalServer], None]
) -> None:
    targets = await asked(any_db, "ft")
    trouble(local_server)
    tracks = await waited(any_db, targets)
    assert tracks["ft"].outcome is IndexState.READY


async def test_a_trouble_that_lasts_longer_than_its_budget_ends_the_wait(
    any_db: Database, local_server: LocalServer
) -> None:
    targets = await asked(any_db, "ft")
    local_server.search.unreachable(inf)
    with limited_to(Limits(patience=2.0)), pytest.raises(OperationFailure, match="Search Index Management"):
        await waited(any_db, targets)


@pytest.mark.parametrize("code", [13, 31082, 2])
async def test_an_error_that_does_not_pass_ends_the_wait_at_once(
    any_db: Database, local_server: LocalServer, code: int
) -> None:
    targets = [*await asked(any_db, "ft"), TrackedIndex(collection="documents", name="slow")]
    fault = local_server.controls.error(code, "no", command="aggregate")
    with pytest.raises(OperationFailure) as caught:
        await waited(any_db, targets)
    assert (caught.value.code, fault.fired) == (code, 1)


@pytest.mark.parametrize("broken_off", ["by the server", "by the caller"])
async def test_a_wait_that_is_broken_off_reports_what_it_has_seen(
    any_db: Database, folder: Path, write: Write, local_server: LocalServer, broken_off: str
) -> None:
    write("001_search.py", TWO)
    local_server.search.outcome("slow", build_seconds=inf)
    await migrate(any_db, directory=folder)
    seen: list[Event] = []
    told = asyncio.Event()

    def sink(event: Event) -> None:
        seen.append(event)
        if len([each for each in seen if isinstance(each, IndexChanged)]) == 2:
            told.set()

    task = asyncio.ensure_future(wait_for_indexes(any_db, on_event=sink))
    await told.wait()
    if broken_off == "by the server":
        local_server.controls.error(13, "no", command="aggregate")
        with pytest.raises(MigrationError) as caught:
            await task
        report = caught.value.report
    else:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert isinstance(seen[-1], RunFinished)
        report = seen[-1].report
    assert report is not None
    assert [(index.name, index.state) for index in report.indexes] == [("quick", "ready"), ("slow", "building")]


async def test_a_search_process_that_stays_away_is_not_taken_for_the_server(
    any_db: Database, folder: Path, write: Write, local_server: LocalServer
) -> None:
    write("001_search.py", TWO)
    await migrate(any_db, directory=folder)
    local_server.search.unreachable(inf)
    with limited_to(Limits(patience=2.0)), pytest.raises(ServerUnreachable, match="from its search process"):
        await wait_for_indexes(any_db)


async def test_a_gate_whose_time_is_up_reports_where_the_scripts_stand(
    db: Database, folder: Path, write: Write
) -> None:
    write("001_fails.py", "async def up(db):\n    raise ValueError('no')\n")
    with pytest.raises(MigrationFailed):
        await migrate(db, directory=folder, standard_indexes={})
    with pytest.raises(NotReady, match="001 is failed; `mydocs migrate run`") as caught:
        await wait_until_current(db, directory=folder, timeout=0.0, standard_indexes={})
    assert caught.value.report is not None
    (migration,) = caught.value.report.migrations
    assert (migration.state, migration.error) == ("failed", StoredError(type="ValueError", message="no"))


@pytest.fixture
def clocks() -> list[datetime | None]:
    """What those waits took for the time by the server's clock."""
    return []


@pytest.fixture
def targets(monkeypatch: pytest.MonkeyPatch, clocks: list[datetime | None]) -> list[TrackedIndex]:
    """What the waits of a run and after it have waited for."""
    seen: list[TrackedIndex] = []

    async def wait(db: Database, asked_for: Sequence[TrackedIndex], **options: Any) -> tuple[Track, ...]:
        seen.extend(asked_for)
        clocks.append(options["server_now"])
        return await wait_for(db, asked_for, **options)

    monkeypatch.setattr(waiting, "wait_for", wait)
    return seen


async def test_an_index_ages_from_the_moment_that_it_was_asked_for(
    any_db: Database, folder: Path, write: Write, targets: list[TrackedIndex]
) -> None:
    """A script may go on for hours before the wait begins."""
    write("001_search.py", THREE)
    await migrate(any_db, directory=folder, wait=True)
    helped, last, raw = (target.asked_at for target in targets)
    assert helped is not None
    assert raw is not None
    assert last is not None
    assert helped <= raw <= last  # in milliseconds, of which one has room for several commands
    entry = await any_db["_migrations"].find_one({"_id": "001"})
    assert entry is not None
    stored = {index["name"]: index["asked_at"].replace(tzinfo=UTC) for index in entry["indexes"]}
    assert stored.keys() == {"helped", "raw", "last"}
    started, finished = (entry[name].replace(tzinfo=UTC) for name in ("started_at", "finished_at"))
    assert all(started <= at <= finished for at in stored.values())
    assert abs(stored["raw"] - raw) < timedelta(milliseconds=1)


async def test_a_wait_that_is_taken_up_again_looks_as_seldom_as_the_age_of_the_build_allows(
    any_db: Database,
    folder: Path,
    write: Write,
    local_clock: ManualClock,
    targets: list[TrackedIndex],
    clocks: list[datetime | None],
) -> None:
    """The age is that of the server's clock, in whichever process and on whichever host it was asked for."""
    local_clock.advance(86_400)
    write("001_search.py", SCRIPT)
    await migrate(any_db, directory=folder)
    local_clock.advance(600)
    await wait_for_indexes(any_db)
    (at,), (now,) = [target.asked_at for target in targets], clocks
    assert at is not None
    assert now is not None
    assert round((now - at).total_seconds(), -1) == 600


async def test_all_indexes_of_a_collection_share_a_look_and_collections_are_looked_at_together(
    any_db: Database, local_server: LocalServer
) -> None:
    targets: list[TrackedIndex] = []
    for collection in ("pages", "documents", "chapters"):
        models = [SearchIndexModel(name=f"i{number}", definition=OLD) for number in range(5)]
        records = await ensure_search_indexes(any_db[collection], models)
        targets += records
    local_server.controls.clear()
    tracks = await wait_for(any_db, targets, timeout=LIMIT, sink=None)
    assert len(tracks) == 15
    assert looks(local_server) == 3


# The waits of an application and of scripts

IGNORED = """
    async def up(db):
        if "pages" not in await db.list_collection_names():
            await db.create_collection("pages")
        vector = {"type": "vector", "path": "v", "numDimensions": 3, "similarity": "cosine"}
        definition = {"fields": [vector], "storedSource": STORED}
        index = {"name": "vec", "type": "vectorSearch", "definition": definition}
        await db.command({"createSearchIndexes": "pages", "indexes": [index]})
"""

TWO = """
    from pymongo.operations import SearchIndexModel
    from mydocs.migrations import ensure_search_indexes
    async def up(db):
        models = [SearchIndexModel(name=name, definition={"mappings": {}}) for name in ("quick", "slow")]
        await ensure_search_indexes(db["pages"], models)
"""

THREE = """
    from pymongo.operations import SearchIndexModel
    from mydocs.migrations import ensure_search_indexes
    async def up(db):
        await ensure_search_indexes(db["pages"], [SearchIndexModel(name="helped", definition={"mappings": {}})])
        raw = {"name": "raw", "definition": {"mappings": {}}}
        await db.command({"createSearchIndexes": "pages", "indexes": [raw]})
        await ensure_search_indexes(db["pages"], [SearchIndexModel(name="last", definition={"mappings": {}})])
"""

SCRIPT = """
    from pymongo.operations import SearchIndexModel
    from mydocs.migrations import ensure_search_indexes, wait_until_ready
    async def up(db):
        await ensure_search_indexes(db["pages"], [SearchIndexModel(name="ft", definition={"mappings": {}})])
"""


async def test_a_later_wait_takes_up_the_indexes_that_the_ledger_names(
    any_db: Database, folder: Path, write: Write, local_server: LocalServer, local_clock: ManualClock
) -> None:
    write("001_a.py", SCRIPT)
    local_server.search.outcome("ft", build_seconds=3600.0)
    with pytest.raises(NotReady) as caught:
        await migrate(any_db, directory=folder, wait=True, timeout=0.05)
    assert caught.value.report is not None
    assert caught.value.report.outcome is Outcome.NOT_READY
    local_clock.advance(3600.0)
    report = await wait_for_indexes(any_db, timeout=LIMIT)
    assert [(index.name, index.state, index.queryable) for index in report.indexes] == [("ft", IndexState.READY, True)]


async def test_a_wait_whose_time_went_into_the_first_read_asks_nothing_more(
    any_db: Database, folder: Path, write: Write, local_server: LocalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "LEAST_SECONDS", LIMIT)
    write("001_a.py", SCRIPT)
    await migrate(any_db, directory=folder)
    local_server.controls.delay(0.1, command="aggregate")
    local_server.controls.hang(command="aggregate", at=2)
    with pytest.raises(NotReady, match=r"pages\.ft \(unknown\)"):
        await wait_for_indexes(any_db, timeout=0.01)


async def test_a_wait_with_nothing_tracked_is_one_command(any_db: Database, local_server: LocalServer) -> None:
    report = await wait_for_indexes(any_db)
    assert (report.outcome, report.indexes, looks(local_server)) == (Outcome.OK, (), 1)
    assert await any_db.list_collection_names() == []


async def test_a_wait_without_the_right_to_list_is_one_sentence(
    any_db: Database, folder: Path, write: Write, local_server: LocalServer
) -> None:
    write("001_a.py", SCRIPT)
    await migrate(any_db, directory=folder)
    local_server.controls.error(13, "not allowed to list", command="aggregate", at=2)
    with pytest.raises(NotAuthorised, match="not allowed to list"):
        await wait_for_indexes(any_db)


async def test_a_script_can_wait_for_its_own_index(
    any_db: Database, folder: Path, write: Write, local_server: LocalServer
) -> None:
    more = """
        await wait_until_ready(db["pages"], timeout=10)
        (found,) = await (await cursor(db)).to_list(None)
        assert found["status"] == "READY", found
    async def cursor(db):
        found = db["pages"].aggregate([{"$listSearchIndexes": {}}])
        return await found if hasattr(found, "__await__") else found
    """
    write("001_a.py", SCRIPT + more.strip("\n"))
    local_server.search.outcome("ft", build_seconds=0.2)
    seen: list[Event] = []
    await migrate(any_db, directory=folder, on_event=seen.append)
    assert IndexState.READY in [event.state for event in seen if isinstance(event, IndexChanged)]


async def test_a_script_whose_index_fails_has_failed_with_the_exit_code_of_that(
    any_db: Database, folder: Path, write: Write, local_server: LocalServer
) -> None:
    write("001_a.py", SCRIPT + '        await wait_until_ready(db["pages"], "ft")\n')
    local_server.search.outcome("ft", fails="out of space")
    with pytest.raises(MigrationFailed, match="out of space") as caught:
        await migrate(any_db, directory=folder)
    assert caught.value.exit_code == 6


@pytest.mark.limits(turn_gap=0.02)
async def test_the_gate_opens_when_somebody_else_has_applied_everything(
    any_db: Database, folder: Path, write: Write, local_server: LocalServer
) -> None:
    write("001_a.py", SCRIPT)
    local_server.search.outcome("ft", build_seconds=0.2)
    async with asyncio.TaskGroup() as group:
        gate = group.create_task(wait_until_current(any_db, directory=folder, timeout=LIMIT))
        await asyncio.to_thread(local_server.controls.wait_for, lambda recorded: recorded.name == "aggregate")
        group.create_task(migrate(any_db, directory=folder))
    assert [(index.name, index.state) for index in gate.result().indexes] == [("ft", IndexState.READY)]
    assert [(m.version, m.state) for m in gate.result().migrations] == [("001", MigrationState.APPLIED)]


@pytest.mark.limits(turn_gap=0.02)
async def test_the_gate_bears_a_server_that_is_away_for_longer_than_the_driver_looks_for_one(
    db: Database,
    folder: Path,
    write: Write,
    local_server: LocalServer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, logger=backoff.logger.name)
    found_none = asyncio.Event()

    class Found(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "ServerSelectionTimeoutError" in record.getMessage():
                found_none.set()

    handler = Found()
    backoff.logger.addHandler(handler)
    write("001_a.py", SCRIPT)

    def sink(event: Event) -> None:
        if isinstance(event, StillWaiting) and not found_none.is_set():
            local_server.controls.down()

    client: AsyncIOMotorClient[dict[str, Any]] = AsyncIOMotorClient(local_server.url, serverSelectionTimeoutMS=50)
    async with asyncio.TaskGroup() as group:
        gate = group.create_task(wait_until_current(client["app"], directory=folder, timeout=LIMIT, on_event=sink))
        await found_none.wait()
        local_server.controls.up()
        await migrate(db, directory=folder)  # by a client that looks for its server for longer
    backoff.logger.removeHandler(handler)
    client.close()
    assert gate.result().outcome is Outcome.OK


async def test_the_gate_runs_and_writes_nothing_and_names_what_is_missing(
    any_db: Database, folder: Path, write: Write
) -> None:
    write("001_a.py", SCRIPT)
    with pytest.raises(NotReady, match="the standard indexes are not created, 001 is pending") as caught:
        await wait_until_current(any_db, directory=folder, timeout=0.05)
    assert caught.value.exit_code == 5
    assert caught.value.report is not None
    assert [(m.version, m.state) for m in caught.value.report.migrations] == [("001", MigrationState.PENDING)]
    assert await any_db.list_collection_names() == []
