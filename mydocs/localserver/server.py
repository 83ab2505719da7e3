"""Listen on the loopback interface and serve each connection in a thread of its own. I/O."""

import itertools
import logging
import os
import socket
import sqlite3
import threading
import time
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote_plus

from mydocs.localserver import directory as files
from mydocs.localserver.commands.handshake import Greeting, Login
from mydocs.localserver.control.clock import Clock, SystemClock
from mydocs.localserver.control.controls import Controls
from mydocs.localserver.control.faults import Cut, Hung
from mydocs.localserver.engine import Engine, error_reply
from mydocs.localserver.errors import CommandError, DirectoryInUse, ServerError
from mydocs.localserver.search import SearchSettings
from mydocs.localserver.search.catalogue import SearchCatalogue
from mydocs.localserver.wire import messages, scram

log = logging.getLogger(__name__)

HOST = "127.0.0.1"  # never another interface: this server is for its own machine
BACKLOG = 512  # connections that may wait to be accepted; a few hundred clients start at once in tests
ACCEPT_AGAIN_SECONDS = 0.05  # between two tries to accept a connection if a limit is reached
STOP_SECONDS = 0.8  # for all threads together; a thread whose command takes longer ends by itself


__all__ = ["DirectoryInUse", "LocalServer", "ServerError", "url_of"]


