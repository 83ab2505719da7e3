"""Provide the pytest plugin `-p mydocs.localserver.pytest`: servers in this process, on loopback, in memory. I/O."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from mydocs.localserver.control.clock import ManualClock

# A plugin is imported in every test run, so its fixtures import what they need themselves.
if TYPE_CHECKING:
    from motor.motor_asyncio import AsyncIOMotorDatabase

    from mydocs.localserver import LocalServer, SearchSettings

DATABASE = "test"


@pytest.fixture
def local_clock() -> ManualClock:
    """
    Return the clock of `local_server`.

    It follows real time until the test moves it: ``local_clock.advance(60)`` ends each build that takes up to a minute,
    without waiting.
    """
    return ManualClock(running=True)


@pytest.fixture
def local_search_settings() -> "SearchSettings":
    """
    Return the settings of all search indexes of `local_server`: build times, quota, kind of server.

    Override it in a ``conftest.py``, a module or a class. With ``SearchSettings(pending_seconds=0, build_seconds=0,
    delete_seconds=0)`` every index is ready at once.
    """
    from mydocs.localserver import SearchSettings

    return SearchSettings()


@pytest.fixture
def local_server(local_clock: ManualClock, local_search_settings: "SearchSettings") -> "Iterator[LocalServer]":
    """
    Yield a new, empty server in memory for one test.

    ``local_server.search`` decides how the builds of one index go: ``search.outcome("vec", fails="out of space")``.
    ``local_server.controls`` records every command and makes faults: ``controls.cut_after(command="insert")``.
    """
    from mydocs.localserver import LocalServer

    with LocalServer(clock=local_clock, search=local_search_settings) as server:
        yield server


@pytest.fixture
def local_url(local_server: "LocalServer") -> str:
    """Return the connection string of `local_server`, for any driver."""
    return local_server.url


@pytest.fixture
def local_db(local_url: str) -> "Iterator[AsyncIOMotorDatabase[dict[str, Any]]]":
    """
    Yield an empty Motor database on `local_server`, for a test that is a coroutine.

    Its client binds itself to the event loop of its first operation, so any plugin for coroutines works.
    """
    from motor.motor_asyncio import AsyncIOMotorClient

    client: AsyncIOMotorClient[dict[str, Any]] = AsyncIOMotorClient(local_url, serverSelectionTimeoutMS=5_000)
    try:
        yield client[DATABASE]
    finally:
        client.close()
