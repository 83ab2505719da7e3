"""Write for GitHub Actions: an error as an annotation, a report as a summary of the step. I/O only for the summary."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mydocs.cli.streams import Streams
    from mydocs.migrations.model import Problem
    from mydocs.migrations.reporting.report import RunReport

# The limit of a summary is 1 MiB, and those of all steps of a job are on one page.
# https://docs.github.com/en/actions/reference/workflow-commands-for-github-actions#step-isolation-and-limits
MOST_ROWS = 200


def is_on(environ: Mapping[str, str]) -> bool:
    """Return whether this is a step of a workflow, where the variable is always ``true``."""
    return environ.get("GITHUB_ACTIONS") == "true"


def annotation(message: str, place: "Problem", *, workspace: str | None) -> str:
    """
    Write a problem as a workflow command, which marks a line of a file in the pull request.

    Write it to stderr: the service reads the commands of both streams, and stdout contains only the result.
    """
    properties = {"title": "mydocs"}
    if place.path is not None:
        root, file = Path(workspace or Path.cwd()).resolve(), place.path.resolve()
        shown = file.relative_to(root) if file.is_relative_to(root) else file
        properties |= {"file": shown.as_posix(), **({"line": str(place.line)} if place.line else {})}
    said = ",".join(f"{key}={_escaped(value, more=':,')}" for key, value in properties.items())
    return f"::error {said}::{_escaped(message)}"


def append_summary(streams: "Streams", report: "RunReport", environ: Mapping[str, str]) -> None:
    """
    Append a report to the summary of the step, if there is a step.

    :raises OSError: if the file cannot be written
    """
    name = environ.get("GITHUB_STEP_SUMMARY")
    if name and is_on(environ):
        text = summary(report, streams.command or "mydocs", streams.readable)
        with Path(name).open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)


def summary(report: "RunReport", title: str, clean: Callable[[str], str] = str) -> str:
    """
    Write a report as Markdown.

    :param clean: removes credentials from a text
    """
    from mydocs.migrations.reporting.durations import seconds_text

    def cell(text: str) -> str:
        return _plain(clean(text))

    icon = {"ok": "✅", "planned": "📋"}.get(report.outcome.value, "❌")
    where = f" on {cell(report.database)}" if report.database else ""
    parts = [f"### {icon} {cell(title)}{where}: {cell(report.outcome.value.replace('_', ' '))}"]
    if report.error is not None:
        head, *lines = report.error.lines or (report.error.message,)
        parts.append(f"**Exit code {report.error.exit_code}**: {cell(head)}")
        if lines:
            parts.append("\n".join(f"- {cell(line)}" for line in lines))
    migrations = [
        (m.version, m.name, m.state.value, seconds_text(m.seconds), str(m.error) if m.error else "")
        for m in report.migrations
    ]
    indexes = [
        (f"{i.collection}.{i.name}", i.type.value, i.state.value, seconds_text(i.seconds), i.reason or "")
        for i in report.indexes
    ]
    parts += _table(("Migration", "Name", "State", "Time", "Error"), migrations, cell)
    parts += _table(("Index", "Type", "State", "Time", "Reason"), indexes, cell)
    if report.steps is not None:
        from mydocs.cli.plan_text import effect_line

        effects = [(step.version, effect_line(effect)) for step in report.steps for effect in step.effects]
        unknown = [(step.version, sentence) for step in report.steps for sentence in step.unknown]
        parts += _table(("Migration", "Would"), effects, cell)
        parts += _table(("Migration", "Could not be foreseen"), unknown, cell)
    if not migrations and not indexes and report.error is None:
        parts.append("Nothing to do.")
    return "\n\n".join(parts) + f"\n\n{seconds_text(report.seconds)} in all.\n\n"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], cell: Callable[[str], str]) -> Iterable[str]:
    if not rows:
        return []
    lines = [head, ["---"] * len(head), *rows[:MOST_ROWS]]
    text = "\n".join("| " + " | ".join(cell(text) for text in line) + " |" for line in lines)
    return [text, f"and {len(rows) - MOST_ROWS} more"] if len(rows) > MOST_ROWS else [text]


def _plain(text: str) -> str:
    """Escape a text for a cell: on one line, without Markdown and HTML."""
    one_line = " ".join(text.split())
    plain = one_line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return "".join(f"\\{sign}" if sign in "\\|`*_[]" else sign for sign in plain)


def _escaped(text: str, *, more: str = "") -> str:
    """Replace characters that would end a command or a property by their codes."""
    for sign in "%\r\n" + more:
        text = text.replace(sign, f"%{ord(sign):02X}")
    return text
