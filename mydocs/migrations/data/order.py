"""Compute the order in which a server sorts the values of `_id`, whatever their types. Pure."""

import math
from collections.abc import Mapping
from typing import Any

from bson.binary import Binary
from bson.code import Code
from bson.datetime_ms import DatetimeMS
from bson.dbref import DBRef
from bson.decimal128 import Decimal128
from bson.max_key import MaxKey
from bson.min_key import MinKey
from bson.objectid import ObjectId
from bson.regex import Regex
from bson.timestamp import Timestamp

NUMBER, TEXT, DOCUMENT, BINARY, OBJECT_ID, DATE = 10, 15, 20, 30, 35, 45
# The groups in the order of a server, as in `canonicalizeBSONType` of src/mongo/bson/bsontypes.h. Values of two groups
# are never equal. Inside a group the type (an int and a double) does not matter.
_RANKS: tuple[tuple[type | tuple[type, ...], int], ...] = (
    (type(None), 5),
    (bool, 40),  # before the numbers: a bool of Python is an int
    ((int, float, Decimal128), NUMBER),
    (Code, 60),  # before texts: bson's is a str
    (str, TEXT),
    ((bytes, Binary), BINARY),
    ((Mapping, DBRef), DOCUMENT),
    ((list, tuple), 25),
    (ObjectId, OBJECT_ID),
    (DatetimeMS, DATE),
    (Timestamp, 47),
    (Regex, 50),
    (MinKey, -1),
    (MaxKey, 127),
)


def rank(value: object) -> int:
    """
    Return the rank of a value's group of types.

    :param value: decoded with dates as ``DatetimeMS``
    """
    return next(place for types, place in _RANKS if isinstance(value, types))


def sort_key(value: Any) -> tuple[Any, ...]:
    """
    Return a key that sorts like a server without a collation.

    :param value: decoded with dates as ``DatetimeMS``
    """
    place = rank(value)
    if place == NUMBER:
        return place, *_number(value)
    if place == DOCUMENT:
        items = value.as_doc().items() if isinstance(value, DBRef) else value.items()
        return place, tuple((rank(each), name.encode(), sort_key(each)) for name, each in items)
    if isinstance(value, list | tuple):
        return place, tuple(map(sort_key, value))
    if isinstance(value, bytes):
        return place, len(value), getattr(value, "subtype", 0), bytes(value)
    if isinstance(value, Code):
        return place, str(value).encode(), () if value.scope is None else sort_key(value.scope)
    if isinstance(value, str):
        return place, value.encode()
    if isinstance(value, Timestamp):
        return place, value.time, value.inc
    if isinstance(value, Regex):
        return place, str(value.pattern), value.flags
    return (place,) if value is None or isinstance(value, MinKey | MaxKey) else (place, _plain(value))


def has_text(value: Any) -> bool:
    """Return whether a collation could change the position of a value."""
    if isinstance(value, Mapping):
        return any(map(has_text, value.values()))
    return isinstance(value, str) or (isinstance(value, list) and any(map(has_text, value)))


def _number(value: Any) -> tuple[Any, ...]:
    number = value.to_decimal() if isinstance(value, Decimal128) else value
    return (0,) if math.isnan(number) else (1, number)  # NaN is below all others


def _plain(value: Any) -> Any:
    if isinstance(value, ObjectId):
        return value.binary
    return int(value) if isinstance(value, DatetimeMS) else value
