"""
Give scripts that use lightodm the run's own connection, whatever lightodm would have made of the environment.

lightodm keeps one connection for the process, insists on user and password, and opens a client that blocks the event
loop. While scripts run, its singleton is an object of ours: each run sees its own database through a context variable,
so that two runs in one process do not meet; a thread that a script started itself falls back on the only run there is.
"""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import lightodm.connection
from motor.motor_asyncio import AsyncIOMotorClient, AsyncIOMotorDatabase
from pymongo import MongoClient
from pymongo.collection import Collection as SyncCollection
from pymongo.database import Database as SyncDatabase

from mydocs.migrations.driver.mongo import Document

_current: ContextVar[SyncDatabase[Document] | None] = ContextVar("mydocs_lightodm_database", default=None)
_lock = threading.Lock()
_bound: list[SyncDatabase[Document]] = []  # of all runs of this process that have scripts under way
_before: list[tuple[Any, Any]] = []  # lightodm's two globals as they were before the first of them


class _BoundConnection(lightodm.connection.MongoConnection):
    """lightodm's connection without a life of its own: opens nothing, closes nothing."""

    def __new__(cls) -> "_BoundConnection":
        return object.__new__(cls)

    def __init__(self) -> None:
        """Do nothing: lightodm calls the class again each time that somebody asks for the instance."""

    def _initialize_connection(self) -> None:
        """Do nothing: there is a connection."""

    @property
    def database(self) -> SyncDatabase[Document]:
        found = _current.get()
        if found is None and len(_bound) == 1:
            found = _bound[0]
        if found is None:
            raise RuntimeError(
                "lightodm was asked for a database in a thread of its own while several runs are under way; pass the "
                "database to the thread"
            )
        return found

    @property
    def client(self) -> MongoClient[Document]:
        return self.database.client

    def get_collection(self, collection_name: str) -> SyncCollection[Document]:
        return self.database[collection_name]

    async def get_async_client(self) -> AsyncIOMotorClient[Document]:
        return _motor_client(self.client)

    async def get_async_database(self, db_name: str | None = None) -> AsyncIOMotorDatabase[Document]:
        return _motor_client(self.client)[db_name or self.database.name]

    def close_connection(self) -> None:
        """Do nothing: the connection is the run's."""


@contextmanager
def lightodm_bound_to(db: SyncDatabase[Document]) -> Iterator[None]:
    """Let ``lightodm.get_database()`` give ``db`` until the block ends."""
    token = _current.set(db)
    with _lock:
        if not _bound:
            _before.append(_globals())
            connection = _BoundConnection()
            _set_globals(connection, connection)
        _bound.append(db)
    try:
        yield
    finally:
        with _lock:
            _bound.remove(db)
            if not _bound:
                _set_globals(*_before.pop())
        _current.reset(token)


# lightodm has no way to be given a client, so its two globals are what there is to hold on to.
def _globals() -> tuple[Any, Any]:
    return lightodm.connection.MongoConnection._instance, lightodm.connection._mongo_conn  # noqa: SLF001


def _set_globals(instance: Any, connection: Any) -> None:
    lightodm.connection.MongoConnection._instance = instance  # noqa: SLF001
    lightodm.connection._mongo_conn = connection  # noqa: SLF001


def _motor_client(client: MongoClient[Document]) -> AsyncIOMotorClient[Document]:
    """Make a Motor shell for the running loop around a client that exists, as Motor itself does after connecting."""
    shell: AsyncIOMotorClient[Document] = AsyncIOMotorClient.__new__(AsyncIOMotorClient)
    shell.delegate = client
    shell._io_loop = asyncio.get_running_loop()  # noqa: SLF001  # its constructor would make a client of its own
    return shell
