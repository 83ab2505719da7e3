"""On a terminal: the live view on stderr and nothing of it on stdout, without colours or Unicode where asked."""

import contextlib
import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import termios
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

SEARCH = """
from pymongo.operations import SearchIndexModel
from mydocs.migrations import ensure_search_indexes
async def up(db):
    await ensure_search_indexes(db.documents, [SearchIndexModel({"mappings": {"dynamic": True}}, "ft")])
"""
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
CONTROLS_BUT_RETURN = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")

Start = Callable[..., "subprocess.Popen[str]"]


def on_terminal(start: Start, *arguments: str, columns: int = 100, **environ: str) -> tuple[str, str]:
    """Run the program with a terminal as stderr; return stdout and what the terminal was sent."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    values = {"TERM": "xterm-256color", "COLUMNS": "", "NO_COLOR": "", **environ}
    with start(*arguments, stderr=theirs, environ=values) as process:
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # the end of a terminal
            while more := os.read(ours, 65536):
                shown += more
        os.close(ours)
        out, _ = process.communicate()
    assert process.returncode == 0, shown
    return out, shown.decode()


@pytest.fixture
def run(folder: Path, local_url: str) -> tuple[str, ...]:
    (folder / "001_search.py").write_text(SEARCH)
    return ("migrate", "run", "--wait", "--url", local_url, "--db", "x")


def test_the_live_view_is_on_stderr_and_the_result_alone_on_stdout(start: Start, run: tuple[str, ...]) -> None:
    out, shown = on_terminal(start, *run, "-o", "json")
    assert json.loads(out)["outcome"] == "ok"
    last = CONTROL.sub("", shown).splitlines()
    assert any(line.startswith("✓ migration 001 search") for line in last)
    assert any(re.match(r"✓ index documents\.ft \(search\) .* ready$", line.rstrip()) for line in last)
    assert COLOUR.search(shown)


def test_no_colour_where_none_is_wanted(start: Start, run: tuple[str, ...]) -> None:
    _, shown = on_terminal(start, *run, NO_COLOR="1")
    assert "✓ migration 001 search" in CONTROL.sub("", shown)
    assert re.findall(r"\x1b\[(?:3|4|9)\d[;m]", shown) == []


def test_no_character_that_the_terminal_does_not_have(start: Start, run: tuple[str, ...]) -> None:
    out, shown = on_terminal(start, *run, PYTHONIOENCODING="ascii", LC_ALL="C")
    assert (out + shown).isascii()
    assert "+ migration 001 search" in CONTROL.sub("", shown)


@pytest.mark.parametrize(("columns", "environ"), [(40, {}), (200, {"COLUMNS": "40"})], ids=["terminal", "COLUMNS"])
def test_the_live_view_is_not_wider_than_the_screen(
    start: Start, run: tuple[str, ...], columns: int, environ: dict[str, str]
) -> None:
    _, shown = on_terminal(start, *run, columns=columns, **environ)
    drawn = [
        line for line in re.split(r"[\r\n]+", CONTROLS_BUT_RETURN.sub("", shown)) if line[:1] in set("✓⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏")
    ]
    assert max(map(len, drawn)) <= 40
    assert re.fullmatch(
        r"✓ index do…search\)  +\d\.\d\d s  ready", next(line for line in drawn if line.endswith("ready"))
    )


def test_a_terminal_without_abilities_gets_plain_lines(start: Start, run: tuple[str, ...]) -> None:
    _, shown = on_terminal(start, *run, TERM="dumb")
    assert "\x1b" not in shown
    assert "migration 001 search: applied in" in shown


@pytest.mark.parametrize("columns", ["60", "200"])
def test_help_is_as_wide_as_the_screen(start: Start, columns: str) -> None:
    with start("migrate", "run", "--help", environ={"COLUMNS": columns, "TERMINAL_WIDTH": columns}) as process:
        out, _ = process.communicate()
    assert max(map(len, out.splitlines())) <= int(columns)


def test_a_version_that_is_nearly_right_is_suggested(cli: Callable[..., Result], folder: Path, local_url: str) -> None:
    for number in ("001", "002", "010"):
        (folder / f"{number}_a.py").write_text("async def up(db): ...\n")
    ended = cli("migrate", "run", "--to", "0100", "--url", local_url, "--db", "x")
    assert ended.exit_code == 2
    assert "no migration 0100; did you mean 010?" in ended.stderr
    assert "next: `mydocs migrate list`" in ended.stderr


def test_wait_says_what_it_waits_for(cli: Callable[..., Result], folder: Path, local_url: str) -> None:
    (folder / "001_a.py").write_text("async def up(db): ...\n")
    ended = cli("migrate", "wait", "--timeout", "50ms", "--url", local_url, "--db", "x")
    assert "still waiting after 0.0" in ended.stderr
    assert ": the standard indexes are not created, 001 is pending\n" in ended.stderr


def test_build_time_of_the_local_server_is_that_of_the_option(
    monkeypatch: pytest.MonkeyPatch, cli: Callable[..., Result]
) -> None:
    from mydocs.localserver import launch

    given: list[Any] = []
    monkeypatch.setattr(launch, "serve", lambda *args, search: given.append(search and search.build_seconds))
    assert cli("local", "serve", "--build-time", "1m30s").exit_code == 0
    assert cli("local", "serve").exit_code == 0
    assert given == [90.0, None]
    assert cli("local", "serve", "--build-time", "long").exit_code == 2
