"""
What scripts call to change documents: batch by batch in the order of `_id`, each batch written at once. I/O.

A batch is read by one ``find`` that starts where the last one ended and leaves no cursor open, so a script may take as
long for a batch as it likes, and a run that was killed goes on after the last batch that it finished. The bound is an
index bound (``min``) and no condition on `_id`, since a condition would see only values of one type.

A document is written only if it is still what was read. That is compared with the very bytes of it: documents are read
undecoded, and decoded as the application has set it only for the script's own function.
"""

import hashlib
import inspect
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import anyio
import bson
from bson.codec_options import CodecOptions, DatetimeConversion
from bson.raw_bson import RawBSONDocument

from mydocs.migrations.data import order
from mydocs.migrations.driver import mongo
from mydocs.migrations.errors import ChangeInvalid, NotPossible
from mydocs.migrations.indexes import capture
from mydocs.migrations.reporting.events import BatchDone

Change: TypeAlias = Mapping[str, Any] | Sequence[Mapping[str, Any]] | None
"""An update document, a pipeline, a replacement, or ``None`` for "leave it"."""
Function: TypeAlias = Callable[[Any], Change | Awaitable[Change]]
Batch: TypeAlias = list[RawBSONDocument]

ROUNDS = 10  # tries for a batch whose documents others change at the same time
STATEMENTS = 100_000  # of one update command; `maxWriteBatchSize` of every server
# Of a command with all its statements: PyMongo sends no more than 16 KiB above that (command_runner.py,
# `_COMMAND_OVERHEAD`), although a message may have 48 MB; the rest is for what the driver adds.
MESSAGE_BYTES = 16 * 1024 * 1024
ELEMENT_BYTES = 16  # around a value in an array: its type, its index as text, and a bit
PAUSE_SECONDS = 0.01  # before a batch is read again that others changed; doubled each time, up to the next
LONGEST_PAUSE_SECONDS = 0.2

# Dates before year 1 and after 9999, and UUIDs of any subtype, must come back as they went in.
RAW: CodecOptions[RawBSONDocument] = CodecOptions(
    document_class=RawBSONDocument, datetime_conversion=DatetimeConversion.DATETIME_MS
)
IN_BATCHES = (
    "it writes in batches of its own, which stay whatever becomes of the transaction; use "
    "collection.update_many(…, session=session), or take TRANSACTIONAL out"
)


async def transform(
    collection: mongo.Collection,
    filter: Mapping[str, Any],  # noqa: A002  # as the drivers call it
    function: Function,
    *,
    batch_size: int = 1000,
) -> int:
    """
    Change every document that matches, in the order of `_id`, with what ``function(document)`` says.

    ``function`` may be async. It returns an update document (``{"$set": …}``), a pipeline, a replacement, or ``None``
    to leave the document as it is. **For a document that is changed already it must return** ``None``, **or the same
    once more**: after a kill, a lost reply or a change by somebody else meanwhile it is asked again.

    A document that changes between read and write is read again; one that vanishes is left out. Numbers that differ
    only in type count as equal there, and so do texts that the collection's collation does not tell apart.

    :param batch_size: documents that are held in memory, and written by one command
    :return: documents that were changed, by earlier attempts of the same script too
    :raises ChangeInvalid: names the document for which ``function`` returned something else
    :raises NotPossible: in a script that says ``TRANSACTIONAL = True``
    """
    capture.refuse_in_transaction("transform", IN_BATCHES)
    options = collection.codec_options
    wanted = _encoded(filter, options)
    db, name = mongo.database_of(collection), collection.name

    async def change(batch: Batch) -> int:
        changed = 0
        for turn in range(ROUNDS):
            if turn:
                await anyio.sleep(min(LONGEST_PAUSE_SECONDS, PAUSE_SECONDS * 2**turn))
            statements = [s for d in batch if (s := await _statement(name, d, function, options)) is not None]
            matched, modified = await _update(db, name, statements)
            changed += modified
            if matched == len(statements):
                return changed
            batch = []
            for asked in _id_lists(statement["q"] for statement in statements):
                again = {"find": name, "filter": {"$and": [{"_id": {"$in": asked}}, wanted]}}
                batch += [_encoded(d, RAW) for d in await mongo.documents_again(db, again, codec_options=RAW)]
            if not batch:
                return changed
        raise NotPossible(
            f"{name}: others changed documents between their read and their write {ROUNDS} times, one of them that "
            f"with _id {_shown(batch[0]['_id'])!r}; run again when there is less going on"
        )

    call = ("transform", wanted.raw, *_name_of(function))
    return await _walk(collection, call, wanted, batch_size, change)


