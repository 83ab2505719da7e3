"""
Share looks at one thing between the tasks of an event loop that wait for it. No I/O of its own.

Each look serves all of these tasks. Two hundred tasks that wait for the same ledger or the same indexes cost little
more than one, and all see the end at the first look that shows it. A look counts only for tasks that asked before it
began, so no task gets an answer that is older than its own question.
"""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import anyio
from pymongo.errors import PyMongoError

from mydocs.migrations.driver import server_errors
from mydocs.migrations.driver.client import Database, addresses

T = TypeVar("T")


@dataclass(slots=True)
class Looks(Generic[T]):
    """The looks that several tasks share. ``members`` counts these tasks."""

    members: int = 0
    _begun: int = 0
    _ended: int = 0  # number of the last look that has an answer
    _is_looking: bool = False
    _answer: T | Exception | None = None
    _news: anyio.Event = field(default_factory=anyio.Event)

    async def next(self, ask: Callable[[], Awaitable[T]], *, within: float) -> T:
        """
        Return the result of the first look that begins from now on, whichever task makes it.

        :param ask: makes a look, if this task is the one that does
        :param within: seconds after which this task looks if no other one has
        :raises PyMongoError: the error of the look; of another task's look only an error that every task would get
        """
        wanted = self._begun + 1
        due = anyio.current_time() + within
        while self._ended < wanted:
            if not self._is_looking and anyio.current_time() >= due:
                return await self._look(ask)
            with anyio.move_on_after(None if self._is_looking else due - anyio.current_time()):
                await self._news.wait()
        if isinstance(self._answer, Exception):
            raise self._answer.with_traceback(None)
        return self._answer  # type: ignore[return-value]  # after a look has ended there is an answer

    async def _look(self, ask: Callable[[], Awaitable[T]]) -> T:
        self._begun += 1
        self._is_looking = True
        try:
            found = await ask()
        except PyMongoError as error:
            # A refusal may concern this task's login alone, and a closed client belongs to one task.
            if server_errors.is_transient(error):
                self._answer, self._ended = error, self._begun
            raise
        else:
            self._answer, self._ended = found, self._begun
            return found
        finally:
            self._is_looking = False
            self._news.set()
            self._news = anyio.Event()


_shared: dict[Hashable, Looks[Any]] = {}  # only the looks of tasks that wait at this moment


@contextmanager
def shared_looks(db: Database, *what: Hashable) -> Iterator[Looks[Any]]:
    """Join the tasks of this event loop that look at the same thing in the same database of the same deployment."""
    key = (id(asyncio.get_running_loop()), addresses(db), db.name, *what)
    looks = _shared.setdefault(key, Looks())
    looks.members += 1
    try:
        yield looks
    finally:
        looks.members -= 1
        if not looks.members:
            del _shared[key]
