"""Turn a script into something to call: an async ``up`` and ``down``, or the whole module in a worker thread."""

import asyncio
import contextlib
import io
import os
import sys
import threading
import traceback
import types
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

import anyio.to_thread

from mydocs.migrations.errors import ScriptsInvalid
from mydocs.migrations.model import Script
from mydocs.migrations.scripts.discover import checksum, read_source

Step = Callable[..., Awaitable[None]]

# What `python script.py` sets for the whole process (sys.argv, sys.path, __main__, standard output) is set for one
# plain script at a time.
_process_lock = threading.Lock()


class ScriptExit(Exception):
    """A script left in a way that must not be passed on: by SystemExit, or by what is no ``Exception``."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(_exit_text(error))
        self.__cause__ = error


def load_async(script: Script) -> types.ModuleType:
    """
    Execute the module of an async script and check its functions.

    :raises ScriptsInvalid: with file and line, where it cannot be imported
    """
    module = types.ModuleType(f"mydocs_migration_{script.version}")
    module.__file__ = str(script.path)
    sys.modules[module.__name__] = module  # dataclasses and pickle look a class's module up by its name
    try:
        with _import_path(script.path.parent):
            exec(_compile(script), module.__dict__)
    except ScriptsInvalid:
        raise
    except (Exception, SystemExit) as error:
        where = place_in(script.path, error)
        problem = f"{type(error).__name__}: {text_of(error)}".rstrip(": ")
        raise ScriptsInvalid([f"{script.file_name}{where} cannot be loaded: {problem}"]) from error
    finally:
        sys.modules.pop(module.__name__, None)  # two runs of one process may load the same script at once
    for name in ("up", "down") if script.reversible else ("up",):
        if not callable(getattr(module, name, None)):
            raise ScriptsInvalid([f"{script.file_name}: after its import there is no function `{name}` any more"])
    return module


def load_plain(script: Script) -> types.CodeType:
    """
    Compile a plain script, which finds what parsing does not, and run nothing of it.

    :raises ScriptsInvalid: with file and line, where it cannot be compiled
    """
    try:
        return _compile(script)
    except SyntaxError as error:
        raise ScriptsInvalid([f"{script.file_name}, line {error.lineno} is not valid Python: {error.msg}"]) from error


async def call(step: Step, *arguments: object) -> None:
    """
    Await an ``up`` or ``down``.

    :raises ScriptExit: in place of what an event loop must not meet
    """
    try:
        await step(*arguments)
    except (Exception, asyncio.CancelledError):
        raise
    except BaseException as error:
        if not _is_success(error):
            raise ScriptExit(error) from error


async def run_plain(path: Path, code: types.CodeType) -> None:
    """
    Run a whole file once as ``python path`` would, in a worker thread.

    A thread cannot be stopped, and what it does must be recorded as it ended: await it where nothing is cancelled.

    :param code: of :func:`load_plain`: what runs is what was checked, whatever has become of the file since
    :raises ScriptExit: where it leaves with a status other than 0
    """
    await anyio.to_thread.run_sync(_run_as_main, path, code)


def place_in(path: Path, error: BaseException) -> str:
    """Say in which line of the script an error arose: ``, line 12``; empty where it did not pass through it."""
    line = line_in(path, error)
    return "" if line is None else f", line {line}"


def cause_of(error: BaseException) -> BaseException:
    """Return what a script meant to raise: what lies below a wrapper of ours, or alone in a group."""
    while True:
        if isinstance(error, ScriptExit) and error.__cause__ is not None:
            error = error.__cause__
        elif isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
            error = error.exceptions[0]
        else:
            return error


def text_of(error: BaseException) -> str:
    """Return an error's own words; of a group those of all that is in it."""
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(f"{type(each).__name__}: {text_of(each)}".rstrip(": ") for each in error.exceptions)
    return _exit_text(error)