async def rename_field(collection: mongo.Collection, old: str, new: str, *, batch_size: int = 1000) -> int:
    """
    Rename a field in every document that has it; paths with dots are fine.

    :return: documents that were changed, by earlier attempts of the same script too
    :raises NotPossible: before anything is changed: bad names, documents that have both fields (one value would be
        lost), arrays on the way; and in a script that says ``TRANSACTIONAL = True``
    """
    capture.refuse_in_transaction("rename_field", IN_BATCHES)
    _check_names(old, new)
    db, name = mongo.database_of(collection), collection.name
    both = {old: {"$exists": True}, new: {"$exists": True}}
    await _refuse_arrays(db, name, old, new)
    await _refuse_both(db, name, old, new, both)

    async def change(batch: Batch) -> int:
        renamed = 0
        for asked in _id_lists(batch):
            query = {"_id": {"$in": asked}, old: {"$exists": True}, new: {"$exists": False}}
            statement = _encoded({"q": query, "u": {"$rename": {old: new}}, "multi": True}, RAW)
            _, changed = await _update(db, name, [statement])
            if changed < len(asked):  # others wrote meanwhile: it may be gone, done, or have both now
                await _refuse_both(db, name, old, new, {"$and": [{"_id": {"$in": asked}}, both]})
            renamed += changed
        return renamed

    wanted = _encoded({old: {"$exists": True}}, RAW)
    return await _walk(collection, ("rename_field", old, new), wanted, batch_size, change, {"_id": 1})


async def unset_field(collection: mongo.Collection, field: str, *, batch_size: int = 1000) -> int:
    """
    Remove a field from every document that has it; paths with dots are fine.

    :return: documents that were changed, by earlier attempts of the same script too
    :raises NotPossible: before anything is changed: a bad name, arrays on the way; and in a script that says
        ``TRANSACTIONAL = True``
    """
    capture.refuse_in_transaction("unset_field", IN_BATCHES)
    _check_names(field)
    db, name = mongo.database_of(collection), collection.name
    await _refuse_arrays(db, name, field)

    async def change(batch: Batch) -> int:
        queries = [{"_id": {"$in": asked}, field: {"$exists": True}} for asked in _id_lists(batch)]
        update = {"$unset": {field: ""}}
        return (await _update(db, name, [_encoded({"q": q, "u": update, "multi": True}, RAW) for q in queries]))[1]

    wanted = _encoded({field: {"$exists": True}}, RAW)
    return await _walk(collection, ("unset_field", field), wanted, batch_size, change, {"_id": 1})


@dataclass(slots=True)
class _Place:
    """How far a walk has come. ``after`` is a BSON document, so that `_id` keeps its type in the ledger."""

    after: bytes | None = None
    done: int = 0
    changed: int = 0
    total: int | None = None

    @classmethod
    def of(cls, stored: capture.Place | None) -> "_Place":
        place = cls(**{key: value for key, value in (stored or {}).items() if key in cls.__slots__})
        numbers = (place.done, place.changed, place.total)
        whole = isinstance(place.after, bytes) and all(isinstance(number, int) for number in numbers)
        return place if whole else cls()

    def stored(self) -> capture.Place:
        return {key: getattr(self, key) for key in self.__slots__}


async def _walk(
    collection: mongo.Collection,
    call: tuple[object, ...],
    wanted: RawBSONDocument,
    batch_size: int,
    change: Callable[[Batch], Awaitable[int]],
    projection: Mapping[str, int] | None = None,
) -> int:
    """Change batch after batch, and keep the place after each; ``call`` tells this call from the script's others."""
    if batch_size < 1:
        raise NotPossible(f"batch_size is {batch_size} and must be 1 or more")
    db, name = mongo.database_of(collection), collection.name
    checkpoint = capture.checkpoint(_call_key(name, call))
    place, started, is_last = _Place.of(checkpoint.place), time.monotonic(), False
    first: object = None
    if place.total is None:
        place.total = int((await mongo.command_again(db, {"count": name, "query": wanted}))["n"])
    while not is_last:
        batch, is_last = await _read(db, name, wanted, place.after, batch_size, projection)
        if not batch:
            continue
        await _check_order(db, name, place.after, batch[0]["_id"], first)
        first = batch[0]["_id"]
        place.changed += await change(batch)
        place.after = bson.encode({"_id": batch[-1]["_id"]}, codec_options=RAW)
        place.done += len(batch)
        batch = []  # not held while the next one is read
        place.total = max(place.total, place.done)  # others may have added some
        await checkpoint.save(place.stored())
        seconds = time.monotonic() - started
        capture.say(BatchDone(collection=name, done=place.done, total=place.total, seconds=seconds))
    return place.changed


