"""Run an aggregation pipeline over documents. I/O on other collections only through ``Collections``."""

import itertools
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, TypeAlias

from bson.int64 import Int64
from bson.regex import Regex

from mydocs.localserver.aggregation.accumulators import compile_group
from mydocs.localserver.aggregation.buckets import compile_bucket
from mydocs.localserver.aggregation.merge import Collections, Target, compile_merge, identified, target
from mydocs.localserver.errors import CommandError, NotKnown
from mydocs.localserver.query.expressions import compile_expression
from mydocs.localserver.query.match import compile_filter
from mydocs.localserver.query.projection import compile_update_stage
from mydocs.localserver.query.values import (
    MISSING,
    Document,
    as_document,
    encode_key,
    lookup,
    sort_documents,
    sort_pattern,
    split_path,
    to_int,
)


@dataclass(frozen=True, slots=True)
class _Run:
    collections: Collections
    now: datetime
    variables: Mapping[str, Any]

    @property
    def scope(self) -> dict[str, Any]:
        return {"NOW": self.now, **self.variables}


Stage: TypeAlias = Callable[[Iterator[Document]], Iterator[Document]]
StageBuilder: TypeAlias = Callable[[str, Any, _Run], Stage]

_SEARCHES = frozenset({"$search", "$searchMeta", "$vectorSearch", "$rankFusion", "$scoreFusion", "$score"})
_LAST_ONLY = frozenset({"$out", "$merge"})


def run_pipeline(
    pipeline: Sequence[Any],
    documents: Iterable[Document],
    *,
    collections: Collections,
    now: datetime,
    variables: Mapping[str, Any] | None = None,
) -> Iterator[Document]:
    """
    Return the results of a pipeline lazily.

    The whole pipeline is checked before this returns. ``$out`` and ``$merge`` write when the result is first read.

    :param variables: the command's ``let``, evaluated
    """
    return _run(pipeline, documents, _Run(collections, now, variables or {}))


def _run(pipeline: Sequence[Any], documents: Iterable[Document], run: _Run) -> Iterator[Document]:
    stages = [_compile(stage, run, at, len(pipeline)) for at, stage in enumerate(pipeline)]
    found = iter(documents)
    for stage in stages:
        found = stage(found)
    return found


def _compile(stage: Any, run: _Run, at: int, count: int) -> Stage:
    if not isinstance(stage, Mapping) or len(stage) != 1:
        raise CommandError(40323, "A pipeline stage specification object must contain exactly one field.")
    ((name, spec),) = stage.items()
    if name in _LAST_ONLY and at != count - 1:
        raise CommandError(40601, f"{name} can only be the final stage in the pipeline")
    if name == "$documents" and at:
        raise CommandError(40602, "$documents is only valid as the first stage in a pipeline")
    if name == "$collStats" and at:
        raise CommandError(40602, "$collStats is only valid as the first stage in a pipeline")
    if (function := compile_update_stage(name, spec, now=run.now, variables=run.variables)) is not None:
        return lambda documents: map(function, documents)
    if (builder := _STAGES.get(name)) is not None:
        return builder(name, spec, run)
    if name in _SEARCHES:
        raise NotKnown(f"{name}: its search indexes are catalogue entries and do not search")
    raise NotKnown(f"the stage {name}")


def _match(_: str, spec: Any, run: _Run) -> Stage:
    if as_document(spec) is None:
        raise CommandError(15959, "the match filter must be an expression in an object")
    matches = compile_filter(spec, now=run.now, variables=run.variables)
    return lambda documents: filter(matches, documents)


def _group(_: str, spec: Any, run: _Run) -> Stage:
    return compile_group(spec, now=run.now, variables=run.variables)


def _lazily(function: Callable[[Iterator[Document]], Iterable[Document]]) -> Stage:
    """Delay a stage that needs all documents until the first result is read."""

    def stage(documents: Iterator[Document]) -> Iterator[Document]:
        yield from function(documents)

    return stage


def _sort(_: str, spec: Any, run: _Run) -> Stage:
    del run
    order = as_document(spec)
    if order is None:
        raise CommandError(15973, "the $sort key specification must be an object")
    if not order:
        raise CommandError(15976, "$sort stage must have at least one sort key")
    sort_pattern(order)
    return _lazily(lambda documents: sort_documents(documents, order))


def _limit(name: str, spec: Any, run: _Run) -> Stage:
    del run
    number = to_int(spec)
    if number is None or number < (name == "$limit"):
        code = 15958 if name == "$limit" else 5107200
        wanted = "the limit must be positive" if number == 0 else f"expected a number that is not negative in: {name}"
        raise CommandError(code, f"invalid argument to {name} stage: {wanted}")
    if name == "$limit":
        return lambda documents: itertools.islice(documents, number)
    return lambda documents: itertools.islice(documents, number, None)


