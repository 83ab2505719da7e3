"""The files in a server's directory: for its user alone, and never through a planted link. I/O."""

import fcntl
import json
import os
import tempfile
from pathlib import Path
from typing import IO, Any

from mydocs.localserver.errors import DirectoryInUse

PRIVATE = 0o600  # what is stored may be anything, and whoever can read the address can connect


def make(directory: Path) -> None:
    """Create the directory, closed to others; one that is there stays as it is."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    directory.mkdir(mode=0o700, exist_ok=True)


def opened(path: Path) -> IO[str]:
    """Open a file for locking, created if need be; raise `OSError` for a link."""
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, PRIVATE), "r+")


def secured(path: Path) -> Path:
    """Create the database file, or close one of an earlier version to others, before SQLite opens it."""
    with opened(path) as file:
        os.fchmod(file.fileno(), PRIVATE)
    return path


def take_lock(directory: Path) -> IO[str]:
    """
    Take the directory for this process; the operating system gives it back when the process ends, however it ends.

    :raises DirectoryInUse: somebody else has it
    """
    file = opened(directory / "server.lock")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise DirectoryInUse(directory) from error
    return file


def announce(directory: Path, address: dict[str, Any]) -> None:
    """Write down where the server is, for those who find the directory taken; never a password."""
    # A name that nobody can foresee, in a file that did not exist: a link that waits for it is never followed.
    number, draft = tempfile.mkstemp(prefix="server.json.", dir=directory)
    with os.fdopen(number, "w") as file:
        json.dump(address, file)
    Path(draft).replace(directory / "server.json")
