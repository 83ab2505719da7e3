"""Begin and end every operation: a session that stamps events, and one report or error at its end. I/O."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from mydocs.migrations.driver import server_errors
from mydocs.migrations.driver.client import Database, check_database, without_secrets
from mydocs.migrations.driver.session import Session
from mydocs.migrations.operations.arguments import check_directory
from mydocs.migrations.operations.report_builder import ReportBuilder
from mydocs.migrations.reporting.events import Event, Sink
from mydocs.migrations.reporting.report import Outcome, RunFinished
from mydocs.migrations.reporting.sinks import logging_sink
from mydocs.migrations.scripts.discover import Discovery, discover


@asynccontextmanager
async def reported(
    db: Database, on_event: Sink | None, *, outcome: Outcome = Outcome.OK
) -> AsyncIterator[tuple[Session, ReportBuilder]]:
    """
    Attach the report to the end of an operation: its result, one error of ours, or the caller's cancellation.

    A cancellation passes unchanged.

    :param on_event: receives each event, stamped with database and run; without it events are logged
    :param outcome: of an operation that ends well
    :raises UsageError: if ``db`` is not a database of an asynchronous driver
    """
    check_database(db)
    report = ReportBuilder(database=db.name, outcome=outcome)
    taken_by, run_id = on_event or logging_sink, secrets.token_hex(12)

    def stamped(event: Event) -> None:
        report.hear(event)
        taken_by(replace(event, database=db.name, run_id=run_id))

    session = Session(db=db, run_id=run_id, sink=stamped)
    try:
        yield session, report
    except asyncio.CancelledError:
        report.outcome = Outcome.INTERRUPTED
        session.emit(RunFinished(report=report.build()))
        raise
    except Exception as error:
        known = server_errors.as_migration_error(error)
        if known is None:
            report.outcome = Outcome.FAILED
            session.emit(RunFinished(report=report.build()))
            raise
        message, *lines = (without_secrets(db, text) for text in (str(known), *known.lines()))
        known.report = report.build(error=known, message=message, lines=tuple(lines) if len(lines) > 1 else ())
        session.emit(RunFinished(report=known.report))
        if known is error:
            raise
        raise known from error
    session.emit(RunFinished(report=report.build()))


async def discovered(session: Session, report: ReportBuilder, directory: str | Path) -> Discovery:
    """
    Find the scripts of a folder, and emit the warnings about it once.

    :raises UsageError: if ``directory`` is no path
    """
    check_directory(directory)
    # Not a thread of anyio, whose backend takes a tenth of a command with nothing to do to import.
    found = await asyncio.to_thread(discover, Path(directory))
    for warning in report.unsaid(found.warnings):
        session.warn(warning)
    return found
