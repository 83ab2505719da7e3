"""
Run the migrations, on one page: files and ledger → plan → lease → steps → wait → report. I/O. Start reading here.

Every public function ends in one of two ways: it returns a report, or it raises one :class:`MigrationError` that
carries the report of what was done until then. Its last event is always ``RunFinished``, even if it is cancelled.
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
from mydocs.migrations.model import MigrationState, ScriptOptions
from mydocs.migrations.operations.arguments import check_seconds, check_standard_indexes
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

    Any number of replicas may call it at the same time: one of them does the work, the others wait for it.

    :param directory: the folder of the scripts
    :param wait: return only when every search index that the ledger names can be queried, and every ``verify`` of the
        migrations that this run has applied has passed
    :param timeout: seconds for that wait, ``None`` for no limit
    :param target: the last version to run; ``None`` for all
    :param lock_timeout: seconds to wait while another run holds the lease; 0 is one try, ``None`` is no limit
    :param allow_changed: continue although applied scripts were edited
    :param allow_out_of_order: run pending scripts below the highest applied one
    :param standard_indexes: collection → index models, created before the scripts
    :param script_timeout: seconds for each script and for each ``verify``, which is then cancelled and fails; ``None``
        for no limit
    :param max_building: how many search indexes may build at the same time, for clusters that more builds overload; the
        helpers submit the others as these become ready; ``None`` for no limit
    :param max_lag: seconds that secondaries may lag behind while a data change writes; ``None`` for no limit
    :param executor: its workers share the work of `transform`; it stays open
    :param on_event: receives each event as it happens, on the event loop or a driver's thread; without it events are
        logged, see :func:`mydocs.migrations.logging_sink`
    :raises MigrationError: with ``exit_code``, and ``report`` of what was done until then
    """
    options = Options(target=target, allow_changed=allow_changed, allow_out_of_order=allow_out_of_order)
    scripts = ScriptOptions(timeout=script_timeout, max_building=max_building, max_lag=max_lag, workers=executor)
    async with reported(db, on_event) as (session, report):
        if max_building is not None and max_building < 1:
            raise UsageError(f"max_building is {max_building}; give 1 or more, or None for no limit")
        check_standard_indexes(standard_indexes)
        check_seconds(timeout=timeout, lock_timeout=lock_timeout, script_timeout=script_timeout, max_lag=max_lag)
        found = await discovered(session, report, directory)
        snapshot = await ledger.read(db)
        plan = _announce(session, report, _plan(found, snapshot, options, standard_indexes), snapshot)
        if not plan.is_empty:
            await _migrate(session, report, directory, found, options, standard_indexes, lock_timeout, scripts)
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
    Return what :func:`migrate` would do. Write nothing and run nothing.

    :raises MigrationError: if :func:`migrate` would refuse the files or the plan
    """
    options = Options(target=target, allow_changed=allow_changed, allow_out_of_order=allow_out_of_order)
    async with reported(db, on_event, outcome=Outcome.PLANNED) as (session, report):
        check_standard_indexes(standard_indexes)
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
    scripts: ScriptOptions,
) -> None:
    """Do the work under the lease, or wait until another run has done it."""
    # Imported here: this import takes longer than a whole run with nothing to do.
    from mydocs.migrations.execution.executor import Executor
    from mydocs.migrations.ledger.held_ledger import HeldLedger
    from mydocs.migrations.ledger.lease import held
    from mydocs.migrations.ledger.turn import take_turn
    from mydocs.migrations.operations.settle import mark_applied

    def is_done(snapshot: Snapshot) -> bool:
        return _plan(found, snapshot, options, models).is_empty

    turn = await take_turn(session, timeout=lock_timeout, is_done=is_done)
    if isinstance(turn, Snapshot):  # another run has done the work
        report.standings, report.snapshot = (), turn
        return
    async with held(session.db, turn):
        # Read files and ledger again, since the wait for the lease may have been long.
        fresh = await discovered(session, report, directory)
        snapshot = await ledger.read(session.db)
        plan = _announce(session, report, _plan(fresh, snapshot, options, models, session.run_id), snapshot)
        writer = HeldLedger(db=session.db, lease=turn)
        legacy = [entry for entry in snapshot.entries if entry.legacy]
        await writer.adopt(legacy, fresh.scripts)
        for standing in plan.standings:
            if standing.squashed:
                await mark_applied(writer, standing)
        report.standard = models
        await Executor(ledger=writer, sink=session.sink, done=report.done, scripts=scripts).run(plan, models)


async def _verify(session: Session, report: ReportBuilder, timeout: float | None) -> None:
    """
    Call ``verify`` of the scripts that this run has applied.

    :param timeout: seconds for each
    :raises VerifyFailed: after all were called, if one of them raised
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
    """Make a plan the current one, and emit it unless the same plan was emitted before."""
    is_new = report.follow(plan, snapshot)
    for warning in report.unsaid(plan.warnings):
        session.warn(warning)
    if is_new:
        session.emit(Planned(versions=tuple(standing.version for standing in plan.steps), standard=plan.standard))
    return plan
