"""Convert bytes on a socket to commands, and replies to bytes. I/O on one socket; knows no command."""

import itertools
import socket
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, overload

import bson
from bson.binary import UuidRepresentation
from bson.codec_options import CodecOptions, DatetimeConversion

from mydocs.localserver.errors import CommandError

MAX_DOCUMENT = 16 * 1024 * 1024  # bytes of one stored document; `maxBsonObjectSize` of every MongoDB server
MAX_MESSAGE = 48_000_000  # bytes; `maxMessageSizeBytes` of every MongoDB server
MAX_BATCH = 100_000  # statements in one write command; `maxWriteBatchSize`

# Binary stays Binary whatever its subtype, and dates beyond Python's years stay numbers, so that values do not change.
CODEC: CodecOptions[dict[str, Any]] = CodecOptions(
    document_class=dict,
    tz_aware=True,
    uuid_representation=UuidRepresentation.UNSPECIFIED,
    datetime_conversion=DatetimeConversion.DATETIME_AUTO,
)

OP_REPLY = 1
OP_QUERY = 2004
OP_MSG = 2013

LARGE = 8 * 1024  # bytes of a message that is kept on record as it came
MANY = 1024 * 1024  # bytes of documents that are not all decoded at the same time
AT_ONCE = 64  # documents of those that are decoded at a time
CHUNK = 1024 * 1024  # bytes of one read from a socket

CHECKSUM_PRESENT = 1 << 0
MORE_TO_COME = 1 << 1
# The reader must know bits 0 to 15. Bit 16 allows a stream of replies.
UNKNOWN_REQUIRED_BITS = 0xFFFF & ~(CHECKSUM_PRESENT | MORE_TO_COME)
AWAIT_CAPABLE = 8  # the only flag that a legacy reply must have

HEADER = struct.Struct("<iiii")
_numbers = itertools.count(1)


class ProtocolError(Exception):
    """The client sent something that is not a message. The connection cannot continue."""


