"""Hand a result to all who asked for it: stdout, the file of --report, the summary of a workflow's step. I/O."""

import os
from typing import TYPE_CHECKING, Any

from mydocs.cli.streams import Output, Streams, current

if TYPE_CHECKING:  # a command without a database makes no report and pays for none
    from mydocs.migrations.reporting.report import RunReport


def show(report: "RunReport") -> None:
    """Write a report to stdout, in the form that was asked for, and hand it to all others."""
    streams = current()
    hand_out(streams, report)
    if streams.output is Output.TABLE and streams.render is not None:
        streams.result(streams.redacted(streams.render(report)))
    elif streams.output is Output.JSON:
        from mydocs.migrations.reporting.report import to_json

        streams.result_json(to_json(report))


def hand_out(streams: Streams, report: "RunReport") -> None:
    """Give a report to those besides stdout."""
    for take in streams.also:
        take(report)
    if "GITHUB_ACTIONS" not in os.environ:
        return
    from mydocs.cli import actions

    if actions.is_on(os.environ):
        try:
            actions.append_summary(streams, report, os.environ)
        except OSError as error:
            streams.note(f"the summary of the step cannot be written: {error.strerror}", "warning")


def show_document(facts: dict[str, Any]) -> None:
    """Show what is no report under a report's keys."""
    if current().output is Output.JSON:
        empty: dict[str, Any] = {
            "outcome": "ok",
            "database": None,
            "migrations": [],
            "indexes": [],
            "seconds": 0.0,
            "error": None,
        }
        current().result_json({**empty, **facts})


def pretty(document: dict[str, Any]) -> str:
    """Write a document for people as well; every character is ASCII, so that any stream can hold it."""
    import json

    return json.dumps(document, indent=2)
