"""What `mydocs migrate new` writes does nothing before it is filled in, and runs up and down once it is."""

from pathlib import Path

import pytest

from mydocs.localserver import LocalServer
from mydocs.migrations import MigrationError, migrate, rollback
from mydocs.migrations.driver.client import Database
from mydocs.migrations.model import MigrationState
from mydocs.migrations.scripts.templates import TemplateKind, render

pytestmark = pytest.mark.anyio


def filled_in(text: str) -> str:
    """Take out the line that says that nothing was filled in."""
    kept = [line for line in text.splitlines(keepends=True) if not line.startswith("    raise NotImplementedError(")]
    assert len(kept) == len(text.splitlines()) - 1
    return "".join(kept)


@pytest.mark.parametrize("kind", list(TemplateKind))
async def test_an_unedited_script_says_so_and_changes_nothing(
    db: Database, folder: Path, local_server: LocalServer, kind: TemplateKind
) -> None:
    (folder / "001_first.py").write_text("async def up(db): await db.documents.insert_one({'_id': 1})\n")
    (folder / "002_new.py").write_text(render(kind, "an example"))
    with pytest.raises(MigrationError, match=r"002_new\.py, line \d+: it is not written yet") as caught:
        await migrate(db, directory=folder)
    assert caught.value.exit_code == 1
    assert await db.list_collection_names() == []


KINDS = [TemplateKind.DATA, TemplateKind.SEARCH, TemplateKind.VECTOR, TemplateKind.INDEX]


async def test_a_script_of_each_kind_runs_up_and_down(db: Database, folder: Path) -> None:
    for number, kind in enumerate(KINDS, start=1):
        (folder / f"{number:03}_{kind}.py").write_text(filled_in(render(kind, "an example")))
    await db["documents"].insert_one({"_id": 1})
    assert {m.state for m in (await migrate(db, directory=folder, wait=True)).migrations} == {MigrationState.APPLIED}
    assert await db["documents"].find_one() == {"_id": 1, "example": 0}
    back = await rollback(db, directory=folder, steps=len(KINDS), wait=True)
    assert {m.state for m in back.migrations} == {MigrationState.PENDING}
    assert await db["documents"].find_one() == {"_id": 1}
    assert "example_1" not in await db["documents"].index_information()
