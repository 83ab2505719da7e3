"""Implement the commands that read: find, aggregate, count, distinct, getMore. I/O through the store only."""

import itertools
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from bson import ObjectId, Regex

from mydocs.localserver.aggregation import pipeline as stages
from mydocs.localserver.catalogue.collection import Collection, Index
from mydocs.localserver.commands.context import Context, check_writable, number, refuse_changes, refuse_view
from mydocs.localserver.errors import CommandError, NotKnown
from mydocs.localserver.query.match import Filters, compile_filter
from mydocs.localserver.query.projection import compile_projection
from mydocs.localserver.query.values import MISSING, compare, encode_key, lookup, sort_documents, to_decimal, type_name

Document = dict[str, Any]
NAMES_ONE = frozenset({int, str, ObjectId})  # types of an `_id` in a filter which only one document can have


def find(context: Context, body: Document) -> Document:
    """Filter, sort, skip, limit, project."""
    for option in ("returnKey", "showRecordId", "tailable", "awaitData"):
        if body.get(option):
            raise NotKnown(f"the option '{option}' of find")
    name = context.read_name(body)
    filter_, limit, skip = body.get("filter", {}), number(body, "limit", 0), number(body, "skip", 0)
    variables = context.variables(body)
    project = compile_projection(body.get("projection", {}), now=context.now, filter=filter_)
    collection = context.store.collection(context.database, name)
    found = matching(
        context,
        collection,
        filter_,
        variables,
        sort=body.get("sort", {}),
        hint=body.get("hint"),
        within=index_bounds(body),
    )
    window = itertools.islice(found, skip, min(skip + limit, sys.maxsize) if limit else None)
    return context.cursor(
        f"{context.database}.{name}",
        map(project, window),
        number(body, "batchSize", None),
        single=bool(body.get("singleBatch")),
        limit=limit,
        expires=not body.get("noCursorTimeout"),
    )


def aggregate(context: Context, body: Document) -> Document:
    """Run a pipeline over a collection, or over nothing (``aggregate: 1``)."""
    if body.get("explain"):
        raise NotKnown("the option 'explain' of aggregate")
    if "cursor" not in body:
        raise CommandError(9, "The 'cursor' option is required, except for aggregate with the explain argument")
    pipeline = [stage for stage in body.get("pipeline", []) if _is_stage(stage)]
    source: Iterable[Document] = ()
    if isinstance(body["aggregate"], str):
        name = context.read_name(body)
        collection = context.store.collection(context.database, name)
        if pipeline and "$listSearchIndexes" in pipeline[0]:
            if body.get("apiStrict"):
                raise CommandError(323, "stage $listSearchIndexes is not allowed with 'apiStrict: true'")
            source, pipeline = _search_indexes(context, name, collection, pipeline[0]), pipeline[1:]
        else:
            order = hinted_order(collection, body.get("hint"))
            source = _narrowed(context, collection, pipeline)
            if order:
                source = sort_documents(source, order)
    else:
        name = "$cmd.aggregate"
    if any("$listSearchIndexes" in stage for stage in pipeline):
        raise CommandError(40602, "$listSearchIndexes is only valid as the first stage in a pipeline.")
    variables = context.variables(body)
    results: Iterable[Document] = stages.run_pipeline(
        pipeline, source, collections=Collections(context, name), now=context.now, variables=variables
    )
    writes = bool(pipeline) and next(iter(pipeline[-1])) in ("$out", "$merge")
    if writes and context.transaction is not None:
        raise CommandError(263, f"{next(iter(pipeline[-1]))} cannot be used in a transaction")
    if writes and body.get("readConcern", {}).get("level") == "linearizable":
        raise CommandError(72, f"{next(iter(pipeline[-1]))} cannot be used with a 'linearizable' read concern level")
    if writes:
        results = list(results)  # its writes are committed with this command, not with a later getMore
    return context.cursor(f"{context.database}.{name}", results, number(body["cursor"], "batchSize", None))


