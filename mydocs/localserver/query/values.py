"""Compare, order, encode and look up BSON values as a MongoDB server does. Pure."""

import re
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias
from uuid import UUID

from bson.decimal128 import Decimal128
from bson.objectid import ObjectId

from mydocs.localserver.errors import CommandError, NotKnown
from mydocs.localserver.query.bson_types import (
    MISSING,
    Document,
    Missing,
    Rank,
    as_document,
    from_millis,
    is_nan,
    is_number,
    rank,
    to_decimal,
    to_int,
    to_millis,
    type_aliases,
    type_matches,
    type_name,
)

__all__ = [
    "MISSING",
    "Document",
    "Missing",
    "Pattern",
    "Rank",
    "array_index",
    "as_document",
    "compare",
    "encode_key",
    "equal",
    "from_millis",
    "get_path",
    "index_keys",
    "is_nan",
    "is_number",
    "lookup",
    "pattern_items",
    "rank",
    "sort_documents",
    "sort_key",
    "sort_pattern",
    "split_path",
    "to_decimal",
    "to_int",
    "to_millis",
    "type_aliases",
    "type_matches",
    "type_name",
    "walk",
]

Pattern: TypeAlias = Mapping[str, Any] | Sequence[tuple[str, Any]]

_PLAIN = frozenset({str, int, bool, ObjectId})
_NUMBER = bytes((Rank.NUMBER,))
_INVERTED = bytes(255 - n for n in range(256))


def _regex_parts(value: Any) -> tuple[str, str]:
    flags = value.flags
    letters = ((re.I, "i"), (re.L, "l"), (re.M, "m"), (re.S, "s"), (re.X, "x"))
    return value.pattern, "".join(letter for flag, letter in letters if flags & flag)


def _binary_parts(value: Any) -> tuple[int, int, bytes]:
    if isinstance(value, UUID):
        return 16, 4, value.bytes
    return len(value), getattr(value, "subtype", 0), bytes(value)


def _order(a: Any, b: Any) -> int:
    return int(a > b) - int(a < b)


def _compare_numbers(a: Any, b: Any) -> int:
    a = a.to_decimal() if isinstance(a, Decimal128) else a
    b = b.to_decimal() if isinstance(b, Decimal128) else b
    a_nan, b_nan = is_nan(a), is_nan(b)
    if a_nan or b_nan:
        return int(b_nan) - int(a_nan)
    return _order(a, b)


def compare(a: Any, b: Any) -> int:
    """Compare two values in BSON order: negative, zero or positive."""
    kind = rank(a)
    if kind != (other := rank(b)):
        return _order(kind, other)
    match kind:
        case Rank.NUMBER:
            return _compare_numbers(a, b)
        case Rank.OBJECT:
            return _compare_documents(as_document(a) or {}, as_document(b) or {})
        case Rank.ARRAY:
            for x, y in zip(a, b, strict=False):
                if found := compare(x, y):
                    return found
            return _order(len(a), len(b))
        case Rank.BINARY:
            return _order(_binary_parts(a), _binary_parts(b))
        case Rank.DATE:
            return _order(to_millis(a), to_millis(b))
        case Rank.TIMESTAMP:
            return _order((a.time, a.inc), (b.time, b.inc))
        case Rank.REGEX:
            return _order(_regex_parts(a), _regex_parts(b))
        case Rank.CODE_SCOPE:
            return _order(str(a), str(b)) or _compare_documents(a.scope, b.scope)
        case Rank.MIN_KEY | Rank.UNDEFINED | Rank.NULL | Rank.MAX_KEY:
            return 0
        case Rank.STRING | Rank.CODE:
            return _order(str(a), str(b))
        case _:
            return _order(a, b)


def _compare_documents(a: Mapping[str, Any], b: Mapping[str, Any]) -> int:
    for (a_key, a_value), (b_key, b_value) in zip(a.items(), b.items(), strict=False):
        if a_key == b_key and _are_plain(a_value, b_value) and a_value == b_value:
            continue
        # The type comes before the name, the name before the value.
        if found := _order(rank(a_value), rank(b_value)) or _order(a_key, b_key) or compare(a_value, b_value):
            return found
    return _order(len(a), len(b))


def equal(a: Any, b: Any) -> bool:
    """Return whether the server treats two values as equal: 1 is 1.0, True is not 1, the order of fields counts."""
    return bool(a == b) if _are_plain(a, b) else compare(a, b) == 0


def _are_plain(a: Any, b: Any) -> bool:
    """Return whether Python's `==` gives the server's result for two values."""
    return type(a) is type(b) and type(a) in _PLAIN


