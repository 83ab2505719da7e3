"""
Wait for one's turn to migrate, or for somebody else to have done the work.

Whoever waits looks at lease and ledger together in one command. Tasks of one process that wait for the same database
share their looks, so that two hundred of them cost hardly more than one and see the end sooner.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import anyio

from mydocs.migrations import ledger, mongo
from mydocs.migrations.errors import LeaseHeld
from mydocs.migrations.events import LeaseTaken, LeaseWaiting, Sink, emit
from mydocs.migrations.lease import Lease, Owner, acquire
from mydocs.migrations.ledger import Snapshot
from mydocs.migrations.model import LeaseView

MIN_GAP = 0.5  # seconds between two looks of one process
MAX_GAP = 10.0  # seconds; six looks a minute
GAP_SHARE = 0.5  # of the time waited so far; ten looks in the first half minute


@dataclass(slots=True)
class Watch:
    """The looks that the tasks of one process share."""

    members: int = 0
    looks: int = 0
    looking: bool = False
    seen: Snapshot | None = None
    changed: anyio.Event = field(default_factory=anyio.Event)

    async def look(self, db: mongo.Database, gap: float) -> Snapshot:
        """
        Return what the next look sees, whoever takes it.

        :param db: what this task asks through, if it is the one that looks
        :param gap: seconds, as if this task were alone; shared, each look serves all
        """
        before = self.looks
        while self.looks == before or self.seen is None:
            if self.looking:
                await self.changed.wait()
                continue
            self.looking = True
            try:
                await anyio.sleep(max(MIN_GAP, gap / self.members))
                self.seen = await ledger.read(db)
                self.looks += 1
            finally:
                self.looking = False
                self.changed.set()
                self.changed = anyio.Event()
        return self.seen


_watches: dict[tuple[int, frozenset[object], str], Watch] = {}  # of those who wait at this moment, and of nobody else


@contextmanager
def watching(db: mongo.Database) -> Iterator[Watch]:
    """Join the tasks of this event loop that wait for the same database of the same deployment."""
    key = (id(asyncio.get_running_loop()), mongo.addresses(db), db.name)
    watch = _watches.setdefault(key, Watch())
    watch.members += 1
    try:
        yield watch
    finally:
        watch.members -= 1
        if not watch.members:
            del _watches[key]


def gap_after(waited: float, lease: LeaseView | None = None) -> float:
    """Seconds until the next look; a lease that is about to run out is looked at when it has."""
    gap = min(max(MIN_GAP, waited * GAP_SHARE), MAX_GAP)
    return min(gap, lease.remaining + MIN_GAP) if lease and lease.live else gap


async def take_turn(
    db: mongo.Database,
    owner: Owner,
    *,
    timeout: float | None,
    is_done: Callable[[Snapshot], bool],
    sink: Sink | None,
) -> tuple[Lease | None, Snapshot | None]:
    """
    Take the lease, or see that nothing is left to do.

    :param timeout: seconds to wait while somebody else holds it; 0 is one try, ``None`` no limit
    :return: the lease; or ``None`` and what showed that the work is done
    :raises LeaseHeld: where the time is up
    """
    started = time.monotonic()
    holder: LeaseView | None = None
    with watching(db) as watch:
        while True:
            lease = await acquire(db, owner)
            if lease is not None:
                emit(sink, LeaseTaken(term=lease.term))
                return lease, None
            if timeout == 0:
                snapshot = await ledger.read(db)
                if is_done(snapshot):
                    return None, snapshot
                raise LeaseHeld(snapshot.lease or LeaseView(host=None, pid=None, id=None, term=0), 0.0)
            while True:
                waited = time.monotonic() - started
                with anyio.move_on_after(None if timeout is None else timeout - waited):
                    snapshot = await watch.look(db, gap_after(waited, holder))
                    if is_done(snapshot):
                        return None, snapshot
                    known, holder = holder, snapshot.lease
                    if holder is None or not holder.live:
                        break
                    if known is None or known.id != holder.id:
                        emit(sink, LeaseWaiting(holder=holder))
                    continue
                raise LeaseHeld(holder or LeaseView(host=None, pid=None, id=None, term=0), time.monotonic() - started)
