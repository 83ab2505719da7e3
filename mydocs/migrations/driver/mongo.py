"""
The one seam to the drivers: Motor and PyMongo Async behind raw commands, with what may be sent again and when.

Every command of the runner's own goes through :func:`command`: one command on the wire a call, on the primary, without
read or write concern of the handle, and no retry by the driver, so that what is sent again is decided here alone, and
how long an answer is waited for.
"""

import asyncio
import inspect
import re
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, TypeAlias, TypeVar

import anyio
import anyio.lowlevel
import pymongo
from bson.codec_options import CodecOptions, DatetimeConversion
from motor.motor_asyncio import AsyncIOMotorClient, AsyncIOMotorCollection, AsyncIOMotorDatabase
from pymongo import AsyncMongoClient
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.database import Database as SyncDatabase
from pymongo.errors import (
    ConfigurationError,
    ConnectionFailure,
    DocumentTooLarge,
    ExecutionTimeout,
    InvalidName,
    InvalidURI,
    NetworkTimeout,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
)

from mydocs.migrations.driver import dialects
from mydocs.migrations.driver.dialects import Meaning
from mydocs.migrations.driver.limits import limited_to, limits
from mydocs.migrations.driver.private_names import private
from mydocs.migrations.errors import (
    CommandRefused,
    IndexFailed,
    MigrationError,
    NotAuthorised,
    NotReady,
    SearchUnavailable,
    ServerUnreachable,
    SettingsInvalid,
    Unverified,
    UsageError,
)
from mydocs.migrations.reporting.redaction import PUBLIC_PROPERTIES, SECRET_OPTIONS, redact

Document: TypeAlias = dict[str, Any]
Database: TypeAlias = AsyncIOMotorDatabase[Document] | AsyncDatabase[Document]
Collection: TypeAlias = AsyncIOMotorCollection[Document] | AsyncCollection[Document]
T = TypeVar("T")

# Not as the application has set it for its client; and a date beyond the year 9999, or text that is no UTF-8, which
# somebody else has stored, is to be met where it is read and not to spoil the whole reply.
OWN_CODEC: CodecOptions[Any] = CodecOptions(
    datetime_conversion=DatetimeConversion.DATETIME_AUTO, unicode_decode_error_handler="replace"
)
MAJORITY = {"w": "majority"}  # a standalone server accepts it too

# Codes after which the same command may succeed: the drivers' retryable reads and writes (retryable-reads.md,
# retryable-writes.md), then lock, cursor-free and overload codes of src/mongo/base/error_codes.yml.
TRANSIENT_CODES = frozenset(
    {6, 7, 89, 91, 134, 189, 262, 9001, 10058, 10107, 11600, 11602, 13435, 13436}
    | {24, 43, 50, 112, 175, 202, 237, 290, 365, 384, 402, 407, 433, 449, 450, 453, 462, 473, 489, 91331}
)
TRANSIENT_LABELS = ("RetryableError", "SystemOverloadedError", "RetryableWriteError")
UNAUTHORISED_CODES = frozenset({13, 18, 334, 391})
ATLAS_CODE = 8000  # any error of Atlas' own: "bad auth", "user is not allowed to do action", but also a quota

DUPLICATE_KEY = 11000
# BSONObjectTooLarge; and of a document that an update makes too large.
TOO_LARGE_CODES = frozenset({10334, 17419, 17420})

EMPTY_BATCHES = 20  # in a row, of one cursor; a sharded cluster may give one while a shard has nothing yet
LISTING_MILLISECONDS = 10_000  # on the server; a listing that takes longer is asked for again
# What works on documents takes as long as it takes, where they are the application's.
_ON_DOCUMENTS = frozenset({"aggregate", "count", "delete", "distinct", "find", "findAndModify", "insert", "update"})
OWN_COLLECTIONS = ("_migrations", "_search_aliases")  # and those whose names begin so
_DRIVER_DUMP = re.compile(r"(, Timeout: | \(configured timeouts: |, full error: ).*", re.DOTALL)


class NoAnswer(NetworkTimeout):
    """A command of the runner's own that was not answered in time: what it was for may have happened."""


