"""
What the run, the host of its plain scripts and a script's own process say to each other, and how it is sent. I/O.

Both ends are this program, and the pipes are private, so values travel as pickles: four bytes of length, then these.
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
    Run → host, first of all: where the scripts' database is.

    :param arguments: of a PyMongo client, pickled by themselves, so that what cannot be read there is said in words
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

    :param deadline: by :func:`mydocs.migrations.ledger.lease.clock`; later than this it must not run
    :param server_time: the server's clock at the moment ``at``, by the same clock as ``deadline``
    :param run: what the run signs with
    :param max_building: how many search indexes may be building when a helper submits one more
    :param max_lag: seconds that secondaries may lag behind while a data change writes
    :param tracked: what the ledger says of indexes
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
    """Run → host: the script may run until then."""

    deadline: float


@value
class Signal:
    """Run → host: send it to the script and its children."""

    number: int


@value
class Exited:
    """Host → run: the script's process has ended, with a status as :mod:`subprocess` has it."""

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
    """Script → run: what a helper says that an index is to be, or what an alias names."""

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
    """Run → script: it is stored, or why not."""

    job: int
    number: int
    problem: str | None = None


@value
class Failed:
    """
    Script → run: it raised.

    :param named: whether the error's type tells something; that of an exit does not
    :param exit_code: what a command ends with because of it
    :param advice: what to do about it, as the end of a sentence
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
    """Script → run: it came to its end, and so did its threads and what it registered with atexit."""


def send(connection: socket.socket, value: object) -> None:
    """
    Send a value; blocks until it is taken.

    :raises OSError: where nobody is at the other end
    """
    connection.sendall(framed(value))


def framed(value: object) -> bytes:
    """Return the bytes of a value as they travel."""
    data = pickle.dumps(value)
    return _LENGTH.pack(len(data)) + data


def receive(connection: socket.socket) -> Any:
    """
    Wait for a value.

    :raises EOFError: where the other end is gone
    """
    (length,) = _LENGTH.unpack(_exactly(connection, _LENGTH.size))
    return pickle.loads(_exactly(connection, length))


class Incoming:
    """Frames out of the pieces in which they arrive."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the pickles that are complete."""
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
        """Forget the beginning of a frame whose end will never come."""
        self._data.clear()


def _exactly(connection: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        piece = connection.recv(min(size - len(data), 1 << 20))
        if not piece:
            raise EOFError("the other end is gone")
        data += piece
    return bytes(data)
