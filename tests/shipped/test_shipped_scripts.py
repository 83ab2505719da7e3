"""
The application's own migrations: up, up again, down, up again, on a server of their own.

Written as a project would write the tests of its own. ``local_db``, ``local_server`` and ``local_clock`` are fixtures
of the plugin ``mydocs.localserver.pytest``.
"""

from pathlib import Path
from typing import Any

import pytest
from motor.motor_asyncio import AsyncIOMotorDatabase

from mydocs.localserver import LocalServer, SearchSettings
from mydocs.localserver.clock import ManualClock
from mydocs.migrations import IndexFailed, IndexState, MigrationState, check, migrate, rollback, status, work_left
from mydocs.migrations.testing import assert_migrations_ok

Database = AsyncIOMotorDatabase[dict[str, Any]]

MIGRATIONS = Path(__file__).parents[2] / "migrations"
SEARCH_INDEXES = {"documents.ft_documents", "pages.ft_pages", "pages.vec_pages_large_dot"}

pytestmark = pytest.mark.anyio


@pytest.fixture
def local_search_settings() -> SearchSettings:
    """Let every index build take no time."""
    return SearchSettings(pending_seconds=0, build_seconds=0, delete_seconds=0)


async def seed(db: Database) -> None:
    """Put in what the application would have written before."""
    await db["documents"].insert_one({"_id": 1, "file_name": "a.pdf", "content": "text", "tags": [], "status": "new"})
    await db["pages"].insert_one({"document_id": 1, "page_number": 1, "content": "text"})


async def test_each_migration_may_run_twice_and_can_be_taken_back_and_run_again(local_db: Database) -> None:
    await assert_migrations_ok(local_db, MIGRATIONS, seed=seed, reversible=True, gaps=False)


async def test_all_of_them_bring_the_database_to_what_the_scripts_ask_for(local_db: Database) -> None:
    report = await migrate(local_db, directory=MIGRATIONS, wait=True)
    assert {m.state for m in report.migrations} == {MigrationState.APPLIED}
    search = {f"{index.collection}.{index.name}" for index in report.indexes if index.state is IndexState.READY}
    assert search >= SEARCH_INDEXES
    assert (await check(local_db, directory=MIGRATIONS)).error is None


async def test_all_of_them_can_be_taken_back(local_db: Database) -> None:
    await migrate(local_db, directory=MIGRATIONS, wait=True)
    await rollback(local_db, directory=MIGRATIONS, steps=3, wait=True)
    report = await status(local_db, directory=MIGRATIONS)
    assert {m.state for m in report.migrations} == {MigrationState.PENDING}
    listings = [await local_db[name].list_search_indexes().to_list(None) for name in ("documents", "pages")]
    assert listings == [[], []]


async def test_a_build_that_fails_is_named(
    local_db: Database, local_server: LocalServer, local_clock: ManualClock
) -> None:
    local_server.search.outcome("ft_pages", fails="out of space")
    await migrate(local_db, directory=MIGRATIONS)
    with pytest.raises(IndexFailed, match=r"pages\.ft_pages failed: out of space"):
        await migrate(local_db, directory=MIGRATIONS, wait=True, timeout=1.0)
    assert work_left(await status(local_db, directory=MIGRATIONS)) == ("index pages.ft_pages is failed (out of space)",)
