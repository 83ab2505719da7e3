"""Clients for the tests of the local server, by PyMongo and over real sockets."""

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from pymongo import MongoClient
from pymongo.database import Database

Mongo = MongoClient[dict[str, Any]]


@pytest.fixture
def mongo(contract_url: str) -> Iterator[Mongo]:
    """A client of the server that the contract is checked on."""
    client: Mongo = MongoClient(contract_url, serverSelectionTimeoutMS=5_000, tz_aware=True)
    with client:
        yield client


@pytest.fixture
def db(mongo: Mongo) -> Iterator[Database[dict[str, Any]]]:
    """An empty database with a name of its own, dropped afterwards: the server may be one that others use too."""
    name = f"mydocs_test_{uuid.uuid4().hex[:12]}"
    yield mongo[name]
    mongo.drop_database(name)
