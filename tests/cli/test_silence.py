"""Every command ends, whatever a server does that accepts connections and never answers."""

import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mydocs.localserver import LocalServer
from mydocs.localserver.controls import Recorded

SCRIPT = "async def up(db):\n    await db.things.insert_one({'a': 1})\n"

Program = Callable[..., Any]
Start = Callable[..., "subprocess.Popen[str]"]


def is_end_of_a_script(recorded: Recorded) -> bool:
    return (
        recorded.body.get("update") == "_migrations"
        and "'things'" not in str(recorded.body)
        and "applied" in str(recorded.body)
    )


@pytest.mark.seconds(180)
def test_the_time_limit_of_wait_holds_where_the_first_command_has_no_answer(
    program: Program, folder: Path, local_url: str, local_server: LocalServer
) -> None:
    (folder / "001_a.py").write_text(SCRIPT)
    local_server.controls.hang(times=None)
    ended = program("migrate", "wait", "--timeout", "1s", "--url", local_url, "--db", "x", "-o", "json")
    assert (ended.code, ended.json["error"]["type"]) == (3, "ServerUnreachable")
    assert "within 1 s" in ended.json["error"]["message"]  # the limit of one command, which is the next one, is 30 s


@pytest.mark.seconds(180)
def test_the_time_limit_of_wait_holds_where_nobody_listens(program: Program, folder: Path) -> None:
    (folder / "001_a.py").write_text(SCRIPT)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"mongodb://127.0.0.1:{free.getsockname()[1]}/"
    ended = program("migrate", "wait", "--timeout", "1s", "--url", url, "--db", "x", "-o", "json")
    assert (ended.code, ended.json["error"]["type"]) == (3, "ServerUnreachable")
    assert "within 1 s" in ended.json["error"]["message"]
    assert "refused" in ended.json["error"]["message"]


@pytest.mark.seconds(180)
def test_a_signal_ends_a_run_whose_record_has_no_answer(
    start: Start, folder: Path, local_url: str, local_server: LocalServer
) -> None:
    (folder / "001_a.py").write_text(SCRIPT)
    local_server.controls.hang(when=is_end_of_a_script)
    with start("migrate", "run", "--url", local_url, "--db", "x", "-o", "json") as process:
        local_server.controls.wait_for(is_end_of_a_script, 90)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate()
    assert process.returncode == 143
    assert "still at it" not in errors  # is said after 30 s, which is how long the answer would be waited for


COMMANDS = {
    "status": ("status",),
    "check": ("check",),
    "unlock": ("unlock",),
    "wait": ("wait",),
    "run": ("run",),
    "run that waits": ("run", "--wait", "--timeout", "5s", "--lock-timeout", "5s"),
    "mark": ("mark", "001", "--applied"),
    "rollback": ("rollback",),
}


@pytest.mark.heavy
@pytest.mark.seconds(130)
@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_a_command_whose_first_one_never_has_an_answer_ends_within_two_minutes(
    program: Program, folder: Path, local_url: str, local_server: LocalServer, command: tuple[str, ...]
) -> None:
    (folder / "001_a.py").write_text(SCRIPT)
    local_server.controls.hang(times=None)
    began = time.monotonic()
    ended = program("migrate", *command, "--url", local_url, "--db", "x", "-o", "json")
    assert time.monotonic() - began < 120
    assert (ended.code, ended.json["error"]["type"]) == (3, "ServerUnreachable")
    assert "has no answer" in ended.json["error"]["message"] or "could not be read" in ended.json["error"]["message"]


@pytest.mark.heavy
@pytest.mark.seconds(130)
@pytest.mark.parametrize("k", range(1, 9))
def test_a_run_on_a_server_that_falls_silent_ends_within_two_minutes(
    program: Program, folder: Path, local_url: str, local_server: LocalServer, k: int
) -> None:
    """The script's own command, the fourth or so, has no limit, but the lease that cannot be renewed has."""
    (folder / "001_a.py").write_text(SCRIPT)
    (folder / "002_b.py").write_text(SCRIPT)
    local_server.controls.hang(at=k, times=None)
    began = time.monotonic()
    ended = program("migrate", "run", "--url", local_url, "--db", "x", "-o", "json")
    assert time.monotonic() - began < 120
    assert ended.code == 3, ended.err
