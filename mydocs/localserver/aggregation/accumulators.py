"""Combine values of many documents, for $group. Pure."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeAlias

from mydocs.localserver.errors import CommandError, NotKnown
from mydocs.localserver.query.arithmetic import total
from mydocs.localserver.query.expressions import compile_expression
from mydocs.localserver.query.expressions.arrays import distinct, merge_objects
from mydocs.localserver.query.expressions.numbers import average, deviation, extreme
from mydocs.localserver.query.values import MISSING, Document, as_document, encode_key

HELD = 1_000  # number of values that a sum keeps before it adds them up

Step: TypeAlias = Callable[[list[Any], Any], None]


def _keep_all(seen: list[Any], value: Any) -> None:
    if value is not MISSING:
        seen.append(value)


def _keep_first(seen: list[Any], value: Any) -> None:
    if not seen:
        seen.append(value)


def _keep_last(seen: list[Any], value: Any) -> None:
    seen[:] = [value]


def _keep_result(function: Callable[[list[Any]], Any]) -> Step:
    # Keeps one value instead of all of them.
    def step(seen: list[Any], value: Any) -> None:
        seen[:] = [function([*seen, value])]

    return step


def _keep_sum(seen: list[Any], value: Any) -> None:
    _keep_all(seen, value)
    if len(seen) == HELD:  # a million documents must not take more memory than a thousand
        seen[:] = [total(seen)]


def _one(seen: list[Any]) -> Any:
    return None if not seen or seen[0] is MISSING else seen[0]


# For each operator: the function that adds a value, and the one that returns the result.
_ACCUMULATORS: Mapping[str, tuple[Step, Callable[[list[Any]], Any]]] = {
    "$sum": (_keep_sum, total),
    "$count": (_keep_sum, total),
    "$avg": (_keep_all, average),
    "$min": (_keep_result(lambda values: extreme(values, -1)), _one),
    "$max": (_keep_result(lambda values: extreme(values, 1)), _one),
    "$first": (_keep_first, _one),
    "$last": (_keep_last, _one),
    "$push": (_keep_all, list),
    "$addToSet": (_keep_all, distinct),
    "$mergeObjects": (_keep_result(merge_objects), _one),
    "$stdDevPop": (_keep_all, lambda seen: deviation(seen, sample=False)),
    "$stdDevSamp": (_keep_all, lambda seen: deviation(seen, sample=True)),
}


@dataclass(slots=True)
class _Group:
    key: Any
    seen: dict[str, list[Any]] = field(default_factory=dict)


def compile_group(
    spec: Any, *, now: datetime, variables: Mapping[str, Any] | None = None
) -> Callable[..., Iterator[Document]]:
    """
    Return the function of a ``$group`` stage. The groups come in the order of their first documents.

    The function takes the documents, and a function that returns the group of each.
    """
    fields = as_document(spec)
    if fields is None:
        raise CommandError(15947, "a group's fields must be specified in an object")
    if "_id" not in fields:
        raise CommandError(15955, "a group specification must include an _id")
    scope = {"NOW": now, **(variables or {})}
    identify = compile_expression(fields["_id"], scope)
    accumulators = {name: _accumulator(name, value, scope) for name, value in fields.items() if name != "_id"}

    def group(
        documents: Iterable[Document], place: Callable[[Document], Any] = lambda document: identify(document, scope)
    ) -> Iterator[Document]:
        groups: dict[bytes, _Group] = {}
        for document in documents:
            key = place(document)
            key = None if key is MISSING else key
            found = groups.setdefault(encode_key(key), _Group(key))
            for name, (evaluate, step, _) in accumulators.items():
                step(found.seen.setdefault(name, []), evaluate(document, scope))
        for found in groups.values():
            yield {"_id": found.key, **{name: row[2](found.seen[name]) for name, row in accumulators.items()}}

    return group


def _accumulator(
    name: str, value: Any, scope: Mapping[str, Any]
) -> tuple[Callable[[Document, Mapping[str, Any]], Any], Step, Callable[[list[Any]], Any]]:
    if "." in name:
        raise CommandError(40235, f"The field name '{name}' cannot contain '.'")
    if name.startswith("$"):
        raise CommandError(40236, f"The field name '{name}' cannot be an operator name")
    if not isinstance(value, Mapping) or not next(iter(value), "").startswith("$"):
        raise CommandError(40234, f"The field '{name}' must be an accumulator object")
    if len(value) != 1:
        raise CommandError(40238, f"The field '{name}' must specify one accumulator")
    ((operator, argument),) = value.items()
    if operator not in _ACCUMULATORS:
        raise NotKnown(f"the accumulator {operator}")
    if operator == "$count":
        if argument != {}:
            raise CommandError(14, "$count takes no arguments, i.e. $count:{}")
        argument = 1
    elif isinstance(argument, list):
        if len(argument) != 1:
            raise CommandError(40237, f"The {operator} accumulator is a unary operator")
        argument = argument[0]
    step, finish = _ACCUMULATORS[operator]
    return compile_expression(argument, scope), step, finish