def _count(_: str, spec: Any, run: _Run) -> Stage:
    del run
    if not isinstance(spec, str) or not spec:
        raise CommandError(40156, "the count field must be a non-empty string")
    if spec.startswith("$") or "." in spec:
        raise CommandError(40158, "the count field cannot be a $-prefixed path or contain '.'")

    def count(documents: Iterator[Document]) -> Iterator[Document]:
        number = sum(1 for _ in documents)
        if number:
            yield {spec: number}

    return count


def _sort_by_count(_: str, spec: Any, run: _Run) -> Stage:
    if not (isinstance(spec, str) and spec.startswith("$")) and not (
        isinstance(spec, Mapping) and next(iter(spec), "").startswith("$")
    ):
        raise CommandError(40149, "the sortByCount field must be a $-prefixed path or an expression")
    group = compile_group({"_id": spec, "count": {"$sum": 1}}, now=run.now, variables=run.variables)
    return _lazily(lambda documents: sort_documents(group(documents), {"count": -1}))


def _place(document: Mapping[str, Any], parts: list[str], value: Any) -> Document:
    """Return a document with a value at a path; ``MISSING`` removes the field."""
    found = dict(document)
    first, *rest = parts
    if rest:
        found[first] = _place(as_document(found.get(first)) or {}, rest, value)
    elif value is MISSING:
        found.pop(first, None)
    else:
        found[first] = value
    return found


def _plain_path(document: Mapping[str, Any], parts: list[str]) -> Any:
    value: Any = document
    for part in parts:
        holder = as_document(value)
        value = MISSING if holder is None else holder.get(part, MISSING)
    return value


def _unwind(_: str, spec: Any, run: _Run) -> Stage:
    del run
    options = {"path": spec} if isinstance(spec, str) else as_document(spec)
    if options is None:
        raise CommandError(15981, "expected either a string or an object as specification for $unwind stage")
    if unknown := [key for key in options if key not in ("path", "includeArrayIndex", "preserveNullAndEmptyArrays")]:
        raise CommandError(28811, f"unrecognized option to $unwind stage: {unknown[0]}")
    path, index = options.get("path"), options.get("includeArrayIndex")
    keep = options.get("preserveNullAndEmptyArrays", False)
    if not isinstance(path, str):
        raise CommandError(28812, "no path specified to $unwind stage")
    if not path.startswith("$") or len(path) < 2:
        raise CommandError(28818, f"path option to $unwind stage should be prefixed with a '$': {path}")
    if index is not None and (not isinstance(index, str) or not index or index.startswith("$")):
        raise CommandError(28810, "expected a non-empty string for the includeArrayIndex option to $unwind stage")
    if not isinstance(keep, bool):
        raise CommandError(28809, "expected a boolean for the preserveNullAndEmptyArrays option to $unwind stage")
    parts = split_path(path[1:])

    def numbered(document: Document, at: int | None) -> Document:
        return document if index is None else _place(document, split_path(index), None if at is None else Int64(at))

    def unwind(documents: Iterator[Document]) -> Iterator[Document]:
        for document in documents:
            value = _plain_path(document, parts)
            if isinstance(value, list) and value:
                for at, item in enumerate(value):
                    yield numbered(_place(document, parts, item), at)
            elif isinstance(value, list):
                if keep:
                    yield numbered(_place(document, parts, MISSING), None)
            elif keep or not (value is None or value is MISSING):
                yield numbered(document, None)

    return unwind