def count(context: Context, body: Document) -> Document:
    """Count what matches."""
    collection = context.store.collection(context.database, context.read_name(body))
    filter_, skip, limit = body.get("query", {}), number(body, "skip", 0), abs(number(body, "limit", 0, signed=True))
    hinted_order(collection, body.get("hint"))
    if collection is not None and not filter_ and not collection.is_view:
        total = context.store.count(collection)
    else:
        total = sum(1 for _ in matching(context, collection, filter_, None))
    total = max(0, total - skip)
    return {"n": min(total, limit) if limit else total}


def distinct(context: Context, body: Document) -> Document:
    """Return the distinct values of a field. The elements of arrays count separately."""
    collection = context.store.collection(context.database, context.read_name(body))
    values: dict[bytes, Any] = {}
    for document in matching(context, collection, body.get("query", {}), None, hint=body.get("hint")):
        for value in lookup(document, body["key"], expand=False):
            for part in value if isinstance(value, list) else () if value is MISSING else (value,):
                values.setdefault(encode_key(part), part)
    return {"values": [values[key] for key in sorted(values)]}


def get_more(context: Context, body: Document) -> Document:
    """Continue a cursor."""
    namespace = f"{context.database}.{body.get('collection', '')}"
    size = number(body, "batchSize", None)
    return context.engine.cursors.next(number(body, "getMore", 0), namespace, size or None, context.transaction)


def kill_cursors(context: Context, body: Document) -> Document:
    """Remove cursors."""
    killed = [identity for identity in body["cursors"] if context.engine.cursors.kill(identity)]
    missing = [identity for identity in body["cursors"] if identity not in killed]
    return {"cursorsKilled": killed, "cursorsNotFound": missing, "cursorsAlive": [], "cursorsUnknown": []}


def matching(
    context: Context,
    collection: Collection | None,
    filter_: Mapping[str, Any],
    variables: Mapping[str, Any] | None,
    *,
    sort: Mapping[str, Any] | None = None,
    hint: Any = None,
    within: tuple[bytes, bytes | None] = (b"", None),
    filters: Filters | None = None,
) -> Iterator[Document]:
    """
    Yield the documents that match, in the requested order or that of `_id`.

    :param within: the range of encoded `_id` to read, without its upper end
    :param filters: of the command, if it has many
    """
    if not isinstance(filter_, Mapping):
        raise CommandError(14, f"a filter is the wrong type '{type_name(filter_)}', expected type 'object'")
    if filters is not None and not hint and collection is not None and type(filter_.get("_id")) in NAMES_ONE:
        rest = dict(filter_)
        one = context.store.get(collection, rest.pop("_id"))
        accepts = filters.compiled(rest)
        return iter(() if one is None or not accepts(one) else (one,))
    accepts = compile_filter(dict(filter_), now=context.now, variables=variables)
    by_hint = hinted_order(collection, hint)
    sort = sort or by_hint
    order = list(sort.items())
    if any(name == "$natural" for name, _ in order):
        raise NotKnown("the order $natural: documents are kept in the order of _id")
    backwards = len(order) > 0 and order[0][0] == "_id" and order[0][1] == -1
    by_identity = not order or (order[0][0] == "_id" and order[0][1] in (1, -1))
    if collection is not None and collection.is_view:
        if within != (b"", None):
            raise NotKnown("min and max on a view")
        by_identity = not order
    if not by_identity:
        sort_documents([], dict(sort))  # a wrong order is refused even if there is nothing to sort
    if collection is None:
        return iter(())
    low, high = bounds(filter_)
    start, end = within
    low = max(low, start)
    if end is not None:
        high = end if high is None else min(high, end)
    scanned = scan(context, collection, low, high, backwards=backwards)
    if end is not None:
        scanned = (document for document in scanned if encode_key(document["_id"]) < end)
    found = filter(accepts, scanned)
    # `_id` is unique, so the keys after it in an order change nothing.
    return found if by_identity else iter(sort_documents(list(found), dict(sort)))


