"""Write reports and events as text. Pure: values in, text out."""

import dataclasses
import logging
import math
from collections import Counter
from dataclasses import replace
from enum import Enum
from typing import TYPE_CHECKING, Any

from mydocs.cli.progress import Progress
from mydocs.cli.tables import table
from mydocs.migrations.model import (
    STANDARD_VERSION,
    IndexState,
    IndexType,
    MigrationState,
    Script,
)
from mydocs.migrations.reporting.durations import rounded_text, seconds_text
from mydocs.migrations.reporting.events import Event, Warned
from mydocs.migrations.reporting.report import IndexReport, MigrationReport, Outcome, RunFinished, RunReport, to_json

if TYPE_CHECKING:  # result types of operations, needed only for annotations
    from mydocs.migrations.operations.pull import PullReport
    from mydocs.migrations.operations.settle import Repair

BY_OTHERS = "applied by others"
VERIFIED, NOT_RIGHT = "applied, verified", "applied, not right"
MIGRATION_HEAD = ("VERSION", "NAME", "STATE", "SECONDS")
MIGRATION_STATES = sorted(MigrationState, key=lambda state: state is not MigrationState.APPLIED)  # applied ones first
INDEX_STATES = sorted(IndexState, key=lambda state: state is not IndexState.READY)
INDEX_HEAD = ("INDEX", "TYPE", "STATE", "SECONDS", "REASON")


def run_text(report: RunReport) -> str:
    """Show what `run` has done. The last line is a summary."""
    return _with_tables(report, summary(report))


def wait_text(report: RunReport) -> str:
    """Show what `wait` has waited for. The last line is a summary."""
    return _with_tables(report, wait_summary(report))


def _with_tables(report: RunReport, last: str) -> str:
    parts = [
        table(MIGRATION_HEAD, (_migration_row(migration) for migration in report.migrations)),
        table(INDEX_HEAD, (_index_row(index) for index in report.indexes)),
        aliases_text(report),
        last,
    ]
    return "\n\n".join(part for part in parts if part)


def rollback_text(report: RunReport) -> str:
    """Show what was rolled back."""
    rows = [
        (m.version, m.name, "rolled back" if m.state is MigrationState.PENDING else m.state.value, "")
        for m in report.migrations
    ]
    back = sum(m.state is MigrationState.PENDING for m in report.migrations)
    last = (
        f"{_count(back, 'migration')} rolled back in {seconds_text(report.seconds)}" if back else "nothing rolled back"
    )
    if report.error is not None and not back:
        last = ""
    if report.outcome is Outcome.PLANNED:
        rows = [(m.version, m.name, "would be rolled back", "") for m in report.migrations]
        last = f"{_count(len(report.migrations), 'migration')} would be rolled back"
    indexes = table(INDEX_HEAD, (_index_row(index) for index in report.indexes))
    return "\n\n".join(part for part in (table(MIGRATION_HEAD, rows), indexes, last) if part)


def status_text(report: RunReport) -> str:
    """Show the state of every migration and every index."""
    migrations = table(
        ("VERSION", "NAME", "STATE", "APPLIED AT", "SECONDS", "ERROR"),
        (
            (
                m.version,
                m.name,
                state_text(m),
                m.applied_at.strftime("%Y-%m-%d %H:%M:%SZ") if m.applied_at else "",
                seconds_text(m.seconds),
                str(m.error) if m.error else "",
            )
            for m in report.migrations
        ),
    )
    indexes = table(
        ("INDEX", "TYPE", "STATE", "REASON"),
        ((f"{i.collection}.{i.name}", i.type.value, i.state.value, i.reason or "") for i in report.indexes),
    )
    history = table(
        ("VERSION", "DIRECTION", "OUTCOME", "STARTED AT", "HOST", "ERROR"),
        (
            (
                a.version,
                a.direction,
                a.outcome,
                a.started_at.strftime("%Y-%m-%d %H:%M:%SZ") if a.started_at else "",
                a.host or "",
                str(a.error) if a.error else "",
            )
            for a in report.history or ()
        ),
    )
    parts = [migrations or "no migrations", indexes, aliases_text(report), f"attempts:\n{history}" if history else ""]
    parts.append(standing_text(report))
    return "\n\n".join(part for part in parts if part)


