"""
What the helpers know of the script that calls them: whom to tell, how far they came before, what its run allows.

No I/O but that of a place that is kept.
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
"""How far a helper has come, as the ledger keeps it."""

Store: TypeAlias = Callable[[str, StoredPlace], Coroutine[Any, Any, None]]


@value
class Checkpoint:
    """
    Where one call of a helper leaves how far it has come.

    :param place: how far the same call came in an earlier attempt of the script
    :param store: ``None`` outside of a run: there is no ledger entry to keep it in
    :param loop: the run's, which its database and thus ``store`` belong to; ``None`` where any will do
    """

    key: str
    place: StoredPlace | None = None
    store: Store | None = None
    loop: asyncio.AbstractEventLoop | None = None

    async def save(self, place: StoredPlace) -> None:
        """:raises LeaseLost: where the step is not this run's any more"""
        if self.store is None:
            return
        saving = self.store(self.key, place)
        if self.loop is None or self.loop is asyncio.get_running_loop():
            await saving
        else:  # a plain script with a loop of its own; the run's is free, since the script is in a thread
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(saving, self.loop))


class ScriptContext:
    """The script under way, as its helpers see it."""

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
        Take what the run has to say.

        :param run: what the run signs with
        :param clock: the server's, or ``None`` where nobody has asked it
        :param check_lease: raises ``LeaseLost`` where the run may write no more
        :param places: how far helpers came in an earlier attempt of the script, by the keys of their checkpoints
        :param store: keeps such a place, in ``loop``
        :param lanes: who else can do parts of a data change; ``None`` for nobody
        :param max_lag: seconds that secondaries may be behind while a data change writes; ``None`` for no limit
        """
        self.transactional, self.run, self.clock, self.check_lease = transactional, run, clock, check_lease
        self.lanes, self.max_lag = lanes, max_lag
        self._sink = sink
        self._places, self._store, self._loop = places or {}, store, loop
        self._calls: Counter[str] = Counter()

    def emit(self, event: Event) -> None:
        """Pass an event of the script on to the run's sink."""
        emit(self._sink, event)

    def checkpoint(self, call: str) -> Checkpoint:
        """
        Return the checkpoint of a helper's call; equal calls of one script are told apart by their order.

        :param call: tells calls with other arguments apart; without the ``.`` and ``$`` that no field's name may have
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
        Keep a helper out of a script that runs in a transaction.

        :raises NotPossible: before anything is sent
        """
        if self.transactional:
            raise NotPossible(f"{helper} cannot be used in a script that says TRANSACTIONAL = True: {reason}")


current: ContextVar[ScriptContext] = ContextVar("mydocs_script", default=ScriptContext())  # noqa: B039  # it keeps nothing


def context() -> ScriptContext:
    """Return the script under way; one that tells nobody and allows all where there is none."""
    return current.get()
