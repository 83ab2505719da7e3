"""Where text goes: the result to stdout, all else to stderr, no credential to either. I/O."""

import contextlib
import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:  # a command without a database makes no report and pays for none
    from mydocs.migrations.reporting.report import RunReport

STDOUT, STDERR = 1, 2


class Output(StrEnum):
    """What stdout gets."""

    TABLE = "table"
    JSON = "json"
    QUIET = "quiet"  # nothing; errors still go to stderr


class LogFormat(StrEnum):
    """How a line on stderr looks."""

    TEXT = "text"
    JSON = "json"


class Streams:
    """The three streams of one invocation and how it wants them written."""

    def __init__(self, arguments: Sequence[str]) -> None:
        self.output = Output(_choice(arguments, ("--output", "-o"), tuple(Output), Output.TABLE))
        self.log_format = LogFormat(_choice(arguments, ("--log-format",), tuple(LogFormat), LogFormat.TEXT))
        self.verbose = bool({"--verbose", "-v"} & set(arguments))
        self.secrets: tuple[str, ...] = ()
        self.command: str | None = None  # as it is called, such as `mydocs migrate run`
        self.lost = False  # the result was not written, by no wish of its reader
        self.render: Callable[[RunReport], str] | None = None  # how the command at work shows its report
        self.also: list[Callable[[RunReport], None]] = []  # who else gets the report, however the command ends

    @property
    def subcommand(self) -> str | None:
        """The last word of the command, such as `run`."""
        return self.command.rpartition(" ")[2] if self.command else None

    def clean(self, text: str) -> str:
        """Take the credentials out of a free text."""
        if not self.secrets and "mongodb" not in text.lower():
            return text
        from mydocs.migrations.reporting.redaction import redact

        return redact(text, self.secrets)

    def clean_values(self, value: Any) -> Any:
        """Take the credentials out of the free texts of a JSON value: what is called message, reason or error."""
        if isinstance(value, dict):
            return {
                key: self.clean(item)
                if isinstance(item, str) and key in {"message", "reason", "what"}
                else self.clean_values(item)
                for key, item in value.items()
            }
        return [self.clean_values(item) for item in value] if isinstance(value, list) else value

    def result(self, text: str) -> None:
        """Write the result; a reader that has gone away ends the output and nothing else."""
        if sys.stdout is None or not text:
            return
        try:
            sys.stdout.write(_encodable(text, sys.stdout) + "\n")
            sys.stdout.flush()
        except BrokenPipeError:
            silence_stdout()
        except OSError as error:
            silence_stdout()
            self.lost = True
            self.line(f"mydocs: error: the result cannot be written to stdout: {error.strerror}")

    def result_json(self, document: dict[str, Any]) -> None:
        """Write the result as one JSON object on one line."""
        self.result(_dumps(self.clean_values(document), sys.stdout))

    def line(self, text: str) -> None:
        """Write one line of text to stderr; a reader or a disk that is gone changes nothing about the work."""
        if sys.stderr is None:
            return
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(_encodable(self.clean(text), sys.stderr) + "\n")
            sys.stderr.flush()

    def note(self, text: str, kind: str = "note") -> None:
        """Tell the operator something, in the format that stderr has."""
        if self.log_format is LogFormat.JSON:
            self.line_json({"event": kind, "message": text})
        else:
            self.line(f"mydocs: {text}")

    def line_json(self, document: dict[str, Any]) -> None:
        """Write one JSON object to stderr, with the time."""
        stamped = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), **self.clean_values(document)}
        self.line(_dumps(stamped, sys.stderr))

    def trace(self, error: BaseException) -> None:
        """With --verbose: write where an error came from."""
        if self.verbose:
            self.line("".join(traceback.format_exception(error)).rstrip())


_current: ContextVar[Streams] = ContextVar("streams")


def current() -> Streams:
    """Return the streams of this invocation."""
    return _current.get()


@contextlib.contextmanager
def opened(arguments: Sequence[str]) -> Iterator[Streams]:
    """Give an invocation its streams, and the log records of the library their way to stderr."""
    streams = Streams(arguments)
    token = _current.set(streams)
    logger = logging.getLogger("mydocs")
    handler, level, passes_on = _LogHandler(streams), logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG if streams.verbose else logging.WARNING)
    logger.propagate = False
    try:
        yield streams
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = passes_on
        _current.reset(token)


@contextlib.contextmanager
def stdout_is_stderr() -> Iterator[int | None]:
    """
    Send what scripts, and processes that they start, print to stdout to stderr.

    The descriptor is what subprocesses inherit; the Python object is what a test runner or an application may have
    replaced by one without a descriptor. Both are given back. Yields a descriptor of the real stdout, if there is one.
    """
    saved = None
    with contextlib.suppress(OSError):
        saved = os.dup(STDOUT)
        _flush()
        os.dup2(STDERR, STDOUT)
    try:
        with contextlib.redirect_stdout(_ToStderr()):
            yield saved
    finally:
        _flush()
        if saved is not None:
            os.dup2(saved, STDOUT)
            os.close(saved)


def silence_stdout() -> None:
    """Point stdout nowhere, so that the flush at exit finds no broken pipe."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


class _ToStderr:
    """Looks the stream up at each write: the live view puts its own there while it shows."""

    encoding = "utf-8"
    errors = "backslashreplace"
    closed = False

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def writelines(self, lines: Sequence[str]) -> None:
        sys.stderr.writelines(lines)

    def flush(self) -> None:
        sys.stderr.flush()

    def isatty(self) -> bool:
        return sys.stderr.isatty()

    def fileno(self) -> int:
        return sys.stderr.fileno()

    def writable(self) -> bool:
        return True

    @property
    def buffer(self) -> Any:
        return sys.stderr.buffer


class _LogHandler(logging.Handler):
    def __init__(self, streams: Streams) -> None:
        super().__init__()
        self._streams = streams

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            if self._streams.verbose:
                text += "\n" + "".join(traceback.format_exception(record.exc_info[1])).rstrip()
            else:
                text += f" ({type(record.exc_info[1]).__name__}: {record.exc_info[1]})"
        if self._streams.log_format is LogFormat.JSON:
            self._streams.line_json(
                {"event": "log", "level": record.levelname.lower(), "logger": record.name, "message": text}
            )
        else:
            self._streams.line(f"{record.levelname.lower()}: {text}")


def _choice(arguments: Sequence[str], names: tuple[str, ...], allowed: tuple[str, ...], default: str) -> str:
    """Find an option's value in raw arguments: a usage error, too, is written the way that was asked for."""
    found = default
    for index, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name in names:
            found = value if equals else next(iter(arguments[index + 1 : index + 2]), default)
    return found if found in allowed else default


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()


def _dumps(document: dict[str, Any], stream: TextIO | None) -> str:
    import json  # help and tables start without it

    return json.dumps(document, ensure_ascii=not _is_unicode(stream), default=str)


def _is_unicode(stream: TextIO | None) -> bool:
    return (getattr(stream, "encoding", None) or "").lower().replace("-", "").startswith("utf")


def _encodable(text: str, stream: TextIO) -> str:
    """Return what a stream's encoding can hold; another character is written as its escape."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, errors="backslashreplace").decode(encoding)
