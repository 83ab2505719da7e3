"""A whole run, and what surrounds it, on whatever server MYDOCS_TEST_URL names; else on the local one."""

import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from motor.motor_asyncio import AsyncIOMotorClient
from pymongo import AsyncMongoClient, IndexModel
from pymongo.operations import SearchIndexModel

from mydocs.migrations import (
    ensure_indexes,
    ensure_search_indexes,
    migrate,
    rename_field,
    transform,
)
from mydocs.migrations.driver.client import Database
from mydocs.migrations.ledger.lease import Owner, acquire, release
from mydocs.migrations.model import IndexAction, IndexState, MigrationState
from mydocs.migrations.operations.check import check
from mydocs.migrations.operations.rollback import rollback
from mydocs.migrations.operations.status import status

SHIPPED = Path(__file__).parents[2] / "migrations"
BUILD_SECONDS = 300.0  # a real search process publishes a status every 30 s

pytestmark = [pytest.mark.contract, pytest.mark.anyio, pytest.mark.seconds(600)]


@pytest.fixture(params=["motor", "pymongo"])
async def db(request: pytest.FixtureRequest, contract_url: str) -> AsyncIterator[Database]:
    """A database of this test's own through each of the drivers that are accepted, dropped afterwards."""
    name = f"mydocs_contract_{secrets.token_hex(4)}"
    if request.param == "motor":
        motor: AsyncIOMotorClient[dict[str, Any]] = AsyncIOMotorClient(contract_url, tz_aware=True)
        yield motor[name]
        await motor.drop_database(name)
        motor.close()
    else:
        async with AsyncMongoClient[dict[str, Any]](contract_url, tz_aware=True) as client:
            await client.admin.command("ping")  # connects before blocking calls are watched for
            yield client[name]
            await client.drop_database(name)


async def test_the_shipped_scripts_end_with_every_index_ready_and_can_be_taken_back(db: Database) -> None:
    report = await migrate(db, directory=SHIPPED, wait=True, timeout=BUILD_SECONDS)
    assert [migration.state for migration in report.migrations] == [MigrationState.APPLIED] * 3
    assert {index.state for index in report.indexes} == {IndexState.READY}
    assert (await migrate(db, directory=SHIPPED, wait=True)).migrations == ()
    await check(db, directory=SHIPPED)
    await rollback(db, directory=SHIPPED, steps=1, wait=True, timeout=BUILD_SECONDS)
    states = {m.version: m.state for m in (await status(db, directory=SHIPPED)).migrations}
    assert states == {
        "001": MigrationState.APPLIED,
        "002": MigrationState.APPLIED,
        "003": MigrationState.PENDING,
    }


async def test_five_runners_at_once_run_each_script_once(db: Database, tmp_path: Path) -> None:
    for version in ("001", "002", "003"):
        text = f'async def up(db):\n    await db["runs"].insert_one({{"script": "{version}"}})\n'
        (tmp_path / f"{version}_step.py").write_text(text)
    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(lambda: migrate(db, directory=tmp_path))
    assert sorted([run["script"] async for run in db["runs"].find()]) == ["001", "002", "003"]


async def test_one_lease_at_a_time_and_its_term_grows_by_one(db: Database) -> None:
    first = await acquire(db, Owner())
    assert first is not None
    assert first.term == 1
    assert await acquire(db, Owner()) is None
    await release(db, first)
    second = await acquire(db, Owner())
    assert second is not None
    assert second.term == 2
    await release(db, second)


async def test_an_index_is_created_left_alone_and_updated(db: Database) -> None:
    def model(*fields: str) -> SearchIndexModel:
        mapped = {field: {"type": "string"} for field in fields}
        return SearchIndexModel({"mappings": {"dynamic": False, "fields": mapped}}, name="ft")

    (created,) = await ensure_search_indexes(db["pages"], [model("content")])
    (unchanged,) = await ensure_search_indexes(db["pages"], [model("content")])
    (updated,) = await ensure_search_indexes(db["pages"], [model("content", "title")])
    assert [created.action, unchanged.action, updated.action] == [
        IndexAction.CREATED,
        IndexAction.UNCHANGED,
        IndexAction.UPDATED,
    ]


async def test_a_standard_index_gets_its_expiry_in_place(db: Database) -> None:
    (created,) = await ensure_indexes(db["logs"], [IndexModel("at", expireAfterSeconds=60)])
    (updated,) = await ensure_indexes(db["logs"], [IndexModel("at", expireAfterSeconds=90)])
    assert [created.action, updated.action] == [IndexAction.CREATED, IndexAction.UPDATED]
    listed = (await db.command({"listIndexes": "logs"}))["cursor"]["firstBatch"]
    assert {index["name"]: index.get("expireAfterSeconds") for index in listed} == {"_id_": None, "at_1": 90}


async def test_data_is_changed_in_batches_over_mixed_ids(db: Database) -> None:
    ids = [1, 2.5, "a", {"n": 1}, True, None]
    await db["things"].insert_many([{"_id": key, "old": number} for number, key in enumerate(ids)])
    await rename_field(db["things"], "old", "new", batch_size=2)
    changed = await transform(
        db["things"], {}, lambda document: {"$set": {"double": 2 * document["new"]}}, batch_size=2
    )
    assert changed == len(ids)
    found = {document["new"]: document["double"] async for document in db["things"].find()}
    assert found == {number: 2 * number for number in range(len(ids))}
