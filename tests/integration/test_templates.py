"""What `mydocs migrate new` writes runs as it is, up and down."""

from pathlib import Path

import pytest

from mydocs.migrations import migrate, rollback
from mydocs.migrations.driver.mongo import Database
from mydocs.migrations.model import MigrationState
from mydocs.migrations.scripts.templates import TemplateKind, render

pytestmark = pytest.mark.anyio


async def test_a_new_script_of_each_kind_runs_up_and_down(db: Database, folder: Path) -> None:
    for number, kind in enumerate(TemplateKind, start=1):
        (folder / f"{number:03}_{kind}.py").write_text(render(kind, "an example"))
    await db["documents"].insert_one({"_id": 1})
    assert {m.state for m in (await migrate(db, directory=folder, wait=True)).migrations} == {MigrationState.APPLIED}
    assert await db["documents"].find_one() == {"_id": 1, "example": 0}
    back = await rollback(db, directory=folder, steps=4, wait=True)
    assert {m.state for m in back.migrations} == {MigrationState.PENDING}
    assert await db["documents"].find_one() == {"_id": 1}
    assert "example_1" not in await db["documents"].index_information()
