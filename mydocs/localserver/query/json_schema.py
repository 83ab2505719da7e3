"""Compile a ``$jsonSchema`` to a predicate of values: MongoDB's version of JSON Schema, draft 4. Pure."""

import itertools
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from mydocs.localserver.errors import CommandError, NotKnown
from mydocs.localserver.query.regexes import compile_regex
from mydocs.localserver.query.values import (
    MISSING,
    as_document,
    compare,
    encode_key,
    equal,
    is_number,
    to_decimal,
    to_int,
    type_aliases,
    type_name,
)

Check: TypeAlias = Callable[[Any], bool]
Keyword: TypeAlias = Callable[[str, Any, Mapping[str, Any]], Check]

JSON_TYPES = {
    "object": "object",
    "array": "array",
    "number": "number",
    "boolean": "bool",
    "string": "string",
    "null": "null",
}
NOTES = frozenset({"title", "description"})


def compile_schema(schema: Any) -> Check:
    """
    Return a predicate of a value. ``MISSING`` passes, since only ``required`` demands a property.

    :raises CommandError: 9 or 14 for a schema that is not valid
    """
    document = as_document(schema)
    if document is None:
        raise CommandError(14, f"$jsonSchema must be an object, not {type_name(schema)}")
    checks = [
        KEYWORDS[name](name, value, document)
        for name, value in document.items()
        if name not in NOTES and _known(name, value)
    ]
    return lambda value: value is MISSING or all(check(value) for check in checks)


def _known(name: str, value: Any) -> bool:
    if name in ("$ref", "$schema", "default", "definitions", "format", "id", "encrypt", "encryptMetadata"):
        if name.startswith("encrypt"):
            raise NotKnown(f"'{name}' in a $jsonSchema")
        raise CommandError(9, f"$jsonSchema keyword '{name}' is not currently supported")
    if name not in KEYWORDS:
        raise CommandError(9, f"Unknown $jsonSchema keyword: {name}")
    del value
    return True


def _only(kinds: tuple[str, ...], check: Check) -> Check:
    """Apply a check to values of some types. All others pass."""
    return lambda value: type_name(value) not in kinds or check(value)


NUMBERS = ("int", "long", "double", "decimal")


def _types(name: str, value: Any, _: Mapping[str, Any]) -> Check:
    given = value if isinstance(value, list) else [value]
    if not given or not all(isinstance(one, str) for one in given):
        raise CommandError(14 if given else 9, f"$jsonSchema keyword '{name}' must name types by strings")
    if name == "type":
        if wrong := [one for one in given if one not in JSON_TYPES]:
            raise CommandError(9 if wrong[0] == "integer" else 2, f"Unknown type name alias: {wrong[0]}")
        given = [JSON_TYPES[one] for one in given]
    wanted = frozenset(itertools.chain.from_iterable(type_aliases(one) for one in given))
    return lambda found: type_name(found) in wanted


def _whole(name: str, value: Any) -> int:
    number = to_int(value)
    if number is None or number < 0:
        code = 14 if not is_number(value) else 9
        raise CommandError(code, f"$jsonSchema keyword '{name}' must be a whole number of at least 0")
    return number


def _length(kind: str, size: Callable[[Any], int], sign: int) -> Keyword:
    def keyword(name: str, value: Any, _: Mapping[str, Any]) -> Check:
        bound = _whole(name, value)
        return _only((kind,), lambda found: (size(found) - bound) * sign >= 0)

    return keyword


def _bound(sign: int, exclusive: str) -> Keyword:
    def keyword(name: str, value: Any, schema: Mapping[str, Any]) -> Check:
        if not is_number(value):
            raise CommandError(14, f"$jsonSchema keyword '{name}' must be a number")
        strict = schema.get(exclusive, False) is True
        return _only(NUMBERS, lambda found: compare(found, value) * sign > (0 if strict else -1))

    return keyword


def _exclusive(of: str) -> Keyword:
    def keyword(name: str, value: Any, schema: Mapping[str, Any]) -> Check:
        if not isinstance(value, bool):
            raise CommandError(14, f"$jsonSchema keyword '{name}' must be a boolean")
        if of not in schema:
            raise CommandError(9, f"$jsonSchema keyword '{of}' must be present if {name} is present")
        return lambda _: True

    return keyword


def _multiple(name: str, value: Any, _: Mapping[str, Any]) -> Check:
    if not is_number(value):
        raise CommandError(14, f"$jsonSchema keyword '{name}' must be a number")
    if to_decimal(value) <= 0:
        raise CommandError(9, f"$jsonSchema keyword '{name}' must have a positive value")
    return _only(NUMBERS, lambda found: to_decimal(found).is_finite() and to_decimal(found) % to_decimal(value) == 0)


def _pattern(name: str, value: Any, _: Mapping[str, Any]) -> Check:
    if not isinstance(value, str):
        raise CommandError(14, f"$jsonSchema keyword '{name}' must be a string")
    compiled = compile_regex(value, None)
    return _only(("string",), lambda found: compiled.search(found) is not None)


def _enum(name: str, value: Any, _: Mapping[str, Any]) -> Check:
    if not isinstance(value, list):
        raise CommandError(14, f"$jsonSchema keyword '{name}' must be an array")
    keys = {encode_key(one) for one in value}
    if not value or len(keys) != len(value):
        raise CommandError(9, f"$jsonSchema keyword '{name}' must be an array of different values")
    return lambda found: any(equal(found, one) for one in value)


