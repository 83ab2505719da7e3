"""Evaluate expressions that calculate: arithmetic, rounding, and sums over their arguments. Pure."""

import decimal
import math
from collections.abc import Callable
from datetime import datetime
from typing import Any

from bson.datetime_ms import DatetimeMS
from bson.decimal128 import Decimal128, create_decimal128_context
from bson.int64 import Int64

from mydocs.localserver.errors import CommandError, NotKnown
from mydocs.localserver.query.arithmetic import (
    DECIMAL,
    LONG,
    calculate,
    decimal_of,
    divide,
    integer,
    modulo,
    multiply,
    number_kind,
    subtract,
    total,
)
from mydocs.localserver.query.expressions.core import Builder, functions, nullish
from mydocs.localserver.query.values import compare, from_millis, is_number, to_decimal, to_int, to_millis, type_name

DATES = (datetime, DatetimeMS)  # the latter if Python has no such date


def _numbers(name: str, code: int, *values: Any) -> None:
    for value in values:
        if not is_number(value):
            raise CommandError(code, f"{name} only supports numeric types, not {type_name(value)}")


def _shifted(name: str, date: datetime | DatetimeMS, millis: Any) -> Any:
    _numbers(name, 16554, millis)
    number = to_decimal(millis)
    if not number.is_finite():
        raise CommandError(2, f"{name} cannot move a date by {millis}")
    return from_millis(to_millis(date) + int(number.to_integral_value(decimal.ROUND_HALF_EVEN)))


def _add(*values: Any) -> Any:
    dates = [value for value in values if isinstance(value, DATES)]
    if len(dates) > 1:
        raise CommandError(16612, "only one date allowed in an $add expression")
    numbers = [value for value in values if not isinstance(value, DATES)]
    _numbers("$add", 14, *numbers)
    result = total(numbers)
    return _shifted("$add", dates[0], result) if dates else result


def _subtract(a: Any, b: Any) -> Any:
    if isinstance(a, DATES):
        if isinstance(b, DATES):
            return Int64(to_millis(a) - to_millis(b))
        return _shifted("$subtract", a, multiply(b, -1) if is_number(b) else b)
    if not is_number(a) or not is_number(b):
        raise CommandError(14, f"can't $subtract {type_name(b)} from {type_name(a)}")
    return subtract(a, b)


def _multiply(*values: Any) -> Any:
    _numbers("$multiply", 14, *values)
    result: Any = 1
    for value in values:
        result = multiply(result, value)
    return result


