"""
Share looks at one thing between the tasks of an event loop that wait for it: whoever's turn comes first looks for all.

Two hundred tasks that wait for the same ledger or the same indexes cost hardly more than one, and see the end when the
most eager of them does. What a look sees counts only for those who asked before it began, so nobody takes an answer
for news that is older than its own question.
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
    """The looks that some tasks share. ``members`` counts those tasks."""

    members: int = 0
    _begun: int = 0
    _ended: int = 0  # the number of the last look that has an answer
    _is_looking: bool = False
    _answer: T | Exception | None = None
    _news: anyio.Event = field(default_factory=anyio.Event)

    async def next(self, ask: Callable[[], Awaitable[T]], *, within: float) -> T:
        """
        Return what the first look sees that begins from now on, whoever takes it.

        :param ask: takes a look, if it is this task that does
        :param within: seconds after which this task looks if no other one has
        :raises PyMongoError: what the look raised; of another task's look only what would have met all of them
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
        return self._answer  # type: ignore[return-value]  # a look that has ended has an answer

    async def _look(self, ask: Callable[[], Awaitable[T]]) -> T:
        self._begun += 1
        self._is_looking = True
        try:
            found = await ask()
        except PyMongoError as error:
            # A refusal may be meant for this task's login alone, and a closed client is nobody else's.
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


_shared: dict[Hashable, Looks[Any]] = {}  # of those who wait at this moment, and of nobody else


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
