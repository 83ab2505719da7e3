"""
Define what the helpers know of the script that calls them: sink, checkpoints, limits. I/O only to store a checkpoint.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from contextvars import ContextVar
from datetime import datetime
from typing import Any, TypeAlias

from mydocs.migrations.errors import NotPossible
from mydocs.migrations.model import Lanes, RunStamp
from mydocs.migrations.reporting.events import Event, Sink, emit
from mydocs.migrations.values import value

StoredPlace: TypeAlias = Mapping[str, Any]
"""How far a helper has come, as the ledger stores it."""

Store: TypeAlias = Callable[[str, StoredPlace], Coroutine[Any, Any, None]]


@value
class Checkpoint:
    """
    The place where one call of a helper stores how far it has come.

    :param place: how far the same call came in an earlier attempt of the script
    :param store: ``None`` outside of a run, where no ledger entry exists
    :param loop: the run's event loop, to which its database and so ``store`` belong; ``None`` if any will do
    """

    key: str
    place: StoredPlace | None = None
    store: Store | None = None
    loop: asyncio.AbstractEventLoop | None = None

    async def save(self, place: StoredPlace) -> None:
        """
        Store how far the call has come.

        :raises LeaseLost: if the step no longer belongs to this run
        """
        if self.store is None:
            return
        saving = self.store(self.key, place)
        if self.loop is None or self.loop is asyncio.get_running_loop():
            await saving
        else:  # a plain script with its own loop; the run's loop is free, since the script is in a thread
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(saving, self.loop))


class ScriptContext:
    """The present script, as its helpers see it."""

    def __init__(
        self,
        sink: Sink | None = None,
        *,
        transactional: bool = False,
        run: RunStamp | None = None,
        clock: Callable[[], datetime | None] = lambda: None,
        check_lease: Callable[[], None] = lambda: None,
        places: StoredPlace | None = None,
        store: Store | None = None,
        loop: asyncio.AbstractEventLoop | None = None,
        lanes: Lanes | None = None,
        max_lag: float | None = None,
    ) -> None:
        """
        Store what the run provides.

        :param run: the stamp of the run's writes
        :param clock: the server's, or ``None`` if the server was not asked
        :param check_lease: raises ``LeaseLost`` if the run may no longer write
        :param places: how far helpers came in an earlier attempt of the script, by the keys of their checkpoints
        :param store: stores such a place, in ``loop``
        :param lanes: the workers that share a data change; ``None`` for none
        :param max_lag: seconds that secondaries may lag behind while a data change writes; ``None`` for no limit
        """
        self.transactional, self.run, self.clock, self.check_lease = transactional, run, clock, check_lease
        self.lanes, self.max_lag = lanes, max_lag
        self._sink = sink
        self._places, self._store, self._loop = places or {}, store, loop
        self._calls: Counter[str] = Counter()

    def emit(self, event: Event) -> None:
        """Pass an event of the script to the run's sink."""
        emit(self._sink, event)

    def checkpoint(self, call: str) -> Checkpoint:
        """
        Return the checkpoint of a helper's call. Equal calls of one script are distinguished by their order.

        :param call: differs for calls with other arguments; has no ``.`` and no ``$``, which field names must not have
        """
        if self._store is None:
            return Checkpoint(key=call)
        self._calls[call] += 1
        key = f"{call}-{self._calls[call]}"
        place = self._places.get(key)
        return Checkpoint(
            key=key, place=place if isinstance(place, Mapping) else None, store=self._store, loop=self._loop
        )

    def refuse_in_transaction(self, helper: str, reason: str) -> None:
        """
        Refuse a helper in a script that runs in a transaction.

        :raises NotPossible: before anything is sent
        """
        if self.transactional:
            raise NotPossible(f"{helper} cannot be used in a script that says TRANSACTIONAL = True: {reason}")


current: ContextVar[ScriptContext] = ContextVar("mydocs_script", default=ScriptContext())  # noqa: B039  # it stores nothing


def context() -> ScriptContext:
    """Return the present script; without one, a context that emits nothing and allows everything."""
    return current.get()
