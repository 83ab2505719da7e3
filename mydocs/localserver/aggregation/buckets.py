"""Sort documents into buckets, for $bucket. Pure."""

import bisect
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from mydocs.localserver.aggregation.accumulators import compile_group
from mydocs.localserver.errors import CommandError
from mydocs.localserver.query.expressions import compile_expression
from mydocs.localserver.query.values import Document, as_document, encode_key, rank, sort_documents

COUNT = {"count": {"$sum": 1}}


def compile_bucket(
    spec: Any, *, now: datetime, variables: Mapping[str, Any]
) -> Callable[[Iterable[Document]], Iterator[Document]]:
    """Return the function of a ``$bucket`` stage. An empty bucket is left out."""
    options = as_document(spec)
    if options is None:
        raise CommandError(40201, "Argument to $bucket stage must be an object")
    for name in options:
        if name not in ("groupBy", "boundaries", "default", "output"):
            raise CommandError(40197, f"Unrecognized option to $bucket: {name}.")
    if "groupBy" not in options or "boundaries" not in options:
        raise CommandError(40198, "$bucket requires 'groupBy' and 'boundaries' to be specified.")
    by = options["groupBy"]
    if not isinstance(by, Mapping) and not (isinstance(by, str) and by.startswith("$")):
        raise CommandError(40202, "The $bucket 'groupBy' field must be defined as a $-prefixed path or an expression")
    scope = {"NOW": now, **variables}
    bounds = _boundaries(options["boundaries"], scope)
    keys = [encode_key(bound) for bound in bounds]
    default = _default(options, scope, keys, bounds)
    output = as_document(options.get("output", COUNT))
    if output is None:
        raise CommandError(40196, "The $bucket 'output' field must be an object")
    evaluate = compile_expression(by, scope)
    group = compile_group({"_id": None, **output}, now=now, variables=variables)

    def place(document: Document) -> Any:
        value = evaluate(document, scope)
        at = bisect.bisect_right(keys, encode_key(value)) - 1
        if 0 <= at < len(bounds) - 1 and rank(value) == rank(bounds[0]):
            return bounds[at]
        if not default:
            raise CommandError(
                40066, "$switch could not find a matching branch for an input, and no default was specified."
            )
        return default[0]

    def bucket(documents: Iterable[Document]) -> Iterator[Document]:
        return iter(sort_documents(group(documents, place), {"_id": 1}))

    return bucket


def _boundaries(given: Any, scope: Mapping[str, Any]) -> list[Any]:
    if not isinstance(given, list):
        raise CommandError(40200, "The $bucket 'boundaries' field must be an array")
    if len(given) < 2:
        raise CommandError(40192, f"The $bucket 'boundaries' field must have at least 2 values, but found {len(given)}")
    bounds = [_constant("boundaries", bound, scope) for bound in given]
    for low, high in itertools.pairwise(bounds):
        if rank(low) != rank(high):
            raise CommandError(40193, "All values in the the 'boundaries' option to $bucket must have the same type")
        if encode_key(low) >= encode_key(high):
            raise CommandError(40194, "The 'boundaries' option to $bucket must be sorted")
    return bounds


def _default(options: Mapping[str, Any], scope: Mapping[str, Any], keys: list[bytes], bounds: list[Any]) -> list[Any]:
    if "default" not in options:
        return []
    value = _constant("default", options["default"], scope)
    if rank(value) == rank(bounds[0]) and keys[0] <= encode_key(value) < keys[-1]:
        raise CommandError(
            40199, "The $bucket 'default' field must be less than the lowest boundary or at least the highest one"
        )
    return [value]


def _constant(name: str, expression: Any, scope: Mapping[str, Any]) -> Any:
    if isinstance(expression, str) and expression.startswith("$"):
        raise CommandError(40191, f"The $bucket '{name}' field must hold constant values")
    return compile_expression(expression, scope)({}, scope)
