"""Read ledger and listings, and say where every migration and index stands. Writes nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import anyio

from mydocs.migrations.driver import mongo
from mydocs.migrations.driver.session import Session
from mydocs.migrations.driver.task_groups import one_error_group
from mydocs.migrations.indexes import definitions, readiness, standard_definitions
from mydocs.migrations.indexes.standard import IndexModels, standard_checksum, standard_listing
from mydocs.migrations.indexes.standard_definitions import StandardAction
from mydocs.migrations.indexes.waiter import target_of
from mydocs.migrations.ledger import entries as ledger
from mydocs.migrations.ledger.entries import Snapshot
from mydocs.migrations.ledger.plan import Standing, classify, standard_is_applied, tracked
from mydocs.migrations.model import IndexRecord, IndexState, IndexTarget, IndexType, MigrationState, SearchAlias
from mydocs.migrations.operations.report_builder import NOT_CREATED, ReportBuilder, alias_report, planned_standard
from mydocs.migrations.operations.reported import discovered
from mydocs.migrations.reporting.report import AliasReport, IndexReport, MigrationReport

LISTINGS_AT_ONCE = 8  # collections


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """
    What a look at everything has found besides what stands in the report.

    :param unknown: search indexes that no migration asked for
    :param others: standard indexes that are not in the application's list; a migration may have made them
    """

    standings: tuple[Standing, ...]
    differences: tuple[str, ...]
    unknown: tuple[str, ...]
    others: tuple[str, ...]


async def find_in_ledger(
    session: Session, report: ReportBuilder, directory: str | Path, models: IndexModels
) -> tuple[Standing, ...]:
    """Say in the report where each migration stands; one command."""
    found = await discovered(session, report, directory)
    report.snapshot = snapshot = await ledger.read(session.db, aliases=True)
    report.aliases = tuple(map(alias_report, snapshot.aliases))
    standings = classify(found.scripts, snapshot.entries, snapshot.lease)
    report.migrations = tuple(map(_migration_report, standings))
    if _standard_planned(models, snapshot):
        report.indexes = planned_standard(models)
    return standings


async def find_all(session: Session, report: ReportBuilder, directory: str | Path, models: IndexModels) -> Findings:
    """Say in the report where each migration and each index stands: one command, and one a collection and kind."""
    standings = await find_in_ledger(session, report, directory, models)
    snapshot = report.snapshot
    records = tracked(snapshot.entries)
    # In an order, and each once.
    searched = dict.fromkeys([*(each.collection for each in records), *(each.collection for each in snapshot.aliases)])
    search: dict[str, list[mongo.Document]] = {}
    standard: dict[str, list[mongo.Document]] = {}
    limiter = anyio.CapacityLimiter(LISTINGS_AT_ONCE)

    async def list_search(collection: str) -> None:
        names = [record.name for record in records if record.collection == collection]
        names += [alias.index for alias in snapshot.aliases if alias.collection == collection]
        async with limiter:
            search[collection] = await mongo.again(lambda: mongo.search_listing(session.db, collection, names))

    async def list_standard(collection: str) -> None:
        async with limiter:
            standard[collection] = await standard_listing(session.db, collection)

    async with one_error_group() as group:
        for collection in searched:
            group.start_soon(list_search, collection)
        for collection in models:
            group.start_soon(list_standard, collection)
    reports, differences, others = _standard_reports(models, standard, snapshot)
    names = {(record.collection, record.name) for record in records}
    for record in records:
        shown, difference = _search_report(record, search[record.collection])
        reports.append(shown)
        differences += difference
    report.indexes = tuple(reports)
    report.aliases = tuple(_alias_report(alias, search[alias.collection]) for alias in snapshot.aliases)
    return Findings(
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


def _alias_report(alias: SearchAlias, documents: Sequence[mongo.Document]) -> AliasReport:
    target = IndexTarget(collection=alias.collection, name=alias.index)
    verdict = readiness.judge(target, readiness.pick(target, [readiness.parse(document) for document in documents]))
    return alias_report(alias, verdict.state, verdict.reason)


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
    return bool(models) and not standard_is_applied(snapshot.entries, standard_checksum(models))
