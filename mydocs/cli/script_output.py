"""
Redirect what scripts, and programs that they start, print: cleaned, line by line, to stderr. I/O.

Output of this process comes through `sys.stdout` and `sys.stderr`. Output of programs, forked workers and C code comes
through the two descriptors, which are redirected to a pipe if the process is ours alone. In that case stdout belongs to
the result until the end: a thread or an exit handler of a script may still print at any time.
"""

import codecs
import contextlib
import io
import os
import select
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, TextIO

from mydocs.cli.streams import Streams

STDOUT, STDERR = 1, 2
LONGEST_LINE = 65_536  # characters that are kept until the end of their line
PATIENCE = 0.2  # seconds to wait for the end of a line; then the incomplete line is shown
DRAIN_SECONDS = 1.0  # for the rest in the pipe; a program that a script left running may keep it open


@contextlib.contextmanager
def collected(streams: Streams) -> Iterator[None]:
    """
    Send all output inside a block to stderr.

    In a process of our own, Python's two streams write to stderr even after the block, until the process ends.
    """
    before = sys.stdout, sys.stderr
    _flush(*before)
    lines = Lines(lambda line: streams.text("output", "info", line))
    with contextlib.ExitStack() as stack:
        stack.enter_context(_descriptors(streams, lines))
        if not isinstance(before[0], ScriptStream):
            sys.stdout, sys.stderr = ScriptStream(lines, STDOUT), ScriptStream(lines, STDERR)
        try:
            yield
        finally:
            _flush(sys.stdout, sys.stderr)
            lines.flush()
            if not streams.own_process:
                sys.stdout, sys.stderr = before


class Lines:
    """Join pieces to lines and pass each line on, since a credential may arrive in two pieces."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._lock = threading.RLock()
        self._rest = ""

    def feed(self, text: str) -> None:
        with self._lock:
            # A single carriage return redraws a line, as progress bars do.
            *whole, self._rest = (self._rest + text).replace("\r\n", "\n").replace("\r", "\n").split("\n")
            for line in whole:
                self._say(line)
            if len(self._rest) > LONGEST_LINE:
                self.flush()

    def flush(self) -> None:
        """Pass on the incomplete last line."""
        with self._lock:
            line, self._rest = self._rest, ""
            if line:
                self._say(line)


class ScriptStream(io.TextIOBase):
    """The `sys.stdout` and `sys.stderr` of a script."""

    encoding = "utf-8"
    errors = "backslashreplace"

    def __init__(self, lines: Lines, descriptor: int) -> None:
        self._lines, self._descriptor = lines, descriptor
        self.buffer: Any = _Bytes(self)

    def write(self, text: str) -> int:
        self._lines.feed(text)
        return len(text)

    def flush(self) -> None:
        pass  # each line is shown when it ends, and the rest at the end of the block

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return False

    def reconfigure(self, **_: object) -> None:
        """Accept the arguments of a real stream, without effect."""

    def fileno(self) -> int:
        return self._descriptor


class _Bytes(io.RawIOBase):
    """The same for bytes."""

    def __init__(self, stream: ScriptStream) -> None:
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")

    def write(self, raw: Any) -> int:
        self._stream.write(self._decoder.decode(bytes(raw)))
        return len(raw)

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._stream.fileno()


@contextlib.contextmanager
def _descriptors(streams: Streams, lines: Lines) -> Iterator[None]:
    """Redirect the descriptors of stdout and stderr into the lines, or only stdout to stderr."""
    if not streams.own_process:
        with _out_to_err():
            yield
        return
    streams.out, streams.err = _reopened(streams.out, STDOUT), _reopened(streams.err, STDERR)
    reading, writing = os.pipe()
    for descriptor in (STDOUT, STDERR):
        os.dup2(writing, descriptor)
    os.close(writing)
    is_over = threading.Event()
    reader = threading.Thread(target=_read, args=(reading, lines, is_over), name="mydocs-script-output", daemon=True)
    reader.start()
    try:
        yield
    finally:
        err = os.open(os.devnull, os.O_WRONLY) if streams.err is None else streams.err.fileno()
        for descriptor in (STDOUT, STDERR):
            os.dup2(err, descriptor)
        is_over.set()
        reader.join(DRAIN_SECONDS)


@contextlib.contextmanager
def _out_to_err() -> Iterator[None]:
    try:
        out = os.dup(STDOUT)
        os.dup2(STDERR, STDOUT)
    except OSError:  # the descriptor is closed
        yield
        return
    try:
        yield
    finally:
        os.dup2(out, STDOUT)
        os.close(out)


def _reopened(stream: TextIO | None, descriptor: int) -> TextIO | None:
    """Reopen a stream on a new descriptor, since its present one will be redirected."""
    try:
        if stream is None or stream.fileno() != descriptor:
            return stream
    except (OSError, ValueError):
        return stream
    return open(  # noqa: PTH123  # a descriptor is not a path; it lives as long as the process
        os.dup(descriptor), "w", encoding=stream.encoding, errors=stream.errors, buffering=1
    )


def _read(descriptor: int, lines: Lines, is_over: threading.Event) -> None:
    decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
    while True:
        ready, _, _ = select.select([descriptor], [], [], PATIENCE)
        if not ready:
            lines.flush()
            if is_over.is_set():
                return  # a program that a script left running has the other end; its output is lost from now on
            continue
        raw = os.read(descriptor, LONGEST_LINE)
        if not raw:
            break
        lines.feed(decoder.decode(raw))
    lines.flush()
    os.close(descriptor)


def _flush(*streams: TextIO | None) -> None:
    for stream in streams:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()  # type: ignore[union-attr]  # the error of a None, from `>&-`, is suppressed
