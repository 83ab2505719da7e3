"""A server as a process and as an object: starting, stopping, logging in, surviving, sharing a directory."""

import errno
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bson
import pytest
from motor.motor_asyncio import AsyncIOMotorClient
from pymongo import MongoClient
from pymongo.errors import AutoReconnect, CursorNotFound, NetworkTimeout, OperationFailure

from mydocs.localserver import DirectoryInUse, LocalServer, ManualClock, ServerError
from mydocs.localserver.controls import CommandOutcome, Recorded
from mydocs.localserver.launch import PASSWORD_VARIABLE, local_url

Mongo = MongoClient[dict[str, Any]]

SERVE = "import sys; from pathlib import Path; from mydocs.localserver.launch import serve; "


def message(body: dict[str, Any]) -> bytes:
    """Put a command into the form of the wire."""
    content = struct.pack("<IB", 0, 0) + bson.encode(body)
    return struct.pack("<iiii", 16 + len(content), 1, 0, 2013) + content


def connect(url: str) -> Mongo:
    return MongoClient(url, serverSelectionTimeoutMS=5_000)


def start(code: str, *arguments: str, **environment: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
    )


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """A server in a process of its own, and its address."""
    code = SERVE + "serve(Path(sys.argv[1]), 0, None, lambda line: print(line, flush=True))"
    with start(code, str(tmp_path)) as process:
        lines = [process.stdout.readline().strip() for _ in range(3)] if process.stdout else []
        assert "not MongoDB" in lines[0]
        yield process, lines[1]
        process.kill()


def test_an_acknowledged_write_survives_sigkill(served: tuple["subprocess.Popen[str]", str], tmp_path: Path) -> None:
    process, url = served
    acknowledged: list[int] = []
    with MongoClient[dict[str, Any]](url, serverSelectionTimeoutMS=500) as client:
        client.d.a.create_index("n", unique=True)

        def write() -> None:
            try:
                for number in range(1_000_000):
                    client.d.a.insert_one({"_id": number, "n": -number})
                    acknowledged.append(number)
                    if number == 200:
                        enough.set()
            except AutoReconnect:
                pass

        enough = threading.Event()
        writer = threading.Thread(target=write)
        writer.start()
        assert enough.wait(10)
        os.kill(process.pid, signal.SIGKILL)
        writer.join(10)
    with LocalServer(tmp_path) as server, connect(server.url) as client:
        stored = [document["_id"] for document in client.d.a.find().sort("_id")]
        # One more may be there: written, and killed before the answer.
        assert acknowledged == stored[: len(acknowledged)]
        assert len(stored) - len(acknowledged) in (0, 1)
        assert client.d.a.index_information()["n_1"]["unique"] is True
        with pytest.raises(OperationFailure):
            client.d.a.insert_one({"n": -5})


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_served_directory_ends_with_a_signal(served: tuple["subprocess.Popen[str]", str], number: int) -> None:
    process, url = served
    with connect(url) as client:
        client.d.a.insert_one({})
        process.send_signal(number)
        assert process.wait(10) == 0


def test_a_directory_has_one_server(tmp_path: Path) -> None:
    with LocalServer(tmp_path):
        with pytest.raises(DirectoryInUse, match="another local server uses"):
            LocalServer(tmp_path).start()
        assert json.loads((tmp_path / "server.json").read_text())["pid"] == os.getpid()
    assert not (tmp_path / "server.json").exists()
    with LocalServer(tmp_path):
        pass


def test_search_indexes_survive_a_restart(tmp_path: Path) -> None:
    clock = ManualClock()
    definition = {"mappings": {"dynamic": True}}
    with LocalServer(tmp_path, clock=clock) as server, connect(server.url) as client:
        client.d.create_collection("a")
        client.d.a.create_search_index({"name": "s", "definition": definition})
        assert next(client.d.a.list_search_indexes())["status"] != "READY"
    clock.advance(600)
    with LocalServer(tmp_path, clock=clock) as server, connect(server.url) as client:
        assert [index["status"] for index in client.d.a.list_search_indexes()] == ["READY"]
        client.d.a.drop()
        client.d.create_collection("a")
        assert list(client.d.a.list_search_indexes()) == []


def test_a_taken_port_is_one_clear_sentence() -> None:
    with LocalServer() as server, pytest.raises(ServerError, match=rf"port {server.port} of 127\.0\.0\.1 is taken"):
        LocalServer(port=server.port).start()


