"""From settings to an open database and back: local server, client, signals, one async call. I/O."""

import asyncio
import contextlib
import json
import os
import signal
import sys
import threading
import warnings
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import anyio
import anyio.to_thread
from pymongo.errors import ConfigurationError, PyMongoError
from pymongo.uri_parser import parse_uri

with warnings.catch_warnings():
    # Motor says at import that it has reached its end of life; an operator can do nothing about it.
    warnings.simplefilter("ignore", DeprecationWarning)
    from motor.frameworks import asyncio as asyncio_of_motor
    from motor.motor_asyncio import AsyncIOMotorClient, AsyncIOMotorDatabase

from mydocs.cli.signals import Watch, watched
from mydocs.cli.streams import Output, Streams, stdout_is_stderr
from mydocs.migrations.driver.redaction import redact
from mydocs.migrations.errors import Interrupted, MigrationError, ServerUnreachable, SettingsInvalid
from mydocs.migrations.reporting.events import Event, Sink
from mydocs.migrations.reporting.report import ErrorReport, Outcome, RunFinished, RunReport, to_json
from mydocs.migrations.settings import Settings, secrets_of

T = TypeVar("T")
Database = AsyncIOMotorDatabase[dict[str, Any]]
Act = Callable[[Database, Sink], Awaitable[T]]

LOCAL_DIRECTORY = ".mydocs"
NOTICE_SECONDS = 3.0  # of silence, before an operator wonders whether anything is happening
ANYIO_WORKER = "AnyIO worker thread"  # the name of each of its threads
CLOSE_SECONDS = 2.0  # for the sessions' end at a server that may be gone


def call(settings: Settings, streams: Streams, view: Sink, act: Act[T]) -> T:
    """
    Make one async call on the settings' database.

    :raises Interrupted: after SIGINT or SIGTERM, with the report of what was done until then
    :raises MigrationError: what the call raises, or why there is no connection
    """
    last: list[RunReport] = []

    def sink(event: Event) -> None:
        if isinstance(event, RunFinished):
            last[:] = [event.report]
        view(event)

    with watched() as watch:
        try:
            with stdout_is_stderr() as stdout, _server(settings, streams) as url:
                watch.last_words = partial(_last_words, settings, streams, stdout)
                streams.secrets = (*settings.secrets, *secrets_of(url, None))
                check(url, streams.secrets)
                try:
                    return anyio.run(_main, settings, url, watch, streams, sink, act, backend="asyncio")
                finally:
                    watch.last_words = None
        except KeyboardInterrupt:
            pass
        except MigrationError:
            # What a script answers to its cancellation is in the report; why it was cancelled is the news.
            if watch.received is None:
                raise
        interrupted = Interrupted(watch.received or signal.SIGINT)
        interrupted.report = last[0] if last else None
        raise interrupted


async def _main(settings: Settings, url: str, watch: Watch, streams: Streams, sink: Sink, act: Act[T]) -> T:
    client: AsyncIOMotorClient[dict[str, Any]] = client_of(settings, url)
    notice = asyncio.get_running_loop().call_later(NOTICE_SECONDS, _notice, client, streams)
    try:
        with watch.scope():
            result = await act(client[settings.database], sink)
            if watch.received is None:
                return result
        # Also where everything was done in spite of it: a plain script runs to its end, and the caller wanted none.
        raise Interrupted(watch.received or signal.SIGINT)
    finally:
        notice.cancel()
        with anyio.CancelScope(shield=True), anyio.move_on_after(CLOSE_SECONDS):
            # In a thread: it says goodbye to the server, which may not listen any more.
            await anyio.to_thread.run_sync(client.close, abandon_on_cancel=True)


def client_of(settings: Settings, url: str) -> Any:
    """Make the client; nothing is sent before the first command."""
    options: dict[str, Any] = {"tz_aware": True, "appname": "mydocs"}
    if settings.user is not None:
        options["username"] = settings.user
    if settings.password is not None:
        options["password"] = settings.password
    try:
        return AsyncIOMotorClient(url, **options)
    except (PyMongoError, ValueError, TypeError, OSError) as error:
        raise _unusable(error, settings.secrets) from error


