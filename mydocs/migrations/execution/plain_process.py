"""
Run plain scripts, each in a process of its own, and receive what it reports. I/O.

The host of these processes (``plain_host.py``) starts with the run. A thread of this process listens to it. So neither
a blocked event loop nor a blocked standard error keeps a signal or the end of the lease from the script.
"""

import asyncio
import contextlib
import json
import multiprocessing.spawn
import os
import pickle
import re
import selectors
import signal
import socket
import subprocess
import sys
import threading
import types
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import anyio
import anyio.to_thread

from mydocs.migrations.driver.client import Database, arguments_of, without_secrets
from mydocs.migrations.errors import NotPossible, SettingsInvalid
from mydocs.migrations.execution.failures import PlainFailed
from mydocs.migrations.execution.plain_messages import (
    Exited,
    Extend,
    Failed,
    Incoming,
    Job,
    Keep,
    Kept,
    Noted,
    Over,
    Ready,
    Said,
    Seen,
    Settings,
    Signal,
    framed,
    receive,
    send,
)
from mydocs.migrations.indexes.capture import Capture
from mydocs.migrations.ledger.lease import Lease, clock
from mydocs.migrations.limits import limits
from mydocs.migrations.model import Script, SearchAlias, TrackedIndex
from mydocs.migrations.reporting.escaping import harmless
from mydocs.migrations.scripts.script_context import Store

LEAVE_SECONDS = 5.0  # limit for the end of a killed process, and of the host
PIECE = 1 << 16  # bytes read at once
LINE_BYTES = 1 << 16  # of an incomplete line, before its beginning is shown

# The code of the host. It removes the folder of `python -c` from the path: a file there may be named like a module.
_START = """
import sys
sys.flags.safe_path or sys.path.pop(0)
import json
control, channel = map(int, sys.argv[-2:])
sys.path[:] = json.loads(open(control, "rb", buffering=0, closefd=False).readline())
from mydocs.migrations.execution.plain_host import main
main(control, channel)
"""
# Arguments of a client that belong to the application and do not matter for a script.
_LEFT_OUT = frozenset({"event_listeners"})


@asynccontextmanager
async def plain_scripts(db: Database, lease: Lease, *, needed: bool) -> AsyncIterator["PlainScripts"]:
    """
    Start the host of a run's plain scripts, and end it after the block.

    :param needed: if false, nothing is started
    :raises NotPossible: if such a process is not possible
    :raises SettingsInvalid: if the client cannot be made again in that process
    """
    scripts = PlainScripts(db, lease)
    try:
        if needed:
            await anyio.to_thread.run_sync(scripts.start)
        yield scripts
    finally:
        if needed:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(scripts.close)


