"""Write text: the result to stdout, all else to stderr, and neither credentials nor control characters. I/O."""

import contextlib
import logging
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:  # a command without a database makes no report and must not import it
    from mydocs.migrations.reporting.report import RunReport

FREE_TEXTS = frozenset({"message", "reason", "next"})  # keys in JSON with free text; those with names are not included


class Output(StrEnum):
    """The format of stdout."""

    TABLE = "table"
    JSON = "json"
    QUIET = "quiet"  # nothing; errors still go to stderr


class LogFormat(StrEnum):
    """The format of a line on stderr."""

    TEXT = "text"
    JSON = "json"


class Streams:
    """The three streams of one invocation, and their formats."""

    def __init__(self, arguments: Sequence[str], *, own_process: bool = False) -> None:
        """
        Read the formats from the raw arguments.

        :param own_process: no code of this process needs stdout after the command
        """
        self.output = Output(_choice(arguments, ("--output", "-o"), tuple(Output), Output.TABLE))
        self.log_format = LogFormat(_choice(arguments, ("--log-format",), tuple(LogFormat), LogFormat.TEXT))
        self.verbose = bool({"--verbose", "-v"} & set(arguments))
        self.own_process = own_process
        self.out: TextIO | None = sys.stdout  # stored here, since scripts get other streams
        self.err: TextIO | None = sys.stderr
        self.above: Callable[[str], None] | None = None  # writes lines above a live view, while there is one
        self.rows = 0  # of the live view on the screen
        self.secrets: tuple[str, ...] = ()
        self.command: str | None = None  # as it was called, such as `mydocs migrate run`
        self.lost = False  # the result could not be written, and its reader did not cause that
        self.render: Callable[[RunReport], str] | None = None  # how the present command shows its report
        self.alarm: str | None = None  # first character of lines that are red on a terminal
        self.also: list[Callable[[RunReport], None]] = []  # other receivers of the report, however the command ends

    @property
    def subcommand(self) -> str | None:
        """Return the last word of the command, such as `run`."""
        return self.command.rpartition(" ")[2] if self.command else None

    @property
    def width(self) -> int | None:
        """Return the columns of the terminal, or ``None`` if stdout is not one."""
        if self.out is None or not self.out.isatty():
            return None
        given = os.environ.get("COLUMNS", "")
        if given.isdigit() and int(given):
            return int(given)
        with contextlib.suppress(OSError, ValueError):
            return os.get_terminal_size(self.out.fileno()).columns or None
        return None

    @property
    def is_unicode(self) -> bool:
        """Return whether stdout can encode every character."""
        return _is_unicode(self.out)

    def redacted(self, text: str) -> str:
        """Remove the credentials from a free text."""
        if not self.secrets and "mongodb" not in text.lower():
            return text
        from mydocs.migrations.reporting.redaction import redact

        return redact(text, self.secrets)

    def readable(self, text: str) -> str:
        """Remove the credentials from a free text for a file, and make its control characters visible."""
        from mydocs.migrations.reporting.escaping import visible

        # Credentials first, since one may contain characters that are escaped.
        return visible(self.redacted(text))

    def clean(self, text: str) -> str:
        """Do the same for a terminal or a log, and escape lines that a CI service would take for commands."""
        from mydocs.migrations.reporting.escaping import harmless

        return harmless(self.redacted(text))

    def result(self, text: str) -> None:
        """Write the result. If its reader has gone away, only the output ends."""
        from mydocs.migrations.reporting.escaping import harmless

        if text:
            self._write_result(self._with_colour(harmless(text)))

    def _with_colour(self, text: str) -> str:
        """Make the lines of an alarm red, only on a terminal, and after all escaping."""
        if self.alarm is None or self.out is None or os.environ.get("NO_COLOR") or not self.out.isatty():
            return text
        lines = text.split("\n")
        return "\n".join(
            f"\x1b[31m{line}\x1b[0m" if line.lstrip().startswith(f"{self.alarm} ") else line for line in lines
        )

    def result_json(self, document: dict[str, Any]) -> None:
        """Write the result as one JSON object on one line."""
        self._write_result(_dumps(self._writable(document), self.out))

    def line(self, text: str) -> None:
        """Write a line of text to stderr. A closed reader or a full disk changes nothing about the work."""
        self.line_as_it_is(self.clean(text))

    def line_as_it_is(self, text: str) -> None:
        """Write a line of our own, which may be a command for a CI service."""
        if self.above is not None:
            self.above(text)
        elif self.err is not None:
            with contextlib.suppress(OSError, ValueError):
                self.err.write(_encodable(text, self.err) + "\n")
                self.err.flush()

    def note(self, text: str, level: str = "info") -> None:
        """Inform the operator, in the format of stderr."""
        if self.log_format is LogFormat.JSON:
            self.line_json({"level": level, "event": "note", "message": text})
        else:
            warning = "warning: " if level == "warning" else ""
            self.line(f"mydocs: {warning}{text}")

    def line_json(self, document: dict[str, Any]) -> None:
        """Write one JSON object to stderr: time, level, event and message first."""
        first = {"time": datetime.now(UTC).isoformat(timespec="milliseconds")}
        first |= {key: document[key] for key in ("level", "event", "message")}
        self.line_as_it_is(_dumps(self._writable({**first, **document}), self.err))

    def trace(self, error: BaseException) -> None:
        """Write where an error came from, if --verbose is set."""
        if self.verbose:
            from mydocs.cli.tracebacks import traceback_text

            self.text("traceback", "debug", traceback_text(error))

    def text(self, event: str, level: str, text: str) -> None:
        """Write a complete text as it is, or as the message of an event if lines are JSON."""
        if self.log_format is LogFormat.JSON:
            self.line_json({"level": level, "event": event, "message": text})
        else:
            self.line(text)

    def _writable(self, value: Any) -> Any:
        """Remove credentials from the free texts of a JSON value, and numbers that JSON does not have."""
        if isinstance(value, dict):
            return {
                key: self.redacted(item) if isinstance(item, str) and key in FREE_TEXTS else self._writable(item)
                for key, item in value.items()
            }
        if isinstance(value, list | tuple):
            return [self.redacted(item) if isinstance(item, str) else self._writable(item) for item in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    def _write_result(self, text: str) -> None:
        if self.out is None:
            return
        try:
            self.out.write(_encodable(text, self.out) + "\n")
            self.out.flush()
        except BrokenPipeError:
            silence(self.out)
        except OSError as error:
            silence(self.out)
            self.lost = True
            self.line(f"mydocs: error: the result cannot be written to stdout: {error.strerror}")


_current: ContextVar[Streams] = ContextVar("streams")


def current() -> Streams:
    """Return the streams of this invocation."""
    return _current.get()


@contextlib.contextmanager
def opened(arguments: Sequence[str], *, own_process: bool = False) -> Iterator[Streams]:
    """Open the streams of an invocation, and send the log records of the library to stderr."""
    streams = Streams(arguments, own_process=own_process)
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


def silence(stream: TextIO) -> None:
    """Redirect a stream to nowhere, so that the flush at exit finds no broken pipe."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


class _LogHandler(logging.Handler):
    def __init__(self, streams: Streams) -> None:
        super().__init__()
        self._streams = streams

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            if self._streams.verbose:
                from mydocs.cli.tracebacks import traceback_text

                text += f"\n{traceback_text(record.exc_info[1])}"
            else:
                text += f" ({type(record.exc_info[1]).__name__}: {record.exc_info[1]})"
        level = record.levelname.lower()
        if self._streams.log_format is LogFormat.JSON:
            self._streams.line_json({"level": level, "event": "log", "message": text, "logger": record.name})
        else:
            self._streams.line(f"{level}: {text}")


def _choice(arguments: Sequence[str], names: tuple[str, ...], allowed: tuple[str, ...], default: str) -> str:
    """Find an option's value in raw arguments, so that a usage error also has the requested format."""
    found = default
    for index, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name in names:
            found = value if equals else next(iter(arguments[index + 1 : index + 2]), default)
    return found if found in allowed else default


def _dumps(document: dict[str, Any], stream: TextIO | None) -> str:
    import json  # `--help` and tables must not import it

    from mydocs.migrations.reporting.escaping import harmless_json

    return harmless_json(json.dumps(document, ensure_ascii=not _is_unicode(stream), default=str))


def _is_unicode(stream: TextIO | None) -> bool:
    return (getattr(stream, "encoding", None) or "").lower().replace("-", "").startswith("utf")


def _encodable(text: str, stream: TextIO) -> str:
    """Return a text in a stream's encoding. Characters that it cannot hold become their escapes."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, errors="backslashreplace").decode(encoding)
