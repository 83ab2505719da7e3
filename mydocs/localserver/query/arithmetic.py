"""Calculate with BSON numbers, with the result types of the server. Pure."""

import decimal
import functools
import math
from collections.abc import Callable
from typing import Any, Final

from bson.decimal128 import Decimal128, create_decimal128_context
from bson.int64 import Int64

from mydocs.localserver.errors import CommandError, NotKnown
from mydocs.localserver.query.values import is_number, to_decimal, type_name

INT, LONG, DOUBLE, DECIMAL = 0, 1, 2, 3
_KINDS: Final = {"int": INT, "long": LONG, "double": DOUBLE, "decimal": DECIMAL}
_CONTEXT = create_decimal128_context()


def number_kind(value: Any) -> int:
    """Return the rank of a number's type in the order int, long, double, decimal, in which results widen."""
    return _KINDS[type_name(value)]


def integer(value: int, kind: int) -> int:
    """Return a whole number as an int, or as a long if it is one already or does not fit 32 bits."""
    return value if kind == INT and -(2**31) <= value < 2**31 else Int64(value)


def calculate(
    a: Any,
    b: Any,
    exact: Callable[[int, int], int],
    floating: Callable[[Any, Any], Any],
    *,
    overflow: str | None = None,
) -> Any:
    """
    Apply an operation to two numbers.

    :param exact: for two whole numbers
    :param floating: for two doubles, or two decimals within decimal128's context
    :param overflow: the message that refuses a result beyond 64 bits; without one the result becomes a double
    """
    kind = max(number_kind(a), number_kind(b))
    if kind <= LONG:
        result = exact(int(a), int(b))
        if -(2**63) <= result < 2**63:
            return integer(result, kind)
        if overflow is not None:
            raise CommandError(2, overflow)
        return float(result)
    if kind == DECIMAL:
        with decimal.localcontext(_CONTEXT) as context:
            return Decimal128(context.plus(floating(decimal_of(a), decimal_of(b))))
    try:
        return floating(float(a), float(b))
    except OverflowError:
        return math.inf


def decimal_of(value: Any) -> decimal.Decimal:
    """Return a number as a decimal. Refuse a double whose digits depend on the server's rounding."""
    if isinstance(value, float) and math.isfinite(value) and not value.is_integer():
        raise NotKnown("arithmetic that mixes Decimal128 and a double with a fraction")
    return to_decimal(value)


def add(a: Any, b: Any, *, overflow: str | None = None) -> Any:
    """Add two numbers."""
    return calculate(a, b, lambda x, y: x + y, lambda x, y: x + y, overflow=overflow)


def subtract(a: Any, b: Any) -> Any:
    """Subtract a number from another one."""
    return calculate(a, b, lambda x, y: x - y, lambda x, y: x - y)


def multiply(a: Any, b: Any, *, overflow: str | None = None) -> Any:
    """Multiply two numbers."""
    return calculate(a, b, lambda x, y: x * y, lambda x, y: x * y, overflow=overflow)


def divide(a: Any, b: Any) -> Any:
    """Divide two numbers; the result is a double, or a decimal."""
    if to_decimal(b) == 0:
        raise CommandError(2, "can't $divide by zero")
    if max(number_kind(a), number_kind(b)) == DECIMAL:
        return calculate(a, b, lambda x, y: x, lambda x, y: x / y)
    return float(a) / float(b)


def modulo(a: Any, b: Any) -> Any:
    """Return the remainder, which has the sign of the dividend."""
    if to_decimal(b) == 0:
        raise CommandError(16610, "can't $mod by zero")
    if max(number_kind(a), number_kind(b)) == DECIMAL:
        return calculate(a, b, lambda x, y: x, lambda x, y: x % y)

    def exact(x: int, y: int) -> int:
        rest = abs(x) % abs(y)
        return -rest if x < 0 else rest

    if isinstance(a, float) and not math.isfinite(a):
        return math.nan
    return calculate(a, b, exact, math.fmod)


def total(values: list[Any]) -> Any:
    """Add up the numbers among some values, all at once. Other values do not count."""
    numbers = [value for value in values if is_number(value)]
    kind = max(map(number_kind, numbers), default=INT)
    if kind == DECIMAL:
        decimals = [number for number in numbers if isinstance(number, Decimal128)]
        rest = [number for number in numbers if not isinstance(number, Decimal128)]
        return add(functools.reduce(add, decimals), total(rest))
    whole = sum(int(number) for number in numbers if isinstance(number, int))
    if kind <= LONG and -(2**63) <= whole < 2**63:
        return integer(whole, kind)
    return _double([number for number in numbers if isinstance(number, float)], whole)


def _double(doubles: list[float], whole: int) -> float:
    """Add up doubles and a whole number without intermediate rounding (summation.h, DoubleDoubleSummation)."""
    high = float(whole)
    try:
        return math.fsum([*doubles, high, whole - int(high)])
    except (OverflowError, ValueError):  # beyond the range of doubles, or both infinities
        return sum(doubles, high)
