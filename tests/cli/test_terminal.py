"""On a terminal: the live view on stderr and nothing of it on stdout, without colours or Unicode where asked."""

import contextlib
import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import termios
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.live import Live
from typer.testing import Result

from mydocs.cli.connect import say
from mydocs.cli.live_view import LiveView
from mydocs.cli.streams import Streams
from mydocs.migrations.reporting.events import StepStarted

SEARCH = """
from pymongo.operations import SearchIndexModel
from mydocs.migrations import ensure_search_indexes
async def up(db):
    await ensure_search_indexes(db.documents, [SearchIndexModel({"mappings": {"dynamic": True}}, "ft")])
"""
pytestmark = pytest.mark.seconds(180)  # each starts a process or several

RENAMES = """
from mydocs.migrations import rename_field
async def up(db):
    await db.notes.insert_many([{"a": n} for n in range(50)])
    await rename_field(db.notes, "a", "b")
"""
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
CONTROLS_BUT_RETURN = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")

Start = Callable[..., "subprocess.Popen[str]"]


def on_terminal(
    start: Start,
    *arguments: str,
    columns: int = 100,
    both: bool = False,
    code: int = 0,
    environ: Mapping[str, str] | None = None,
) -> tuple[str, str]:
    """
    Run the program with a terminal as stderr; return stdout and what the terminal was sent.

    :param both: stdout is the terminal as well, as where a person types the command
    """
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    values = {"TERM": "xterm-256color", "COLUMNS": "", "NO_COLOR": "", **(environ or {})}
    out_too = {"stdout": theirs} if both else {}
    with start(*arguments, stderr=theirs, environ=values, **out_too) as process:
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # the end of a terminal
            while more := os.read(ours, 65536):
                shown += more
        os.close(ours)
        out, _ = process.communicate()
    assert process.returncode == code, shown
    return out or "", shown.decode()


def screen_after(sent: str) -> list[str]:
    """Return the lines that a terminal shows in the end: as far as the live view moves its cursor."""
    lines, row, column = [""], 0, 0
    for text, control in re.findall(r"([^\x1b\r\n]+)|(\x1b\[[0-9;?]*[A-Za-z]|\r|\n)", sent):
        if text:
            lines[row] = lines[row].ljust(column)[:column] + text + lines[row][column + len(text) :]
            column += len(text)
        elif control == "\r":
            column = 0
        elif control == "\n":
            row += 1
            lines += [""] * (row >= len(lines))
        elif control.endswith("A"):
            row -= int(control[2:-1] or 1)
        elif control.endswith("J"):
            lines[row] = lines[row][:column]
            del lines[row + 1 :]
        elif control.endswith("K"):
            lines[row] = "" if control[2:-1] == "2" else lines[row][:column]
        else:
            assert control[-1] in "mlh", f"a control that this screen does not know: {control!r}"
    return [line.rstrip() for line in lines]


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


def test_the_live_view_settles_into_the_table_on_the_same_screen(start: Start, run: tuple[str, ...]) -> None:
    _, sent = on_terminal(start, *run, both=True)
    shown = screen_after(sent)
    assert [line for line in shown if "documents.ft" in line] == [
        next(line for line in shown if re.match(r"documents\.ft +search +ready ", line))
    ]
    assert not any(line.startswith(("✓", "•")) for line in shown)
    assert "database x: standard indexes, 001" in shown
    assert re.match(r"001 +search +applied ", next(line for line in shown if line.startswith("001")))


def test_what_a_signal_says_takes_the_place_of_the_live_view(tmp_path: Path) -> None:
    path = tmp_path / "screen"
    with path.open("w") as file:
        streams = Streams([])
        streams.err = file
        view = LiveView(streams, unicode=True)
        console = Console(file=file, force_terminal=True, width=100, height=30, no_color=True)
        with Live(view, console=console, auto_refresh=False, transient=True) as live:
            for version in ("001", "002", "003"):
                view.take(StepStarted(version=version, name="a", script=f"{version}_a.py"))
            live.refresh()
            say(streams, "interrupted; ending in good order")
            live.refresh()
    sent = path.read_bytes().decode().replace("\n", "\r\n")  # as a terminal takes it
    assert [line for line in screen_after(sent) if line] == ["mydocs: interrupted; ending in good order"]


def test_a_second_signal_gives_the_terminal_its_cursor_back(start: Start, folder: Path, local_url: str) -> None:
    (folder / "001_slow.py").write_text(
        "import signal, threading\n"
        "signal.signal(signal.SIGINT, lambda *_: print('asked', flush=True))\n"
        "print('begun', flush=True)\n"
        "while True: threading.Event().wait(1)\n"
    )
    ours, theirs = pty.openpty()
    values = {"TERM": "xterm-256color", "NO_COLOR": ""}
    with start("migrate", "run", "--url", local_url, "--db", "x", stderr=theirs, environ=values) as process:
        os.close(theirs)
        shown = b""

        def until(text: bytes) -> None:
            nonlocal shown
            while text not in shown:
                shown += os.read(ours, 65536)

        until(b"begun")
        process.send_signal(signal.SIGINT)
        until(b"asked")
        threading.Event().wait(0.1)  # two signals within 0.05 s are one wish
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(OSError):  # the end of a terminal
            while more := os.read(ours, 65536):
                shown += more
        os.close(ours)
    assert process.returncode == 130
    assert re.findall(rb"\x1b\[\?25[hl]", shown)[-1] == b"\x1b[?25h"