def _two(name: str, code: int, function: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def checked(a: Any, b: Any) -> Any:
        _numbers(name, code, a, b)
        return function(a, b)

    return checked


def _abs(value: Any) -> Any:
    _numbers("$abs", 28765, value)
    if isinstance(value, int):
        if value == -(2**63):
            raise CommandError(28680, "can't take $abs of long long min")
        return integer(abs(int(value)), number_kind(value))
    return Decimal128(abs(value.to_decimal())) if isinstance(value, Decimal128) else abs(value)


def _rounded(name: str, value: Any, places: Any, rounding: str) -> Any:
    _numbers(name, 51081, value)
    digits = to_int(places)
    if digits is None or not -20 <= digits <= 100:
        raise CommandError(51082, f"{name} requires 'place' to be an integral value between -20 and 100")
    if isinstance(value, int):
        if digits >= 0:
            return value
        step = decimal.Decimal(10) ** -digits
        number = (decimal.Decimal(int(value)) / step).to_integral_value(rounding) * step
        return integer(int(number), number_kind(value))
    number = to_decimal(value)
    if not number.is_finite() or int(number.as_tuple().exponent) >= -digits:
        return value
    with decimal.localcontext(prec=1200):  # enough for all digits of any double
        number = number.quantize(decimal.Decimal(1).scaleb(-digits), rounding)
    return Decimal128(number) if isinstance(value, Decimal128) else float(number)


def _round(value: Any, places: Any = 0) -> Any:
    return _rounded("$round", value, places, decimal.ROUND_HALF_EVEN)


def _trunc(value: Any, places: Any = 0) -> Any:
    return _rounded("$trunc", value, places, decimal.ROUND_DOWN)


def _ceil(value: Any) -> Any:
    _numbers("$ceil", 28765, value)
    return _rounded("$ceil", value, 0, decimal.ROUND_CEILING)


def _floor(value: Any) -> Any:
    _numbers("$floor", 28765, value)
    return _rounded("$floor", value, 0, decimal.ROUND_FLOOR)


def _real(name: str, value: Any) -> float:
    _numbers(name, 28765, value)
    if number_kind(value) == DECIMAL:
        raise NotKnown(f"{name} of a Decimal128")
    return float(value)


def _sqrt(value: Any) -> Any:
    if isinstance(value, Decimal128):
        root = value.to_decimal()
        if root < 0:
            raise CommandError(28714, "$sqrt's argument must be greater than or equal to 0")
        with decimal.localcontext(create_decimal128_context()):
            return Decimal128(root.sqrt())
    number = _real("$sqrt", value)
    if number < 0:
        raise CommandError(28714, "$sqrt's argument must be greater than or equal to 0")
    return math.sqrt(number)


def _exp(value: Any) -> Any:
    try:
        return math.exp(_real("$exp", value))
    except OverflowError:
        return math.inf


def _logarithm(name: str, code: int, function: Callable[[float], float]) -> Callable[[Any], Any]:
    def evaluate(value: Any) -> Any:
        number = _real(name, value)
        if number <= 0:
            raise CommandError(code, f"{name}'s argument must be a positive number, but is {value}")
        return function(number)

    return evaluate


def _log(value: Any, base: Any) -> Any:
    number, of = _real("$log", value), _real("$log", base)
    if number <= 0:
        raise CommandError(28758, f"$log's argument must be a positive number, but is {value}")
    if of <= 0 or of == 1:
        raise CommandError(28759, f"$log's base must be a positive number not equal to 1, but is {base}")
    return math.log(number) / math.log(of)


def _pow(base: Any, exponent: Any) -> Any:
    _numbers("$pow", 28762, base, exponent)
    if max(number_kind(base), number_kind(exponent)) == DECIMAL:
        return _decimal_power(decimal_of(base), decimal_of(exponent))
    if to_decimal(base) == 0 and to_decimal(exponent) < 0:
        raise CommandError(28764, "$pow cannot take a base of 0 and a negative exponent")
    if max(number_kind(base), number_kind(exponent)) <= LONG and exponent >= 0 and abs(int(exponent)) <= 1024:
        return calculate(base, exponent, lambda x, y: int(x**y), math.pow)
    try:
        return math.pow(base, exponent)
    except OverflowError:
        return math.inf
    except ValueError:
        return math.nan


def _decimal_power(base: decimal.Decimal, exponent: decimal.Decimal) -> Any:
    """Raise to a whole power if the result is exact. Otherwise it depends on the server's library."""
    with decimal.localcontext(create_decimal128_context()) as context:
        if base == 0 and exponent < 0:
            raise CommandError(28764, "$pow cannot take a base of 0 and a negative exponent")
        whole = exponent.is_finite() and exponent == exponent.to_integral_value() and 0 <= exponent <= 1024
        if base.is_finite() and whole:
            context.traps[decimal.Inexact] = True
            try:
                return Decimal128(base ** int(exponent))
            except decimal.Inexact:
                pass
        raise NotKnown("$pow of a Decimal128 whose result has more than 34 digits, or that is no whole power")


def average(values: list[Any]) -> Any:
    """Return the mean of the numbers among some values, or null if there are none."""
    numbers = [value for value in values if is_number(value)]
    return divide(total(numbers), len(numbers)) if numbers else None


def extreme(values: list[Any], sign: int) -> Any:
    """Return the smallest (-1) or largest (1) of the values that are not null, or null if there are none."""
    best: Any = None
    for value in values:
        if not nullish(value) and (best is None or compare(value, best) * sign > 0):
            best = value
    return best


def deviation(values: list[Any], *, sample: bool) -> Any:
    """Return the standard deviation of the numbers among some values, or null if there are too few."""
    count, mean, squares = 0, 0.0, 0.0
    for value in filter(is_number, values):
        number = float(to_decimal(value))
        count += 1
        delta = number - mean
        mean += delta / count
        squares += delta * (number - mean)
    return math.sqrt(squares / (count - sample)) if count > sample else None


def _over(function: Callable[[list[Any]], Any]) -> Callable[..., Any]:
    # A single array argument means its elements. With several arguments, each is a value.
    def evaluate(*values: Any) -> Any:
        return function(values[0] if len(values) == 1 and isinstance(values[0], list) else list(values))

    return evaluate


NUMBERS: dict[str, Builder] = {
    **functions(
        {
            "$add": (_add, 0, None),
            "$multiply": (_multiply, 0, None),
            "$subtract": (_subtract, 2, 2),
            "$divide": (_two("$divide", 14, divide), 2, 2),
            "$mod": (_two("$mod", 16611, modulo), 2, 2),
            "$abs": (_abs, 1, 1),
            "$round": (_round, 1, 2),
            "$trunc": (_trunc, 1, 2),
            "$ceil": (_ceil, 1, 1),
            "$floor": (_floor, 1, 1),
            "$sqrt": (_sqrt, 1, 1),
            "$exp": (_exp, 1, 1),
            "$pow": (_pow, 2, 2),
            "$log": (_log, 2, 2),
            "$ln": (_logarithm("$ln", 28766, math.log), 1, 1),
            "$log10": (_logarithm("$log10", 28761, math.log10), 1, 1),
        },
        null=True,
    ),
    **functions(
        {
            "$sum": (_over(total), 0, None),
            "$avg": (_over(average), 0, None),
            "$min": (_over(lambda values: extreme(values, -1)), 0, None),
            "$max": (_over(lambda values: extreme(values, 1)), 0, None),
            "$stdDevPop": (_over(lambda values: deviation(values, sample=False)), 0, None),
            "$stdDevSamp": (_over(lambda values: deviation(values, sample=True)), 0, None),
        }
    ),
}
