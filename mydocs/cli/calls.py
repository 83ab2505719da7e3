"""What commands have in common: settings in, one call, a result out. Drivers are imported when the call is made."""

import os
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from mydocs.cli import actions
from mydocs.cli.options import Common
from mydocs.cli.streams import Output, Streams, current

if TYPE_CHECKING:  # help and `list` start without them
    from mydocs.cli.report_file import ReportFile
    from mydocs.migrations.reporting.events import Sink
    from mydocs.migrations.reporting.report import RunReport
    from mydocs.migrations.settings import Flags, Settings


def report(
    common: Common, text: str, name: str, *arguments: Any, file: "ReportFile | None" = None, **options: Any
) -> Any:
    """
    Make the one call of a command that ends in a report.

    :param text: the function of `render` that shows the report as text
    :param name: module and function below `mydocs.migrations`, as it must not be imported before it is called
    :param file: what `--report` named
    """
    from mydocs.cli import render

    streams = current()
    streams.render = getattr(render, text)
    if file is not None:
        streams.also.append(partial(file.write, streams))
    watchers = () if file is None else (file.recorder.take,)
    return call(common, lambda db, to: function(name)(db, *arguments, **options, **to), *watchers)


def call(common: Common, act: Callable[[Any, dict[str, Any]], Awaitable[Any]], *watchers: "Sink") -> Any:
    """
    Await something on the database; the second argument holds what all calls with a report take.

    :param watchers: take the call's events, besides the operator's view
    """
    streams, chosen = current(), settings(common)
    streams.secrets = chosen.secrets
    from mydocs.cli import connect, live
    from mydocs.migrations.reporting.sinks import fan_out

    with live.view(streams) as view:
        sink = fan_out(*watchers, view) if watchers else view
        return connect.call(
            chosen, streams, sink, lambda db, sink: act(db, {"directory": chosen.directory, "on_event": sink})
        )


def function(name: str) -> Any:
    """Import a function of the migrations, named ``module.function``."""
    from importlib import import_module

    module, _, attribute = name.rpartition(".")
    return getattr(import_module(f"mydocs.migrations.{module}"), attribute)


def show(result: "RunReport") -> None:
    """Write a report to stdout, in the form that was asked for."""
    streams = current()
    pass_on(streams, result)
    if streams.output is Output.TABLE and streams.render is not None:
        streams.result(streams.clean(streams.render(result)))
    elif streams.output is Output.JSON:
        from mydocs.migrations.reporting.report import to_json

        streams.result_json(to_json(result))


def pass_on(streams: Streams, result: "RunReport") -> None:
    """Give a report to those besides stdout: the file of `--report`, and the summary of a workflow's step."""
    for take in streams.also:
        take(result)
    if actions.is_on(os.environ):
        try:
            actions.append_summary(streams, result, os.environ)
        except OSError as error:
            streams.note(f"warning: the summary of the step cannot be written: {error.strerror}", "warning")


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


def report_file(name: str | None, command: str) -> "ReportFile | None":
    """Take what --report says, before anything runs."""
    if name is None:
        return None
    from mydocs.cli import report_file as files

    return files.report_file(name, command)


def flags(common: Common) -> "Flags":
    """Return what the command line says about the database and the scripts."""
    from mydocs.migrations.settings import Flags

    return Flags(url=common.url, db=common.db, dir=common.dir, env_file=common.env_file, local=common.local)


def settings(common: Common) -> "Settings":
    """Decide the settings of this invocation."""
    from mydocs.migrations.settings import load_settings

    return load_settings(flags(common), os.environ)


def duration(text: str, option: str) -> float:
    """Read a duration; 0 is 0."""
    from mydocs.migrations.settings import parse_duration

    return parse_duration(text, option)


def limit(text: str, option: str) -> float | None:
    """Read a duration of which 0 means no limit."""
    from mydocs.migrations.settings import parse_limit

    return parse_limit(text, option)


def usage(sentence: str) -> Exception:
    """Make the error for options that do not go together."""
    from mydocs.migrations.errors import SettingsInvalid

    return SettingsInvalid(sentence)
