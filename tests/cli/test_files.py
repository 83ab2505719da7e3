"""`list` and `new`: what needs no database."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from mydocs.migrations.model import ScriptKind
from mydocs.migrations.scripts.discover import discover
from mydocs.migrations.scripts.templates import TemplateKind

ROOT = Path(__file__).parents[2]
HEAVY = {"pymongo", "motor", "bson", "lightodm", "anyio", "asyncio", "rich", "pydantic", "tenacity", "dotenv"}


def test_list_shows_kind_and_reversibility(cli: Callable[..., Result], folder: Path) -> None:
    (folder / "001_both.py").write_text("async def up(db): ...\nasync def down(db): ...\n")
    (folder / "002_plain.py").write_text("print()\n")
    assert cli("migrate", "list").stdout.splitlines() == [
        "VERSION  NAME   KIND   REVERSIBLE",
        "001      both   async  yes",
        "002      plain  plain  no",
    ]
    listed = json.loads(cli("migrate", "list", "--output", "json").stdout)["migrations"]
    assert [(m["version"], m["script"], m["kind"], m["reversible"]) for m in listed] == [
        ("001", "001_both.py", "async", True),
        ("002", "002_plain.py", "plain", False),
    ]
    assert all(m["checksum"].startswith("sha256:") for m in listed)


def test_list_says_what_is_wrong_with_files(cli: Callable[..., Result], folder: Path) -> None:
    (folder / "1_short.py").write_text("")
    ended = cli("migrate", "list", "-o", "json")
    assert ended.exit_code == 1
    assert json.loads(ended.stdout)["error"]["type"] == "ScriptsInvalid"


@pytest.mark.parametrize("kind", list(TemplateKind))
def test_new_script_is_a_migration(cli: Callable[..., Result], folder: Path, kind: TemplateKind) -> None:
    (folder / "999_last.py").write_text("print()\n")
    ended = cli("migrate", "new", 'Notes: "full text", \\o/', "--kind", kind.value)
    assert ended.stdout.splitlines()[0] == "migrations/1000_notes_full_text_o.py"
    script = discover(folder).scripts[-1]
    assert (script.version, script.kind, script.reversible) == ("1000", ScriptKind.ASYNC, True)


def test_new_makes_the_folder(cli: Callable[..., Result], tmp_path: Path) -> None:
    assert cli("migrate", "new", "first", "--dir", "a/b").exit_code == 0
    assert (tmp_path / "a" / "b" / "001_first.py").is_file()


def test_new_counts_on_and_overwrites_nothing(cli: Callable[..., Result], folder: Path) -> None:
    cli("migrate", "new", "same")
    first = (folder / "001_same.py").read_text()
    cli("migrate", "new", "same", "--kind", "index")
    assert (folder / "001_same.py").read_text() == first
    assert (folder / "002_same.py").is_file()


def test_new_adds_to_an_order_file_where_there_is_one(cli: Callable[..., Result], folder: Path) -> None:
    cli("migrate", "new", "first")
    assert not (folder / ".order").exists()
    (folder / ".order").touch()
    cli("migrate", "new", "second")
    cli("migrate", "new", "third")
    assert (folder / ".order").read_text() == "002_second.py\n003_third.py\n"
    (folder / ".order").write_text("002_second.py\n003_third.py")  # as an editor may leave it
    cli("migrate", "new", "fourth")
    assert (folder / ".order").read_text() == "002_second.py\n003_third.py\n004_fourth.py\n"


def test_new_says_of_a_description_that_it_is_too_long(cli: Callable[..., Result], folder: Path) -> None:
    ended = cli("migrate", "new", "x" * 300)
    assert (ended.exit_code, list(folder.iterdir())) == (2, [])
    assert "too long" in ended.stderr
    assert cli("migrate", "new", "x" * (255 - len("001_.py"))).exit_code == 0


@pytest.mark.parametrize("arguments", [["--help"], ["migrate", "list"], ["migrate", "list", "-o", "json"]])
def test_light_commands_import_nothing_heavy(folder: Path, arguments: list[str]) -> None:
    (folder / "001_a.py").write_text("async def up(db): ...\n")
    code = (
        "import sys, atexit\n"
        f"heavy = {sorted(HEAVY)!r}\n"
        "atexit.register(lambda: print('LOADED', *[n for n in heavy if n in sys.modules], file=sys.stderr))\n"
        f"sys.argv = ['mydocs', *{arguments!r}]\n"
        "from mydocs.cli.main import main\nmain()\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=folder.parent, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr.strip() == "LOADED"
