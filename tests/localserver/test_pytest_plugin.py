"""The fixtures of the pytest plugin: a project's tests say once how all their search indexes behave."""

from typing import Any

import pytest
from motor.motor_asyncio import AsyncIOMotorDatabase
from pymongo.errors import OperationFailure
from pymongo.operations import SearchIndexModel

from mydocs.localserver import SearchSettings

Database = AsyncIOMotorDatabase[dict[str, Any]]

pytestmark = pytest.mark.anyio


async def made(db: Database, *names: str) -> dict[str, Any]:
    """Create search indexes and look once, without waiting; the status of each by its name."""
    await db.create_collection("notes")
    await db["notes"].create_search_indexes([SearchIndexModel({"mappings": {"dynamic": True}}, name) for name in names])
    return {index["name"]: index["status"] for index in await db["notes"].list_search_indexes().to_list(None)}


async def test_a_build_takes_time_where_nothing_else_is_said(local_db: Database) -> None:
    assert await made(local_db, "a") == {"a": "PENDING"}


@pytest.mark.parametrize("local_search_settings", [SearchSettings(quota=1)], ids=["of one test"])
async def test_one_test_can_have_settings_of_its_own(local_db: Database) -> None:
    with pytest.raises(OperationFailure):
        await made(local_db, "a", "b")


class TestOfAProject:
    @pytest.fixture
    def local_search_settings(self) -> SearchSettings:
        return SearchSettings(pending_seconds=0, build_seconds=0, delete_seconds=0)

    async def test_every_index_is_ready_at_once(self, local_db: Database) -> None:
        assert await made(local_db, "a", "b") == {"a": "READY", "b": "READY"}
        await local_db["notes"].drop_search_index("a")
        assert [index["name"] async for index in local_db["notes"].list_search_indexes()] == ["b"]
