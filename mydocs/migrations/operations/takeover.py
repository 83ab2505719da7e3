"""Take over what another tool has applied: read its ledger, mark the scripts of the same names. I/O; runs no script."""

from pathlib import Path

from mydocs.migrations.driver import commands
from mydocs.migrations.driver.client import Database
from mydocs.migrations.errors import UsageError
from mydocs.migrations.ledger import entries as ledger
from mydocs.migrations.ledger.foreign import LAYOUTS, ForeignRecord, Tool, match_scripts, read_records
from mydocs.migrations.ledger.plan import classify
from mydocs.migrations.model import MigrationState
from mydocs.migrations.operations.reported import discovered, reported
from mydocs.migrations.operations.settle import leading, mark_applied, report_on
from mydocs.migrations.reporting.events import Sink
from mydocs.migrations.reporting.report import MigrationReport, RunReport


async def import_ledger(
    db: Database,
    *,
    source: str,
    collection: str | None = None,
    directory: str | Path = "migrations",
    lock_timeout: float | None = 600.0,
    on_event: Sink | None = None,
) -> RunReport:
    """
    Mark scripts as applied that another tool has applied under the same names.

    A script that already has an entry keeps it. A record of the other tool without a file is reported as ``missing``
    and not stored. The other tool's records are only read.

    :param source: ``pymongo-migrate``, ``mongodb-migrations`` or ``migrate-mongo``
    :param collection: of the records; the tool's default one if it is not given
    :param lock_timeout: seconds to wait while another run holds the lease; 0 is one try, ``None`` is no limit
    :raises UsageError: if the collection contains no records of that tool
    :raises LeaseHeld: if the lease is not free in that time
    """
    async with reported(db, on_event) as (session, report):
        tool = _tool(source)
        where = collection or LAYOUTS[tool].collection
        documents = await commands.documents_again(db, {"find": where, "sort": {"_id": 1}, "batchSize": ledger.BATCH})
        records, odd = read_records(tool, documents)
        if len(documents) == odd:
            raise UsageError(
                f"no records of {tool} in the collection {where} of {db.name}; check --db, or name the collection with "
                "--collection"
            )
        if odd:
            session.warn(f"{odd} documents of {where} are not records of {tool}; they were passed over")
        found = await discovered(session, report, directory)
        match = match_scripts(tool, records, found.scripts)
        if match.unknown:
            names = ", ".join(record.name for record in match.unknown)
            session.warn(f"applied by {tool}, and no file has the name: {names}")
        snapshot = await ledger.read(db)
        recorded = {int(entry.version) for entry in snapshot.entries if entry.version.isdigit()}
        if any(script.number not in recorded for script, _ in match.known):
            async with leading(session, lock_timeout) as held:
                snapshot = await ledger.read(db)
                standings = {s.number: s for s in classify(found.scripts, snapshot.entries, snapshot.lease)}
                for script, record in match.known:
                    standing = standings.get(script.number)
                    if standing is not None and standing.entry is None:
                        await mark_applied(held, standing, at=record.applied_at)
        chosen = {script.number for script, _ in match.known}
        settled = [s for s in classify(found.scripts, snapshot.entries, snapshot.lease) if s.number in chosen]
        await report_on(session, report, found, settled)
        report.migrations += tuple(map(_unknown, match.unknown))
    return report.build()


def _tool(source: str) -> Tool:
    try:
        return Tool(source)
    except ValueError:
        raise UsageError(f"no tool {source!r}; known are {', '.join(Tool)}") from None


def _unknown(record: ForeignRecord) -> MigrationReport:
    number, _, name = record.name.partition("_")
    return MigrationReport(
        version=number if number.isdigit() else "",
        name=name if number.isdigit() else record.name,
        script=record.name,
        state=MigrationState.MISSING,
    )
