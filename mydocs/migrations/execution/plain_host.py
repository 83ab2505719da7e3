"""
Host plain scripts and run their processes. I/O.

The host is a new interpreter that a run starts once. It imports what plain scripts need, then forks one process for
each script, so only the first one waits for imports. It has one thread and no client, so a script finds the same state
as with `python script.py`. It also watches the script: when the run is gone, or the lease's deadline passes, it kills
the script and its children, even if the run hangs or is stopped.
"""

import atexit
import contextlib
import gc
import os
import pickle
import select
import signal
import socket
import sys
import threading
import traceback
import types
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

from mydocs.migrations.execution.plain_messages import (
    Exited,
    Extend,
    Failed,
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
    receive,
    send,
)

WATCH_SECONDS = 0.25  # between two looks at the clock, which continues while the machine sleeps
TEXT_LENGTH = 100_000  # characters of an error's text or traceback; the run shows fewer

# Blocked instead of ignored: a signal that arrives before the script can handle it waits.
_BLOCKED = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}


def main(control_number: int, channel_number: int) -> None:
    """
    Run the host. In a process that it has forked, run the script and return to the interpreter's own end.

    :param control_number: descriptor of the socket to the run
    :param channel_number: descriptor of the socket between the run and the present script
    """
    process = _Process(socket.socket(fileno=channel_number))
    atexit.register(process.say_over)  # before anything else is registered, so that it runs last
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _BLOCKED)
    control = socket.socket(fileno=control_number)
    settings: Settings = receive(control)
    _import()
    try:
        arguments: dict[str, Any] = pickle.loads(settings.arguments)
    except Exception as error:  # noqa: BLE001  # an application's own class may raise anything
        send(control, Ready(problem=f"{type(error).__name__}: {error}"))
        os._exit(1)
    send(control, Ready())
    job = _Host(control).serve()
    control.close()
    process.run(job, settings.database, arguments, mask)


def _import() -> None:
    """Import what plain scripts and their helpers need, and prevent PyMongo's half-second sleep at each exit."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Motor warns of its end of life
        import mydocs.migrations.indexes.capture
        import mydocs.migrations.ledger.lease
        import mydocs.migrations.scripts.binding
        import mydocs.migrations.scripts.load  # noqa: F401
    from pymongo.synchronous import monitor

    hook = getattr(monitor, "_shutdown_resources", None)
    if hook is not None:
        atexit.unregister(hook)
    # Otherwise each script spends a tenth of a second at its end to search these imports for reference cycles.
    gc.freeze()


class _Host:
    """Fork a process for each job, watch it, and report how it ended."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._job: Job | None = None
        self._pid = 0
        self._deadline = 0.0

    def serve(self) -> Job:
        """Return in a forked process, with its job. The host's own process ends here."""
        woken, wake = os.pipe()
        os.set_blocking(woken, False)
        os.set_blocking(wake, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        while True:
            watched: list[Any] = [self._control, woken]
            readable, _, _ = select.select(watched, [], [], WATCH_SECONDS if self._pid else None)
            if woken in readable:
                with contextlib.suppress(BlockingIOError):
                    os.read(woken, 4096)
            if self._control in readable:
                job = self._take()
                if job is not None and self._fork(job):
                    signal.set_wakeup_fd(-1)
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    os.close(woken)
                    os.close(wake)
                    return job
            if self._pid:
                self._watch()

    def _take(self) -> Job | None:
        try:
            message = receive(self._control)
        except (EOFError, OSError):  # the run has ended
            self._signal(signal.SIGKILL)
            os._exit(0)
        match message:
            case Job():
                return message
            case Signal():
                self._signal(message.number)
            case Extend():
                self._deadline = message.deadline
            case _:
                pass
        return None

    def _fork(self, job: Job) -> bool:
        self._deadline = job.deadline
        pid = os.fork()
        # In both processes, since either may be first, and a signal may come at once.
        with contextlib.suppress(OSError):
            os.setpgid(pid, 0)
        self._job, self._pid = job, pid
        return pid == 0

    def _watch(self) -> None:
        from mydocs.migrations.ledger.lease import clock

        if clock() > self._deadline:
            self._signal(signal.SIGKILL)
        pid, status = os.waitpid(self._pid, os.WNOHANG)
        if pid and self._job is not None:
            self._pid = 0
            with contextlib.suppress(OSError):
                send(self._control, Exited(number=self._job.number, status=os.waitstatus_to_exitcode(status)))

    def _signal(self, number: int) -> None:
        if self._pid:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._pid, number)


