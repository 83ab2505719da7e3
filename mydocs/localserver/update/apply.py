"""Apply an update to a document: operators, a replacement, or a pipeline. Pure."""

import functools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum, auto
from typing import Any, TypeAlias

from bson.regex import Regex

from mydocs.localserver.errors import CommandError, NotKnown
from mydocs.localserver.query.match import compile_filter, find_positional, is_operators
from mydocs.localserver.query.projection import compile_update_stage
from mydocs.localserver.query.text import shown
from mydocs.localserver.query.values import (
    MISSING,
    Document,
    array_index,
    as_document,
    equal,
    get_path,
    split_path,
    type_name,
)
from mydocs.localserver.update.operators import KEEP, OPERATORS, REMOVE, Change, copied

_PAD_LIMIT = 1_500_000  # the most elements that an update may append as null (server: kMaxPaddingAllowed)
_FILTERED = re.compile(r"\$\[([^\]]*)\]")


class _Absent(Enum):
    """The action of an operator whose path does not exist."""

    CREATE = auto()
    CHECK = auto()  # nothing, but it refuses a path that could not be created
    LEAVE = auto()


# UpdateNode::allowNonViablePath and ModifierNode::allowCreation in src/mongo/db/update.
_WHERE_ABSENT = {
    "$unset": _Absent.LEAVE, "$pull": _Absent.CHECK, "$pullAll": _Absent.CHECK, "$pop": _Absent.CHECK
}  # fmt: skip


Update: TypeAlias = Callable[..., Document]
"""From a document, its filter and whether it is being inserted, to the new document."""
ArrayFilters: TypeAlias = Mapping[str, Callable[[Mapping[str, Any]], bool]]


@dataclass(frozen=True, slots=True)
class _Step:
    operator: str
    path: str
    argument: Any
    change: Change


@dataclass(frozen=True, slots=True)
class _Context:
    original: Document
    now: datetime
    filter: Any
    variables: Mapping[str, Any] | None
    elements: ArrayFilters
    written: set[str] = field(default_factory=set)
    above: set[str] = field(default_factory=set)  # all paths above the written ones


def compile_update(
    update: Any,
    *,
    now: datetime,
    array_filters: Sequence[Any] = (),
    variables: Mapping[str, Any] | None = None,
) -> Update:
    """
    Check an update, and return its function ``apply(document, *, filter=None, inserting=False)``, which returns a copy.

    ``filter`` is the query, for the positional ``$``. ``inserting`` says that an upsert creates the document, so that
    ``$setOnInsert`` applies.

    :param variables: the command's ``let``, evaluated
    :raises CommandError: if the update is not valid, whatever documents there are
    """
    plain = _plain_set(update) if type(update) is dict and not array_filters else None
    if plain is not None:
        return plain
    if isinstance(update, list):
        if array_filters:
            raise CommandError(9, "arrayFilters may not be specified for pipeline-syle updates")
        stages = [_stage(stage, now, variables) for stage in update]

        def run(document: Document, **_: Any) -> Document:
            changed: Document = copied(document)
            for stage in stages:
                changed = stage(changed)
            return _replaced(document, copied(changed))

        return run
    fields = as_document(update)
    if fields is None:
        raise CommandError(9, "Update argument must be either an object or an array")
    if not is_operators(fields):
        if array_filters:
            raise CommandError(9, "arrayFilters may not be specified for replacement updates")
        new = _replacement(fields)
        return lambda document, **_: _replaced(document, copied(new))
    elements = _array_filters(array_filters, now)
    steps = sorted(_parse(fields, elements, now), key=functools.cmp_to_key(_by_path))

    def apply(document: Document, *, filter: Any = None, inserting: bool = False) -> Document:  # noqa: A002
        context = _Context(document, now, filter, variables, elements)
        result: Document = copied(document)
        for step in steps:
            if step.operator != "$setOnInsert" or inserting:
                _apply(result, step, context)
        if "_id" in document and not ("_id" in result and equal(document["_id"], result["_id"])):
            raise CommandError(66, "Performing an update on the path '_id' would modify the immutable field '_id'")
        return result

    return apply


def _plain_set(fields: Mapping[str, Any]) -> Update | None:
    """
    Return the function of a ``$set`` of top-level fields; ``None`` for every other update.

    Such updates arrive in thousands, and nothing in them can be wrong.
    """
    values = fields.get("$set") if len(fields) == 1 else None
    if type(values) is not dict or not values or "_id" in values:
        return None
    for name in values:
        if not name or "." in name or name[0] in "$0123456789":
            return None
    names = sorted(values)  # in the order of `_by_path`

    def apply(document: Document, **_: Any) -> Document:
        result: Document = copied(document)
        for name in names:
            result[name] = copied(values[name])
        return result

    return apply