def words_of(error: BaseException) -> str:
    """Give an error's own text; that of a script's error is the script's code, which may do anything."""
    try:
        return str(error)
    except BaseException:  # noqa: BLE001  # SystemExit too: the text of an error ends no program
        return "<its text cannot be shown>"


def says(error: BaseException, meaning: Meaning) -> bool:
    """Whether a server's error means this, in the words of whichever kind of server."""
    return isinstance(error, OperationFailure) and dialects.says(error.code, text_of(error), meaning)


def is_search_starting(error: BaseException) -> bool:
    """Whether the search process behind the server does not answer yet, or for the moment."""
    return says(error, Meaning.STARTING)


def is_transient(error: BaseException) -> bool:
    """Whether the same command may succeed if it is sent again."""
    if isinstance(error, ConnectionFailure | ExecutionTimeout):
        return not isinstance(error, ConfigurationError)
    if isinstance(error, OperationFailure):
        return (
            error.code in TRANSIENT_CODES
            or any(error.has_error_label(label) for label in TRANSIENT_LABELS)
            or is_search_starting(error)
        )
    return False


def is_worth_another_try(error: BaseException) -> bool:
    """
    Whether to send a command again at once.

    Not where the driver found no server at all: it has waited as long as the URL says (``serverSelectionTimeoutMS``,
    30 s by default), which is the operator's word on how long a server may be away.
    """
    return is_transient(error) and not isinstance(error, ServerSelectionTimeoutError)


def is_no_search(error: BaseException, *, of_search_command: bool = False) -> bool:
    """
    Whether the server says that it has no search indexes at all.

    :param of_search_command: the command was one: then it counts, too, that the server does not know it
    """
    return says(error, Meaning.NO_SEARCH) or (of_search_command and says(error, Meaning.UNKNOWN))


def is_unauthorised(error: BaseException) -> bool:
    """Whether login has failed, or the user may not do this."""
    if not isinstance(error, OperationFailure):
        return False
    text = words_of(error).lower()
    return error.code in UNAUTHORISED_CODES or (
        error.code == ATLAS_CODE and ("auth" in text or "user is not allowed" in text)
    )


def is_too_large(error: BaseException) -> bool:
    """Whether a document, or the message that it is sent in, is larger than the server takes."""
    return isinstance(error, DocumentTooLarge) or (
        isinstance(error, OperationFailure) and error.code in TOO_LARGE_CODES
    )


def unique_index_of(error: OperationFailure) -> str | None:
    """Name the unique index that a write was refused by; ``None`` where it is that of ``_id``."""
    found = re.search(r"\bindex: (\S+)", str((error.details or {}).get("errmsg", words_of(error))))
    return found[1] if found and found[1] != "_id_" else None


async def again(call: Callable[[], Awaitable[T]], *, seconds: float | None = None) -> T:
    """
    Await ``call()``, again after each transient error; only for what is idempotent.

    :param seconds: no new try later than this after the first; those of ``Limits.retries`` if not given
    """
    until = time.monotonic() + (limits().retries if seconds is None else seconds)
    try:
        return await call()
    except Exception as error:
        if not is_worth_another_try(error):
            raise
        failure = error
    from mydocs.migrations.driver import retries

    return await retries.soon(call, failure, is_worth_another_try, seconds=until - time.monotonic())


async def again_patiently(call: Callable[[], Awaitable[T]]) -> T:
    """Await ``call()`` as one does who waits: again after each transient error, for ``Limits.patience`` in all."""
    until = time.monotonic() + limits().patience

    async def attempt() -> T:
        with limited_to(replace(limits(), until=min(limits().until, until))):
            return await call()

    try:
        return await attempt()
    except Exception as error:
        if not is_transient(error):
            raise
        failure = error
    from mydocs.migrations.driver import retries

    return await retries.patiently(attempt, failure, is_transient, seconds=until - time.monotonic())


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

    :param session: one of :func:`session_of`, where the command is part of its transaction
    :param codec_options: how the reply is decoded; by default not as the application has set it for its client
    :param long: whether to wait for the answer without a limit; decided by the command if not given
    :raises OperationFailure: also for an error of a single write, which drivers leave inside the reply
    :raises NoAnswer: where the server does not answer within ``Limits.answer``
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
    Await what the runner itself has asked the server for; nothing of that waits without a limit.

    The driver's search for a server has its own limit, ``serverSelectionTimeoutMS``, which comes on top. A thread in
    which Motor waits for the answer cannot be stopped and is left to itself.

    :param what: names it in the error
    :raises NoAnswer: where it has no answer within ``Limits.answer``
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


