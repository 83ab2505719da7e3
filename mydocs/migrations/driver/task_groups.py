"""Run several tasks at the same time, and end in one error. No I/O of its own."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeVar

import anyio

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

T = TypeVar("T")


@asynccontextmanager
async def one_error_group() -> AsyncIterator["TaskGroup"]:
    """
    Open a task group whose first failure ends the others and is raised alone, never as a group.

    :raises Exception: the error of the first task that failed, unchanged
    """
    try:
        async with anyio.create_task_group() as group:
            yield group
    except ExceptionGroup as errors:
        raise _first(errors) from None


async def all_or_first_error(works: Sequence[Callable[[], Awaitable[object]]], limit: int) -> None:
    """
    Do several works. The first failure ends the others.

    :param limit: how many at the same time; 1 for one after the other, in the caller's task
    :raises Exception: the error of the first that failed, unchanged
    """
    if limit == 1:
        for work in works:
            await work()
        return
    limiter = anyio.CapacityLimiter(limit)

    async def one(work: Callable[[], Awaitable[object]]) -> None:
        async with limiter:
            await work()

    async with one_error_group() as group:
        for work in works:
            group.start_soon(one, work)


async def at_the_same_time(works: Sequence[Callable[[], Awaitable[tuple[T, ...]]]], limit: int) -> tuple[T, ...]:
    """
    Do several works at the same time, and return the results of all, in the order of the works.

    :param limit: how many at the same time
    :raises Exception: the error of the first that failed, once all have ended
    """
    done: dict[int, tuple[T, ...]] = {}
    errors: list[Exception] = []
    limiter = anyio.CapacityLimiter(limit)

    async def one(place: int, work: Callable[[], Awaitable[tuple[T, ...]]]) -> None:
        try:
            async with limiter:
                done[place] = await work()
        except Exception as error:  # noqa: BLE001  # raised below
            errors.append(error)

    async with anyio.create_task_group() as group:
        for place, work in enumerate(works):
            group.start_soon(one, place, work)
    if errors:
        raise errors[0]
    return tuple(result for place in sorted(done) for result in done[place])


def _first(errors: ExceptionGroup[Exception]) -> Exception:
    error = errors.exceptions[0]
    return _first(error) if isinstance(error, ExceptionGroup) else error
