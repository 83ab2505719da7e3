"""Change the documents of a collection with a function in Python: `transform`. I/O."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import anyio

from mydocs.migrations.data.asking import Asker, Function
from mydocs.migrations.data.statements import RAW, Batch, Guard, encoded, id_lists, messages, paths, shown
from mydocs.migrations.data.walk import Place, Source, Work, call_key, walk
from mydocs.migrations.driver import mongo
from mydocs.migrations.errors import NotPossible
from mydocs.migrations.indexes import capture

ROUNDS = 10  # tries for a batch whose documents others change at the same time
PAUSE_SECONDS = 0.01  # before a batch is read again that others changed; doubled each time, up to the next
LONGEST_PAUSE_SECONDS = 0.2

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
    batch: bool = False,
    concurrency: int = 1,
    fields: Sequence[str] | None = None,
    pause: float = 0.0,
) -> int:
    """
    Change every document that matches, in the order of `_id`, with what ``function(document)`` says.

    ``function`` may be async. It returns an update document (``{"$set": …}``), a pipeline, a replacement, or ``None``
    to leave the document as it is. **For a document that is changed already it must return** ``None``, **or the same
    once more**: after a kill, a lost reply or a change by somebody else meanwhile it is asked again. It may raise
    :class:`RetryLater`, and is called again then.

    A document is written only if it is still what was read; else it is read again. One that vanishes is left out.
    Numbers that differ only in type count as equal there, and so do texts that the collection's collation does not tell
    apart.

    :param batch_size: documents that are read and written by one command at most; fewer while the server is slow
    :param batch: the function gets a list of documents and returns a list of the same length
    :param concurrency: calls of an async function at the same time
    :param fields: what the function looks at. Only these and `_id` are read, and only these are compared when a change
        is written, with the filter; without it that is the whole document
    :param pause: seconds between two batches
    :return: documents that were changed, by earlier attempts of the same script too
    :raises ChangeInvalid: names the document for which ``function`` returned something else
    :raises NotPossible: in a script that says ``TRANSACTIONAL = True``; where options make no sense
    """
    capture.refuse_in_transaction("transform", IN_BATCHES)
    if concurrency < 1:
        raise NotPossible(f"concurrency is {concurrency} and must be 1 or more")
    options, read = collection.codec_options, paths(fields)
    wanted = encoded(filter, options)
    db, name = mongo.database_of(collection), collection.name
    projection = None if read is None else {"_id": 1, **dict.fromkeys(read, 1)}
    source = Source(db=db, name=name, wanted=wanted, projection=projection)
    guard = Guard() if read is None else Guard(read, wanted)
    asker = Asker(name=name, function=function, guard=guard, options=options, batch=batch, concurrency=concurrency)

    async def write(lot: Batch, statements: Batch) -> int:
        changed = 0
        for turn in range(ROUNDS):
            if turn:
                await anyio.sleep(min(LONGEST_PAUSE_SECONDS, PAUSE_SECONDS * 2**turn))
                asked = await asker.ask(lot)
                if asked.error is not None:
                    raise asked.error
                statements = asked.statements
            matched, modified = await update_documents(db, name, statements)
            changed += modified
            if matched == len(statements):
                return changed
            lot = await _still_wanted(source, statements)
            if not lot:
                return changed
        raise NotPossible(
            f"{name}: others changed documents between their read and their write {ROUNDS} times, one of them that "
            f"with _id {shown(lot[0]['_id'])!r}; run again when there is less going on"
        )

    # One batch more than the calls are for, so that the last calls of a batch leave none of them idle.
    at_once = 1 if concurrency == 1 else 1 + math.ceil(concurrency / (1 if batch else max(1, batch_size)))
    work = Work(ask=asker.ask, write=write, at_once=at_once)
    checkpoint = capture.checkpoint(call_key("transform", name, wanted.raw, *_name_of(function)))
    place = Place.of(checkpoint.place)
    await walk(source, work, checkpoint, place, batch_size=batch_size, pause=pause)
    return place.changed


async def _still_wanted(source: Source, statements: Batch) -> Batch:
    """Read the documents again that statements were for, as far as they match the filter."""
    found: Batch = []
    for asked in id_lists([statement["q"] for statement in statements]):
        body: dict[str, Any] = {"find": source.name, "filter": {"$and": [{"_id": {"$in": asked}}, source.wanted]}}
        if source.projection is not None:
            body["projection"] = source.projection
        found += [encoded(each) for each in await mongo.documents_again(source.db, body, codec_options=RAW)]
    return found


async def update_documents(db: mongo.Database, name: str, statements: Batch) -> tuple[int, int]:
    """
    Write statements that may be sent again, in as few commands as hold them.

    :return: how many documents were found, and how many of them are not as before
    """
    matched = modified = 0
    for part in messages(statements):
        body = {"update": name, "updates": part, "writeConcern": mongo.MAJORITY}
        reply = await mongo.command_again(db, body)
        matched, modified = matched + int(reply["n"]), modified + int(reply["nModified"])
    return matched, modified


def _name_of(function: Function) -> tuple[str, int]:
    """Tell functions of one script apart, two lambdas as well."""
    code = getattr(function, "__code__", None)
    return getattr(function, "__qualname__", type(function).__name__), getattr(code, "co_firstlineno", 0)
