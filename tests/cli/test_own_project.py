"""A project of its own: its folder, its standard indexes, and none of the application's."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient

from mydocs.indexes import STANDARD_INDEXES
from mydocs.localserver import LocalServer
from mydocs.migrations.scripts.templates import TemplateKind

from .conftest import Ended

ROOT = Path(__file__).parents[2]
OWN = 'from pymongo import IndexModel\nINDEXES = {"orders": [IndexModel([("status", 1)])]}\n'


@pytest.fixture
def project(tmp_path: Path) -> Callable[[str], None]:
    """Write the table into the pyproject.toml of the folder that the program is started in."""

    def put(table: str) -> None:
        (tmp_path / "pyproject.toml").write_text(f'[project]\nname = "shop"\n\n[tool.mydocs]\n{table}')
        (tmp_path / "steps").mkdir(exist_ok=True)
        (tmp_path / "steps" / "001_first.py").write_text("async def up(db): await db.orders.insert_one({'_id': 1})\n")

    return put


def indexes(url: str) -> dict[str, set[str]]:
    with MongoClient[dict[str, Any]](url) as client:
        db = client["shop"]
        return {
            name: set(db[name].index_information()) - {"_id_"}
            for name in db.list_collection_names()
            if not name.startswith("_")
        }


@pytest.mark.seconds(180)
def test_a_project_without_standard_indexes_gets_none(
    project: Callable[[str], None],
    program: Callable[..., Ended],
    inside: Callable[..., Ended],
    local_server: LocalServer,
) -> None:
    project('dir = "steps"\nstandard_indexes = false\n')
    url = local_server.url.replace("/?", "/shop?")
    ended = program("migrate", "run", "--wait", "--url", url, "-o", "json")
    assert ended.code == 0, ended.err
    assert indexes(url) == {"orders": set()}
    assert ended.json["indexes"] == []
    with MongoClient[dict[str, Any]](url) as client:
        assert [entry["_id"] for entry in client["shop"]["_migrations"].find()] == ["001"]
    for command in ("status", "check", "wait"):
        ended = inside("migrate", command, "--url", url, "-o", "json")
        assert (ended.code, ended.json["indexes"]) == (0, [])


@pytest.mark.seconds(180)
def test_a_flag_names_indexes_in_place_of_the_table(
    project: Callable[[str], None], program: Callable[..., Ended], local_server: LocalServer, tmp_path: Path
) -> None:
    project('dir = "steps"\nstandard_indexes = "models:INDEXES"\n')
    (tmp_path / "models.py").write_text(OWN)
    url = local_server.url.replace("/?", "/shop?")
    assert program("migrate", "run", "--url", url, "--indexes", "none").code == 0
    assert indexes(url) == {"orders": set()}
    planned = program("migrate", "run", "--url", url, "--dry-run", "-o", "json")
    assert [index["name"] for index in planned.json["indexes"]] == ["status_1"]
    assert program("migrate", "check", "--url", url, "--indexes", "none").code == 0
    assert program("migrate", "check", "--url", url).code == 8
    assert program("migrate", "run", "--url", url).code == 0
    assert indexes(url) == {"orders": {"status_1"}}
    assert program("migrate", "check", "--url", url).code == 0


@pytest.mark.parametrize("command", ["run", "status", "check", "wait"])
def test_what_cannot_be_imported_is_a_usage_error(
    cli: Callable[..., Any], project: Callable[[str], None], command: str
) -> None:
    project('standard_indexes = "nowhere_at_all:INDEXES"\n')
    ended = cli("migrate", command, "--url", "mongodb://127.0.0.1:1/shop", "-o", "json")
    assert ended.exit_code == 2
    assert json.loads(ended.stdout)["error"]["type"] == "SettingsInvalid"
    assert "nowhere_at_all cannot be imported" in ended.stderr
    assert "pyproject.toml" in ended.stderr


def test_list_and_new_use_the_folder_of_the_table(cli: Callable[..., Any], project: Callable[[str], None]) -> None:
    project('dir = "steps"\n')
    assert "001      first" in cli("migrate", "list").stdout
    assert cli("migrate", "new", "second").stdout.endswith("steps/002_second.py\n")


@pytest.mark.seconds(300)
@pytest.mark.heavy
def test_the_wheel_in_an_empty_project_makes_no_index_of_the_application(tmp_path: Path) -> None:
    run = subprocess.run
    run([sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(tmp_path), str(ROOT)], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    programs = tmp_path / "venv" / "bin"
    run([str(programs / "pip"), "install", "-q", f"{wheel}[local]"], check=True)
    shop = tmp_path / "shop"
    shop.mkdir()
    mydocs = [str(programs / "mydocs"), "migrate"]
    run([*mydocs, "new", "first", "--kind", "index"], cwd=shop, check=True)
    (shop / "migrations" / "001_first.py").write_text("async def up(db): await db.orders.insert_one({'_id': 1})\n")
    (shop / "pyproject.toml").write_text("[tool.mydocs]\nstandard_indexes = false\n")
    ended = run([*mydocs, "run", "--local", "-o", "json"], cwd=shop, check=True, capture_output=True, text=True)
    assert json.loads(ended.stdout)["indexes"] == []
    (shop / "pyproject.toml").unlink()
    ended = run([*mydocs, "run", "--local", "-o", "json"], cwd=shop, check=True, capture_output=True, text=True)
    assert len(json.loads(ended.stdout)["indexes"]) == sum(map(len, STANDARD_INDEXES.values())) == 7


@pytest.mark.seconds(180)
def test_a_foreign_ledger_is_taken_over_from_the_command_line(
    program: Callable[..., Ended], inside: Callable[..., Ended], folder: Path, local_server: LocalServer
) -> None:
    (folder / "001_first.py").write_text("async def up(db): raise SystemError\n")
    url = local_server.url.replace("/?", "/shop?")
    now = datetime(2026, 1, 31, tzinfo=UTC)
    with MongoClient[dict[str, Any]](url) as client:
        client["shop"]["pymongo_migrate"].insert_many(
            [{"name": "001_first", "applied": now}, {"name": "002_gone", "applied": now}]
        )
    ended = program("migrate", "import", "--from", "pymongo-migrate", "--url", url)
    assert ended.code == 0, ended.err
    assert ended.out.splitlines()[-1] == (
        "1 migration applied by the other tool; applied there, and no file has the name: 002_gone"
    )
    assert "warning: applied by pymongo-migrate, and no file has the name: 002_gone" in ended.err
    assert inside("migrate", "run", "--indexes", "none", "--url", url).code == 0
    assert inside("migrate", "import", "--from", "x", "--url", url).code == 2


@pytest.mark.seconds(180)
def test_live_indexes_are_pulled_from_the_command_line(
    inside: Callable[..., Ended], folder: Path, local_server: LocalServer
) -> None:
    url = local_server.url.replace("/?", "/shop?")
    with MongoClient[dict[str, Any]](url) as client:
        client["shop"]["orders"].create_index("status")
    ended = inside("migrate", "pull", "--diff", "--url", url)
    assert (ended.code, ended.out) == (0, "orders.status_1: live, and no migration asked for it\n")
    ended = inside("migrate", "pull", "orders", "--adopt", "--url", url)
    assert ended.code == 0, ended.err
    assert ended.out.splitlines()[0] == "migrations/001_live_indexes.py"
    assert (folder / "001_live_indexes.py").is_file()
    assert inside("migrate", "check", "--indexes", "none", "--url", url).code == 0
    ended = inside("migrate", "pull", "-o", "json", "--url", url)
    assert (ended.json["outcome"], ended.json["migrations"], ended.json["indexes"]) == ("ok", [], [])
    ended = inside("migrate", "pull", "nowhere", "--url", url)
    assert (ended.code, "no collection nowhere" in ended.err) == (2, True)


@pytest.mark.parametrize("kind", list(TemplateKind))
def test_templates_name_no_collection_of_the_application(
    cli: Callable[..., Any], project: Callable[[str], None], tmp_path: Path, kind: TemplateKind
) -> None:
    project('dir = "steps"\n')
    for path in cli("migrate", "new", "second", "--kind", kind.value).stdout.splitlines():
        text = Path(path).read_text()
        assert not re.search(r"db\.(documents|pages)|[\"_](documents|pages)\b", text)
        compile(text, path, "exec")
    for path in (*cli("migrate", "new", "third", "--kind", kind.value, "--dir", "steps").stdout.splitlines(),):
        assert "example" in Path(path).read_text()
