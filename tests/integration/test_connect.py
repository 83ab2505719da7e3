"""An application connects with the settings of the command line."""

from typing import Any

import pytest
from motor.motor_asyncio import AsyncIOMotorClient
from pymongo import AsyncMongoClient
from pymongo.errors import OperationFailure

from mydocs.localserver import LocalServer
from mydocs.migrations import MigrationError, connect
from mydocs.migrations.driver.client import client_of

pytestmark = pytest.mark.anyio

CLIENTS = [pytest.param(AsyncIOMotorClient, id="motor"), pytest.param(AsyncMongoClient, id="pymongo")]
USER, PASSWORD = "application", "p@ss/w:rd"


@pytest.mark.parametrize("client", CLIENTS)
async def test_the_variables_of_the_command_line_are_enough(client: Any) -> None:
    with LocalServer(user=USER, password=PASSWORD) as server:
        environ = {
            "MONGO_URL": f"mongodb://127.0.0.1:{server.port}/",
            "MONGO_USER": USER,
            "MONGO_PASSWORD": PASSWORD,
            "MONGO_DB_NAME": "app",
        }
        async with connect(client=client, environ=environ, maxPoolSize=3) as db:
            assert db.name == "app"
            assert client_of(db).options.pool_options.max_pool_size == 3
            await db["things"].insert_one({"_id": 1})
        without = {name: value for name, value in environ.items() if name not in ("MONGO_USER", "MONGO_PASSWORD")}
        async with connect(client=client, environ=without) as db:
            with pytest.raises(OperationFailure):
                await db["things"].find_one({})


async def test_the_client_is_closed_at_the_end(local_url: str) -> None:
    async with connect(url=local_url, database="app", client=AsyncMongoClient, environ={}) as db:
        await db["things"].find_one({})
    with pytest.raises(Exception, match="after close"):
        await db["things"].find_one({})


async def test_what_is_missing_is_named() -> None:
    with pytest.raises(MigrationError, match="MONGO_URL") as caught:
        async with connect(environ={}):
            pass
    assert caught.value.exit_code == 2
    with pytest.raises(MigrationError, match="MONGO_PASSWORD"):
        async with connect(environ={"MONGO_URL": "mongodb://h/app", "MONGO_USER": "u"}):
            pass
