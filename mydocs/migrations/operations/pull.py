"""Write the live indexes that no migration accounts for into the next script. I/O; writes the ledger on request."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import anyio.to_thread
from pymongo.errors import OperationFailure

from mydocs.indexes import STANDARD_INDEXES
from mydocs.migrations.driver import commands, retry, server_errors
from mydocs.migrations.driver.client import Database, Document
from mydocs.migrations.driver.session import Session
from mydocs.migrations.driver.task_groups import all_or_first_error
from mydocs.migrations.errors import UsageError
from mydocs.migrations.indexes import readiness
from mydocs.migrations.indexes.drift import LiveIndexes, compare_live
from mydocs.migrations.indexes.standard_list import IndexModels
from mydocs.migrations.ledger import entries as ledger
from mydocs.migrations.ledger.plan import tracked
from mydocs.migrations.model import Entry, IndexState, MigrationState, TrackedIndex
from mydocs.migrations.operations.arguments import check_directory, check_standard_indexes
from mydocs.migrations.operations.files import write_text
from mydocs.migrations.operations.reported import discovered, reported
from mydocs.migrations.operations.settle import leading
from mydocs.migrations.reporting.events import Sink
from mydocs.migrations.reporting.report import IndexReport, index_json
from mydocs.migrations.scripts.source import checksum
from mydocs.migrations.scripts.written import write_indexes
from mydocs.migrations.values import value

DESCRIPTION = "live_indexes"
LISTINGS_AT_ONCE = 8  # collections at the same time
# Collections of mydocs or of the server.
_NOT_THEIRS = ("_migrations", "_search_aliases", "system.")


@value
class PullReport:
    """
    The result of a pull.

    :param path: of the script; ``None`` if nothing was written, or only differences were asked for
    :param state: of the script: pending, or applied if it was adopted
    :param indexes: the live indexes that no migration accounts for, as a migration would ask for them
    :param shown: the same indexes, with their states
    :param differences: a line for each difference between scripts and live indexes
    """

    database: str
    path: Path | None = None
    text: str = ""
    state: MigrationState = MigrationState.PENDING
    indexes: tuple[TrackedIndex, ...] = ()
    shown: tuple[IndexReport, ...] = ()
    differences: tuple[str, ...] = ()


async def pull(
    db: Database,
    *collections: str,
    adopt: bool = False,
    diff: bool = False,
    directory: str | Path = "migrations",
    standard_indexes: IndexModels = STANDARD_INDEXES,
    lock_timeout: float | None = 600.0,
    on_event: Sink | None = None,
) -> PullReport:
    """
    Write ``ensure`` calls for the live indexes that neither the ledger nor the standard indexes account for.

    :param collections: the collections to read; none means all of the database
    :param adopt: also record the script as applied, with these definitions, under the lease
    :param diff: write nothing, and return the differences between the recorded and the live indexes
    :param lock_timeout: seconds that ``adopt`` waits while another run holds the lease; 0 is one try, ``None`` no limit
    :raises UsageError: if a collection does not exist, or both ``adopt`` and ``diff`` are given
    :raises LeaseHeld: if the lease is not free in that time
    """
    async with reported(db, on_event) as (session, report):
        if adopt and diff:
            raise UsageError("--diff writes nothing, so there is nothing to adopt; leave one of the two out")
        check_directory(directory)
        check_standard_indexes(standard_indexes)
        folder = Path(directory)
        if await anyio.to_thread.run_sync(folder.is_dir):
            await discovered(session, report, folder)  # refuses files that no run could use afterwards
        snapshot = report.snapshot = await ledger.read(db)
        names = await _collections(session, collections)
        live = await _live(session, names)
        asked = [index for index in tracked(snapshot.entries) if index.collection in names]
        models = {name: [model.document for model in of] for name, of in (standard_indexes or {}).items()}
        found = compare_live(live, asked, models)
        seen = PullReport(
            database=db.name,
            indexes=found.unaccounted,
            shown=tuple(_shown(index, live[index.collection]) for index in found.unaccounted),
            differences=found.differences if diff else (),
        )
        if diff or not found.unaccounted:
            return seen
        title = f"Indexes that were live in {db.name} before a migration asked for them."
        text = write_indexes(title, found.unaccounted)
        if not adopt:
            path = await anyio.to_thread.run_sync(write_text, folder, DESCRIPTION, text)
            return replace(seen, path=path, text=text)
        async with leading(session, lock_timeout) as held:
            path = await anyio.to_thread.run_sync(write_text, folder, DESCRIPTION, text)
            version, _, name = path.stem.partition("_")
            now = held.now()
            entry = Entry(
                version=version,
                name=name,
                script=path.name,
                checksum=checksum(text),
                state=MigrationState.APPLIED,
                attempts=0,
                started_at=now,
                finished_at=now,
                indexes=found.unaccounted,
                run=held.stamp,
            )
            await held.put(entry, None)
        return replace(seen, path=path, text=text, state=MigrationState.APPLIED)


def to_json(report: PullReport) -> dict[str, Any]:
    """Convert a report to plain values under the keys of the other reports."""
    migrations = []
    if report.path is not None:
        version, _, name = report.path.stem.partition("_")
        facts = {"version": version, "name": name, "script": report.path.name, "path": str(report.path)}
        migrations = [{**facts, "state": report.state.value, "seconds": None, "error": None}]
    return {
        "outcome": "ok",
        "database": report.database,
        "migrations": migrations,
        "indexes": [index_json(index) for index in report.shown],
        "differences": list(report.differences),
        "seconds": 0.0,
        "error": None,
    }


def _shown(index: TrackedIndex, live: LiveIndexes) -> IndexReport:
    state, queryable = IndexState.READY, True
    if index.type.is_search:
        verdict = readiness.judge(index, next((item for item in live.search if item.name == index.name), None))
        state, queryable = verdict.state, verdict.queryable
    return IndexReport(
        collection=index.collection,
        name=index.name,
        type=index.type,
        state=state,
        queryable=queryable,
        reason="no migration asked for it",
    )


async def _collections(session: Session, named: Sequence[str]) -> list[str]:
    command = {"listCollections": 1, "nameOnly": True, "authorizedCollections": True, "cursor": {}}
    listed = await commands.documents_again(session.db, command)
    there = sorted(document["name"] for document in listed)
    absent = [name for name in named if name not in there]
    if absent:
        raise UsageError(f"no collection {', '.join(absent)} in {session.db.name}; check the names and --db")
    return list(named) or [name for name in there if not name.startswith(_NOT_THEIRS)]


async def _live(session: Session, names: Sequence[str]) -> dict[str, LiveIndexes]:
    live: dict[str, LiveIndexes] = {}
    without_search: list[str] = []

    async def one(name: str) -> None:
        standard = await _standard_of(session.db, name)
        search: list[Document] = []
        try:
            search = await retry.again(lambda: commands.search_listing(session.db, name, ()))
        except OperationFailure as error:
            if not server_errors.is_no_search(error, of_search_command=True):
                raise
            without_search.append(name)
        live[name] = LiveIndexes(
            standard=tuple(standard), search=tuple(readiness.parse(document) for document in search)
        )

    await all_or_first_error([partial(one, name) for name in names], LISTINGS_AT_ONCE)
    if without_search:
        session.warn("this server has no search indexes; only the standard indexes were read")
    return live


async def _standard_of(db: Database, name: str) -> list[Document]:
    try:
        return await commands.standard_listing(db, name)
    except OperationFailure as error:
        if error.code != 166:  # CommandNotSupportedOnView: a view can have only search indexes
            raise
        return []
