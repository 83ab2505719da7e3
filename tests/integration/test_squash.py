"""One script in place of several: in a new database, in one where all of them ran, and in a mixture."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mydocs.migrations import MigrationError, check, mark, migrate, repair, rollback, status
from mydocs.migrations.driver.client import Database
from mydocs.migrations.errors import SquashIncomplete
from mydocs.migrations.model import MigrationState

pytestmark = pytest.mark.anyio

STEP = 'async def up(db): await db.runs.insert_one({{"step": "{name}"}})\n'
SQUASH = 'REPLACES = ["001", "002"]\n' + STEP.format(name="003") + "async def down(db): await db.runs.drop()\n"


@pytest.fixture
def steps(write: Callable[[str, str], Path]) -> tuple[Path, Path]:
    """Two scripts that are to be replaced."""
    return write("001_first.py", STEP.format(name="001")), write("002_second.py", STEP.format(name="002"))


async def ran(db: Database) -> list[str]:
    return [document["step"] async for document in db["runs"].find(sort=[("_id", 1)])]


async def recorded(db: Database) -> list[str]:
    return [entry["_id"] async for entry in db["_migrations"].find(sort=[("_id", 1)])]


async def run(db: Database, folder: Path, **options: Any) -> None:
    await migrate(db, directory=folder, standard_indexes={}, **options)


async def test_a_new_database_runs_it_alone(
    any_db: Database, folder: Path, steps: tuple[Path, Path], write: Callable[[str, str], Path]
) -> None:
    write("003_both.py", SQUASH)
    await run(any_db, folder)
    assert await ran(any_db) == ["003"]
    assert await recorded(any_db) == ["003"]
    await check(any_db, directory=folder, standard_indexes={})
    for step in steps:
        step.unlink()
    await run(any_db, folder)
    assert await ran(any_db) == ["003"]
    await rollback(any_db, directory=folder)
    assert await recorded(any_db) == []


@pytest.mark.parametrize("files", ["gone", "there"])
async def test_it_counts_as_applied_where_all_of_them_are(
    db: Database, folder: Path, steps: tuple[Path, Path], write: Callable[[str, str], Path], files: str
) -> None:
    await run(db, folder)
    write("003_both.py", SQUASH)
    if files == "gone":
        for step in steps:
            step.unlink()
    assert [m.state for m in (await status(db, directory=folder, standard_indexes={})).migrations] == [
        MigrationState.APPLIED
    ] * 3
    await check(db, directory=folder, standard_indexes={})
    await run(db, folder)
    assert await recorded(db) == ["001", "002"]  # nothing to do, so nobody has taken the lease
    await repair(db, directory=folder)
    assert await recorded(db) == ["001", "002"]
    write("004_next.py", STEP.format(name="004"))
    await run(db, folder)
    assert await ran(db) == ["001", "002", "004"]
    assert await recorded(db) == ["001", "002", "003", "004"]
    entry = await db["_migrations"].find_one({"_id": "003"})
    assert entry is not None
    assert (entry["state"], entry["attempts"], entry["script"]) == ("applied", 0, "003_both.py")
    assert entry["checksum"].startswith("sha256:")
    await check(db, directory=folder, standard_indexes={})


async def test_an_older_release_still_starts_where_it_counts_as_applied(
    db: Database, folder: Path, steps: tuple[Path, Path], write: Callable[[str, str], Path]
) -> None:
    await run(db, folder)
    newer = (write("003_both.py", SQUASH), write("004_next.py", STEP.format(name="004")))
    await run(db, folder)
    for script in newer:
        script.unlink()
    await run(db, folder)
    assert await ran(db) == ["001", "002", "004"]


async def test_a_mixture_runs_nothing_until_it_is_settled(
    db: Database, folder: Path, steps: tuple[Path, Path], write: Callable[[str, str], Path]
) -> None:
    await run(db, folder, target="001")
    steps[1].unlink()
    write("003_both.py", SQUASH)
    with pytest.raises(SquashIncomplete, match=r"missing: 002 \(pending\)") as caught:
        await run(db, folder)
    assert caught.value.exit_code == 1
    with pytest.raises(MigrationError, match="003 is pending"):
        await check(db, directory=folder, standard_indexes={})
    await mark(db, "003", applied=True, directory=folder)
    await run(db, folder)
    assert await ran(db) == ["001"]
    await check(db, directory=folder, standard_indexes={})
