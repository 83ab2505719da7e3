"""What keeps a process from its exit: a worker thread of ours in the driver, and no thread of a script."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anyio
import anyio.to_thread
import pymongo
import pytest
from motor.motor_asyncio import AsyncIOMotorClient
from pymongo.errors import PyMongoError

from mydocs.localserver import LocalServer
from mydocs.migrations.operations.connection import is_waiting_for_the_server

Find = Callable[[], None]


@pytest.fixture
def answer(local_server: LocalServer) -> Iterator[threading.Event]:
    """Until this is set, the server does not answer a `find`."""
    event = threading.Event()
    local_server.controls.delay(event, command="find", times=None)
    yield event
    event.set()


@pytest.fixture
def find(local_url: str) -> Iterator[Find]:
    """A call that waits for the server."""
    with pymongo.MongoClient[dict[str, Any]](local_url) as client:

        def find_one() -> None:
            with contextlib.suppress(PyMongoError):
                client["x"]["y"].find_one()

        yield find_one


def is_asked(local_server: LocalServer) -> None:
    local_server.controls.wait_for(lambda recorded: recorded.name == "find")


@pytest.mark.anyio
async def test_a_worker_of_anyio_in_the_driver_is_ours(
    local_server: LocalServer, answer: threading.Event, find: Find
) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(anyio.to_thread.run_sync, find)
        await anyio.to_thread.run_sync(is_asked, local_server)
        assert is_waiting_for_the_server()
        answer.set()
    assert not is_waiting_for_the_server()


@pytest.mark.anyio
async def test_a_worker_of_motor_in_the_driver_is_ours(
    local_server: LocalServer, local_url: str, answer: threading.Event
) -> None:
    client: AsyncIOMotorClient[dict[str, Any]] = AsyncIOMotorClient(local_url)

    async def find_one() -> None:
        await client["x"]["y"].find_one()

    async with anyio.create_task_group() as group:
        group.start_soon(find_one)
        await anyio.to_thread.run_sync(is_asked, local_server)
        assert is_waiting_for_the_server()
        answer.set()
    client.close()


def test_a_pool_of_a_script_is_its_own(local_server: LocalServer, answer: threading.Event, find: Find) -> None:
    with ThreadPoolExecutor() as pool:
        pool.submit(find)
        is_asked(local_server)
        assert not is_waiting_for_the_server()
        answer.set()
