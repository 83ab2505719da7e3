"""Ledgers that other tools have written are taken over: what has a file of the same name is marked, all else listed."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bson import json_util
from pymongo import MongoClient

from mydocs.localserver import LocalServer
from mydocs.migrations import Event, UsageError, check, import_ledger, migrate
from mydocs.migrations.driver.client import Database
from mydocs.migrations.ledger.foreign import LAYOUTS, Tool
from mydocs.migrations.reporting.events import Warned

pytestmark = pytest.mark.anyio

# Written by pymongo-migrate 1.0.0, mongodb-migrations 1.3.1 and migrate-mongo 14.0.7 on the local server.
LEDGERS = Path(__file__).parent / "ledgers"
UP = "async def up(db): await db.runs.insert_one({})\n"
# For each tool: files of ours, the versions among them that it has applied, and its records without a file.
CASES = {
    Tool.PYMONGO_MIGRATE: (
        ("001_notes.py", "003_other.py", "004_back.py", "20240131120000_language.py"),
        ["001", "20240131120000"],
        ["003_gone"],
    ),
    Tool.MONGODB_MIGRATIONS: (
        ("20240131120000_notes.py", "20240201120000_renamed.py", "20240401120000_new.py"),
        ["20240131120000", "20240201120000"],
        ["20240301120000"],
    ),
    Tool.MIGRATE_MONGO: (
        ("20240131120000_notes.py", "20240201120000_full-text.py", "20240401120000_new.py"),
        ["20240131120000", "20240201120000"],
        ["20240301120000-gone.js"],
    ),
}


def records(tool: Tool) -> list[dict[str, Any]]:
    documents: list[dict[str, Any]] = json_util.loads(
        (LEDGERS / f"{tool}.json").read_text("utf-8"), json_options=json_util.JSONOptions(tz_aware=True)
    )
    return documents


@pytest.mark.parametrize("tool", list(Tool))
async def test_what_a_tool_has_applied_is_not_run_again(
    any_db: Database, folder: Path, write: Callable[[str, str], Path], tool: Tool
) -> None:
    files, applied, unknown = CASES[tool]
    for name in files:
        write(name, UP)
    theirs = any_db[LAYOUTS[tool].collection]
    await theirs.insert_many(records(tool))
    events: list[Event] = []
    report = await import_ledger(any_db, source=tool.value, directory=folder, on_event=events.append)
    assert [(m.version, m.state.value) for m in report.migrations][: len(applied)] == [(v, "applied") for v in applied]
    assert [(m.script, m.state.value) for m in report.migrations][len(applied) :] == [(u, "missing") for u in unknown]
    assert [e.message for e in events if isinstance(e, Warned)] == [
        f"applied by {tool}, and no file has the name: {unknown[0]}"
    ]
    entries = {e["_id"]: e async for e in any_db["_migrations"].find()}
    assert sorted(entries) == sorted(applied)
    assert all(e["attempts"] == 0 and e["checksum"].startswith("sha256:") for e in entries.values())
    first = records(tool)[0]
    assert entries[applied[0]]["finished_at"] == first[LAYOUTS[tool].applied_at]
    assert await theirs.count_documents({}) == len(records(tool))
    await migrate(any_db, directory=folder, standard_indexes={}, allow_out_of_order=True)
    assert await any_db["runs"].count_documents({}) == len(files) - len(applied)
    await check(any_db, directory=folder, standard_indexes={})
    again = await import_ledger(any_db, source=tool.value, directory=folder)
    assert again.migrations == report.migrations


async def test_an_entry_of_ours_stays_as_it_is(db: Database, folder: Path, write: Callable[[str, str], Path]) -> None:
    write("001_notes.py", UP)
    await migrate(db, directory=folder, standard_indexes={})
    before = await db["_migrations"].find_one()
    await db["pymongo_migrate"].insert_many(records(Tool.PYMONGO_MIGRATE))
    await import_ledger(db, source="pymongo-migrate", directory=folder)
    assert await db["_migrations"].find_one() == before


async def test_another_collection_can_be_named(db: Database, folder: Path, write: Callable[[str, str], Path]) -> None:
    write("20240131120000_notes.py", UP)
    await db["moved"].insert_many([*records(Tool.MIGRATE_MONGO), {"_id": "odd"}])
    events: list[Event] = []
    await import_ledger(db, source="migrate-mongo", collection="moved", directory=folder, on_event=events.append)
    assert await db["_migrations"].count_documents({"state": "applied"}) == 1
    assert "1 documents of moved are not records of migrate-mongo" in str(events)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        pytest.param("flyway", "no tool 'flyway'; known are pymongo-migrate", id="unknown tool"),
        pytest.param(
            "migrate-mongo", "no records of migrate-mongo in the collection changelog of app", id="no records"
        ),
    ],
)
async def test_what_cannot_be_taken_over_is_a_usage_error(db: Database, folder: Path, source: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        await import_ledger(db, source=source, directory=folder)
    assert await db.list_collection_names() == []


@pytest.mark.heavy
@pytest.mark.seconds(300)
def test_the_tools_themselves_write_what_is_read(local_server: LocalServer, tmp_path: Path) -> None:
    """Install the tools, let them migrate, and compare the form of their records with the stored ones."""
    url = local_server.url
    python = tmp_path / "venv" / "bin"
    subprocess.run([sys.executable, "-m", "venv", str(python.parent)], check=True)
    subprocess.run([python / "pip", "install", "-q", "pymongo-migrate", "mongodb-migrations"], check=True)
    subprocess.run(["npm", "install", "--prefix", tmp_path, "migrate-mongo", "mongodb"], check=True)

    (tmp_path / "a").mkdir()
    body = "dependencies = []\ndef upgrade(db): pass\ndef downgrade(db): pass\n"
    (tmp_path / "a" / "001_notes.py").write_text(f'name = "001_notes"\n{body}')
    target = url.replace("/?", "/pymongo-migrate?")
    subprocess.run([python / "pymongo-migrate", "migrate", "-u", target, "-m", tmp_path / "a"], check=True)

    (tmp_path / "b").mkdir()
    body = "from mongodb_migrations.base import BaseMigration\n"
    body += "class Migration(BaseMigration):\n    def upgrade(self): pass\n"
    (tmp_path / "b" / "20240131120000_notes.py").write_text(body)
    target = url.replace("/?", "/mongodb-migrations?")
    subprocess.run([python / "mongodb-migrate", "--url", target, "--migrations", tmp_path / "b"], check=True)

    (tmp_path / "c" / "migrations").mkdir(parents=True)
    (tmp_path / "c" / "migrations" / "20240131120000-notes.js").write_text("module.exports = {async up() {}}")
    config = f'{{mongodb: {{url: "{url}", databaseName: "migrate-mongo", options: {{}}}}, migrationsDir: "migrations", '
    config += 'changelogCollectionName: "changelog", lockCollectionName: "lock", lockTtl: 0, '
    config += 'migrationFileExtension: ".js", useFileHash: false, moduleSystem: "commonjs"}'
    (tmp_path / "c" / "migrate-mongo-config.js").write_text(f"module.exports = {config}")
    program = tmp_path / "node_modules" / ".bin" / "migrate-mongo"
    subprocess.run([program, "up"], cwd=tmp_path / "c", check=True)

    with MongoClient[dict[str, Any]](url, tz_aware=True) as client:
        for tool in Tool:
            (written,) = client[tool.value][LAYOUTS[tool].collection].find()
            (stored, *_) = records(tool)
            assert {key: type(value) for key, value in written.items()} == {
                key: type(value) for key, value in stored.items()
            }
