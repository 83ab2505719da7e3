"""Status and check show what search aliases name, and check finds one that names nothing that answers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mydocs.cli.render import run_text, status_text
from mydocs.localserver import LocalServer
from mydocs.migrations import MigrationState, WorkLeft, check, migrate, rollback, status
from mydocs.migrations.driver.client import Database
from mydocs.migrations.reporting.report import to_json

Write = Callable[[str, str], Path]
pytestmark = pytest.mark.anyio

UP = """
    from mydocs.migrations import ensure_search_indexes, switch_search_alias
    async def up(db):
        for number in (1, 2):
            fields = [{"type": "vector", "path": f"v{number}", "numDimensions": 3, "similarity": "cosine"}]
            index = {"name": f"vec_{number}", "type": "vectorSearch", "definition": {"fields": fields}}
            await ensure_search_indexes(db["pages"], [index])
            await switch_search_alias(db["pages"], "001", to=f"vec_{number}")
    async def down(db):
        await switch_search_alias(db["pages"], "001", to="vec_1")
"""


async def test_status_shows_the_aliases_with_no_command_more(
    any_db: Database, folder: Path, write: Write, local_server: LocalServer
) -> None:
    write("001_switch.py", UP)
    await migrate(any_db, directory=folder, standard_indexes={})
    local_server.controls.clear()
    report = await status(any_db, directory=folder, standard_indexes={})
    assert [record.name for record in local_server.controls.counted()] == ["aggregate"] * 2  # ledger, listing
    assert [migration.version for migration in report.migrations] == ["001"]
    (found,) = to_json(report)["aliases"]
    assert found.pop("switched_at") is not None
    assert found == {
        "alias": "001",
        "collection": "pages",
        "index": "vec_2",
        "previous": "vec_1",
        "state": "ready",
        "reason": None,
    }
    assert ["001", "pages.vec_2", "ready"] in [line.split()[:3] for line in status_text(report).splitlines()]
    (unseen,) = (await status(any_db, directory=folder, standard_indexes={}, indexes=False)).aliases or ()
    assert (unseen.index, unseen.state) == ("vec_2", None)


async def test_a_run_shows_the_aliases_that_it_has_switched(db: Database, folder: Path, write: Write) -> None:
    write("001_switch.py", UP)
    report = await migrate(db, directory=folder, standard_indexes={})
    assert [(alias.alias, alias.index) for alias in report.aliases or ()] == [("001", "vec_2")]
    assert "pages.vec_2" in run_text(report)
    assert (await migrate(db, directory=folder, standard_indexes={})).aliases is None


async def test_a_status_without_aliases_shows_and_creates_none(any_db: Database, folder: Path) -> None:
    report = await status(any_db, directory=folder, standard_indexes={})
    assert to_json(report)["aliases"] == []
    assert await any_db.list_collection_names() == []


@pytest.mark.parametrize(
    ("change", "state"),
    [
        pytest.param({"index": "vec_9"}, "absent", id="of no such index"),
        pytest.param({"collection": "documents"}, "absent", id="of another collection"),
    ],
)
async def test_check_finds_an_alias_that_names_no_index(
    db: Database, folder: Path, write: Write, change: dict[str, Any], state: str
) -> None:
    write("001_switch.py", UP)
    await migrate(db, directory=folder, standard_indexes={}, wait=True)
    await check(db, directory=folder, standard_indexes={})
    await db["_search_aliases"].update_one({"_id": "001"}, {"$set": change})
    with pytest.raises(WorkLeft, match=f"alias 001 names .*, which is {state}; an alias is given another index"):
        await check(db, directory=folder, standard_indexes={})


async def test_check_finds_an_alias_of_an_index_that_failed(
    db: Database, folder: Path, write: Write, local_server: LocalServer
) -> None:
    write("001_switch.py", UP)
    await migrate(db, directory=folder, standard_indexes={}, wait=True)
    local_server.search.outcome("vec_9", fails="out of space")
    definition = {"mappings": {"dynamic": True}}
    await db.command({"createSearchIndexes": "pages", "indexes": [{"name": "vec_9", "definition": definition}]})
    await db["_search_aliases"].update_one({"_id": "001"}, {"$set": {"index": "vec_9"}})
    with pytest.raises(WorkLeft, match=r"alias 001 names pages\.vec_9, which is failed"):
        await check(db, directory=folder, standard_indexes={})


async def test_a_rollback_switches_back(db: Database, folder: Path, write: Write) -> None:
    write("001_switch.py", UP)
    await migrate(db, directory=folder, standard_indexes={})
    report = await rollback(db, directory=folder)
    assert [migration.state for migration in report.migrations] == [MigrationState.PENDING]
    document = await db["_search_aliases"].find_one({"_id": "001"})
    assert document is not None
    assert (document["index"], document["previous"]) == ("vec_1", "vec_2")
