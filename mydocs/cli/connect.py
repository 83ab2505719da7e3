"""Open the database of the settings for one async call: local server, client, signals. I/O."""

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from mydocs.cli.signals import Watch, watched
from mydocs.cli.streams import LogFormat, Output, Streams
from mydocs.migrations.errors import Interrupted, MigrationError, SettingsInvalid
from mydocs.migrations.operations.connection import (
    Client,
    Database,
    check_url,
    close,
    leave,
    make_client,
    silent_servers,
)
from mydocs.migrations.reporting.events import Event, Sink
from mydocs.migrations.reporting.report import ErrorReport, Outcome, RunFinished, RunReport, to_json
from mydocs.migrations.settings import Settings, secrets_of

T = TypeVar("T")
Act = Callable[[Database, Sink], Awaitable[T]]

LOCAL_DIRECTORY = ".mydocs"
SHOW_CURSOR = b"\x1b[?25h"
NOTICE_SECONDS = 3.0  # of silence; after it an operator is told what the program waits for


def call(settings: Settings, streams: Streams, view: Sink, act: Act[T]) -> T:
    """
    Make one async call on the settings' database.

    :raises Interrupted: after SIGINT or SIGTERM, with the report of what was done until then
    :raises MigrationError: the call's error, or the reason why there is no connection
    """
    last: list[RunReport] = []

    def sink(event: Event) -> None:
        if isinstance(event, RunFinished):
            last[:] = [event.report]
        view(event)

    with watched(partial(say, streams)) as watch:
        try:
            with _server(settings, streams) as url:
                watch.last_words = partial(_last_words, settings, streams)
                streams.secrets = (*settings.secrets, *secrets_of(url, None))
                check_url(url, streams.secrets)
                try:
                    return asyncio.run(_main(settings, url, watch, streams, sink, act))
                finally:
                    watch.last_words = None
        except KeyboardInterrupt:
            pass
        except asyncio.CancelledError as error:
            if watch.received is None:
                problem = _cancelled_by_a_script(error)
                problem.report = last[0] if last else None
                raise problem from error
        except MigrationError:
            # The script's answer to its cancellation is in the report. The message says why it was cancelled.
            if watch.received is None:
                raise
        interrupted = Interrupted(watch.received or signal.SIGINT)
        interrupted.report = last[0] if last else None
        raise interrupted


def _cancelled_by_a_script(error: asyncio.CancelledError) -> MigrationError:
    """Return the error for a call that was cancelled without a signal: a script has cancelled all tasks."""
    cause = error.__cause__
    if isinstance(cause, MigrationError):
        return cause
    return MigrationError("a script cancelled all tasks of the event loop; let it cancel only those that it has made")


async def _main(settings: Settings, url: str, watch: Watch, streams: Streams, sink: Sink, act: Act[T]) -> T:
    client = make_client(settings, url)
    notice = asyncio.get_running_loop().call_later(NOTICE_SECONDS, _notice, client, streams)
    try:
        with watch.cancelling():
            result = await act(client[settings.database], sink)
            if watch.received is None:
                return result
        # Also if everything was done: a plain script runs to its end, but the caller asked to stop.
        raise Interrupted(watch.received or signal.SIGINT)
    finally:
        notice.cancel()
        if streams.own_process:
            leave(client)
        else:
            await close(client)


@contextlib.contextmanager
def _server(settings: Settings, streams: Streams) -> Iterator[str]:
    """Yield the URL: the given one, or that of a local server that runs until the block ends."""
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

    :raises SettingsInvalid: if this system cannot run it
    """
    try:
        from mydocs.localserver import launch
    except ImportError as error:
        raise SettingsInvalid(
            f"the local server cannot run here ({error}); install it with `pip install 'mydocs[local]'`, or use --url"
        ) from error
    return launch


def _notice(client: Client, streams: Streams) -> None:
    if (servers := silent_servers(client)) is not None:
        streams.note(f"waiting for the server {servers}")


def say(streams: Streams, text: str) -> None:
    """Write a line from a signal's handler, which may interrupt a write to the stream."""
    if streams.err is None:
        return
    line = f"mydocs: {text}"
    if streams.log_format is LogFormat.JSON:
        time = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = json.dumps({"time": time, "level": "warning", "event": "signal", "message": text})
    if streams.rows:
        # In the place of the live view, which is drawn anew below: its cursor stands at the end of its last row.
        up = f"\x1b[{streams.rows - 1}A" if streams.rows > 1 else ""
        line = f"{up}\r\x1b[J{line}" + "\n" * (streams.rows - 1)
    with contextlib.suppress(OSError, ValueError):
        os.write(streams.err.fileno(), line.encode() + b"\n")


def _last_words(settings: Settings, streams: Streams, code: int) -> None:
    """Show the terminal's cursor and write the last JSON object to stdout, for a process that is left at once."""
    if streams.above is not None and streams.err is not None:  # a live view, which hides the cursor
        os.write(streams.err.fileno(), SHOW_CURSOR)
    if streams.output is not Output.JSON or streams.out is None:
        return
    message = "left at once, by a second signal; `mydocs migrate status` shows what is unfinished"
    error = ErrorReport(type=Interrupted.__name__, message=message, exit_code=code)
    report = RunReport(outcome=Outcome.INTERRUPTED, database=settings.database, error=error)
    os.write(streams.out.fileno(), json.dumps(to_json(report)).encode() + b"\n")
