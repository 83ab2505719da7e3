"""Read what the copy needs from the database, within limits. I/O: reads only."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument
from pymongo.errors import OperationFailure

from mydocs.migrations.driver import commands, retry, server_errors
from mydocs.migrations.driver.client import Database
from mydocs.migrations.driver.task_groups import all_or_first_error
from mydocs.migrations.values import value
from mydocs.preview.record import OWN

BYTES = 16_000_000  # of the documents of one collection
SECONDS = 30.0  # for the documents of one collection, and for one count
BATCH = 100  # documents a reply; a reply of the largest documents holds 16 MB
AT_ONCE = 8  # collections at the same time
_LATE = 50  # MaxTimeMSExpired
_VIEW = 166  # CommandNotSupportedOnView
_RAW: CodecOptions[Any] = CodecOptions(document_class=RawBSONDocument)


@value
class SourceCollection:
    """
    A collection of the source.

    :param documents: a sample, as they are stored
    :param complete: whether these are all documents
    """

    name: str
    kind: str
    options: Mapping[str, Any]
    indexes: Sequence[Mapping[str, Any]] = ()
    search: Sequence[Mapping[str, Any]] = ()
    documents: Sequence[Any] = ()
    complete: bool = True
    note: str | None = None


@value
class Source:
    """The content for the copy: all ledger documents and aliases, and the collections."""

    own: Mapping[str, Sequence[Any]]
    collections: Sequence[SourceCollection]


async def read_source(db: Database, sample: int) -> Source:
    """
    Read collections, indexes, search listing, ledger, aliases and some documents of each collection.

    :param sample: the largest number of documents of each collection
    """
    listed = await commands.documents_again(db, {"listCollections": 1, "cursor": {}})
    found: dict[str, SourceCollection] = {}

    async def one(document: Mapping[str, Any]) -> None:
        found[document["name"]] = await _collection(db, document, sample)

    theirs = [each for each in listed if each["name"] not in OWN and not each["name"].startswith("system.")]
    await all_or_first_error([partial(one, document) for document in theirs], AT_ONCE)
    own = {
        name: await commands.documents_again(db, {"find": name}, codec_options=_RAW)
        for name in ("_migrations", "_search_aliases")
    }
    return Source(own=own, collections=[found[name] for name in sorted(found)])


async def count(db: Database, collection: str, pipeline: Sequence[Mapping[str, Any]]) -> int | None:
    """Count the results of a pipeline; ``None`` if it takes longer than 30 s, or the server refuses it."""
    body = {
        "aggregate": collection,
        "pipeline": [*pipeline, {"$count": "n"}],
        "cursor": {},
        "maxTimeMS": int(SECONDS * 1000),
    }
    try:
        found = await commands.documents_again(db, body)
    except OperationFailure:
        return None
    return int(found[0]["n"]) if found else 0


async def _collection(db: Database, document: Mapping[str, Any], sample: int) -> SourceCollection:
    name, kind = document["name"], document.get("type", "collection")
    options = dict(document.get("options") or {})
    indexes: Sequence[Mapping[str, Any]] = ()
    try:
        indexes = await commands.standard_listing(db, name)
    except OperationFailure as error:
        if error.code != _VIEW:
            raise
    search = await _search(db, name)
    if kind == "view":
        return SourceCollection(name=name, kind=kind, options=options, search=search)
    note = None
    documents: list[Any] = []
    complete = False
    try:
        documents, complete = await _sample(db, name, sample)
    except OperationFailure as error:
        if error.code != _LATE:
            raise
        note = f"reading {name} took longer than {SECONDS:g} s, so none of its documents were copied"
    return SourceCollection(
        name=name,
        kind=kind,
        options=options,
        indexes=indexes,
        search=search,
        documents=documents,
        complete=complete,
        note=note,
    )


async def _search(db: Database, name: str) -> Sequence[Mapping[str, Any]]:
    try:
        return await retry.again(lambda: commands.search_listing(db, name, ()))
    except OperationFailure as error:
        if not server_errors.is_no_search(error, of_search_command=True):
            raise
        return ()


async def _sample(db: Database, name: str, most: int) -> tuple[list[Any], bool]:
    """Return the first documents by ``_id``, and whether these are all."""
    body = {
        "find": name,
        "sort": {"_id": 1},
        "limit": most + 1,  # one more tells whether there are more
        "batchSize": BATCH,
        "maxTimeMS": int(SECONDS * 1000),
    }
    cursor = (await retry.again(lambda: commands.command(db, body, codec_options=_RAW)))["cursor"]
    documents: list[Any] = []
    size = 0
    batch = list(cursor["firstBatch"])
    while True:
        for document in batch:
            size += len(document.raw)
            if len(documents) == most or size > BYTES:
                if cursor["id"]:
                    await commands.command(db, {"killCursors": name, "cursors": [cursor["id"]]})
                return documents, False
            documents.append(document)
        if not cursor["id"]:
            return documents, True
        more = {"getMore": cursor["id"], "collection": name, "batchSize": BATCH}
        cursor = (await commands.command(db, more, codec_options=_RAW))["cursor"]
        batch = list(cursor["nextBatch"])
