"""Load scripts: the module of an async script, the text of a plain one. I/O: reads files, executes async scripts."""

import asyncio
import inspect
import os
import sys
import threading
import traceback
import types
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from importlib import invalidate_caches
from itertools import count
from pathlib import Path
from typing import Any

from mydocs.migrations.driver.server_errors import words_of
from mydocs.migrations.errors import NotPossible, ScriptsInvalid
from mydocs.migrations.model import Problem, Script
from mydocs.migrations.scripts.discover import imports_of

PREFIX = "mydocs_migration_"  # start of the name of a script's module
MODULE_ADVICE = (
    "install it where mydocs runs, or run mydocs in the folder that contains it (the working directory and the folder "
    "of the scripts are searched)"
)

Step = Callable[..., Awaitable[object]]


class ScriptExit(Exception):
    """A script exit that must not reach the event loop: a SystemExit, or an error that is not an ``Exception``."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(_exit_text(error))
        self.__cause__ = error


@contextmanager
def importable(folders: Iterable[Path]) -> Iterator[None]:
    """
    Keep scripts, and the modules beside them, importable until the block ends.

    The modules of a folder are removed from ``sys.modules`` with the last block on it, so that scripts of another
    folder import their own modules.

    :raises ScriptsInvalid: if a script would import another module than the one beside it; names both
    """
    with ExitStack() as stack:
        for folder in dict.fromkeys(folders):
            _enter(folder)
            stack.callback(_leave, folder)
        yield


def load_async(script: Script) -> types.ModuleType:
    """
    Execute the module of an async script and check its functions.

    :raises ScriptsInvalid: with file and line, if it cannot be imported
    """
    module = _registered(script)
    try:
        exec(compile(script.source, str(script.path), "exec", dont_inherit=True), module.__dict__)
    except (Exception, SystemExit) as error:
        where = place_in(script.path, error)
        problem = f"{type(error).__name__}: {text_of(error)}".rstrip(": ")
        text = f"{script.file_name}{where} cannot be loaded: {problem}{advice_on(error)}"
        line = line_in(script.path, error)
        raise ScriptsInvalid([Problem(text=text, path=script.path, line=line)]) from error
    needed = ("up", *(["down"] if script.reversible else []), *(["verify"] if script.verifies else []))
    for name in needed:
        if not callable(getattr(module, name, None)):
            text = f"{script.file_name}: after its import there is no function `{name}` any more"
            raise ScriptsInvalid([Problem(text=text, path=script.path)])
    return module


def load_plain(script: Script) -> str:
    """
    Compile a plain script, which finds errors that parsing does not. Nothing is executed.

    :return: its text
    :raises ScriptsInvalid: with file and line, if it cannot be compiled
    """
    try:
        compile(script.source, str(script.path), "exec", dont_inherit=True)
    except SyntaxError as error:
        text = f"{script.file_name}, line {error.lineno} is not valid Python: {error.msg}"
        raise ScriptsInvalid([Problem(text=text, path=script.path, line=error.lineno)]) from error
    return script.source


async def call(step: Step, *arguments: object) -> None:
    """
    Await an ``up``, ``down`` or ``verify``.

    :raises NotPossible: if it returned an object that still has to be awaited
    :raises ScriptExit: in place of errors that must not reach the event loop
    """
    try:
        _refuse_unawaited(step, await step(*arguments))
    except (Exception, asyncio.CancelledError):
        raise
    except BaseException as error:
        if not _is_success(error):
            raise ScriptExit(error) from error


def place_in(path: Path, error: BaseException) -> str:
    """Return the script's line in which an error arose, as ``, line 12``, or an empty text if there is none."""
    line = line_in(path, error)
    return "" if line is None else f", line {line}"


def cause_of(error: BaseException) -> BaseException:
    """Return the script's own error: the cause of a wrapper of ours, or the only error of a group."""
    while True:
        if isinstance(error, ScriptExit) and error.__cause__ is not None:
            error = error.__cause__
        elif isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
            error = error.exceptions[0]
        else:
            return error


def text_of(error: BaseException) -> str:
    """Return the message of an error, or the messages of all errors of a group."""
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(f"{type(each).__name__}: {text_of(each)}".rstrip(": ") for each in error.exceptions)
    return _exit_text(error)


def line_in(path: Path, error: BaseException) -> int | None:
    """Return the script's line in which an error arose, or ``None`` if there is none."""
    error = cause_of(error)
    frames = traceback.walk_tb(error.__traceback__)
    lines = [line for frame, line in frames if frame.f_code.co_filename == str(path)]
    if lines:
        return lines[-1]
    return error.lineno if isinstance(error, SyntaxError) and error.filename == str(path) else None


