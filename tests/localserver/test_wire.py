"""Messages as bytes, and what the server makes of messages that drivers rarely send."""

import socket
import struct
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import bson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymongo import MongoClient

from mydocs.localserver import LocalServer
from mydocs.localserver.wire.messages import (
    CHECKSUM_PRESENT,
    CODEC,
    MORE_TO_COME,
    ProtocolError,
    Request,
    read_request,
    reply,
)

HELLO = {"hello": 1, "$db": "admin"}


def message(body: dict[str, Any], sequences: dict[str, list[dict[str, Any]]] | None = None, *, flags: int = 0) -> bytes:
    """Build an OP_MSG."""
    sections = b"\0" + bson.encode(body)
    for name, documents in (sequences or {}).items():
        content = name.encode() + b"\0" + b"".join(map(bson.encode, documents))
        sections += b"\1" + struct.pack("<i", len(content) + 4) + content
    checksum = b"\0\0\0\0" if flags & CHECKSUM_PRESENT else b""
    content = struct.pack("<I", flags) + sections + checksum
    return struct.pack("<iiii", len(content) + 16, 7, 0, 2013) + content


def query(body: dict[str, Any], namespace: str = "admin.$cmd") -> bytes:
    """Build an OP_QUERY, as drivers send it to a server that they do not know yet."""
    content = struct.pack("<i", 0) + namespace.encode() + b"\0" + struct.pack("<ii", 0, -1) + bson.encode(body)
    return struct.pack("<iiii", len(content) + 16, 7, 0, 2004) + content


def read(data: bytes) -> Request | None:
    here, there = socket.socketpair()

    def send() -> None:
        with here:
            here.sendall(data)

    with ThreadPoolExecutor(1) as pool, there:  # a socket does not take a large message before somebody reads
        pool.submit(send)
        return read_request(there)


@pytest.fixture
def connection(local_server: LocalServer) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", local_server.port), timeout=5) as opened:
        yield opened


def answer(connection: socket.socket) -> tuple[int, dict[str, Any]]:
    """Return the operation and the document of a reply; None at the end of the connection is an error."""
    head = connection.recv(16, socket.MSG_WAITALL)
    length, _, _, operation = struct.unpack("<iiii", head)
    content = connection.recv(length - 16, socket.MSG_WAITALL)
    return operation, bson.decode(content[20 if operation == 1 else 5 :], codec_options=CODEC)


@given(
    st.lists(st.dictionaries(st.text(max_size=3).filter(lambda name: "\0" not in name), st.integers(0, 9)), max_size=4)
)
def test_a_sequence_is_a_field_of_its_command(documents: list[dict[str, Any]]) -> None:
    request = read(message({"insert": "a", "$db": "d"}, {"documents": documents}))
    assert request is not None
    assert request.body == {"insert": "a", "$db": "d", "documents": documents}
    assert (request.name, request.database, request.legacy, request.answered) == ("insert", "d", False, True)


def test_memory_goes_with_what_has_come_and_not_with_what_was_announced() -> None:
    here, there = socket.socketpair()
    tracemalloc.start()
    try:
        with here, there:
            here.sendall(struct.pack("<iiii", 47_000_000, 1, 0, 2013) + b"few")
            here.shutdown(socket.SHUT_WR)
            assert read_request(there) is None
            assert tracemalloc.get_traced_memory()[1] < 4_000_000
    finally:
        tracemalloc.stop()


def test_a_message_that_is_nested_beyond_reason_ends_its_connection_only(connection: socket.socket) -> None:
    deep = b""
    for _ in range(3_000):
        deep = b"\x03a\0" + struct.pack("<i", len(deep) + 5) + deep + b"\0"
    body = struct.pack("<i", len(deep) + 5) + deep + b"\0"
    content = struct.pack("<IB", 0, 0) + body
    connection.sendall(struct.pack("<iiii", len(content) + 16, 7, 0, 2013) + content)
    connection.settimeout(5)
    assert connection.recv(16) == b""


def test_a_checksum_is_no_part_of_the_command() -> None:
    request = read(message(HELLO, flags=CHECKSUM_PRESENT))
    assert request is not None
    assert request.body == HELLO


def test_a_message_that_wants_no_reply_says_so() -> None:
    request = read(message(HELLO, flags=MORE_TO_COME))
    assert request is not None
    assert request.answered is False


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(struct.pack("<iiii", 2**30, 1, 0, 2013), id="too long"),
        pytest.param(struct.pack("<iiii", 16, 1, 0, 2013), id="empty"),
        pytest.param(struct.pack("<iiii", 20, 1, 0, 2012) + b"\0" * 4, id="other operation"),
        pytest.param(message(HELLO, flags=4), id="unknown required flag"),
        pytest.param(message(HELLO)[:16] + b"\0\0\0\0\2" + message(HELLO)[21:], id="unknown section"),
        pytest.param(message(HELLO)[:-2] + b"xx", id="broken document"),
        pytest.param(
            message(HELLO, {"documents": [{"a": "x" * 2**20}, {"a": 1}]})[:-2] + b"xx", id="broken among large ones"
        ),
    ],
)
def test_what_is_no_message_is_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        read(data)


def test_half_a_message_is_the_end_of_the_connection() -> None:
    assert read(message(HELLO)[:-5]) is None


