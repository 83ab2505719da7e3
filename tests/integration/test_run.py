"""A whole run on a local server: what is recorded, counted, reported and raised, and what cancellation leaves."""

import asyncio
import sys
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import Mock

import anyio
import pytest
from motor.motor_asyncio import AsyncIOMotorClient
from pymongo import IndexModel

from mydocs.localserver import LocalServer
from mydocs.localserver.clock import ManualClock
from mydocs.migrations import migrate
from mydocs.migrations.driver.client import Database
from mydocs.migrations.errors import (
    DirectoryMissing,
    IndexConflict,
    LeaseHeld,
    LeaseLost,
    MigrationError,
    MigrationFailed,
    NotAuthorised,
    OutOfOrder,
    ScriptsInvalid,
    ServerUnreachable,
    UnknownVersion,
)
from mydocs.migrations.ledger import lease as leases
from mydocs.migrations.ledger.held_ledger import HeldLedger
from mydocs.migrations.ledger.lease import Owner, acquire
from mydocs.migrations.limits import Limits, limited_to
from mydocs.migrations.model import Entry, IndexState, IndexType, MigrationState
from mydocs.migrations.operations.migrate import dry_run
from mydocs.migrations.reporting.events import (
    Event,
    IndexChanged,
    LeaseTaken,
    LeaseWaiting,
    Planned,
    StepFinished,
    StepStarted,
)
from mydocs.migrations.reporting.report import Outcome, RunFinished

Write = Callable[[str, str], Path]

pytestmark = pytest.mark.anyio

TRIVIAL = """
    async def up(db):
        await db["runs"].insert_one({"file": __file__[-4:]})
"""
SEARCH = """
    from pymongo.operations import SearchIndexModel
    from mydocs.migrations import ensure_search_indexes
    async def up(db):
        await ensure_search_indexes(db["pages"], [SearchIndexModel(name="ft", definition={"mappings": {}})])
"""


class Witness(ModuleType):
    """A module that scripts import to talk to the test."""

    def __init__(self) -> None:
        super().__init__("witness")
        self.began = asyncio.Event()
        self.go = threading.Event()
        self.loop = asyncio.get_running_loop()
        self.renewals = 0

    def begin(self) -> None:
        """Say that a script is under way; from any thread."""
        self.loop.call_soon_threadsafe(self.began.set)


@pytest.fixture
async def witness(monkeypatch: pytest.MonkeyPatch) -> Witness:
    module = Witness()
    monkeypatch.setitem(sys.modules, "witness", module)
    return module


async def documents(db: Database, collection: str) -> list[dict[str, Any]]:
    return await db[collection].find().sort("_id", 1).to_list(None)


async def entry(db: Database, version: str) -> dict[str, Any]:
    found = await db["_migrations"].find_one({"_id": version})
    assert found is not None
    return found


async def states(db: Database) -> dict[str, str]:
    return {document["_id"]: document["state"] for document in await documents(db, "_migrations")}


async def lease_is_free(db: Database) -> bool:
    lease = await db["_migrations_lock"].find_one({"_id": "lease"})
    return lease is not None and lease["owner"] is None


# What a run does