class LocalServer:
    """
    A server for a laptop and for tests, over MongoDB's wire protocol. It is not MongoDB.

    :param directory: of the data; ``None`` keeps them in memory, until the server ends
    :param port: 0 takes a free one
    :param user: with ``password``: the login of a client; without it, anybody on this machine may connect
    :param clock: the time for `$$NOW` and for the life of search indexes
    :param search: how its search indexes behave
    """

    def __init__(
        self,
        directory: Path | None = None,
        *,
        port: int = 0,
        user: str | None = None,
        password: str | None = None,
        clock: Clock | None = None,
        search: SearchSettings | None = None,
    ) -> None:
        if (user is None) != (password is None):
            raise ServerError("a user needs a password and a password needs a user; give both or neither")
        self.directory = directory
        self.port = port
        self.user = user
        self.clock: Clock = clock or SystemClock()
        self.controls = Controls()
        self._password = password
        self._settings = search
        self._engine: Engine | None = None
        self._listener: socket.socket | None = None
        self._lock_file: IO[str] | None = None
        self._connections: dict[int, tuple[socket.socket, threading.Thread]] = {}
        self._guard = threading.Lock()
        self._numbers = itertools.count(1)
        self._acceptor: threading.Thread | None = None

    @property
    def url(self) -> str:
        """Return the connection string, with credentials."""
        return url_of(self.port, self.user, self._password)

    @property
    def search(self) -> SearchCatalogue:
        return self._running.search

    @property
    def _running(self) -> Engine:
        if self._engine is None:
            raise ServerError("the local server is not started; use it as a context manager or call start()")
        return self._engine

    def start(self) -> "LocalServer":
        """
        Listen. When this returns, clients can connect.

        :raises DirectoryInUse: if another server has the directory
        :raises ServerError: if the port is taken, or the directory cannot be used
        """
        path = None
        if self.directory is not None:
            try:
                files.make(self.directory)
                self._lock_file = files.take_lock(self.directory)
                path = files.secured(self.directory / "data.sqlite3")
            except OSError as error:
                self.stop()
                raise ServerError(
                    f"{self.directory} cannot be made a directory for data ({error.strerror}); choose another directory"
                ) from error
        try:
            self._listener = self._listening()
            credentials = scram.Credentials.of(self.user, self._password or "") if self.user else None
            self._engine = Engine(path, self.clock, self._settings, credentials, self.controls)
        except BaseException as error:
            self.stop()
            if isinstance(error, sqlite3.DatabaseError):
                raise ServerError(
                    f"{path} cannot be opened as a database ({error}); move it away, or choose another directory"
                ) from error
            raise
        self._engine.address = f"{HOST}:{self.port}"
        self.controls.cut_all = self.cut_all
        if self.directory is not None:
            address = {"url": url_of(self.port), "port": self.port, "pid": os.getpid(), "user": self.user}
            files.announce(self.directory, address)
        self._acceptor = threading.Thread(target=self._accept, name="mydocs-local-accept", daemon=True)
        self._acceptor.start()
        return self

    def stop(self) -> None:
        """Close all connections and end all threads. Acknowledged writes are stored."""
        self.controls.close()
        listener, self._listener = self._listener, None
        if listener is not None:
            _shut(listener)
        self.cut_all()
        waiting = [thread for _, thread in self._connections.values()]
        share = STOP_SECONDS / max(1, len(waiting) + 1)
        for thread in [self._acceptor, *waiting]:
            if thread is not None and thread is not threading.current_thread():
                thread.join(share)
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.close()
        if self._lock_file is not None and self.directory is not None:
            # The address first, then the lock: its next owner must not find the address of a stopped server.
            (self.directory / "server.json").unlink(missing_ok=True)
            self._lock_file.close()
            self._lock_file = None

    def __enter__(self) -> "LocalServer":
        return self.start()

    def __exit__(self, *error: object) -> None:
        self.stop()

    def cut_all(self) -> None:
        """Close every connection."""
        with self._guard:
            connections = [connection for connection, _ in self._connections.values()]
        for connection in connections:
            _shut(connection)

    def _listening(self) -> socket.socket:
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, self.port))
        except OSError as error:
            listener.close()
            raise ServerError(
                f"port {self.port} of {HOST} is taken ({error.strerror}); "
                "choose another with --port, or 0 for a free one"
            ) from error
        listener.listen(BACKLOG)
        self.port = listener.getsockname()[1]
        return listener

    def _accept(self) -> None:
        listener = self._listener
        while listener is not None and self._listener is listener:
            try:
                connection, address = listener.accept()
            except OSError as error:
                if self._listener is listener:  # otherwise stop() has closed it
                    # For example, no file descriptors are left until others end. The next client waits.
                    log.warning("no connection can be accepted: %s", error)
                    time.sleep(ACCEPT_AGAIN_SECONDS)
                continue
            number = next(self._numbers)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            arguments = (connection, number, f"{address[0]}:{address[1]}")
            thread = threading.Thread(target=self._serve, args=arguments, name=f"mydocs-local-{number}", daemon=True)
            with self._guard:
                # Checked under the guard: `cut_all` either closes this connection, or it is refused here.
                wanted = self._listener is listener and not self.controls.is_down
                if wanted:
                    self._connections[number] = (connection, thread)
            if not wanted:
                connection.close()
                continue
            try:
                thread.start()
            except RuntimeError as error:  # no more threads
                log.warning("connection %s is closed: %s", number, error)
                self._forget(number, connection)

    def _forget(self, number: int, connection: socket.socket) -> None:
        self.controls.gone(number)
        with self._guard:
            self._connections.pop(number, None)
        connection.close()

    def _serve(self, connection: socket.socket, number: int, address: str) -> None:
        login = Login()
        try:
            while (request := messages.read_request(connection)) is not None:
                engine = self._engine
                if engine is None:
                    return
                greeting = Greeting(engine, request.database, login, number, address)
                answer = self._answer(engine, request, greeting)
                if request.answered:
                    connection.sendall(answer)
        except Hung:
            _swallow(connection)
        except (Cut, OSError):
            pass  # the end of a connection, from either side
        except messages.ProtocolError as error:
            log.warning("connection %s is closed: %s", number, error)
        finally:
            self._forget(number, connection)

    def _answer(self, engine: Engine, request: messages.Request, greeting: Greeting) -> bytes:
        name, database, body = request.name, request.database, request.body
        shown = body if request.packed is None else request.packed
        recorded = self.controls.arrive(name, database, shown, greeting.connection_id)
        reply: dict[str, Any]
        began = time.monotonic()
        try:
            self.controls.before(recorded)
            # Commands are quick here, so only a delay that a test has set can exceed a limit.
            limit = body.get("maxTimeMS") if name != "getMore" else None
            if isinstance(limit, int | float) and 0 < limit / 1000 < time.monotonic() - began:
                raise CommandError(50, "operation exceeded time limit")
            reply = engine.run(name, database, body, greeting)
        except CommandError as error:
            reply = error_reply(error)
        except (Cut, Hung, OSError):
            raise
        except RecursionError:
            reply = error_reply(CommandError(15, "the command is nested too deeply"))
        except Exception as error:  # a defect here must not look like a lost connection
            full = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
            if self._engine is not None and not full:  # otherwise stop() closed the database, or the disk is full
                log.exception("the command %s failed", name)
            problem = f"a defect of the local server: {type(error).__name__}: {error}"
            reply = error_reply(
                CommandError(14031, f"the disk that holds {self.directory} is full")
                if full
                else CommandError(1, problem)
            )
        reply = engine.timed(reply)
        try:
            answer = messages.reply(request, reply)
        except CommandError as error:
            reply = engine.timed(error_reply(error))
            answer = messages.reply(request, reply)
        self.controls.after(recorded, reply)
        return answer


def url_of(port: int, user: str | None = None, password: str | None = None) -> str:
    """Return the connection string of a local server."""
    login = f"{quote_plus(user)}:{quote_plus(password or '')}@" if user else ""
    return f"mongodb://{login}{HOST}:{port}/?directConnection=true"


def _swallow(connection: socket.socket) -> None:
    """Read without an answer until either side ends the connection, so that the client can still send."""
    try:
        while connection.recv(65_536):
            pass
    except OSError:
        pass  # a normal end


def _shut(connection: socket.socket) -> None:
    try:
        # Closing alone would not wake a thread that reads from it.
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # the client has closed it already
    finally:
        if connection.family == socket.AF_INET and connection.type == socket.SOCK_STREAM:
            connection.close()
