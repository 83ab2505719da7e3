"""Start the process of a step, and end it when its time is up or the caller is cancelled. I/O."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import anyio
import anyio.to_thread

from mydocs.migrations.model import StoredError
from mydocs.migrations.values import value

GUARD = Path(__file__).parent / "guard"
ERRORS = "stderr"  # name of the file with the process's standard error
LEAVE_SECONDS = 5.0  # for the end of the process after its answer
_START = "from mydocs.preview.child import main; main()"


@value
class Copy:
    """The address of the copy, and how scripts see it."""

    url: str
    user: str
    password: str
    database: str
    motor: bool
    tz_aware: bool


async def run_step(copy: Copy, directory: Path, version: str, timeout: float | None) -> StoredError | None:
    """
    Run one script on the copy to its end.

    :param timeout: seconds; then the process and its children are killed
    :return: the error that it raised, or ``None`` if it reached its end
    """
    with tempfile.TemporaryDirectory(prefix="mydocs-plan-") as scratch:
        answer = Path(scratch) / "answer"
        job = {
            "url": copy.url,
            "database": copy.database,
            "motor": copy.motor,
            "tz_aware": copy.tz_aware,
            "directory": str(directory),
            "version": version,
            "path": [entry or str(Path.cwd()) for entry in sys.path],
            "answer": str(answer),
        }
        process = await anyio.to_thread.run_sync(_start, copy, job)
        try:
            ended = await anyio.to_thread.run_sync(partial(_wait, process, timeout, answer), abandon_on_cancel=True)
        finally:
            _kill(process)
        if not ended:
            return StoredError(type="Timeout", message=f"did not end within {timeout:g} s on the copy and was stopped")
        try:
            found: Mapping[str, Any] = json.loads(answer.read_text("utf-8"))
        except FileNotFoundError:
            last = _last_line(Path(scratch) / ERRORS)
            message = f"its process ended with status {process.returncode} before the script came to its end"
            return StoredError(type="ProcessEnded", message=f"{message}: {last}" if last else message)
    return StoredError(type=found["type"], message=found["message"]) if found else None


def _start(copy: Copy, job: Mapping[str, Any]) -> "subprocess.Popen[bytes]":
    job = {**job, "directory": str(Path(job["directory"]).absolute())}
    with (Path(job["answer"]).parent / ERRORS).open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-c", _START],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            env=_environment(copy),
            start_new_session=True,
        )
    assert process.stdin is not None  # it is a pipe
    with contextlib.suppress(BrokenPipeError), process.stdin as stream:
        stream.write(json.dumps(job).encode() + b"\n")
    return process


def _last_line(path: Path) -> str:
    lines = path.read_text("utf-8", "backslashreplace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "")[:500]


def _environment(copy: Copy) -> dict[str, str]:
    """Return the environment of a script: the copy in place of the database, and no credentials."""
    address = urlsplit(copy.url)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MONGO_", "MYDOCS_"))}
    # The project comes first, so that the process starts this mydocs, wherever it was imported from.
    paths = [str(GUARD), str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        **kept,
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONDONTWRITEBYTECODE": "1",
        "MYDOCS_PLAN_COPY": f"{address.hostname}:{address.port}",
        "MONGO_URL": f"mongodb://{address.hostname}:{address.port}/?directConnection=true",
        "MONGO_DB_NAME": copy.database,
        "MONGO_USER": copy.user,
        "MONGO_PASSWORD": copy.password,
    }


def _wait(process: "subprocess.Popen[bytes]", timeout: float | None, answer: Path) -> bool:
    try:
        process.wait(timeout)
    except subprocess.TimeoutExpired:
        return answer.exists()  # the script has ended, but a process that it started has not
    return True


def _kill(process: "subprocess.Popen[bytes]") -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(LEAVE_SECONDS)