def why_unknown(db: Database) -> str:
    """Say why the driver knows no server, in brackets; empty where it knows one, or has no reason yet."""
    topology = client_of(db).topology_description
    errors = {
        _DRIVER_DUMP.sub("", str(server.error)) for server in topology.server_descriptions().values() if server.error
    }
    return "" if topology.has_known_servers or not errors else f" ({'; '.join(sorted(errors))})"


def _takes_long(body: Mapping[str, Any]) -> bool:
    """Whether a server may rightly be long about a command: it builds an index, or works on the application's data."""
    name = next(iter(body))
    if name == "createIndexes":
        return True
    looks = "pipeline" in body and "$listSearchIndexes" in str(body["pipeline"][:1])
    return name in _ON_DOCUMENTS and not looks and not str(body[name]).startswith(OWN_COLLECTIONS)


def _label(body: Mapping[str, Any]) -> str:
    name, where = next(iter(body.items()))
    return f"{name} on {where}" if isinstance(where, str) else name


async def command_again(db: Database, body: Mapping[str, Any]) -> Document:
    """Send one idempotent command, again after each transient error."""
    return await again(lambda: command(db, body))


async def documents(
    db: Database, body: Mapping[str, Any], *, codec_options: CodecOptions[Any] = OWN_CODEC
) -> list[Document]:
    """
    Send a command that answers with a cursor once, and read it to its end.

    :raises NoAnswer: also where the cursor gives nothing any more and does not end
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
    Read what a command finds, from its start again after each transient error.

    :param patiently: as one does who waits; see :func:`again_patiently`
    """
    read = partial(documents, db, body, codec_options=codec_options)
    return await (again_patiently(read) if patiently else again(read))


async def search_listing(db: Database, collection: str, names: Sequence[str]) -> list[Document]:
    """
    List the search indexes of a collection in one command; of a collection that does not exist there are none.

    :param names: asked for one by one where the server finds the whole listing too large
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
    """List the standard indexes of a collection; of one that does not exist there are none."""
    try:
        listed = await documents_again(db, {"listIndexes": where, "cursor": {"batchSize": 1000}})
    except OperationFailure as error:
        if error.code != 26:  # NamespaceNotFound: the collection does not exist yet
            raise
        return []
    return [one for one in listed if isinstance(one.get("name"), str) and isinstance(one.get("key"), Mapping)]


async def ensure_collection(db: Database, name: str) -> None:
    """Create a collection where it is absent: search commands never do."""
    try:
        await command_again(db, {"create": name})
    except OperationFailure as error:
        if error.code != 48:  # NamespaceExists
            raise


def database_of(collection: Collection) -> Database:
    """
    Return the database that a collection belongs to.

    :raises UsageError: where it is not a collection of a driver that is awaited
    """
    if not isinstance(collection, AsyncIOMotorCollection | AsyncCollection):
        raise UsageError(
            f"a {type(collection).__name__} is not a collection of Motor or PyMongo Async; pass one of the database "
            'that the script is given, such as db["pages"]'
        )
    database: Database = collection.database  # type: ignore[assignment]  # Motor's stub says a collection
    return database


def check_database(db: object) -> None:
    """
    Say what to pass where somebody passes something else, before that fails somewhere inside.

    :raises UsageError: where this is not a database of a driver that can be awaited
    """
    if isinstance(db, AsyncIOMotorDatabase | AsyncDatabase):
        return
    kind = "None" if db is None else f"{type(db).__module__.partition('.')[0]}'s {type(db).__name__}"
    advice = (
        'pass an AsyncIOMotorDatabase of Motor or an AsyncDatabase of PyMongo, such as AsyncMongoClient(url)["app"]'
    )
    if isinstance(db, AsyncIOMotorClient | AsyncMongoClient):
        advice = 'pass one of its databases, such as client["app"]'
    elif isinstance(db, AsyncIOMotorCollection | AsyncCollection):
        advice = "pass its database"
    raise UsageError(f"this takes a database that can be awaited, and was given {kind}; {advice}")


def client_of(db: Database | SyncDatabase[Document]) -> Any:
    """Return the driver's own client: what pools, listeners and sessions hang on."""
    # Not by asking for the attribute: PyMongo's own clients would answer with a database of that name.
    return db.client.delegate if isinstance(db, AsyncIOMotorDatabase) else db.client


