"""Define what a call has done or found, as values. Exit code, tables and JSON are computed from these. Pure."""

import logging
import math
from datetime import datetime
from enum import StrEnum
from typing import Any

from mydocs.migrations.model import IndexState, IndexType, MigrationState, ScriptKind, StoredError
from mydocs.migrations.reporting.durations import seconds_text
from mydocs.migrations.reporting.events import Event
from mydocs.migrations.reporting.plan_report import PlannedStep, step_json
from mydocs.migrations.values import value


class Outcome(StrEnum):
    """The outcome of a call."""

    OK = "ok"
    FAILED = "failed"
    NOT_READY = "not_ready"
    PLANNED = "planned"
    INTERRUPTED = "interrupted"
    UNVERIFIED = "unverified"  # all is applied and ready, but a check of the data failed


@value
class DataReport:
    """A data change of a script, from :class:`mydocs.migrations.reporting.events.DataChanged`."""

    collection: str
    changed: int
    still_matching: int | None


@value
class MigrationReport:
    """
    One migration. ``seconds`` is the duration of its script.

    :param by_others: another run applied it while this call waited
    :param verified: the result of its ``verify``, with its ``error``; ``None`` if it was not called
    :param surveyed: found by reading files and ledger, so the fields below are all that is known
    """

    version: str
    name: str
    script: str | None
    state: MigrationState
    seconds: float | None = None
    error: StoredError | None = None
    verified: bool | None = None
    data: tuple[DataReport, ...] = ()
    by_others: bool = False
    surveyed: bool = False
    kind: ScriptKind | None = None
    reversible: bool | None = None
    checksum: str | None = None
    applied_at: datetime | None = None


@value
class IndexReport:
    """
    One index. ``seconds`` from the request until it was ready or had failed.

    :param queryable: with any definition; ``None`` if it was not read
    """

    collection: str
    name: str
    type: IndexType
    state: IndexState
    queryable: bool | None
    seconds: float | None = None
    reason: str | None = None


@value
class AliasReport:
    """
    A search alias, and the state of the index that it names.

    :param state: ``None`` if it was not read
    """

    alias: str
    collection: str
    index: str
    previous: str | None = None
    switched_at: datetime | None = None
    state: IndexState | None = None
    reason: str | None = None


@value
class ErrorReport:
    """
    Why the call did not end well.

    :param lines: the message for a screen if it has several problems: a head, and a line for each
    """

    type: str
    message: str
    exit_code: int
    lines: tuple[str, ...] = ()


@value
class AttemptReport:
    """One attempt, up or down, whether the ledger still shows it or not."""

    version: str
    direction: str
    outcome: str
    started_at: datetime | None
    finished_at: datetime | None
    host: str | None
    error: StoredError | None


@value
class RunReport:
    """
    A whole call: its migrations, and the indexes that it waited for.

    :param aliases: found or switched by the call; ``None`` if aliases were not part of it
    """

    outcome: Outcome
    database: str | None
    migrations: tuple[MigrationReport, ...] = ()
    indexes: tuple[IndexReport, ...] = ()
    seconds: float = 0.0
    error: ErrorReport | None = None
    history: tuple[AttemptReport, ...] | None = None
    steps: tuple[PlannedStep, ...] | None = None  # of a plan
    aliases: tuple[AliasReport, ...] | None = None


@value
class RunFinished(Event):
    """The last event of every call, also if the call failed or was cancelled."""

    report: RunReport

    @property
    def level(self) -> int:
        return logging.INFO

    @property
    def sentence(self) -> str:
        error = self.report.error
        problem = f": {error.type}: {error.message}" if error else ""
        return f"ended after {seconds_text(self.report.seconds)}, {self.report.outcome.value}{problem}"


def to_json(report: RunReport) -> dict[str, Any]:
    """Convert a report to plain values with the keys that other programs rely on. Times are ISO 8601 in UTC."""
    document: dict[str, Any] = {
        "outcome": report.outcome.value,
        "database": report.database,
        "migrations": [_migration(migration) for migration in report.migrations],
        "indexes": [index_json(index) for index in report.indexes],
        "seconds": _rounded(report.seconds) or 0.0,
        "error": None
        if report.error is None
        else {"type": report.error.type, "message": report.error.message, "exit_code": report.error.exit_code},
    }
    if report.steps is not None:
        document["steps"] = [step_json(step) for step in report.steps]
    if report.history is not None:
        document["history"] = [_attempt(attempt) for attempt in report.history]
    if report.aliases is not None:
        document["aliases"] = [_alias(alias) for alias in report.aliases]
    return document


def _migration(migration: MigrationReport) -> dict[str, Any]:
    document: dict[str, Any] = {
        "version": migration.version,
        "name": migration.name,
        "script": migration.script,
        "state": migration.state.value,
        "seconds": _rounded(migration.seconds),
        "error": _error(migration.error),
    }
    if migration.verified is not None:
        document["verified"] = migration.verified
    if migration.data:
        document["data"] = [
            {"collection": each.collection, "changed": each.changed, "still_matching": each.still_matching}
            for each in migration.data
        ]
    if migration.surveyed:
        document |= {
            "kind": migration.kind.value if migration.kind else None,
            "reversible": migration.reversible,
            "checksum": migration.checksum,
            "applied_at": migration.applied_at.isoformat() if migration.applied_at else None,
        }
    return document


def index_json(index: IndexReport) -> dict[str, Any]:
    """Convert an index of a report to plain values."""
    return {
        "collection": index.collection,
        "name": index.name,
        "type": index.type.value,
        "state": index.state.value,
        "queryable": index.queryable,
        "seconds": _rounded(index.seconds),
        "reason": index.reason,
    }


def _alias(alias: AliasReport) -> dict[str, Any]:
    return {
        "alias": alias.alias,
        "collection": alias.collection,
        "index": alias.index,
        "previous": alias.previous,
        "switched_at": alias.switched_at.isoformat() if alias.switched_at else None,
        "state": alias.state.value if alias.state else None,
        "reason": alias.reason,
    }


def _attempt(attempt: AttemptReport) -> dict[str, Any]:
    return {
        "version": attempt.version,
        "direction": attempt.direction,
        "outcome": attempt.outcome,
        "started_at": attempt.started_at.isoformat() if attempt.started_at else None,
        "finished_at": attempt.finished_at.isoformat() if attempt.finished_at else None,
        "host": attempt.host,
        "error": _error(attempt.error),
    }


def _error(error: StoredError | None) -> dict[str, str] | None:
    return None if error is None else {"type": error.type, "message": error.message}


def _rounded(seconds: float | None) -> float | None:
    """Round to milliseconds. A stored value that is not a finite number becomes ``None``, since JSON has none."""
    return round(seconds, 3) if seconds is not None and math.isfinite(seconds) else None