class Documents(Sequence[dict[str, Any]]):
    """
    The documents of a very large command, decoded a few at a time, each time that they are iterated.

    Tens of thousands of statements that exist at the same time would keep the garbage collector busy. For a thousand of
    them, that takes less time than to decode them for each iteration.
    """

    def __init__(self, data: bytes) -> None:
        """
        Check that these are documents.

        :raises BSONError: if they are not
        """
        self._data = data
        self._starts = [0]
        while (start := self._starts[-1]) < len(data):
            (size,) = struct.unpack_from("<i", data, start)
            if size < 5:
                raise bson.errors.InvalidBSON(f"a document of {size} bytes")
            self._starts.append(start + size)
        for _ in self:
            pass

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for first in range(0, len(self), AT_ONCE):
            start, end = self._starts[first], self._starts[min(first + AT_ONCE, len(self))]
            yield from bson.decode_all(self._data[start:end], codec_options=CODEC)

    @overload
    def __getitem__(self, at: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, at: slice) -> list[dict[str, Any]]: ...
    def __getitem__(self, at: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        return list(self)[at]


class Packed(Mapping[str, Any]):
    """
    The body of a large command, decoded when it is read.

    As bytes it takes a fraction of the memory, and the garbage collector skips it: thousands of recorded statements
    made every command half as slow again.
    """

    def __init__(self, data: bytes | bytearray) -> None:
        self._data = data

    @cached_property
    def _body(self) -> dict[str, Any]:
        body = _message(0, memoryview(self._data)).body
        return {name: list(value) if isinstance(value, Documents) else value for name, value in body.items()}

    def __getitem__(self, name: str) -> Any:
        return self._body[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._body)

    def __len__(self) -> int:
        return len(self._body)


@dataclass(frozen=True, slots=True)
class Request:
    """
    One command as it arrived.

    :param answered: ``False`` for writes that want no reply (w: 0)
    :param packed: the body for the record, if it differs
    """

    number: int
    body: dict[str, Any]
    legacy: bool
    answered: bool
    packed: Packed | None = None

    @property
    def name(self) -> str:
        return next(iter(self.body), "")

    @property
    def database(self) -> str:
        return str(self.body.get("$db", ""))


def encode(document: Mapping[str, Any]) -> bytes:
    """Encode a document. Refuse one that BSON cannot hold, as a server does."""
    try:
        return bson.encode(document, codec_options=CODEC)
    except (bson.errors.InvalidDocument, bson.errors.InvalidBSON, OverflowError) as error:
        raise CommandError(2, f"a document cannot be encoded: {error}") from error


def decode(data: bytes | memoryview) -> dict[str, Any]:
    return bson.decode(data, codec_options=CODEC)


def decode_all(data: list[bytes]) -> list[dict[str, Any]]:
    """Decode documents, in a fraction of the time that it takes one by one."""
    return bson.decode_all(b"".join(data), codec_options=CODEC) if data else []


def read_request(connection: socket.socket) -> Request | None:
    """Return the next command, or ``None`` if the client has closed the connection."""
    head = _read(connection, HEADER.size)
    if head is None:
        return None
    length, number, _, operation = HEADER.unpack(head)
    if not HEADER.size < length <= MAX_MESSAGE:
        raise ProtocolError(f"a message of {length} bytes; allowed are {MAX_MESSAGE}")
    data = _read(connection, length - HEADER.size)
    if data is None:
        return None
    try:
        if operation == OP_MSG:
            request = _message(number, memoryview(data))
            return request if len(data) < LARGE else replace(request, packed=Packed(data))
        if operation == OP_QUERY:
            return _query(number, memoryview(data))
    except (bson.errors.BSONError, struct.error, ValueError, IndexError, RecursionError) as error:
        raise ProtocolError(f"a message that cannot be read: {error}") from error
    raise ProtocolError(f"operation {operation}; only OP_MSG, and OP_QUERY for the first hello, are spoken here")


def reply(request: Request, body: Mapping[str, Any]) -> bytes:
    """Return the message that answers a request."""
    document = encode(body)
    if request.legacy:
        content = struct.pack("<iqii", AWAIT_CAPABLE, 0, 0, 1) + document
        operation = OP_REPLY
    else:
        content = struct.pack("<IB", 0, 0) + document
        operation = OP_MSG
    number = next(_numbers) & 0x7FFFFFFF
    return HEADER.pack(HEADER.size + len(content), number, request.number, operation) + content


def _read(connection: socket.socket, size: int) -> bytearray | None:
    # Grows with the bytes that arrive, not with the announced length: sixteen bytes can claim 48 MB.
    data = bytearray()
    while len(data) < size:
        part = connection.recv(min(size - len(data), CHUNK))
        if not part:
            return None
        data += part
    return data


def _message(number: int, data: memoryview) -> Request:
    (flags,) = struct.unpack_from("<I", data)
    if flags & UNKNOWN_REQUIRED_BITS:
        raise ProtocolError(f"flag bits {flags:#x} of OP_MSG are not known")
    # The checksum is skipped: the loopback interface does not damage data.
    end = len(data) - (4 if flags & CHECKSUM_PRESENT else 0)
    body: dict[str, Any] | None = None
    sequences: dict[str, Sequence[dict[str, Any]]] = {}
    at = 4
    while at < end:
        kind = data[at]
        (size,) = struct.unpack_from("<i", data, at + 1)
        stop = at + 1 + size
        if size < 5 or stop > end:
            raise ProtocolError("a section that reaches beyond its message")
        if kind == 0 and body is None:
            body = decode(data[at + 1 : stop])
        elif kind == 1:
            name, documents = _sequence(data[at + 5 : stop])
            sequences[name] = documents
        else:
            raise ProtocolError(f"a section of kind {kind}")
        at = stop
    if body is None:
        raise ProtocolError("a message without a body")
    return Request(number, {**body, **sequences}, False, not flags & MORE_TO_COME)


def _sequence(data: memoryview) -> tuple[str, Sequence[dict[str, Any]]]:
    raw = bytes(data)
    name, _, rest = raw.partition(b"\0")
    return name.decode(), Documents(rest) if len(rest) >= MANY else bson.decode_all(rest, codec_options=CODEC)


def _query(number: int, data: memoryview) -> Request:
    raw = bytes(data)
    namespace, _, rest = raw[4:].partition(b"\0")
    body = decode(rest[8:])
    body = body.get("$query", body)
    return Request(number, {**body, "$db": namespace.decode().split(".", 1)[0]}, True, True)
