"""Work that must come to its end although its caller is cancelled."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import anyio

T = TypeVar("T")


async def to_the_end(work: Coroutine[Any, Any, T], *, limit: float | None = None) -> tuple[T, bool]:
    """
    Await something that is not broken off, neither by anyio's cancellation nor by asyncio's own.

    anyio delivers its cancellation again at the caller's next await. asyncio's comes once: it is noted, and the caller
    must pass it on, once it has done with the result what must be done.

    :param limit: seconds, after which the work is cancelled after all
    :return: the result, and whether the caller was cancelled meanwhile
    :raises TimeoutError: where the limit was reached
    :raises asyncio.CancelledError: where the caller was cancelled and the work failed, which is then its cause
    """
    task = asyncio.ensure_future(work)
    cancelled = False
    deadline = None if limit is None else asyncio.get_running_loop().time() + limit
    with anyio.CancelScope(shield=True):
        while not task.done():
            remaining = None if deadline is None else deadline - asyncio.get_running_loop().time()
            if remaining is not None and remaining <= 0:
                task.cancel()
                raise TimeoutError
            try:
                await asyncio.wait([task], timeout=remaining)
            except asyncio.CancelledError:
                cancelled = True
    if cancelled and not task.cancelled() and (error := task.exception()) is not None:
        raise asyncio.CancelledError from error
    return task.result(), cancelled
