"""Handle the files in a server's directory: private to its user, and never through a planted link. I/O."""

import fcntl
import json
import os
import tempfile
from pathlib import Path
from typing import IO, Any

from mydocs.localserver.errors import DirectoryInUse

PRIVATE = 0o600  # the data may be private, and the address is enough to connect


def make(directory: Path) -> None:
    """Create the directory, closed to other users. An existing one stays as it is."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    directory.mkdir(mode=0o700, exist_ok=True)


def opened(path: Path) -> IO[str]:
    """Open a file for locking, and create it if it is absent. Raise `OSError` for a link."""
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, PRIVATE), "r+")


def secured(path: Path) -> Path:
    """Create the database file, or close an earlier version's file to other users, before SQLite opens it."""
    with opened(path) as file:
        os.fchmod(file.fileno(), PRIVATE)
    return path


def take_lock(directory: Path) -> IO[str]:
    """
    Lock the directory for this process. The operating system releases the lock when the process ends, in any way.

    :raises DirectoryInUse: if another process has the lock
    """
    file = opened(directory / "server.lock")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise DirectoryInUse(directory) from error
    return file


def announce(directory: Path, address: dict[str, Any]) -> None:
    """Write down the server's address, without a password, for processes that find the directory locked."""
    # The file is new and its name cannot be guessed, so a planted link is never followed.
    number, draft = tempfile.mkstemp(prefix="server.json.", dir=directory)
    with os.fdopen(number, "w") as file:
        json.dump(address, file)
    Path(draft).replace(directory / "server.json")
