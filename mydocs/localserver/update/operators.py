"""Apply each update operator to the value at its path. Pure."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final, TypeAlias

from bson.regex import Regex
from bson.timestamp import Timestamp

from mydocs.localserver.errors import CommandError
from mydocs.localserver.query.arithmetic import add, integer, multiply, number_kind
from mydocs.localserver.query.expressions.arrays import sort_array
from mydocs.localserver.query.match import compile_filter
from mydocs.localserver.query.text import shown
from mydocs.localserver.query.values import (
    MISSING,
    as_document,
    compare,
    encode_key,
    equal,
    from_millis,
    is_number,
    split_path,
    to_int,
    to_millis,
    type_name,
)

Change: TypeAlias = Callable[[Any], Any]
"""From the value at a path, or ``MISSING``, to the new one, ``KEEP`` or ``REMOVE``."""
Operator: TypeAlias = Callable[[str, Any, datetime], Change]

KEEP: Final = object()
REMOVE: Final = object()
_SHARED = (dict, list)


def copied(value: Any) -> Any:
    """Copy the argument of an operator, so that two places never share it."""
    if isinstance(value, dict):
        # Only few parts of a document can be shared, and a call for each of the others is slow.
        return {key: copied(inner) if isinstance(inner, _SHARED) else inner for key, inner in value.items()}
    return [copied(inner) for inner in value] if isinstance(value, list) else value


def _set(path: str, argument: Any, now: datetime) -> Change:
    del path, now
    return lambda _: copied(argument)


def _unset(path: str, argument: Any, now: datetime) -> Change:
    del path, argument, now
    return lambda _: REMOVE


def _number(verb: str, argument: Any, path: str) -> None:
    if not is_number(argument):
        raise CommandError(14, f"Cannot {verb} with non-numeric argument: {{{path}: {shown(argument)}}}")


def _inc(path: str, argument: Any, now: datetime) -> Change:
    del now
    _number("increment", argument, path)
    return _calculated("$inc", path, argument, argument, add)


def _mul(path: str, argument: Any, now: datetime) -> Change:
    del now
    _number("multiply", argument, path)
    return _calculated("$mul", path, argument, multiply(argument, 0), multiply)


def _calculated(operator: str, path: str, argument: Any, start: Any, function: Callable[..., Any]) -> Change:
    def change(old: Any) -> Any:
        if old is MISSING:
            return start
        if not is_number(old):
            raise CommandError(
                14,
                f"Cannot apply {operator} to a value of non-numeric type. The field '{path}' is of non-numeric type "
                f"{type_name(old)}",
            )
        return function(
            old, argument, overflow=f"Failed to apply {operator} operations to current value ({old}) of '{path}'"
        )

    return change


def _extreme(sign: int) -> Operator:
    def operator(path: str, argument: Any, now: datetime) -> Change:
        del path, now
        return lambda old: copied(argument) if old is MISSING or compare(argument, old) * sign > 0 else KEEP

    return operator


def _current_date(path: str, argument: Any, now: datetime) -> Change:
    if isinstance(argument, bool):
        kind: Any = "date"
    elif isinstance(argument, Mapping) and set(argument) == {"$type"}:
        kind = argument["$type"]
    else:
        raise CommandError(
            2,
            f"{type_name(argument)} is not valid type for $currentDate. Please use a boolean ('true') or a $type "
            f"expression ({{$type: 'timestamp/date'}}) at '{path}'.",
        )
    if kind not in ("date", "timestamp"):
        raise CommandError(
            2,
            "The '$type' string field is required to be 'date' or 'timestamp': "
            "{$currentDate: {field : {$type: 'date'}}}",
        )
    value = from_millis(to_millis(now)) if kind == "date" else Timestamp(to_millis(now) // 1000, 1)
    return lambda _: value


def _array(path: str, old: Any) -> list[Any]:
    if old is MISSING:
        return []
    if not isinstance(old, list):
        raise CommandError(2, f"The field '{path}' must be an array but is of type {type_name(old)}")
    return list(old)


def _pushed(argument: Any) -> tuple[list[Any], Mapping[str, Any]]:
    if not (isinstance(argument, Mapping) and "$each" in argument):
        return [argument], {}
    if unknown := [key for key in argument if key not in ("$each", "$slice", "$sort", "$position")]:
        raise CommandError(2, f"Unrecognized clause in $push: {unknown[0]}")
    items = argument["$each"]
    if not isinstance(items, list):
        raise CommandError(2, f"The argument to $each in $push must be an array but it was of type: {type_name(items)}")
    return items, argument


def _whole(argument: Mapping[str, Any], name: str) -> int | None:
    if name not in argument:
        return None
    number = to_int(argument[name])
    if number is None:
        raise CommandError(2, f"The value for {name} must be an integer value but was given: {shown(argument[name])}")
    return number


def _check_sort(order: Any) -> None:
    """Refuse an order by which $push cannot sort; always code 2 (pattern_cmp.cpp, checkSortClause)."""
    if not isinstance(order, Mapping):
        if not is_number(order):
            raise CommandError(
                2,
                "The $sort is invalid: use 1/-1 to sort the whole element, or {field:1/-1} to sort embedded fields",
            )
        directions = [order]
    else:
        if not order:
            raise CommandError(2, "The sort pattern is empty when it should be a set of fields.")
        for path in order:
            if not path:
                raise CommandError(2, "The sort field cannot be empty")
            if "" in split_path(path):
                raise CommandError(2, f"The sort field is a dotted field but has an empty part: {path}")
        directions = list(order.values())
    if any(to_int(direction) not in (1, -1) for direction in directions):
        raise CommandError(2, "The sort element value must be either 1 or -1")


def _push(path: str, argument: Any, now: datetime) -> Change:
    del now
    items, options = _pushed(argument)
    if "$sort" in options:
        _check_sort(options["$sort"])
    position, keep = _whole(options, "$position"), _whole(options, "$slice")

    def change(old: Any) -> Any:
        array = _array(path, old)
        at = len(array) if position is None else position
        # Counted from the end of the old array. A place beyond either end means that end.
        at = max(0, len(array) + at) if at < 0 else at
        array[at:at] = copied(items)
        if "$sort" in options:
            array = sort_array(array, options["$sort"])
        if keep is not None:
            array = array[:keep] if keep >= 0 else array[keep:]
        return array

    return change


def _add_to_set(path: str, argument: Any, now: datetime) -> Change:
    del now
    items = [argument]
    if isinstance(argument, Mapping) and next(iter(argument), "") == "$each":
        items = argument["$each"]
        if not isinstance(items, list):
            raise CommandError(
                14, f"The argument to $each in $addToSet must be an array but it was of type {type_name(items)}"
            )
        if len(argument) > 1:
            raise CommandError(2, f"Found unexpected fields after $each in $addToSet: {shown(argument)}")

    def change(old: Any) -> Any:
        array = _array(path, old)
        present = {encode_key(item) for item in array}
        for item in items:
            if (key := encode_key(item)) not in present:
                present.add(key)
                array.append(copied(item))
        return array

    return change


def _pop(path: str, argument: Any, now: datetime) -> Change:
    del now
    end = to_int(argument)
    if end not in (1, -1):
        raise CommandError(9, f"$pop expects 1 or -1, found: {shown(argument)}")

    def change(old: Any) -> Any:
        if old is MISSING:
            return KEEP
        if not isinstance(old, list):
            raise CommandError(14, f"Path '{path}' contains an element of non-array type '{type_name(old)}'")
        return old[:-1] if end == 1 else old[1:]

    return change


def _without(operator: str, path: str, drop: Callable[[Any], bool]) -> Change:
    def change(old: Any) -> Any:
        if old is MISSING:
            return KEEP
        if not isinstance(old, list):
            raise CommandError(2, f"Cannot apply {operator} to a non-array value at '{path}'")
        return [item for item in old if not drop(item)]

    return change


def _pull(path: str, argument: Any, now: datetime) -> Change:
    condition = as_document(argument)
    first = next(iter(condition or {}), "")
    if condition is not None and (not first.startswith("$") or first in ("$and", "$or", "$nor")):
        matches = compile_filter(condition, now=now)

        def drop(item: Any) -> bool:
            document = as_document(item)
            return document is not None and matches(document)

        return _without("$pull", path, drop)
    if condition is not None or isinstance(argument, Regex):
        wrapped = compile_filter({"item": argument}, now=now)
        return _without("$pull", path, lambda item: wrapped({"item": item}))
    return _without("$pull", path, lambda item: equal(item, argument))


def _pull_all(path: str, argument: Any, now: datetime) -> Change:
    del now
    if not isinstance(argument, list):
        raise CommandError(2, f"$pullAll requires an array argument but was given a {type_name(argument)}")
    unwanted = {encode_key(item) for item in argument}
    return _without("$pullAll", path, lambda item: encode_key(item) in unwanted)


_BITS: Mapping[str, Callable[[int, int], int]] = {
    "and": lambda a, b: a & b,
    "or": lambda a, b: a | b,
    "xor": lambda a, b: a ^ b,
}


def _bit(path: str, argument: Any, now: datetime) -> Change:
    del now
    if not isinstance(argument, Mapping) or not argument:
        raise CommandError(2, f"The $bit modifier is not compatible with a {type_name(argument)} at '{path}'")
    for name, operand in argument.items():
        if name not in _BITS:
            raise CommandError(2, f"The $bit modifier only supports 'and', 'or', and 'xor', not '{name}'")
        if type_name(operand) not in ("int", "long"):
            raise CommandError(
                2, f"The $bit modifier field must be an Integer(32/64 bit); a '{type_name(operand)}' is not"
            )

    def change(old: Any) -> Any:
        value: Any = 0 if old is MISSING else old
        if type_name(value) not in ("int", "long"):
            raise CommandError(2, f"Cannot apply $bit to a value of non-integral type at '{path}'")
        for name, operand in argument.items():
            kind = max(number_kind(value), number_kind(operand))
            value = integer(_BITS[name](int(value), int(operand)), kind)
        return value

    return change


OPERATORS: Mapping[str, Operator] = {
    "$set": _set,
    "$setOnInsert": _set,
    "$unset": _unset,
    "$inc": _inc,
    "$mul": _mul,
    "$min": _extreme(-1),
    "$max": _extreme(1),
    "$currentDate": _current_date,
    "$push": _push,
    "$addToSet": _add_to_set,
    "$pop": _pop,
    "$pull": _pull,
    "$pullAll": _pull_all,
    "$bit": _bit,
}