def advice_on(error: BaseException) -> str:
    """Return advice about a module that is not found, or an empty text for any other error."""
    if not isinstance(error, ModuleNotFoundError):
        return ""
    return f"; {MODULE_ADVICE}"


_lock = threading.Lock()
_open: dict[Path, tuple[int, frozenset[str]]] = {}  # folder → number of runs, modules imported before the first


def _enter(folder: Path) -> None:
    with _lock:
        count, before = _open.get(folder, (0, frozenset(sys.modules)))
        if not count:
            _refuse_other_modules(folder)
            sys.path.insert(0, str(folder))
            invalidate_caches()  # files may have been added since Python last listed the folder
        _open[folder] = count + 1, before


def _leave(folder: Path) -> None:
    with _lock:
        count, before = _open.pop(folder)
        if count > 1:
            _open[folder] = count - 1, before
            return
        with suppress(ValueError):  # a script may have removed it itself
            sys.path.remove(str(folder))
        for name, module in list(sys.modules.items()):
            if name not in before and _is_of(folder, name, module):
                del sys.modules[name]


def _refuse_other_modules(folder: Path) -> None:
    """Refuse imports that would return a module of another folder: a process has one module of each name."""
    own = _modules_of(folder)
    for other in [each for each in _open if each != folder]:
        others = _modules_of(other)
        if mixed := (own & imports_of(other) if own else set()) | (others & imports_of(folder) if others else set()):
            name = min(mixed)
            problem = f"scripts of {folder} and of {other} run in one process at the same time"
            remedy = f"`import {name}` can mean one module only; run them one after the other, or rename it"
            raise ScriptsInvalid([f"{problem}, and {remedy}"])
    loaded = {name for name in own & sys.modules.keys() if not _is_of(folder, name, sys.modules[name])}
    loaded -= sys.stdlib_module_names
    for name in sorted(loaded & imports_of(folder) if loaded else ()):
        place = getattr(sys.modules[name], "__file__", None) or "elsewhere"
        problem = f"`import {name}` in {folder} means {name} in that folder"
        raise ScriptsInvalid([f"{problem}, and this program has loaded another one from {place}; rename the former"])


def _modules_of(folder: Path) -> set[str]:
    """Return the names of the modules in a folder."""
    names = {path.stem for path in folder.glob("*.py")}
    names |= {path.parent.name for path in folder.glob("*/*.py")}
    return {name for name in names if name.isidentifier()}


def _is_of(folder: Path, name: str, module: Any) -> bool:
    """Return whether a module is a script of a folder, or was imported from it by its name."""
    top = name.partition(".")[0]
    places = [getattr(module, "__file__", None)]
    with suppress(Exception):  # sys.modules may hold objects of any type
        places += [f"{place}{os.sep}" for place in getattr(module, "__path__", ())]
    beginnings = (f"{folder}{os.sep}{top}.", f"{folder}{os.sep}{top}{os.sep}")
    is_script = top.startswith(PREFIX) and str(places[0]).startswith(f"{folder}{os.sep}")
    return is_script or any(isinstance(place, str) and place.startswith(beginnings) for place in places)


def _registered(script: Script) -> types.ModuleType:
    """Return a new module for a script, registered under a name that is unique in this process."""
    name = base = f"{PREFIX}{script.version}"
    with _lock:
        numbers = count(2)
        while name in sys.modules:
            name = f"{base}_{next(numbers)}"
        module = sys.modules[name] = types.ModuleType(name)
    module.__file__ = str(script.path)
    return module


def _refuse_unawaited(step: Step, returned: object) -> None:
    """Refuse a coroutine as the result of a script: it is discarded, and its work with it."""
    if not inspect.isawaitable(returned) or (isinstance(returned, asyncio.Future) and returned.done()):
        return
    if isinstance(returned, types.CoroutineType):
        returned.close()
    function = getattr(step, "__name__", "the script")
    name = getattr(returned, "__qualname__", type(returned).__name__)
    problem = f"`{function}` returned {name} without awaiting it, so it may never run"
    raise NotPossible(f"{problem}; put `await` before it")


def _is_success(error: BaseException) -> bool:
    return isinstance(error, SystemExit) and (error.code is None or error.code == 0)


def _exit_text(error: BaseException) -> str:
    if isinstance(error, SystemExit) and isinstance(error.code, int):
        return f"exited with status {error.code}"
    if isinstance(error, asyncio.CancelledError):
        return "a task was cancelled, and not by the run"
    return words_of(error)
