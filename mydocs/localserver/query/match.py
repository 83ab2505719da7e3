"""Compile a filter to a predicate of documents. Pure."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any, Protocol

import bson
from bson.regex import Regex

from mydocs.localserver.errors import CommandError, NotKnown
from mydocs.localserver.query.expressions import compile_expression, truthy
from mydocs.localserver.query.json_schema import compile_schema
from mydocs.localserver.query.match_leaves import (
    COMPARISONS,
    LEAVES,
    Leaf,
    Not,
    Single,
    comparison,
    is_operators,
    one_of,
    regex_leaf,
)
from mydocs.localserver.query.values import MISSING, as_document, equal, split_path, to_int, type_name, walk

__all__ = ["compile_filter", "find_positional", "is_operators"]


class Node(Protocol):
    """A part of a filter: a test of documents that can tell which array elements passed it."""

    def matches(self, document: Mapping[str, Any]) -> bool: ...

    def positions(self, document: Mapping[str, Any]) -> Iterator[tuple[str, int]]: ...


@dataclass(frozen=True, slots=True)
class Field:
    """Tests of the values of one path; ``plain`` are the same tests for a path without arrays, which has one value."""

    path: str
    parts: Sequence[str]
    tests: Sequence[Leaf | Not]
    plain: Sequence[Single] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "plain", tuple(test.single for test in self.tests))

    def matches(self, document: Mapping[str, Any]) -> bool:
        if len(self.parts) == 1:
            value = document.get(self.path, MISSING)
            if not isinstance(value, list):  # the usual case; a full walk takes several times as long
                for passes in self.plain:  # noqa: SIM110  # runs for every document, as in `compile_filter`
                    if not passes(value):
                        return False
                return True

        def values(expand: bool) -> Iterable[tuple[Any, int | None]]:
            return walk(document, self.parts, expand=expand)

        return all(test.test(values) for test in self.tests)

    def positions(self, document: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
        for test in self.tests:
            offset = test.offset(lambda expand: walk(document, self.parts, expand=expand))
            if offset is not None:
                yield self.path, offset


@dataclass(frozen=True, slots=True)
class Group:
    """Filters under ``$and``, ``$or`` or ``$nor``."""

    operator: str
    branches: Sequence[Sequence[Node]]

    def matches(self, document: Mapping[str, Any]) -> bool:
        passed = (all(node.matches(document) for node in branch) for branch in self.branches)
        if self.operator == "$and":
            return all(passed)
        return any(passed) == (self.operator == "$or")

    def positions(self, document: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
        if self.operator == "$nor":
            return
        for branch in self.branches:
            if all(node.matches(document) for node in branch):
                for node in branch:
                    yield from node.positions(document)
                if self.operator == "$or":
                    return


@dataclass(frozen=True, slots=True)
class Whole:
    """A test of the whole document, such as ``$expr``."""

    predicate: Callable[[Mapping[str, Any]], bool]

    def matches(self, document: Mapping[str, Any]) -> bool:
        return self.predicate(document)

    def positions(self, document: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
        yield from ()


@dataclass(frozen=True, slots=True)
class _Parser:
    variables: Mapping[str, Any]

    def nodes(self, query: Any) -> list[Node]:
        document = as_document(query)
        if document is None:
            raise CommandError(14, f"the filter has to be an object, not {type_name(query)}")
        return [node for key, value in document.items() for node in self.node(key, value)]

    def node(self, key: str, value: Any) -> Iterator[Node]:
        if not key.startswith("$"):
            yield Field(key, split_path(key), self.tests(key, value))
        elif key in ("$and", "$or", "$nor"):
            if not isinstance(value, list) or not value:
                raise CommandError(2, f"{key} must be a nonempty array")
            if any(as_document(branch) is None for branch in value):
                raise CommandError(2, f"{key} entries need to be full objects")
            yield Group(key, [self.nodes(branch) for branch in value])
        elif key == "$expr":
            plain = _fields_and_literals(value)
            if plain is not None:
                yield Whole(partial(_has, plain))
                return
            evaluate = compile_expression(value, names=self.variables)
            variables = self.variables
            yield Whole(lambda document: truthy(evaluate(dict(document), variables)))
        elif key == "$jsonSchema":
            yield Whole(compile_schema(value))
        elif key in ("$alwaysTrue", "$alwaysFalse"):
            if to_int(value) != 1:
                raise CommandError(9, f"{key} must be an integer value of 1")
            answer = key == "$alwaysTrue"
            yield Whole(lambda _: answer)
        elif key != "$comment":
            raise NotKnown(f"{key} in a filter")

    def tests(self, path: str, value: Any) -> list[Leaf | Not]:
        if isinstance(value, Regex):
            return [regex_leaf(value)]
        if is_operators(value):
            return self.operators(path, value)
        return [Leaf(comparison("$eq", value))]

    def operators(self, path: str, document: Mapping[str, Any]) -> list[Leaf | Not]:
        found: list[Leaf | Not] = []
        for name, value in document.items():
            if name == "$options":
                if "$regex" not in document:
                    raise CommandError(2, "$options needs a $regex")
                if not isinstance(value, str):
                    raise CommandError(2, "$options has to be a string")
            elif name == "$regex":
                found.append(regex_leaf(value, document.get("$options")))
            elif name in COMPARISONS or name == "$ne":
                if isinstance(value, Regex) and name == "$ne":
                    raise CommandError(2, "Can't have regex as arg to $ne.")
                if isinstance(value, Regex) and name != "$eq":
                    raise CommandError(2, f"Can't have RegEx as arg to predicate over field '{path}'.")
                leaf = Leaf(comparison("$eq" if name == "$ne" else name, value))
                found.append(Not([leaf]) if name == "$ne" else leaf)
            elif name in ("$in", "$nin"):
                found.append(one_of(value) if name == "$in" else Not([one_of(value)]))
            elif name == "$not":
                found.append(Not(self._not(path, value)))
            elif name == "$all":
                found.extend(self._all(path, value))
            elif name == "$elemMatch":
                found.append(self._elem_match(path, value))
            elif name in LEAVES:
                found.append(LEAVES[name](name, value))
            elif name.startswith("$"):
                raise NotKnown(f"{name} in a filter")
            else:
                raise CommandError(2, f"unknown operator: {name}")
        return found

    def _not(self, path: str, value: Any) -> list[Leaf | Not]:
        if isinstance(value, Regex):
            return [regex_leaf(value)]
        document = as_document(value)
        if document is None:
            raise CommandError(2, "$not needs a regex or a document")
        if not document:
            raise CommandError(2, "$not cannot be empty")
        return self.operators(path, document)

    def _all(self, path: str, value: Any) -> list[Leaf | Not]:
        if not isinstance(value, list):
            raise CommandError(2, "$all needs an array")
        if not value:
            return [Leaf(lambda _: False)]
        found: list[Leaf | Not] = []
        nested = [is_operators(entry) and "$elemMatch" in entry for entry in value]
        for entry, is_elem_match in zip(value, nested, strict=True):
            if is_elem_match and nested[0]:
                found.append(self._elem_match(path, entry["$elemMatch"]))
            elif is_operators(entry) or nested[0]:
                raise CommandError(2, "no $ expressions in $all")
            else:
                found.append(regex_leaf(entry) if isinstance(entry, Regex) else Leaf(comparison("$eq", entry)))
        return found

    def _elem_match(self, path: str, value: Any) -> Leaf:
        condition = as_document(value)
        if condition is None:
            raise CommandError(2, "$elemMatch needs an Object")
        if is_operators(condition) and next(iter(condition)) not in ("$and", "$or", "$nor", "$expr", "$where"):
            tests = self.operators(path, condition)

            def element_matches(element: Any) -> bool:
                return all(test.test(lambda _: ((element, None),)) for test in tests)
        else:
            if "$expr" in condition:
                raise CommandError(2, "$expr can only be applied to the top-level document")
            nodes = self.nodes(condition)

            def element_matches(element: Any) -> bool:
                if isinstance(element, list):
                    element = {str(index): inner for index, inner in enumerate(element)}
                document = as_document(element)
                return document is not None and all(node.matches(document) for node in nodes)

        def index(value: Any) -> int | None:
            return next((at for at, element in enumerate(value) if element_matches(element)), None)

        return Leaf(lambda value: isinstance(value, list) and index(value) is not None, expand=False, index=index)


def _fields_and_literals(expression: Any) -> list[tuple[str, Any]] | None:
    """
    Return the pairs of ``{"$eq": ["$field", {"$literal": value}]}``, or an ``$and`` of such; ``None`` for all else.

    Guarded updates contain them by the thousand, each with other values, which would have to be compiled.
    """
    if type(expression) is not dict or len(expression) != 1:
        return None
    ((operator, sides),) = expression.items()
    if operator == "$and" and isinstance(sides, list) and sides:
        found = [_fields_and_literals(part) for part in sides]
        return None if None in found else [pair for pairs in found for pair in pairs or ()]
    if operator != "$eq" or not isinstance(sides, list) or len(sides) != 2:
        return None
    left, right = sides
    if type(left) is dict and len(left) == 1 and right == "missing":
        left, right = left.get("$type"), {"$literal": MISSING}
    if type(left) is not str or type(right) is not dict or len(right) != 1 or "$literal" not in right:
        return None
    if left == "$$ROOT":
        return None if right["$literal"] is MISSING else [("", right["$literal"])]
    name = left[1:]
    is_plain = left[:1] == "$" and name and "." not in name and name[0] != "$"
    return [(name, right["$literal"])] if is_plain else None


def _has(wanted: Sequence[tuple[str, Any]], document: Mapping[str, Any]) -> bool:
    """Return whether fields have exactly these values, ``MISSING`` for none. An empty name means the whole document."""
    for name, value in wanted:
        if not (equal(document.get(name, MISSING), value) if name else _is_same(document, value)):
            return False
    return True


def _is_same(document: Mapping[str, Any], value: Any) -> bool:
    if not isinstance(value, Mapping):
        return False
    # Equal bytes mean equal values, and are much faster to compare. Other bytes say nothing (1 and 1.0).
    encoded = _encoded(document)
    return (encoded is not None and encoded == _encoded(value)) or equal(document, value)


def _flat(nodes: Iterable[Node]) -> Iterator[Node]:
    """Flatten nested ``$and``."""
    for node in nodes:
        if isinstance(node, Group) and node.operator == "$and":
            for branch in node.branches:
                yield from _flat(branch)
        else:
            yield node


def _parse(query: Any, now: datetime | None, variables: Mapping[str, Any] | None) -> list[Node]:
    return _Parser({**(variables or {}), "NOW": now}).nodes(query)


def compile_filter(
    filter: Any,  # noqa: A002  # the command's own word
    *,
    now: datetime,
    variables: Mapping[str, Any] | None = None,
) -> Callable[[Mapping[str, Any]], bool]:
    """
    Return a predicate of documents.

    :param now: the value of ``$$NOW`` in ``$expr``
    :param variables: the command's ``let``, evaluated
    :raises CommandError: if the filter is not valid
    :raises NotKnown: if it contains an operator that is not implemented
    """
    nodes = [*_flat(_parse(filter, now, variables))]

    if len(nodes) == 1:
        return nodes[0].matches

    def matches(document: Mapping[str, Any]) -> bool:
        for node in nodes:  # noqa: SIM110  # runs for every document, and `all` takes half as long again
            if not node.matches(document):
                return False
        return True

    return matches


def _encoded(document: Mapping[str, Any]) -> bytes | None:
    """Return bytes that identify a document, or ``None`` if it cannot be encoded."""
    try:
        return bson.encode(document)
    except (bson.errors.BSONError, ValueError, OverflowError):
        return None


class Filters:
    """
    Compile the filters of one command.

    Statements that arrive by the thousand differ only in an `_id` and in the values that they compare. The last
    compiled rest of their filters is kept, by its bytes, since to Python 1, 1.0 and True are equal.
    """

    def __init__(self, now: datetime, variables: Mapping[str, Any] | None) -> None:
        self._now, self._variables = now, variables
        self._key: bytes | None = None
        self._common: Callable[[Mapping[str, Any]], bool] = lambda _: True

    def compiled(self, filter: Mapping[str, Any]) -> Callable[[Mapping[str, Any]], bool]:  # noqa: A002
        """
        Return the predicate of a filter.

        :raises CommandError: as `compile_filter`
        """
        rest = dict(filter)
        own = _fields_and_literals(rest.pop("$expr")) if "$expr" in rest else []
        if own is None:
            return compile_filter(filter, now=self._now, variables=self._variables)
        key = _encoded(rest)
        if key is None or key != self._key:
            self._common = compile_filter(rest, now=self._now, variables=self._variables)
            self._key = key
        common, compared = self._common, own
        if not compared:
            return common
        return lambda document: _has(compared, document) and common(document)


def find_positional(
    filter: Any,  # noqa: A002  # the command's own word
    document: Mapping[str, Any],
    path: str,
    *,
    now: datetime | None = None,
    variables: Mapping[str, Any] | None = None,
) -> int | None:
    """
    Return the index of ``$`` in an array at ``path``: that of the element by which the filter matched.

    :raises NotKnown: if the filter's conditions matched several elements; the server then takes the one that it
        tested last
    """
    found = {(place, offset) for node in _parse(filter, now, variables) for place, offset in node.positions(document)}
    own = {offset for place, offset in found if place == path or place.startswith(path + ".")}
    chosen = own or {offset for _, offset in found}
    if len(chosen) > 1:
        raise NotKnown(f"the positional operator '{path}.$' where the filter matches by several elements")
    return chosen.pop() if chosen else None
