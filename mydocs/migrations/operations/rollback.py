"""Roll back: run the ``down`` of applied migrations, newest first, under the lease. I/O."""

import time
from collections.abc import Sequence
from pathlib import Path

import anyio

from mydocs.migrations.driver.client import Database
from mydocs.migrations.driver.session import Session
from mydocs.migrations.driver.task_groups import one_error_group
from mydocs.migrations.errors import NotReady, PlanError
from mydocs.migrations.execution.executor import Executor
from mydocs.migrations.indexes.submit import until_gone
from mydocs.migrations.indexes.waiter import LISTINGS_AT_ONCE
from mydocs.migrations.ledger import entries as ledger
from mydocs.migrations.ledger.plan import Standing, classify, make_rollback
from mydocs.migrations.model import IndexAction, MigrationState, ScriptOptions, TrackedIndex
from mydocs.migrations.operations.arguments import check_seconds
from mydocs.migrations.operations.report_builder import ReportBuilder
from mydocs.migrations.operations.reported import discovered, reported
from mydocs.migrations.operations.settle import leading
from mydocs.migrations.operations.wait import wait_for_tracked
from mydocs.migrations.reporting.events import Planned, Sink
from mydocs.migrations.reporting.report import Outcome, RunReport
from mydocs.migrations.scripts.discover import Discovery

LEAVES_LATER = "the server goes on deleting it, `mydocs migrate status` shows the indexes that are to stay"


async def rollback(
    db: Database,
    *,
    directory: str | Path = "migrations",
    steps: int | None = None,
    target: str | None = None,
    wait: bool = False,
    timeout: float | None = 3600.0,
    lock_timeout: float | None = 600.0,
    script_timeout: float | None = None,
    dry_run: bool = False,
    on_event: Sink | None = None,
) -> RunReport:
    """
    Roll migrations back. They are pending again afterwards.

    :param steps: how many, 1 or more, counted from the newest applied one; ``None`` for 1
    :param target: roll back all above this version, in place of ``steps``
    :param wait: return only when dropped search indexes are gone and the others can be queried
    :param timeout: seconds for all of that wait together, ``None`` for no limit
    :param lock_timeout: seconds to wait while another run holds the lease; 0 is one try, ``None`` is no limit
    :param script_timeout: seconds for each ``down``, which is then cancelled and fails; ``None`` for no limit
    :param dry_run: return what would be rolled back, and do nothing
    :raises UsageError: if ``steps`` is less than 1, or both are given
    :raises PlanError: if another run has migrated while this one waited for the lease, so that ``steps`` means others
    :raises LeaseHeld: if the lease is not free within ``lock_timeout``
    :raises NotReversible: names every migration that has no ``down``, before the first one is rolled back
    :raises MigrationFailed: if a ``down`` raised; those before it are rolled back
    :raises NotReady: names the indexes that are still listed, or cannot be queried yet, when the time is up
    """
    async with reported(db, on_event, outcome=Outcome.PLANNED if dry_run else Outcome.OK) as (session, report):
        check_seconds(timeout=timeout, lock_timeout=lock_timeout, script_timeout=script_timeout)
        found = await discovered(session, report, directory)
        chosen = await _plan(session, report, found, steps, target)
        if chosen and not dry_run:
            dropped = await _roll_back(session, report, found, chosen, target, lock_timeout, script_timeout)
            if wait:
                started = time.monotonic()
                await _until_all_gone(db, dropped, timeout)
                await wait_for_tracked(session, report, timeout, waited=time.monotonic() - started)
    return report.build()


async def _plan(
    session: Session,
    report: ReportBuilder,
    found: Discovery,
    steps: int | None,
    target: str | None,
    run_id: str | None = None,
) -> tuple[Standing, ...]:
    report.snapshot = await ledger.read(session.db)
    standings = classify(found.scripts, report.snapshot.entries, report.snapshot.lease, run_id=run_id)
    chosen = make_rollback(standings, steps=steps, target=target)
    report.standings = chosen
    versions = tuple(standing.version for standing in chosen)
    session.emit(Planned(versions=versions, standard=False, direction="down"))
    return chosen


async def _roll_back(
    session: Session,
    report: ReportBuilder,
    found: Discovery,
    named: Sequence[Standing],
    target: str | None,
    lock_timeout: float | None,
    script_timeout: float | None,
) -> list[TrackedIndex]:
    """
    Roll back under the lease.

    :param named: the migrations to roll back, as decided before the wait for the lease
    """
    async with leading(session, lock_timeout) as held:
        if any(entry.legacy for entry in report.snapshot.entries):
            legacy = [entry for entry in (await ledger.read(session.db)).entries if entry.legacy]
            await held.adopt(legacy, found.scripts)
        chosen = await _plan(session, report, found, None if target is not None else len(named), target, session.run_id)
        before, now = ([standing.version for standing in standings] for standings in (named, chosen))
        if target is None and now != before:
            raise PlanError(
                f"another run has migrated meanwhile, and {', '.join(now) or 'nothing'} would be rolled back instead "
                f"of {', '.join(before)}; nothing was, look at `mydocs migrate status`"
            )
        scripts = ScriptOptions(timeout=script_timeout)
        executor = Executor(ledger=held, sink=session.sink, done=report.done, scripts=scripts)
        await executor.take_back(chosen, report.snapshot.entries)
    taken_back = [entry for entry in report.done if entry.state is MigrationState.PENDING]
    latest = {index.key: index for entry in taken_back for index in entry.indexes}
    return [index for index in latest.values() if index.action is IndexAction.DROPPED and index.type.is_search]


async def _until_all_gone(db: Database, dropped: Sequence[TrackedIndex], timeout: float | None) -> None:
    late = {str(index): None for index in dropped}
    limiter = anyio.CapacityLimiter(LISTINGS_AT_ONCE)

    async def one(index: TrackedIndex) -> None:
        await until_gone(db, index.collection, index.name, None, timeout=None, limiter=limiter)
        del late[str(index)]

    with anyio.move_on_after(timeout):
        async with one_error_group() as group:
            for index in dropped:
                group.start_soon(one, index)
    if late:
        raise NotReady([f"{index} is dropped and still listed" for index in late], timeout or 0.0, LEAVES_LATER)