def test_only_its_user_can_read_what_is_stored(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with LocalServer(tmp_path / "deep" / ".mydocs") as server, connect(server.url) as client:
            client.d.a.insert_one({})
            directory = tmp_path / "deep" / ".mydocs"
            modes = {path.name: path.stat().st_mode & 0o777 for path in directory.iterdir()}
            assert directory.stat().st_mode & 0o777 == 0o700
    finally:
        os.umask(before)
    assert {"data.sqlite3", "data.sqlite3-wal", "server.json", "server.lock"} <= modes.keys()
    assert set(modes.values()) == {0o600}


def test_data_of_an_earlier_version_are_closed_to_others(tmp_path: Path) -> None:
    with LocalServer(tmp_path):
        pass
    (tmp_path / "data.sqlite3").chmod(0o644)
    with LocalServer(tmp_path):
        assert (tmp_path / "data.sqlite3").stat().st_mode & 0o777 == 0o600


def test_links_that_somebody_has_planted_are_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.write_text("precious")
    served = tmp_path / "served"
    served.mkdir()
    (served / f"server.json.{os.getpid()}").symlink_to(target)
    (served / "server.json").symlink_to(target)
    with LocalServer(served):
        assert json.loads((served / "server.json").read_text())["pid"] == os.getpid()
    for name in ("data.sqlite3", "server.lock"):
        (served / name).unlink()
        (served / name).symlink_to(tmp_path / "new")
        with pytest.raises(ServerError, match="choose another directory"):
            LocalServer(served).start()
        (served / name).unlink()
    assert target.read_text() == "precious"
    assert not (tmp_path / "new").exists()


def test_a_server_that_had_no_room_for_a_connection_accepts_again(
    local_server: LocalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    accept, failed = socket.socket.accept, threading.Event()

    def full(listener: socket.socket) -> Any:
        if not failed.is_set():
            failed.set()
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return accept(listener)

    with connect(local_server.url) as first:
        monkeypatch.setattr(socket.socket, "accept", full)
        assert first.admin.command("ping")["ok"] == 1
        with connect(local_server.url) as other:  # the accept that was under way takes this one, and the next one fails
            assert other.admin.command("ping")["ok"] == 1
            assert failed.wait(5)
            with connect(local_server.url) as third:
                assert third.admin.command("ping")["ok"] == 1


def test_a_directory_that_is_a_file_is_one_clear_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ServerError, match=r"cannot be made a directory for data .*; choose another directory"):
        LocalServer(tmp_path / "file").start()


def test_data_that_are_no_database_are_one_clear_sentence(tmp_path: Path) -> None:
    data = tmp_path / "data.sqlite3"
    data.write_text("these are notes and not a database" * 100)
    with pytest.raises(ServerError, match=r"cannot be opened as a database .*; move it away"):
        LocalServer(tmp_path).start()
    data.unlink()
    with LocalServer(tmp_path) as server, connect(server.url) as client:
        assert client.d.a.find_one() is None


def test_a_server_stops_at_once_with_clients_connected_and_commands_under_way() -> None:
    server = LocalServer().start()
    server.controls.delay(threading.Event(), command="find")
    with MongoClient[dict[str, Any]](server.url, serverSelectionTimeoutMS=500, retryReads=False) as client:
        client.d.a.insert_one({})

        def find() -> None:
            with pytest.raises(AutoReconnect):
                client.d.a.find_one()

        finding = threading.Thread(target=find)
        finding.start()
        server.controls.wait_for(lambda recorded: recorded.name == "find")
        server.stop()
        server.stop()
        finding.join(10)
        assert not finding.is_alive()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("mydocs-local-")]


def test_a_reply_that_never_comes_leaves_its_connection_open_and_silent() -> None:
    with LocalServer() as server, connect(server.url) as client:
        client.d.a.insert_one({"_id": 1})
        server.controls.hang(command="find")
        with socket.create_connection(("127.0.0.1", server.port)) as silent:
            silent.sendall(message({"find": "a", "$db": "d"}))
            server.controls.wait_for(lambda recorded: recorded.outcome is CommandOutcome.HUNG)
            # Others are served, and the client can send on: what it sends does not even reach the record.
            silent.sendall(message({"ping": 1, "$db": "d"}))
            assert client.admin.command("hello")["ok"] == 1
            assert client.d.a.find_one() == {"_id": 1}
            silent.setblocking(False)
            with pytest.raises(BlockingIOError):
                silent.recv(1)
        assert server.controls.counts()["ping"] == 0


