"""Look and tell, write nothing: where every migration and index stands, and whether the live indexes are as asked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio

from mydocs.indexes import STANDARD_INDEXES
from mydocs.migrations.driver import mongo
from mydocs.migrations.errors import WorkLeft
from mydocs.migrations.indexes import definitions, readiness, standard_definitions
from mydocs.migrations.indexes.standard import IndexModels, standard_checksum, standard_listing
from mydocs.migrations.indexes.standard_definitions import StandardAction
from mydocs.migrations.indexes.waiter import target_of
from mydocs.migrations.ledger import entries as ledger
from mydocs.migrations.ledger.documents import parse_attempt
from mydocs.migrations.ledger.entries import Snapshot
from mydocs.migrations.ledger.plan import Standing, classify, is_interrupted, tracked
from mydocs.migrations.model import (
    STANDARD_VERSION,
    Entry,
    IndexRecord,
    IndexState,
    IndexType,
    LeaseView,
    MigrationState,
)
from mydocs.migrations.operations.call import NOT_CREATED, Call, call_on, discovered, planned_standard
from mydocs.migrations.reporting.events import Sink
from mydocs.migrations.reporting.report import AttemptReport, IndexReport, MigrationReport, RunReport

LISTINGS_AT_ONCE = 8  # collections
RUN = "`mydocs migrate run --wait` does what is pending, failed or interrupted"
WAIT = "`mydocs migrate wait` waits for what is under way"
REPAIR = "`mydocs migrate repair` accepts what was changed and forgets what is missing"
# A run plans by the ledger and not by the live indexes, so it does nothing here.
DRIFT = (
    "what is not as it was asked for is mended by a migration with ensure_search_indexes or ensure_indexes, or by "
    "`mydocs migrate mark NNN --pending` and a run of the one that asked for it"
)


async def status(
    db: mongo.Database,
    *,
    directory: str | Path = "migrations",
    history: bool = False,
    indexes: bool = True,
    standard_indexes: IndexModels = STANDARD_INDEXES,
    on_event: Sink | None = None,
) -> RunReport:
    """
    Say where every migration and every index stands.

    It costs one command, one more for each collection with tracked search indexes, and one more for each with standard
    indexes. What is not done, :func:`work_left` names.

    :param history: also every attempt, oldest first: those that the ledger shows and those that it no longer does
    :param indexes: ``False`` for what the ledger says alone, in one command; of indexes it can then only tell that the
        standard ones were not created yet
    """
    async with call_on(db, on_event) as call:
        if indexes:
            await _survey(call, directory, standard_indexes)
        else:
            await _read_ledger(call, directory, standard_indexes)
        if history:
            logged = [_logged(document) for document in await ledger.read_log(db)]
            shown = [_shown(entry, call.snapshot.lease) for entry in call.snapshot.entries]
            call.history = tuple(sorted([*logged, *shown], key=_begun))
    return call.report()


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
    async with call_on(db, on_event) as call:
        survey = await _survey(call, directory, standard_indexes)
        if survey.unknown:
            call.warn(f"search indexes that no migration asked for: {', '.join(survey.unknown)}")
        if survey.others:
            call.warn(f"standard indexes beside those of the application's list: {', '.join(survey.others)}")
        missing = [s.version for s in survey.standings if s.state is MigrationState.MISSING]
        report = call.report()
        left = [
            *work_left(report),
            *([f"applied, but not in this directory: {', '.join(missing)}"] if missing else []),
            *survey.differences,
        ]
        if left:
            raise WorkLeft(left, ways_out(report, repair=bool(missing)))
    return call.report()


def work_left(report: RunReport) -> tuple[str, ...]:
    """Name what a report shows as not done; a missing file alone is no work."""
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
    Say what brings what a report shows as not done to its end.

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
    ways = ((run, RUN), (wait, WAIT), (repair, REPAIR), (drift, DRIFT))
    return tuple(way for is_one, way in ways if is_one)


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """
    What a look at everything has shown besides the report.

    :param unknown: search indexes that no migration asked for
    :param others: standard indexes that are not in the application's list; a migration may have made them
    """

    standings: tuple[Standing, ...]
    differences: tuple[str, ...]
    unknown: tuple[str, ...]
    others: tuple[str, ...]


async def _read_ledger(call: Call, directory: str | Path, models: IndexModels) -> tuple[Standing, ...]:
    found = await discovered(call, directory)
    call.snapshot = snapshot = await ledger.read(call.db)
    standings = classify(found.scripts, snapshot.entries, snapshot.lease)
    call.migrations = tuple(map(_migration_report, standings))
    if _standard_planned(models, snapshot):
        call.indexes = planned_standard(models)
    return standings


async def _survey(call: Call, directory: str | Path, models: IndexModels) -> Survey:
    standings = await _read_ledger(call, directory, models)
    snapshot = call.snapshot
    records = tracked(snapshot.entries)
    searched = {record.collection: None for record in records}
    search: dict[str, list[mongo.Document]] = {}
    standard: dict[str, list[mongo.Document]] = {}
    limiter = anyio.CapacityLimiter(LISTINGS_AT_ONCE)
    errors: list[Exception] = []

    async def list_search(collection: str) -> None:
        names = [record.name for record in records if record.collection == collection]
        search[collection] = await mongo.again(lambda: mongo.search_listing(call.db, collection, names))

    async def list_standard(collection: str) -> None:
        standard[collection] = await standard_listing(call.db, collection)

    async def one(look: Any, collection: str) -> None:
        try:
            async with limiter:
                await look(collection)
        except Exception as error:  # noqa: BLE001  # raised below, alone and not in a group
            errors.append(error)
            group.cancel_scope.cancel()

    async with anyio.create_task_group() as group:
        for collection in searched:
            group.start_soon(one, list_search, collection)
        for collection in models:
            group.start_soon(one, list_standard, collection)
    if errors:
        raise errors[0]
    reports, differences, others = _standard_reports(models, standard, snapshot)
    names = {(record.collection, record.name) for record in records}
    for record in records:
        report, difference = _search_report(record, search[record.collection])
        reports.append(report)
        differences += difference
    call.indexes = tuple(reports)
    return Survey(
        standings=standings,
        differences=tuple(differences),
        unknown=tuple(
            f"{collection}.{document['name']}"
            for collection, documents in search.items()
            for document in documents
            if (collection, document.get("name")) not in names
        ),
        others=tuple(others),
    )


def _migration_report(standing: Standing) -> MigrationReport:
    script, entry = standing.script, standing.entry
    applied = entry is not None and entry.state is MigrationState.APPLIED
    return MigrationReport(
        version=standing.version,
        name=standing.name,
        script=script.file_name if script else entry.script if entry else None,
        state=standing.state,
        seconds=entry.seconds if entry else None,
        error=entry.error if entry else None,
        surveyed=True,
        kind=script.kind if script else None,
        reversible=script.reversible if script else None,
        checksum=script.checksum if script else None,
        applied_at=entry.finished_at if entry and applied else None,
    )


def _search_report(record: IndexRecord, documents: Sequence[mongo.Document]) -> tuple[IndexReport, list[str]]:
    target = target_of(record, 0.0)
    listed = readiness.pick(target, [readiness.parse(document) for document in documents])
    verdict = readiness.judge(target, listed)
    report = IndexReport(
        collection=record.collection,
        name=record.name,
        type=record.type,
        state=verdict.state,
        queryable=verdict.queryable,
        reason=verdict.reason,
    )
    if listed is None or record.definition is None or listed.definition is None:
        return report, []
    label = f"{record.collection}.{record.name}"
    if listed.type is not None and listed.type is not record.type:
        return report, [f"{label} is a {listed.type.value} index, and a {record.type.value} index was asked for"]
    return report, [
        f"{label}: {line}" for line in definitions.differences(record.type, record.definition, listed.definition)
    ]


def _standard_reports(
    models: IndexModels, listed: Mapping[str, Sequence[mongo.Document]], snapshot: Snapshot
) -> tuple[list[IndexReport], list[str], list[str]]:
    planned = _standard_planned(models, snapshot)
    reports: list[IndexReport] = []
    differences: list[str] = []
    others: list[str] = []
    for collection, of in models.items():
        live = {str(document.get("name")): document for document in listed[collection]}
        known = {"_id_"}
        for model in of:
            change = standard_definitions.standard_change(model.document, listed[collection])
            known.add(change.name)
            if change.action in (StandardAction.MODIFY, StandardAction.CONFLICT):
                lines = standard_definitions.standard_differences(model.document, live[change.name])
                differences += [f"{collection}.{change.name}: {line}" for line in lines]
            present = change.action is StandardAction.PRESENT
            absent = change.action is StandardAction.CREATE
            reason = None
            if not present:
                reason = NOT_CREATED if absent and planned else change.sentence or "not as it was asked for"
                if absent and not planned:
                    reason = "it was created and is gone"
            reports.append(
                IndexReport(
                    collection=collection,
                    name=model.document["name"],
                    type=IndexType.STANDARD,
                    state=IndexState.READY if present else IndexState.ABSENT if absent else IndexState.STALE,
                    queryable=not absent,
                    reason=reason,
                )
            )
        others += [f"{collection}.{name}" for name in live if name not in known]
    return reports, differences, others


def _standard_planned(models: IndexModels, snapshot: Snapshot) -> bool:
    return bool(models) and not any(
        entry.version == STANDARD_VERSION
        and entry.state is MigrationState.APPLIED
        and entry.checksum == standard_checksum(models)
        for entry in snapshot.entries
    )


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