def addresses(db: Database) -> frozenset[object]:
    """The hosts of the deployment, as far as the driver knows them."""
    return frozenset(client_of(db).topology_description.server_descriptions())


@contextmanager
def sync_database(db: Database) -> Iterator[SyncDatabase[Document]]:
    """
    Yield a synchronous database on the same deployment, for threads.

    Motor is a shell around one, which is yielded as it is; for PyMongo Async one is made and closed at the end.
    """
    if isinstance(db, AsyncIOMotorDatabase):
        yield db.delegate
        return
    arguments = arguments_of(db)
    if arguments is None:
        raise SettingsInvalid(
            "this PyMongo does not tell how its client was made, so no synchronous one can be made for a thread; "
            "pass a Motor database, or use async scripts only"
        )
    with pymongo.MongoClient[Document](**arguments) as client:
        yield client[db.name]


@contextmanager
def private_database(db: Database) -> Iterator[SyncDatabase[Document]]:
    """Yield a synchronous database with a connection of its own, which no script can take all of."""
    arguments = arguments_of(db)
    if arguments is None:
        with sync_database(db) as shared:
            yield shared
        return
    with pymongo.MongoClient[Document](**{**arguments, "minPoolSize": 0, "maxPoolSize": 1}) as client:
        yield client[db.name]


def arguments_of(db: Database) -> dict[str, Any] | None:
    """What the client was made from; the same that PyMongo's ``_duplicate()`` reads."""
    return getattr(client_of(db), "_init_kwargs", None)


_open_lock = threading.Lock()
_kept_open: dict[int, tuple[int, Callable[[], Any]]] = {}  # client → how many keep it open, its own `close`


@contextmanager
def kept_open(db: Database, is_script: Callable[[], bool]) -> Iterator[None]:
    """
    Let scripts close the run's client without effect: what follows them needs it.

    :param is_script: whether it is a script that calls; an application's own ``close`` does what it says
    """
    client = client_of(db)
    with _open_lock:
        count, close = _kept_open.get(id(client), (0, client.close))
        _kept_open[id(client)] = count + 1, close
        if not count:
            client.close = _closing_unless(close, is_script)
    try:
        yield
    finally:
        with _open_lock:
            count, close = _kept_open.pop(id(client))
            if count > 1:
                _kept_open[id(client)] = count - 1, close
            else:
                del client.close  # the instance's; that of the class comes out again


def _closing_unless(close: Callable[[], Any], is_script: Callable[[], bool]) -> Callable[[], Any]:
    nothing: Callable[[], Any] = anyio.lowlevel.checkpoint if inspect.iscoroutinefunction(close) else lambda: None
    return lambda: nothing() if is_script() else close()


@asynccontextmanager
async def session_of(db: Database) -> AsyncIterator[Any]:
    """Yield a session of the database's client, ended afterwards."""
    started = db.client.start_session()
    session = await started if isinstance(started, Awaitable) else started
    try:
        yield session
    finally:
        with anyio.CancelScope(shield=True), anyio.move_on_after(5):
            await session.end_session()


class CommandTap(pymongo.monitoring.CommandListener):
    """A driver listener that hands started commands and their ends on while it is open; see :func:`tapped`."""

    def __init__(self, started: Callable[[Any], None], ended: Callable[[Any], None]) -> None:
        self._started, self._ended = started, ended
        self.is_open = True

    def started(self, event: pymongo.monitoring.CommandStartedEvent) -> None:
        if self.is_open:
            self._started(event)

    def succeeded(self, event: pymongo.monitoring.CommandSucceededEvent) -> None:
        self._ended(event)

    def failed(self, event: pymongo.monitoring.CommandFailedEvent) -> None:
        self._ended(event)


_tap_lock = threading.Lock()
_LISTENING = "_EventListeners__enabled_for_commands"


