"""
Define the messages between the run, the host of its plain scripts and a script's process, and send them. I/O.

Both ends are this program, and the pipes are private. So values travel as pickles: four bytes of length, then the
pickle.
"""

import pickle
import socket
import struct
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from mydocs.migrations.model import RunStamp, SearchAlias, TrackedIndex
from mydocs.migrations.reporting.events import Event
from mydocs.migrations.values import value

_LENGTH = struct.Struct("!I")


@value
class Settings:
    """
    Run → host, the first message: the address of the scripts' database.

    :param arguments: of a PyMongo client, pickled separately, so that an error there gets a message of its own
    """

    arguments: bytes
    database: str


@value
class Ready:
    """Host → run: everything is imported."""

    problem: str | None = None


@value
class Job:
    """
    Run → host: run a script.

    :param deadline: by :func:`mydocs.migrations.ledger.lease.clock`; the script must not run longer
    :param server_time: the server's clock at the moment ``at``, by the same clock as ``deadline``
    :param run: the stamp of the run's writes
    :param max_building: how many search indexes may build at the same time
    :param max_lag: seconds that secondaries may lag behind while a data change writes
    :param tracked: the ledger's indexes
    :param places: how far the helpers came in an earlier attempt
    """

    number: int
    path: str
    source: str
    deadline: float
    server_time: datetime
    at: float
    run: RunStamp | None
    max_building: int | None = None
    max_lag: float | None = None
    tracked: tuple[TrackedIndex, ...] = ()
    places: Mapping[str, Any] | None = None


@value
class Extend:
    """Run → host: the script may run until this moment."""

    deadline: float


@value
class Signal:
    """Run → host: send this signal to the script and its children."""

    number: int


@value
class Exited:
    """Host → run: the script's process has ended, with a status as in :mod:`subprocess`."""

    number: int
    status: int


@value
class Seen:
    """Script → run: a command that concerns search indexes, and the reply."""

    name: str
    body: Mapping[str, Any]
    reply: Mapping[str, Any]


@value
class Noted:
    """Script → run: a helper's record of an index or an alias."""

    what: TrackedIndex | SearchAlias


@value
class Said:
    """Script → run: an event of a helper."""

    event: Event


@value
class Keep:
    """Script → run: store how far a helper has come, and answer with :class:`Kept`."""

    number: int
    key: str
    place: Mapping[str, Any]


@value
class Kept:
    """Run → script: it is stored, or the reason why not."""

    job: int
    number: int
    problem: str | None = None


@value
class Failed:
    """
    Script → run: the script raised.

    :param named: whether the message contains the error's type; for an exit it does not
    :param exit_code: the exit code of the command
    :param advice: what to do next, as the end of the message
    """

    kind: str
    text: str
    line: int | None
    named: bool
    exit_code: int
    advice: str
    traceback: str


@value
class Over:
    """Script → run: the script, its threads and its atexit functions have ended."""


def send(connection: socket.socket, value: object) -> None:
    """
    Send a value. Block until it is sent.

    :raises OSError: if the other end is closed
    """
    connection.sendall(framed(value))


def framed(value: object) -> bytes:
    """Return the bytes that are sent for a value."""
    data = pickle.dumps(value)
    return _LENGTH.pack(len(data)) + data


def receive(connection: socket.socket) -> Any:
    """
    Wait for a value.

    :raises EOFError: if the other end is closed
    """
    (length,) = _LENGTH.unpack(_exactly(connection, _LENGTH.size))
    return pickle.loads(_exactly(connection, length))


class Incoming:
    """Join arriving pieces to frames."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the complete pickles."""
        self._data += data
        while len(self._data) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._data)
            end = _LENGTH.size + length
            if len(self._data) < end:
                return
            frame = bytes(self._data[_LENGTH.size : end])
            del self._data[:end]
            yield frame

    def clear(self) -> None:
        """Discard an incomplete frame."""
        self._data.clear()


def _exactly(connection: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        piece = connection.recv(min(size - len(data), 1 << 20))
        if not piece:
            raise EOFError("the other end is gone")
        data += piece
    return bytes(data)
