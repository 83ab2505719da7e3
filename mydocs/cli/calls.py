"""What commands have in common: settings in, one call, a result out. Drivers are imported when the call is made."""

import os
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from mydocs.cli.options import Common
from mydocs.cli.streams import Output, current

if TYPE_CHECKING:  # help and `list` start without them
    from mydocs.migrations.report import RunReport
    from mydocs.migrations.settings import Flags, Settings


def report(common: Common, text: str, name: str, *arguments: Any, **options: Any) -> Any:
    """
    Make the one call of a command that ends in a report.

    :param text: the function of `render` that shows the report as text
    :param name: module and function below `mydocs.migrations`, as it must not be imported before it is called
    """
    from mydocs.cli import render

    current().render = getattr(render, text)
    return call(common, lambda db, to: function(name)(db, *arguments, **options, **to))


def call(common: Common, act: Callable[[Any, dict[str, Any]], Awaitable[Any]]) -> Any:
    """Await something on the database; the second argument holds what all calls with a report take."""
    streams, chosen = current(), settings(common)
    streams.secrets = chosen.secrets
    from mydocs.cli import connect, live

    with live.view(streams) as view:
        return connect.call(
            chosen, streams, view, lambda db, sink: act(db, {"directory": chosen.directory, "on_event": sink})
        )


def function(name: str) -> Any:
    """Import a function of the migrations, named ``module.function``."""
    from importlib import import_module

    module, _, attribute = name.partition(".")
    return getattr(import_module(f"mydocs.migrations.{module}"), attribute)


def show(result: "RunReport") -> None:
    """Write a report to stdout, in the form that was asked for."""
    streams = current()
    if streams.output is Output.TABLE and streams.render is not None:
        streams.result(streams.clean(streams.render(result)))
    elif streams.output is Output.JSON:
        from mydocs.migrations.report import to_json

        streams.result_json(to_json(result))


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
