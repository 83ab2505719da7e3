"""What somebody learns from --help alone, at the width of a plain terminal."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from mydocs.cli.app import app, migrate_app

ROOT = Path(__file__).parents[2]
WIDTH = 80  # characters
NEEDS_NO_DATABASE = ("list", "new", "schema")
NAMES = [
    "run",
    "plan",
    "list",
    "status",
    "wait",
    "check",
    "rollback",
    "new",
    "mark",
    "import",
    "pull",
    "repair",
    "unlock",
    "schema",
]


@pytest.fixture
def helped(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Ask for help on a terminal of 80 columns."""
    monkeypatch.setenv("COLUMNS", str(WIDTH))
    monkeypatch.setenv("TERMINAL_WIDTH", str(WIDTH))

    def ask(*words: str) -> str:
        ended: Result = CliRunner().invoke(app, [*words, "--help"], prog_name="mydocs")
        assert ended.exit_code == 0, ended.stderr
        return ended.stdout

    return ask


def test_every_command_is_looked_at() -> None:
    named = [one.name or one.callback.__name__.rstrip("_") for one in migrate_app.registered_commands if one.callback]
    assert sorted(named) == sorted(NAMES)


@pytest.mark.parametrize("command", [(), *((name,) for name in NAMES if name not in NEEDS_NO_DATABASE)])
def test_how_to_log_in_is_found_in_the_help(helped: Callable[..., str], command: tuple[str, ...]) -> None:
    text = " ".join(helped("migrate", *command).split())
    assert "the login: MONGO_USER, MONGO_PASSWORD" in text


def test_no_summary_of_a_command_is_cut(helped: Callable[..., str]) -> None:
    text = helped("migrate")
    listed = " ".join(text[text.index("Commands:") :].split())
    for name in NAMES:
        summary = " ".join(helped("migrate", name).split("\n\n")[1].split())
        assert f" {name} {summary.rstrip('.')}" in listed, "all of its first sentence"
    assert "..." not in listed
    assert max(map(len, text.splitlines())) <= WIDTH


@pytest.mark.parametrize("name", NAMES)
def test_values_are_named_by_what_they_are(helped: Callable[..., str], name: str) -> None:
    text = helped("migrate", name)
    assert re.findall(r"<(?:int|float|str|list|path)\b[^>]*>|\b(?:TEXT|INTEGER)\b", text) == []
    assert max(map(len, text.splitlines())) <= WIDTH


@pytest.mark.parametrize("name", NAMES)
def test_options_of_a_connection_are_shown_where_there_is_one(helped: Callable[..., str], name: str) -> None:
    shown = set(re.findall(r"^  (--(?:url|db|local))\b", helped("migrate", name), re.MULTILINE))
    assert shown == (set() if name in NEEDS_NO_DATABASE else {"--url", "--db", "--local"})


def test_completion_is_offered_and_documented(helped: Callable[..., str]) -> None:
    offered = re.findall(r"^  (--\w+-completion)", helped(), re.MULTILINE)
    assert offered == ["--install-completion", "--show-completion"]
    page = (ROOT / "docs" / "commands.md").read_text("utf-8")
    assert [option for option in offered if f"`mydocs {option}`" not in page] == []
