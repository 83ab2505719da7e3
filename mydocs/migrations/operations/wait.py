"""Wait until every script is applied by other runs, and until every index can be queried. I/O: reads, runs nothing."""

import time
from pathlib import Path

import anyio

from mydocs.indexes import STANDARD_INDEXES
from mydocs.migrations.driver.client import Database, why_unknown
from mydocs.migrations.driver.session import Session
from mydocs.migrations.driver.shared_looks import shared_looks
from mydocs.migrations.errors import NotReady, ServerUnreachable
from mydocs.migrations.indexes.readiness import Track
from mydocs.migrations.indexes.standard_list import IndexModels
from mydocs.migrations.indexes.waiter import SIGN_OF_LIFE_SECONDS, raise_unready, wait_for
from mydocs.migrations.ledger import documents
from mydocs.migrations.ledger import entries as ledger
from mydocs.migrations.ledger.entries import Snapshot
from mydocs.migrations.ledger.plan import classify, standard_is_applied, tracked
from mydocs.migrations.ledger.turn import look
from mydocs.migrations.model import MigrationState
from mydocs.migrations.operations.arguments import check_seconds, check_standard_indexes
from mydocs.migrations.operations.report_builder import ReportBuilder
from mydocs.migrations.operations.reported import discovered, reported
from mydocs.migrations.reporting.events import Sink, StillWaiting
from mydocs.migrations.reporting.report import RunReport
from mydocs.migrations.scripts.discover import Discovery

DONE = (MigrationState.APPLIED, MigrationState.CHANGED)
OVER_SECONDS = 0.001  # left of a time limit that has passed; 0 would mean one look
LEAST_SECONDS = 1.0  # for the first read: with a wait of 0 s you ask for the present state
UNAPPLIED = "`mydocs migrate run` runs what is still pending, `mydocs migrate wait` resumes the wait"


async def wait_for_indexes(db: Database, *, timeout: float | None = 3600.0, on_event: Sink | None = None) -> RunReport:
    """
    Wait until every index that the ledger names can be queried.

    :param timeout: seconds, or ``None`` for no limit
    :raises IndexFailed: if a build has failed, once the others have ended
    :raises NotReady: if the time is up; the builds continue
    """
    async with reported(db, on_event) as (session, report):
        check_seconds(timeout=timeout)
        started = time.monotonic()
        report.snapshot = await _first_look(db, timeout)
        await wait_for_tracked(session, report, timeout, waited=time.monotonic() - started)
    return report.build()


async def wait_until_current(
    db: Database,
    *,
    directory: str | Path = "migrations",
    timeout: float | None = 3600.0,
    standard_indexes: IndexModels = STANDARD_INDEXES,
    on_event: Sink | None = None,
) -> RunReport:
    """
    Wait until all scripts of a folder are applied and every index can be queried. Run and write nothing.

    :param timeout: seconds for all of it together, or ``None`` for no limit
    :raises NotReady: names the scripts that are not applied or the indexes that are not ready
    :raises IndexFailed: if a build has failed, once the others have ended
    """
    started = time.monotonic()
    async with reported(db, on_event) as (session, report):
        check_seconds(timeout=timeout)
        check_standard_indexes(standard_indexes)
        found = await discovered(session, report, directory)
        report.snapshot = await _first_look(db, timeout)
        late = _unapplied(report, found, standard_indexes)
        report.awaited = frozenset(s.version for s in report.standings if s.state not in DONE)
        waited = time.monotonic() - started
        told: tuple[list[str], float] = ([], waited)
        if late:  # emitted even if the time is up
            told = _say(session, late, waited)
        left = None if timeout is None else timeout - waited
        with anyio.move_on_after(left), shared_looks(db, documents.COLLECTION) as looks:
            while late:
                report.snapshot = await look(db, looks, waited)
                late, waited = _unapplied(report, found, standard_indexes), time.monotonic() - started
                if late and (late != told[0] or waited - told[1] >= SIGN_OF_LIFE_SECONDS):
                    told = _say(session, late, waited)
        waited = time.monotonic() - started
        if late:
            raise NotReady(late, waited, UNAPPLIED)
        await wait_for_tracked(session, report, timeout, waited=waited)
    return report.build()


def _say(session: Session, late: list[str], waited: float) -> tuple[list[str], float]:
    session.emit(StillWaiting(what=tuple(late), seconds=waited))
    return late, waited


async def _first_look(db: Database, timeout: float | None) -> Snapshot:
    """
    Read the ledger within the time of the whole wait.

    :raises ServerUnreachable: if there is no answer in that time
    """
    with anyio.move_on_after(None if timeout is None else max(timeout, LEAST_SECONDS)):
        return await ledger.read(db)
    raise ServerUnreachable(f"the ledger could not be read within {timeout:g} s{why_unknown(db)}")


async def wait_for_tracked(
    session: Session, report: ReportBuilder, timeout: float | None, *, waited: float = 0.0
) -> None:
    """
    Wait for every index that the ledger names, including those of this call.

    :param waited: seconds of ``timeout`` that have passed
    """

    def keep(tracks: tuple[Track, ...]) -> None:
        report.tracks = tracks

    # A time limit of 0 allows one look. A limit that has passed allows none.
    left = None if timeout is None else max(timeout - waited, min(timeout, OVER_SECONDS))
    report.tracks = await wait_for(
        session.db,
        [index for index in tracked(report.entries()) if index.type.is_search],
        timeout=left,
        sink=session.sink,
        keep=keep,
        server_now=report.snapshot.server_now(),
        since=report.started,
    )
    raise_unready(report.tracks, timeout or 0.0)


def _unapplied(report: ReportBuilder, found: Discovery, models: IndexModels) -> list[str]:
    """Put the standings of a folder's scripts into the report, and return a text for each that is not applied."""
    snapshot = report.snapshot
    standings = classify(found.scripts, snapshot.entries, snapshot.lease)
    report.standings = tuple(standing for standing in standings if standing.script is not None)
    late = [
        f"{standing.version} is {standing.state.value}" for standing in report.standings if standing.state not in DONE
    ]
    # Any list of standard indexes counts: the list of a newer application must not stop an older one from starting.
    if models and not standard_is_applied(snapshot.entries):
        late.insert(0, "the standard indexes are not created")
    return late
