"""Compare files, ledger and live indexes, for CI. Writes nothing."""

from pathlib import Path

from mydocs.indexes import STANDARD_INDEXES
from mydocs.migrations.driver import mongo
from mydocs.migrations.errors import WorkLeft
from mydocs.migrations.indexes.standard import IndexModels
from mydocs.migrations.model import MigrationState
from mydocs.migrations.operations.findings import find_all
from mydocs.migrations.operations.reported import reported
from mydocs.migrations.operations.status import DEAD, ways_out, work_left
from mydocs.migrations.reporting.events import Sink
from mydocs.migrations.reporting.report import RunReport


async def check(
    db: mongo.Database,
    *,
    directory: str | Path = "migrations",
    standard_indexes: IndexModels = STANDARD_INDEXES,
    on_event: Sink | None = None,
) -> RunReport:
    """
    Compare files, ledger and live indexes.

    :raises WorkLeft: names all that is pending, changed, missing, or different from what the scripts asked for
    """
    async with reported(db, on_event) as (session, report):
        found = await find_all(session, report, directory, standard_indexes)
        if found.unknown:
            session.warn(f"search indexes that no migration asked for: {', '.join(found.unknown)}")
        if found.others:
            session.warn(f"standard indexes beside those of the application's list: {', '.join(found.others)}")
        missing = [s.version for s in found.standings if s.state is MigrationState.MISSING]
        seen = report.build()
        left = [
            *work_left(seen),
            *([f"applied, but not in this directory: {', '.join(missing)}"] if missing else []),
            *found.differences,
            *(
                f"alias {alias.alias} names {alias.collection}.{alias.index}, which is {alias.state.value}"
                for alias in seen.aliases or ()
                if alias.state in DEAD
            ),
        ]
        if left:
            raise WorkLeft(left, ways_out(seen, repair=bool(missing)))
    return report.build()
