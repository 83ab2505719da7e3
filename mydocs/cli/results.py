"""Write a result to all its places: stdout, the file of --report, the summary of a workflow's step. I/O."""

import os
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from mydocs.cli.streams import Output, Streams, current

if TYPE_CHECKING:  # a command without a database makes no report and must not import it
    from mydocs.migrations.reporting.report import RunReport


def show(report: "RunReport") -> None:
    """Write a report to stdout in the requested form, and to all other places."""
    streams = current()
    hand_out(streams, report)
    if streams.output is Output.TABLE and streams.render is not None:
        streams.result(rendered(streams, report))
    elif streams.output is Output.JSON:
        from mydocs.migrations.reporting.report import to_json

        streams.result_json(to_json(report))


def rendered(streams: Streams, report: "RunReport") -> str:
    """Return a report in the form of the present command."""
    with fitted_to(streams):
        return streams.redacted(streams.render(report)) if streams.render is not None else ""


def fitted_to(streams: Streams) -> AbstractContextManager[None]:
    """Make tables fit the terminal. If stdout is not one, they are as wide as necessary."""
    width = streams.width
    if width is None:
        return nullcontext()
    from mydocs.cli.tables import CUT, fitted

    return fitted(width, CUT[not streams.is_unicode], streams.redacted)


def hand_out(streams: Streams, report: "RunReport") -> None:
    """Write a report to all places except stdout."""
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
    """Show a result that is not a report, under the keys of a report."""
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
    """Format a document for people, too. Every character is ASCII, so that any stream can encode it."""
    import json

    return json.dumps(document, indent=2)