async def test_a_lease_that_is_lost_between_two_scripts_starts_nothing(
    db: Database, folder: Path, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("001_first.py", TRIVIAL)
    write("002_second.py", TRIVIAL)
    finish_and_start = HeldLedger.finish_and_start

    async def lose(held: HeldLedger, ended: Entry, following: Entry) -> tuple[Entry, Entry | None]:
        done = await finish_and_start(held, ended, following)
        held.lease.lost = following.version == "002"
        return done

    monkeypatch.setattr(HeldLedger, "finish_and_start", lose)
    with pytest.raises(LeaseLost) as caught:
        await migrate(db, directory=folder)
    assert len(await documents(db, "runs")) == 1
    assert await states(db) == {"standard": "applied", "001": "applied", "002": "running"}
    report = caught.value.report
    assert report is not None
    assert [m.state for m in report.migrations] == [MigrationState.APPLIED, MigrationState.INTERRUPTED]


@pytest.mark.parametrize("text", [TRIVIAL, "    IDEMPOTENT = False" + TRIVIAL], ids=["idempotent", "not idempotent"])
async def test_a_script_that_must_not_run_twice_is_recorded_when_it_starts_and_not_before(
    db: Database, local_server: LocalServer, folder: Path, write: Write, text: str
) -> None:
    write("001_first.py", TRIVIAL)
    write("002_second.py", text)
    await migrate(db, directory=folder)
    records = [r.body["updates"] for r in local_server.controls.counted() if r.body.get("update") == "_migrations"]
    together = ["001", "002"] in [[update["q"]["_id"] for update in updates] for updates in records]
    assert together == ("IDEMPOTENT" not in text)
    assert await states(db) == {"standard": "applied", "001": "applied", "002": "applied"}


async def test_a_refused_record_of_the_next_script_leaves_the_end_of_the_one_before(
    db: Database, folder: Path, write: Write
) -> None:
    write(
        "001_first.py",
        """
        async def up(db):
            await db["_migrations"].insert_one({"_id": "002", "state": "failed", "attempts": 7, "run": {"id": "x"}})
    """,
    )
    write("002_second.py", TRIVIAL)
    with pytest.raises(LeaseLost) as caught:
        await migrate(db, directory=folder)
    report = caught.value.report
    assert report is not None
    assert [m.state for m in report.migrations] == [MigrationState.APPLIED, MigrationState.PENDING]
    assert await states(db) == {"standard": "applied", "001": "applied", "002": "failed"}


async def test_a_failed_script_whose_number_got_another_digit_runs_again(
    db: Database, folder: Path, write: Write
) -> None:
    path = write("001_first.py", "    async def up(db):\n        raise ValueError")
    with pytest.raises(MigrationFailed):
        await migrate(db, directory=folder)
    path.unlink()
    write("0001_first.py", TRIVIAL)
    report = await migrate(db, directory=folder)
    assert [(m.version, m.script, m.state) for m in report.migrations] == [
        ("001", "0001_first.py", MigrationState.APPLIED)
    ]
    assert (await entry(db, "001"))["attempts"] == 2


async def test_a_first_run_takes_every_step_in_order_and_records_it(
    any_db: Database, folder: Path, write: Write
) -> None:
    write("001_first.py", TRIVIAL)
    write("002_second.py", TRIVIAL)
    before = datetime.now(UTC).replace(microsecond=0)
    report = await migrate(any_db, directory=folder)
    assert report.outcome is Outcome.OK
    assert [(m.version, m.name, m.script, m.state) for m in report.migrations] == [
        ("001", "first", "001_first.py", MigrationState.APPLIED),
        ("002", "second", "002_second.py", MigrationState.APPLIED),
    ]
    assert await states(any_db) == {"001": "applied", "002": "applied", "standard": "applied"}
    first = await entry(any_db, "001")
    assert list(first) == [
        *("_id", "name", "script", "checksum", "state", "attempts", "started_at", "finished_at", "seconds"),
        *("error", "indexes", "run"),
    ]
    assert (first["name"], first["script"], first["attempts"], first["error"]) == ("first", "001_first.py", 1, None)
    assert before <= first["started_at"] <= first["finished_at"]
    assert first["run"].keys() == {"id", "term", "host", "pid", "tool"}
    assert first["run"]["term"] == 1
    assert await lease_is_free(any_db)
    assert await any_db["runs"].count_documents({}) == 2


async def test_the_standard_indexes_come_before_the_scripts_one_command_a_collection(
    db: Database, folder: Path, write: Write, local_server: LocalServer
) -> None:
    write("001_first.py", TRIVIAL)
    report = await migrate(db, directory=folder)
    counts = [recorded.name for recorded in local_server.controls.counted()]
    assert counts.count("createIndexes") == 2
    assert "insert" not in counts[: counts.index("createIndexes")]
    assert set(await db["documents"].index_information()) == {
        *("_id_", "status_1", "tags_1", "file_type_1", "created_at_-1", "file_metadata.sha256_1")
    }
    assert set(await db["pages"].index_information()) == {"_id_", "document_id_1_page_number_1", "document_id_1"}
    standard = [i for i in report.indexes if i.type is IndexType.STANDARD]
    assert len(standard) == 7
    assert all(i.state is IndexState.READY and i.queryable for i in standard)


async def test_a_changed_list_of_standard_indexes_is_a_step_again(db: Database, folder: Path) -> None:
    await migrate(db, directory=folder, standard_indexes={"a": [IndexModel("x")]})
    await migrate(db, directory=folder, standard_indexes={"a": [IndexModel("x"), IndexModel("y")]})
    assert set(await db["a"].index_information()) == {"_id_", "x_1", "y_1"}
    assert (await entry(db, "standard"))["attempts"] == 2


async def test_a_standard_index_with_other_options_is_never_dropped_but_an_error(
    db: Database, folder: Path, write: Write
) -> None:
    write("001_first.py", TRIVIAL)
    await db["a"].create_index("x", unique=True)
    with pytest.raises(IndexConflict, match="x_1") as caught:
        await migrate(db, directory=folder, standard_indexes={"a": [IndexModel("x")]})
    assert caught.value.exit_code == 1
    assert (await db["a"].index_information())["x_1"]["unique"]
    assert await states(db) == {"standard": "failed"}
    assert await lease_is_free(db)


async def test_nothing_to_do_is_one_command_that_writes_nothing(
    any_db: Database, folder: Path, write: Write, local_server: LocalServer
) -> None:
    write("001_search.py", SEARCH)
    await migrate(any_db, directory=folder)
    local_server.controls.clear()
    report = await migrate(any_db, directory=folder)
    assert local_server.controls.counts() == Counter({"aggregate": 1})
    assert (report.outcome, report.migrations) == (Outcome.OK, ())


async def test_nothing_to_do_with_a_wait_is_one_command_more_for_each_collection(
    any_db: Database, folder: Path, write: Write, local_server: LocalServer
) -> None:
    write(
        "001_search.py",
        SEARCH + '        await ensure_search_indexes(db["other"], [SearchIndexModel({"mappings": {}}, "ft")])\n',
    )
    await migrate(any_db, directory=folder, wait=True)
    local_server.controls.clear()
    report = await migrate(any_db, directory=folder, wait=True)
    assert local_server.controls.counts() == Counter({"aggregate": 3})
    assert [(i.collection, i.name, i.state) for i in report.indexes] == [
        ("other", "ft", IndexState.READY),
        ("pages", "ft", IndexState.READY),
    ]


async def test_a_first_run_of_n_scripts_costs_at_most_two_commands_each_and_twelve(
    any_db: Database, folder: Path, write: Write, local_server: LocalServer
) -> None:
    count = 20
    for number in range(1, count + 1):
        write(f"{number:03}_a.py", "async def up(db): pass")
    await migrate(any_db, directory=folder)
    assert len(local_server.controls.counted()) <= 2 * count + 12


async def test_an_empty_folder_is_success(db: Database, folder: Path) -> None:
    report = await migrate(db, directory=folder, standard_indexes={})
    assert (report.outcome, report.migrations) == (Outcome.OK, ())
    assert await db.list_collection_names() == []


async def test_a_target_is_the_last_script_to_run(db: Database, folder: Path, write: Write) -> None:
    for name in ("001_a.py", "002_b.py", "003_c.py"):
        write(name, TRIVIAL)
    await migrate(db, directory=folder, target="2", standard_indexes={})
    assert await states(db) == {"001": "applied", "002": "applied"}
    await migrate(db, directory=folder, target="1", standard_indexes={})
    assert await db["runs"].count_documents({}) == 2


async def test_the_times_of_the_ledger_are_the_server_s(
    any_db: Database, folder: Path, write: Write, local_clock: ManualClock
) -> None:
    """Of two entries the later one counts, and two hosts' clocks may differ by more than their runs are apart."""
    write("001_a.py", TRIVIAL)
    local_clock.advance(86_400)
    began = local_clock.now()
    await migrate(any_db, directory=folder, standard_indexes={})
    first = await entry(any_db, "001")
    times = [first[name].replace(tzinfo=UTC) for name in ("started_at", "finished_at")]
    about = timedelta(minutes=1)
    assert began - about < times[0] <= times[1] < local_clock.now() + about


async def test_a_dry_run_says_what_would_run_and_writes_nothing(
    db: Database, folder: Path, write: Write, local_server: LocalServer
) -> None:
    write("001_a.py", TRIVIAL)
    report = await dry_run(db, directory=folder)
    assert report.outcome is Outcome.PLANNED
    assert [(m.version, m.state) for m in report.migrations] == [("001", MigrationState.PENDING)]
    names = {(i.collection, i.name) for i in report.indexes if (i.state, i.reason) == ("pending", "not created yet")}
    assert {("pages", "document_id_1"), ("documents", "status_1")} < names
    assert await db.list_collection_names() == []
    assert local_server.controls.counts()["aggregate"] == 1


async def test_a_wait_ends_when_the_index_can_be_queried(
    any_db: Database, folder: Path, write: Write, local_server: LocalServer
) -> None:
    write("001_search.py", SEARCH)
    local_server.search.outcome("ft", build_seconds=0.4)
    began = time.monotonic()
    report = await migrate(any_db, directory=folder, wait=True, timeout=10, standard_indexes={})
    (index,) = report.indexes
    assert (index.collection, index.name, index.type) == ("pages", "ft", IndexType.SEARCH)
    assert (index.state, index.queryable) == (IndexState.READY, True)
    assert index.seconds is not None
    assert 0 < index.seconds <= time.monotonic() - began


async def test_without_a_wait_the_index_is_reported_as_submitted(
    db: Database, folder: Path, write: Write, local_server: LocalServer
) -> None:
    write("001_search.py", SEARCH)
    local_server.search.outcome("ft", build_seconds=60)
    report = await migrate(db, directory=folder, standard_indexes={})
    (index,) = report.indexes
    assert (index.state, index.queryable, index.reason) == (IndexState.UNKNOWN, None, "not waited for")


# What stops a run


async def test_a_failing_script_stops_the_run_and_says_where_and_why(
    any_db: Database, folder: Path, write: Write
) -> None:
    write("001_a.py", TRIVIAL)
    write("002_b.py", "async def up(db):\n    pages = 7\n    raise ValueError(f'{pages} pages')\n")
    write("003_c.py", TRIVIAL)
    with pytest.raises(MigrationFailed, match=r"002_b\.py failed, line 3: ValueError: 7 pages") as caught:
        await migrate(any_db, directory=folder, standard_indexes={})
    assert isinstance(caught.value.__cause__, ValueError)
    assert caught.value.exit_code == 1
    report = caught.value.report
    assert report is not None
    assert (report.outcome, report.error and report.error.type) == (Outcome.FAILED, "MigrationFailed")
    assert [(m.version, m.state, m.error and m.error.message) for m in report.migrations] == [
        ("001", MigrationState.APPLIED, None),
        ("002", MigrationState.FAILED, "7 pages"),
        ("003", MigrationState.PENDING, None),
    ]
    assert await states(any_db) == {"001": "applied", "002": "failed"}
    assert (await entry(any_db, "002"))["error"] == {"type": "ValueError", "message": "7 pages"}
    assert await lease_is_free(any_db)


async def test_a_script_that_has_failed_runs_again_and_its_first_attempt_is_kept(
    db: Database, folder: Path, write: Write
) -> None:
    write("001_a.py", "async def up(db): raise ValueError('not yet')")
    with pytest.raises(MigrationFailed):
        await migrate(db, directory=folder, standard_indexes={})
    assert await documents(db, "_migrations_log") == []
    write("001_a.py", TRIVIAL)
    await migrate(db, directory=folder, standard_indexes={})
    assert (await entry(db, "001"))["attempts"] == 2
    assert (await entry(db, "001"))["error"] is None
    (kept,) = await documents(db, "_migrations_log")
    assert (kept["version"], kept["direction"], kept["outcome"], kept["attempt"]) == ("001", "up", "failed", 1)
    assert kept["error"] == {"type": "ValueError", "message": "not yet"}


async def test_all_pending_scripts_are_loaded_before_the_first_one_runs(
    db: Database, folder: Path, write: Write
) -> None:
    write("001_a.py", TRIVIAL)
    write("002_b.py", "import nothing_of_this_name\nasync def up(db): pass\n")
    with pytest.raises(ScriptsInvalid, match=r"002_b\.py, line 1 cannot be loaded: ModuleNotFoundError"):
        await migrate(db, directory=folder, standard_indexes={})
    assert await states(db) == {}
    assert await lease_is_free(db)


@pytest.mark.parametrize(
    ("files", "options", "error", "exit_code"),
    [
        pytest.param({"001_a.py": "def up(:"}, {}, ScriptsInvalid, 1, id="invalid file"),
        pytest.param({"001_a.py": TRIVIAL}, {"target": "9"}, UnknownVersion, 2, id="unknown target"),
        pytest.param({"001_a.py": TRIVIAL, "002_b.py": TRIVIAL}, {}, OutOfOrder, 1, id="out of order"),
        pytest.param({}, {"directory": "nowhere"}, DirectoryMissing, 2, id="no folder"),
    ],
)
async def test_what_is_wrong_beforehand_is_raised_with_a_report_and_nothing_is_written(
    db: Database,
    folder: Path,
    write: Write,
    local_server: LocalServer,
    files: dict[str, str],
    options: dict[str, Any],
    error: type[MigrationError],
    exit_code: int,
) -> None:
    await db["_migrations"].insert_one({"_id": "005", "state": "applied"})
    local_server.controls.clear()
    for name, text in files.items():
        write(name, text)
    with pytest.raises(error) as caught:
        await migrate(db, **{"directory": folder} | options)
    assert caught.value.exit_code == exit_code
    assert caught.value.report is not None
    assert caught.value.report.outcome is Outcome.FAILED
    assert local_server.controls.counts().keys() <= {"aggregate"}


@pytest.mark.parametrize(
    ("code", "error"),
    [
        pytest.param(13, NotAuthorised, id="not authorised"),
        pytest.param(18, NotAuthorised, id="login failed"),
    ],
)
async def test_an_error_of_the_server_is_one_sentence_with_its_exit_code(
    db: Database, folder: Path, local_server: LocalServer, code: int, error: type[MigrationError]
) -> None:
    local_server.controls.error(code, "not allowed on app", command="aggregate")
    with pytest.raises(error, match="not allowed on app") as caught:
        await migrate(db, directory=folder)
    assert caught.value.exit_code == 3
    assert caught.value.report is not None


async def test_no_server_is_an_error_of_its_own(folder: Path) -> None:
    client: AsyncIOMotorClient[dict[str, Any]] = AsyncIOMotorClient(
        "mongodb://127.0.0.1:1/", serverSelectionTimeoutMS=10
    )
    with pytest.raises(ServerUnreachable, match=r"127\.0\.0\.1:1"):
        await migrate(client["app"], directory=folder)
    client.close()


# Who may run


async def test_while_somebody_else_holds_the_lease_one_try_is_an_error_that_names_the_holder(
    any_db: Database, folder: Path, write: Write
) -> None:
    write("001_a.py", TRIVIAL)
    other = await acquire(any_db, Owner(host="elsewhere", pid=77))
    assert other is not None
    with pytest.raises(LeaseHeld, match=r"elsewhere \(pid 77\), term 1") as caught:
        await migrate(any_db, directory=folder, lock_timeout=0, standard_indexes={})
    assert caught.value.exit_code == 7
    assert await states(any_db) == {}


async def test_a_run_goes_on_without_the_lease_once_somebody_else_has_done_the_work(
    db: Database, folder: Path, write: Write, local_server: LocalServer
) -> None:
    write("001_a.py", TRIVIAL)
    other = await acquire(db, Owner(host="elsewhere"))
    assert other is not None
    seen: list[Event] = []
    waiting = asyncio.Event()

    def sink(event: Event) -> None:
        seen.append(event)
        if isinstance(event, LeaseWaiting):
            waiting.set()

    async def finish() -> None:
        await waiting.wait()
        await db["_migrations"].insert_one({"_id": "001", "state": "applied", "name": "a"})

    async with asyncio.TaskGroup() as group:
        group.create_task(finish())
        report = await migrate(db, directory=folder, standard_indexes={}, on_event=sink)
    assert (report.outcome, report.migrations) == (Outcome.OK, ())
    assert not any(isinstance(event, LeaseTaken) for event in seen)
    assert await db["runs"].count_documents({}) == 0


async def test_runs_that_start_together_run_each_script_once(any_db: Database, folder: Path, write: Write) -> None:
    for name in ("001_a.py", "002_b.py"):
        write(name, TRIVIAL)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(migrate(any_db, directory=folder)) for _ in range(8)]
    reports = [task.result() for task in tasks]
    assert sum(len(report.migrations) for report in reports) == 2
    assert {report.outcome for report in reports} == {Outcome.OK}
    assert await any_db["runs"].count_documents({}) == 2


