"""
Finish work although its caller is cancelled, then raise the cancellation. No I/O of its own.

The work runs in a task of its own, which a cancellation of the caller does not reach. The work receives an
:class:`Interruption`. A cancellation ends what :meth:`Interruption.run` awaits. It does not end what
:meth:`Interruption.finish` awaits, but leaves it only a few seconds. When the work has ended, the caller's cancellation
is raised again, so no code in between has to keep it.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import anyio

from mydocs.migrations.errors import ServerUnreachable
from mydocs.migrations.limits import limits

T = TypeVar("T")


class Interruption:
    """
    The cancellation of a caller, as seen by the work that continues.

    ``requested``: whether the caller was cancelled. ``from_within``: whether the work's own task was cancelled while
    :meth:`run` ran a script. Only the script can have done this, since no other code knows that task.
    """

    def __init__(self) -> None:
        self.requested = False
        self.from_within = False
        self._task: asyncio.Task[Any] | None = None  # of the part in `run`
        self._scope: anyio.CancelScope | None = None  # around that task
        self._limit: asyncio.Timeout | None = None  # of the part in `finish`

    def check(self) -> None:
        """
        Raise the cancellation if there is one.

        :raises asyncio.CancelledError: if the caller was cancelled
        """
        if self.requested:
            raise asyncio.CancelledError

    async def run(self, work: Callable[[], Awaitable[T]]) -> T:
        """
        Run the part that a cancellation ends, in a task and a context of its own. It does not start after one.

        :raises asyncio.CancelledError: if it was cancelled, by the caller's cancellation or by itself
        """
        self.check()
        self.from_within = False
        own = asyncio.current_task()
        assert own is not None  # a coroutine always runs in a task
        before = own.cancelling()
        self._task = task = asyncio.ensure_future(self._in_scope(work))
        try:
            return await task  # a cancellation of our own task is passed on to it
        except asyncio.CancelledError:
            if task.cancelled():
                raise
            return task.result()  # ours came when it had ended
        finally:
            self._task = self._scope = None
            while own.cancelling() > before:
                self.from_within = True
                own.uncancel()

    async def finish(self, work: Awaitable[T], what: str, *, limit: float | None = None) -> T:
        """
        Await a part that a cancellation does not end.

        :param what: its name in the error
        :param limit: its time limit in seconds; after a cancellation at most ``Limits.grace``
        :raises ServerUnreachable: if it takes longer; it is cancelled
        """
        begun = asyncio.get_running_loop().time()
        self._limit = timeout = asyncio.timeout(limit)
        try:
            async with timeout:
                if self.requested:
                    self._hasten()
                return await work
        except Exception as error:
            if not timeout.expired():
                raise
            late = asyncio.get_running_loop().time() - begun
            raise ServerUnreachable(f"{what} did not end within {late:.0f} s") from error
        finally:
            self._limit = None

    def request(self, *, repeated: bool) -> None:
        """
        Cancel what :meth:`run` runs.

        :param repeated: cancel at each of its awaits, as anyio does; else once, so that its cleanup may await, and at
            each of its awaits after ``Limits.script_grace``
        """
        if not self.requested:
            self.requested = True
            self._hasten()
        if repeated and self._scope is not None:
            self._scope.cancel()
        elif self._task is not None:
            self._task.cancel()
            if self._scope is not None:
                self._scope.deadline = min(self._scope.deadline, anyio.current_time() + limits().script_grace)

    def _hasten(self) -> None:
        """Leave what :meth:`finish` awaits at most the grace from now on."""
        if self._limit is not None and not self._limit.expired():
            end = asyncio.get_running_loop().time() + limits().grace
            before = self._limit.when()
            self._limit.reschedule(end if before is None else min(end, before))

    async def _in_scope(self, work: Callable[[], Awaitable[T]]) -> T:
        with anyio.CancelScope() as self._scope:
            return await work()
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
