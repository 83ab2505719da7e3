"""Test single values, as parts of a filter. Pure."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from bson.binary import Binary
from bson.max_key import MaxKey
from bson.min_key import MinKey
from bson.regex import Regex

from mydocs.localserver.errors import CommandError
from mydocs.localserver.query.expressions.core import truthy
from mydocs.localserver.query.regexes import compile_regex
from mydocs.localserver.query.values import (
    MISSING,
    Rank,
    compare,
    encode_key,
    equal,
    is_nan,
    is_number,
    rank,
    to_decimal,
    to_int,
    type_aliases,
    type_name,
)

Single: TypeAlias = Callable[[Any], bool]
Values: TypeAlias = Callable[[bool], Iterable[tuple[Any, int | None]]]
"""The values of a path, with offsets; the argument says whether an array at its end is expanded."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """
    A test of single values. One value that passes is enough.

    :param index: the position in an array at which the test passed, for ``$elemMatch``
    """

    single: Single
    expand: bool = True
    index: Callable[[Any], int | None] | None = None

    def test(self, values: Values) -> bool:
        return any(self.single(value) for value, _ in values(self.expand))

    def offset(self, values: Values) -> int | None:
        for value, offset in values(self.expand):
            if self.single(value):
                return self.index(value) if offset is None and self.index else offset
        return None


@dataclass(frozen=True, slots=True)
class Not:
    """Passes if not all of the tests pass."""

    tests: Sequence["Leaf | Not"]

    @property
    def single(self) -> Single:
        """Return the test of the one value of a path without arrays."""
        singles = [test.single for test in self.tests]
        if len(singles) == 1:  # the usual case, tested for every document
            (only,) = singles
            return lambda value: not only(value)
        return lambda value: not all(passes(value) for passes in singles)

    def test(self, values: Values) -> bool:
        return not all(test.test(values) for test in self.tests)

    def offset(self, values: Values) -> int | None:
        return None


def is_operators(value: Any) -> bool:
    """Return whether a value is a document of operators: its first field begins with ``$``."""
    return isinstance(value, Mapping) and next(iter(value), "").startswith("$")


def regex_leaf(pattern: Any, options: Any = None) -> Leaf:
    """Test strings by a regular expression. A value that is the same expression passes, too."""
    compiled = compile_regex(pattern, options)

    def matches(value: Any) -> bool:
        if isinstance(value, str):
            return compiled.search(value) is not None
        return isinstance(value, Regex) and value.pattern == compiled.pattern and _same_flags(value, compiled.flags)

    return Leaf(matches)


def _same_flags(value: Regex[Any], flags: int) -> bool:
    shown = 2 | 8 | 16 | 64  # re.I, re.M, re.S, re.X: the flags that BSON stores
    return value.flags & shown == flags & shown


COMPARISONS: Mapping[str, Callable[[int], bool]] = {
    "$eq": lambda order: order == 0,
    "$lt": lambda order: order < 0,
    "$lte": lambda order: order <= 0,
    "$gt": lambda order: order > 0,
    "$gte": lambda order: order >= 0,
}


def comparison(operator: str, wanted: Any) -> Single:
    """Compare within one type only. Null equals missing (expression_leaf.cpp, ComparisonMatchExpression)."""
    holds = COMPARISONS[operator]
    kind = rank(wanted)
    with_equal = operator in ("$eq", "$lte", "$gte")
    if kind == Rank.NULL:
        return lambda value: with_equal and (value is None or value is MISSING)
    if operator == "$eq":
        return lambda value: equal(value, wanted)
    if isinstance(wanted, MinKey | MaxKey):
        upwards = isinstance(wanted, MinKey) == operator.startswith("$gt")
        return lambda value: with_equal if rank(value) == kind else upwards
    if kind == Rank.NUMBER and is_nan(wanted):
        return lambda value: with_equal and is_nan(value)

    def matches(value: Any) -> bool:
        if rank(value) != kind or (kind == Rank.NUMBER and is_nan(value)):
            return False
        return holds(compare(value, wanted))

    return matches


def one_of(wanted: Any) -> Leaf:
    """Test whether a value equals one of several, or matches a regular expression among them."""
    if not isinstance(wanted, list):
        raise CommandError(2, "$in needs an array")
    if any(is_operators(value) for value in wanted):
        raise CommandError(2, "cannot nest $ under $in")
    keys = {encode_key(value) for value in wanted}
    regexes = [regex_leaf(value).single for value in wanted if isinstance(value, Regex)]
    with_null = None in wanted

    def matches(value: Any) -> bool:
        if value is MISSING:
            return with_null
        return encode_key(value) in keys or any(regex(value) for regex in regexes)

    return Leaf(matches)


def _exists(_: str, value: Any) -> Leaf | Not:
    present = Leaf(lambda found: found is not MISSING)
    return present if truthy(value) else Not([present])


def _type(_: str, value: Any) -> Leaf:
    wanted: frozenset[str] = frozenset()
    if isinstance(value, list) and not value:
        raise CommandError(9, "$type must match at least one type")
    for alias in value if isinstance(value, list) else [value]:
        wanted |= type_aliases(alias)
    return Leaf(lambda found: type_name(found) in wanted)


def _size(_: str, value: Any) -> Leaf:
    size = to_int(value)
    if size is None:
        raise CommandError(2, f"Failed to parse $size. Expected an integer in: $size: {value!r}")
    if size < 0:
        raise CommandError(2, f"Failed to parse $size. Expected a non-negative number in: $size: {value!r}")
    return Leaf(lambda found: isinstance(found, list) and len(found) == size, expand=False)


def _truncated(value: Any) -> int | None:
    if not is_number(value):
        return None
    number = to_decimal(value)
    return int(number) if number.is_finite() else None


def _mod(_: str, value: Any) -> Leaf:
    if not isinstance(value, list):
        raise CommandError(2, "malformed mod, needs to be an array")
    if len(value) != 2:
        raise CommandError(2, f"malformed mod, {'not enough' if len(value) < 2 else 'too many'} elements")
    divisor, remainder = _truncated(value[0]), _truncated(value[1])
    if divisor is None or remainder is None:
        raise CommandError(2, "malformed mod, divisor and remainder have to be numbers")
    if divisor == 0:
        raise CommandError(2, "divisor cannot be 0")

    def matches(found: Any) -> bool:
        number = _truncated(found)
        if number is None:
            return False
        # The remainder has the sign of the dividend, as in C.
        rest = abs(number) % abs(divisor)
        return (-rest if number < 0 else rest) == remainder

    return Leaf(matches)


NO_BIT = 2**27  # no value of a 16 MiB document has so many bits, so all bits from here on are alike


def _bits(name: str, value: Any) -> Leaf:
    if isinstance(value, list):
        positions = [to_int(position) for position in value]
        if any(position is None or not 0 <= position < 2**31 for position in positions):
            raise CommandError(2, f"bit positions must be non-negative integers of 32 bits in: {name}")
        mask = sum(1 << position for position in {min(position or 0, NO_BIT) for position in positions})
    elif isinstance(value, bytes):
        mask = int.from_bytes(value, "little")
    else:
        number = to_int(value)
        if number is None or number < 0:
            raise CommandError(9, f"Expected a non-negative number in: {name}: {value!r}")
        mask = number

    def matches(found: Any) -> bool:
        bits = int.from_bytes(found, "little") if isinstance(found, bytes | Binary) else to_int(found)
        if bits is None:
            return False
        chosen = bits & mask
        match name:
            case "$bitsAllSet":
                return chosen == mask
            case "$bitsAllClear":
                return chosen == 0
            case "$bitsAnySet":
                return chosen != 0
            case _:
                return chosen != mask

    return Leaf(matches)


LEAVES: Mapping[str, Callable[[str, Any], Leaf | Not]] = {
    "$exists": _exists,
    "$type": _type,
    "$size": _size,
    "$mod": _mod,
    "$bitsAllSet": _bits,
    "$bitsAllClear": _bits,
    "$bitsAnySet": _bits,
    "$bitsAnyClear": _bits,
}