def check(url: str, secrets: tuple[str, ...]) -> None:
    """
    Let the driver read the URL, which for mongodb+srv:// asks the name service.

    Options that it does not know or cannot read are errors here, where the driver would only warn and go on without
    them: a mistyped `tls` is not to be ignored.

    :raises SettingsInvalid: where it can't be used
    :raises ServerUnreachable: where the name service does not know the host
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        try:
            parse_uri(url)
        except ConfigurationError as error:
            cause = error.__cause__ or error.__context__
            if type(error) is ConfigurationError and type(cause).__module__.startswith("dns"):
                raise ServerUnreachable(redact(str(error).rstrip("."), secrets)) from error
            raise _unusable(error, secrets) from error
        except (PyMongoError, ValueError, TypeError, OSError, UserWarning) as error:
            raise _unusable(error, secrets) from error


def _unusable(error: Exception, secrets: tuple[str, ...]) -> SettingsInvalid:
    problem = redact(" ".join(str(error).split()).rstrip("."), secrets)
    return SettingsInvalid(f"the URL cannot be used: {problem}; check --url or MONGO_URL")


@contextlib.contextmanager
def _server(settings: Settings, streams: Streams) -> Iterator[str]:
    """Yield the URL: the one that was given, or that of a local server which lives as long as this block."""
    if settings.url is not None:
        yield settings.url
        return
    launch = local_launcher()
    try:
        with launch.local_url(Path(LOCAL_DIRECTORY)) as url:
            if streams.output is not Output.QUIET:
                streams.note(f"local server, which is not MongoDB, with its data in {LOCAL_DIRECTORY}")
            yield url
    except (launch.DirectoryInUse, launch.ServerError) as error:
        raise SettingsInvalid(f"the local server cannot start: {error}") from error


def local_launcher() -> Any:
    """
    Import the local server.

    :raises SettingsInvalid: where this system cannot run it
    """
    try:
        from mydocs.localserver import launch
    except ImportError as error:
        raise SettingsInvalid(
            f"the local server cannot run here ({error}); install it with `pip install 'mydocs[local]'`, or use --url"
        ) from error
    return launch


def _notice(client: Any, streams: Streams) -> None:
    """Say whom nobody has heard of yet, and why, as far as the driver knows."""
    topology = client.delegate.topology_description
    if topology.has_known_servers:
        return
    servers = topology.server_descriptions()
    hosts = ", ".join(f"{host}:{port}" if port else str(host) for host, port in servers) or "that the URL names"
    reasons = {str(server.error).partition(" (configured timeouts")[0] for server in servers.values() if server.error}
    streams.note(f"waiting for the server {hosts}" + (f" ({'; '.join(sorted(reasons))})" if reasons else ""))


def _last_words(settings: Settings, streams: Streams, stdout: int | None, code: int) -> None:
    """Say on stdout, in JSON, what a process can say that is left at once."""
    if streams.output is not Output.JSON or stdout is None:
        return
    message = "left at once, by a second signal; `mydocs migrate status` shows what is unfinished"
    error = ErrorReport(type=Interrupted.__name__, message=message, exit_code=code)
    report = RunReport(outcome=Outcome.INTERRUPTED, database=settings.database, error=error)
    os.write(stdout, json.dumps(to_json(report)).encode() + b"\n")


def is_waiting_for_the_server() -> bool:
    """
    Whether a worker thread is in the driver still, though every client is closed: for an answer that nobody wants.

    A thread that a script has started is no worker of ours, and left to its end.
    """
    frames = sys._current_frames()  # noqa: SLF001  # documented; there is no public name
    motors = getattr(getattr(asyncio_of_motor, "_EXECUTOR", None), "_threads", ())
    workers = [thread for thread in threading.enumerate() if thread in motors or thread.name == ANYIO_WORKER]
    return any(_is_in_the_driver(frames.get(thread.ident or 0)) for thread in workers)


def _is_in_the_driver(frame: FrameType | None) -> bool:
    while frame is not None:
        if str(frame.f_globals.get("__name__")).startswith("pymongo."):
            return True
        frame = frame.f_back
    return False


def leave_quickly() -> None:
    """
    Take PyMongo's hook out of this process's exit, which joins threads that nap for half a second.

    Every client is closed by then, and the threads are daemons that do nothing more.
    """
    import atexit

    from pymongo.synchronous import monitor

    hook = getattr(monitor, "_shutdown_resources", None)
    if hook is not None:
        atexit.unregister(hook)
