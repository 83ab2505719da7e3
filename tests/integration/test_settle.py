"""What operators settle by hand: mark, repair, unlock."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bson.datetime_ms import DatetimeMS

from mydocs.localserver import LocalServer
from mydocs.localserver.clock import ManualClock
from mydocs.migrations import LeaseHeld, MigrationFailed, UsageError, migrate
from mydocs.migrations.driver.client import Database
from mydocs.migrations.errors import ChangedScripts, NeedsDecision, NotPossible, UnknownVersion
from mydocs.migrations.ledger import entries as ledger
from mydocs.migrations.ledger import lease
from mydocs.migrations.ledger.lease import LEASE_SECONDS, Owner, acquire
from mydocs.migrations.model import MigrationState
from mydocs.migrations.operations.settle import mark, repair, repair_plan, unlock

Write = Callable[[str, str], Path]

pytestmark = pytest.mark.anyio

UP = "async def up(db): await db['runs'].insert_one({})\n"


async def states(db: Database) -> dict[str, str]:
    return {document["_id"]: document["state"] async for document in db["_migrations"].find().sort("_id", 1)}


async def entry(db: Database, version: str) -> dict[str, Any]:
    found = await db["_migrations"].find_one({"_id": version})
    assert found is not None
    return found


async def outcomes(db: Database) -> list[tuple[str, str]]:
    return [(d["version"], d["outcome"]) async for d in db["_migrations_log"].find().sort("_id", 1)]


async def run(db: Database, folder: Path) -> None:
    await migrate(db, directory=folder, standard_indexes={})


# mark


async def test_marking_all_as_applied_baselines_a_database_without_running_anything(
    any_db: Database, folder: Path, write: Write
) -> None:
    write("001_a.py", UP)
    write("002_b.py", UP)
    report = await mark(any_db, applied=True, everything=True, directory=folder)
    assert [(m.version, m.state) for m in report.migrations] == [
        ("001", MigrationState.APPLIED),
        ("002", MigrationState.APPLIED),
    ]
    await run(any_db, folder)
    assert await any_db["runs"].count_documents({}) == 0
    marked = await entry(any_db, "001")
    assert (marked["attempts"], marked["script"]) == (0, "001_a.py")
    assert marked["checksum"].startswith("sha256:")


async def test_marking_as_applied_again_changes_nothing(db: Database, folder: Path, write: Write) -> None:
    write("001_a.py", UP)
    await run(db, folder)
    before = await entry(db, "001")
    await mark(db, "1", applied=True, directory=folder)
    assert await entry(db, "001") == before
    assert await outcomes(db) == []


@pytest.mark.parametrize(("applied", "runs"), [(True, 1), (False, 2)])
async def test_marking_settles_a_script_that_must_not_run_twice(
    any_db: Database, folder: Path, write: Write, applied: bool, runs: int
) -> None:
    text = "IDEMPOTENT = False\nasync def up(db):\n    await db['runs'].insert_one({})\n"
    write("001_a.py", text + "    raise ValueError\n")
    with pytest.raises(MigrationFailed):
        await run(any_db, folder)
    with pytest.raises(NeedsDecision):
        await run(any_db, folder)
    await mark(any_db, "001", applied=applied, directory=folder)
    write("001_a.py", text + "    raise ValueError\n" if applied else text)
    await run(any_db, folder)
    assert await states(any_db) == {"001": "applied"}
    assert await any_db["runs"].count_documents({}) == runs
    assert await outcomes(any_db) == [("001", "failed")]


async def test_marking_as_pending_runs_an_applied_script_again(db: Database, folder: Path, write: Write) -> None:
    write("001_a.py", UP)
    await run(db, folder)
    report = await mark(db, "001_a", applied=False, directory=folder)
    assert [m.state for m in report.migrations] == [MigrationState.PENDING]
    assert await states(db) == {}
    await run(db, folder)
    assert await db["runs"].count_documents({}) == 2


@pytest.mark.parametrize(
    ("marks", "runs"),
    [
        pytest.param([True], 0, id="applied"),
        pytest.param([False], 1, id="pending"),
        pytest.param([True, False], 1, id="applied, then pending"),
    ],
)
async def test_an_entry_of_the_earlier_runner_can_be_marked(
    any_db: Database, folder: Path, write: Write, marks: list[bool], runs: int
) -> None:
    write("001_a.py", UP)
    for _ in range(2):  # it kept one for each time that the script ran
        await any_db["_migrations"].insert_one({"file_name": "001_a.py", "run_at": "2025-03-04T05:06:07"})
    for applied in marks:
        await mark(any_db, "001", applied=applied, directory=folder)
    await run(any_db, folder)
    assert await any_db["runs"].count_documents({}) == runs
    assert await states(any_db) == {"001": "applied"}


async def test_an_entry_of_the_earlier_runner_whose_file_is_gone_can_be_forgotten(db: Database, folder: Path) -> None:
    await db["_migrations"].insert_one({"file_name": "001_a.py", "run_at": "2025-03-04T05:06:07"})
    await repair(db, directory=folder)
    assert await db["_migrations"].count_documents({}) == 0


@pytest.mark.parametrize(
    ("versions", "options", "error"),
    [
        pytest.param(("009",), {}, UnknownVersion, id="unknown"),
        pytest.param((), {}, UsageError, id="nothing named"),
        pytest.param(("001",), {"everything": True}, UsageError, id="both"),
    ],
)
async def test_what_cannot_be_marked_is_a_usage_error_and_changes_nothing(
    db: Database,
    folder: Path,
    write: Write,
    versions: tuple[str, ...],
    options: dict[str, Any],
    error: type[UsageError],
) -> None:
    write("001_a.py", UP)
    with pytest.raises(error) as caught:
        await mark(db, *versions, applied=True, directory=folder, **options)
    assert caught.value.exit_code == 2
    assert await states(db) == {}


# repair


async def test_a_repair_accepts_edited_scripts_and_forgets_missing_ones(
    any_db: Database, folder: Path, write: Write, local_server: LocalServer
) -> None:
    for name in ("001_a.py", "002_b.py", "003_c.py"):
        write(name, UP)
    await run(any_db, folder)
    write("001_a.py", UP + "# edited\n")
    (folder / "002_b.py").unlink()
    with pytest.raises(ChangedScripts):
        await run(any_db, folder)
    local_server.controls.clear()
    wanted = await repair_plan(any_db, directory=folder)
    assert ([s.version for s in wanted.changed], [s.version for s in wanted.missing]) == (["001"], ["002"])
    assert local_server.controls.counts().keys() == {"aggregate"}
    report = await repair(any_db, directory=folder)
    assert [(m.version, m.script, m.state) for m in report.migrations] == [
        ("001", "001_a.py", MigrationState.APPLIED),
        ("002", None, MigrationState.PENDING),
    ]
    assert await states(any_db) == {"001": "applied", "003": "applied"}
    assert await outcomes(any_db) == [("002", "applied")]
    await run(any_db, folder)
    assert await any_db["runs"].count_documents({}) == 3


async def test_a_repair_with_nothing_to_mend_changes_nothing(db: Database, folder: Path, write: Write) -> None:
    write("001_a.py", UP)
    await run(db, folder)
    before = await entry(db, "001")
    assert (await repair(db, directory=folder)).migrations == ()
    assert await entry(db, "001") == before


async def test_settling_needs_the_lease(db: Database, folder: Path, write: Write) -> None:
    write("001_a.py", UP)
    assert await acquire(db, Owner(host="elsewhere"))
    with pytest.raises(LeaseHeld, match="elsewhere"):
        await mark(db, "001", applied=True, directory=folder, lock_timeout=0)
    with pytest.raises(LeaseHeld):
        await repair(db, directory=folder, lock_timeout=0)
    assert await states(db) == {}


# unlock


async def test_the_holder_is_shown_without_a_write(any_db: Database, local_server: LocalServer) -> None:
    assert await unlock(any_db) is None
    assert await any_db.list_collection_names() == []
    assert await acquire(any_db, Owner(host="h", pid=9))
    with pytest.raises(LeaseHeld) as caught:
        await unlock(any_db)
    view = caught.value.holder
    assert (view.host, view.pid, view.term, view.live) == ("h", 9, 1, True)


async def test_a_live_lease_is_broken_only_by_force(any_db: Database) -> None:
    held = await acquire(any_db, Owner(host="h"))
    assert held is not None
    with pytest.raises(LeaseHeld, match="unlock --force"):
        await unlock(any_db)
    view = await unlock(any_db, force=True)
    assert view is not None
    assert (view.host, view.live) == ("h", True)
    successor = await acquire(any_db, Owner())
    assert successor is not None
    assert successor.term == held.term + 1


async def test_a_lease_that_has_run_out_is_no_obstacle(db: Database, local_clock: ManualClock) -> None:
    assert await acquire(db, Owner(host="h"))
    local_clock.advance(LEASE_SECONDS + 1)
    view = await unlock(db)
    assert view is not None
    assert not view.live
    assert await acquire(db, Owner())


async def test_a_lease_until_beyond_9999_is_shown_and_can_be_broken(any_db: Database) -> None:
    taken = await acquire(any_db, Owner())
    assert taken is not None
    await any_db[lease.COLLECTION].update_one({}, {"$set": {"expires_at": DatetimeMS(2**50)}})
    with pytest.raises(LeaseHeld, match="unlock --force"):
        await unlock(any_db)
    view = await unlock(any_db, force=True)
    assert view is not None
    assert view.run_id == taken.owner.run_id
    assert await acquire(any_db, Owner()) is not None


async def test_unlocking_what_was_never_locked_is_no_error(db: Database) -> None:
    assert await unlock(db, force=True) is None


async def test_a_lease_that_changes_hands_meanwhile_is_not_broken(
    db: Database, local_server: LocalServer, local_clock: ManualClock
) -> None:
    from pymongo import MongoClient

    assert await acquire(db, Owner(host="h"))

    def change_hands(_: object) -> None:
        with MongoClient[dict[str, Any]](local_server.url) as client:
            client["app"][lease.COLLECTION].update_one({}, {"$inc": {"term": 1}, "$set": {"owner.id": "successor"}})

    is_lock = local_server.controls.call(change_hands, command="update")
    with pytest.raises(NotPossible, match="changed hands"):
        await unlock(db, force=True)
    assert is_lock.fired == 1
    view = (await ledger.read(db)).lease
    assert view is not None
    assert view.run_id == "successor"
