"""
A whole run on one page: files and ledger → plan → lease → steps → wait → report. Start reading here.

Every public function ends in one of two ways: it returns a report, or it raises one :class:`MigrationError` that
carries the report of what was done until then. Its last event is always ``RunFinished``, also when it is cancelled.
"""

import time
from pathlib import Path

import anyio

from mydocs.indexes import STANDARD_INDEXES
from mydocs.migrations.driver import mongo
from mydocs.migrations.driver.shared_looks import shared_looks
from mydocs.migrations.errors import NotReady
from mydocs.migrations.execution.executor import Executor
from mydocs.migrations.indexes.readiness import Track
from mydocs.migrations.indexes.standard import IndexModels, standard_checksum
from mydocs.migrations.indexes.waiter import SIGN_OF_LIFE_SECONDS, raise_unready, target_of, wait_for
from mydocs.migrations.ledger import documents
from mydocs.migrations.ledger import entries as ledger
from mydocs.migrations.ledger.entries import Snapshot
from mydocs.migrations.ledger.lease import held
from mydocs.migrations.ledger.plan import Options, Plan, classify, make_plan, tracked
from mydocs.migrations.ledger.turn import look, take_turn
from mydocs.migrations.model import STANDARD_VERSION, MigrationState
from mydocs.migrations.operations.call import Call, call_on, discovered, planned_standard, stamp_of
from mydocs.migrations.reporting.events import Sink, StillWaiting, emit
from mydocs.migrations.reporting.report import Outcome, RunReport
from mydocs.migrations.scripts.discover import Discovery

UNAPPLIED = "`mydocs migrate run` does what nobody is at work on, `mydocs migrate wait` takes the wait up again"


async def migrate(
    db: mongo.Database,
    *,
    directory: str | Path = "migrations",
    wait: bool = False,
    timeout: float | None = 3600.0,
    target: str | None = None,
    lock_timeout: float | None = 600.0,
    allow_changed: bool = False,
    allow_out_of_order: bool = False,
    standard_indexes: IndexModels = STANDARD_INDEXES,
    on_event: Sink | None = None,
) -> RunReport:
    """
    Bring the database to the state that the scripts ask for.

    Safe to call from any number of replicas at once: one of them does the work, the others wait for it.

    :param directory: the folder of the scripts
    :param wait: return only when every search index that the ledger names can be queried
    :param timeout: seconds for that wait, ``None`` for no limit
    :param target: the last version to run; ``None`` for all
    :param lock_timeout: seconds to wait while somebody else migrates; 0 is one try, ``None`` no limit
    :param allow_changed: go on although applied scripts were edited
    :param allow_out_of_order: run pending scripts below the highest applied one
    :param standard_indexes: collection → index models, created before the scripts
    :param on_event: takes each event as it happens, on the event loop or a driver's thread; without one they are
        logged, see :func:`mydocs.migrations.reporting.sinks.logging_sink`
    :raises MigrationError: with ``exit_code``, and ``report`` of what was done until then
    """
    options = Options(target=target, allow_changed=allow_changed, allow_out_of_order=allow_out_of_order)
    async with call_on(db, on_event) as call:
        found = await discovered(call, directory)
        snapshot = await ledger.read(db)
        plan = call.planned(_plan(found, snapshot, options, standard_indexes), snapshot)
        if not plan.is_empty:
            await _migrate(call, directory, found, options, standard_indexes, lock_timeout)
        if wait:
            await wait_for_tracked(call, timeout)
    return call.report()


async def dry_run(
    db: mongo.Database,
    *,
    directory: str | Path = "migrations",
    target: str | None = None,
    allow_changed: bool = False,
    allow_out_of_order: bool = False,
    standard_indexes: IndexModels = STANDARD_INDEXES,
    on_event: Sink | None = None,
) -> RunReport:
    """
    Say what :func:`migrate` would do; writes nothing and runs nothing.

    :raises MigrationError: where :func:`migrate` would refuse the files or the plan
    """
    options = Options(target=target, allow_changed=allow_changed, allow_out_of_order=allow_out_of_order)
    async with call_on(db, on_event, outcome=Outcome.PLANNED) as call:
        found = await discovered(call, directory)
        snapshot = await ledger.read(db)
        plan = call.planned(_plan(found, snapshot, options, standard_indexes), snapshot)
        call.indexes = planned_standard(standard_indexes) if plan.standard else ()
    return call.report()


async def wait_for_indexes(
    db: mongo.Database, *, timeout: float | None = 3600.0, on_event: Sink | None = None
) -> RunReport:
    """
    Wait until every index that the ledger names can be queried.

    :param timeout: seconds, or ``None`` for no limit
    :raises IndexFailed: once the others are settled, where a build has failed
    :raises NotReady: where the time is up; the builds go on
    """
    async with call_on(db, on_event) as call:
        call.snapshot = await ledger.read(db)
        await wait_for_tracked(call, timeout)
    return call.report()


