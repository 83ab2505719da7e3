"""
Bind lightodm to the run's database, so that scripts which use lightodm work on it. No I/O.

lightodm keeps one connection for the process, requires user and password, and opens a client that blocks the event
loop. While scripts run, its singleton is replaced by an object of ours. In the process of a plain script this lasts to
the end. In the run's own process, for its async scripts, it lasts until the last run that needs it has ended.
"""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import lightodm.connection
from motor.motor_asyncio import AsyncIOMotorClient, AsyncIOMotorDatabase
from pymongo import MongoClient
from pymongo.collection import Collection as SyncCollection
from pymongo.database import Database as SyncDatabase

from mydocs.migrations.driver.client import Document
from mydocs.migrations.driver.private_names import private
from mydocs.migrations.errors import NotPossible

Find = Callable[[], SyncDatabase[Document]]

_lock = threading.Lock()
_bound: list[SyncDatabase[Document]] = []  # one for each run of this process that executes scripts
_before: list[tuple[Any, Any]] = []  # lightodm's two globals as they were before the first run


class _BoundConnection(lightodm.connection.MongoConnection):
    """A lightodm connection that opens and closes nothing itself."""

    _find: Find

    def __new__(cls, find: Find | None = None) -> "_BoundConnection":
        return object.__new__(cls)

    def __init__(self, find: Find | None = None) -> None:
        """
        Store how to find the database.

        :param find: ``None`` when lightodm calls the class again, as it does for each request
        """
        if find is not None:
            self._find = find

    def _initialize_connection(self) -> None:
        """Do nothing: the connection exists."""

    @property
    def database(self) -> SyncDatabase[Document]:
        return self._find()

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
        """Do nothing: the connection belongs to the run."""


def bind(find: Find) -> None:
    """
    Make ``lightodm.get_database()`` return what ``find`` returns, from now on.

    :param find: called for each request, from any thread
    """
    connection = _BoundConnection(find)
    _set_globals(connection, connection)


@contextmanager
def lightodm_bound_to(db: SyncDatabase[Document]) -> Iterator[None]:
    """
    Make ``lightodm.get_database()`` return ``db`` until the block ends.

    Two runs of one process on different databases may overlap as long as no script uses lightodm's database.
    """
    with _lock:
        if not _bound:
            _before.append(_globals())
            bind(_only_database)
        _bound.append(db)
    try:
        yield
    finally:
        with _lock:
            _bound.remove(db)
            if not _bound:
                _set_globals(*_before.pop())


def _only_database() -> SyncDatabase[Document]:
    databases = list(_bound)
    if any(database != databases[0] for database in databases[1:]):
        names = " and ".join(sorted({database.name for database in databases}))
        raise NotPossible(
            f"lightodm has one connection for the process, and runs on {names} use it at the same time; migrate one "
            "after the other, or use `db` instead"
        )
    return databases[0]


# lightodm has no function that takes a client, so we replace its two globals.
def _globals() -> tuple[Any, Any]:
    purpose = "give scripts the database of the run"
    return (
        private(lightodm.connection.MongoConnection, "_instance", "lightodm", purpose),
        private(lightodm.connection, "_mongo_conn", "lightodm", purpose),
    )


def _set_globals(instance: Any, connection: Any) -> None:
    lightodm.connection.MongoConnection._instance = instance  # noqa: SLF001
    lightodm.connection._mongo_conn = connection  # noqa: SLF001


def _motor_client(client: MongoClient[Document]) -> AsyncIOMotorClient[Document]:
    """Return a Motor client for the running loop around an existing client, as Motor itself builds one."""
    shell: AsyncIOMotorClient[Document] = AsyncIOMotorClient.__new__(AsyncIOMotorClient)
    shell.delegate = client
    shell._io_loop = asyncio.get_running_loop()  # noqa: SLF001  # its constructor would make another client
    return shell


_globals()  # fail at import if lightodm has changed: that is before the first script runs
