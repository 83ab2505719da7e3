"""
Commands that start quickly. No I/O.

Typer 0.29 checks every option's value with pydantic, also a text or one that was not given, and importing that takes
longer than `list` does. So the plain kinds of values are converted here; others, and other versions of Typer, go their
own way.
"""

from collections.abc import Sequence
from enum import Enum
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

# Typer brings its own copy of click or uses the package, depending on its version; this name exists either way.
CLICK_ERROR: type[Exception] = typer.BadParameter.__mro__[2]
NEAR = 0.7  # of difflib: one letter wrong, missing or swapped in a short word


class LightCommand(TyperCommand):
    """A command whose texts and choices need no pydantic."""

    def get_params(self, ctx: Any) -> Any:
        """Return the parameters, --help with them, with their light conversions."""
        return lighten(super().get_params(ctx))


class LightGroup(TyperGroup):
    """A group whose texts and choices need no pydantic, and which suggests commands that are near, or deeper down."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command that was named, or say which one is like it."""
        self.suggest_commands = False  # Typer's also takes what is not near
        try:
            return super().resolve_command(ctx, args)
        except CLICK_ERROR as error:
            near = self._near(ctx.command_path, args[0]) if args else []
            if near and hasattr(error, "message"):
                error.message = f"{str(error.message).rstrip('.')}. Did you mean {' or '.join(near)}?"
            raise

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """List the commands, each with all of its first sentence: cut off, several said nothing."""
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        rows = [(name, one.get_short_help_str(limit=1_000)) for name, one in commands if one is not None]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def _near(self, path: str, word: str) -> list[str]:
        """Name commands of this group that are spelt like a word, or those of its groups that are spelt so."""
        from difflib import get_close_matches

        found = [f"'{name}'" for name in get_close_matches(word, list(self.commands), cutoff=NEAR)]
        deeper = [
            f"'{path} {group} {word}'"
            for group, command in self.commands.items()
            if word in getattr(command, "commands", ())
        ]
        return deeper or found

    def get_params(self, ctx: Any) -> Any:
        """Return the parameters, --help with them, with their light conversions."""
        return lighten(super().get_params(ctx))


class Conversion:
    """Stands in for Typer's conversion of one parameter."""

    def __init__(self, annotation: Any, typers_own: Any) -> None:
        self._annotation = annotation
        self._typers_own = typers_own

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        """Return the value as its command takes it, or raise what Typer turns into a usage error."""
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
    """Give each parameter of Typer 0.29 its conversion; Typer keeps it in a field that it would fill at first use."""
    for param in params:
        if getattr(param, "_runtime_param", param) is None:
            if param.param_type_name == "argument":
                param.display_type_rich = lambda ctx: ""  # `VERSION` says it, and `<list[str]>` says nothing
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