def _lookup(name: str, spec: Any, run: _Run) -> Stage:
    options = as_document(spec)
    if options is None:
        raise CommandError(9, f"the {name} stage specification must be an object")
    if unknown := [k for k in options if k not in ("from", "as", "localField", "foreignField", "let", "pipeline")]:
        raise CommandError(9, f"unknown argument to {name}: {unknown[0]}")
    into, local, foreign = options.get("as"), options.get("localField"), options.get("foreignField")
    if not isinstance(into, str):
        raise CommandError(9, "must specify 'as' field for a $lookup")
    if (local is None) != (foreign is None):
        raise CommandError(9, f"{name} requires both or neither of 'localField' and 'foreignField' to be specified")
    pipeline = options.get("pipeline")
    if pipeline is None and (local is None or "let" in options):
        raise CommandError(9, f"{name} requires either 'pipeline' or both 'localField' and 'foreignField'")
    source = options.get("from")
    if not isinstance(source, str):
        raise NotKnown(f"{name} whose 'from' is not the name of a collection")
    let = as_document(options.get("let", {}))
    if let is None:
        raise CommandError(9, f"the 'let' of {name} must be an object")
    bound = {key: compile_expression(value, run.scope) for key, value in let.items()}
    if pipeline is not None:
        _refuse_writes(name, pipeline)
        _run(pipeline, (), replace(run, variables={**run.variables, **dict.fromkeys(bound)}))  # only to check it

    def joined(document: Document) -> Document:
        found: Iterable[Document]
        if local is None:
            found = run.collections.scan(source)
        else:
            found = run.collections.find(source, _foreign_filter(document, str(local), str(foreign)))
        if pipeline is not None:
            values = {key: evaluate(document, run.scope) for key, evaluate in bound.items()}
            found = _run(pipeline, found, replace(run, variables={**run.variables, **values}))
        return _place(document, split_path(into), list(found))

    return lambda documents: map(joined, documents)


def _foreign_filter(document: Document, local: str, foreign: str) -> dict[str, Any]:
    values: list[Any] = []
    for value in lookup(document, local, expand=False):
        values.extend(value if isinstance(value, list) else [value])
    # An absent field, or an empty array, joins as null.
    wanted = [value for value in values if value is not MISSING] or [None]
    if any(isinstance(value, Regex) for value in wanted):
        return {"$or": [{foreign: {"$eq": value}} for value in wanted]}
    return {foreign: {"$in": wanted}}


def _refuse_writes(name: str, pipeline: Any) -> None:
    if not isinstance(pipeline, list):
        raise CommandError(14, f"the pipeline of {name} has to be an array")
    for stage in pipeline:
        if isinstance(stage, Mapping) and _LAST_ONLY & set(stage):
            raise CommandError(51047, f"{next(iter(stage))} is not allowed within a {name} stage")


def _union_with(name: str, spec: Any, run: _Run) -> Stage:
    options = {"coll": spec} if isinstance(spec, str) else as_document(spec)
    if options is None or set(options) - {"coll", "pipeline"}:
        raise CommandError(9, f"the {name} stage specification must be an object or string")
    pipeline: Any = options.get("pipeline", [])
    source = options.get("coll")
    _refuse_writes(name, pipeline)
    if not isinstance(source, str):
        if pipeline and isinstance(pipeline[0], Mapping) and "$documents" in pipeline[0]:
            return lambda documents: itertools.chain(documents, _run(pipeline, (), run))
        raise CommandError(9, f"{name} needs the name of a collection")
    _run(pipeline, (), run)

    def union(documents: Iterator[Document]) -> Iterator[Document]:
        yield from documents
        yield from _run(pipeline, run.collections.scan(source), run)

    return union


def _facet(name: str, spec: Any, run: _Run) -> Stage:
    facets = as_document(spec)
    if not facets:
        raise CommandError(40169, "the $facet specification must be a non-empty object")
    for pipeline in facets.values():
        _refuse_writes(name, pipeline)
        for stage in pipeline:
            if isinstance(stage, Mapping) and {"$facet", "$documents", "$collStats", *_SEARCHES} & set(stage):
                raise CommandError(40600, f"{next(iter(stage))} is not allowed to be used within a $facet stage")
        _run(pipeline, (), run)

    def facet(documents: Iterator[Document]) -> Iterator[Document]:
        held = list(documents)
        yield {key: list(_run(pipeline, held, run)) for key, pipeline in facets.items()}

    return facet


def _bucket(_: str, spec: Any, run: _Run) -> Stage:
    return _lazily(compile_bucket(spec, now=run.now, variables=run.variables))


_GRAPH = {"from", "as", "startWith", "connectFromField", "connectToField"}