def only_left(report: RunReport) -> RunReport:
    """Remove finished parts from a report: applied migrations, and indexes that are ready."""
    return replace(
        report,
        migrations=tuple(m for m in report.migrations if m.state is not MigrationState.APPLIED),
        indexes=tuple(index for index in report.indexes if index.state is not IndexState.READY),
    )


def pending_text(report: RunReport) -> str:
    """Show what is left to do."""
    left = only_left(report)
    return status_text(left) if left.migrations or left.indexes else "nothing to do"


def aliases_text(report: RunReport) -> str:
    """Show the search aliases and their indexes; an empty text if there are none."""
    return table(
        ("ALIAS", "INDEX", "STATE", "BEFORE", "SWITCHED AT"),
        (
            (
                alias.alias,
                f"{alias.collection}.{alias.index}",
                alias.state.value if alias.state else "",
                alias.previous or "",
                alias.switched_at.strftime("%Y-%m-%d %H:%M:%SZ") if alias.switched_at else "",
            )
            for alias in report.aliases or ()
        ),
    )


def standing_text(report: RunReport) -> str:
    """Count the states: ``3 applied, 1 pending; 10 indexes ready``."""
    states = Counter(m.state for m in report.migrations if m.version != STANDARD_VERSION)
    indexes = Counter(index.state for index in report.indexes)
    migrations = [f"{states[state]} {state.value}" for state in MIGRATION_STATES if states[state]]
    found = [state for state in INDEX_STATES if indexes[state]]
    first = [f"{_count(indexes[state], 'index')} {state.value}" for state in found[:1]]
    others = [f"{indexes[state]} {state.value}" for state in found[1:]]
    return "; ".join(", ".join(part) for part in (migrations, [*first, *others]) if part)


def summary(report: RunReport) -> str:
    """Summarise a run in one sentence; an empty text if it failed before anything was done."""
    scripts = [m for m in report.migrations if m.version != STANDARD_VERSION]
    if report.outcome is Outcome.PLANNED:
        return f"{_count(len(scripts), 'migration')} would run" if scripts else "no migration would run"
    states = Counter(migration.state for migration in scripts)
    failed = states[MigrationState.FAILED] + states[MigrationState.INTERRUPTED]
    parts = [
        *_counted(states[MigrationState.APPLIED], "migration", "applied"),
        *([f"{failed} failed"] if failed else []),
        *([f"{states[MigrationState.PENDING]} not run"] if failed and states[MigrationState.PENDING] else []),
        *_indexes_counted(report),
    ]
    if not parts:
        return "nothing to do" if report.error is None else ""
    return f"{', '.join(parts)} in {seconds_text(report.seconds)}"


def wait_summary(report: RunReport) -> str:
    """Summarise a wait, and what others did in the meantime; an empty text if it found nothing."""
    scripts = [m for m in report.migrations if m.version != STANDARD_VERSION]
    by_others = sum(migration.by_others for migration in scripts)
    before = sum(m.state in (MigrationState.APPLIED, MigrationState.CHANGED) for m in scripts) - by_others
    parts = [
        *_counted(before, "migration", "applied before"),
        *_counted(by_others, "migration", "applied by others meanwhile"),
        *_counted(len(scripts) - before - by_others, "migration", "not applied"),
        *_indexes_counted(report),
    ]
    if not parts:
        return "nothing to wait for" if report.error is None else ""
    return f"{', '.join(parts)} in {seconds_text(report.seconds)}"


def _indexes_counted(report: RunReport) -> list[str]:
    states = Counter(index.state for index in report.indexes)
    unseen = "unknown" if report.outcome is Outcome.NOT_READY else "not waited for"
    late = states.total() - states[IndexState.READY] - states[IndexState.UNKNOWN] - states[IndexState.FAILED]
    return [
        *_counted(states[IndexState.READY], "index", "ready"),
        *_counted(states[IndexState.FAILED], "index", "failed"),
        *_counted(late, "index", "not ready"),
        *_counted(states[IndexState.UNKNOWN], "index", unseen),
    ]


def _counted(number: int, noun: str, what: str) -> list[str]:
    return [f"{_count(number, noun)} {what}"] if number else []