async def test_the_lease_is_renewed_while_a_script_blocks_the_event_loop(
    any_db: Database,
    folder: Path,
    write: Write,
    witness: Witness,
    local_server: LocalServer,
) -> None:
    write(
        "001_busy.py",
        """
        import time, witness
        async def up(db):
            until = time.monotonic() + 15
            while witness.renewals < 3 and time.monotonic() < until:
                pass
        """,
    )

    def count(_: object) -> None:
        witness.renewals += 1

    local_server.controls.call(count, command="update", when=is_renewal, times=None)
    with limited_to(Limits(renew_every=0.02)):
        report = await migrate(any_db, directory=folder, standard_indexes={})
    assert report.outcome is Outcome.OK
    assert witness.renewals >= 3
    assert await lease_is_free(any_db)


def is_renewal(recorded: Any) -> bool:
    return recorded.body["update"] == leases.COLLECTION and "owner" not in str(recorded.body["updates"][0]["u"])


async def test_a_lost_lease_cancels_the_script_and_nothing_more_is_recorded(
    any_db: Database,
    folder: Path,
    write: Write,
    witness: Witness,
    local_clock: ManualClock,
) -> None:
    write(
        "001_long.py",
        """
        import anyio, witness
        async def up(db):
            witness.begin()
            try:
                await anyio.sleep_forever()
            finally:
                witness.cancelled = True
        """,
    )
    write("002_next.py", TRIVIAL)
    thief = Owner(host="thief")

    async def steal() -> None:
        await witness.began.wait()
        stolen = None
        while stolen is None:
            local_clock.advance(leases.LEASE_SECONDS + 1)
            stolen = await acquire(any_db, thief)
        assert stolen.term == 2

    async with asyncio.TaskGroup() as group:
        group.create_task(steal())
        with pytest.raises(LeaseLost) as caught, limited_to(Limits(renew_every=0.05)):
            await migrate(any_db, directory=folder, standard_indexes={})
    assert caught.value.exit_code == 7
    assert witness.cancelled
    assert await states(any_db) == {"001": "running"}
    lease = await any_db["_migrations_lock"].find_one({"_id": "lease"})
    assert lease is not None
    assert (lease["owner"]["host"], lease["term"]) == ("thief", 2)
    report = caught.value.report
    assert report is not None
    assert [m.state for m in report.migrations] == [MigrationState.INTERRUPTED, MigrationState.PENDING]