def encode_key(value: Any) -> bytes:
    """
    Encode a value so that bytes sort as ``compare`` does, and are equal if the values are.

    No encoding is the beginning of another one. So encodings can be joined, and inverted for the reverse order.
    """
    if type(value) is int:
        return _NUMBER + _encode_number(value)
    kind = rank(value)
    return bytes((kind,)) + _payload(kind, value)


def _payload(kind: int, value: Any) -> bytes:
    match kind:
        case Rank.NUMBER:
            return _encode_number(value)
        case Rank.STRING | Rank.CODE:
            return _encode_text(value)
        case Rank.OBJECT:
            return _encode_document(as_document(value) or {})
        case Rank.ARRAY:
            return b"".join(map(encode_key, value)) + b"\0"
        case Rank.BINARY:
            size, subtype, data = _binary_parts(value)
            return struct.pack(">IB", size, subtype) + data
        case Rank.OBJECT_ID:
            return bytes(value.binary)
        case Rank.BOOL:
            return b"\1" if value else b"\0"
        case Rank.DATE:
            return struct.pack(">Q", to_millis(value) + 2**63)
        case Rank.TIMESTAMP:
            return struct.pack(">II", value.time, value.inc)
        case Rank.REGEX:
            return b"".join(map(_encode_text, _regex_parts(value)))
        case Rank.CODE_SCOPE:
            return _encode_text(value) + _encode_document(value.scope)
        case _:
            return b""


def _encode_text(text: str) -> bytes:
    return text.encode().replace(b"\0", b"\0\xff") + b"\0\0"


def _encode_document(document: Mapping[str, Any]) -> bytes:
    parts = []
    for key, value in document.items():
        kind = rank(value)
        parts.append(bytes((kind,)) + _encode_text(key) + _payload(kind, value))
    return b"".join(parts) + b"\0"


def _encode_number(value: Any) -> bytes:
    # By significant decimal digits, of which every double and Decimal128 has finitely many: exact for all types.
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**63:
        value = int(value)
    if isinstance(value, int):
        if value == 0:
            return b"\3"
        negative, digits = value < 0, str(abs(int(value)))
        exponent = len(digits) - 1
    else:
        number = to_decimal(value)
        if number.is_nan():
            return b"\0"
        if number.is_infinite():
            return b"\1" if number < 0 else b"\5"
        if number == 0:
            return b"\3"
        sign, coefficient, _ = number.as_tuple()
        negative, digits, exponent = bool(sign), "".join(map(str, coefficient)), number.adjusted()
    body = struct.pack(">H", exponent + 0x8000) + digits.rstrip("0").encode() + b"\0"
    return b"\2" + body.translate(_INVERTED) if negative else b"\4" + body


def split_path(path: str) -> list[str]:
    """Split a dotted path into its parts."""
    return path.split(".")


def walk(document: Any, parts: Sequence[str], *, expand: bool) -> Iterator[tuple[Any, int | None]]:
    """
    Yield the values of a path as filters see them, each with its index in the outermost traversed array.

    :param expand: yield the elements of an array at the end of the path before the array itself
    """
    value = document
    for place, part in enumerate(parts):
        if isinstance(value, list):
            yield from _walk_array(value, parts[place:], expand=expand)
            return
        holder = as_document(value)
        if holder is None:
            yield MISSING, None
            return
        value = holder.get(part, MISSING)
    if expand and isinstance(value, list):
        for index, element in enumerate(value):
            yield element, index
    yield value, None


def _walk_array(array: list[Any], rest: Sequence[str], *, expand: bool) -> Iterator[tuple[Any, int | None]]:
    # "b.0" means both the field "0" of every document in the array and the array's first element. A value that is named
    # by a number is not expanded, and has no offset (path.cpp, BSONElementIterator::more).
    offset = array_index(rest[0])
    for index, element in enumerate(array):
        is_document = as_document(element) is not None
        if is_document:
            for value, _ in walk(element, rest, expand=expand):
                yield value, index
        if index == offset:
            if len(rest) == 1:
                yield element, None
            elif is_document:
                yield from walk(element, rest[1:], expand=expand)
            elif isinstance(element, list):
                yield from _walk_array(element, rest[1:], expand=expand)


def array_index(part: str) -> int | None:
    """Return the array index that a part of a path names, or ``None``: digits without a leading zero."""
    return int(part) if part.isascii() and part.isdigit() and (part == "0" or part[0] != "0") else None


def lookup(document: Mapping[str, Any], path: str, *, expand: bool = True) -> list[Any]:
    """Return all values of a path, traversing arrays as filters do. They may include ``MISSING``."""
    return [value for value, _ in walk(document, split_path(path), expand=expand)]


