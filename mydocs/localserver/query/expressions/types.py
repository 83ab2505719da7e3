"""Evaluate expressions on types: tests and conversions. Pure."""

import decimal
import math
import random
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import bson
from bson.decimal128 import Decimal128
from bson.errors import InvalidId
from bson.int64 import Int64
from bson.objectid import ObjectId
from bson.timestamp import Timestamp

from mydocs.localserver.errors import CommandError, NotKnown
from mydocs.localserver.query.expressions.core import Builder, Compiler, Evaluate, Scope, functions, nullish
from mydocs.localserver.query.values import (
    as_document,
    from_millis,
    is_nan,
    is_number,
    to_decimal,
    to_millis,
    type_aliases,
    type_name,
)

_FAILURE = 241  # ConversionFailure


def to_text(value: Any) -> str:
    """Convert a value to a string as the server does."""
    match type_name(value):
        case "string":
            return str(value)
        case "bool":
            return "true" if value else "false"
        case "int" | "long" | "decimal":
            return str(value if isinstance(value, Decimal128) else int(value))
        case "double":
            return _double_text(value)
        case "objectId":
            return str(value)
        case "date":
            return iso_text(value)
        case name:
            raise CommandError(
                _FAILURE, f"Unsupported conversion from {name} to string in $convert with no onError value"
            )


def _double_text(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    if value.is_integer() and abs(value) < 1e15:
        return "-0" if value == 0 and math.copysign(1, value) < 0 else str(int(value))
    text = repr(value)
    if "e" in text:
        raise NotKnown("the text of a double with an exponent")
    return text


def iso_text(value: Any) -> str:
    """Return a date as ``2024-01-31T12:00:00.000Z``."""
    date = from_millis(to_millis(value))
    if not isinstance(date, datetime):
        raise NotKnown("the text of a date beyond the year 9999")
    return f"{date:%Y-%m-%dT%H:%M:%S}.{date.microsecond // 1000:03d}Z"


def parse_date(text: str, name: str = "$dateFromString") -> datetime:
    """Parse an ISO date. One without a zone is UTC."""
    if not re.fullmatch(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d{1,3})?)?)?(Z|[+-]\d\d:?\d\d)?", text, re.ASCII):
        raise CommandError(
            _FAILURE, f"Error parsing date string '{text}' in {name}; only ISO dates are understood here"
        )
    try:
        date = datetime.fromisoformat(text)
    except ValueError as error:
        raise CommandError(_FAILURE, f"Error parsing date string '{text}'; {error}") from error
    return date.replace(tzinfo=UTC) if date.tzinfo is None else date.astimezone(UTC)


def _whole(value: Any, low: int, high: int, target: str) -> int:
    match type_name(value):
        case "bool":
            return int(value)
        case "int" | "long" | "double" | "decimal":
            number = to_decimal(value)
            if not number.is_finite():
                raise CommandError(_FAILURE, f"Attempt to convert {value} value to integer type in $convert")
            whole = int(number)
        case "string":
            if not re.fullmatch(r"[+-]?\d+", value, re.ASCII):
                raise CommandError(_FAILURE, f"Failed to parse number '{value}' in $convert with no onError value")
            whole = int(value)
        case "date" if target == "long":
            whole = to_millis(value)
        case _:
            raise _unsupported(value, target)
    if not low <= whole < high:
        raise CommandError(
            _FAILURE, f"Conversion would overflow target type in $convert with no onError value: {value}"
        )
    return whole


def _unsupported(value: Any, target: str) -> CommandError:
    return CommandError(
        _FAILURE, f"Unsupported conversion from {type_name(value)} to {target} in $convert with no onError value"
    )


def _to_int(value: Any) -> Any:
    return _whole(value, -(2**31), 2**31, "int")


def _to_long(value: Any) -> Any:
    return Int64(_whole(value, -(2**63), 2**63, "long"))


def _to_double(value: Any) -> Any:
    match type_name(value):
        case "bool" | "int" | "long" | "double":
            return float(value)
        case "decimal":
            return float(value.to_decimal())
        case "date":
            return float(to_millis(value))
        case "string" if re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", value, re.ASCII):
            return float(value)
        case "string":
            raise CommandError(_FAILURE, f"Failed to parse number '{value}' in $convert with no onError value")
        case _:
            raise _unsupported(value, "double")


