"""Define the common parts of expressions: paths, variables, arguments, tables of functions. Pure."""

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from mydocs.localserver.errors import CommandError, NotKnown
from mydocs.localserver.query.values import MISSING, as_document, is_nan, is_number, split_path, to_decimal, type_name

Scope: TypeAlias = Mapping[str, Any]
Evaluate: TypeAlias = Callable[[Scope], Any]
Builder: TypeAlias = Callable[[str, Any, "Compiler"], Evaluate]
FunctionRow: TypeAlias = tuple[Callable[..., Any], int, int | None]
"""A function of values, and its number of arguments; ``None`` is any number."""

VARYING = frozenset({"$rand"})  # returns another value each time, although it reads nothing
SYSTEM_VARIABLES = frozenset({"ROOT", "CURRENT", "NOW", "REMOVE"})
_REFUSED_VARIABLES = frozenset(
    {"CLUSTER_TIME", "DESCEND", "PRUNE", "KEEP", "SEARCH_META", "USER_ROLES", "JS_SCOPE", "IS_MR"}
)
# Operators that MongoDB has and this server does not. They are refused as not implemented, all others as unrecognized.


def truthy(value: Any) -> bool:
    """Return whether a value counts as true: all except false, null, missing and zero."""
    if value is None or value is MISSING or value is False:
        return False
    return not is_number(value) or is_nan(value) or to_decimal(value) != 0


def nullish(value: Any) -> bool:
    """Return whether a value is null or missing."""
    return value is None or value is MISSING


class Compiler:
    """
    Compile expressions with known variables. If ``names`` is ``None``, the evaluation checks the variables.

    An expression without fields and variables is evaluated at once, as the server's optimizer does. So a constant that
    cannot be calculated is refused on an empty collection, too.
    """

    def __init__(
        self, operators: Mapping[str, Builder], names: frozenset[str] | None, reads: list[str] | None = None
    ) -> None:
        self._operators = operators
        self._names = names
        self._reads = [] if reads is None else reads  # all fields and variables so far, shared by all bound compilers

    def binding(self, *names: str) -> "Compiler":
        """Return a compiler with additional variables."""
        return Compiler(self._operators, None if self._names is None else self._names | set(names), self._reads)

    def literal_name(self, expression: Any) -> str | None:
        """Return the string value of a constant expression, or ``None`` if it is not one."""
        before = len(self._reads)
        evaluate = self.expression(expression)
        value = evaluate({}) if len(self._reads) == before else None
        return value if isinstance(value, str) else None

    def expression(self, expression: Any) -> Evaluate:
        """Compile any expression."""
        if isinstance(expression, str) and expression.startswith("$"):
            return self._variable(expression[2:]) if expression.startswith("$$") else self._field(expression[1:])
        if isinstance(expression, Mapping):
            return self._document(expression)
        if isinstance(expression, list):
            parts = [self.expression(part) for part in expression]
            return lambda scope: [None if (value := part(scope)) is MISSING else value for part in parts]
        return lambda _: expression

    def arguments(self, name: str, argument: Any, low: int, high: int | None) -> list[Evaluate]:
        """Compile the arguments of an operator: a list of them, or a single one."""
        given = argument if isinstance(argument, list) else [argument]
        if high == 0 and argument == {}:
            given = []
        if low == high and len(given) != low:
            raise CommandError(16020, f"Expression {name} takes exactly {low} arguments. {len(given)} were passed in.")
        if len(given) < low or (high is not None and len(given) > high):
            raise CommandError(
                28667,
                f"Expression {name} takes at least {low} arguments, and at most {high or 'any number'}, "
                f"but {len(given)} were passed in.",
            )
        return [self.expression(part) for part in given]

    def named(
        self, name: str, argument: Any, required: tuple[str, ...], optional: tuple[str, ...] = ()
    ) -> dict[str, Evaluate]:
        """Compile the named arguments of an operator."""
        self.check_named(name, argument, required, optional)
        return {key: self.expression(value) for key, value in argument.items()}

    @staticmethod
    def check_named(name: str, argument: Any, required: tuple[str, ...], optional: tuple[str, ...] = ()) -> None:
        """Refuse named arguments if one is unknown or absent."""
        if not isinstance(argument, Mapping):
            raise CommandError(9, f"{name} only supports an object as its argument, not {type_name(argument)}")
        for key in argument:
            if key not in required and key not in optional:
                raise CommandError(9, f"{name} found an unknown argument: {key}")
        for key in required:
            if key not in argument:
                raise CommandError(9, f"Missing '{key}' parameter to {name}")

    @staticmethod
    def check_variable(name: str) -> None:
        """Refuse a name that a user's variable must not have."""
        if not re.fullmatch(r"[a-z\x80-\U0010ffff][A-Za-z0-9_\x80-\U0010ffff]*", name) and name != "CURRENT":
            raise CommandError(9, f"'{name}' starts with an invalid character for a user variable name")

    def _variable(self, path: str) -> Evaluate:
        self._reads.append(path)
        name, *rest = split_path(path)
        if name in _REFUSED_VARIABLES:
            raise NotKnown(f"the variable $${name}")
        if self._names is not None and name not in self._names and name not in SYSTEM_VARIABLES:
            raise _undefined(name)
        if name == "REMOVE":
            return lambda _: MISSING
        _check_parts(rest)

        def evaluate(scope: Scope) -> Any:
            if name not in scope:
                raise _undefined(name)
            return evaluate_path(scope[name], rest)

        return evaluate

    def _field(self, path: str) -> Evaluate:
        self._reads.append(path)
        parts = split_path(path)
        _check_parts(parts)
        if len(parts) == 1:
            name = parts[0]

            def evaluate(scope: Scope) -> Any:
                current = scope["CURRENT"]
                return current.get(name, MISSING) if type(current) is dict else evaluate_path(current, parts)

            return evaluate
        return lambda scope: evaluate_path(scope["CURRENT"], parts)

    def _document(self, document: Mapping[str, Any]) -> Evaluate:
        first = next(iter(document), "")
        if first.startswith("$"):
            if len(document) != 1:
                raise CommandError(
                    15983,
                    f"An object representing an expression must have exactly one field: {dict(document)}",
                )
            builder = self._operators.get(first)
            if builder is not None:
                before = len(self._reads)
                evaluate = builder(first, document[first], self)
                if len(self._reads) > before or first in VARYING:
                    return evaluate
                value = evaluate({})
                return lambda _: value
            raise NotKnown(f"the expression {first}")
        for key in document:
            if key.startswith("$"):
                raise CommandError(16410, f"FieldPath field names may not start with '$'. Given '{key}'.")
            if "." in key:
                raise CommandError(16412, f"FieldPath field names may not contain '.'. Given '{key}'.")
        parts = {key: self.expression(value) for key, value in document.items()}
        return lambda scope: {key: value for key, part in parts.items() if (value := part(scope)) is not MISSING}