@pytest.mark.parametrize("count", [pytest.param(1_000, id="large"), pytest.param(10_000, id="very large")])
def test_a_large_command_is_kept_on_record_as_bytes(count: int) -> None:
    body: dict[str, Any] = {
        "insert": "things",
        "documents": [{"_id": number, "a": "x" * 100} for number in range(count)],
        "$db": "d",
    }
    request = read(message(body))
    assert request is not None
    assert request.packed is not None
    assert dict(request.packed) == request.body == body
    apart = read(message({"insert": "things", "$db": "d"}, {"documents": body["documents"]}))
    assert apart is not None
    assert apart.packed is not None
    assert apart.packed["documents"] == body["documents"]  # as a list
    for _ in range(2):
        assert list(apart.body["documents"]) == body["documents"]
    assert (len(apart.body["documents"]), apart.body["documents"][-1]) == (count, body["documents"][-1])
    small = read(message(HELLO))
    assert small is not None
    assert small.packed is None


def test_a_large_command_on_record_is_decoded_only_when_it_is_read() -> None:
    with LocalServer() as server, MongoClient[dict[str, Any]](server.url) as client:
        client["d"]["things"].insert_many([{"_id": number, "a": "x" * 100} for number in range(1000)])
        (recorded,) = server.controls.counted()
        assert "_body" not in vars(recorded.body)
        assert recorded.body["insert"] == "things"


def test_a_reply_names_its_request() -> None:
    request = Request(77, HELLO, False, True)
    assert struct.unpack("<iiii", reply(request, {"ok": 1.0})[:16])[2:] == (77, 2013)


@pytest.mark.parametrize("name", ["isMaster", "ismaster"])
def test_a_driver_that_knows_nothing_yet_is_answered_in_the_old_way(connection: socket.socket, name: str) -> None:
    connection.sendall(query({name: 1, "helloOk": True}))
    operation, document = answer(connection)
    assert operation == 1
    assert (document["ismaster"], document["helloOk"], document["setName"]) == (True, True, "local")
    assert document["hosts"] == [document["me"]] == [document["primary"]]


def test_a_hello_invites_to_no_stream_and_says_what_the_server_is(connection: socket.socket) -> None:
    connection.sendall(message(HELLO))
    _, document = answer(connection)
    assert "topologyVersion" not in document
    assert (document["isWritablePrimary"], document["maxWireVersion"], document["ok"]) == (True, 21, 1.0)
    connection.sendall(message({"buildInfo": 1, "$db": "admin"}))
    assert "not MongoDB" in answer(connection)[1]["gitVersion"]


@pytest.mark.parametrize(
    ("command", "code", "text"),
    [
        pytest.param({"explain": {"find": "a"}}, 238, "the command 'explain'", id="known elsewhere"),
        pytest.param({"bulkWrite": 1}, 238, "bulkWrite", id="newer than what is played"),
        pytest.param({"find": "a", "collation": {"locale": "de"}}, 238, "collations", id="collation"),
        pytest.param({"find": "a", "collation": {"locale": "simple"}}, None, "", id="simple collation"),
        pytest.param({"find": "a", "tailable": True}, 238, "'tailable'", id="option of find"),
        pytest.param({"create": "a", "clusteredIndex": True}, 238, "'clusteredIndex'", id="option of create"),
        pytest.param({"find": "a", "readConcern": {"level": "snapshot"}}, 238, "snapshot", id="snapshot read"),
        pytest.param({"find": "a", "filter": {"$text": {"$search": "b"}}}, 238, "$text", id="text search"),
        pytest.param({"find": "a", "filter": {"a": {"$near": [1, 2]}}}, 238, "$near", id="search by place"),
        pytest.param(
            {"aggregate": "a", "pipeline": [{"$search": {}}], "cursor": {}}, 238, "do not search", id="search"
        ),
        pytest.param({"count": "a", "apiVersion": "1", "apiStrict": True}, None, "", id="stable"),
        pytest.param({"distinct": "a", "key": "b", "apiVersion": "1", "apiStrict": True}, 323, "", id="not stable"),
    ],
)
def test_what_is_not_known_here_is_refused_by_name(
    connection: socket.socket, command: dict[str, Any], code: int | None, text: str
) -> None:
    connection.sendall(message({**command, "$db": "d"}))
    _, document = answer(connection)
    assert document.get("code") == code
    assert text in document.get("errmsg", "")


def test_a_statement_that_is_sent_again_is_answered_and_not_done_again(connection: socket.socket) -> None:
    session = {"id": bson.Binary(b"s" * 16, 4)}

    def increment(number: int, **more: Any) -> dict[str, Any]:
        change = [{"q": {"_id": 1}, "u": {"$inc": {"n": 1}}, "upsert": True}]
        body = {"update": "a", "$db": "d", "lsid": session, "txnNumber": bson.Int64(number), "updates": change, **more}
        connection.sendall(message(body))
        return answer(connection)[1]

    first = increment(5)
    assert increment(5) == first
    assert increment(5, stmtIds=[1])["nModified"] == 1
    assert increment(6)["nModified"] == 1
    assert increment(5)["code"] == 225
    connection.sendall(message({"find": "a", "$db": "d"}))
    assert answer(connection)[1]["cursor"]["firstBatch"] == [{"_id": 1, "n": 3}]
