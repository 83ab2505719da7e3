"""Turn a script into something to call: an async ``up`` and ``down``, or the whole module in a worker thread."""

import contextlib
import sys
import threading
import traceback
import types
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import anyio.to_thread

from mydocs.migrations.discover import read_source
from mydocs.migrations.errors import ScriptsInvalid
from mydocs.migrations.model import Script
from mydocs.migrations.tasks import to_the_end

Step = Callable[..., Awaitable[None]]

# What `python script.py` sets for the whole process (sys.argv, sys.path, __main__, standard output) is set for one
# plain script at a time.
_process_lock = threading.Lock()


class ScriptExit(Exception):
    """A script left with SystemExit and a status other than success."""


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
            exec(_compile(script.path), module.__dict__)
    except (Exception, SystemExit) as error:
        where = place_in(script.path, error)
        problem = f"{type(error).__name__}: {error}".rstrip(": ")
        raise ScriptsInvalid([f"{script.file_name}{where} cannot be loaded: {problem}"]) from error
    finally:
        sys.modules.pop(module.__name__, None)  # two runs of one process may load the same script at once
    for name in ("up", "down") if script.reversible else ("up",):
        if not callable(getattr(module, name, None)):
            raise ScriptsInvalid([f"{script.file_name}: after its import there is no function `{name}` any more"])
    return module


def check_plain(script: Script) -> None:
    """
    Compile a plain script, which finds what parsing does not, and run nothing of it.

    :raises ScriptsInvalid: with file and line, where it cannot be compiled
    """
    try:
        _compile(script.path)
    except SyntaxError as error:
        raise ScriptsInvalid([f"{script.file_name}, line {error.lineno} is not valid Python: {error.msg}"]) from error


async def call(step: Step, *arguments: object) -> bool:
    """
    Await an ``up`` or ``down``. Returns ``False``: it was not cancelled unnoticed; see :func:`run_plain`.

    :raises ScriptExit: in place of a SystemExit, which an event loop must not meet
    """
    try:
        await step(*arguments)
    except SystemExit as error:
        if not _is_success(error):
            raise ScriptExit(_exit_text(error)) from error
    return False


async def run_plain(path: Path) -> bool:
    """
    Run a whole file once as ``python path`` would, in a worker thread.

    Cancellation waits for it: a thread cannot be stopped, and what it does must be recorded as it ended.

    :return: whether the task was cancelled meanwhile, which is then the caller's to pass on
    :raises ScriptExit: where it leaves with a status other than 0
    """
    _, cancelled = await to_the_end(anyio.to_thread.run_sync(_run_as_main, path))
    return cancelled


def place_in(path: Path, error: BaseException) -> str:
    """Say in which line of the script an error arose: ``, line 12``; empty where it did not pass through it."""
    line = line_in(path, error)
    return "" if line is None else f", line {line}"


def line_in(path: Path, error: BaseException) -> int | None:
    """Return the line of the script in which an error arose, where it passed through it."""
    frames = traceback.walk_tb(error.__traceback__)
    lines = [line for frame, line in frames if frame.f_code.co_filename == str(path)]
    if lines:
        return lines[-1]
    return error.lineno if isinstance(error, SyntaxError) and error.filename == str(path) else None


def _run_as_main(path: Path) -> None:
    module = types.ModuleType("__main__")
    module.__file__ = str(path)
    module.__dict__["__builtins__"] = __builtins__
    with _process_lock, _as_main(module, path):
        try:
            exec(_compile(path), module.__dict__)
        except SystemExit as error:
            if not _is_success(error):
                raise ScriptExit(_exit_text(error)) from error


@contextlib.contextmanager
def _as_main(module: types.ModuleType, path: Path) -> Iterator[None]:
    arguments, main = sys.argv, sys.modules["__main__"]
    sys.argv, sys.modules["__main__"] = [str(path)], module
    try:
        with _import_path(path.parent), contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        sys.argv, sys.modules["__main__"] = arguments, main


@contextlib.contextmanager
def _import_path(folder: Path) -> Iterator[None]:
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # the script may have taken it out itself
            sys.path.remove(str(folder))


def _compile(path: Path) -> types.CodeType:
    return compile(read_source(path), str(path), "exec", dont_inherit=True)


def _is_success(error: SystemExit) -> bool:
    return error.code is None or error.code == 0


def _exit_text(error: SystemExit) -> str:
    return f"exited with status {error.code}" if isinstance(error.code, int) else str(error.code)