def _undefined(name: str) -> CommandError:
    return CommandError(17276, f"Use of undefined variable: {name}")


def _check_parts(parts: list[str]) -> None:
    for part in parts:
        if not part:
            raise CommandError(15998, "FieldPath field names may not be empty strings.")
        if part.startswith("$"):
            raise CommandError(16410, f"FieldPath field names may not start with '$'. Given '{part}'.")


def evaluate_path(value: Any, parts: list[str]) -> Any:
    """Follow a field path. In an array it is followed in every element, and numbers are field names."""
    for place, part in enumerate(parts):
        if isinstance(value, list):
            rest = parts[place:]
            found = [evaluate_path(element, rest) for element in value if as_document(element) is not None]
            return [element for element in found if element is not MISSING]
        holder = as_document(value)
        if holder is None:
            return MISSING
        value = holder.get(part, MISSING)
    return value


def functions(table: Mapping[str, FunctionRow], *, null: bool = False) -> dict[str, Builder]:
    """
    Return the builders of a table of functions.

    :param null: the result is null if an argument is null or missing
    """

    def build(function: Callable[..., Any], low: int, high: int | None) -> Builder:
        def builder(name: str, argument: Any, compiler: Compiler) -> Evaluate:
            parts = compiler.arguments(name, argument, low, high)

            def evaluate(scope: Scope) -> Any:
                values = [part(scope) for part in parts]
                if null and any(nullish(value) for value in values):
                    return None
                return function(*values)

            return evaluate

        return builder

    return {name: build(*row) for name, row in table.items()}


def named_functions(
    table: Mapping[str, tuple[Callable[..., Any], tuple[str, ...], tuple[str, ...]]],
) -> dict[str, Builder]:
    """Return the builders of functions that take named arguments: function, required names, optional names."""

    def build(function: Callable[..., Any], required: tuple[str, ...], optional: tuple[str, ...]) -> Builder:
        def builder(name: str, argument: Any, compiler: Compiler) -> Evaluate:
            parts = compiler.named(name, argument, required, optional)
            return lambda scope: function(**{_keyword(key): part(scope) for key, part in parts.items()})

        return builder

    return {name: build(*row) for name, row in table.items()}


def _keyword(name: str) -> str:
    # Argument names are the server's. Names that Python reserves, or ruff refuses, get a "_".
    return {"input": "value", "format": "pattern", "as": "as_", "in": "in_"}.get(name, name)


def wrong_type(name: str, wanted: str, value: Any, code: int) -> CommandError:
    """Return the error for an argument of the wrong type."""
    return CommandError(code, f"{name} requires {wanted}, found: {type_name(value)}")
