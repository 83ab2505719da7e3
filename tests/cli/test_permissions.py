"""docs/permissions.md names exactly what each command needs: recorded on the wire, turned into the server's actions."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pymongo
import pytest
from typer.testing import Result

from mydocs.cli.app import migrate_app
from mydocs.localserver import LocalServer
from mydocs.localserver.controls import Recorded

PAGE = Path(__file__).parents[2] / "docs" / "permissions.md"
OWN = ("_migrations_lock", "_migrations", "_migrations_log", "_search_aliases")
OTHERS = "collections"

# https://www.mongodb.com/docs/manual/reference/privilege-actions/
ACTIONS = {
    "find": {"find"},
    "count": {"find"},
    "insert": {"insert"},
    "update": {"update"},
    "delete": {"remove"},
    "findAndModify": {"find", "update"},
    "create": {"createCollection"},
    "createIndexes": {"createIndex"},
    "listIndexes": {"listIndexes"},
    "collMod": {"collMod"},
    "createSearchIndexes": {"createSearchIndexes"},
    "updateSearchIndex": {"updateSearchIndex"},
    "dropSearchIndex": {"dropSearchIndex"},
}
HELPERS = """
from pymongo import IndexModel
from pymongo.operations import SearchIndexModel
from mydocs.migrations import ensure_indexes, ensure_search_indexes, rename_field, switch_search_alias, transform
from mydocs.migrations import unset_field
def search(dynamic, name="ft"):
    return SearchIndexModel({"mappings": {"dynamic": dynamic}}, name)
async def up(db):
    await ensure_search_indexes(db.notes, [search(True)])
    await ensure_search_indexes(db.notes, [search(False), search(True, "ft_2"), search(True, "ft_3")])
    await switch_search_alias(db.notes, "notes", to="ft_2")
    await ensure_indexes(db.notes, [IndexModel("at", expireAfterSeconds=60)])
    await ensure_indexes(db.notes, [IndexModel("at", expireAfterSeconds=90)])
    await transform(db.notes, {}, lambda note: {"$set": {"seen": True}})
    await rename_field(db.notes, "a.b", "c.d")
    await unset_field(db.notes, "e")
"""
DOWN = """
from mydocs.migrations import drop_search_indexes
async def down(db):
    await switch_search_alias(db.notes, "notes", to="ft_3")
    await drop_search_indexes(db.notes, "ft")
"""

Needs = set[tuple[str, str]]


def needed(recorded: Recorded) -> Iterator[tuple[str, str]]:
    """Give the collection and the action of each privilege that a command asks for."""
    body: Mapping[str, Any] = recorded.body
    if recorded.name == "listCollections":  # a privilege on the database
        yield OTHERS, "listCollections"
        return
    collection = str(body[recorded.name])
    if recorded.name == "aggregate":
        for stage in body["pipeline"]:
            if "$listSearchIndexes" in stage:
                yield collection, "listSearchIndexes"
                return
            if "$unionWith" in stage:
                joined = stage["$unionWith"]
                yield (joined if isinstance(joined, str) else joined["coll"]), "find"
        yield collection, "find"
        return
    for action in ACTIONS[recorded.name]:
        yield collection, action
    if body.get("upsert") or any(statement.get("upsert") for statement in body.get("updates", ())):
        yield collection, "insert"


def documented() -> dict[str, Needs]:
    """Read the page's table: a row for each command, a column for each collection."""
    lines = re.findall(r"^\| `([a-z, `]+)` \|(.*)\|$", PAGE.read_text("utf-8"), re.MULTILINE)
    return {
        command: {
            (target, action)
            for target, cell in zip((*OWN, OTHERS), cells.split("|"), strict=True)
            for action in re.findall(r"`(\w+)`", cell)
        }
        for commands, cells in lines
        for command in commands.split("`, `")
    }


