"""Define the types of BSON values and their parts. Pure."""

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final, Literal, TypeAlias
from uuid import UUID

from bson.binary import Binary
from bson.code import Code
from bson.datetime_ms import DatetimeMS
from bson.dbref import DBRef
from bson.decimal128 import Decimal128
from bson.int64 import Int64
from bson.max_key import MaxKey
from bson.min_key import MinKey
from bson.objectid import ObjectId
from bson.regex import Regex
from bson.timestamp import Timestamp

from mydocs.localserver.errors import CommandError

Document: TypeAlias = dict[str, Any]


class Missing:
    """The value of a path without a field."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "MISSING"

    def __bool__(self) -> Literal[False]:
        return False

    def __copy__(self) -> "Missing":
        return self

    def __deepcopy__(self, memo: object) -> "Missing":
        return self


MISSING: Final = Missing()


class Rank:
    """The ranks of types (bsontypes.h, canonicalizeBSONType); 0 ends an encoded document."""

    MIN_KEY = 1
    UNDEFINED = 2
    NULL = 3
    NUMBER = 4
    STRING = 5
    OBJECT = 6
    ARRAY = 7
    BINARY = 8
    OBJECT_ID = 9
    BOOL = 10
    DATE = 11
    TIMESTAMP = 12
    REGEX = 13
    CODE = 14
    CODE_SCOPE = 15
    MAX_KEY = 16


# The aliases and numbers of $type.
TYPE_NUMBERS: Final[Mapping[str, int]] = {
    "double": 1,
    "string": 2,
    "object": 3,
    "array": 4,
    "binData": 5,
    "undefined": 6,
    "objectId": 7,
    "bool": 8,
    "date": 9,
    "null": 10,
    "regex": 11,
    "dbPointer": 12,
    "javascript": 13,
    "symbol": 14,
    "javascriptWithScope": 15,
    "int": 16,
    "timestamp": 17,
    "long": 18,
    "decimal": 19,
    "minKey": -1,
    "maxKey": 127,
}
TYPE_NAMES: Final = {number: name for name, number in TYPE_NUMBERS.items()}
NUMBER_TYPES: Final = frozenset({"double", "int", "long", "decimal"})

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_KINDS: dict[type, tuple[int, str]] = {
    type(None): (Rank.NULL, "null"),
    Missing: (Rank.UNDEFINED, "missing"),
    bool: (Rank.BOOL, "bool"),
    float: (Rank.NUMBER, "double"),
    Int64: (Rank.NUMBER, "long"),
    Decimal128: (Rank.NUMBER, "decimal"),
    str: (Rank.STRING, "string"),
    dict: (Rank.OBJECT, "object"),
    DBRef: (Rank.OBJECT, "object"),
    list: (Rank.ARRAY, "array"),
    tuple: (Rank.ARRAY, "array"),
    bytes: (Rank.BINARY, "binData"),
    Binary: (Rank.BINARY, "binData"),
    UUID: (Rank.BINARY, "binData"),
    ObjectId: (Rank.OBJECT_ID, "objectId"),
    datetime: (Rank.DATE, "date"),
    DatetimeMS: (Rank.DATE, "date"),
    Timestamp: (Rank.TIMESTAMP, "timestamp"),
    Regex: (Rank.REGEX, "regex"),
    re.Pattern: (Rank.REGEX, "regex"),
    MinKey: (Rank.MIN_KEY, "minKey"),
    MaxKey: (Rank.MAX_KEY, "maxKey"),
}


def _kind(value: Any) -> tuple[int, str]:
    kind = type(value)
    if kind is int:
        return Rank.NUMBER, "int" if -0x80000000 <= value <= 0x7FFFFFFF else "long"
    if kind is Code:
        return (Rank.CODE, "javascript") if value.scope is None else (Rank.CODE_SCOPE, "javascriptWithScope")
    found = _KINDS.get(kind)
    if found is None:
        # A subclass, such as SON or a caller's own Mapping.
        for base, described in _KINDS.items():
            if isinstance(value, base):
                return described
        if isinstance(value, Mapping):
            return Rank.OBJECT, "object"
        raise CommandError(2, f"a value of type {kind.__name__} is not BSON")
    return found


def rank(value: Any) -> int:
    """Return the rank of a value's type."""
    return _kind(value)[0]


def type_name(value: Any) -> str:
    """Return the alias of a value's BSON type; ``missing`` for ``MISSING``."""
    return _kind(value)[1]


def type_matches(value: Any, alias: Any) -> bool:
    """Return whether a value has a BSON type, given by alias or number; ``number`` is any numeric type."""
    wanted = type_aliases(alias)
    return type_name(value) in wanted


def type_aliases(alias: Any) -> frozenset[str]:
    """Return the type names that an alias or number means."""
    if isinstance(alias, str):
        if alias == "number":
            return NUMBER_TYPES
        if alias not in TYPE_NUMBERS:
            raise CommandError(2, f"Unknown type name alias: {alias}")
        return frozenset({alias})
    if not is_number(alias):
        raise CommandError(14, "type must be represented as a number or a string")
    number = to_decimal(alias)
    name = TYPE_NAMES.get(int(number)) if number.is_finite() and number == int(number) else None
    if name is None:
        raise CommandError(2, f"Invalid numerical type code: {alias}")
    return frozenset({name})


def is_number(value: Any) -> bool:
    """Return whether a value is a BSON number. A bool is not one."""
    return isinstance(value, int | float | Decimal128) and not isinstance(value, bool)


def to_decimal(value: Any) -> Decimal:
    """Convert any BSON number to the decimal with exactly its value."""
    return value.to_decimal() if isinstance(value, Decimal128) else Decimal(value)


def to_millis(value: Any) -> int:
    """Return a date's milliseconds since the epoch. A naive date is UTC."""
    if isinstance(value, DatetimeMS):
        return int(value)
    if value.tzinfo is None:
        value = value.replace(tzinfo=UTC)
    return int((value - _EPOCH) // _MILLISECOND)


def from_millis(millis: int) -> Any:
    """Return the aware UTC date of milliseconds since the epoch, or a ``DatetimeMS`` if Python has no such date."""
    try:
        return _EPOCH + timedelta(milliseconds=millis)
    except OverflowError:
        return DatetimeMS(millis)


def to_int(value: Any) -> int | None:
    """Return a number's value if it is integral and fits 64 bits, else ``None``. A bool is not a number."""
    if not is_number(value):
        return None
    number = to_decimal(value)
    if not number.is_finite() or number != number.to_integral_value() or not -(2**63) <= number < 2**63:
        return None
    return int(number)


def as_document(value: Any) -> Mapping[str, Any] | None:
    """Return a value as a document, if it is one. A DBRef counts."""
    if isinstance(value, Mapping):
        return value
    if isinstance(value, DBRef):
        return value.as_doc()
    return None


def is_nan(number: Any) -> bool:
    """Return whether a number of any type is NaN."""
    if isinstance(number, Decimal128):
        number = number.to_decimal()
    return bool(number.is_nan() if isinstance(number, Decimal) else isinstance(number, float) and math.isnan(number))