def _replacement(fields: Mapping[str, Any]) -> Document:
    for key in fields:
        if key.startswith("$"):
            raise CommandError(
                52,
                f"The dollar ($) prefixed field '{key}' in '{key}' is not allowed in the context of an update's "
                "replacement document. Consider using an aggregation pipeline with $replaceWith.",
            )
    new: Document = copied(dict(fields))
    return new


def _replaced(original: Document, new: Document) -> Document:
    """Put the original's ``_id`` first. Refuse another ``_id``."""
    if "_id" not in original:
        return {"_id": new["_id"], **new} if "_id" in new else new
    if "_id" in new and not equal(original["_id"], new["_id"]):
        raise CommandError(
            66,
            "After applying the update, the (immutable) field '_id' was found to have been altered to "
            f"_id: {shown(new['_id'])}",
        )
    return {"_id": original["_id"], **{key: value for key, value in new.items() if key != "_id"}}


def _stage(stage: Any, now: datetime, variables: Mapping[str, Any] | None) -> Callable[[Document], Document]:
    if not isinstance(stage, Mapping) or len(stage) != 1:
        raise CommandError(40323, "A pipeline stage specification object must contain exactly one field.")
    ((name, spec),) = stage.items()
    function = compile_update_stage(name, spec, now=now, variables=variables)
    if function is None:
        raise NotKnown(f"the stage {name} in an update")
    return function


def _parse(update: Mapping[str, Any], elements: ArrayFilters, now: datetime) -> list[_Step]:
    steps: list[_Step] = []
    for operator, fields in update.items():
        if operator not in OPERATORS and operator != "$rename":
            if operator.startswith("$"):
                raise NotKnown(f"{operator} in an update")
            raise CommandError(9, f"Unknown modifier: {operator}. Expected a valid update modifier")
        if not isinstance(fields, Mapping):
            raise CommandError(
                9,
                f"Modifiers operate on fields but we found type {type_name(fields)} instead. For example: "
                f"{{$mod: {{<field>: ...}}}} not {{{operator}: {shown(fields)}}}",
            )
        for path, argument in fields.items():
            _check_path(path)
            if operator == "$rename":
                steps.extend(_rename(path, argument))
            else:
                steps.append(_Step(operator, path, argument, OPERATORS[operator](path, argument, now)))
    taken: dict[str, None] = {}
    for step in steps:
        for other in taken:
            if (shorter := _clash(step.path, other)) is not None:
                raise CommandError(40, f"Updating the path '{step.path}' would create a conflict at '{shorter}'")
        taken[step.path] = None
    _check_filters(steps, elements)
    return steps


def _check_filters(steps: Sequence[_Step], elements: ArrayFilters) -> None:
    used = [(name, step.path) for step in steps for name in _FILTERED.findall(step.path) if name]
    for name, path in used:
        if name not in elements:
            raise CommandError(2, f"No array filter found for identifier '{name}' in path '{path}'")
    unused = elements.keys() - {name for name, _ in used}
    if unused:
        raise CommandError(9, f"The array filter for identifier '{min(unused)}' was not used in the update")


def _check_path(path: str) -> None:
    if not path:
        raise CommandError(56, "An empty update path is not valid.")
    parts = split_path(path)
    if "" in parts:
        raise CommandError(56, f"The update path '{path}' contains an empty field name, which is not allowed.")
    if parts[0] == "$" or parts[0].startswith("$["):
        raise CommandError(
            2, f"Cannot have array filter identifier or positional element in the first position: {path}"
        )
    for part in parts:
        if part.startswith("$") and part != "$" and not _FILTERED.fullmatch(part):
            raise CommandError(52, f"The dollar ($) prefixed field '{part}' in '{path}' is not valid for storage.")
    if parts.count("$") > 1:
        raise CommandError(2, f"Too many positional (i.e. '$') elements found in path '{path}'")


def _clash(a: str, b: str) -> str | None:
    """Return where two paths conflict: one ends on the other, or only one of them continues with ``$[...]``."""
    shared: list[str] = []
    for x, y in zip(split_path(a), split_path(b), strict=False):
        if x != y:
            mixed = x.startswith("$[") != y.startswith("$[")
            return ".".join(shared) if mixed else None
        shared.append(x)
    return ".".join(shared)


