"""
Send the runner's own commands to the server. The runner sends none in any other way. I/O.

Each call is one command on the wire, on the primary, without the read or write concern of the handle, and without a
retry by the driver. Only `retry` decides what is sent again, and this module decides how long to wait for an answer.
"""

import asyncio
import time
from collections.abc import Awaitable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from bson.codec_options import CodecOptions, DatetimeConversion
from pymongo.errors import OperationFailure

from mydocs.migrations.driver.client import Database, Document, client_of, why_unknown
from mydocs.migrations.driver.retry import again, again_patiently
from mydocs.migrations.driver.server_errors import NoAnswer
from mydocs.migrations.limits import limits

T = TypeVar("T")


# Not as the application has set its client. Also, a stored date beyond the year 9999, or text that is not UTF-8, must
# fail where it is read, and not spoil the whole reply.
OWN_CODEC: CodecOptions[Any] = CodecOptions(
    datetime_conversion=DatetimeConversion.DATETIME_AUTO, unicode_decode_error_handler="replace"
)
MAJORITY = {"w": "majority"}  # a standalone server accepts it too
EMPTY_BATCHES = 20  # in a row, of one cursor; a sharded cluster may send one while a shard has no result yet
LISTING_MILLISECONDS = 10_000  # time limit on the server; a listing that takes longer is requested again
# Commands that work on the application's documents have no limit. On these collections they have one.
_ON_DOCUMENTS = frozenset({"aggregate", "count", "delete", "distinct", "find", "findAndModify", "insert", "update"})
OWN_COLLECTIONS = ("_migrations", "_search_aliases")  # prefixes of names


async def command(
    db: Database,
    body: Mapping[str, Any],
    *,
    session: Any = None,
    codec_options: CodecOptions[Any] = OWN_CODEC,
    long: bool | None = None,
) -> Document:
    """
    Send one command once.

    :param session: from :func:`session_of`, if the command is part of its transaction
    :param codec_options: how the reply is decoded; by default independent of the application's client
    :param long: whether to wait for the answer without a limit; by default the command decides
    :raises OperationFailure: also for an error of a single write, which drivers leave inside the reply
    :raises NoAnswer: if the server does not answer within ``Limits.answer``
    """
    asked = db.command(dict(body), session=session, codec_options=codec_options)
    takes_long = _takes_long(body) if long is None else long
    reply: Document = await (asked if takes_long else answered(db, asked, _label(body)))
    concern = reply.get("writeConcernError")
    for problem in [*reply.get("writeErrors", ()), *([concern] if concern else [])]:
        raise OperationFailure(problem.get("errmsg", ""), problem.get("code"), problem)
    return reply


async def answered(db: Database, asked: Awaitable[T], what: str) -> T:
    """
    Await a request of the runner itself. None of them waits without a limit.

    The driver's search for a server has its own limit, ``serverSelectionTimeoutMS``, in addition. A thread in which
    Motor waits for the answer cannot be stopped, and is left alone.

    :param what: its name in the error
    :raises NoAnswer: if there is no answer within ``Limits.answer``
    """
    client = client_of(db)
    limit = limits().answer
    if not client.topology_description.has_writable_server():
        limit += client.options.server_selection_timeout
    limit = max(0.0, min(limit, limits().until - time.monotonic()))
    timeout = asyncio.timeout(limit)
    try:
        async with timeout:
            return await asked
    except TimeoutError as error:
        if not timeout.expired():
            raise
        raise NoAnswer(f"{what} has no answer within {limit:.1f} s{why_unknown(db)}") from error


def _takes_long(body: Mapping[str, Any]) -> bool:
    """Return whether a command may rightly take long: it builds an index, or works on the application's data."""
    name = next(iter(body))
    if name == "createIndexes":
        return True
    looks = "pipeline" in body and "$listSearchIndexes" in str(body["pipeline"][:1])
    return name in _ON_DOCUMENTS and not looks and not str(body[name]).startswith(OWN_COLLECTIONS)


def _label(body: Mapping[str, Any]) -> str:
    name, where = next(iter(body.items()))
    return f"{name} on {where}" if isinstance(where, str) else name


async def command_again(db: Database, body: Mapping[str, Any]) -> Document:
    """Send one idempotent command, and again after each transient error."""
    return await again(lambda: command(db, body))


async def documents(
    db: Database, body: Mapping[str, Any], *, codec_options: CodecOptions[Any] = OWN_CODEC
) -> list[Document]:
    """
    Send a command with a cursor once, and read the cursor to its end.

    :raises NoAnswer: also if the cursor returns nothing more and does not end
    """
    long, empty = _takes_long(body), 0
    cursor = (await command(db, body, codec_options=codec_options, long=long))["cursor"]
    found: list[Document] = list(cursor["firstBatch"])
    while cursor["id"]:
        collection = cursor["ns"].split(".", 1)[1]
        more = {"getMore": cursor["id"], "collection": collection}
        cursor = (await command(db, more, codec_options=codec_options, long=long))["cursor"]
        found += cursor["nextBatch"]
        empty = 0 if cursor["nextBatch"] else empty + 1
        if empty == EMPTY_BATCHES:
            raise NoAnswer(f"the cursor of {_label(body)} does not end: its last {empty} batches were empty")
    return found


async def documents_again(
    db: Database,
    body: Mapping[str, Any],
    *,
    codec_options: CodecOptions[Any] = OWN_CODEC,
    patiently: bool = False,
) -> list[Document]:
    """
    Read the documents of a command, from the start again after each transient error.

    :param patiently: retry as a waiting task does; see :func:`again_patiently`
    """
    read = partial(documents, db, body, codec_options=codec_options)
    return await (again_patiently(read) if patiently else again(read))


async def search_listing(db: Database, collection: str, names: Sequence[str]) -> list[Document]:
    """
    List the search indexes of a collection in one command. A collection that does not exist has none.

    :param names: requested one by one if the whole listing is too large for the server
    """

    def ask(selector: Mapping[str, str]) -> Mapping[str, Any]:
        pipeline = [{"$listSearchIndexes": selector}]
        return {"aggregate": collection, "pipeline": pipeline, "cursor": {}, "maxTimeMS": LISTING_MILLISECONDS}

    try:
        return await documents(db, ask({}))
    except OperationFailure as error:
        if error.code != 396:  # IndexInformationTooLarge: more than 16 MB
            raise
    return [document for name in names for document in await documents(db, ask({"name": name}))]


async def standard_listing(db: Database, where: str) -> list[Document]:
    """List the standard indexes of a collection. A collection that does not exist has none."""
    try:
        listed = await documents_again(db, {"listIndexes": where, "cursor": {"batchSize": 1000}})
    except OperationFailure as error:
        if error.code != 26:  # NamespaceNotFound: the collection does not exist yet
            raise
        return []
    return [one for one in listed if isinstance(one.get("name"), str) and isinstance(one.get("key"), Mapping)]


async def ensure_collection(db: Database, name: str) -> None:
    """Create a collection if it is absent, which search commands never do."""
    try:
        await command_again(db, {"create": name})
    except OperationFailure as error:
        if error.code != 48:  # NamespaceExists
            raise
