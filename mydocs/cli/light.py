"""
Make commands start quickly. No I/O.

Typer 0.29 checks every option's value with pydantic, even a text or an absent one. The import of pydantic takes longer
than the whole `list`. So the simple types are converted here. Other types, and other versions of Typer, use Typer's own
conversion.
"""

from collections.abc import Sequence
from enum import Enum
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

# Typer brings its own copy of click or uses the package, depending on its version. This name exists in both cases.
CLICK_ERROR: type[Exception] = typer.BadParameter.__mro__[2]
NEAR = 0.7  # ratio of difflib: one letter wrong, missing or swapped in a short word


class LightCommand(TyperCommand):
    """A command whose texts and choices need no pydantic."""

    def get_params(self, ctx: Any) -> Any:
        """Return the parameters, including --help, with their light conversions."""
        return lighten(super().get_params(ctx))


class LightGroup(TyperGroup):
    """A group whose texts and choices need no pydantic. It suggests similar commands, also those of subgroups."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the named command, or raise an error that suggests a similar one."""
        self.suggest_commands = False  # Typer also suggests names that are not similar
        try:
            return super().resolve_command(ctx, args)
        except CLICK_ERROR as error:
            near = self._near(ctx.command_path, args[0]) if args else []
            if near and hasattr(error, "message"):
                error.message = f"{str(error.message).rstrip('.')}. Did you mean {' or '.join(near)}?"
            raise

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """List the commands with their whole first sentences; cut off, several would be useless."""
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        rows = [(name, one.get_short_help_str(limit=1_000)) for name, one in commands if one is not None]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def _near(self, path: str, word: str) -> list[str]:
        """Return the commands of this group, or of its groups, that are spelt like a word."""
        from difflib import get_close_matches

        found = [f"'{name}'" for name in get_close_matches(word, list(self.commands), cutoff=NEAR)]
        deeper = [
            f"'{path} {group} {word}'"
            for group, command in self.commands.items()
            if word in getattr(command, "commands", ())
        ]
        return deeper or found

    def get_params(self, ctx: Any) -> Any:
        """Return the parameters, including --help, with their light conversions."""
        return lighten(super().get_params(ctx))


class Conversion:
    """Replace Typer's conversion of one parameter."""

    def __init__(self, annotation: Any, typers_own: Any) -> None:
        self._annotation = annotation
        self._typers_own = typers_own

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        """Return the value in the type of its command, or raise an error that Typer turns into a usage error."""
        if value is None:
            return () if param.multiple or param.nargs == -1 else None
        if self._annotation is str and isinstance(value, str):
            return value
        if self._annotation == list[str] and isinstance(value, list | tuple):
            return [str(item) for item in value]
        if isinstance(self._annotation, type) and issubclass(self._annotation, Enum):
            return _choice(self._annotation, value, param, ctx)
        param._runtime_param = None  # noqa: SLF001  # see lighten()
        return self._typers_own().coerce(value, param=param, ctx=ctx)


def lighten(params: Sequence[Any]) -> Sequence[Any]:
    """Give each parameter of Typer 0.29 its conversion, in the field that Typer fills at first use."""
    for param in params:
        if getattr(param, "_runtime_param", param) is None:
            if param.param_type_name == "argument":
                param.display_type_rich = lambda ctx: ""  # `VERSION` is enough; `<list[str]>` does not help
            param._runtime_param = Conversion(param.type_descriptor.annotation, param.get_runtime_param)  # noqa: SLF001
    return params


def _choice(kind: type[Enum], value: Any, param: Any, ctx: Any) -> Enum:
    if isinstance(value, kind):
        return value
    for member in kind:
        if member.value == value:
            return member
    known = ", ".join(f"'{member.value}'" for member in kind)
    raise typer.BadParameter(f"'{value}' is not one of {known}.", ctx=ctx, param=param)