async def test_an_interrupted_script_runs_again_once_the_lease_has_run_out(
    db: Database, folder: Path, write: Write, local_clock: ManualClock
) -> None:
    write("001_a.py", TRIVIAL)
    killed = await acquire(db, Owner(host="killed"))
    assert killed is not None
    await db["_migrations"].insert_one(
        {"_id": "001", "state": "running", "attempts": 1, "run": {"id": killed.owner.run_id, "term": killed.term}}
    )
    local_clock.advance(leases.LEASE_SECONDS + 1)
    await migrate(db, directory=folder, standard_indexes={})
    assert await states(db) == {"001": "applied"}
    assert [d["outcome"] for d in await documents(db, "_migrations_log")] == ["interrupted"]


# What is told meanwhile


async def test_the_events_tell_the_run_in_order(db: Database, folder: Path, write: Write) -> None:
    write("001_a.py", TRIVIAL)
    seen: list[Event] = []
    report = await migrate(db, directory=folder, on_event=seen.append)
    steps = [e for e in seen if isinstance(e, Planned | LeaseTaken | StepStarted | StepFinished | RunFinished)]
    assert [type(event).__name__ for event in steps] == [
        *("Planned", "LeaseTaken"),  # the plan that is made again under the lease is the same, and told once
        *("StepStarted", "StepFinished", "StepStarted", "StepFinished"),
        "RunFinished",
    ]
    assert [e.version for e in seen if isinstance(e, StepFinished)] == ["standard", "001"]
    assert isinstance(seen[-1], RunFinished)
    assert seen[-1].report.migrations == report.migrations


