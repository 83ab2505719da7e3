"""Define forms of values: a small language for the tables of the definitions. Pure."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NoReturn, TypeAlias

Form: TypeAlias = Callable[[str, Any], None]
"""Checks a value at a path; raises `Malformed`."""
Whole: TypeAlias = Callable[[str, Mapping[str, Any]], None]
"""A condition on a document as a whole."""


class Malformed(Exception):
    """A value does not have its form. The message names its path."""

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f'"{path}" {problem}')


def refuse(path: str, problem: str) -> NoReturn:
    raise Malformed(path, problem)


def words(names: str) -> tuple[str, ...]:
    """Split a text into names."""
    return tuple(names.split())


def text(*, empty: bool = False) -> Form:
    """Accept a string."""

    def form(path: str, value: Any) -> None:
        if not isinstance(value, str):
            refuse(path, "must be a string")
        if not empty and not value.strip():
            refuse(path, "cannot be empty")

    return form


def flag(path: str, value: Any) -> None:
    """Accept a boolean."""
    if not isinstance(value, bool):
        refuse(path, "must be a boolean")


def whole(low: int, high: int = 2**31 - 1) -> Form:
    """Accept a whole number within bounds, also as a double, from languages without integers."""

    def form(path: str, value: Any) -> None:
        number = isinstance(value, int | float) and not isinstance(value, bool) and value == value // 1
        if not number or not low <= value <= high:
            refuse(path, f"must be a whole number from {low} to {high}")

    return form


def one_of(*names: Any) -> Form:
    """Accept one of several values."""

    def form(path: str, value: Any) -> None:
        if value not in names:  # a tuple, since the value may not be hashable
            refuse(path, f"must be one of {list(names)}, not {value!r}")

    return form


def field_path(path: str, value: Any) -> None:
    """Accept the path of a field."""
    if not isinstance(value, str) or not value:
        refuse(path, "is required")


def listing(form: Form, *, filled: bool = False, unique: str | None = None) -> Form:
    """
    Accept an array.

    :param unique: a key whose values must differ between its documents
    """

    def check(path: str, value: Any) -> None:
        if not isinstance(value, list):
            refuse(path, "must be an array")
        if filled and not value:
            refuse(path, "must be an array and cannot be empty")
        for number, item in enumerate(value):
            form(f"{path}[{number}]", item)
        if unique is not None:
            twice = repeated(item[unique] for item in value)
            if twice is not None:
                refuse(path, f'must have unique values of "{unique}"; {twice!r} is there twice')

    return check


def repeated(values: Iterable[Any]) -> Any:
    """Return the first value that occurs a second time, or ``None``."""
    seen: list[Any] = []
    for value in values:
        if value in seen:
            return value
        seen.append(value)
    return None


def mapping(form: Form, *, filled: bool = False) -> Form:
    """Accept a document with any keys."""

    def check(path: str, value: Any) -> None:
        if not isinstance(value, Mapping):
            refuse(path, "must be a document")
        if filled and not value:
            refuse(path, "cannot be empty")
        for name, item in value.items():
            form(f"{path}.{name}", item)

    return check


def document(
    required: Mapping[str, Form], optional: Mapping[str, Form] | None = None, *, also: Whole | None = None
) -> Form:
    """Accept a document with known keys. A null counts as absent."""
    known = {**required, **(optional or {})}

    def check(path: str, value: Any) -> None:
        if not isinstance(value, Mapping):
            refuse(path, "must be a document")
        prefix = f"{path}." if path else ""
        for name in required:
            if value.get(name) is None:
                refuse(f"{prefix}{name}", "is required")
        for name, item in value.items():
            if name not in known:
                refuse(path or "definition", f'has an unrecognized field "{name}"')
            if item is not None:
                known[name](f"{prefix}{name}", item)
        if also is not None:
            also(path, value)

    return check


def typed(forms: Mapping[str, Form]) -> Form:
    """Accept a document whose ``type`` selects the form of the rest."""

    def check(path: str, value: Any) -> None:
        if not isinstance(value, Mapping):
            refuse(path, "must be a document")
        one_of(*forms)(f"{path}.type", value.get("type"))
        forms[value["type"]](path, {name: item for name, item in value.items() if name != "type"})

    return check