@pytest.mark.parametrize(("after", "stored"), [(False, 0), (True, 1)], ids=["not executed", "executed"])
def test_a_client_that_gives_up_on_a_reply_finds_the_command_carried_out_or_not(after: bool, stored: int) -> None:
    with LocalServer() as server, connect(server.url) as client:
        server.controls.hang(command="insert", after=after)
        with (
            MongoClient[dict[str, Any]](server.url, socketTimeoutMS=100, retryWrites=False) as impatient,
            pytest.raises(NetworkTimeout),
        ):
            impatient.d.a.insert_one({})
        assert client.d.a.count_documents({}) == stored


def test_a_server_that_stops_does_not_wait_for_connections_that_hang() -> None:
    with LocalServer() as server:
        server.controls.hang(times=None)
        silent = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(20)]
        for connection in silent:
            connection.sendall(message({"ping": 1, "$db": "d"}))
        hung: set[int] = set()

        def one_more(recorded: Recorded) -> bool:
            return recorded.outcome is CommandOutcome.HUNG and recorded.number not in hung

        while len(hung) < len(silent):
            hung.add(server.controls.wait_for(one_more).number)
        threads = [thread for thread in threading.enumerate() if thread.name.startswith("mydocs-local-")]
        assert len(threads) > len(silent)
    for thread in threads:
        thread.join(10)
    assert not any(thread.is_alive() for thread in threads)
    for connection in silent:
        assert connection.recv(1) == b""
        connection.close()


def test_a_long_command_keeps_nobody_from_connecting(local_server: LocalServer) -> None:
    done = threading.Event()
    with connect(local_server.url) as client:

        def find() -> None:
            assert client.d.a.find_one() is None
            done.set()

        finding = threading.Thread(target=find)
        with local_server._running.lock:  # noqa: SLF001  # a long command has it all the time
            finding.start()
            local_server.controls.wait_for(lambda recorded: recorded.name == "find")
            other = connect(local_server.url)
            assert other.admin.command("hello")["isWritablePrimary"] is True
            assert other.admin.command("ping")["ok"] == 1
            assert not done.is_set()
        finding.join(5)
        other.close()
    assert done.is_set()


@pytest.fixture
def guarded() -> Iterator[LocalServer]:
    """A server that wants a login."""
    with LocalServer(user="mara", password="p@ss:wörd/%") as server:
        yield server


def test_the_right_password_lets_in(guarded: LocalServer) -> None:
    with connect(guarded.url) as client:
        client.d.a.insert_one({"_id": 1})
        status = client.admin.command("connectionStatus")["authInfo"]
        assert status["authenticatedUsers"] == [{"user": "mara", "db": "admin"}]
        assert client.admin.command("usersInfo", "mara")["users"][0]["_id"] == "admin.mara"


@pytest.mark.anyio
async def test_motor_logs_in_too(guarded: LocalServer) -> None:
    client: AsyncIOMotorClient[dict[str, Any]] = AsyncIOMotorClient(guarded.url, serverSelectionTimeoutMS=5_000)
    try:
        await client.d.a.insert_one({"_id": 1})
        assert await client.d.a.find_one({}) == {"_id": 1}
    finally:
        client.close()


@pytest.mark.parametrize(
    ("user", "password"), [("mara", "wrong"), ("nobody", "p@ss:wörd/%")], ids=["wrong password", "unknown user"]
)
def test_a_wrong_login_is_refused(guarded: LocalServer, user: str, password: str) -> None:
    url = f"mongodb://127.0.0.1:{guarded.port}/?directConnection=true"
    with MongoClient[dict[str, Any]](url, username=user, password=password) as client:
        with pytest.raises(OperationFailure) as refused:
            client.d.a.find_one()
        assert refused.value.code == 18


def test_without_a_login_only_the_handshake_is_answered(guarded: LocalServer) -> None:
    with connect(f"mongodb://127.0.0.1:{guarded.port}/?directConnection=true") as client:
        assert client.admin.command("ping")["ok"] == 1
        for command in ({"find": "a"}, {"insert": "a", "documents": [{}]}, {"getParameter": 1}, {"listDatabases": 1}):
            with pytest.raises(OperationFailure) as refused:
                client.admin.command(command)
            assert refused.value.code == 13


