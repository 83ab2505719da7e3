"""Report the state of every migration and index, what is left to do, and how. I/O: reads, writes nothing."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mydocs.indexes import STANDARD_INDEXES
from mydocs.migrations.driver.client import Database
from mydocs.migrations.indexes import readiness
from mydocs.migrations.indexes.standard_list import IndexModels
from mydocs.migrations.ledger import entries as ledger
from mydocs.migrations.ledger.documents import parse_attempt
from mydocs.migrations.ledger.plan import is_interrupted
from mydocs.migrations.model import Entry, IndexState, IndexType, LeaseView, MigrationState
from mydocs.migrations.operations.arguments import check_standard_indexes
from mydocs.migrations.operations.findings import find_all, find_in_ledger
from mydocs.migrations.operations.report_builder import NOT_CREATED
from mydocs.migrations.operations.reported import reported
from mydocs.migrations.reporting.events import Sink
from mydocs.migrations.reporting.report import AttemptReport, RunReport

RUN = "`mydocs migrate run --wait` runs what is pending, failed or interrupted"
WAIT = "`mydocs migrate wait` waits for running migrations and builds"
REPAIR = "`mydocs migrate repair` accepts what was changed and forgets what is missing"
# A run plans by the ledger and not by the live indexes, so a run does not correct them.
DRIFT = (
    "to correct an index that is not as it was asked for, write a migration with ensure_search_indexes or "
    "ensure_indexes, or use `mydocs migrate mark NNN --pending` and run the one that asked for it again"
)

ALIAS = "an alias is given another index by a migration with switch_search_alias"
DEAD = (IndexState.ABSENT, IndexState.FAILED)  # what an alias must not name


async def status(
    db: Database,
    *,
    directory: str | Path = "migrations",
    history: bool = False,
    indexes: bool = True,
    standard_indexes: IndexModels = STANDARD_INDEXES,
    on_event: Sink | None = None,
) -> RunReport:
    """
    Report the state of every migration and every index. Write nothing.

    It takes one command, one more for each collection with tracked search indexes, and one more for each with standard
    indexes. :func:`work_left` lists what is not done.

    :param history: also every attempt, oldest first, including those that the ledger no longer shows
    :param indexes: ``False`` to read only the ledger, in one command; then of the indexes only missing standard ones
        are known
    :raises ScriptsInvalid: if the folder contains files that cannot be migrations
    """
    async with reported(db, on_event) as (session, report):
        check_standard_indexes(standard_indexes)
        if indexes:
            await find_all(session, report, directory, standard_indexes)
        else:
            await find_in_ledger(session, report, directory, standard_indexes)
        if history:
            logged = [_logged(document) for document in await ledger.read_log(db)]
            shown = [_shown(entry, report.snapshot.lease) for entry in report.snapshot.entries]
            report.history = tuple(sorted([*logged, *shown], key=_begun))
    return report.build()


def work_left(report: RunReport) -> tuple[str, ...]:
    """Return what a report shows as not done. A missing file alone is not work."""
    done = (MigrationState.APPLIED, MigrationState.MISSING)
    return (
        *(f"{m.version} is {m.state.value}" for m in report.migrations if m.state not in done),
        *(
            f"index {i.collection}.{i.name} is {i.state.value}" + (f" ({i.reason})" if i.reason else "")
            for i in report.indexes
            if i.state is not IndexState.READY
        ),
    )


def ways_out(report: RunReport, *, repair: bool = False) -> tuple[str, ...]:
    """
    Return which commands finish what a report shows as not done.

    :param repair: a missing file counts, too
    """
    states = {migration.state for migration in report.migrations}
    running = (IndexState.PENDING, IndexState.BUILDING, IndexState.STALE)
    run = wait = drift = False
    for index in report.indexes:
        planned = index.reason == NOT_CREATED
        different = index.reason in (readiness.DIFFERS, readiness.ANOTHER)
        on_its_way = index.type is not IndexType.STANDARD and index.state in running
        ready = index.state is IndexState.READY
        run |= planned
        wait |= on_its_way and not different
        drift |= different or not (planned or on_its_way or ready)
    for migration in report.migrations:
        unfinished = migration.state in (MigrationState.PENDING, MigrationState.FAILED, MigrationState.INTERRUPTED)
        run |= unfinished and migration.kind is not None
        repair |= unfinished and migration.kind is None  # its file is gone
    wait |= MigrationState.RUNNING in states
    repair |= MigrationState.CHANGED in states
    switch = any(alias.state in DEAD for alias in report.aliases or ())
    ways = ((run, RUN), (wait, WAIT), (repair, REPAIR), (drift, DRIFT), (switch, ALIAS))
    return tuple(way for is_one, way in ways if is_one)


def _logged(document: Mapping[str, Any]) -> AttemptReport:
    return _attempt(parse_attempt(document), str(document.get("direction", "up")), str(document.get("outcome", "")))


def _shown(entry: Entry, lease: LeaseView | None) -> AttemptReport:
    interrupted = entry.state is MigrationState.RUNNING and is_interrupted(entry, lease)
    return _attempt(entry, entry.direction, (MigrationState.INTERRUPTED if interrupted else entry.state).value)


def _begun(attempt: AttemptReport) -> float:
    at = attempt.started_at or attempt.finished_at
    return at.timestamp() if at else 0.0


def _attempt(entry: Entry, direction: str, outcome: str) -> AttemptReport:
    return AttemptReport(
        version=entry.version,
        direction=direction,
        outcome=outcome,
        started_at=entry.started_at,
        finished_at=entry.finished_at,
        host=entry.run.host if entry.run else None,
        error=entry.error,
    )
