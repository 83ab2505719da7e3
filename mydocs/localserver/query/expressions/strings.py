"""Evaluate expressions on strings. Pure."""

import hashlib
import re
import struct
from collections.abc import Callable
from typing import Any

from bson.int64 import Int64
from bson.timestamp import Timestamp

from mydocs.localserver.errors import CommandError, NotKnown
from mydocs.localserver.query.expressions.core import Builder, functions, named_functions, nullish, wrong_type
from mydocs.localserver.query.expressions.types import to_text
from mydocs.localserver.query.regexes import compile_regex
from mydocs.localserver.query.values import to_int, type_name

# What $trim removes without `chars`: the server's list of white space (expression_trim.h).
_SPACES = "\0\t\n\v\f\r \xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"

_HASH_SEED, _RANK_OF_TEXTS = 0, 10  # for hashed indexes; canonicalizeBSONType(String)


def _coerced(value: Any) -> str:
    """Return a value as a string by the older operators' rules, which differ from `$toString` (coerceToString)."""
    if nullish(value):
        return ""
    if isinstance(value, Timestamp):
        raise NotKnown("a timestamp as a string")
    if type_name(value) not in ("string", "int", "long", "double", "decimal", "date", "javascript"):
        raise CommandError(16007, f"can't convert from BSON type {type_name(value)} to String")
    return to_text(value)


def _ascii_lower(value: Any) -> str:
    text = _coerced(value)
    return "".join(letter.lower() if letter.isascii() else letter for letter in text)


def _ascii_upper(value: Any) -> str:
    text = _coerced(value)
    return "".join(letter.upper() if letter.isascii() else letter for letter in text)


def _concat(*values: Any) -> Any:
    for value in values:
        if not isinstance(value, str):
            raise wrong_type("$concat", "strings", value, 16702)
    return "".join(values)


def _string(name: str, value: Any, code: int) -> str:
    if not isinstance(value, str):
        raise wrong_type(name, "a string", value, code)
    return value


def _length(name: str, code: int, count: Callable[[str], int]) -> Callable[[Any], int]:
    return lambda value: count(_string(name, value, code))


def _substr_cp(value: Any, start: Any, count: Any) -> str:
    text = _coerced(value)
    at, size = to_int(start), to_int(count)
    if at is None or at < 0 or size is None or size < 0:
        raise CommandError(34450, "$substrCP: starting index and length must be non-negative whole numbers")
    return text[at : at + size]


def _substr_bytes(value: Any, start: Any, count: Any) -> str:
    data = _coerced(value).encode()
    at, size = to_int(start), to_int(count)
    if at is None or size is None:
        raise CommandError(16034, "$substrBytes: starting index and length must be whole numbers")
    if at < 0:
        raise CommandError(50752, "$substrBytes: starting index must be non-negative")
    part = data[at:] if size < 0 else data[at : at + size]
    try:
        return part.decode()
    except UnicodeDecodeError as error:
        raise CommandError(28656, "$substrBytes: Invalid range, starting or ending in the middle of a character") from (
            error
        )


def _split(value: Any, separator: Any) -> list[str]:
    text, by = _string("$split", value, 40085), _string("$split", separator, 40086)
    if not by:
        raise CommandError(40087, "$split requires a non-empty separator")
    return text.split(by)


def _trim(left: bool, right: bool) -> Callable[..., Any]:
    def evaluate(value: Any, chars: Any = _SPACES) -> Any:
        if nullish(value) or nullish(chars):
            return None
        text, taken = _string("$trim", value, 50699), _string("$trim", chars, 50700)
        text = text.lstrip(taken) if left else text
        return text.rstrip(taken) if right else text

    return evaluate


def _index_of(value: Any, wanted: Any, start: Any = 0, end: Any = None) -> Any:
    if nullish(value):
        return None
    text, part = _string("$indexOfCP", value, 40093), _string("$indexOfCP", wanted, 40094)
    low = to_int(start)
    high = len(text) if end is None else to_int(end)
    if low is None or low < 0 or high is None or high < 0:
        raise CommandError(40097, "$indexOfCP requires non-negative whole numbers as bounds")
    return text.find(part, low, high) if low <= len(text) else -1


