"""Turn the options of a command into its one call of an operation. I/O. The call imports the driver."""

import os
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, TypeVar

from mydocs.cli.options import Common
from mydocs.cli.streams import current

if TYPE_CHECKING:  # `--help` and `list` must not import them
    from concurrent.futures import Executor

    from mydocs.cli.report_file import ReportFile
    from mydocs.migrations.indexes.standard_list import IndexModels
    from mydocs.migrations.operations.connection import Database
    from mydocs.migrations.reporting.events import Sink
    from mydocs.migrations.reporting.report import RunReport
    from mydocs.migrations.settings import Flags, Settings

T = TypeVar("T")


class Shared(TypedDict):
    """The arguments of every operation with a report."""

    directory: Path
    on_event: "Sink"


def report(
    common: Common,
    operation: "Callable[[Database, Shared], Awaitable[RunReport]]",
    text: "Callable[[RunReport], str]",
    *,
    file: "ReportFile | None" = None,
) -> "RunReport":
    """
    Make the one call of a command that ends in a report.

    :param operation: imports its module itself, since that imports the driver
    :param text: shows the report as text, also the report of a failed call
    :param file: the file of `--report`
    """
    streams = current()
    streams.render = text
    if file is not None:
        streams.also.append(partial(file.write, streams))
    watchers = () if file is None else (file.recorder.take,)
    return call(common, operation, *watchers)


def call(common: Common, operation: "Callable[[Database, Shared], Awaitable[T]]", *watchers: "Sink") -> T:
    """
    Await an operation on the database of the settings.

    :param watchers: receive the call's events, besides the operator's view
    """
    streams, chosen = current(), settings(common)
    streams.secrets = chosen.secrets
    from mydocs.cli import connect, live_view, script_output
    from mydocs.migrations.reporting.sinks import fan_out

    with script_output.collected(streams), live_view.view(streams) as view, _importable_from_here():
        sink = fan_out(*watchers, view) if watchers else view
        return connect.call(
            chosen, streams, sink, lambda db, sink: operation(db, {"directory": chosen.directory, "on_event": sink})
        )


@contextmanager
def _importable_from_here() -> Iterator[None]:
    """Let scripts import modules from the working directory, as `python -m` does."""
    try:
        here = str(Path.cwd())
    except OSError:  # it was removed
        yield
        return
    sys.path.insert(0, here)
    try:
        yield
    finally:
        with suppress(ValueError):  # a script may have removed it itself
            sys.path.remove(here)


def report_file(name: str | None, command: str) -> "ReportFile | None":
    """Read the value of --report, before anything runs."""
    if name is None:
        return None
    from mydocs.cli import report_file as files

    return files.report_file(name, command)


def directory(common: Common) -> "Path":
    """Return the folder of the scripts, the only setting of a command without a database."""
    from mydocs.migrations.settings import load_directory

    return load_directory(flags(common), os.environ)


def standard_indexes(flag: str | None) -> "IndexModels":
    """Decide the standard indexes of a command; ``flag`` is the value of --indexes."""
    from pathlib import Path

    from mydocs.migrations.project import standard_indexes as of_project

    return of_project(flag, Path.cwd())


def is_own_project() -> bool:
    """Return whether a pyproject.toml has settings for mydocs."""
    from pathlib import Path

    from mydocs.migrations.project import find_project

    return find_project(Path.cwd()).file is not None


def flags(common: Common) -> "Flags":
    """Return the command line's settings of the database and the scripts."""
    from mydocs.migrations.settings import Flags

    return Flags(url=common.url, db=common.db, dir=common.dir, env_file=common.env_file, local=common.local)


def settings(common: Common) -> "Settings":
    """Decide the settings of this invocation."""
    from mydocs.migrations.settings import load_settings

    return load_settings(flags(common), os.environ)


def duration(text: str, option: str) -> float:
    """Read a duration in seconds; 0 is 0."""
    from mydocs.migrations.settings import parse_duration

    return parse_duration(text, option)


def whole_number(text: str, option: str) -> int:
    """Read a whole number, 0 or more."""
    if not (text.isascii() and text.isdigit()):
        raise usage(f'{option}: "{text}" is not a whole number; write 0 or more')
    return int(text)


def limit(text: str, option: str) -> float | None:
    """Read a duration in seconds; 0 means no limit."""
    from mydocs.migrations.settings import parse_limit

    return parse_limit(text, option)


def wait_limit(wait: bool, timeout: str | None) -> float | None:
    """Read the limit of an optional wait."""
    seconds = limit("1h" if timeout is None else timeout, "--timeout")
    if timeout is not None and not wait:
        raise usage("--timeout limits the wait of --wait; give both, or leave --timeout out")
    return seconds


@contextmanager
def engine(workers: int | None, dask: str | None) -> "Iterator[Executor | None]":
    """Yield the executor for a run's data changes: local processes, a Dask cluster, or ``None``."""
    if workers is not None and dask is not None:
        raise usage("--workers and --dask exclude each other; leave one of them out")
    if workers is None and dask is None:
        yield None
        return
    from mydocs.migrations.operations import executors

    with executors.dask(dask) if dask is not None else executors.processes(workers or 1) as executor:
        yield executor


def usage(sentence: str) -> Exception:
    """Return the error for options that exclude each other."""
    from mydocs.migrations.errors import SettingsInvalid

    return SettingsInvalid(sentence)
