"""Evaluate expressions on arrays, sets and documents. Pure."""

from collections.abc import Callable, Mapping
from typing import Any

from mydocs.localserver.errors import CommandError
from mydocs.localserver.query.expressions.core import (
    Builder,
    Compiler,
    Evaluate,
    Scope,
    functions,
    named_functions,
    nullish,
    truthy,
    wrong_type,
)
from mydocs.localserver.query.values import (
    MISSING,
    as_document,
    encode_key,
    equal,
    sort_documents,
    to_int,
    type_name,
)


def _array(name: str, value: Any, code: int) -> list[Any]:
    if not isinstance(value, list):
        raise wrong_type(name, "an array", value, code)
    return value


def _whole(name: str, value: Any, code: int) -> int:
    number = to_int(value)
    if number is None:
        raise wrong_type(name, "a whole number", value, code)
    return number


def _size(value: Any) -> int:
    if not isinstance(value, list):
        raise CommandError(17124, f"The argument to $size must be an array, but was of type: {type_name(value)}")
    return len(value)


def _element_at(array: Any, index: Any) -> Any:
    items, at = _array("$arrayElemAt", array, 28689), _whole("$arrayElemAt", index, 28691)
    return items[at] if -len(items) <= at < len(items) else MISSING


def _end(name: str, index: int) -> Callable[[Any], Any]:
    def evaluate(array: Any) -> Any:
        items = _array(name, array, 28689)
        return items[index] if items else MISSING

    return evaluate


def _slice(array: Any, first: Any, count: Any = None) -> list[Any]:
    items, start = _array("$slice", array, 28724), _whole("$slice", first, 28725)
    if count is None:
        return items[:start] if start >= 0 else items[start:]
    size = _whole("$slice", count, 28727)
    if size <= 0:
        raise CommandError(28729, f"Third argument to $slice must be positive: {size}")
    at = start if start >= 0 else max(0, len(items) + start)
    return items[at : at + size]


def _concat_arrays(*arrays: Any) -> list[Any]:
    return [item for array in arrays for item in _array("$concatArrays", array, 28664)]


def _in(value: Any, array: Any) -> bool:
    if not isinstance(array, list):
        raise CommandError(40081, f"$in requires an array as a second argument, found: {type_name(array)}")
    return any(equal(value, item) for item in array)


def _index_of(array: Any, value: Any, start: Any = 0, end: Any = None) -> Any:
    if nullish(array):
        return None
    items = _array("$indexOfArray", array, 40090)
    low = _whole("$indexOfArray", start, 40096)
    high = len(items) if end is None else _whole("$indexOfArray", end, 40096)
    if low < 0 or high < 0:
        raise CommandError(40097, "$indexOfArray requires non-negative indexes")
    return next((at for at in range(low, min(high, len(items))) if equal(items[at], value)), -1)


MOST_NUMBERS = 100 * 1024 * 1024 // 16  # `internalQueryMaxRangeBytes`, 100 MiB of values of 16 bytes


def _range(start: Any, end: Any, step: Any = 1) -> list[int]:
    by = _whole("$range", step, 34447)
    if by == 0:
        raise CommandError(34449, "$range requires a non-zero step value")
    numbers = range(_whole("$range", start, 34443), _whole("$range", end, 34445), by)
    if len(numbers) > MOST_NUMBERS:
        raise CommandError(146, f"$range would use too much memory: it has {len(numbers)} numbers")
    return list(numbers)


def _reverse(array: Any) -> list[Any]:
    return _array("$reverseArray", array, 34435)[::-1]


def _zip(inputs: Any, useLongestLength: Any = False, defaults: Any = None) -> Any:  # noqa: N803  # the server's name
    arrays = _array("$zip", inputs, 34461)
    if any(nullish(array) for array in arrays):
        return None
    for array in arrays:
        _array("$zip", array, 34468)
    if defaults is not None and not truthy(useLongestLength):
        raise CommandError(34466, "cannot specify defaults unless useLongestLength is true")
    if defaults is not None and len(defaults) != len(arrays):
        raise CommandError(34467, "defaults and inputs must have the same length")
    fill = defaults or [None] * len(arrays)
    length = (max if truthy(useLongestLength) else min)((len(array) for array in arrays), default=0)
    return [
        [array[at] if at < len(array) else other for array, other in zip(arrays, fill, strict=True)]
        for at in range(length)
    ]


def sort_array(items: list[Any], order: Any) -> list[Any]:
    """Sort values by a direction, or documents by a sort specification."""
    if isinstance(order, Mapping):
        return _by_fields(items, order)
    if to_int(order) not in (1, -1):
        raise CommandError(2, "The $sort element value must be either 1 or -1")
    return sorted(items, key=encode_key, reverse=to_int(order) == -1)


