"""Run several tasks at the same time, and end in one error. No I/O of its own."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from anyio.abc import TaskGroup


@asynccontextmanager
async def one_error_group() -> AsyncIterator[TaskGroup]:
    """
    Open a task group whose first failure ends the others and is raised alone, never as a group.

    :raises Exception: the error of the first task that failed, unchanged
    """
    try:
        async with anyio.create_task_group() as group:
            yield group
    except ExceptionGroup as errors:
        raise _first(errors) from None


def _first(errors: ExceptionGroup[Exception]) -> Exception:
    error = errors.exceptions[0]
    return _first(error) if isinstance(error, ExceptionGroup) else error
