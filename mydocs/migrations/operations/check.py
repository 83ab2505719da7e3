"""Compare files, ledger and live indexes, for CI. I/O: reads the database, writes nothing."""

from pathlib import Path

from mydocs.indexes import STANDARD_INDEXES
from mydocs.migrations.driver.client import Database
from mydocs.migrations.driver.session import Session
from mydocs.migrations.errors import WorkLeft
from mydocs.migrations.execution.verification import raise_unverified, verify
from mydocs.migrations.indexes.standard_list import IndexModels
from mydocs.migrations.indexes.vectors import has_vectors, look
from mydocs.migrations.ledger.plan import refuse_unfit, tracked
from mydocs.migrations.model import IndexType, MigrationState
from mydocs.migrations.operations.arguments import check_standard_indexes
from mydocs.migrations.operations.findings import find_all
from mydocs.migrations.operations.report_builder import ReportBuilder
from mydocs.migrations.operations.reported import reported
from mydocs.migrations.operations.status import DEAD, ways_out, work_left
from mydocs.migrations.reporting.events import Sink
from mydocs.migrations.reporting.report import RunReport


async def check(
    db: Database,
    *,
    directory: str | Path = "migrations",
    vectors: bool = False,
    standard_indexes: IndexModels = STANDARD_INDEXES,
    on_event: Sink | None = None,
) -> RunReport:
    """
    Compare files, ledger and live indexes, and run the ``verify`` of every applied script. Write nothing.

    The other arguments are those of :func:`migrate`.

    :param vectors: also check the vectors of each tracked vector index, which reads every document of its collection
    :raises VerifyFailed: if nothing else is wrong, but a ``verify`` raised or the vectors are not right
    :raises ScriptsInvalid: if a part of a script that is not applied would silently not run
    :raises WorkLeft: names all that is pending, changed, missing, or different from what the scripts asked for
    """
    async with reported(db, on_event) as (session, report):
        check_standard_indexes(standard_indexes)
        found = await find_all(session, report, directory, standard_indexes)
        refuse_unfit(s for s in found.standings if s.state not in (MigrationState.APPLIED, MigrationState.CHANGED))
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
        applied = [s for s in found.standings if s.state is MigrationState.APPLIED]
        report.verifications = await verify(session, [(s.version, s.script) for s in applied if s.script is not None])
        problems = await _vectors(session, report) if vectors else []
        if left:
            unverified = [each.problem for each in report.verifications if each.problem is not None]
            raise WorkLeft([*left, *unverified, *problems], ways_out(seen, repair=bool(missing)))
        raise_unverified(report.verifications, problems)
    return report.build()


async def _vectors(session: Session, report: ReportBuilder) -> list[str]:
    """Return what is wrong with the vectors of the tracked indexes. One at a time, since each reads a collection."""
    problems = []
    for record in tracked(report.snapshot.entries):
        if record.type is IndexType.VECTOR and record.definition is not None and has_vectors(record.definition):
            found = await look(session.db, record.collection, record.name, record.definition)
            if found.misfits:
                problems.append(found.sentence(found.misfits))
            if others := [finding for finding in found.findings if finding not in found.misfits]:
                session.warn(found.sentence(others))
    return problems