def _by_fields(items: list[Any], order: Mapping[str, Any]) -> list[Any]:
    # A value that is not a document has none of the fields and sorts as null.
    wrapped = [{"item": item} for item in items]
    spec = [(f"item.{path}", direction) for path, direction in order.items()]
    return [entry["item"] for entry in sort_documents(wrapped, spec)]


def _sort_array(value: Any, sortBy: Any) -> Any:  # noqa: N803  # the server's name
    if nullish(value):
        return None
    return sort_array(_array("$sortArray", value, 2942504), sortBy)


def _array_to_object(array: Any) -> dict[str, Any]:
    entries = _array("$arrayToObject", array, 40386)
    if not entries:
        return {}
    # The first element decides which of the two forms all must have.
    if isinstance(entries[0], list):
        pairs = [_pair(entry) for entry in entries]
        wrong_key = 40395
    elif as_document(entries[0]) is not None:
        pairs = [_key_and_value(as_document(entry)) for entry in entries]
        wrong_key = 40394
    else:
        raise CommandError(40398, f"Unrecognised input type format for $arrayToObject: {type_name(entries[0])}")
    found: dict[str, Any] = {}
    for key, value in pairs:
        if not isinstance(key, str):
            raise CommandError(wrong_key, f"$arrayToObject requires keys that are strings, not {type_name(key)}")
        found[key] = value
    return found


_MIXED = "$arrayToObject requires a consistent input format. Elements must all be arrays or all be objects."


def _pair(entry: Any) -> tuple[Any, Any]:
    if not isinstance(entry, list):
        raise CommandError(40396, f"{_MIXED} Array was detected, now found: {type_name(entry)}")
    if len(entry) != 2:
        raise CommandError(40397, f"$arrayToObject requires arrays of size 2, found one of size {len(entry)}")
    return entry[0], entry[1]


def _key_and_value(entry: Mapping[str, Any] | None) -> tuple[Any, Any]:
    if entry is None:
        raise CommandError(40391, f"{_MIXED} Object was detected, now found something else")
    if len(entry) != 2:
        raise CommandError(40392, f"$arrayToObject requires objects of the keys 'k' and 'v', not {list(entry)}")
    if not entry.keys() >= {"k", "v"}:
        raise CommandError(40393, f"$arrayToObject requires objects of the keys 'k' and 'v', not {list(entry)}")
    return entry["k"], entry["v"]


def _object_to_array(value: Any) -> list[dict[str, Any]]:
    document = as_document(value)
    if document is None:
        raise wrong_type("$objectToArray", "a document", value, 40390)
    return [{"k": key, "v": inner} for key, inner in document.items()]


def distinct(values: Any) -> list[Any]:
    """Return the values without those that equal an earlier one."""
    found: dict[bytes, Any] = {}
    for value in values:
        found.setdefault(encode_key(value), value)
    return list(found.values())


def _sets(name: str, values: tuple[Any, ...]) -> list[dict[bytes, Any]]:
    return [{encode_key(item): item for item in _array(name, value, 17043)} for value in values]


def _ordered(found: Mapping[bytes, Any]) -> list[Any]:
    # The order of a set is not defined. The server also returns it sorted.
    return [found[key] for key in sorted(found)]


def _set_union(*values: Any) -> list[Any]:
    return _ordered({key: item for each in _sets("$setUnion", values) for key, item in each.items()})


def _set_intersection(*values: Any) -> list[Any]:
    first, *others = _sets("$setIntersection", values) or [{}]
    return _ordered({key: item for key, item in first.items() if all(key in other for other in others)})


def _set_difference(a: Any, b: Any) -> list[Any]:
    _, other = _sets("$setDifference", (a, b))
    return [item for item in distinct(a) if encode_key(item) not in other]


def _set_equals(*values: Any) -> bool:
    first, *others = _sets("$setEquals", values)
    return all(first.keys() == other.keys() for other in others)


def _set_is_subset(a: Any, b: Any) -> bool:
    part, whole = _sets("$setIsSubset", (a, b))
    return part.keys() <= whole.keys()


