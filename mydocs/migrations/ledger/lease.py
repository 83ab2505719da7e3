"""
Take, renew and release the lease: one document, one holder, one clock. I/O.

The document is ``{_id: "lease", owner, term, acquired_at, expires_at}`` in ``_migrations_lock``.

States
    *free*: there is no document, or ``expires_at`` has passed. *held*: ``expires_at`` lies ahead. A released lease is
    free and has ``owner: null``. The document is never removed, since ``term`` must not start again.

Who decides
    The server alone, by its own clock (``$$NOW``). Each operation is one command on one document, which is atomic:

    - *acquire*: if free, set owner, ``term + 1`` and ``expires_at = $$NOW + 30 s``; else change nothing. The
      reply shows the holder. A repeated request after a lost reply finds its own id and changes nothing.
    - *renew*: if owner and term are still ours, ``expires_at = $$NOW + 30 s``.
    - *release*: if owner and term are still ours, ``expires_at = $$NOW`` and no owner.

    The holder's own clock can only stop the holder earlier. It counts 29 s from *before* the last successful renewal
    was sent, on a clock that continues while the machine sleeps. So its deadline is at least a second before the
    server's. Clocks of two machines are never compared.

What each side may assume
    - A renewal that finds no document of ours: the lease is lost. Another run has it, or had it.
    - A renewal without an answer: it may have happened. Ask again after 5 s, on another connection, until the deadline;
      then count the lease as lost.
    - A holder that was paused beyond its deadline may run a few more instructions before it notices. The *term* makes
      its late writes harmless: each ledger write names the term of its writer, and a successor replaces a ledger entry
      only if the entry is still as the successor read it (held_ledger.py). So either the late write comes first and the
      successor sees it, or the late write matches nothing.
    - A new holder assumes nothing about the work of the previous one, and reads the ledger again.
    - Without a release (SIGKILL, power failure) the lease is free 30 s after the last renewal. A run that waits on the
      same machine and sees that the holder's process has ended breaks the lease sooner, as `unlock --force` does
      (turn.py).

A thread with its own synchronous client renews the lease. A script that blocks the event loop, or takes every
connection of the pool, does not stop the renewals. One call that never releases the interpreter does (a slow regular
expression, `sum(range(10**10))`): after 30 s the lease is lost and another run may begin.
"""

import asyncio
import logging
import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import pymongo
from bson.datetime_ms import DatetimeMS
from pymongo.errors import ConnectionFailure, OperationFailure, PyMongoError

from mydocs.migrations.driver import commands, retry, server_errors
from mydocs.migrations.driver.cancellation import to_the_end
from mydocs.migrations.driver.client import Database, private_database
from mydocs.migrations.errors import LeaseLost, LedgerInvalid, MigrationError, NotPossible, ServerUnreachable
from mydocs.migrations.ledger.documents import time_of
from mydocs.migrations.ledger.holder_process import document_of
from mydocs.migrations.ledger.holder_process import parse as parse_process
from mydocs.migrations.limits import limits
from mydocs.migrations.model import HolderProcess, LeaseView
from mydocs.migrations.values import value

logger = logging.getLogger(__name__)

COLLECTION = "_migrations_lock"
LAST_TERM = 2**63 - 1  # the largest BSON integer: a term cannot grow beyond it
LEASE_SECONDS = 30.0
MARGIN_SECONDS = 1.0  # how much earlier the holder's deadline is than the server's
RETRY_RENEWAL_SECONDS = 0.5
SLICE_SECONDS = 1.0  # longest single wait of a thread: the time of a wait stands still while the machine sleeps
PING_SECONDS = 2.0  # time limit of a ping that tells whether the server answers at all


def clock() -> float:
    """Return the seconds of a clock that is never set and, where possible, continues while the machine sleeps."""
    return time.monotonic() if _CLOCK is None else time.clock_gettime(_CLOCK)


# On Linux and macOS `time.monotonic()` stands still while the machine sleeps. On Windows it does not.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC if sys.platform == "darwin" else None)