def test_what_a_data_change_came_to_stays_above_the_table(start: Start, folder: Path, local_url: str) -> None:
    (folder / "001_data.py").write_text(RENAMES)
    _, sent = on_terminal(start, "migrate", "run", "--url", local_url, "--db", "x", both=True)
    shown = screen_after(sent)
    assert len([line for line in shown if "50 documents changed" in line]) == 1


@pytest.mark.parametrize(("columns", "encoding"), [(60, "utf-8"), (56, "ascii")])
def test_the_table_fits_a_narrow_screen_and_keeps_the_ends_of_names(
    start: Start, folder: Path, local_url: str, columns: int, encoding: str
) -> None:
    for version, end in (("001", "documents"), ("002", "pages")):
        (folder / f"{version}_a_long_name_that_begins_like_the_other_one_{end}.py").write_text("async def up(db): ...")
    server, environ = ("--url", local_url, "--db", "x"), {"PYTHONIOENCODING": encoding, "LC_ALL": "C.UTF-8"}
    for command in (("list",), ("run", *server), ("status", *server)):
        _, sent = on_terminal(start, "migrate", *command, both=True, columns=columns, environ=environ)
        rows = [line for line in screen_after(sent) if re.match(r"00[12] ", line)]
        assert len(rows) == 2
        assert max(map(len, rows)) <= columns
        assert re.fullmatch(r"001 +a_lon\w+[…~]\w*ts .*", rows[0])
        assert re.fullmatch(r"002 +a_lon\w+[…~]\w*es .*", rows[1])


def test_a_table_in_a_pipe_is_as_wide_as_it_needs_to_be(start: Start, folder: Path, local_url: str) -> None:
    name = "001_" + "long_" * 20 + "name"
    (folder / f"{name}.py").write_text("async def up(db): ...")
    out, _ = on_terminal(start, "migrate", "run", "--url", local_url, "--db", "x", columns=60)
    assert name.removeprefix("001_") in out


def test_a_failed_run_on_a_screen_shows_its_table_once(start: Start, folder: Path, local_url: str) -> None:
    (folder / "001_bad.py").write_text("async def up(db):\n    raise ValueError('no')\n")
    _, sent = on_terminal(start, "migrate", "run", "--url", local_url, "--db", "x", both=True, code=1)
    shown = screen_after(sent)
    assert len([line for line in shown if re.match(r"(✗ migration )?001 ", line)]) == 1
    said = [line for line in shown if line]
    assert said[-3].startswith("1 failed, ")
    assert said[-2] == "mydocs: error: 001_bad.py failed, line 2: ValueError: no"


def test_no_colour_where_none_is_wanted(start: Start, run: tuple[str, ...]) -> None:
    _, shown = on_terminal(start, *run, environ={"NO_COLOR": "1"})
    assert "✓ migration 001 search" in CONTROL.sub("", shown)
    assert re.findall(r"\x1b\[(?:3|4|9)\d[;m]", shown) == []


def test_no_character_that_the_terminal_does_not_have(start: Start, folder: Path, run: tuple[str, ...]) -> None:
    (folder / "002_data.py").write_text(RENAMES)
    out, shown = on_terminal(start, *run, environ={"PYTHONIOENCODING": "ascii", "LC_ALL": "C"})
    assert (out + shown).isascii()
    assert "\\u" not in out + shown, "an escape in its place"
    assert re.search(r" 100% \S*-{12}", COLOUR.sub("", shown)), "the bar"
    assert "+ migration 001 search" in CONTROL.sub("", shown)


@pytest.mark.parametrize(("columns", "environ"), [(40, {}), (200, {"COLUMNS": "40"})], ids=["terminal", "COLUMNS"])
def test_the_live_view_is_not_wider_than_the_screen(
    start: Start, run: tuple[str, ...], columns: int, environ: dict[str, str]
) -> None:
    _, shown = on_terminal(start, *run, columns=columns, environ=environ)
    drawn = [
        line for line in re.split(r"[\r\n]+", CONTROLS_BUT_RETURN.sub("", shown)) if line[:1] in set("✓⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏")
    ]
    assert max(map(len, drawn)) <= 40
    drawn = [line.rstrip() for line in drawn]
    assert re.fullmatch(
        r"✓ index do…search\)  +\d+\.\d+ s  ready", next(line for line in drawn if line.endswith("ready"))
    )


def test_a_terminal_without_abilities_gets_plain_lines(start: Start, run: tuple[str, ...]) -> None:
    _, shown = on_terminal(start, *run, environ={"TERM": "dumb"})
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
    said = r"still waiting after \d+\.\d\d s: the standard indexes are not created, 001 is pending\n"
    assert re.search(said, ended.stderr)


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