async def wait_until_current(
    db: mongo.Database,
    *,
    directory: str | Path = "migrations",
    timeout: float | None = 3600.0,
    standard_indexes: IndexModels = STANDARD_INDEXES,
    on_event: Sink | None = None,
) -> RunReport:
    """
    Wait until somebody has applied every script of a folder, and every index can be queried. Runs and writes nothing.

    :param timeout: seconds for all of it together, or ``None`` for no limit
    :raises NotReady: names the scripts that are not applied or the indexes that are not ready
    :raises IndexFailed: once the others are settled, where a build has failed
    """
    started = time.monotonic()
    async with call_on(db, on_event) as call:
        found = await discovered(call, directory)
        call.snapshot = await ledger.read(db)
        with anyio.move_on_after(timeout), shared_looks(db, documents.COLLECTION) as looks:
            told: tuple[list[str], float] = ([], -SIGN_OF_LIFE_SECONDS)
            while late := _unapplied(call, found, standard_indexes):
                waited = time.monotonic() - started
                if late != told[0] or waited - told[1] >= SIGN_OF_LIFE_SECONDS:
                    told = (late, waited)
                    emit(call.sink, StillWaiting(what=tuple(late), seconds=waited))
                call.snapshot = await look(db, looks, waited)
        waited = time.monotonic() - started
        if late := _unapplied(call, found, standard_indexes):
            raise NotReady(late, waited, UNAPPLIED)
        await wait_for_tracked(call, timeout, waited=waited)
    return call.report()


def _plan(
    found: Discovery, snapshot: Snapshot, options: Options, models: IndexModels, run_id: str | None = None
) -> Plan:
    checksum = standard_checksum(models) if models else None
    return make_plan(
        found.scripts, snapshot.entries, snapshot.lease, options, standard_checksum=checksum, run_id=run_id
    )


async def _migrate(
    call: Call,
    directory: str | Path,
    found: Discovery,
    options: Options,
    models: IndexModels,
    lock_timeout: float | None,
) -> None:
    """Do the work under the lease, or see somebody else finish it."""

    def is_done(snapshot: Snapshot) -> bool:
        return _plan(found, snapshot, options, models).is_empty

    lease, seen = await take_turn(call.db, call.owner, timeout=lock_timeout, is_done=is_done, sink=call.sink)
    if lease is None or seen is not None:
        call.standings, call.snapshot = (), seen or call.snapshot
        return
    async with held(call.db, lease):
        fresh = await discovered(call, directory)  # again, like the ledger: the wait for the lease may have been long
        snapshot = await ledger.read(call.db)
        plan = call.planned(_plan(fresh, snapshot, options, models, call.owner.run_id), snapshot)
        stamp = stamp_of(lease)
        legacy = [entry for entry in snapshot.entries if entry.legacy]
        await ledger.adopt(call.db, lease, legacy, fresh.scripts, stamp)
        call.standard = models
        executor = Executor(db=call.db, lease=lease, stamp=stamp, sink=call.sink, done=call.done)
        await executor.run(plan, models)


async def wait_for_tracked(call: Call, timeout: float | None, *, waited: float = 0.0) -> None:
    """
    Wait for every index that the ledger names, counting in what this call has written.

    :param waited: seconds of ``timeout`` that are gone
    """

    def keep(tracks: tuple[Track, ...]) -> None:
        call.tracks = tracks

    now = time.monotonic()
    ages = _ages(call.snapshot, now)
    targets = [
        target_of(record, now, ages.get((record.collection, record.name), 0.0)) for record in tracked(call.entries())
    ]
    left = None if timeout is None else max(0.0, timeout - waited)
    call.tracks = await wait_for(call.db, targets, timeout=left, sink=call.sink, keep=keep)
    raise_unready(call.tracks, timeout or 0.0)


def _ages(snapshot: Snapshot, now: float) -> dict[tuple[str, str], float]:
    """Give the seconds since each index was last asked for, as ledger and server tell."""
    ages: dict[tuple[str, str], float] = {}
    for entry in snapshot.entries:
        if entry.finished_at is not None and snapshot.seen_at is not None:
            age = max(0.0, (snapshot.seen_at - entry.finished_at).total_seconds()) + now - snapshot.read_at
            for key in ((record.collection, record.name) for record in entry.indexes):
                ages[key] = min(age, ages.get(key, age))
    return ages


def _unapplied(call: Call, found: Discovery, models: IndexModels) -> list[str]:
    """Take where a folder's scripts stand into the call's report, and say what of them is not applied, in words."""
    snapshot = call.snapshot
    standings = classify(found.scripts, snapshot.entries, snapshot.lease)
    call.standings = tuple(standing for standing in standings if standing.script is not None)
    done = (MigrationState.APPLIED, MigrationState.CHANGED)
    late = [
        f"{standing.version} is {standing.state.value}" for standing in call.standings if standing.state not in done
    ]
    # Any list of standard indexes will do: that of a newer application must not keep an older one from starting.
    if models and not any(
        entry.version == STANDARD_VERSION and entry.state is MigrationState.APPLIED for entry in snapshot.entries
    ):
        late.insert(0, "the standard indexes are not created")
    return late