def scan(
    context: Context,
    collection: Collection,
    low: bytes = b"",
    high: bytes | None = None,
    *,
    backwards: bool = False,
) -> Iterator[Document]:
    """Yield the documents of a collection within a range of encoded `_id`, or all of a view."""
    if not collection.is_view:
        return context.store.scan(collection, low, high, backwards=backwards)
    below = collection.options["viewOn"]
    source = context.store.collection(context.database, below)
    documents = iter(()) if source is None else scan(context, source)
    pipeline = collection.options["pipeline"]
    return stages.run_pipeline(pipeline, documents, collections=Collections(context, below), now=context.now)


def hinted_order(collection: Collection | None, hint: Any) -> Mapping[str, Any]:
    """
    Return the order in which an index that a hint names yields documents. A hint has no other effect here.

    :raises CommandError: code 2 if no index has that name or key
    :raises NotKnown: for an index that leaves documents out
    """
    if not isinstance(hint, str | Mapping | None):
        raise CommandError(9, f"a hint must be a string or an object, not {type_name(hint)}")
    if isinstance(hint, Mapping) and "$natural" in hint:
        if hint["$natural"] != 1:
            raise NotKnown("the hint $natural in an order other than 1")
        return {}
    if collection is None or not hint:
        return {}
    if collection.is_view:
        raise NotKnown("a hint on a view")
    named = [
        index
        for index in collection.indexes
        if not index.spec.get("hidden")
        and (index.name == hint if isinstance(hint, str) else compare(index.key, hint) == 0)
    ]
    if not named:
        raise CommandError(2, "hint provided does not correspond to an existing index")
    if len(named) > 1 or not named[0].is_complete:
        raise NotKnown("a hint of an index that leaves documents out, or of one of several on the same key")
    (index,) = named
    unordered = "collation" in index.spec or any(isinstance(direction, str) for direction in index.key.values())
    # In the key of an index any number is a direction. In a sort only 1 and -1 are.
    return {} if unordered else {path: 1 if to_decimal(way) > 0 else -1 for path, way in index.key.items()}


def index_bounds(body: Document) -> tuple[bytes, bytes | None]:
    """
    Return the range of encoded `_id` that `min` and `max` set. The upper end is excluded.

    :raises CommandError: code 51173 without a hint
    """
    given = {option: body[option] for option in ("min", "max") if body.get(option)}
    if not given:
        return b"", None
    if body.get("hint") is None:
        raise CommandError(51173, "When using min()/max() a hint of which index to use must be provided")
    if body["hint"] not in ({"_id": 1}, "_id_") or any(list(bound) != ["_id"] for bound in given.values()):
        raise NotKnown("min and max of find on another index than that of _id")
    keys = {option: encode_key(bound["_id"]) for option, bound in given.items()}
    return keys.get("min", b""), keys.get("max")


def bounds(filter_: Mapping[str, Any]) -> tuple[bytes, bytes | None]:
    """
    Return the range of encoded `_id` that can match. It is a superset: the filter itself decides.

    >>> bounds({"a": 1})
    (b'', None)
    """
    low, high = b"", None
    for name, condition in filter_.items():
        if name == "$and" and isinstance(condition, list):
            ranges = [bounds(part) for part in condition if isinstance(part, Mapping)]
        elif name == "_id":
            ranges = [_range(condition)]
        else:
            continue
        for start, stop in ranges:
            low = max(low, start)
            high = stop if high is None else high if stop is None else min(high, stop)
    return low, high


def _range(condition: Any) -> tuple[bytes, bytes | None]:
    if not isinstance(condition, Mapping) or not any(str(name).startswith("$") for name in condition):
        exact = None if isinstance(condition, Regex) else encode_key(condition)
        return (b"", None) if exact is None else (exact, exact)
    low, high = b"", None
    for operator, value in condition.items():
        if isinstance(value, Regex):
            continue
        start: bytes = b""
        stop: bytes | None = None
        if operator == "$eq":
            start = stop = encode_key(value)
        elif operator in ("$gt", "$gte"):
            start = encode_key(value)
        elif operator in ("$lt", "$lte"):
            stop = encode_key(value)
        elif operator == "$in" and isinstance(value, list) and not any(isinstance(part, Regex) for part in value):
            keys = sorted(map(encode_key, value)) or [b""]
            start, stop = keys[0], keys[-1]
        low = max(low, start)
        high = stop if high is None else high if stop is None else min(high, stop)
    return low, high