def line_in(path: Path, error: BaseException) -> int | None:
    """Return the line of the script in which an error arose, where it passed through it."""
    error = cause_of(error)
    frames = traceback.walk_tb(error.__traceback__)
    lines = [line for frame, line in frames if frame.f_code.co_filename == str(path)]
    if lines:
        return lines[-1]
    return error.lineno if isinstance(error, SyntaxError) and error.filename == str(path) else None


def _run_as_main(path: Path, code: types.CodeType) -> None:
    module = types.ModuleType("__main__")
    module.__file__ = str(path)
    module.__dict__["__builtins__"] = __builtins__
    with _process_lock, _as_main(module, path):
        try:
            exec(code, module.__dict__)
        except Exception:
            raise
        except BaseException as error:
            if not _is_success(error):
                raise ScriptExit(error) from error


class _ToStderr(io.RawIOBase):
    """Where a plain script's streams end. To close them closes this object and not standard error."""

    def __init__(self, stderr: TextIO | None) -> None:
        self._stderr = stderr

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        isatty = getattr(self._stderr, "isatty", None)  # an application may have put an object with a `write` there
        return isatty is not None and bool(isatty())

    def fileno(self) -> int:
        return super().fileno() if self._stderr is None else self._stderr.fileno()

    def write(self, data: Any) -> int:
        raw = bytes(data)
        if self._stderr is None:  # `2>&-`
            return len(raw)
        buffer = getattr(self._stderr, "buffer", None)
        if buffer is None:
            self._stderr.write(raw.decode("utf-8", "backslashreplace"))
        else:
            self._stderr.flush()
            buffer.write(raw)
        self._stderr.flush()
        return len(raw)


@contextlib.contextmanager
def _as_main(module: types.ModuleType, path: Path) -> Iterator[None]:
    arguments, main, stdout, stderr = sys.argv, sys.modules["__main__"], sys.stdout, sys.stderr
    output, errors = _stream(stderr), _stream(stderr)
    folder = None
    with contextlib.suppress(OSError):
        folder = os.getcwd()  # noqa: PTH109  # Path.cwd() is no other
    sys.argv, sys.modules["__main__"], sys.stdout, sys.stderr = [str(path)], module, output, errors
    try:
        with _import_path(path.parent):
            yield
    finally:
        if folder is not None:
            with contextlib.suppress(OSError):  # it may be gone by now
                os.chdir(folder)
        sys.argv, sys.modules["__main__"], sys.stdout, sys.stderr = arguments, main, stdout, stderr
        for stream in (output, errors):
            with contextlib.suppress(ValueError):  # closed by the script
                stream.flush()


def _stream(stderr: TextIO | None) -> TextIO:
    buffer = io.BufferedWriter(_ToStderr(stderr))
    return io.TextIOWrapper(buffer, encoding="utf-8", errors="backslashreplace", line_buffering=True)


@contextlib.contextmanager
def _import_path(folder: Path) -> Iterator[None]:
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # the script may have taken it out itself
            sys.path.remove(str(folder))


def _compile(script: Script) -> types.CodeType:
    source = None
    with contextlib.suppress(OSError, SyntaxError, UnicodeDecodeError):
        source = read_source(script.path)
    if source is None or checksum(source) != script.checksum:  # what was planned, and will be recorded, is another text
        problem = "was edited or removed while this run began; give the same command again"
        raise ScriptsInvalid([f"{script.file_name} {problem}"])
    return compile(source, str(script.path), "exec", dont_inherit=True)


def _is_success(error: BaseException) -> bool:
    return isinstance(error, SystemExit) and (error.code is None or error.code == 0)


def _exit_text(error: BaseException) -> str:
    if isinstance(error, SystemExit) and isinstance(error.code, int):
        return f"exited with status {error.code}"
    if isinstance(error, asyncio.CancelledError):
        return "a task was cancelled, and not by the run"
    try:
        return str(error)
    except Exception:  # noqa: BLE001  # the script's own `__str__`
        return "<its text cannot be shown>"
