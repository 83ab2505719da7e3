"""
Finish work although its caller is cancelled, then raise the cancellation. No I/O of its own.

The work runs in a task of its own, which a cancellation of the caller does not reach. The work receives an
:class:`Interruption`. A cancellation ends what :meth:`Interruption.run` awaits. It does not end what
:meth:`Interruption.finish` awaits, but leaves it only a few seconds. When the work has ended, the caller's cancellation
is raised again, so no code in between has to keep it.
"""

import asyncio
import math
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import anyio

from mydocs.migrations.errors import ServerUnreachable
from mydocs.migrations.limits import limits

T = TypeVar("T")


class Interruption:
    """
    The cancellation of a caller, as seen by the work that continues.

    ``requested``: whether the caller was cancelled. ``from_within``: whether the work's own task was cancelled. Only
    the script can have done this, since no other code knows that task.
    """

    def __init__(self) -> None:
        self.requested = False
        self.from_within = False
        self._asked: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._task: asyncio.Task[Any] | None = None
        self._scope: anyio.CancelScope | None = None

    def check(self) -> None:
        """
        Raise the cancellation if there is one.

        :raises asyncio.CancelledError: if the caller was cancelled
        """
        if self.requested:
            raise asyncio.CancelledError

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """
        Await the part that a cancellation ends. It does not start if the cancellation came before.

        :raises asyncio.CancelledError: if it was cancelled, by the caller's cancellation or by itself
        """
        if self.requested:
            work.close()
        self.check()
        self._task = task = asyncio.ensure_future(self._in_scope(work))
        while not task.done():
            try:
                await asyncio.wait([task])
            except asyncio.CancelledError:  # the task of the work itself was cancelled: see `from_within`
                self.from_within = True
                task.cancel()
        self._task = None
        return task.result()

    async def finish(self, work: Coroutine[Any, Any, T], what: str, *, limit: float | None = None) -> T:
        """
        Await a part that a cancellation does not end.

        :param what: its name in the error
        :param limit: its time limit in seconds; after a cancellation at most ``Limits.grace``
        :raises ServerUnreachable: if it takes longer; it is cancelled, and not awaited any more
        """
        task = asyncio.ensure_future(work)
        begun = asyncio.get_running_loop().time()
        either: list[asyncio.Future[Any]] = [task, self._asked]
        await asyncio.wait(either, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
        if not task.done() and self._asked.done():
            left = math.inf if limit is None else limit - (asyncio.get_running_loop().time() - begun)
            await asyncio.wait([task], timeout=max(0.0, min(limits().grace, left)))
        if not task.done():
            task.cancel()
            task.add_done_callback(_forget)
            raise ServerUnreachable(f"{what} did not end within {asyncio.get_running_loop().time() - begun:.0f} s")
        return task.result()

    def request(self, *, repeated: bool) -> None:
        """
        Cancel what :meth:`run` runs.

        :param repeated: cancel at each of its awaits, as anyio does; else once, so that its cleanup may await
        """
        self.requested = True
        if not self._asked.done():
            self._asked.set_result(None)
        if repeated and self._scope is not None:
            self._scope.cancel()
        elif self._task is not None:
            self._task.cancel()

    async def _in_scope(self, work: Coroutine[Any, Any, T]) -> T:
        with anyio.CancelScope() as self._scope:
            return await work
        raise asyncio.CancelledError


async def run_to_the_end(work: Callable[[Interruption], Coroutine[Any, Any, T]]) -> T:
    """
    Await work that decides itself which of its parts a cancellation ends.

    :raises asyncio.CancelledError: the caller's, once the work has ended; its cause is the work's own error
    """
    interruption = Interruption()
    task = asyncio.ensure_future(work(interruption))
    cancellation: asyncio.CancelledError | None = None
    repeated = False
    while not task.done():
        try:
            # anyio cancels again at each await. asyncio cancels once, and a cancellation of anyio may follow.
            with anyio.CancelScope(shield=repeated):
                await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancellation = cancellation or error
            repeated = repeated or anyio.current_effective_deadline() == -math.inf
            interruption.request(repeated=repeated)
    if cancellation is None:
        return task.result()
    failure = None if task.cancelled() else task.exception()
    raise cancellation from (None if isinstance(failure, asyncio.CancelledError) else failure)


async def to_the_end(work: Coroutine[Any, Any, T], what: str, *, limit: float | None = None) -> T:
    """
    Await one piece of work that a cancellation does not end; see :meth:`Interruption.finish`.

    :raises asyncio.CancelledError: the caller's cancellation, once the work has ended or its time is up
    :raises ServerUnreachable: if the time is up
    """
    return await run_to_the_end(lambda interruption: interruption.finish(work, what, limit=limit))


def _forget(task: asyncio.Task[Any]) -> None:
    if not task.cancelled():
        task.exception()  # no task awaits it any more, and asyncio would log its error
