"""Print an error and end with its exit code; what it says is written in `migrations/errors.py`. I/O."""

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import typer

from mydocs.cli.light import CLICK_ERROR
from mydocs.cli.results import hand_out, rendered
from mydocs.cli.streams import LogFormat, Output, Streams

if TYPE_CHECKING:  # `--help` and shell completion must not import our errors
    from mydocs.migrations.errors import MigrationError
    from mydocs.migrations.reporting.report import RunReport

EXIT_CODES = {
    0: "done; with --wait, all ready",
    1: "a migration failed, or files or plan are not acceptable",
    2: "usage or configuration",
    3: "no connection, not authorised, or no search",
    5: "not ready in time",
    6: "an index build failed",
    7: "lease held by another, or lost",
    8: "check, status --exit-code: work is left; plan: something is taken away",
    9: "ready, but not right: a check of the data failed",
    130: "interrupted",
    143: "terminated",
}
INTERRUPTED = 130


def run(streams: Streams, invoke: Callable[[], Any]) -> int:
    """Invoke a command, and convert its error to text and exit code."""
    try:
        returned = invoke()
    except CLICK_ERROR as error:
        return _usage(streams, error)
    except (typer.Abort, KeyboardInterrupt):
        returned = INTERRUPTED
    except Exception as error:  # noqa: BLE001  # the last place that can inform the operator
        return _failure(streams, error)
    if returned == INTERRUPTED:
        from mydocs.migrations.errors import Interrupted

        return fail(streams, Interrupted(INTERRUPTED - 128))
    return returned if isinstance(returned, int) else 0


def fail(streams: Streams, error: "MigrationError", kind: str | None = None) -> int:
    """Show an error and the report of what was done. Return the exit code."""
    from mydocs.migrations.reporting.report import to_json

    report = _report_of(error, kind or type(error).__name__)
    streams.trace(error)
    hand_out(streams, report)
    if streams.output is Output.JSON:
        streams.result_json(to_json(report))
    elif streams.output is Output.TABLE and streams.render is not None and _has_content(error.report):
        streams.result(rendered(streams, report))
    sentence = " ".join(str(error).split())
    hint = error.next_step_after(streams.subcommand)
    if streams.log_format is LogFormat.JSON:
        facts = {"type": kind or type(error).__name__, "exit_code": error.exit_code, "next": hint}
        streams.line_json({"level": "error", "event": "error", "message": sentence, **facts})
        return error.exit_code
    first, *more = error.lines()
    streams.line(f"mydocs: error: {' '.join(first.split())}")
    for line in more:
        # An indented line is one of the problems. A line without indent is about all of them.
        streams.line(f"{'  ' if line.startswith('  ') else 'mydocs: '}{' '.join(line.split())}")
    if hint is not None:
        streams.line(f"mydocs: next: {hint}")
    from mydocs.cli import actions

    if actions.is_on(os.environ):
        for place in error.places():
            # Cleaned before it is escaped, since escapes might hide a credential.
            message = streams.clean(" ".join(place.text.split()))
            streams.line_as_it_is(actions.annotation(message, place, workspace=os.environ.get("GITHUB_WORKSPACE")))
    return error.exit_code


def _has_content(report: "RunReport | None") -> bool:
    """Return whether anything was found or done before the error. An empty table would look like a result."""
    return report is not None and bool(report.migrations or report.indexes)


def _usage(streams: Streams, error: Exception) -> int:
    from mydocs.migrations.errors import UsageError

    sentence = " ".join(error.format_message().split()).rstrip(".")  # type: ignore[attr-defined]  # all of click's errors have it
    context = getattr(error, "ctx", None)
    command = getattr(context, "command_path", None) or "mydocs"
    joint = " See" if sentence.endswith("?") else "; see"
    return fail(streams, UsageError(f"{sentence}{joint} `{command} --help`"), "UsageError")


def _failure(streams: Streams, error: Exception) -> int:
    """Show an error of ours, of the driver, or of a defect in this program."""
    from mydocs.migrations.errors import MigrationError

    if isinstance(error, MigrationError):
        return fail(streams, error)
    known = None
    if "pymongo" in sys.modules:
        from mydocs.migrations.operations.connection import as_migration_error

        known = as_migration_error(error)
    if known is None:
        known = MigrationError(
            f"unexpected {type(error).__name__}: {error}".rstrip(": ")
            + "; run again with --verbose, and report it with the traceback"
        )
        known.__cause__ = error
        return fail(streams, known, type(error).__name__)
    known.__cause__ = error
    return fail(streams, known)


def _report_of(error: "MigrationError", kind: str) -> "RunReport":
    from dataclasses import replace

    from mydocs.migrations.errors import Interrupted
    from mydocs.migrations.reporting.report import ErrorReport, Outcome, RunReport

    lines = error.lines() if len(error.lines()) > 1 else ()
    what = ErrorReport(type=kind, message=" ".join(str(error).split()), exit_code=error.exit_code, lines=lines)
    if isinstance(error, Interrupted):
        base = error.report or RunReport(outcome=Outcome.INTERRUPTED, database=None)
        return replace(base, outcome=Outcome.INTERRUPTED, error=what)
    base = error.report or RunReport(outcome=Outcome.FAILED, database=None)
    return base if base.error is not None else replace(base, outcome=Outcome.FAILED, error=what)