@dataclass(slots=True, kw_only=True)
class _Current:
    """The present script and its state."""

    number: int
    capture: Capture
    store: Store
    loop: asyncio.AbstractEventLoop
    over: asyncio.Event = field(default_factory=asyncio.Event)
    failed: Failed | None = None
    came_to_its_end: bool = False
    status: int | None = None

    def end(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self.loop.call_soon_threadsafe(self.over.set)


class PlainScripts:
    """The host process, and the thread that listens to it."""

    def __init__(self, db: Database, lease: Lease) -> None:
        self._db, self._lease = db, lease
        self._output = _Lines(lambda line: _to_stderr(harmless(without_secrets(db, line))))
        self._sending = threading.Lock()
        self._number = 0
        self._current: _Current | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """
        Start the host and wait until it is ready. Blocks.

        :raises MigrationError: see :func:`plain_scripts`
        """
        settings = framed(Settings(arguments=_pickled_arguments(self._db), database=self._db.name))
        control, controlled = socket.socketpair()
        channel, channeled = socket.socketpair()
        output, written = os.pipe()
        self._control = control
        channel.setblocking(False)
        os.set_blocking(output, False)
        try:
            self._process = subprocess.Popen(
                [_interpreter(), "-c", _START, str(controlled.fileno()), str(channeled.fileno())],
                stdout=written,
                stderr=written,
                pass_fds=(controlled.fileno(), channeled.fileno()),
                start_new_session=True,  # a Ctrl-C goes to the run, which passes it on
            )
        except OSError as error:
            channel.close()
            os.close(output)
            raise NotPossible(f"a process for plain scripts cannot be started: {error.strerror}") from error
        finally:
            controlled.close()
            channeled.close()
            os.close(written)
        self._thread = threading.Thread(
            target=self._listen, args=(control, channel, output), name="mydocs-plain-scripts", daemon=True
        )
        try:
            path = [entry or "." for entry in sys.path]
            control.sendall(json.dumps(path).encode() + b"\n" + settings)
            ready: Ready = receive(control)
        except (EOFError, OSError):
            status = self._process.wait()
            ready = Ready(problem=f"the process ended with status {status}")
        self._thread.start()
        if ready.problem is not None:
            raise SettingsInvalid(_not_again(ready.problem))
        self._lease.watch = self._lease_changed

    def close(self) -> None:
        """End the host and its scripts. Blocks for a moment."""
        self._lease.watch = None
        if self._control is None:
            return
        with contextlib.suppress(OSError):
            self._control.shutdown(socket.SHUT_WR)
        if self._process is not None:
            try:
                self._process.wait(LEAVE_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._thread is not None and self._thread.is_alive():
            self._thread.join(LEAVE_SECONDS)
        self._control.close()

    async def run(
        self,
        script: Script,
        source: str,
        capture: Capture,
        *,
        store: Store,
        tracked: tuple[TrackedIndex, ...] = (),
        places: Mapping[str, Any] | None = None,
    ) -> None:
        """
        Run a script to its end.

        A cancellation sends it SIGINT, and SIGKILL after ``Limits.script_grace``. A lost lease sends SIGKILL at once. A
        script that still ends well has succeeded.

        :param source: the checked text, even if the file has changed since
        :param capture: records what the script does to indexes
        :param store: stores how far a helper has come
        :param tracked: the ledger's indexes
        :param places: how far the helpers came in an earlier attempt
        :raises PlainFailed: if it raised, or ended in another way
        """
        self._number += 1
        current = _Current(number=self._number, capture=capture, store=store, loop=asyncio.get_running_loop())
        job = Job(
            number=current.number,
            path=str(script.path),
            source=source,
            deadline=self._lease.deadline,
            server_time=self._lease.now(),
            at=clock(),
            run=capture.context.run,
            max_building=capture.max_building,
            max_lag=capture.context.max_lag,
            tracked=tracked,
            places=places,
        )
        self._current = current
        try:
            await anyio.to_thread.run_sync(self._tell, job)
            await current.over.wait()
        except asyncio.CancelledError:
            with anyio.CancelScope(shield=True):
                await self._stop(current)
            if not _succeeded(current):
                raise
        finally:
            self._current = None
        _raise_failure(current)

    async def _stop(self, current: _Current) -> None:
        loop = asyncio.get_running_loop()
        for number, seconds in ((signal.SIGINT, limits().script_grace), (signal.SIGKILL, LEAVE_SECONDS)):
            if number is signal.SIGINT and not self._lease.is_ours:
                continue
            await anyio.to_thread.run_sync(self._tell, Signal(number=number))
            deadline = loop.time() + seconds
            while not current.over.is_set() and (left := deadline - loop.time()) > 0:
                try:
                    with anyio.move_on_after(left):
                        await current.over.wait()
                except asyncio.CancelledError:  # a repeated cancellation: the script has the signal already
                    continue
            if current.over.is_set():
                return

    def _lease_changed(self) -> None:
        """Send the host the new deadline of the script. The thread that renews the lease calls this."""
        self._tell(Extend(deadline=self._lease.deadline) if self._lease.is_ours else Signal(number=signal.SIGKILL))

    def _tell(self, message: object) -> None:
        if self._control is None:
            return
        with self._sending, contextlib.suppress(OSError):  # without a host, the listener reports how it ended
            send(self._control, message)

    def _listen(self, control: socket.socket, channel: socket.socket, output: int) -> None:
        said = Incoming()
        with selectors.DefaultSelector() as selector:
            for source in (control, channel, output):
                selector.register(source, selectors.EVENT_READ)
            while True:
                ready = {key.fileobj for key, _ in selector.select()}
                if output in ready and not self._output.read(output):
                    selector.unregister(output)
                if channel in ready:
                    self._hear(channel, said)
                if control in ready:
                    try:
                        exited: Exited = receive(control)
                    except (EOFError, OSError):
                        break
                    # Its output before the end has arrived by now. A child of the script may keep the pipe open.
                    self._hear(channel, said)
                    said.clear()
                    self._output.read(output)
                    self._output.flush()
                    self._ended(exited)
        self._output.read(output)
        self._output.flush()
        self._ended(None)
        channel.close()
        os.close(output)

    def _ended(self, exited: Exited | None) -> None:
        current = self._current
        if current is not None and (exited is None or exited.number == current.number):
            current.status = None if exited is None else exited.status
            current.end()

    def _hear(self, channel: socket.socket, said: Incoming) -> None:
        while True:
            try:
                data = channel.recv(PIECE)
            except OSError:  # nothing more at the moment
                return
            if not data:
                return
            for frame in said.feed(data):
                if self._current is not None:
                    self._take(channel, self._current, frame)

    def _take(self, channel: socket.socket, current: _Current, frame: bytes) -> None:
        match pickle.loads(frame):
            case Seen(name=name, body=body, reply=reply):
                current.capture.seen(name, body, reply)
            case Noted(what=what):
                if isinstance(what, SearchAlias):
                    current.capture.note_alias(what)
                else:
                    current.capture.note(what)
            case Said(event=event):
                current.capture.context.emit(event)
            case Failed() as failed:
                current.failed = failed
            case Over():
                current.came_to_its_end = True
            case Keep(number=number, key=key, place=place):
                keep = self._keep(channel, current, number, key, place)
                asyncio.run_coroutine_threadsafe(keep, current.loop)  # it sends its answer itself
            case _:
                pass

    async def _keep(self, channel: socket.socket, current: _Current, number: int, key: str, place: Any) -> None:
        problem = None
        try:
            await current.store(key, place)
        except Exception as error:  # noqa: BLE001  # sent to the script, where the helper raises it
            problem = without_secrets(self._db, str(error))
        with contextlib.suppress(OSError):
            send(channel, Kept(job=current.number, number=number, problem=problem))


def _raise_failure(current: _Current) -> None:
    if _succeeded(current):
        return
    if (failed := current.failed) is not None:
        error = PlainFailed(
            failed.kind,
            failed.text,
            line=failed.line,
            named=failed.named,
            exit_code=failed.exit_code,
            advice=failed.advice,
        )
        if failed.traceback:
            error.add_note(failed.traceback)
        raise error
    raise PlainFailed("ProcessEnded", _ending(current), named=False)


def _succeeded(current: _Current) -> bool:
    return current.status == 0 and current.came_to_its_end and current.failed is None


def _ending(current: _Current) -> str:
    status = current.status
    if status is None:
        return "the process that watches over plain scripts was ended from outside, and the script with it"
    if status < 0:
        with contextlib.suppress(ValueError):
            return f"its process was ended by {signal.Signals(-status).name}, and not by the run"
        return f"its process was ended by signal {-status}, and not by the run"
    if status == 0:
        return "its process ended with status 0 before the script came to its end (`os._exit`?)"
    return f"exited with status {status}"


def _interpreter() -> str:
    executable = multiprocessing.spawn.get_executable() or sys.executable
    if not executable:
        raise NotPossible(
            "a plain script needs a process of its own, and this program does not know its Python "
            "(`multiprocessing.set_executable` tells it)"
        )
    return os.fsdecode(executable)


class _Pickler(pickle.Pickler):
    """Refuse objects that only this process can find again."""

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, type | types.FunctionType) and obj.__module__ == "__main__":
            raise pickle.PicklingError(f"{obj.__qualname__} is defined in the program's main file")
        return NotImplemented


def _pickled_arguments(db: Database) -> bytes:
    arguments = arguments_of(db)
    if arguments is None:
        raise SettingsInvalid(_not_again("this PyMongo does not tell how it was made"))
    data = BytesIO()
    kept = {}
    for name, value in arguments.items():
        if name in _LEFT_OUT:
            continue
        try:
            _Pickler(BytesIO()).dump(value)
        except Exception as error:
            raise SettingsInvalid(_not_again(f"{name}: {error}")) from error
        kept[name] = value
    _Pickler(data).dump(kept)
    return data.getvalue()


def _not_again(problem: str) -> str:
    return (
        f"a plain script runs in a process of its own, and the client cannot be made again there ({problem}); write it "
        "as an async script (`async def up(db)`), or pass a client without callbacks"
    )


class _Lines:
    """Split what is written to a pipe into lines."""

    def __init__(self, show: Callable[[str], None]) -> None:
        self._show_line = show
        self._data = bytearray()

    def read(self, output: int) -> bool:
        """Read all available bytes. Return whether more may come."""
        while True:
            try:
                data = os.read(output, PIECE)
            except BlockingIOError:
                return True
            if not data:
                return False
            *lines, rest = re.split(rb"\n", self._data + data)
            for line in lines:
                self._show(line)
            self._data = bytearray(rest)
            if len(rest) > LINE_BYTES:
                self.flush()

    def flush(self) -> None:
        """Show an incomplete line."""
        if self._data:
            self._show(bytes(self._data))
            self._data.clear()

    def _show(self, line: bytes) -> None:
        # A progress bar returns to the start of its line to write it again. Each state is a line here.
        shown = [part for part in line.split(b"\r") if part] or [b""]
        for part in shown:
            self._show_line(part.decode("utf-8", "backslashreplace"))


def _to_stderr(line: str) -> None:
    if sys.stderr is not None:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(line + "\n")
            sys.stderr.flush()
