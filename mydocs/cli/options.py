"""Declare the options that every command has. No I/O."""

import functools
import inspect
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Annotated, Any, get_args, get_type_hints

import typer

from mydocs.cli.streams import LogFormat, Output, current
from mydocs.migrations.values import value

URL_HELP = "Connection string. Environment: MONGO_URL; the login: MONGO_USER, MONGO_PASSWORD."


@value
class Common:
    """The options of the database, the scripts and the output, given before or after the subcommand."""

    url: Annotated[
        str | None,
        typer.Option("--url", metavar="URL", help=URL_HELP, show_default=False),
    ] = None
    db: Annotated[
        str | None,
        typer.Option("--db", metavar="NAME", help="Database. Environment: MONGO_DB_NAME; else the URL's path."),
    ] = None
    dir: Annotated[
        str | None,
        typer.Option(
            "--dir", metavar="PATH", help="Folder of the scripts (migrations). Environment: MYDOCS_MIGRATIONS_DIR."
        ),
    ] = None
    env_file: Annotated[
        str | None, typer.Option("--env-file", metavar="FILE", help="Read variables that are not set from this file.")
    ] = None
    local: Annotated[
        bool, typer.Option("--local", help="Use a local server in .mydocs, not MongoDB: to try things without one.")
    ] = False
    output: Annotated[Output | None, typer.Option("--output", "-o", help="What stdout gets (table).")] = None
    log_format: Annotated[LogFormat | None, typer.Option("--log-format", help="How lines on stderr look (text).")] = (
        None
    )
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Diagnostics and tracebacks on stderr.")] = False


OF_A_DATABASE = frozenset({"url", "db", "local"})
_NAMES = tuple(field.name for field in fields(Common))
_HINTS = get_type_hints(Common, include_extras=True)
_PARAMETERS = tuple(
    inspect.Parameter(
        field.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=field.default,
        annotation=_HINTS[field.name],
    )
    for field in fields(Common)
)


def with_common(function: Callable[..., Any]) -> Callable[..., Any]:
    """
    Replace a command's first parameter by the common options.

    A value given to a group counts if the command itself got none.
    """
    return _with(function, _PARAMETERS)


def with_common_but_no_database(function: Callable[..., Any]) -> Callable[..., Any]:
    """Do the same for a command without a database: it accepts the options of a database, but does not show them."""
    return _with(function, tuple(_hidden(one) if one.name in OF_A_DATABASE else one for one in _PARAMETERS))


def _hidden(parameter: inspect.Parameter) -> inspect.Parameter:
    kind, option = get_args(parameter.annotation)
    return parameter.replace(annotation=Annotated[kind, typer.Option(*option.param_decls, hidden=True)])


def _with(function: Callable[..., Any], common: tuple[inspect.Parameter, ...]) -> Callable[..., Any]:
    own = list(inspect.signature(function).parameters.values())[1:]
    context = inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)

    @functools.wraps(function)
    def command(context: typer.Context, **values: Any) -> Any:
        given = Common(**{name: values.pop(name) for name in _NAMES})
        current().command = context.command_path
        return function(_merged(context, given), **values)

    keyword_only = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own]
    parameters = [context, *keyword_only, *common]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # Typer reads it
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    del command.__wrapped__  # otherwise Typer reads the original's annotations
    return command


def keep_common(context: typer.Context, **values: Any) -> None:
    """Store the options of a group for the command that follows. This is a group's callback."""
    context.obj = Common(**values)
    if context.invoked_subcommand is None:
        say_help(context)


def say_help(context: typer.Context) -> None:
    """Answer a group without a command with its help, or with a JSON error if JSON was asked for."""
    if current().output is Output.JSON:
        from mydocs.migrations.errors import UsageError

        raise UsageError(f"no command; `{context.command_path} --help` names them")
    typer.echo(context.get_help(), err=True)
    raise typer.Exit(2)


keep_common.__signature__ = inspect.Signature(  # type: ignore[attr-defined]  # Typer reads it
    [
        inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context),
        *_PARAMETERS,
    ]
)
keep_common.__annotations__ = {
    "context": typer.Context,
    **{parameter.name: parameter.annotation for parameter in _PARAMETERS},
}


def _merged(context: typer.Context, given: Common) -> Common:
    outer = context.obj
    if not isinstance(outer, Common):
        return given
    return replace(given, **{name: getattr(given, name) or getattr(outer, name) for name in _NAMES})
