"""
Wait for the lease, or until another run has done the work. I/O.

Each look reads lease and ledger in one command. Tasks of one process that wait for the same database share their looks.
Two hundred of them cost little more than one, and see the end sooner.
"""

import random
import time
from collections.abc import Callable

import anyio
import anyio.to_thread

from mydocs.migrations.driver.client import Database
from mydocs.migrations.driver.session import Session
from mydocs.migrations.driver.shared_looks import Looks, shared_looks
from mydocs.migrations.errors import LeaseHeld
from mydocs.migrations.ledger import documents
from mydocs.migrations.ledger import entries as ledger
from mydocs.migrations.ledger.entries import Snapshot
from mydocs.migrations.ledger.holder_process import has_ended, own_process
from mydocs.migrations.ledger.lease import Lease, Owner, acquire, break_lease
from mydocs.migrations.limits import limits
from mydocs.migrations.model import HolderProcess, LeaseView
from mydocs.migrations.reporting.events import LeaseTaken, LeaseWaiting

MAX_GAP = 10.0  # seconds; six looks a minute
GAP_SHARE = 0.6  # of the time waited so far: seven looks in the first ten seconds
# After a holder's process has ended: the processes that it started end with it, but a moment later.
SETTLE_SECONDS = 1.0
NOBODY = LeaseView(host=None, pid=None, run_id=None, term=0)
JITTER = 0.1  # of the gap, added to it: processes that start together then do not look at the same moment


async def look(db: Database, looks: Looks[Snapshot], waited: float, lease: LeaseView | None = None) -> Snapshot:
    """
    Return the next look's result. A lease that is about to expire is read again once it has expired.

    :param looks: from :func:`shared_looks` at the ledger
    :param waited: seconds that this task has waited so far
    """
    least = limits().turn_gap
    gap = min(max(least, waited * GAP_SHARE), MAX_GAP)
    if lease is not None and lease.live:
        gap = min(gap, lease.remaining + least)
    # All tasks that share a look use its result, so a group of them may look more often than one task.
    within = max(least, gap / looks.members) * random.uniform(1.0, 1.0 + JITTER)
    return await looks.next(lambda: ledger.read(db, patiently=True), within=within)


async def take_turn(
    session: Session,
    *,
    timeout: float | None,
    is_done: Callable[[Snapshot], bool],
) -> Lease | Snapshot:
    """
    Take the lease, or find that nothing is left to do.

    :param timeout: seconds to wait while another run holds it; 0 is one try, ``None`` is no limit
    :return: the lease; or the snapshot that shows that the work is done
    :raises LeaseHeld: if the time is up
    """
    own = await anyio.to_thread.run_sync(own_process)
    owner = Owner(run_id=session.run_id, process=own)
    with shared_looks(session.db, documents.COLLECTION) as looks:
        wait = _Wait(session, looks, own, timeout)
        while True:
            lease = await acquire(session.db, owner)
            if lease is not None:
                session.emit(LeaseTaken(term=lease.term))
                return lease
            done = await wait.until_free(is_done)
            if done is not None:
                return done


class _Wait:
    """The wait for one turn: the holder of the lease, and since when its process is known to have ended."""

    def __init__(
        self, session: Session, looks: Looks[Snapshot], own: HolderProcess | None, timeout: float | None
    ) -> None:
        self.session, self.looks, self.own, self.timeout = session, looks, own, timeout
        self.started = time.monotonic()
        self.holder: LeaseView | None = None
        self.ended: tuple[LeaseView, float] | None = None

    async def until_free(self, is_done: Callable[[Snapshot], bool]) -> Snapshot | None:
        """
        Return once the lease may be free; or the snapshot that shows that the work is done.

        :raises LeaseHeld: if the time is up
        """
        db = self.session.db
        if self.timeout == 0:
            snapshot = await ledger.read(db)
            if is_done(snapshot):
                return snapshot
            raise LeaseHeld(snapshot.lease or NOBODY, 0.0)
        while True:
            waited = time.monotonic() - self.started
            with anyio.move_on_after(None if self.timeout is None else self.timeout - waited):
                snapshot = await look(db, self.looks, waited, self.holder)
                if is_done(snapshot):
                    return snapshot
                if await self._is_free(snapshot.lease):
                    return None
                continue
            raise LeaseHeld(self.holder or NOBODY, time.monotonic() - self.started)

    async def _is_free(self, lease: LeaseView | None) -> bool:
        """Return whether a try to take the lease may succeed; break it first if its holder's process has ended."""
        known, self.holder = self.holder, lease
        if lease is None or not lease.live:
            return True
        if known is None or known.run_id != lease.run_id:
            self.session.emit(LeaseWaiting(holder=lease))
        if not await anyio.to_thread.run_sync(has_ended, lease.process, self.own):
            return False
        if self.ended is None or self.ended[0].run_id != lease.run_id:
            self.ended = lease, time.monotonic()
        if time.monotonic() - self.ended[1] < SETTLE_SECONDS:
            return False
        self.session.warn(
            f"the process that holds the lease ({lease.host}, pid {lease.pid}) has ended without giving it back; this "
            "run takes it over"
        )
        await break_lease(self.session.db, lease)
        return True
