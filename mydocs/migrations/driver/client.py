"""Handle a driver's database: its client, and sessions and clients made from it. I/O only to make or end one."""

import asyncio
import inspect
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any, TypeAlias

import anyio
import pymongo
from motor.motor_asyncio import AsyncIOMotorClient, AsyncIOMotorCollection, AsyncIOMotorDatabase
from pymongo import AsyncMongoClient
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.database import Database as SyncDatabase

from mydocs.migrations.driver.server_errors import without_dump
from mydocs.migrations.errors import SettingsInvalid, UsageError
from mydocs.migrations.reporting.redaction import PUBLIC_PROPERTIES, SECRET_OPTIONS, redact

Document: TypeAlias = dict[str, Any]


Database: TypeAlias = AsyncIOMotorDatabase[Document] | AsyncDatabase[Document]


Collection: TypeAlias = AsyncIOMotorCollection[Document] | AsyncCollection[Document]


def why_unknown(db: Database) -> str:
    """Return in brackets why the driver knows no server; an empty text if it knows one, or has no reason yet."""
    topology = client_of(db).topology_description
    errors = {without_dump(str(server.error)) for server in topology.server_descriptions().values() if server.error}
    return "" if topology.has_known_servers or not errors else f" ({'; '.join(sorted(errors))})"


def database_of(collection: Collection) -> Database:
    """
    Return the database that a collection belongs to.

    :raises UsageError: if it is not a collection of an asynchronous driver
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
    Refuse an object of another type at once, with a message that says what to pass.

    :raises UsageError: if it is not a database of an asynchronous driver
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
    """Return the driver's own client, which has the pools, listeners and sessions."""
    # Do not test for the attribute: PyMongo's own clients would return a database of that name.
    return db.client.delegate if isinstance(db, AsyncIOMotorDatabase) else db.client


def addresses(db: Database) -> frozenset[object]:
    """Return the hosts of the deployment, as far as the driver knows them."""
    return frozenset(client_of(db).topology_description.server_descriptions())


@contextmanager
def sync_database(db: Database) -> Iterator[SyncDatabase[Document]]:
    """
    Yield a synchronous database on the same deployment, for threads.

    Motor wraps one, which is yielded as it is. For PyMongo Async one is made, and closed at the end.
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
    """Yield a synchronous database with a connection of its own, which scripts cannot use up."""
    arguments = arguments_of(db)
    if arguments is None:
        with sync_database(db) as shared:
            yield shared
        return
    with pymongo.MongoClient[Document](**{**arguments, "minPoolSize": 0, "maxPoolSize": 1}) as client:
        yield client[db.name]


def arguments_of(db: Database) -> dict[str, Any] | None:
    """Return the arguments from which the client was made, as PyMongo's ``_duplicate()`` reads them."""
    return getattr(client_of(db), "_init_kwargs", None)


_open_lock = threading.Lock()


_kept_open: dict[int, tuple[int, Callable[[], Any]]] = {}  # client → number of runs that keep it open, its own `close`


@contextmanager
def kept_open(db: Database, is_script: Callable[[], bool]) -> Iterator[None]:
    """
    Make ``close`` of the run's client do nothing if a script calls it, since the run still needs the client.

    :param is_script: tells whether a script makes the call; an application's own ``close`` works as usual
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
                del client.close  # the instance's, so that the class's own is found again


def _closing_unless(close: Callable[[], Any], is_script: Callable[[], bool]) -> Callable[[], Any]:
    nothing: Callable[[], Any] = partial(asyncio.sleep, 0) if inspect.iscoroutinefunction(close) else lambda: None
    return lambda: nothing() if is_script() else close()


@asynccontextmanager
async def session_of(db: Database) -> AsyncIterator[Any]:
    """Yield a session of the database's client, and end it afterwards."""
    started = db.client.start_session()
    session = await started if isinstance(started, Awaitable) else started
    try:
        yield session
    finally:
        with anyio.CancelScope(shield=True), anyio.move_on_after(5):
            await session.end_session()


def without_secrets(db: Database, text: str) -> str:
    """Remove the client's credentials, and anything that looks like a login in a URL, from a text."""
    return redact(text, _secrets_of(client_of(db)))


def _secrets_of(client: Any) -> Iterator[str]:
    credentials = getattr(client.options.pool_options, "_credentials", None)
    yield getattr(credentials, "password", None) or ""
    given = getattr(client.options, "_options", None) or {}
    for option, value in given.items():
        if option.lower() in SECRET_OPTIONS:
            parts = value.items() if isinstance(value, Mapping) else [("", value)]
            yield from (str(part) for name, part in parts if name not in PUBLIC_PROPERTIES)