class _Process:
    """The run, as a script's process sees it. In the host, and in processes that a script forks, it does nothing."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._pid = 0
        self._lock = threading.Lock()
        self._answers = threading.Lock()
        self._kept = 0
        self._job = 0
        self._is_broken = False

    def run(self, job: Job, database: str, arguments: Mapping[str, Any], mask: set[int | signal.Signals]) -> None:
        """
        Run the script.

        :raises SystemExit: with the status that Python would give it
        """
        self._pid, self._job = os.getpid(), job.number
        _prepare_streams()
        self._watch_indexes(job, database)
        _bind_lightodm(database, arguments)
        main = _main_module(job.path)
        sys.argv[:] = [job.path]
        sys.path.insert(0, os.path.dirname(job.path))  # noqa: PTH120  # a string, as Python itself adds it
        signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            exec(compile(job.source, job.path, "exec", dont_inherit=True), main.__dict__)
        except BaseException as error:  # noqa: BLE001  # as in the interpreter itself
            self._fail(job.path, error)

    def say_over(self) -> None:
        """Tell the run that the script has ended, after everything else that is registered with atexit."""
        with contextlib.suppress(OSError):
            self.tell(Over())

    def tell(self, value: object) -> None:
        """Send a message to the run."""
        if os.getpid() != self._pid:
            return
        with self._lock:
            if self._is_broken:
                return
            self._is_broken = True  # a KeyboardInterrupt inside a message would spoil all later ones
            send(self._channel, value)
            self._is_broken = False

    async def keep(self, key: str, place: Mapping[str, Any]) -> None:
        """
        Let the run store how far a helper has come.

        :raises MigrationError: if it cannot be stored
        """
        import anyio.to_thread

        if os.getpid() == self._pid:
            await anyio.to_thread.run_sync(self._keep, key, place)

    def _keep(self, key: str, place: Mapping[str, Any]) -> None:
        from mydocs.migrations.errors import MigrationError

        with self._answers:
            self._kept += 1
            self.tell(Keep(number=self._kept, key=key, place=place))
            while True:
                answer: Kept = receive(self._channel)
                if (answer.job, answer.number) == (self._job, self._kept):
                    break
        if answer.problem is not None:
            raise MigrationError(answer.problem)

    def _watch_indexes(self, job: Job, database: str) -> None:
        import pymongo.monitoring

        from mydocs.migrations.indexes import capture
        from mydocs.migrations.scripts import script_context

        watched = _capture_class()(self.tell, self.keep, job)
        watched.database = database
        capture.current.set(watched)
        script_context.current.set(watched.context)
        pymongo.monitoring.register(capture.listener(database, watched.seen))

    def _fail(self, path: str, error: BaseException) -> None:
        from pathlib import Path

        from pymongo.errors import PyMongoError

        from mydocs.migrations.driver import server_errors
        from mydocs.migrations.scripts import load

        if isinstance(error, SystemExit) and error.code in (None, 0):
            return
        if not isinstance(error, SystemExit) and sys.excepthook is not sys.__excepthook__:
            with contextlib.suppress(Exception):
                sys.excepthook(type(error), error, error.__traceback__)
        cause = load.cause_of(error)
        text = server_errors.text_of(cause) if isinstance(cause, PyMongoError) else load.text_of(cause)
        self.tell(
            Failed(
                kind=type(cause).__name__,
                text=text[:TEXT_LENGTH],
                line=load.line_in(Path(path), error),
                named=not isinstance(cause, SystemExit),
                exit_code=server_errors.exit_code_of(cause),
                advice=load.advice_on(cause),
                traceback=_traceback_of(error)[-TEXT_LENGTH:],
            )
        )
        code = error.code if isinstance(error, SystemExit) and isinstance(error.code, int) else 1
        # The run shows it; otherwise the interpreter would show it again.
        raise SystemExit(code & 0xFF or 1) from None


def _capture_class() -> Callable[..., Any]:
    import bson

    from mydocs.migrations.indexes.capture import Capture
    from mydocs.migrations.model import SearchAlias, TrackedIndex
    from mydocs.migrations.reporting.events import Event
    from mydocs.migrations.scripts.script_context import ScriptContext

    def plain(document: Mapping[str, Any]) -> dict[str, Any]:
        """Return a document with BSON's types only, whatever classes the script uses."""
        return dict(bson.decode(bson.encode(document)))

    class Told(Capture):
        """Record what the script does to indexes, for the helpers in its process, and send it to the run at once."""

        def __init__(self, tell: Callable[[object], None], keep: Any, job: Job) -> None:
            context = ScriptContext(
                self._say,
                run=job.run,
                clock=server_clock(job),
                places=job.places,
                store=keep,
                max_lag=job.max_lag,
            )
            super().__init__(context, tracked=lambda: job.tracked, max_building=job.max_building)
            self._tell = tell
            self._reading = threading.local()

        def seen(self, name: str, body: Mapping[str, Any], reply: Mapping[str, Any]) -> None:
            body, reply = plain(body), plain(reply)
            self._tell(Seen(name=name, body=body, reply=reply))
            self._reading.now = True  # the run itself emits and records what follows from the command
            try:
                super().seen(name, body, reply)
            finally:
                self._reading.now = False

        def note(self, index: TrackedIndex) -> None:
            if not getattr(self._reading, "now", False):
                self._tell(Noted(what=index))
            super().note(index)

        def note_alias(self, alias: SearchAlias) -> None:
            self._tell(Noted(what=alias))
            super().note_alias(alias)

        def _say(self, event: Event) -> None:
            if not getattr(self._reading, "now", False):
                self._tell(Said(event=event))

    return Told