def _rename(source: str, target: Any) -> Iterator[_Step]:
    if not isinstance(target, str):
        raise CommandError(2, f"The 'to' field for $rename must be a string: {source}: {shown(target)}")
    _check_path(target)
    if source == target:
        raise CommandError(2, f'The source and target field for $rename must differ: {source}: "{target}"')
    if any(part.startswith("$") for part in split_path(source) + split_path(target)):
        raise CommandError(2, "The source and target field for $rename may not be dynamic")
    # The source of a rename is known only with the document.
    yield _Step("$rename from", source, target, _nothing)
    yield _Step("$rename to", target, source, _nothing)


def _nothing(old: Any) -> Any:
    del old
    return KEEP


def _by_path(a: _Step, b: _Step) -> int:
    # New fields are appended in this order: numbers by value, names alphabetically (field_name_ordered_map).
    for x, y in zip(split_path(a.path), split_path(b.path), strict=False):
        if x != y:
            if x.isdigit() and y.isdigit() and int(x) != int(y):
                return -1 if int(x) < int(y) else 1
            return -1 if x < y else 1
    return 0


def _array_filters(filters: Sequence[Any], now: datetime) -> dict[str, Callable[[Mapping[str, Any]], bool]]:
    found: dict[str, Callable[[Mapping[str, Any]], bool]] = {}
    for each in filters:
        names = set(_top_names(each))
        if len(names) != 1:
            raise CommandError(
                9,
                "Error parsing array filter :: caused by :: Expected a single top-level field name, "
                f"found {sorted(names)}",
            )
        (name,) = names
        if not re.fullmatch(r"[a-z][a-zA-Z0-9]*", name):
            raise CommandError(
                2,
                "Error parsing array filter :: caused by :: The top-level field name must be an alphanumeric string "
                f"beginning with a lowercase letter, found '{name}'",
            )
        if name in found:
            raise CommandError(9, f"Found multiple array filters with the same top-level field name {name}")
        found[name] = compile_filter(each, now=now)
    return found


def _top_names(query: Any) -> Iterator[str]:
    if not isinstance(query, Mapping):
        raise CommandError(14, "arrayFilters holds something that is not an object")
    for key, value in query.items():
        if key in ("$and", "$or", "$nor") and isinstance(value, list):
            for branch in value:
                yield from _top_names(branch)
        elif key.startswith("$"):
            raise CommandError(9, f"Error parsing array filter :: caused by :: {key} is not allowed in this context")
        else:
            yield split_path(key)[0]


def _apply(result: Document, step: _Step, context: _Context) -> None:
    parts = split_path(step.path)
    if "$" in parts:
        at = parts.index("$")
        above = ".".join(parts[:at])
        index = find_positional(
            context.filter or {}, context.original, above, now=context.now, variables=context.variables
        )
        if index is None:
            raise CommandError(2, "The positional operator did not find the match needed from the query.")
        parts[at] = str(index)
    if step.operator.startswith("$rename"):
        _apply_rename(result, step, parts, context)
    else:
        for concrete in _concrete(parts, context):
            _claim(concrete, context)
            _visit(result, concrete, 0, step.change, absent=_WHERE_ABSENT.get(step.operator, _Absent.CREATE))


def _apply_rename(result: Document, step: _Step, parts: list[str], context: _Context) -> None:
    moving_away = step.operator == "$rename from"
    source, target = (step.path, step.argument) if moving_away else (step.argument, step.path)
    value = _renamed(context.original, source)
    if value is MISSING:
        return
    _refuse_arrays(context.original, source, "source")
    _refuse_arrays(context.original, target, "destination")
    change: Change = (lambda _: REMOVE) if moving_away else (lambda _: copied(value))
    _visit(result, parts, 0, change, absent=_Absent.LEAVE if moving_away else _Absent.CREATE)


def _renamed(document: Document, path: str) -> Any:
    """Return the value to rename. Refuse a path through a value that has no such part."""
    value: Any = document
    for part in split_path(path):
        if isinstance(value, list):
            at = array_index(part)
            if at is not None:
                value = value[at] if at < len(value) else MISSING
                if value is MISSING:
                    return MISSING
                continue
        holder = as_document(value)
        if holder is None:
            raise CommandError(28, f"cannot use the part ({part} of {path}) to traverse the element ({shown(value)})")
        value = holder.get(part, MISSING)
        if value is MISSING:
            return MISSING
    return value


