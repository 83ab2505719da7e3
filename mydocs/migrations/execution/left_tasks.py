"""Find the tasks that a script has left running, and do not let it stop the loop. No I/O; changes the loop."""

import asyncio
import inspect
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from mydocs.migrations.errors import NotPossible
from mydocs.migrations.scripts import load

TURNS = 3  # of the loop: enough for a task to end that was cancelled or has nothing left to do

_made: ContextVar[list[asyncio.Task[Any]] | None] = ContextVar("mydocs_tasks_of_the_script", default=None)
_watched: WeakKeyDictionary[asyncio.AbstractEventLoop, tuple[int, Any]] = WeakKeyDictionary()


async def call_watched(function: load.Step, *arguments: object) -> None:
    """
    Await a function of a script, and refuse unfinished work.

    :raises NotPossible: if it has left a task running, or returned an object that still has to be awaited
    :raises ScriptExit: in place of errors that must not reach the event loop
    """
    with tasks_watched() as made:
        await load.call(function, *arguments)
        await refuse_left_tasks(made)


@contextmanager
def tasks_watched() -> Iterator[list[asyncio.Task[Any]]]:
    """Yield the list of tasks that are created in this context until the block ends."""
    loop = asyncio.get_running_loop()
    made: list[asyncio.Task[Any]] = []
    count, before = _watched.get(loop, (0, loop.get_task_factory()))
    if not count:
        loop.set_task_factory(_factory_after(before))
        with suppress(AttributeError):  # uvloop's loops accept no attribute
            loop.stop = _stop_unless_asked_by_a_script(loop.stop)  # type: ignore[method-assign]
    _watched[loop] = count + 1, before
    token = _made.set(made)
    try:
        yield made
    finally:
        _made.reset(token)
        count, before = _watched.pop(loop)
        if count > 1:
            _watched[loop] = count - 1, before
        else:
            with suppress(AttributeError):
                del loop.stop  # the instance's attribute: the method of the class is visible again
            if getattr(loop.get_task_factory(), "is_ours", False):
                loop.set_task_factory(before)


async def refuse_left_tasks(made: list[asyncio.Task[Any]]) -> None:
    """
    End the tasks that a script has left running.

    :raises NotPossible: names one of them, if there are any, or if one has failed and its error was not awaited
    """
    for _ in range(TURNS):
        if all(task.done() for task in made):
            break
        await asyncio.sleep(0)
    left = [task for task in made if not task.done() and _is_the_scripts(task)]
    for task in left:
        task.cancel()
    if left:
        await asyncio.wait(left, timeout=1.0)
        raise NotPossible(
            f"{_name(left[0])} was still running when the script returned, and was cancelled; await each task that the "
            "script makes, for instance with `async with asyncio.TaskGroup()`"
        )
    for task in made:
        # Mark the error as retrieved. Otherwise asyncio logs it when the task is collected.
        if task.done() and not task.cancelled() and getattr(task, "_log_traceback", False):
            error = task.exception()
            raise NotPossible(f"{_name(task)} has failed and the script did not await it: {error!r}") from error


def _factory_after(before: Any) -> Any:
    def make(loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any], **options: Any) -> Any:
        task = before(loop, coroutine, **options) if before else asyncio.Task(coroutine, loop=loop, **options)
        made = _made.get()
        if made is not None:
            made.append(task)
        return task

    make.is_ours = True  # type: ignore[attr-defined]  # a function accepts any attribute
    return make


def _stop_unless_asked_by_a_script(stop: Callable[[], None]) -> Callable[[], None]:
    def stop_or_refuse() -> None:
        if _made.get() is not None:
            raise NotPossible("a script cannot stop the event loop, which is the run's; let `up` return instead")
        stop()

    return stop_or_refuse


def _is_the_scripts(task: asyncio.Task[Any]) -> bool:
    """Return whether a task does the script's work. A client of PyMongo has tasks of its own, which outlive it."""
    coroutine = task.get_coro()
    module = str(getattr(getattr(coroutine, "cr_frame", None), "f_globals", {}).get("__name__", ""))
    own = ("pymongo.asynchronous.collection", "pymongo.asynchronous.database", "pymongo.asynchronous.mongo_client")
    return module in own or not module.startswith(("pymongo.", "motor.", "anyio."))


def _name(task: asyncio.Task[Any]) -> str:
    coroutine = task.get_coro()
    code = getattr(coroutine, "cr_code", None)
    name = getattr(coroutine, "__qualname__", "a task")
    if not inspect.iscode(code) or Path(code.co_filename).parent == Path(asyncio.__file__).parent:
        return f"the task {name}"  # a line of `asyncio.sleep` would look like a line of the script
    return f"the task {name} (line {code.co_firstlineno})"