@pytest.fixture
def needs(cli: Callable[..., Result], folder: Path, local_server: LocalServer) -> Callable[..., Needs]:
    """Run a command and say which privileges it needed."""

    def run(*arguments: str, code: int = 0) -> Needs:
        local_server.controls.clear()
        ended = cli("migrate", *arguments, "--url", local_server.url, "--db", "x")
        assert ended.exit_code == code, ended.stderr
        sent = [recorded for recorded in local_server.controls.counted() if recorded.name != "killCursors"]
        # The page names one look outside, which a run can do without.
        sharded = [r for r in sent if (r.database, r.name, r.body.get("find")) == ("config", "find", "collections")]
        sent = [recorded for recorded in sent if recorded not in sharded]
        assert {recorded.database for recorded in sent} <= {"x"}
        found = {need for recorded in sent for need in needed(recorded)}
        return {(target if target in OWN else OTHERS, action) for target, action in found}

    return run


def test_the_page_has_a_row_for_every_command() -> None:
    names = {
        command.name or command.callback.__name__ for command in migrate_app.registered_commands if command.callback
    }
    assert set(documented()) == names


@pytest.mark.seconds(180)
def test_every_command_needs_exactly_what_the_page_says(
    needs: Callable[..., Needs], folder: Path, local_server: LocalServer
) -> None:
    script, earlier = folder / "001_helpers.py", folder / "000_earlier.py"
    earlier.write_text("async def up(db): ...\n")
    seen: dict[str, Needs] = {}

    def add(command: str, *options: str, code: int = 0) -> None:
        seen[command] = seen.get(command, set()) | needs(command, *options, code=code)

    for command in ("list", "schema"):
        add(command)
    add("new", "description", "--dir", "elsewhere")
    with pymongo.MongoClient[dict[str, Any]](local_server.url) as client:
        client["x"]["pymongo_migrate"].insert_one({"name": "001_helpers", "applied": "now"})
        client["x"]["seen"].create_index("a")
    script.write_text(HELPERS + DOWN)
    add("import", "--from", "pymongo-migrate")
    needs("mark", "001", "--pending")
    add("pull", "--adopt", "--indexes", "none")
    needs("mark", "002", "--pending")
    (folder / "002_live_indexes.py").unlink()
    script.write_text(HELPERS + "    raise ValueError\n" + DOWN)
    add("plan", code=1)
    add("run", code=1)
    script.write_text(HELPERS + DOWN)
    add("status")
    add("check", code=8)
    with pymongo.MongoClient[dict[str, Any]](local_server.url) as client:
        client["x"]["notes"].insert_many([{"a": {"b": 1}, "e": 1}, {"e": 2}])
        client["x"]["_migrations"].insert_one({"file_name": "000_earlier.py", "run_at": "2024-01-01"})
    add("run", "--wait")
    add("status", "--history")
    add("check")
    add("wait")
    script.write_text(HELPERS + DOWN + "\n# edited\n")
    earlier.unlink()
    add("repair", "--yes")
    add("rollback", "--wait")
    add("mark", "001", "--applied")
    add("mark", "001", "--pending")
    with pymongo.MongoClient[dict[str, Any]](local_server.url) as client:
        client["x"]["_migrations_lock"].update_one(
            {}, [{"$set": {"owner": {"host": "h", "pid": 1, "id": "i"}, "expires_at": {"$add": ["$$NOW", 60_000]}}}]
        )
    add("unlock", code=7)
    add("unlock", "--force")
    assert {command: sorted(found) for command, found in seen.items()} == {
        command: sorted(found) for command, found in documented().items()
    }


def test_the_roles_of_the_page_hold_exactly_what_its_commands_need() -> None:
    roles = {
        role["role"]: role for role in map(json.loads, re.findall(r"```json\n(.*?)```", PAGE.read_text("utf-8"), re.S))
    }
    table = documented()
    reading = {"list", "new", "schema", "status", "check", "wait"}
    for name, commands in (("mydocsMigrate", set(table)), ("mydocsLook", reading), ("mydocsPlan", {"plan"})):
        granted = {
            (privilege["resource"]["collection"] or OTHERS, action)
            for privilege in roles[name]["privileges"]
            for action in privilege["actions"]
        }
        assert granted == {need for command in commands for need in table[command]}
