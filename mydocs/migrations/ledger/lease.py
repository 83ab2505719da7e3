"""
Who may migrate now: one document, one holder, one clock.

The document is ``{_id: "lease", owner, term, acquired_at, expires_at}`` in ``_migrations_lock``.

States
    *free*: no document, or ``expires_at`` has passed. *held*: ``expires_at`` lies ahead. Released is free
    with ``owner: null``. The document is never removed, since ``term`` must not start again.

Who decides
    The server alone, by its own clock (``$$NOW``), in single operations on one document, which MongoDB makes atomic:

    - *acquire*: if free, set owner, ``term + 1`` and ``expires_at = $$NOW + 30 s``; else change nothing. The
      reply shows who holds it. Sent again after a lost reply it finds its own id and changes nothing.
    - *renew*: where owner and term are still ours, ``expires_at = $$NOW + 30 s``.
    - *release*: where owner and term are still ours, ``expires_at = $$NOW`` and no owner.

    The holder's own clock only ever stops it earlier: it counts 29 s from *before* it sent the last renewal
    that succeeded, on a clock that goes on while the machine sleeps, so its deadline lies a second before the
    server's at least. Clocks of two machines are never compared.

What each side may assume
    - A renewal that finds no document of ours: the lease is lost. Somebody else has it, or had it.
    - A renewal without an answer: it may have happened. Ask again after 5 s, on another connection, until the deadline;
      then count it as lost.
    - A holder that was paused beyond its deadline may run a few more instructions before it notices. The *term*
      fences those off: each ledger write names the term of its writer, and a successor replaces a ledger entry
      only if it is as it read it (held_ledger.py). So either the late write comes first and the successor sees it,
      or it matches nothing.
    - An acquirer may assume nothing about what its predecessor finished, and reads the ledger again.
    - Without a release (SIGKILL, power) the lease is free 30 s after the last renewal. Whoever waits on the same
      machine and sees that the holder's process has ended breaks it sooner, as `unlock --force` would (turn.py).

The renewals come from a thread with a synchronous client of its own: a script that blocks the event loop, for a minute
or for ever, or takes every connection of the pool, does not starve them. One call that keeps the interpreter to itself
does (a regular expression that explodes, `sum(range(10**10))`): after 30 s the lease is lost and another run may begin.
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
LEASE_SECONDS = 30.0
MARGIN_SECONDS = 1.0  # the holder's deadline is so much earlier than the server's
RETRY_RENEWAL_SECONDS = 0.5
SLICE_SECONDS = 1.0  # of a pause: a thread's waits stand still while the machine sleeps
PING_SECONDS = 2.0  # whether the server answers at all


def clock() -> float:
    """Tell the seconds of a clock that nobody sets, and that goes on while the machine sleeps where there is one."""
    return time.monotonic() if _CLOCK is None else time.clock_gettime(_CLOCK)


# On Linux and macOS `time.monotonic()` stands still while the machine sleeps; Windows' does not.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC if sys.platform == "darwin" else None)


@value
class Owner:
    """A process that wants the lease; ``run_id`` is new for each run, so that no two runs are taken for one."""

    host: str = field(default_factory=socket.gethostname)
    pid: int = field(default_factory=os.getpid)
    run_id: str = field(default_factory=lambda: secrets.token_hex(12))
    process: HolderProcess | None = None  # where the machine tells; see holder_process.py


@dataclass(slots=True, kw_only=True)
class Lease:
    """
    A lease that was acquired.

    :param deadline: by :func:`clock`
    :param acquired_at: by the server's clock; its answer came at ``since`` of :func:`clock`
    :param lost: somebody else has it, or may have it
    :param taken: a renewal was told that somebody else has it; otherwise it is lost since none had an answer
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
        Tell the server's time, to the millisecond that BSON keeps; late by what the server's answer took, never early.

        Two hosts' clocks may differ by more than two of their runs are apart, and the later entry of the ledger counts.
        """
        now = self.acquired_at + timedelta(seconds=clock() - self.since)
        return now.replace(microsecond=now.microsecond // 1000 * 1000)

    @property
    def is_ours(self) -> bool:
        return not self.lost and clock() < self.deadline

    def check(self) -> None:
        """:raises LeaseLost: where nothing may be written any more"""
        if not self.is_ours:
            raise LeaseLost(self.term)


def view_stages() -> list[dict[str, Any]]:
    """Aggregation stages that show the lease and the time by the server's clock; :func:`parse` reads the result."""
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

    :raises LedgerInvalid: where it is none of ours
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

    Cancellation waits for the answer, so that no lease is taken that nobody knows of.

    :return: the lease, or ``None`` while somebody else holds it
    :raises LedgerInvalid: where the document is none of ours; it is left as it is
    """
    sent = clock()

    async def ask() -> dict[str, Any]:
        return await to_the_end(commands.command(db, _acquire_command(owner)), "the request for the lease")

    try:
        reply = await retry.again(ask)
    except asyncio.CancelledError:  # what was asked for may have been granted
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
        return None  # two were the first ever, and the other one was quicker
    if not isinstance(reply.get("value"), Mapping):
        raise NotPossible(
            "findAndModify with `upsert` and `new` has given no document back, so nobody can tell who holds the lease; "
            "this server does not do what MongoDB does, use one that does"
        )
    view = parse(reply["value"])
    if view.run_id != owner.run_id:
        return None
    acquired_at = view.acquired_at or datetime.now(UTC)  # it was set by this very command
    return Lease(owner=owner, term=view.term, deadline=_deadline(sent), acquired_at=acquired_at)


@asynccontextmanager
async def held(db: Database, lease: Lease) -> AsyncIterator[Lease]:
    """
    Keep the lease for the length of a block, and give it back.

    :raises LeaseLost: in place of whatever the block raised, once the lease is gone; the block is cancelled then
    :raises ServerUnreachable: likewise, where it is gone since the server does not answer
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
    """Say why a lease is lost: a server that does not answer at all is another cause than another holder."""
    if not lease.is_ours and not lease.taken:
        try:
            await to_the_end(commands.command(db, {"ping": 1}), "a ping of the server", limit=PING_SECONDS)
        except (ConnectionFailure, ServerUnreachable) as error:
            cause = error.problem if isinstance(error, ServerUnreachable) else server_errors.text_of(error)
            return ServerUnreachable(f"the lease of term {lease.term} could not be renewed ({cause})")
    return LeaseLost(lease.term)


