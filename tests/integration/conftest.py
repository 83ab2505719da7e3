"""What the tests of the runner share: a folder of scripts, and databases of both drivers on a local server."""

import textwrap
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from motor.motor_asyncio import AsyncIOMotorClient
from pymongo import AsyncMongoClient

from mydocs.localserver import LocalServer
from mydocs.localserver.search import SearchSettings
from mydocs.migrations.driver.client import Database


@pytest.fixture
def local_server(local_clock: Any) -> Any:
    """A new, empty server whose index builds take no time unless a test says otherwise."""
    search = SearchSettings(pending_seconds=0.0, build_seconds=0.0, delete_seconds=0.0)
    with LocalServer(clock=local_clock, search=search) as server:
        yield server


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty folder for scripts."""
    path = tmp_path / "scripts"
    path.mkdir()
    return path


@pytest.fixture
def write(folder: Path) -> Callable[[str, str], Path]:
    """Put a script into ``folder``; its text may be indented."""

    def put(name: str, text: str) -> Path:
        path = folder / name
        path.write_text(textwrap.dedent(text))
        return path

    return put


@pytest.fixture
async def db(local_url: str) -> AsyncIterator[Database]:
    """An empty Motor database."""
    client: AsyncIOMotorClient[dict[str, Any]] = AsyncIOMotorClient(local_url, tz_aware=True)
    yield client["app"]
    client.close()


@pytest.fixture(params=["motor", "pymongo"])
async def any_db(request: pytest.FixtureRequest, local_server: LocalServer) -> AsyncIterator[Database]:
    """The same database through each of the drivers that are accepted."""
    if request.param == "motor":
        motor: AsyncIOMotorClient[dict[str, Any]] = AsyncIOMotorClient(local_server.url, tz_aware=True)
        yield motor["app"]
        motor.close()
    else:
        async with AsyncMongoClient[dict[str, Any]](local_server.url, tz_aware=True) as client:
            await client.aconnect()  # it looks at files of the machine when it connects, in the event loop
            yield client["app"]