def get_path(document: Any, path: str) -> Any:
    """Return the one value of a path, or ``MISSING``. A number is an array index; no array is expanded."""
    value = document
    for part in split_path(path):
        if isinstance(value, list):
            index = array_index(part)
            value = MISSING if index is None or index >= len(value) else value[index]
        else:
            holder = as_document(value)
            value = MISSING if holder is None else holder.get(part, MISSING)
    return value


def pattern_items(pattern: Pattern) -> list[tuple[str, Any]]:
    """Return the pairs of a key pattern or sort specification."""
    return list(pattern.items()) if isinstance(pattern, Mapping) else [(key, value) for key, value in pattern]


def index_keys(document: Mapping[str, Any], key_pattern: Pattern, *, sparse: bool = False) -> list[tuple[Any, ...]]:
    """
    Return the keys of a document in an index, one for each element of an array. A missing field is ``None``.

    An empty array has the key ``MISSING``, the server's "undefined", which does not equal null.

    :param sparse: return no key if the document has none of the fields
    """
    paths = [split_path(path) for path, _ in pattern_items(key_pattern)]
    if sparse and all(value is MISSING for path in paths for value, _ in walk(document, path, expand=False)):
        return []
    found: dict[bytes, tuple[Any, ...]] = {}
    for key in _expand_keys([(document, path) for path in paths]):
        found.setdefault(b"".join(map(encode_key, key)), key)
    return list(found.values())


def _expand_keys(fields: list[tuple[Any, list[str]]]) -> Iterator[tuple[Any, ...]]:
    stuck: list[int] = []  # the fields whose path continues inside an array, or ends at one
    settled: list[Any] = []
    for place, (start, parts) in enumerate(fields):
        value, rest, array = _descend(start, parts)
        settled.append((value, rest))
        if array:
            stuck.append(place)
    if not stuck:
        yield tuple(value for value, _ in settled)
        return
    array = settled[stuck[0]][0]
    if any(settled[place][0] is not array for place in stuck):
        raise CommandError(171, "cannot index parallel arrays")
    for element in array or [MISSING]:
        inner: list[tuple[Any, list[str]]] = []
        for place, (value, rest) in enumerate(settled):
            if place not in stuck:
                inner.append((_Settled(value), []))
            elif rest:
                inner.append((element, rest))
            else:
                inner.append((_Settled(element), []))
        yield from _expand_keys(inner)


class _Settled:
    """A value that is final, even if it is an array."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


def _descend(value: Any, parts: list[str]) -> tuple[Any, list[str], bool]:
    if isinstance(value, _Settled):
        return value.value, [], False
    for place, part in enumerate(parts):
        if isinstance(value, list):
            index = array_index(part)
            if index is None or index >= len(value):
                return value, parts[place:], True
            value = value[index]
            continue
        holder = as_document(value)
        if holder is None or part not in holder:
            return None, [], False
        value = holder[part]
    return value, [], isinstance(value, list)


def sort_pattern(spec: Pattern) -> list[tuple[str, bool]]:
    """Parse a sort specification to paths, each with whether it is descending."""
    parsed = []
    for path, direction in pattern_items(spec):
        if isinstance(direction, Mapping):
            raise NotKnown(f"a sort by {', '.join(map(str, direction))}")
        number = to_int(direction)
        if number not in (1, -1):
            raise CommandError(15975, "$sort key ordering must be 1 (for ascending) or -1 (for descending)")
        if not path or "" in split_path(path):
            raise CommandError(15998, "FieldPath field names may not be empty strings.")
        if path.startswith("$"):
            raise CommandError(16410, f"FieldPath field names may not start with '$'. Given '{path}'.")
        parsed.append((path, number == -1))
    return parsed


def sort_key(document: Mapping[str, Any], spec: Pattern) -> bytes:
    """Return bytes that sort as documents do by a sort specification: by the smallest key of each."""
    return _sort_key(document, sort_pattern(spec))


def _sort_key(document: Mapping[str, Any], parsed: Sequence[tuple[str, bool]]) -> bytes:
    try:
        keys = index_keys(document, [(path, 1) for path, _ in parsed])
    except CommandError as error:
        raise CommandError(2, "cannot sort with keys that are parallel arrays") from error
    return min(
        b"".join(
            encode_key(value).translate(_INVERTED) if down else encode_key(value)
            for value, (_, down) in zip(key, parsed, strict=True)
        )
        for key in keys
    )


def sort_documents(documents: Iterable[Document], spec: Pattern) -> list[Document]:
    """Sort documents, stably. A missing field counts as null, an array by its smallest or largest element."""
    parsed = sort_pattern(spec)
    return sorted(documents, key=lambda document: _sort_key(document, parsed))