def mark_text(report: RunReport) -> str:
    """Show what `mark` or `repair` has recorded."""
    rows = table(MIGRATION_HEAD, ((m.version, m.name, _settled_state(m), "") for m in report.migrations))
    last = f"{_count(len(report.migrations), 'migration')} recorded" if report.migrations else "nothing to change"
    return "\n\n".join(part for part in (rows, last) if part)


def import_text(report: RunReport) -> str:
    """Show what `import` has marked, and the records without a file."""
    rows = table(MIGRATION_HEAD, ((m.version, m.name, m.state.value, "") for m in report.migrations))
    unknown = [m.script or m.name for m in report.migrations if m.state is MigrationState.MISSING]
    last = f"{_count(len(report.migrations) - len(unknown), 'migration')} applied by the other tool"
    if unknown:
        last += f"; applied there, and no file has the name: {', '.join(unknown)}"
    return "\n\n".join(part for part in (rows, last) if part)


def pull_text(report: "PullReport", *, diff: bool) -> str:
    """Show what `pull` has written, or the differences. The script's path stands alone on the first line."""
    if diff:
        return "\n".join(report.differences) or "scripts and live indexes agree"
    if report.path is None:
        return "every live index is accounted for"
    rows = table(("COLLECTION", "INDEX", "TYPE"), ((i.collection, i.name, i.type.value) for i in report.indexes))
    return f"{report.path}\n\n{rows}"


def _settled_state(migration: MigrationReport) -> str:
    gone = migration.script is None and migration.state is MigrationState.PENDING
    return "forgotten" if gone else migration.state.value


def repair_text(found: "Repair") -> str:
    """Show what `repair` will accept and forget."""
    rows = [
        *(
            (s.version, s.name, "changed", _accepted(s.entry.script if s.entry else None, s.script))
            for s in found.changed
        ),
        *((s.version, s.name, s.state.value, "forget it") for s in found.missing),
    ]
    return table(("VERSION", "NAME", "STATE", "REPAIR"), rows)


def _accepted(applied: str | None, script: Script | None) -> str:
    other = script is not None and applied != script.file_name
    return f"accept it in place of {applied}, which was applied" if other else "accept the text as it is now"


def event_line(event: Event) -> str:
    """Write an event on one plain line."""
    warning = "warning: " if isinstance(event, Warned) else ""
    return " ".join(f"{warning}{event.sentence}".split())


def speed_text(progress: Progress) -> str:
    """Write the speed of a data change and the time that is left; an empty text if they are unknown."""
    if progress.rate is None or progress.seconds_left is None:
        return ""
    left = "" if progress.is_over else f"about {rounded_text(progress.seconds_left)} left, "
    return f"{left}{progress.rate:.0f} a second"


def event_json(event: Event) -> dict[str, Any]:
    """Convert an event to plain values: its level, its kind as ``event``, its sentence as ``message``, its fields."""
    facts = {"report": to_json(event.report)} if isinstance(event, RunFinished) else plain(dataclasses.asdict(event))
    head = {"level": logging.getLevelName(event.level).lower(), "event": type(event).__name__}
    return {**facts, **head, "message": event.sentence}


def plain(value: Any) -> Any:
    """Convert enums, times and tuples inside a value to JSON types."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, float):
        return round(value, 3) if math.isfinite(value) else None
    return value.isoformat() if hasattr(value, "isoformat") else value


def state_text(migration: MigrationReport) -> str:
    """Return the state of a migration, with the result of its `verify` if it was called."""
    if migration.verified is None:
        return BY_OTHERS if migration.by_others else migration.state.value
    return VERIFIED if migration.verified else NOT_RIGHT


def _migration_row(migration: MigrationReport) -> tuple[str, ...]:
    name = migration.name
    return (migration.version, name, state_text(migration), seconds_text(migration.seconds))


def _index_row(index: IndexReport) -> tuple[str, ...]:
    seconds = "" if index.type is IndexType.STANDARD else seconds_text(index.seconds)
    return (f"{index.collection}.{index.name}", index.type.value, index.state.value, seconds, index.reason or "")


def _count(number: int, noun: str) -> str:
    plural = {"index": "indexes"}.get(noun, f"{noun}s")
    return f"{number} {noun if number == 1 else plural}"