@value
class Owner:
    """A process that requests the lease. ``run_id`` is new for each run, so no two runs have the same."""

    host: str = field(default_factory=socket.gethostname)
    pid: int = field(default_factory=os.getpid)
    run_id: str = field(default_factory=lambda: secrets.token_hex(12))
    process: HolderProcess | None = None  # if the machine tells; see holder_process.py


@dataclass(slots=True, kw_only=True)
class Lease:
    """
    A lease that was acquired.

    :param deadline: seconds of :func:`clock`
    :param acquired_at: by the server's clock; the answer arrived at ``since`` of :func:`clock`
    :param lost: another run has the lease, or may have it
    :param taken: a renewal found that another run has the lease; if false, the lease is lost since nothing was answered
    """

    owner: Owner
    term: int
    deadline: float
    acquired_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    since: float = field(default_factory=clock)
    lost: bool = False
    taken: bool = False
    watch: Callable[[], object] | None = None  # called after each renewal and at the loss, by the thread that renews

    def now(self) -> datetime:
        """
        Return the server's time, to the millisecond that BSON keeps. It may be late by one reply's delay, never early.

        Host clocks are not used: they may differ by more than the time between two runs, and the later entry counts.
        """
        now = self.acquired_at + timedelta(seconds=clock() - self.since)
        return now.replace(microsecond=now.microsecond // 1000 * 1000)

    @property
    def is_ours(self) -> bool:
        return not self.lost and clock() < self.deadline

    def check(self) -> None:
        """
        Check that the ledger may still be written.

        :raises LeaseLost: if it may not
        """
        if not self.is_ours:
            raise LeaseLost(self.term)


def view_stages() -> list[dict[str, Any]]:
    """Return aggregation stages that read the lease and the server's time. :func:`parse` reads the result."""
    return [
        {"$match": {"_id": "lease"}},
        {
            "$set": {
                "remaining": {"$cond": [_IS_DATED, {"$subtract": ["$expires_at", "$$NOW"]}, None]},
                "seen_at": "$$NOW",
            }
        },
    ]


def parse(document: dict[str, Any]) -> LeaseView:
    """
    Read a lease document.

    :raises LedgerInvalid: if the document has an unknown form
    """
    owner, term, expires_at = document.get("owner"), document.get("term"), document.get("expires_at")
    if not isinstance(term, int) or isinstance(term, bool):
        raise LedgerInvalid(COLLECTION, "'lease'", f"`term` is {term!r} and not a whole number")
    if not isinstance(expires_at, datetime | DatetimeMS):  # the latter is beyond the year 9999
        raise LedgerInvalid(COLLECTION, "'lease'", f"`expires_at` is {expires_at!r} and not a date")
    if owner is not None and not (isinstance(owner, dict) and isinstance(owner.get("id"), str)):
        raise LedgerInvalid(COLLECTION, "'lease'", f"`owner` is {owner!r} and has no `id`")
    remaining = document.get("remaining", 0)
    host, pid = (owner.get("host"), owner.get("pid")) if owner else (None, None)
    return LeaseView(
        host=host if isinstance(host, str) else None,
        pid=pid if isinstance(pid, int) else None,
        run_id=owner["id"] if owner else None,
        process=parse_process(owner) if owner else None,
        term=term,
        acquired_at=time_of(document, "acquired_at"),
        live=remaining > 0,
        remaining=max(0.0, remaining / 1000),
    )


async def acquire(db: Database, owner: Owner) -> Lease | None:
    """
    Try once to take the lease.

    A cancellation waits for the answer, so the lease is never taken without the knowledge of a run.

    :return: the lease, or ``None`` while another run holds it
    :raises LedgerInvalid: if the document has an unknown form; it stays as it is
    """
    sent = clock()

    async def ask() -> dict[str, Any]:
        return await to_the_end(commands.command(db, _acquire_command(owner)), "the request for the lease")

    try:
        reply = await retry.again(ask)
    except asyncio.CancelledError:  # the request may have been granted
        await _release(db, {"owner.id": owner.run_id})
        raise
    except OperationFailure as error:
        if error.code != server_errors.DUPLICATE_KEY:
            raise
        if (index := server_errors.unique_index_of(error)) is not None:
            raise NotPossible(
                f"the unique index {index} of {COLLECTION} does not take the lease; mydocs needs no index there, "
                f"drop it: db.{COLLECTION}.dropIndex({index!r})"
            ) from error
        return None  # two runs created the document at the same time, and the other one was first
    if not isinstance(reply.get("value"), Mapping):
        raise NotPossible(
            "findAndModify with `upsert` and `new` has returned no document, so the holder of the lease is unknown; "
            "this server does not behave like MongoDB, use one that does"
        )
    view = parse(reply["value"])
    if view.run_id != owner.run_id:
        if view.term == LAST_TERM:
            raise LedgerInvalid(COLLECTION, "'lease'", f"`term` is {LAST_TERM} and cannot grow")
        return None
    acquired_at = view.acquired_at or datetime.now(UTC)  # this command has set it
    return Lease(owner=owner, term=view.term, deadline=_deadline(sent), acquired_at=acquired_at)


@asynccontextmanager
async def held(db: Database, lease: Lease) -> AsyncIterator[Lease]:
    """
    Keep the lease for the length of a block, then release it.

    :raises LeaseLost: if the lease is lost; the block is cancelled, and this error replaces the block's own
    :raises ServerUnreachable: likewise, if the lease is lost since the server does not answer
    """
    loop = asyncio.get_running_loop()
    scope = anyio.CancelScope()
    beat = _Heartbeat(db, lease, lambda: loop.call_soon_threadsafe(scope.cancel))
    beat.start()
    try:
        with scope:
            yield lease
        if lease.lost:
            raise await _loss(db, lease)
    except Exception as error:
        if isinstance(error, LeaseLost) or (lease.lost and not isinstance(error, ServerUnreachable)):
            raise await _loss(db, lease) from error
        raise
    finally:
        beat.stop()
        if not lease.lost:
            await release(db, lease)


async def _loss(db: Database, lease: Lease) -> MigrationError:
    """Return the error for a lost lease: the server does not answer, or another run holds the lease."""
    if not lease.is_ours and not lease.taken:
        try:
            await to_the_end(commands.command(db, {"ping": 1}), "a ping of the server", limit=PING_SECONDS)
        except (ConnectionFailure, ServerUnreachable) as error:
            cause = error.problem if isinstance(error, ServerUnreachable) else server_errors.text_of(error)
            return ServerUnreachable(f"the lease of term {lease.term} could not be renewed ({cause})")
    return LeaseLost(lease.term)


async def release(db: Database, lease: Lease) -> None:
    """Release the lease if it is still ours. If the server cannot be reached, the lease runs out by itself."""
    await _release(db, {"owner.id": lease.owner.run_id, "term": lease.term})


async def break_lease(db: Database, view: LeaseView) -> bool:
    """Take the lease from the holder that ``view`` shows. Return whether that holder still had it."""
    whose = {"term": view.term, "owner.id": view.run_id}
    reply = await commands.command_again(db, _change(whose, {"owner": None, "expires_at": "$$NOW"}))
    return bool(reply["n"])


_IS_DATED = {"$eq": [{"$type": "$expires_at"}, "date"]}
_IS_FREE = {
    "$or": [
        {"$eq": [{"$type": "$expires_at"}, "missing"]},
        {"$and": [_IS_DATED, {"$lte": ["$expires_at", "$$NOW"]}]},
    ]
}
_UNTIL = {"$add": ["$$NOW", int(LEASE_SECONDS * 1000)]}


def _acquire_command(owner: Owner) -> dict[str, Any]:
    holder: dict[str, Any] = {"host": owner.host, "pid": owner.pid, "id": owner.run_id}
    if owner.process is not None:
        holder["process"] = document_of(owner.process)
    taken = {
        "owner": {"$literal": holder},
        "term": {"$add": [{"$ifNull": ["$term", 0]}, 1]},
        "acquired_at": "$$NOW",
        "expires_at": _UNTIL,
    }
    is_sane = {"$and": [{"$in": [{"$type": "$term"}, ["missing", "int", "long"]]}, {"$ne": ["$term", LAST_TERM]}]}
    return {
        "findAndModify": COLLECTION,
        "query": {"_id": "lease"},
        "update": [
            {"$replaceWith": {"$cond": [{"$and": [is_sane, _IS_FREE]}, {"$mergeObjects": ["$$ROOT", taken]}, "$$ROOT"]}}
        ],
        "upsert": True,
        "new": True,
        "writeConcern": commands.MAJORITY,
    }


async def _release(db: Database, whose: dict[str, Any]) -> None:
    give_back = commands.command_again(db, _change(whose, {"owner": None, "expires_at": "$$NOW"}))
    try:
        await to_the_end(give_back, "the release of the lease", limit=limits().release)
    except (PyMongoError, ServerUnreachable) as error:
        logger.warning("the lease could not be released and runs out within %.0f s: %s", LEASE_SECONDS, error)


def _deadline(sent: float) -> float:
    return sent + LEASE_SECONDS - MARGIN_SECONDS


def _change(whose: dict[str, Any], fields: dict[str, Any]) -> dict[str, Any]:
    return {
        "update": COLLECTION,
        "updates": [{"q": {"_id": "lease"} | whose, "u": [{"$set": fields}]}],
        "writeConcern": commands.MAJORITY,
    }


class _Heartbeat:
    """Renew a lease from a thread of its own, until it is stopped or the lease is lost."""

    def __init__(self, db: Database, lease: Lease, on_lost: Callable[[], object]) -> None:
        self._db, self._lease, self._on_lost = db, lease, on_lost
        self._limits = limits()  # context variables do not reach the thread
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"mydocs-lease-{lease.term}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ask the thread to end. Do not wait for it: it may be in a call that gets no answer."""
        self._stopped.set()

    def _run(self) -> None:
        # If the lease took long to get, less of it is left until its first renewal.
        if self._pause(min(self._limits.renew_every, max(0.0, self._lease.deadline - clock()) / 3)):
            return  # most runs end before the first renewal and need no client for it
        try:
            with private_database(self._db) as db:
                self._renew_until_stopped(db)
        except Exception:
            logger.exception("the heartbeat of the lease broke")
        if not self._stopped.is_set():
            self._lease.lost = True
            self._told()
            try:
                self._on_lost()
                logger.warning("the lease of term %d is lost", self._lease.term)
            except RuntimeError:  # the event loop is closed: no task is left to inform
                logger.debug("the lease was lost after its event loop had ended")

    def _told(self) -> None:
        if (watch := self._lease.watch) is not None:
            watch()

    def _renew_until_stopped(self, db: Any) -> None:
        whose = {"owner.id": self._lease.owner.run_id, "term": self._lease.term}
        while not self._stopped.is_set():
            sent = clock()
            remaining = self._lease.deadline - sent
            if remaining <= 0:
                return
            try:
                with pymongo.timeout(min(self._limits.renewal, remaining)):
                    reply = db.command(_change(whose, {"expires_at": _UNTIL}))
            except PyMongoError as error:
                logger.info("renewing the lease: %s; %.0f s left", error, remaining)
                if isinstance(error, OperationFailure) and not server_errors.is_transient(error):
                    logger.warning("renewing the lease was refused: %s", error)
                self._pause(RETRY_RENEWAL_SECONDS)
                continue
            if not reply["n"]:
                self._lease.taken = True
                return
            self._lease.deadline = _deadline(sent)
            self._told()
            self._pause(self._limits.renew_every)

    def _pause(self, seconds: float) -> bool:
        """Wait, also while the machine sleeps. Return whether to stop."""
        until = clock() + seconds
        while not self._stopped.is_set() and (left := until - clock()) > 0:
            self._stopped.wait(min(left, SLICE_SECONDS))
        return self._stopped.is_set()