class Collections:
    """The collections for the stages of a pipeline. A name is that of a collection or ``(database, name)``."""

    def __init__(self, context: Context, own: str) -> None:
        self._context = context
        self._own = own

    def stats(self) -> Document:
        store, database = self._context.store, self._context.database
        found = store.collection(database, self._own)
        refuse_view(found)
        if found is None:
            raise CommandError(
                26, f"Unable to retrieve storageStats in $collStats stage: {database}.{self._own} not found"
            )
        size = store.size(found)
        return {
            "ns": found.namespace,
            "count": store.count(found),
            "size": size,
            "storageSize": size,
            "nindexes": len(found.indexes),
            "capped": False,
        }

    def scan(self, name: str | tuple[str, str]) -> Iterator[Document]:
        collection = self._context.store.collection(*self._split(name))
        return iter(()) if collection is None else scan(self._context, collection)

    def find(self, name: str | tuple[str, str], filter_: Mapping[str, Any]) -> Iterator[Document]:
        collection = self._context.store.collection(*self._split(name))
        return matching(self._context, collection, filter_, None)

    def put(self, name: str | tuple[str, str], document: Document, *, insert: bool) -> None:
        context = self._context
        collection = context.writable(*self._split(name))
        refuse_changes(collection)
        old = None if insert else context.store.get(collection, document["_id"])
        context.check(collection, document, old)
        if old is None:
            context.store.insert(collection, document)
        else:
            context.store.replace(collection, old, document)

    def has_unique(self, name: str | tuple[str, str], paths: tuple[str, ...]) -> bool:
        collection = self._context.store.collection(*self._split(name))
        return collection is not None and any(
            index.spec.get("unique")
            and index.is_complete
            and "collation" not in index.spec
            and index.key.keys() == set(paths)
            for index in collection.indexes
        )

    def replace_all(self, name: str | tuple[str, str], documents: Iterable[Document]) -> None:
        """Fill another collection, then replace the existing one by it, so that an error changes nothing."""
        store, (database, target) = self._context.store, self._split(name)
        check_writable(database, target)
        old = store.collection(database, target)
        refuse_changes(old)
        options = {} if old is None else old.options
        fresh = store.create(database, f"tmp.agg_out.{target}", options=options)
        try:
            for index in old.indexes[1:] if old is not None else ():
                space = None if index.space is None else next(store.spaces)
                fresh = replace(fresh, indexes=(*fresh.indexes, Index(index.spec, space)))
            store.save(fresh)
            for document in documents:
                self._context.check(fresh, document)
                store.insert(fresh, document)
        except CommandError:
            store.drop(fresh)
            raise
        if old is not None:
            store.drop(old)
            self._context.engine.cursors.drop_collection(old.namespace)
            self._context.engine.search.drop_collection(old.identity)
        store.rename(fresh, database, target)

    def _split(self, name: str | tuple[str, str]) -> tuple[str, str]:
        return (self._context.database, name) if isinstance(name, str) else name


def _is_stage(stage: Any) -> bool:
    if not isinstance(stage, Mapping) or len(stage) != 1:
        raise CommandError(40323, "A pipeline stage specification object must contain exactly one field.")
    return True


def _narrowed(context: Context, collection: Collection | None, pipeline: list[Any]) -> Iterator[Document]:
    """Scan only the `_id` range that a leading $match can accept."""
    if collection is None:
        return iter(())
    first = pipeline[0].get("$match") if pipeline else None
    low, high = bounds(first) if isinstance(first, Mapping) else (b"", None)
    return scan(context, collection, low, high)


def _search_indexes(
    context: Context, name: str, collection: Collection | None, stage: Mapping[str, Any]
) -> list[Document]:
    if context.transaction is not None:
        raise CommandError(263, "Operation not permitted in transaction: $listSearchIndexes")
    identity = None if collection is None else collection.identity
    return context.engine.search.list(context.database, name, identity, stage["$listSearchIndexes"])
