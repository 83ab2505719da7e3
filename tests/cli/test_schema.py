"""What `--output json` says fits the schema that `mydocs migrate schema` prints, for every command and every ending."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pymongo
import pytest
from jsonschema import Draft202012Validator, ValidationError
from typer.testing import Result

from mydocs.cli.app import migrate_app
from mydocs.cli.schema import schema
from mydocs.localserver import LocalServer

NOISY = "import os\nasync def up(db):\n    print('printed')\n    os.write(1, b'written')\nasync def down(db):\n    up\n"
FAILING = "async def up(db):\n    raise ValueError('no')\n"
SEARCH = """
from pymongo.operations import SearchIndexModel
from mydocs.migrations import ensure_search_indexes
async def up(db):
    await ensure_search_indexes(db.documents, [SearchIndexModel({"mappings": {"dynamic": True}}, "ft")])
"""

Json = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def says(cli: Callable[..., Result], local_server: LocalServer) -> Json:
    """Run a command with --output json; return its exit code and what stdout holds, which fits the schema."""

    def run(*arguments: str) -> tuple[int, dict[str, Any]]:
        ended = cli("migrate", *arguments, "--url", local_server.url, "--db", "x", "--output", "json")
        document = json.loads(ended.stdout)
        assert ended.stdout.count("\n") == 1
        Draft202012Validator(schema()).validate(document)
        assert (document["error"] or {"exit_code": 0})["exit_code"] == ended.exit_code
        return ended.exit_code, document

    return run


def test_the_command_prints_a_valid_schema(cli: Callable[..., Result]) -> None:
    printed = json.loads(cli("migrate", "schema").stdout)
    assert printed == schema()
    assert printed["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    Draft202012Validator.check_schema(printed)


@pytest.mark.parametrize(
    ("change", "value"),
    [
        pytest.param("outcome", "done", id="unknown outcome"),
        pytest.param("outcome", "failed", id="failure without an error"),
        pytest.param("seconds", "2", id="text for a number"),
        pytest.param("error", {"type": "E", "message": "m", "exit_code": 4}, id="exit code of another part"),
        pytest.param("error", {"type": "E", "message": "m", "exit_code": 1}, id="error of a success"),
        pytest.param("more", 1, id="unknown key"),
        pytest.param("indexes", [{"collection": "c"}], id="half an index"),
    ],
)
def test_the_schema_refuses_what_no_command_says(change: str, value: object) -> None:
    good = {"outcome": "ok", "database": "x", "migrations": [], "indexes": [], "seconds": 0.5, "error": None}
    validator: Draft202012Validator = Draft202012Validator(schema())
    validator.validate(good)
    with pytest.raises(ValidationError):
        validator.validate({**good, change: value})


@pytest.mark.seconds(180)
def test_every_command_that_ends_well_fits_the_schema(says: Json, folder: Path, local_server: LocalServer) -> None:
    (folder / "001_noisy.py").write_text(NOISY)
    with pymongo.MongoClient[dict[str, Any]](local_server.url) as client:
        client["x"]["pymongo_migrate"].insert_one({"name": "001_noisy", "applied": "now"})
    (folder / "002_search.py").write_text(SEARCH + "async def down(db):\n    pass\n")
    commands = [
        ("list",),
        ("new", "another", "--dir", "elsewhere"),
        ("run", "--dry-run"),
        ("plan", "--show", "1"),
        ("run", "--wait"),
        ("run",),
        ("status", "--exit-code"),
        ("check",),
        ("wait",),
        ("rollback", "--dry-run"),
        ("rollback", "--steps", "2", "--wait"),
        ("mark", "--all", "--applied"),
        ("mark", "001", "--pending"),
        ("status", "--history"),
        ("repair", "--yes"),
        ("unlock",),
        ("pull", "--dir", "elsewhere"),
        ("import", "--from", "pymongo-migrate"),
    ]
    assert {command: says(*command)[0] for command in commands} == dict.fromkeys(commands, 0)
    registered = {c.name or c.callback.__name__ for c in migrate_app.registered_commands if c.callback}
    assert registered - {command[0] for command in commands} == {"schema"}


@pytest.mark.seconds(240)
@pytest.mark.parametrize("output", ["json", "table"])
def test_every_command_can_be_piped_whatever_its_scripts_print(
    program: Callable[..., Any], folder: Path, local_url: str, output: str
) -> None:
    for number in ("001", "002"):
        (folder / f"{number}_noisy.py").write_text(NOISY)
    (folder / "003_noisy.py").write_text("import os\nprint('printed')\nos.system('echo written')\n")
    for arguments in (
        ("list",),
        ("new", "another", "--dir", "elsewhere"),
        ("run", "--wait", "--to", "2"),
        ("rollback",),
        ("run",),
        ("status",),
        ("check",),
        ("wait",),
        ("mark", "003", "--applied"),
        ("repair", "--yes"),
        ("unlock",),
    ):
        ended = program("migrate", *arguments, "--url", local_url, "--db", "x", "--output", output)
        assert ended.code == 0, ended.err
        assert "printed" not in ended.out
        assert "written" not in ended.out
        assert "\x1b" not in ended.out + ended.err
        if output == "json":
            Draft202012Validator(schema()).validate(ended.json)
        else:
            assert ended.out.endswith("\n")


def test_what_a_migration_of_status_and_list_has_more(says: Json, folder: Path) -> None:
    (folder / "001_noisy.py").write_text(NOISY)
    says("run")
    (listed,) = says("list")[1]["migrations"]
    assert {"kind", "reversible", "checksum"} < listed.keys()
    (folder / "002_pending.py").write_text(NOISY)
    applied, pending = says("status")[1]["migrations"]
    assert applied["applied_at"].endswith("+00:00")
    assert applied.keys() == pending.keys()
    assert pending["applied_at"] is None


@pytest.mark.parametrize(
    ("script", "arguments", "code", "outcome", "kind"),
    [
        pytest.param(FAILING, ("run",), 1, "failed", "MigrationFailed", id="script"),
        pytest.param("def up(db): ...", ("run",), 1, "failed", "ScriptsInvalid", id="file"),
        pytest.param(FAILING, ("repair", "--lock-timeout", "x"), 2, "failed", "SettingsInvalid", id="duration"),
        pytest.param(FAILING, ("run", "--to", "9"), 2, "failed", "UnknownVersion", id="version"),
        pytest.param(FAILING, ("run", "--report", "r.txt"), 2, "failed", "SettingsInvalid", id="kind of report"),
        pytest.param(FAILING, ("wait", "--timeout", "10ms"), 5, "not_ready", "NotReady", id="others"),
        pytest.param(SEARCH, ("run", "--wait", "--timeout", "10ms"), 5, "not_ready", "NotReady", id="late"),
        pytest.param(FAILING, ("check",), 8, "failed", "WorkLeft", id="check"),
        pytest.param(FAILING, ("status", "--exit-code"), 8, "failed", "WorkLeft", id="status"),
    ],
)
def test_every_command_that_fails_fits_the_schema(
    says: Json,
    folder: Path,
    local_server: LocalServer,
    script: str,
    arguments: tuple[str, ...],
    code: int,
    outcome: str,
    kind: str,
) -> None:
    local_server.search.outcome("ft", build_seconds=3600)
    (folder / "001_first.py").write_text(script)
    found, document = says(*arguments)
    assert (found, document["outcome"], document["error"]["type"]) == (code, outcome, kind)


def test_failed_build_fits_the_schema(says: Json, folder: Path, local_server: LocalServer) -> None:
    local_server.search.outcome("ft", fails="no room", build_seconds=0.0, pending_seconds=0.0)
    (folder / "001_search.py").write_text(SEARCH)
    found, document = says("run", "--wait", "--timeout", "1500ms")
    assert (found, document["error"]["type"], document["indexes"][-1]["state"]) == (6, "IndexFailed", "failed")
    assert document["indexes"][-1]["reason"] == "no room"


def test_held_lease_fits_the_schema(says: Json, folder: Path, local_server: LocalServer) -> None:
    (folder / "001_noisy.py").write_text(NOISY)
    holder = {"owner": {"host": "h", "pid": 1, "id": "i"}, "term": 7, "expires_at": {"$add": ["$$NOW", 60_000]}}
    with pymongo.MongoClient[dict[str, Any]](local_server.url) as client:
        client["x"]["_migrations_lock"].update_one({"_id": "lease"}, [{"$set": holder}], upsert=True)
    assert says("run", "--lock-timeout", "0")[1]["error"]["type"] == "LeaseHeld"
    assert says("unlock")[0] == 7
    assert says("unlock", "--force")[1]["lease"]["term"] == 7


def test_no_server_fits_the_schema(cli: Callable[..., Result], folder: Path) -> None:
    url = "mongodb://127.0.0.1:1/x?serverSelectionTimeoutMS=50"
    ended = cli("migrate", "status", "--url", url, "--output", "json")
    Draft202012Validator(schema()).validate(json.loads(ended.stdout))
    assert ended.exit_code == 3


def test_what_was_there_before_fits_the_schema(says: Json, folder: Path, local_server: LocalServer) -> None:
    (folder / "001_first.py").write_text(NOISY)
    with pymongo.MongoClient[dict[str, Any]](local_server.url) as client:
        names = ("001_first", "notes", "1_short")
        client["x"]["pymongo_migrate"].insert_many([{"name": name, "applied": "now"} for name in names])
        client["x"]["documents"].create_index("a")
        client["x"]["documents"].create_search_index({"name": "ft", "definition": {"mappings": {"dynamic": True}}})
    assert [m["state"] for m in says("import", "--from", "pymongo-migrate")[1]["migrations"]] == [
        *("applied", "missing", "missing")
    ]
    assert len(says("pull", "--diff", "--indexes", "none")[1]["differences"]) == 2
    pulled = says("pull", "--adopt", "--indexes", "none")[1]
    assert pulled["migrations"][0]["path"] == "migrations/002_live_indexes.py"
    assert [index["type"] for index in pulled["indexes"]] == ["standard", "search"]
    assert says("pull", "--indexes", "none")[1]["indexes"] == []