def _regex(name: str, value: Any, regex: Any, options: Any) -> tuple[str, re.Pattern[str]] | None:
    if nullish(value) or nullish(regex):
        return None
    if not nullish(options) and not isinstance(options, str):
        raise CommandError(51106, f"{name} needs 'options' to be of type string")
    return _string(name, value, 51104), compile_regex(regex, options or None, owner=name)


def _found(match: re.Match[str]) -> dict[str, Any]:
    return {"match": match.group(), "idx": match.start(), "captures": list(match.groups())}


def _regex_match(value: Any, regex: Any, options: Any = None) -> bool:
    given = _regex("$regexMatch", value, regex, options)
    return given is not None and given[1].search(given[0]) is not None


def _regex_find(value: Any, regex: Any, options: Any = None) -> Any:
    given = _regex("$regexFind", value, regex, options)
    match = given and given[1].search(given[0])
    return _found(match) if match else None


def _regex_find_all(value: Any, regex: Any, options: Any = None) -> list[Any]:
    given = _regex("$regexFindAll", value, regex, options)
    return [_found(match) for match in given[1].finditer(given[0])] if given else []


def _replace(name: str, count: int) -> Callable[..., Any]:
    def evaluate(value: Any, find: Any, replacement: Any) -> Any:
        if nullish(value) or nullish(find) or nullish(replacement):
            return None
        if not isinstance(find, str):
            raise (
                NotKnown(f"{name} with a regular expression")
                if not nullish(find)
                else wrong_type(name, "a string", find, 51745)
            )
        return _string(name, value, 51746).replace(find, _string(name, replacement, 51744), count)

    return evaluate


def _strcasecmp(a: Any, b: Any) -> int:
    left, right = _ascii_upper(a).encode(), _ascii_upper(b).encode()
    return (left > right) - (left < right)


def _hashed(value: Any) -> Int64:
    """Hash a text as a hashed index does: MD5 over a seed, the type's rank and the value as in BSON (hasher.cpp)."""
    if not isinstance(value, str):
        raise NotKnown(f"$toHashedIndexKey of a value of type {type_name(value)}")
    text = value.encode()
    hashed = struct.pack("<iii", _HASH_SEED, _RANK_OF_TEXTS, len(text) + 1) + text + b"\0"
    return Int64(struct.unpack("<q", hashlib.md5(hashed, usedforsecurity=False).digest()[:8])[0])


STRINGS: dict[str, Builder] = {
    **functions({"$concat": (_concat, 0, None), "$split": (_split, 2, 2)}, null=True),
    **functions(
        {
            "$toLower": (_ascii_lower, 1, 1),
            "$toUpper": (_ascii_upper, 1, 1),
            "$substrCP": (_substr_cp, 3, 3),
            "$substrBytes": (_substr_bytes, 3, 3),
            "$substr": (_substr_bytes, 3, 3),
            "$strLenCP": (_length("$strLenCP", 34471, len), 1, 1),
            "$strLenBytes": (_length("$strLenBytes", 34473, lambda text: len(text.encode())), 1, 1),
            "$indexOfCP": (_index_of, 2, 4),
            "$strcasecmp": (_strcasecmp, 2, 2),
            "$toHashedIndexKey": (_hashed, 1, 1),
        }
    ),
    **named_functions(
        {
            "$trim": (_trim(True, True), ("input",), ("chars",)),
            "$ltrim": (_trim(True, False), ("input",), ("chars",)),
            "$rtrim": (_trim(False, True), ("input",), ("chars",)),
            "$regexMatch": (_regex_match, ("input", "regex"), ("options",)),
            "$regexFind": (_regex_find, ("input", "regex"), ("options",)),
            "$regexFindAll": (_regex_find_all, ("input", "regex"), ("options",)),
            "$replaceOne": (_replace("$replaceOne", 1), ("input", "find", "replacement"), ()),
            "$replaceAll": (_replace("$replaceAll", -1), ("input", "find", "replacement"), ()),
        }
    ),
}
