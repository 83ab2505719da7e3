"""What is wrong with a command line is said in one sentence, with exit code 2, in the format that was asked for."""

import json
import logging
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from mydocs.cli.errors import EXIT_CODES

COMMANDS = ["run", "list", "status", "wait", "check", "rollback", "new", "mark", "repair", "unlock"]
SERVER = "--url=mongodb://127.0.0.1:1/x"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        pytest.param(["migrate", "rn"], "Did you mean 'run'?", id="command mistyped"),
        pytest.param(["run"], "Did you mean 'mydocs migrate run'?", id="group forgotten"),
        pytest.param(["migrat", "run"], "Did you mean 'migrate'?", id="group mistyped"),
        pytest.param(
            ["migrate", "run", "--dir", "x" * 300, SERVER], "cannot be read", id="folder that cannot be looked for"
        ),
        pytest.param(["migrate", "new", "a", "--dir", "x" * 300], "cannot be read", id="folder that cannot be made"),
        pytest.param(["migrate", "run", "--wiat"], "--wait", id="option mistyped"),
        pytest.param(["migrate", "run", "--output", "yaml"], "'table', 'json', 'quiet'", id="unknown format"),
        pytest.param(["migrate", "run", "--url"], "requires an argument", id="value forgotten"),
        pytest.param(["migrate", "run", "extra"], "extra", id="argument too many"),
        pytest.param(["migrate", "run"], "set MONGO_URL or --url, or try on this machine with --local", id="no server"),
        pytest.param(["migrate", "run", "--local", SERVER], "--local and --url", id="two servers"),
        pytest.param(["migrate", "run", SERVER, "--timeout", "soon"], '--timeout: "soon"', id="no duration"),
        pytest.param(["migrate", "run", SERVER, "--timeout", "9s"], "give both", id="limit of no wait"),
        pytest.param(["migrate", "rollback", SERVER, "--timeout", "9s"], "give both", id="limit of no wait back"),
        pytest.param(["migrate", "run", "--url", "mongodb://h/x\n"], "--url ends with white space", id="line end"),
        pytest.param(["migrate", "run", "--url", "mongodb://h/admin"], "--db or MONGO_DB_NAME", id="admin"),
        pytest.param(["migrate", "run", SERVER, "--lock-timeout", "-1"], '--lock-timeout: "-1"', id="negative"),
        pytest.param(["migrate", "run", "--url", "mongodb://h:x/db"], "cannot be used", id="port"),
        pytest.param(
            ["migrate", "run", "--url", "mongodb://h/db?tsl=true"], "Unknown option", id="URL option mistyped"
        ),
        pytest.param(
            ["migrate", "run", "--url", "mongodb://h/db?maxPoolSize=x"], "maxpoolsize", id="URL option's value"
        ),
        pytest.param(
            ["migrate", "run", "--url", "mongodb+srv://127.0.0.1/db"], "cannot be used", id="SRV with an address"
        ),
        pytest.param(["migrate", "run", "--url", "mongodb+srv://a.b.c:1/db"], "port", id="SRV with port"),
        pytest.param(["migrate", "list"], "no directory migrations", id="no folder"),
        pytest.param(["migrate", "rollback", SERVER, "--steps", "2", "--to", "1"], "--steps and --to", id="both ends"),
        pytest.param(["migrate", "mark", "001", SERVER], "--applied or --pending", id="mark as what"),
        pytest.param(["migrate", "mark", "--applied", SERVER], "name the versions", id="mark which"),
        pytest.param(["migrate", "mark", "1", "--all", "--applied", SERVER], "not both", id="mark which of both"),
        pytest.param(["migrate", "new", "ÄÖÜ"], "makes no file name", id="no file name"),
    ],
)
def test_wrong_command_line_is_one_sentence_and_exit_2(
    cli: Callable[..., Result], arguments: list[str], sentence: str
) -> None:
    ended = cli(*arguments)
    assert ended.exit_code == 2, ended.stderr
    assert ended.stdout == ""
    assert ended.stderr.startswith("mydocs: error: ")
    assert ended.stderr.count("\n") == 1
    assert sentence in ended.stderr


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        pytest.param(["migrate", "rn", "--output", "json"], "UsageError", id="command"),
        pytest.param(["migrate", "run", "--output=json", "--nope"], "UsageError", id="option"),
        pytest.param(["migrate", "-o", "json", "run"], "SettingsInvalid", id="settings, asked for before the command"),
        pytest.param(["migrate", "list", "-o", "json"], "DirectoryMissing", id="folder"),
        pytest.param(["migrate", "--output", "json"], "UsageError", id="no command"),
    ],
)
def test_json_is_one_object_also_when_the_command_line_is_wrong(
    cli: Callable[..., Result], arguments: list[str], kind: str
) -> None:
    ended = cli(*arguments)
    document = json.loads(ended.stdout)
    assert set(document) == {"outcome", "database", "migrations", "indexes", "seconds", "error"}
    assert document["outcome"] == "failed"
    assert (document["error"]["type"], document["error"]["exit_code"]) == (kind, 2)
    assert ended.exit_code == 2


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_each_command_has_an_example(cli: Callable[..., Result], command: str) -> None:
    ended = cli("migrate", command, "--help")
    assert ended.exit_code == 0
    assert "Example" in ended.stdout
    assert f"mydocs migrate {command}" in ended.stdout
    assert "--output" in ended.stdout