def check_driver(db: Database) -> None:
    """
    Say before the first script runs what would stop every one.

    :raises NotPossible: where this version of PyMongo lacks what :func:`tapped` needs
    """
    _listeners(db)


def _listeners(db: Database | SyncDatabase[Document]) -> tuple[Any, list[Any], list[Any]]:
    """Return what a client tells its events to, its listeners to commands, and those of clients that are made later."""
    purpose = "see what scripts do to indexes"
    own = private(client_of(db).options.pool_options, "_event_listeners", "pymongo", purpose)
    private(own, _LISTENING, "pymongo", purpose)
    later = private(pymongo.monitoring, "_LISTENERS", "pymongo", purpose)  # register() has no counterpart
    return (
        own,
        private(own, "_EventListeners__command_listeners", "pymongo", purpose),
        private(later, "command_listeners", "pymongo", purpose),
    )


@contextmanager
def tapped(db: Database | SyncDatabase[Document], tap: CommandTap) -> Iterator[None]:
    """
    Let a listener see all commands of a client that exists already, and of clients that are made meanwhile.

    Drivers take listeners only when a client is made, and an application makes its own; so this reaches into the
    client's lists of listeners and takes it out again.

    :raises NotPossible: where this version of PyMongo has no such lists
    """
    own, of_own, of_later = _listeners(db)
    with _tap_lock:
        pymongo.monitoring.register(tap)
        of_own.append(tap)
        setattr(own, _LISTENING, True)
    try:
        yield
    finally:
        tap.is_open = False  # a client that was made meanwhile keeps it for good
        with _tap_lock:
            of_later.remove(tap)
            of_own.remove(tap)
            setattr(own, _LISTENING, bool(of_own))


def as_migration_error(error: BaseException) -> MigrationError | None:
    """Turn a driver's error into the sentence that an operator needs; ``None`` for errors of other making."""
    if isinstance(error, MigrationError):
        return error
    if isinstance(error, InvalidURI | ConfigurationError | InvalidName):
        return SettingsInvalid(f"the connection settings are not usable: {text_of(error)}; check --url and --db")
    if isinstance(error, OperationFailure):
        if is_unauthorised(error):
            return NotAuthorised(text_of(error))
        if error.code in {73, 300} or "Invalid namespace" in words_of(error):  # InvalidNamespace
            return SettingsInvalid(f"the database name is not allowed: {text_of(error)}; check --db")
        if is_no_search(error):
            return SearchUnavailable(text_of(error))
        if is_transient(error):
            return ServerUnreachable(text_of(error), search=is_search_starting(error))
        return CommandRefused(text_of(error), error.code)
    if isinstance(error, PyMongoError):
        return ServerUnreachable(text_of(error))
    return None


def exit_code_of(error: BaseException) -> int:
    """The exit code that a script's error stands for: 1, unless the server or an index let the script down."""
    known = as_migration_error(error)
    passed_on = ServerUnreachable | NotAuthorised | SearchUnavailable | NotReady | IndexFailed | Unverified
    return known.exit_code if isinstance(known, passed_on) else 1


def without_secrets(db: Database, text: str) -> str:
    """Take the client's credentials, and whatever looks like a login in a URL, out of a text."""
    return redact(text, _secrets_of(client_of(db)))


def _secrets_of(client: Any) -> Iterator[str]:
    credentials = getattr(client.options.pool_options, "_credentials", None)
    yield getattr(credentials, "password", None) or ""
    given = getattr(client.options, "_options", None) or {}
    for option, value in given.items():
        if option.lower() in SECRET_OPTIONS:
            parts = value.items() if isinstance(value, Mapping) else [("", value)]
            yield from (str(part) for name, part in parts if name not in PUBLIC_PROPERTIES)


def text_of(error: BaseException) -> str:
    """
    The server's sentence, without the driver's dumps of its reply, its settings and its view of the topology.

    Of a bulk write the first sentence: its dump holds the document.
    """
    details = getattr(error, "details", None)
    if isinstance(details, Mapping) and details.get("writeErrors"):
        details = details["writeErrors"][0]
    if isinstance(details, Mapping) and isinstance(details.get("errmsg"), str):
        return str(details["errmsg"]).rstrip(".")
    return _DRIVER_DUMP.sub("", words_of(error)).strip().rstrip(".")
