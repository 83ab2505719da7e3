"""Write a plan as text: a line for each effect, with a sign if it takes something away. Pure."""

from collections.abc import Iterator

from mydocs.migrations.errors import MigrationError, WouldFail, WouldTakeAway
from mydocs.migrations.model import IndexType, MigrationState
from mydocs.migrations.reporting.durations import seconds_text
from mydocs.migrations.reporting.plan_report import TAKES_AWAY, Effect, EffectKind, PlannedStep, PlanReport
from mydocs.migrations.reporting.report import MigrationReport, Outcome, RunReport

ALARM = "!"  # first character of a line that an operator must not overlook; red on a terminal
_SIGNS = {
    EffectKind.CREATE_INDEX: "+",
    EffectKind.CREATE_COLLECTION: "+",
    EffectKind.INSERT: "+",
    EffectKind.DELETE: ALARM,
    **dict.fromkeys(TAKES_AWAY, ALARM),
}


def as_run_report(report: PlanReport) -> RunReport:
    """Convert a plan to the report form that every command uses for its result."""
    migrations = tuple(
        MigrationReport(
            version=step.version, name=step.name, script=None, state=MigrationState.PENDING, error=step.error
        )
        for step in report.steps
    )
    return RunReport(
        outcome=Outcome.PLANNED,
        database=report.database,
        migrations=migrations,
        seconds=report.seconds,
        steps=report.steps,
    )


def plan_error(report: PlanReport) -> MigrationError | None:
    """Return the error that stops a pipeline, or ``None``."""
    for step in report.steps:
        if step.error is not None:
            return WouldFail(step.version, step.error.message)
    taken = [
        f"{step.version} {_sentence(effect)}"
        for step in report.steps
        for effect in step.effects
        if effect.kind in TAKES_AWAY
    ]
    return WouldTakeAway(taken) if taken else None


def plan_text(report: RunReport) -> str:
    """Show what each step would do."""
    steps = report.steps or ()
    if not steps:
        return "nothing pending"
    last = f"{len(steps)} step{'' if len(steps) == 1 else 's'} tried on a copy in {seconds_text(report.seconds)}"
    return "\n\n".join([*("\n".join(_lines(step)) for step in steps), f"{last}; nothing was changed"])


def effect_line(effect: Effect) -> str:
    """Write one effect on a line, after its sign."""
    return f"{_SIGNS.get(effect.kind, '~')} {_sentence(effect)}"


def _lines(step: PlannedStep) -> Iterator[str]:
    yield f"{step.version} {step.name}"
    for effect in step.effects:
        yield f"  {effect_line(effect)}"
        yield from (f"      - {document}" for document in effect.before)
        yield from (f"      + {document}" for document in effect.after)
    if not step.effects and step.error is None and not step.unknown:
        yield "  changes nothing"
    yield from (f"  ? could not be foreseen: {sentence}" for sentence in step.unknown)
    if step.error is not None:
        yield f"  {ALARM} fails on the copy: {step.error.message}"


def _sentence(effect: Effect) -> str:
    action, _, noun = effect.kind.value.partition("_")
    where = effect.collection
    if noun == "index":
        kind = {IndexType.STANDARD: "", IndexType.SEARCH: "search ", IndexType.VECTOR: "vector "}
        text = f"{action} {kind[effect.type] if effect.type else ''}index {where}.{effect.name}"
    elif effect.kind is EffectKind.RENAME_COLLECTION:
        text = f"rename collection {where} to {effect.name}"
    elif noun == "collection":
        text = f"{action} collection {where}"
        if effect.documents is not None:
            text += f" with {_documents(effect)}"
    elif effect.kind is EffectKind.ALIAS:
        text = f"alias {effect.name} of {where}"
    else:
        into = {"insert": "into", "update": "of", "delete": "of"}[effect.kind.value]
        text = f"{effect.kind.value} {_documents(effect)} {into} {where}"
    detail = f" {effect.detail}" if effect.detail else ""
    return text + detail + ("" if effect.answers_meanwhile else ", and queries find none meanwhile" * (noun == "index"))


def _documents(effect: Effect) -> str:
    if effect.documents is None:
        return "an unknown number of documents"
    return f"{effect.documents:,} document{'' if effect.documents == 1 else 's'}"
