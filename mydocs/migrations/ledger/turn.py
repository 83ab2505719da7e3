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
from mydocs.migrations.model import LeaseView
from mydocs.migrations.reporting.events import LeaseTaken, LeaseWaiting

MAX_GAP = 10.0  # seconds; six looks a minute
GAP_SHARE = 0.6  # of the time waited so far: seven looks in the first ten seconds
# After a holder's process has ended: the processes that it started end with it, but a moment later.
SETTLE_SECONDS = 1.0
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
) -> tuple[Lease | None, Snapshot | None]:
    """
    Take the lease, or find that nothing is left to do.

    :param timeout: seconds to wait while another run holds it; 0 is one try, ``None`` is no limit
    :return: the lease and the last snapshot; the lease is ``None`` if the snapshot shows that the work is done
    :raises LeaseHeld: if the time is up
    """
    db = session.db
    own = await anyio.to_thread.run_sync(own_process)
    owner = Owner(run_id=session.run_id, process=own)
    started = time.monotonic()
    holder: LeaseView | None = None
    ended: tuple[LeaseView, float] | None = None  # a holder whose process has ended, and when this was first seen
    with shared_looks(db, documents.COLLECTION) as looks:
        while True:
            lease = await acquire(db, owner)
            if lease is not None:
                session.emit(LeaseTaken(term=lease.term))
                return lease, None
            if timeout == 0:
                snapshot = await ledger.read(db)
                if is_done(snapshot):
                    return None, snapshot
                raise LeaseHeld(snapshot.lease or LeaseView(host=None, pid=None, run_id=None, term=0), 0.0)
            while True:
                waited = time.monotonic() - started
                with anyio.move_on_after(None if timeout is None else timeout - waited):
                    snapshot = await look(db, looks, waited, holder)
                    if is_done(snapshot):
                        return None, snapshot
                    known, holder = holder, snapshot.lease
                    if holder is None or not holder.live:
                        break
                    if known is None or known.run_id != holder.run_id:
                        session.emit(LeaseWaiting(holder=holder))
                    if not await anyio.to_thread.run_sync(has_ended, holder.process, own):
                        continue
                    if ended is None or ended[0].run_id != holder.run_id:
                        ended = holder, time.monotonic()
                    if time.monotonic() - ended[1] < SETTLE_SECONDS:
                        continue
                    session.warn(
                        f"the process that holds the lease ({holder.host}, pid {holder.pid}) has ended without giving "
                        "it back; this run takes it over"
                    )
                    await break_lease(db, holder)
                    break
                raise LeaseHeld(
                    holder or LeaseView(host=None, pid=None, run_id=None, term=0), time.monotonic() - started
                )