def test_no_password_is_stored(guarded: LocalServer, tmp_path: Path) -> None:
    with LocalServer(tmp_path, user="mara", password="s3cret"):
        assert not [file for file in tmp_path.iterdir() if b"s3cret" in file.read_bytes()]


def test_a_user_without_a_password_is_refused() -> None:
    with pytest.raises(ServerError, match="give both or neither"):
        LocalServer(user="mara")


def test_whoever_comes_second_joins_and_the_first_one_stays_for_it(tmp_path: Path) -> None:
    joined, leave = threading.Event(), threading.Event()
    seen: list[str] = []

    def join() -> None:
        with local_url(tmp_path) as url, connect(url) as client:
            seen.append(url)
            joined.set()
            assert leave.wait(10)
            client.d.a.insert_one({"_id": "from the second"})

    second = threading.Thread(target=join)
    with local_url(tmp_path) as url:
        second.start()
        assert joined.wait(10)
        assert seen == [url]
        threading.Timer(0.2, leave.set).start()
    second.join()
    assert not (tmp_path / "server.json").exists()
    with local_url(tmp_path) as url, connect(url) as client:
        assert client.d.a.find_one() == {"_id": "from the second"}


def test_what_a_killed_server_left_behind_misleads_nobody(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    (tmp_path / "server.json").write_text(json.dumps({"url": "", "port": port, "pid": 1, "user": None}))
    with local_url(tmp_path) as url, connect(url) as client:
        assert client.admin.command("ping")["ok"] == 1


def test_a_joiner_needs_the_password_of_a_guarded_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with LocalServer(tmp_path, user="mara", password="secret") as server:
        with pytest.raises(ServerError, match=PASSWORD_VARIABLE), local_url(tmp_path):
            pass
        monkeypatch.setenv(PASSWORD_VARIABLE, "secret")
        with local_url(tmp_path) as url, connect(url) as client:
            assert url == server.url
            assert client.d.a.find_one() is None


def test_a_write_whose_answer_was_lost_is_done_once(local_server: LocalServer) -> None:
    with MongoClient[dict[str, Any]](local_server.url) as client:
        local_server.controls.cut_after(command="update")
        client.d.a.update_one({"_id": 1}, {"$inc": {"n": 1}}, upsert=True)
        local_server.controls.cut_after(command="commitTransaction")
        with client.start_session() as session, session.start_transaction():
            client.d.a.update_one({"_id": 1}, {"$inc": {"n": 1}}, session=session)
        assert client.d.a.find_one() == {"_id": 1, "n": 2}
    counts = local_server.controls.counts()
    assert (counts["update"], counts["commitTransaction"]) == (3, 2)


def test_documents_expire_by_the_servers_clock(local_server: LocalServer, local_clock: ManualClock) -> None:
    with MongoClient[dict[str, Any]](local_server.url) as client:
        client.d.a.create_index("at", expireAfterSeconds=100)
        client.d.a.insert_many([{"_id": 1, "at": local_clock.now()}, {"_id": 2, "at": "never"}, {"_id": 3}])
        local_clock.advance(90)
        assert client.d.a.count_documents({}) == 3
        local_clock.advance(90)
        assert client.d.a.distinct("_id") == [2, 3]


def test_a_cursor_that_nobody_asks_is_forgotten_unless_it_must_not(
    local_server: LocalServer, local_clock: ManualClock
) -> None:
    with MongoClient[dict[str, Any]](local_server.url) as client:
        client.d.a.insert_many([{"_id": n} for n in range(5)])
        forgotten, kept = (client.d.a.find(batch_size=2, no_cursor_timeout=stays) for stays in (False, True))
        assert next(forgotten) == next(kept)
        local_clock.advance(601)
        assert len(list(kept)) == 4
        with pytest.raises(CursorNotFound):
            list(forgotten)


def test_importing_it_imports_no_driver() -> None:
    code = (
        "import sys; from mydocs.localserver import LocalServer; import mydocs.localserver.launch;"
        "print(sorted(name for name in sys.modules if name.partition('.')[0] in ('motor', 'pymongo')))"
    )
    with start(code) as process:
        assert (process.stdout.read() if process.stdout else "").strip() == "[]"