def _to_decimal(value: Any) -> Any:
    match type_name(value):
        case "bool" | "int" | "long":
            return Decimal128(str(int(value)))
        case "decimal":
            return value
        case "date":
            return Decimal128(str(to_millis(value)))
        case "double":
            if not math.isfinite(value) or value == 0:
                return Decimal128(str(value))
            # A double becomes 15 significant digits, with trailing zeros (Decimal128::kRoundTo15Digits).
            return Decimal128(decimal.Decimal(f"{value:.14e}"))
        case "string":
            try:
                return Decimal128(value)
            except (decimal.DecimalException, ValueError) as error:
                raise CommandError(_FAILURE, f"Failed to parse number '{value}' in $convert") from error
        case _:
            raise _unsupported(value, "decimal")


def _to_bool(value: Any) -> Any:
    return is_nan(value) or to_decimal(value) != 0 if is_number(value) else value is not False


def _to_date(value: Any) -> Any:
    match type_name(value):
        case "date":
            return value
        case "string":
            return parse_date(value, "$convert")
        case "objectId":
            return value.generation_time
        case "timestamp" if isinstance(value, Timestamp):
            return value.as_datetime()
        case "long" | "double" | "decimal":
            return from_millis(_whole(value, -(2**63), 2**63, "long"))
        case _:
            raise _unsupported(value, "date")


def _to_object_id(value: Any) -> Any:
    if isinstance(value, ObjectId):
        return value
    if not isinstance(value, str):
        raise _unsupported(value, "objectId")
    try:
        return ObjectId(value)
    except InvalidId as error:
        raise CommandError(_FAILURE, f"Failed to parse objectId '{value}' in $convert with no onError value") from error


def _to_string(value: Any) -> Any:
    return to_text(value)


_CONVERSIONS: dict[str, Callable[[Any], Any]] = {
    "int": _to_int,
    "long": _to_long,
    "double": _to_double,
    "decimal": _to_decimal,
    "bool": _to_bool,
    "date": _to_date,
    "objectId": _to_object_id,
    "string": _to_string,
}


def _convert(name: str, argument: Any, compiler: Compiler) -> Evaluate:
    if isinstance(argument, dict) and {"format", "base", "byteOrder"} & set(argument):
        raise NotKnown("$convert with format, base or byteOrder")
    parts = compiler.named(name, argument, ("input", "to"), ("onError", "onNull"))

    def evaluate(scope: Scope) -> Any:
        value = parts["input"](scope)
        target = parts["to"](scope)
        if nullish(value):
            return parts["onNull"](scope) if "onNull" in parts else None
        if nullish(target):
            return None
        (wanted,) = type_aliases(target) if target != "number" else ("number",)
        if wanted not in _CONVERSIONS:
            raise NotKnown(f"$convert to {wanted}")
        try:
            return _CONVERSIONS[wanted](value)
        except CommandError as error:
            if error.code != _FAILURE or "onError" not in parts:
                raise
            return parts["onError"](scope)

    return evaluate


def _binary_size(value: Any) -> Any:
    if nullish(value):
        return None
    if isinstance(value, str):
        return len(value.encode())
    if type_name(value) != "binData":
        raise CommandError(51276, f"$binarySize requires a string or BinData argument, found: {type_name(value)}")
    return len(value.bytes if isinstance(value, UUID) else value)


def _bson_size(value: Any) -> Any:
    if nullish(value):
        return None
    document = as_document(value)
    if document is None:
        raise CommandError(31393, f"$bsonSize requires a document input, found: {type_name(value)}")
    return len(bson.encode(document))


TYPES: dict[str, Builder] = {
    "$convert": _convert,
    **functions(
        {
            "$type": (type_name, 1, 1),
            "$isNumber": (is_number, 1, 1),
            "$binarySize": (_binary_size, 1, 1),
            "$bsonSize": (_bson_size, 1, 1),
            "$rand": (random.random, 0, 0),
        }
    ),
    **functions(
        {
            "$toInt": (_to_int, 1, 1),
            "$toLong": (_to_long, 1, 1),
            "$toDouble": (_to_double, 1, 1),
            "$toDecimal": (_to_decimal, 1, 1),
            "$toBool": (_to_bool, 1, 1),
            "$toDate": (_to_date, 1, 1),
            "$toObjectId": (_to_object_id, 1, 1),
            "$toString": (_to_string, 1, 1),
        },
        null=True,
    ),
}