async def release(db: Database, lease: Lease) -> None:
    """Give the lease back if it is still ours; where the server cannot be told, it runs out by itself."""
    await _release(db, {"owner.id": lease.owner.run_id, "term": lease.term})


async def break_lease(db: Database, view: LeaseView) -> bool:
    """Take the lease from the holder that ``view`` shows. Returns whether it was still that one's."""
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
    is_sane = {"$in": [{"$type": "$term"}, ["missing", "int", "long"]]}
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
    """Renews a lease from a thread of its own until it is stopped or the lease is lost."""

    def __init__(self, db: Database, lease: Lease, on_lost: Callable[[], object]) -> None:
        self._db, self._lease, self._on_lost = db, lease, on_lost
        self._limits = limits()  # a thread has none of its own
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"mydocs-lease-{lease.term}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ask the thread to end; it is not waited for, since it may sit in a call that has no answer."""
        self._stopped.set()

    def _run(self) -> None:
        # A lease that took long to get has less time left until its first renewal than others.
        if self._pause(min(self._limits.renew_every, max(0.0, self._lease.deadline - clock()) / 3)):
            return  # most runs are over before the first renewal, and never make a client for it
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
            except RuntimeError:  # the event loop has been closed meanwhile: nobody is left to be told
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
        """Wait, also through a sleep of the machine; says whether to stop."""
        until = clock() + seconds
        while not self._stopped.is_set() and (left := until - clock()) > 0:
            self._stopped.wait(min(left, SLICE_SECONDS))
        return self._stopped.is_set()