async def test_a_sink_that_raises_stops_nothing(
    db: Database, folder: Path, write: Write, caplog: pytest.LogCaptureFixture
) -> None:
    write("001_search.py", SEARCH)

    def broken(event: Event) -> None:
        raise RuntimeError("broken sink")

    report = await migrate(db, directory=folder, wait=True, on_event=broken)
    assert report.outcome is Outcome.OK
    assert "the event sink raised on Planned" in caplog.text


async def test_nothing_is_printed(db: Database, folder: Path, write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    write("001_a.py", TRIVIAL)
    await migrate(db, directory=folder)
    assert capsys.readouterr() == ("", "")


# What cancellation leaves

WORK = {
    "async script": (
        """
        import anyio, witness
        async def up(db):
            witness.begin()
            await anyio.sleep_forever()
        """,
        "failed",
    ),
    "plain script": (
        """
        import time
        print("begun")
        time.sleep(60)
        """,
        "failed",
    ),
    "plain script that ends all the same": (
        """
        import time
        try:
            print("begun")
            time.sleep(60)
        except KeyboardInterrupt:
            pass
        """,
        "applied",
    ),
    "plain script that fails then": (
        """
        import time
        try:
            print("begun")
            time.sleep(60)
        except KeyboardInterrupt:
            raise SystemExit(3)
        """,
        "failed",
    ),
    "wait": (SEARCH, "applied"),
}


async def by_task(work: Coroutine[Any, Any, Any], witness: Witness) -> None:
    task = asyncio.create_task(work)
    await witness.began.wait()
    task.cancel()
    await asyncio.sleep(0)
    witness.go.set()
    with pytest.raises(asyncio.CancelledError):
        await task


async def by_scope(work: Coroutine[Any, Any, Any], witness: Witness) -> None:
    async def cancel() -> None:
        await witness.began.wait()
        scope.cancel()
        await asyncio.sleep(0)
        witness.go.set()

    async with asyncio.TaskGroup() as group:
        with anyio.CancelScope() as scope:
            group.create_task(cancel())
            await work
    assert scope.cancelled_caught


async def by_timeout(work: Coroutine[Any, Any, Any], witness: Witness) -> None:
    async def expire() -> None:
        await witness.began.wait()
        timeout.reschedule(asyncio.get_running_loop().time())
        await asyncio.sleep(0.01)  # the time limit is a timer of the loop: it has to get its turn
        witness.go.set()

    async with asyncio.TaskGroup() as group:
        group.create_task(expire())
        try:
            async with asyncio.timeout(None) as timeout:
                await work
        except TimeoutError:
            return
    raise AssertionError("the time limit was swallowed")


@pytest.mark.parametrize("kind", WORK)
@pytest.mark.parametrize("cancelled", [by_task, by_scope, by_timeout])
async def test_a_cancelled_run_passes_it_on_and_leaves_a_true_ledger_and_a_free_lease(
    any_db: Database,
    folder: Path,
    write: Write,
    witness: Witness,
    local_server: LocalServer,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    cancelled: Callable[[Coroutine[Any, Any, Any], Witness], Awaitable[None]],
) -> None:
    text, state = WORK[kind]
    local_server.search.outcome("ft", build_seconds=3600)
    write("001_a.py", text)
    if kind != "wait":
        write("002_b.py", TRIVIAL)
    seen: list[Event] = []

    def sink(event: Event) -> None:
        seen.append(event)
        if isinstance(event, IndexChanged):
            witness.begin()

    if kind.startswith("plain"):
        monkeypatch.setattr(sys, "stderr", Mock(write=lambda _: witness.begin()))
    await cancelled(migrate(any_db, directory=folder, wait=True, standard_indexes={}, on_event=sink), witness)
    assert await states(any_db) == {"001": state}
    if state == "failed":
        assert (await entry(any_db, "001"))["error"]["type"] == "Cancelled"
    assert await any_db["runs"].count_documents({}) == 0
    assert await lease_is_free(any_db)
    assert isinstance(seen[-1], RunFinished)
    assert seen[-1].report.outcome is Outcome.INTERRUPTED