async def _read(
    db: mongo.Database,
    name: str,
    wanted: RawBSONDocument,
    after: bytes | None,
    size: int,
    projection: Mapping[str, int] | None,
) -> tuple[Batch, bool]:
    """Read the next batch, and whether it is the last. A reply may hold fewer documents than there are: 16 MB."""
    body: dict[str, Any] = {"find": name, "filter": wanted, "sort": {"_id": 1}, "limit": size, "batchSize": size + 1}
    if projection is not None:
        body["projection"] = projection
    if after is not None:
        bound = RawBSONDocument(after, RAW)
        # The bound itself is in its range, so the condition takes it out.
        body |= {"filter": {"$and": [wanted, {"_id": {"$ne": bound["_id"]}}]}, "min": bound, "hint": {"_id": 1}}
    cursor = (await mongo.again(lambda: mongo.command(db, body, codec_options=RAW)))["cursor"]
    batch: Batch = list(cursor["firstBatch"])
    if cursor["id"]:  # cut at 16 MB; the next find goes on from there
        await mongo.command_again(db, {"killCursors": name, "cursors": [cursor["id"]]})
        return batch, False
    return batch, len(batch) < size


async def _check_order(db: mongo.Database, name: str, after: bytes | None, found: object, first: object) -> None:
    """
    Check that a batch begins after the one before: else the walk would never end.

    :param first: the `_id` that the batch before began with
    """
    if after is None:
        return
    last = RawBSONDocument(after, RAW)["_id"]
    is_after = order.sort_key(found) > order.sort_key(last)
    if not is_after and order.has_text(found) and found != first:
        # In the order of a collation, which only the server knows.
        listing = {"listCollections": 1, "filter": {"name": name}}
        is_after = any("collation" in each.get("options", {}) for each in await mongo.documents_again(db, listing))
    if not is_after:
        raise NotPossible(
            f"{name}: after the batch that ended with _id {_shown(last)!r} the server sent one that begins with _id "
            f"{_shown(found)!r}; this server does not keep to `min` of find, without which a walk over a collection "
            "would never end, so nothing more is done; use update_many of the driver"
        )


async def _statement(
    name: str, document: RawBSONDocument, function: Function, options: CodecOptions[Any]
) -> RawBSONDocument | None:
    """Ask the function, and make of its answer an update that changes the document only as it was read."""
    answer = function(bson.decode(document.raw, options))
    change: Any = await answer if inspect.isawaitable(answer) else answer
    if change is None:
        return None
    identity = document["_id"]
    problem = _problem(change, identity, options)
    if problem is not None:
        raise ChangeInvalid(name, _shown(identity), problem)
    query = {"_id": identity, "$expr": {"$eq": ["$$ROOT", {"$literal": document}]}}
    statement = _encoded({"q": query, "u": _encoded({"u": change}, options)["u"]}, RAW)
    if len(statement.raw) > MESSAGE_BYTES:
        problem = (
            f"the document and its change have {len(statement.raw)} bytes together, and one statement holds "
            f"{MESSAGE_BYTES}; return an update document or a pipeline in place of a replacement"
        )
        raise ChangeInvalid(name, _shown(identity), problem)
    return statement


def _problem(change: Any, identity: Any, options: CodecOptions[Any]) -> str | None:
    """Say what keeps an answer from being a change of the document with that `_id`; ``None`` where nothing does."""
    if isinstance(change, list | tuple):
        if change and all(isinstance(stage, Mapping) for stage in change):
            return None
        return "the function returned a list that is no pipeline; return None to leave the document as it is"
    if not isinstance(change, Mapping):
        kind = type(change).__name__
        return f"the function returned {kind}; return an update document, a pipeline, a replacement or None"
    if not change:
        return "the function returned an empty document; return None to leave the document as it is"
    operators = [key for key in change if str(key).startswith("$")]
    if operators and len(operators) < len(change):
        field = next(key for key in change if key not in operators)
        return f"the function returned a mixture of operators ({operators[0]}) and fields ({field})"
    same = bson.encode({"_id": identity}, codec_options=RAW)

    def is_same(value: object) -> bool:
        return bson.encode({"_id": value}, codec_options=options) == same

    if operators:
        changed = any(
            str(path).partition(".")[0] == "_id" and not (path == "_id" and operator == "$set" and is_same(value))
            for operator in operators
            for path, value in (change[operator].items() if isinstance(change[operator], Mapping) else ())
        )
    else:
        changed = "_id" in change and not is_same(change["_id"])
    return "the function changed _id, which cannot be changed; insert a new document instead" if changed else None