def _strings(name: str, value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise CommandError(14, f"$jsonSchema keyword '{name}' must be an array of strings")
    if not value or len(set(value)) != len(value):
        raise CommandError(9, f"$jsonSchema keyword '{name}' must be an array of different strings")
    return value


def _required(name: str, value: Any, _: Mapping[str, Any]) -> Check:
    names = _strings(name, value)
    return _only(("object",), lambda found: all(one in (as_document(found) or {}) for one in names))


def _schemas(name: str, value: Any) -> dict[str, Check]:
    document = as_document(value)
    if document is None:
        raise CommandError(14, f"$jsonSchema keyword '{name}' must be an object")
    return {key: compile_schema(inner) for key, inner in document.items()}


def _properties(name: str, value: Any, _: Mapping[str, Any]) -> Check:
    checks = _schemas(name, value)
    return _only(
        ("object",),
        lambda found: all(check((as_document(found) or {}).get(key, MISSING)) for key, check in checks.items()),
    )


def _pattern_properties(name: str, value: Any, _: Mapping[str, Any]) -> Check:
    checks = [(compile_regex(pattern, None), check) for pattern, check in _schemas(name, value).items()]
    return _only(
        ("object",),
        lambda found: all(
            check(inner)
            for key, inner in (as_document(found) or {}).items()
            for pattern, check in checks
            if pattern.search(key)
        ),
    )


def _rest(name: str, value: Any) -> Check:
    if isinstance(value, bool):
        return lambda _: value
    if as_document(value) is None:
        raise CommandError(14, f"$jsonSchema keyword '{name}' must be either an object or a boolean")
    return compile_schema(value)


def _additional_properties(name: str, value: Any, schema: Mapping[str, Any]) -> Check:
    check = _rest(name, value)
    known = set(as_document(schema.get("properties")) or {})
    patterns = [compile_regex(pattern, None) for pattern in as_document(schema.get("patternProperties")) or {}]

    def holds(found: Any) -> bool:
        return all(
            check(inner)
            for key, inner in (as_document(found) or {}).items()
            if key not in known and not any(pattern.search(key) for pattern in patterns)
        )

    return _only(("object",), holds)


def _items(name: str, value: Any, _: Mapping[str, Any]) -> Check:
    if isinstance(value, list):
        checks = [compile_schema(one) for one in value]
        return _only(("array",), lambda found: all(check(one) for check, one in zip(checks, found, strict=False)))
    if as_document(value) is None:
        raise CommandError(14, f"$jsonSchema keyword '{name}' must be an array or an object")
    each = compile_schema(value)
    return _only(("array",), lambda found: all(map(each, found)))


def _additional_items(name: str, value: Any, schema: Mapping[str, Any]) -> Check:
    check, items = _rest(name, value), schema.get("items")
    if not isinstance(items, list):
        return lambda _: True
    return _only(("array",), lambda found: all(map(check, found[len(items) :])))


def _unique(name: str, value: Any, _: Mapping[str, Any]) -> Check:
    if not isinstance(value, bool):
        raise CommandError(14, f"$jsonSchema keyword '{name}' must be a boolean")
    return _only(("array",), lambda found: not value or len({encode_key(one) for one in found}) == len(found))


def _dependencies(name: str, value: Any, _: Mapping[str, Any]) -> Check:
    document = as_document(value)
    if document is None:
        raise CommandError(14, f"$jsonSchema keyword '{name}' must be an object")
    checks = {
        key: _required(name, inner, {}) if isinstance(inner, list) else compile_schema(inner)
        for key, inner in document.items()
    }
    return _only(
        ("object",),
        lambda found: all(check(found) for key, check in checks.items() if key in (as_document(found) or {})),
    )


def _several(combine: Callable[[list[bool]], bool]) -> Keyword:
    def keyword(name: str, value: Any, _: Mapping[str, Any]) -> Check:
        if not isinstance(value, list):
            raise CommandError(14, f"$jsonSchema keyword '{name}' must be an array")
        if not value:
            raise CommandError(2, f"$jsonSchema keyword '{name}' must be a non-empty array")
        checks = [compile_schema(one) for one in value]
        return lambda found: combine([check(found) for check in checks])

    return keyword


def _not(name: str, value: Any, _: Mapping[str, Any]) -> Check:
    del name
    check = compile_schema(value)
    return lambda found: not check(found)


KEYWORDS: Mapping[str, Keyword] = {
    "bsonType": _types,
    "type": _types,
    "enum": _enum,
    "required": _required,
    "properties": _properties,
    "patternProperties": _pattern_properties,
    "additionalProperties": _additional_properties,
    "dependencies": _dependencies,
    "minProperties": _length("object", lambda found: len(as_document(found) or {}), 1),
    "maxProperties": _length("object", lambda found: len(as_document(found) or {}), -1),
    "items": _items,
    "additionalItems": _additional_items,
    "minItems": _length("array", len, 1),
    "maxItems": _length("array", len, -1),
    "uniqueItems": _unique,
    "minLength": _length("string", len, 1),
    "maxLength": _length("string", len, -1),
    "pattern": _pattern,
    "minimum": _bound(1, "exclusiveMinimum"),
    "maximum": _bound(-1, "exclusiveMaximum"),
    "exclusiveMinimum": _exclusive("minimum"),
    "exclusiveMaximum": _exclusive("maximum"),
    "multipleOf": _multiple,
    "allOf": _several(all),
    "anyOf": _several(any),
    "oneOf": _several(lambda passed: passed.count(True) == 1),
    "not": _not,
}
