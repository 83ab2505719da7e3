"""Reports and events as text. Pure: values in, text out."""

import dataclasses
from enum import Enum
from typing import TYPE_CHECKING, Any

from mydocs.cli.progress import Progress
from mydocs.cli.tables import table
from mydocs.migrations.errors import describe_holder
from mydocs.migrations.model import (
    STANDARD_VERSION,
    IndexState,
    IndexType,
    MigrationState,
    Script,
)
from mydocs.migrations.reporting.events import (
    BatchDone,
    Event,
    IndexChanged,
    IndexDefined,
    LeaseTaken,
    LeaseWaiting,
    Planned,
    StepFinished,
    StepStarted,
    StillWaiting,
    Warned,
)
from mydocs.migrations.reporting.report import IndexReport, MigrationReport, Outcome, RunFinished, RunReport, to_json

if TYPE_CHECKING:  # the result of an operation, which a view need not import
    from mydocs.migrations.operations.settle import Repair

MIGRATION_HEAD = ("VERSION", "NAME", "STATE", "SECONDS")
INDEX_HEAD = ("INDEX", "TYPE", "STATE", "SECONDS", "REASON")


def seconds_text(seconds: float | None) -> str:
    """Write a duration for people: ``0.12 s``, ``12.3 s``, ``3 min 20 s``, ``1 h 05 min``."""
    if seconds is None:
        return ""
    if seconds < 9.995:
        return f"{seconds:.2f} s"
    if seconds < 99.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


def run_text(report: RunReport) -> str:
    """Show what `run`, `wait`, `mark` or `repair` has done; the last line sums it up."""
    parts = [
        table(MIGRATION_HEAD, (_migration_row(migration) for migration in report.migrations)),
        table(INDEX_HEAD, (_index_row(index) for index in report.indexes)),
        summary(report),
    ]
    return "\n\n".join(part for part in parts if part)