def server_clock(job: Job) -> Callable[[], datetime]:
    """Return a function that returns the server's time, by the run's lease."""

    from mydocs.migrations.ledger.lease import clock

    def now() -> datetime:
        told = job.server_time + timedelta(seconds=clock() - job.at)
        return told.replace(microsecond=told.microsecond // 1000 * 1000)

    return now


def _bind_lightodm(database: str, arguments: Mapping[str, Any]) -> None:
    import pymongo

    from mydocs.migrations.scripts import binding

    made: list[Any] = []
    lock = threading.Lock()

    def find() -> Any:
        with lock:
            if not made:  # only on request: a script without lightodm opens no connection
                made.append(pymongo.MongoClient(**arguments)[database])
            return made[0]

    binding.bind(find)


def _main_module(path: str) -> types.ModuleType:
    """Return the module that `python path` would have as `__main__`."""
    from importlib.machinery import SourceFileLoader

    module = types.ModuleType("__main__")
    loader = SourceFileLoader("__main__", path)
    facts = {"__file__": path, "__builtins__": __builtins__, "__loader__": loader, "__annotations__": {}}
    module.__dict__.update(facts, __cached__=None)
    sys.modules["__main__"] = module
    return module


def _prepare_streams() -> None:
    """Write each line as soon as it is complete. Characters outside UTF-8 become their escapes."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True)  # type: ignore[union-attr]  # a TextIOWrapper


def _traceback_of(error: BaseException) -> str:
    with contextlib.suppress(Exception):  # the script's own `__str__` may raise
        told = traceback.TracebackException.from_exception(error)
        while told.stack and told.stack[0].filename == __file__:
            del told.stack[0]  # the same frames as with `python script.py`
        return "".join(told.format())
    return ""