async def _update(db: mongo.Database, name: str, statements: Iterable[RawBSONDocument]) -> tuple[int, int]:
    """
    Write statements that may be sent again, in as few commands as hold them.

    :return: how many documents were found, and how many of them are not as before
    """
    matched = modified = 0
    for part in _messages(statements):
        body = {"update": name, "updates": part, "writeConcern": mongo.MAJORITY}
        reply = await mongo.command_again(db, body)
        matched, modified = matched + int(reply["n"]), modified + int(reply["nModified"])
    return matched, modified


def _messages(statements: Iterable[RawBSONDocument]) -> Iterator[Batch]:
    part: Batch = []
    size = 0
    for statement in statements:
        if part and (len(part) == STATEMENTS or size + len(statement.raw) > MESSAGE_BYTES):
            yield part
            part, size = [], 0
        part.append(statement)
        size += len(statement.raw)
    if part:
        yield part


def _check_names(*names: str) -> None:
    for name in names:
        parts = name.split(".")
        if not all(parts) or any(part.startswith("$") or "\0" in part for part in parts):
            raise NotPossible(f"{name!r} is no name of a field")
        if parts[0] == "_id":
            raise NotPossible("_id cannot be changed; insert new documents instead")
    if len(names) == 2 and (f"{names[0]}.".startswith(f"{names[1]}.") or f"{names[1]}.".startswith(f"{names[0]}.")):
        raise NotPossible(f"{names[0]!r} cannot become {names[1]!r}: they are one, or one is inside the other")


async def _refuse_arrays(db: mongo.Database, name: str, *fields: str) -> None:
    """Look for arrays on the way to a field: there the server renames nothing and unsets nothing."""
    ways = sorted({field[:place] for field in fields for place, sign in enumerate(field) if sign == "."})
    if not ways:
        return
    query = {fields[0]: {"$exists": True}, "$or": [{way: {"$type": "array"}} for way in ways]}
    found = await _example(db, name, query)
    if found is not None:
        identity, count = found
        raise NotPossible(
            f"{name}: on the way to {' or '.join(fields)} {count} documents have an array, among them that with _id "
            f"{identity!r}; a server cannot change fields in the elements of arrays like that, so use transform"
        )


async def _refuse_both(db: mongo.Database, name: str, old: str, new: str, query: Mapping[str, Any]) -> None:
    found = await _example(db, name, query)
    if found is not None:
        identity, count = found
        raise NotPossible(
            f"{name}: {count} documents have both {old} and {new}, among them that with _id {identity!r}, and renaming "
            "would lose a value; settle them first (unset_field, or transform with what is to become of both)"
        )


async def _example(db: mongo.Database, name: str, query: Mapping[str, Any]) -> tuple[object, int] | None:
    """Return one `_id` that matches and how many do."""
    counted = {"$group": {"_id": None, "count": {"$sum": 1}, "example": {"$first": "$_id"}}}
    body = {"aggregate": name, "pipeline": [{"$match": query}, counted], "cursor": {}}
    found = await mongo.documents_again(db, body, codec_options=RAW)
    return (_shown(found[0]["example"]), int(found[0]["count"])) if found else None


def _shown(identity: object) -> object:
    return bson.decode(identity.raw) if isinstance(identity, RawBSONDocument) else identity


def _id_lists(documents: Iterable[Mapping[str, Any]]) -> Iterator[list[Any]]:
    """Yield the `_id` of documents in lists that fit into one condition; an `_id` may be as large as a document."""
    part: list[Any] = []
    size = 0
    for document in documents:
        identity = document["_id"]
        length = len(bson.encode({"_id": identity}, codec_options=RAW)) + ELEMENT_BYTES
        if part and size + length > MESSAGE_BYTES // 2:  # the rest is for the script's filter
            yield part
            part, size = [], 0
        part.append(identity)
        size += length
    if part:
        yield part


def _encoded(document: Mapping[str, Any], options: CodecOptions[Any]) -> RawBSONDocument:
    return RawBSONDocument(bson.encode(document, codec_options=options), RAW)


def _call_key(name: str, call: tuple[object, ...]) -> str:
    """Name a call by what it does, so that a script that leaves out a call the second time mixes no places up."""
    digest = hashlib.sha256(repr((name, call)).encode()).hexdigest()
    return f"{call[0]}-{name.replace('.', '_').replace('$', '_')}-{digest[:12]}"


def _name_of(function: Function) -> tuple[str, int]:
    """Tell functions of one script apart, two lambdas as well."""
    code = getattr(function, "__code__", None)
    return getattr(function, "__qualname__", type(function).__name__), getattr(code, "co_firstlineno", 0)
