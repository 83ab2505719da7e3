"""Read ledger and listings, and report the state of every migration and index. I/O: reads, writes nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeAlias

from mydocs.migrations.driver import commands, retry
from mydocs.migrations.driver.client import Document
from mydocs.migrations.driver.session import Session
from mydocs.migrations.driver.task_groups import all_or_first_error
from mydocs.migrations.indexes import definitions, readiness, standard_definitions
from mydocs.migrations.indexes.readiness import Listed
from mydocs.migrations.indexes.standard_definitions import StandardAction, StandardChange
from mydocs.migrations.indexes.standard_list import IndexModels, standard_checksum
from mydocs.migrations.ledger import entries as ledger
from mydocs.migrations.ledger.entries import Snapshot
from mydocs.migrations.ledger.plan import Standing, classify, standard_is_applied, tracked
from mydocs.migrations.model import Definition, IndexState, IndexType, MigrationState, SearchAlias, TrackedIndex
from mydocs.migrations.operations.report_builder import NOT_CREATED, ReportBuilder, alias_report, planned_standard
from mydocs.migrations.operations.reported import discovered
from mydocs.migrations.reporting.report import AliasReport, IndexReport, MigrationReport
from mydocs.migrations.values import value

LISTINGS_AT_ONCE = 8  # collections at the same time
# Each further listing at the same time needs a connection. A new connection takes two round trips before its first
# command, and more with TLS and a login. So this many listings arrive no later one after the other.
ONE_BY_ONE = 3
NOT_AS_ASKED = "not as it was asked for"


@value
class Findings:
    """
    Findings that are not part of the report.

    :param unknown: search indexes that no migration asked for
    :param others: standard indexes that neither the application's list nor a migration asked for
    """

    standings: tuple[Standing, ...]
    differences: tuple[str, ...]
    unknown: tuple[str, ...]
    others: tuple[str, ...]


async def find_in_ledger(
    session: Session, report: ReportBuilder, directory: str | Path, models: IndexModels
) -> tuple[Standing, ...]:
    """Add the state of each migration to the report; one command."""
    found = await discovered(session, report, directory)
    report.snapshot = snapshot = await ledger.read(session.db, aliases=True)
    report.aliases = tuple(map(alias_report, snapshot.aliases))
    standings = classify(found.scripts, snapshot.entries, snapshot.lease)
    report.migrations = tuple(map(_migration_report, standings))
    if _standard_planned(models, snapshot):
        report.indexes = planned_standard(models)
    return standings


async def find_all(session: Session, report: ReportBuilder, directory: str | Path, models: IndexModels) -> Findings:
    """Add the state of each migration and index to the report: one command, and one for each collection and kind."""
    standings = await find_in_ledger(session, report, directory, models)
    snapshot = report.snapshot
    searched: dict[str, list[TrackedIndex]] = {}
    made: dict[str, list[TrackedIndex]] = {}  # standard indexes
    for index in tracked(snapshot.entries):
        (searched if index.type.is_search else made).setdefault(index.collection, []).append(index)
    named: dict[str, list[str]] = {}  # by aliases
    for alias in snapshot.aliases:
        named.setdefault(alias.collection, []).append(alias.index)
    search: dict[str, Mapping[str, Sequence[Listed]]] = {}
    standard: dict[str, list[Document]] = {}

    async def list_search(collection: str) -> None:
        names = [*(index.name for index in searched.get(collection, ())), *named.get(collection, ())]
        documents = await retry.again(lambda: commands.search_listing(session.db, collection, names))
        parsed = [readiness.parse(document) for document in documents]
        search[collection] = readiness.by_name(parsed)
        if nameless := sum(listed.name is None for listed in parsed):
            session.warn(f"{collection}: {nameless} of the listed search indexes have no name and are passed over")

    async def list_standard(collection: str) -> None:
        standard[collection] = await commands.standard_listing(session.db, collection)

    with_search, with_standard = dict.fromkeys([*searched, *named]), dict.fromkeys([*models, *made])
    listings = [partial(list_search, name) for name in with_search]
    listings += [partial(list_standard, name) for name in with_standard]
    await all_or_first_error(listings, 1 if len(listings) <= ONE_BY_ONE else LISTINGS_AT_ONCE)
    reports: list[IndexReport] = []
    differences: list[str] = []
    unknown: list[str] = []
    others: list[str] = []
    planned = _standard_planned(models, snapshot)
    for collection in with_standard:
        documents = [model.document for model in models.get(collection, ())]
        found = _standard_reports(collection, documents, made.get(collection, ()), standard[collection], planned)
        reports += found[0]
        differences += found[1]
        others += found[2]
    for collection in with_search:
        found = _search_reports(collection, searched.get(collection, ()), search[collection])
        reports += found[0]
        differences += found[1]
        unknown += found[2]
    report.indexes = tuple(reports)
    report.aliases = tuple(_alias_report(alias, search[alias.collection]) for alias in snapshot.aliases)
    return Findings(standings=standings, differences=tuple(differences), unknown=tuple(unknown), others=tuple(others))


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


_Found: TypeAlias = tuple[list[IndexReport], list[str], list[str]]
"""The findings of one collection: the report of each index, the differences, and the indexes nobody asked for."""


def _search_reports(collection: str, indexes: Sequence[TrackedIndex], listed: Mapping[str, Sequence[Listed]]) -> _Found:
    reports: list[IndexReport] = []
    differences: list[str] = []
    for index in indexes:
        shown, difference = _search_report(index, listed.get(index.name, ()))
        reports.append(shown)
        differences += difference
    known = {index.name for index in indexes}
    return reports, differences, [f"{collection}.{name}" for name in listed if name not in known]


def _search_report(index: TrackedIndex, listing: Sequence[Listed]) -> tuple[IndexReport, list[str]]:
    listed = readiness.pick(index, listing)
    verdict = readiness.judge(index, listed)
    report = IndexReport(
        collection=index.collection,
        name=index.name,
        type=index.type,
        state=verdict.state,
        queryable=verdict.queryable,
        reason=verdict.reason,
    )
    if listed is None or index.definition is None or listed.definition is None:
        return report, []
    if listed.type is not None and listed.type is not index.type:
        return report, [f"{index} is a {listed.type.value} index, and a {index.type.value} index was asked for"]
    return report, [
        f"{index}: {line}" for line in definitions.differences(index.type, index.definition, listed.definition)
    ]


def _alias_report(alias: SearchAlias, listed: Mapping[str, Sequence[Listed]]) -> AliasReport:
    index = TrackedIndex(collection=alias.collection, name=alias.index)
    verdict = readiness.judge(index, readiness.pick(index, listed.get(index.name, ())))
    return alias_report(alias, verdict.state, verdict.reason)


def _standard_reports(
    collection: str,
    documents: Sequence[Definition],
    made: Sequence[TrackedIndex],
    listing: Sequence[Document],
    planned: bool,
) -> _Found:
    """
    Report the state of a collection's standard indexes.

    :param documents: from the application's list
    :param made: by scripts, or from the application's list by an earlier run
    :param planned: the next run creates those of the list that are absent
    """
    reports: list[IndexReport] = []
    differences: list[str] = []
    live = {str(document.get("name")): document for document in listing}
    known = {"_id_"}
    for document in documents:
        name = str(document["name"])
        change = standard_definitions.standard_change(document, listing)
        known |= {name, change.name}
        shown, difference = _standard_report(collection, name, document, change, live)
        if planned and change.action is StandardAction.CREATE:
            shown = replace(shown, reason=NOT_CREATED)
        reports.append(shown)
        differences += difference
    for index in made:
        if index.name not in known:
            document = standard_definitions.index_document(index.name, index.definition or {})
            if index.definition is None:  # the ledger knows only the name
                document = live.get(index.name, document)
            change = standard_definitions.standard_change(document, listing)
            known |= {index.name, change.name}
            shown, difference = _standard_report(collection, index.name, document, change, live)
            reports.append(shown)
            differences += difference
    return reports, differences, [f"{collection}.{name}" for name in live if name not in known]


def _standard_report(
    collection: str, name: str, document: Definition, change: StandardChange, live: Mapping[str, Definition]
) -> tuple[IndexReport, list[str]]:
    present = change.action is StandardAction.PRESENT
    absent = change.action is StandardAction.CREATE
    lines: tuple[str, ...] = ()
    if not present and not absent:
        lines = standard_definitions.standard_differences(document, live[change.name])
    reason = None if present else "it was created and is gone" if absent else change.sentence or NOT_AS_ASKED
    report = IndexReport(
        collection=collection,
        name=name,
        type=IndexType.STANDARD,
        state=IndexState.READY if present else IndexState.ABSENT if absent else IndexState.STALE,
        queryable=not absent,
        reason=reason,
    )
    return report, [f"{collection}.{change.name}: {line}" for line in lines]


def _standard_planned(models: IndexModels, snapshot: Snapshot) -> bool:
    return bool(models) and not standard_is_applied(snapshot.entries, standard_checksum(models))