def _graph_lookup(name: str, spec: Any, run: _Run) -> Stage:
    options = as_document(spec)
    if options is None:
        raise CommandError(40327, "the $graphLookup stage specification must be an object")
    for option in options:
        if option not in (*_GRAPH, "maxDepth", "depthField", "restrictSearchWithMatch"):
            raise CommandError(40104, f"unknown argument to $graphLookup: {option}")
    if missing := _GRAPH - options.keys():
        raise CommandError(40105, f"$graphLookup requires {sorted(missing)} to be specified")
    source, into, along, to = (options[key] for key in ("from", "as", "connectFromField", "connectToField"))
    if not all(isinstance(value, str) and value for value in (source, into, along, to)):
        raise CommandError(40103, "the names of a collection and of fields in $graphLookup must be strings")
    if any(value.startswith("$") for value in (into, along, to)):
        raise CommandError(16410, "FieldPath field names may not start with '$'.")
    depth, depth_field = options.get("maxDepth"), options.get("depthField")
    most = None if depth is None else to_int(depth)
    if depth is not None and (most is None or most < 0):
        raise CommandError(40101 if most is not None else 40100, "maxDepth requires a nonnegative whole number")
    if depth_field is not None and (not isinstance(depth_field, str) or depth_field.startswith("$")):
        raise CommandError(40103, "depthField must be the path of a field")
    restriction = options.get("restrictSearchWithMatch", {})
    if as_document(restriction) is None:
        raise CommandError(40185, "restrictSearchWithMatch must be an object")
    accepts = compile_filter(restriction, now=run.now, variables=run.variables)
    start = compile_expression(options["startWith"], run.scope)

    def reached(document: Document) -> list[Document]:
        first = start(document, run.scope)
        frontier = list(first) if isinstance(first, list) else [] if first is MISSING else [first]
        found: dict[bytes, Document] = {}
        asked: set[bytes] = set()
        level = 0
        while frontier and (most is None or level <= most):
            wanted = [value for value in frontier if encode_key(value) not in asked]
            asked.update(map(encode_key, wanted))
            frontier = []
            for other in run.collections.find(source, {to: {"$in": wanted}}) if wanted else ():
                key = encode_key(other["_id"])
                if key in found or not accepts(other):
                    continue
                shown = other if depth_field is None else _place(other, split_path(depth_field), Int64(level))
                found[key] = shown
                for value in lookup(other, along, expand=False):
                    frontier.extend(value if isinstance(value, list) else () if value is MISSING else (value,))
            level += 1
        return list(found.values())

    return lambda documents: (_place(document, split_path(into), reached(document)) for document in documents)


def _coll_stats(_: str, spec: Any, run: _Run) -> Stage:
    options = as_document(spec)
    if options is None:
        raise CommandError(5447000, "$collStats must take a nested object")
    for option, value in options.items():
        if option not in ("count", "storageStats"):
            raise NotKnown(f"$collStats of {option}")
        if not isinstance(value, Mapping):
            raise CommandError(40169, f"{option} argument must be an object")

    def stats(_: Iterator[Document]) -> Iterator[Document]:
        found = run.collections.stats()
        shown: Document = {"ns": found["ns"], "localTime": run.now}
        if "storageStats" in options:
            shown["storageStats"] = {key: value for key, value in found.items() if key != "ns"}
        if "count" in options:
            shown["count"] = found["count"]
        yield shown

    return stats


def _sample(_: str, spec: Any, run: _Run) -> Stage:
    del run
    size = to_int(spec.get("size")) if isinstance(spec, Mapping) and set(spec) == {"size"} else None
    if size is None or size < 1:
        raise CommandError(28747, "size argument to $sample must be a positive integer")

    def sample(documents: Iterator[Document]) -> Iterable[Document]:
        held = list(documents)
        return random.sample(held, min(size, len(held)))

    return _lazily(sample)


def _documents(_: str, spec: Any, run: _Run) -> Stage:
    found = compile_expression(spec, run.scope)({}, run.scope)
    if not isinstance(found, list) or any(as_document(item) is None for item in found):
        raise CommandError(5858203, "an array of documents is expected in $documents")
    return lambda _: (dict(item) for item in found)


def _out(name: str, spec: Any, run: _Run) -> Stage:
    into = target(name, spec)

    def out(documents: Iterator[Document]) -> Iterator[Document]:
        run.collections.replace_all(into.name, map(identified, documents))
        yield from ()

    return out


def _merge(name: str, spec: Any, run: _Run) -> Stage:
    into: Target = target(name, spec)

    write = compile_merge(into, run.collections, now=run.now, variables=run.variables)

    def merge(documents: Iterator[Document]) -> Iterator[Document]:
        # All is read before anything is written, since the target may be the source.
        for document in into.identified(documents):
            write(document)
        yield from ()

    return merge


_STAGES: Mapping[str, StageBuilder] = {
    "$match": _match,
    "$group": _group,
    "$sort": _sort,
    "$limit": _limit,
    "$skip": _limit,
    "$count": _count,
    "$sortByCount": _sort_by_count,
    "$unwind": _unwind,
    "$lookup": _lookup,
    "$unionWith": _union_with,
    "$facet": _facet,
    "$bucket": _bucket,
    "$graphLookup": _graph_lookup,
    "$collStats": _coll_stats,
    "$sample": _sample,
    "$documents": _documents,
    "$out": _out,
    "$merge": _merge,
}
