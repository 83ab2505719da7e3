"""
A whole run on one page: files and ledger → plan → lease → steps → wait → report. Start reading here.

Every public function ends in one of two ways: it returns a report, or it raises one :class:`MigrationError` that
carries the report of what was done until then. Its last event is always ``RunFinished``, also when it is cancelled.
"""

from concurrent import futures
from pathlib import Path

from mydocs.indexes import STANDARD_INDEXES
from mydocs.migrations.driver.client import Database
from mydocs.migrations.driver.session import Session
from mydocs.migrations.errors import UsageError
from mydocs.migrations.indexes.standard_list import IndexModels, standard_checksum
from mydocs.migrations.ledger import entries as ledger
from mydocs.migrations.ledger.entries import Snapshot
from mydocs.migrations.ledger.plan import Options, Plan, make_plan
from mydocs.migrations.model import MigrationState
from mydocs.migrations.operations.report_builder import ReportBuilder, planned_standard
from mydocs.migrations.operations.reported import discovered, reported
from mydocs.migrations.reporting.events import Planned, Sink
from mydocs.migrations.reporting.report import Outcome, RunReport
from mydocs.migrations.scripts.discover import Discovery


async def migrate(
    db: Database,
    *,
    directory: str | Path = "migrations",
    wait: bool = False,
    timeout: float | None = 3600.0,
    target: str | None = None,
    lock_timeout: float | None = 600.0,
    allow_changed: bool = False,
    allow_out_of_order: bool = False,
    standard_indexes: IndexModels = STANDARD_INDEXES,
    script_timeout: float | None = None,
    max_building: int | None = None,
    executor: futures.Executor | None = None,
    max_lag: float | None = None,
    on_event: Sink | None = None,
) -> RunReport:
    """
    Bring the database to the state that the scripts ask for.

    Safe to call from any number of replicas at once: one of them does the work, the others wait for it.

    :param directory: the folder of the scripts
    :param wait: return only when every search index that the ledger names can be queried, and what this run has
        applied is right by its ``verify``
    :param timeout: seconds for that wait, ``None`` for no limit
    :param target: the last version to run; ``None`` for all
    :param lock_timeout: seconds to wait while somebody else migrates; 0 is one try, ``None`` no limit
    :param allow_changed: go on although applied scripts were edited
    :param allow_out_of_order: run pending scripts below the highest applied one
    :param standard_indexes: collection → index models, created before the scripts
    :param script_timeout: seconds for each script, which is then cancelled and fails, and for each ``verify``; ``None``
        for no limit
    :param max_building: how many search indexes may be building at a time, for clusters that more of them saturate; the
        helpers submit the others as these become ready; ``None`` for no limit
    :param max_lag: seconds that secondaries may be behind while a data change writes; ``None`` for no limit
    :param executor: shares what `transform` does among its workers; it stays open
    :param on_event: takes each event as it happens, on the event loop or a driver's thread; without one they are
        logged, see :func:`mydocs.migrations.logging_sink`
    :raises MigrationError: with ``exit_code``, and ``report`` of what was done until then
    """
    options = Options(target=target, allow_changed=allow_changed, allow_out_of_order=allow_out_of_order)
    async with reported(db, on_event) as (session, report):
        if max_building is not None and max_building < 1:
            raise UsageError(f"at most {max_building} builds at a time are none; give 1 or more, or None for no limit")
        found = await discovered(session, report, directory)
        snapshot = await ledger.read(db)
        plan = _announce(session, report, _plan(found, snapshot, options, standard_indexes), snapshot)
        if not plan.is_empty:
            await _migrate(
                session,
                report,
                directory,
                found,
                options,
                standard_indexes,
                lock_timeout,
                script_timeout,
                max_building,
                executor,
                max_lag,
            )
        if wait:
            from mydocs.migrations.operations.wait import wait_for_tracked

            await wait_for_tracked(session, report, timeout)
            await _verify(session, report, script_timeout)
    return report.build()


async def dry_run(
    db: Database,
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
    async with reported(db, on_event, outcome=Outcome.PLANNED) as (session, report):
        found = await discovered(session, report, directory)
        snapshot = await ledger.read(db)
        plan = _announce(session, report, _plan(found, snapshot, options, standard_indexes), snapshot)
        report.indexes = planned_standard(standard_indexes) if plan.standard else ()
    return report.build()


async def _migrate(
    session: Session,
    report: ReportBuilder,
    directory: str | Path,
    found: Discovery,
    options: Options,
    models: IndexModels,
    lock_timeout: float | None,
    script_timeout: float | None,
    max_building: int | None,
    workers: futures.Executor | None,
    max_lag: float | None,
) -> None:
    """Do the work under the lease, or see somebody else finish it."""
    # Here, since importing them takes longer than all that a run with nothing to do does.
    from mydocs.migrations.execution.executor import Executor
    from mydocs.migrations.ledger.held_ledger import HeldLedger
    from mydocs.migrations.ledger.lease import held
    from mydocs.migrations.ledger.turn import take_turn
    from mydocs.migrations.operations.settle import mark_applied

    def is_done(snapshot: Snapshot) -> bool:
        return _plan(found, snapshot, options, models).is_empty

    lease, seen = await take_turn(session, timeout=lock_timeout, is_done=is_done)
    if lease is None or seen is not None:
        report.standings, report.snapshot = (), seen or report.snapshot
        return
    async with held(session.db, lease):
        # Files and ledger again: the wait for the lease may have been long.
        fresh = await discovered(session, report, directory)
        snapshot = await ledger.read(session.db)
        plan = _announce(session, report, _plan(fresh, snapshot, options, models, session.run_id), snapshot)
        writer = HeldLedger(db=session.db, lease=lease)
        legacy = [entry for entry in snapshot.entries if entry.legacy]
        await writer.adopt(legacy, fresh.scripts)
        for standing in plan.standings:
            if standing.squashed:
                await mark_applied(writer, standing)
        report.standard = models
        executor = Executor(
            ledger=writer,
            sink=session.sink,
            done=report.done,
            script_timeout=script_timeout,
            max_building=max_building,
            workers=workers,
            max_lag=max_lag,
        )
        await executor.run(plan, models)


async def _verify(session: Session, report: ReportBuilder, timeout: float | None) -> None:
    """
    Ask the scripts that this run has applied whether all is right.

    :param timeout: seconds for each
    :raises VerifyFailed: once all were asked, where one of them says no
    """
    from mydocs.migrations.execution.verification import raise_unverified, verify

    applied = {entry.version for entry in report.done if entry.state is MigrationState.APPLIED}
    scripts = [(s.version, s.script) for s in report.standings if s.version in applied and s.script is not None]
    report.verifications = await verify(session, scripts, timeout=timeout)
    raise_unverified(report.verifications)


def _plan(
    found: Discovery, snapshot: Snapshot, options: Options, models: IndexModels, run_id: str | None = None
) -> Plan:
    checksum = standard_checksum(models) if models else None
    return make_plan(
        found.scripts, snapshot.entries, snapshot.lease, options, standard_checksum=checksum, run_id=run_id
    )


def _announce(session: Session, report: ReportBuilder, plan: Plan, snapshot: Snapshot) -> Plan:
    """Take a plan as the one to follow, and say so unless it is the one that was announced before."""
    is_new = report.follow(plan, snapshot)
    for warning in report.unsaid(plan.warnings):
        session.warn(warning)
    if is_new:
        session.emit(Planned(versions=tuple(standing.version for standing in plan.steps), standard=plan.standard))
    return plan