def test_help_lists_every_command_and_exit_code(cli: Callable[..., Result]) -> None:
    text = " ".join(cli("migrate", "--help").stdout.split())
    assert [command for command in COMMANDS if f" {command} " not in text] == []
    assert [code for code in EXIT_CODES if f"{code} {EXIT_CODES[code]}" not in text] == []


@pytest.mark.parametrize("arguments", [[], ["migrate"]], ids=["program", "group"])
def test_nothing_asked_shows_help_on_stderr(cli: Callable[..., Result], arguments: list[str]) -> None:
    ended = cli(*arguments)
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert "Commands:" in ended.stderr


def test_version_is_the_packages(cli: Callable[..., Result]) -> None:
    from mydocs import __version__

    assert cli("--version").stdout == f"mydocs {__version__}\n"


def test_options_hold_before_and_after_the_command(cli: Callable[..., Result], folder: Path) -> None:
    other = folder.parent / "other"
    other.mkdir()
    (other / "007_other.py").write_text("async def up(db): ...\n")
    assert "007" in cli("migrate", "--dir", "other", "list").stdout
    assert "007" in cli("migrate", "list", "--dir", "other").stdout
    assert "007" not in cli("migrate", "--dir", "other", "list", "--dir", "migrations").stdout


def test_embedding_program_keeps_its_handlers(cli: Callable[..., Result]) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    handlers = list(logging.getLogger("mydocs").handlers)
    cli("migrate", "run", "--url", "mongodb://h:x/db")
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    assert logging.getLogger("mydocs").handlers == handlers


def test_quiet_says_nothing_but_the_error(cli: Callable[..., Result]) -> None:
    ended = cli("migrate", "list", "--output", "quiet")
    assert ended.stdout == ""
    assert "no directory" in ended.stderr


def test_log_lines_as_json(cli: Callable[..., Result]) -> None:
    ended = cli("migrate", "list", "--log-format", "json")
    line = json.loads(ended.stderr)
    assert (line["event"], line["type"], line["exit_code"]) == ("error", "DirectoryMissing", 2)


@pytest.mark.parametrize("word", ["apply", "upgrade", "undo", "reload"])
def test_no_command_is_suggested_that_is_not_near(cli: Callable[..., Result], word: str) -> None:
    ended = cli("migrate", word)
    assert ended.exit_code == 2
    assert f"No such command '{word}'; see `mydocs migrate --help`" in ended.stderr


def test_several_problems_have_a_line_each_on_a_screen_and_one_sentence_in_json(
    cli: Callable[..., Result], folder: Path
) -> None:
    (folder / "1_a.py").write_text("")
    (folder / "002_b.py").write_text("def f(:\n")
    ended = cli("migrate", "list")
    lines = ended.stderr.splitlines()
    assert lines[0] == "mydocs: error: these files cannot be migrations:"
    assert [line[:8] for line in lines[1:3]] == ["  002_b.", "  1_a.py"]
    assert lines[3].startswith("mydocs: next: ")
    message = json.loads(cli("migrate", "list", "-o", "json").stdout)["error"]["message"]
    assert message == "; ".join(line.strip() for line in lines[1:3])


def test_what_to_do_about_several_problems_stands_below_them(
    cli: Callable[..., Result], folder: Path, local_url: str
) -> None:
    for version in ("001", "002"):
        (folder / f"{version}_a.py").write_text("async def up(db): ...\n")
    ended = cli("migrate", "status", "--exit-code", "--indexes", "none", "--url", local_url, "--db", "x")
    assert ended.exit_code == 8
    assert ended.stderr.splitlines() == [
        "mydocs: error: work is left:",
        "  001 is pending",
        "  002 is pending",
        "mydocs: `mydocs migrate run --wait` runs what is pending, failed or interrupted",
    ]
