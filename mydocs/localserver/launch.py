"""Run a local server for one command, or join the one that has the directory; or run one in the foreground. I/O."""

import contextlib
import fcntl
import json
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import IO

from mydocs.localserver.directory import opened
from mydocs.localserver.errors import DirectoryInUse, ServerError
from mydocs.localserver.search import SearchSettings
from mydocs.localserver.server import HOST, LocalServer, url_of

PASSWORD_VARIABLE = "MYDOCS_LOCAL_PASSWORD"
JOIN_SECONDS = 10.0  # how long to look for the server's address if the directory is locked
LOOK_SECONDS = 0.05  # between two looks; a server needs about as long to start


class PasswordMissing(ServerError):
    """A user is given, but the environment has no password."""


@contextlib.contextmanager
def local_url(directory: Path, *, search: SearchSettings | None = None) -> Iterator[str]:
    """
    Yield the address of a server for the directory: a new one that ends with the block, or a running one.

    The first process runs the server. At the end of its block it waits for the processes that have joined: each of them
    holds `users.lock` shared, and the server is only stopped under the exclusive lock.

    :raises ServerError: if a server runs, but cannot be connected to
    """
    deadline = time.monotonic() + JOIN_SECONDS
    while True:
        server = LocalServer(directory, search=search)
        try:
            server.start()
        except DirectoryInUse:
            with contextlib.ExitStack() as joined:
                # Locked before the address is read: while the lock is held, the server with this address stays.
                joined.enter_context(_users_lock(directory, fcntl.LOCK_SH))
                url = _running_url(directory)
                if url is not None:
                    yield url
                    return
            if time.monotonic() > deadline:
                raise
            time.sleep(LOOK_SECONDS)
            continue
        try:
            yield server.url
            return
        finally:
            try:
                with _users_lock(directory, fcntl.LOCK_EX):
                    server.stop()
            finally:
                server.stop()  # at once, if the wait for the others was interrupted


def serve(
    directory: Path,
    port: int,
    user: str | None,
    announce: Callable[[str], object],
    *,
    search: SearchSettings | None = None,
) -> None:
    """
    Run a server until SIGINT or SIGTERM. Call it in the main thread.

    :param announce: receives each line for the person who started the server
    :raises ServerError: if it cannot start
    :raises PasswordMissing: if a user is given, but the environment has no password
    """
    password = os.environ.get(PASSWORD_VARIABLE) if user else None
    if user and not password:
        raise PasswordMissing(f"--user needs a password; set it in the environment variable {PASSWORD_VARIABLE}")
    # A pipe, not a threading.Event: a signal handler that interrupts `wait` in the same thread would deadlock.
    ended, ending = os.pipe()

    def end(number: int, frame: FrameType | None) -> None:
        os.write(ending, b".")

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with LocalServer(directory, port=port, user=user, password=password, search=search) as server:
            announce(
                "mydocs local server, not MongoDB: for development and tests; docs/local-server.md says what it does"
            )
            announce(url_of(server.port, user, None).replace(":@", ":<password>@"))
            announce(f"data in {directory.resolve()}; Ctrl-C ends it")
            os.read(ended, 1)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(ended)
        os.close(ending)


@contextlib.contextmanager
def _users_lock(directory: Path, kind: int) -> Iterator[IO[str]]:
    with opened(directory / "users.lock") as file:
        fcntl.flock(file, kind)
        yield file  # closing the file releases the lock, and so does the end of the process


def _running_url(directory: Path) -> str | None:
    """Return the address of the server that has the directory, or ``None`` while it starts or stops."""
    try:
        found = json.loads((directory / "server.json").read_text())
    except (FileNotFoundError, ValueError):
        return None
    port, user = int(found["port"]), found.get("user")
    try:
        # The address of a killed server names a port that is closed.
        socket.create_connection((HOST, port), timeout=JOIN_SECONDS).close()
    except OSError:
        return None
    password = os.environ.get(PASSWORD_VARIABLE) if user else None
    if user and not password:
        raise ServerError(
            f"the local server of {directory} wants a login; set the password of {user} in {PASSWORD_VARIABLE}"
        )
    return url_of(port, user, password)