def _element_truth(name: str, test: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: test(truthy(item) for item in _array(name, value, 17040))


def merge_objects(values: list[Any]) -> dict[str, Any]:
    """Merge documents, later ones over earlier ones. Null and missing are ignored."""
    merged: dict[str, Any] = {}
    for value in values:
        if nullish(value):
            continue
        document = as_document(value)
        if document is None:
            raise CommandError(40400, f"$mergeObjects requires object inputs, but input is of type {type_name(value)}")
        merged.update(document)
    return merged


def _merge(*values: Any) -> dict[str, Any]:
    return merge_objects(values[0] if len(values) == 1 and isinstance(values[0], list) else list(values))


def _over_items(name: str, argument: Any, compiler: Compiler) -> Evaluate:
    body = "cond" if name == "$filter" else "in"
    compiler.check_named(name, argument, ("input", body), ("as", "limit") if name == "$filter" else ("as",))
    variable = argument.get("as", "this")
    compiler.check_variable(variable)
    source = compiler.expression(argument["input"])
    inside = compiler.binding(variable).expression(argument[body])
    limit = compiler.expression(argument["limit"]) if "limit" in argument else None

    def evaluate(scope: Scope) -> Any:
        items = source(scope)
        if nullish(items):
            return None
        _array(name, items, 28651 if name == "$filter" else 16883)
        results = ((item, inside({**scope, variable: item})) for item in items)
        if name == "$map":
            return [None if result is MISSING else result for _, result in results]
        most = None if limit is None else limit(scope)
        if not nullish(most) and (to_int(most) or 0) < 1:
            raise CommandError(327392, "$filter: limit must be represented as a whole number greater than 0")
        kept = [item for item, result in results if truthy(result)]
        return kept if nullish(most) else kept[: to_int(most)]

    return evaluate


def _reduce(name: str, argument: Any, compiler: Compiler) -> Evaluate:
    compiler.check_named(name, argument, ("input", "initialValue", "in"))
    source, first = compiler.expression(argument["input"]), compiler.expression(argument["initialValue"])
    inside = compiler.binding("this", "value").expression(argument["in"])

    def evaluate(scope: Scope) -> Any:
        items = source(scope)
        if nullish(items):
            return None
        value = first(scope)
        for item in _array(name, items, 40080):
            value = inside({**scope, "this": item, "value": value})
        return value

    return evaluate


def _constant_field(name: str, field: Any, compiler: Compiler) -> str:
    found = compiler.literal_name(field)
    if found is None:
        raise CommandError(
            5654602 if name == "$getField" else 4161107,
            f"{name} requires 'field' to evaluate to a constant string",
        )
    return found


def _get_field(name: str, argument: Any, compiler: Compiler) -> Evaluate:
    if isinstance(argument, Mapping) and "field" in argument:
        compiler.check_named(name, argument, ("field",), ("input",))
        field, source = _constant_field(name, argument["field"], compiler), argument.get("input", "$$CURRENT")
    else:
        field, source = _constant_field(name, argument, compiler), "$$CURRENT"
    value = compiler.expression(source)

    def evaluate(scope: Scope) -> Any:
        found = value(scope)
        if found is None:
            return None
        document = as_document(found)
        return MISSING if document is None else document.get(field, MISSING)

    return evaluate


def _set_field(name: str, argument: Any, compiler: Compiler) -> Evaluate:
    compiler.check_named(name, argument, ("field", "input", "value") if name == "$setField" else ("field", "input"))
    field, source = _constant_field(name, argument["field"], compiler), compiler.expression(argument["input"])
    value = compiler.expression(argument.get("value", "$$REMOVE"))

    def evaluate(scope: Scope) -> Any:
        found = source(scope)
        if nullish(found):
            return None
        document = as_document(found)
        if document is None:
            raise wrong_type(name, "'input' to be an object", found, 4161105)
        result, new = dict(document), value(scope)
        if new is MISSING:
            result.pop(field, None)
        else:
            result[field] = new
        return result

    return evaluate


ARRAYS: dict[str, Builder] = {
    "$filter": _over_items,
    "$map": _over_items,
    "$reduce": _reduce,
    "$getField": _get_field,
    "$setField": _set_field,
    "$unsetField": _set_field,
    **functions(
        {
            "$arrayElemAt": (_element_at, 2, 2),
            "$first": (_end("$first", 0), 1, 1),
            "$last": (_end("$last", -1), 1, 1),
            "$slice": (_slice, 2, 3),
            "$concatArrays": (_concat_arrays, 0, None),
            "$reverseArray": (_reverse, 1, 1),
            "$arrayToObject": (_array_to_object, 1, 1),
            "$objectToArray": (_object_to_array, 1, 1),
            "$setUnion": (_set_union, 0, None),
            "$setIntersection": (_set_intersection, 0, None),
            "$setDifference": (_set_difference, 2, 2),
        },
        null=True,
    ),
    **functions(
        {
            "$size": (_size, 1, 1),
            "$in": (_in, 2, 2),
            "$indexOfArray": (_index_of, 2, 4),
            "$isArray": (lambda value: isinstance(value, list), 1, 1),
            "$range": (_range, 2, 3),
            "$setEquals": (_set_equals, 2, None),
            "$setIsSubset": (_set_is_subset, 2, 2),
            "$anyElementTrue": (_element_truth("$anyElementTrue", any), 1, 1),
            "$allElementsTrue": (_element_truth("$allElementsTrue", all), 1, 1),
            "$mergeObjects": (_merge, 0, None),
        }
    ),
    **named_functions(
        {
            "$zip": (_zip, ("inputs",), ("useLongestLength", "defaults")),
            "$sortArray": (_sort_array, ("input", "sortBy"), ()),
        }
    ),
}