def _refuse_arrays(document: Document, path: str, what: str) -> None:
    parts = split_path(path)
    for length in range(1, len(parts)):
        if isinstance(get_path(document, ".".join(parts[:length])), list):
            raise CommandError(2, f"The {what} field cannot be an array element, '{path}' in doc has an array field")


def _concrete(parts: list[str], context: _Context) -> Iterator[list[str]]:
    """Yield the paths of the document that a path with ``$[...]`` matches."""
    depth = next((place for place, part in enumerate(parts) if _FILTERED.fullmatch(part)), None)
    if depth is None:
        yield parts
        return
    name = parts[depth][2:-1]
    path = ".".join(parts[:depth])
    array = get_path(context.original, path)
    if array is MISSING:
        raise CommandError(2, f"The path '{path}' must exist in the document in order to apply array updates.")
    if not isinstance(array, list):
        raise CommandError(2, f"Cannot apply array updates to non-array element {parts[depth - 1]}: {shown(array)}")
    for index, element in enumerate(array):
        if not name or context.elements[name]({name: element}):
            yield from _concrete([*parts[:depth], str(index), *parts[depth + 1 :]], context)


def _claim(parts: list[str], context: _Context) -> None:
    """Refuse two operators on one place, which is known only when ``$`` and ``$[...]`` have become numbers."""
    path = ".".join(parts)
    above = {".".join(parts[:length]) for length in range(1, len(parts))}
    met = context.written & {*above, path} or context.above & {path}
    if met:
        raise CommandError(40, f"Update created a conflict at '{met.pop()}'")
    context.written.add(path)
    context.above.update(above)


def _visit(holder: Any, parts: list[str], depth: int, change: Change, *, absent: _Absent) -> None:
    part = parts[depth]
    at: Any = part
    if isinstance(holder, list):
        at = array_index(part)
        old = MISSING if at is None or at >= len(holder) else holder[at]
    elif isinstance(holder, dict):
        old = holder.get(part, MISSING)
    else:
        at, old = None, MISSING
    if at is None:
        if absent is _Absent.LEAVE:
            return
        owner = parts[depth - 1] if depth else ""
        raise CommandError(28, f"Cannot create field '{part}' in element {shown({owner: holder})}")
    if depth == len(parts) - 1:
        new = change(old)
        if new is REMOVE:
            _remove(holder, at, old)
        elif new is not KEEP:
            _store(holder, at, new)
        return
    if old is MISSING:
        if absent is not _Absent.CREATE:
            return
        old = {}
        _visit(old, parts, depth + 1, change, absent=absent)
        _store(holder, at, old)
        return
    _visit(old, parts, depth + 1, change, absent=absent)


def _remove(holder: Any, at: Any, old: Any) -> None:
    if old is MISSING:
        return
    if isinstance(holder, list):
        holder[at] = None  # an element becomes null, so that the others keep their places
    else:
        del holder[at]


def _store(holder: Any, at: Any, new: Any) -> None:
    if isinstance(holder, list):
        if at - len(holder) > _PAD_LIMIT:
            raise CommandError(2, f"can't backfill more than {_PAD_LIMIT} elements")
        holder.extend([None] * (at + 1 - len(holder)))
    holder[at] = new


def upsert_base(filter: Any) -> Document:  # noqa: A002  # the command's own word
    """
    Return the document with which an upsert begins: the fields that a filter sets equal to a value.

    :raises CommandError: 54 if it sets a field twice
    """
    base: Document = {}
    seen: list[str] = []
    for path, value in _equalities(filter):
        for other in seen:
            if (shorter := _clash(path, other)) is not None:
                raise CommandError(54, f"cannot infer query fields to set, path '{shorter}' is matched twice")
        seen.append(path)
        holder = base
        *above, last = split_path(path)
        for part in above:
            holder = holder.setdefault(part, {})
        holder[last] = copied(value)
    return base


def _equalities(query: Any) -> Iterator[tuple[str, Any]]:
    for key, value in (as_document(query) or {}).items():
        if key == "$and" or (key == "$or" and len(value) == 1):
            for branch in value:
                yield from _equalities(branch)
        elif key.startswith("$") or isinstance(value, Regex):
            continue
        elif not is_operators(value):
            yield key, value
        else:
            for operator, wanted in value.items():
                if operator == "$eq":
                    yield key, wanted
                elif operator in ("$in", "$all") and _is_one_value(wanted):
                    yield key, wanted[0]


def _is_one_value(wanted: Any) -> bool:
    one = isinstance(wanted, list) and len(wanted) == 1
    return one and not isinstance(wanted[0], Regex) and not is_operators(wanted[0])