def rollback_text(report: RunReport) -> str:
    """Show what was taken back."""
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
    """Show where every migration and every index stands."""
    migrations = table(
        ("VERSION", "NAME", "STATE", "APPLIED AT", "SECONDS", "ERROR"),
        (
            (
                m.version,
                m.name,
                m.state.value,
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
    parts = [migrations or "no migrations", indexes, f"attempts:\n{history}" if history else ""]
    return "\n\n".join(part for part in parts if part)


def summary(report: RunReport) -> str:
    """Say in one sentence what a run came to; empty for a failed one, whose error says it."""
    scripts = [m for m in report.migrations if m.version != STANDARD_VERSION]
    if report.outcome is Outcome.PLANNED:
        return f"{_count(len(scripts), 'migration')} would run" if scripts else "no migration would run"
    applied = [m for m in scripts if m.state is MigrationState.APPLIED]
    ready = [i for i in report.indexes if i.state is IndexState.READY]
    other = [i for i in report.indexes if i.state is not IndexState.READY]
    parts = [
        *([f"{_count(len(applied), 'migration')} applied"] if applied else []),
        *([f"{_count(len(ready), 'index')} ready"] if ready else []),
        *([f"{_count(len(other), 'index')} not ready"] if other and report.error is not None else []),
        *([f"{_count(len(other), 'index')} still building"] if other and report.error is None else []),
    ]
    if not parts:
        return "nothing to do" if report.error is None else ""
    return f"{', '.join(parts)} in {seconds_text(report.seconds)}"


def mark_text(report: RunReport) -> str:
    """Show what `mark` or `repair` has settled."""
    rows = table(MIGRATION_HEAD, ((m.version, m.name, _settled_state(m), "") for m in report.migrations))
    last = f"{_count(len(report.migrations), 'migration')} settled" if report.migrations else "nothing to settle"
    return "\n\n".join(part for part in (rows, last) if part)


def _settled_state(migration: MigrationReport) -> str:
    gone = migration.script is None and migration.state is MigrationState.PENDING
    return "forgotten" if gone else migration.state.value


def repair_text(found: "Repair") -> str:
    """Show what `repair` is going to accept and to forget."""
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


def event_line(event: Event) -> str | None:
    """Say an event in one plain line; ``None`` for those that the result tells."""
    text = _event_text(event)
    return text and " ".join(text.split())


def _event_text(event: Event) -> str | None:
    match event:
        case Planned():
            steps = [*(["standard indexes"] if event.standard else []), *event.versions]
            if event.direction == "down":
                return f"database {event.database}: roll back {', '.join(steps) if steps else 'nothing'}"
            return f"database {event.database}: {', '.join(steps) if steps else 'no migration to run'}"
        case Warned():
            return f"warning: {event.message}"
        case LeaseWaiting():
            return f"waiting for the lease: {describe_holder(event.holder)}"
        case LeaseTaken():
            return f"lease taken, term {event.term}"
        case StepStarted():
            return f"{step_name(event)}: {'rolling back' if event.direction == 'down' else 'running'}"
        case StepFinished():
            problem = f": {event.error}" if event.error else ""
            return f"{step_name(event)}: {step_state(event)} in {seconds_text(event.seconds)}{problem}"
        case BatchDone():
            return f"{event.collection}: {batch_text(event.done, event.total)}, {seconds_text(event.seconds)}"
        case IndexDefined():
            return f"{index_name(event)}: {event.action}"
        case IndexChanged():
            return f"{index_name(event)}: {index_state(event)}, {seconds_text(event.seconds)}"
        case StillWaiting():
            return f"still waiting after {seconds_text(event.seconds)}: {', '.join(event.what)}"
        case _:
            return None


def batch_text(done: int, total: int) -> str:
    """Say how far a data change is."""
    return f"{done} of {total} documents" + (f" ({done * 100 // total} %)" if total else "")


def speed_text(progress: Progress) -> str:
    """Say how fast a data change goes and when it will be done; empty while that is not known."""
    if progress.rate is None or progress.seconds_left is None:
        return ""
    left = "" if progress.is_over else f"about {rounded_text(progress.seconds_left)} left, "
    return f"{left}{progress.rate:.0f} a second"


def rounded_text(seconds: float) -> str:
    """Write a duration that is only estimated, or still goes on, in whole seconds."""
    return f"{round(seconds)} s" if seconds < 99.5 else seconds_text(seconds)


def step_name(event: StepStarted | StepFinished) -> str:
    """Name a step: a migration, or the standard indexes."""
    return "standard indexes" if event.version == STANDARD_VERSION else f"migration {event.version} {event.name}"


def step_state(event: StepFinished) -> str:
    """Say how a step ended; a migration that was taken back is pending again."""
    return "rolled back" if event.direction == "down" and event.error is None else event.state.value


def index_name(event: IndexDefined | IndexChanged) -> str:
    """Name an index as an operator would look for it."""
    return f"index {event.collection}.{event.name}" + (f" ({event.type.value})" if event.type else "")


def index_state(event: IndexChanged) -> str:
    """Say where an index stands, on how many hosts, and why."""
    hosts = ""
    if event.hosts_total > 1 and event.hosts_ready < event.hosts_total:
        hosts = f", {event.hosts_ready} of {event.hosts_total} hosts ready"
    return f"{event.state.value}{hosts}" + (f" ({event.reason})" if event.reason else "")


def event_json(event: Event) -> dict[str, Any]:
    """Turn an event into plain values; ``event`` is its kind."""
    if isinstance(event, RunFinished):
        return {"event": "RunFinished", "report": to_json(event.report)}
    document: dict[str, Any] = plain(dataclasses.asdict(event))
    return {"event": type(event).__name__, **document}


def plain(value: Any) -> Any:
    """Turn enums, times and tuples inside a value into what JSON has."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, Enum):
        return value.value
    return value.isoformat() if hasattr(value, "isoformat") else value


def _migration_row(migration: MigrationReport) -> tuple[str, ...]:
    name = migration.name
    return (migration.version, name, migration.state.value, seconds_text(migration.seconds))


def _index_row(index: IndexReport) -> tuple[str, ...]:
    seconds = "" if index.type is IndexType.STANDARD else seconds_text(index.seconds)
    return (f"{index.collection}.{index.name}", index.type.value, index.state.value, seconds, index.reason or "")


def _count(number: int, noun: str) -> str:
    plural = {"index": "indexes"}.get(noun, f"{noun}s")
    return f"{number} {noun if number == 1 else plural}"
