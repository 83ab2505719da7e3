"""The lease against a model: owners that crash, pause and have wrong clocks, on a server whose clock is moved."""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, replace
from typing import Any, TypeVar
from unittest.mock import patch

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from motor.motor_asyncio import AsyncIOMotorClient, AsyncIOMotorDatabase
from pymongo import MongoClient

from mydocs.localserver import LocalServer
from mydocs.localserver.clock import ManualClock
from mydocs.migrations.errors import LeaseLost, LedgerInvalid
from mydocs.migrations.ledger import entries as ledger
from mydocs.migrations.ledger import lease
from mydocs.migrations.ledger.held_ledger import HeldLedger
from mydocs.migrations.ledger.lease import LEASE_SECONDS, Lease, Owner, acquire, break_lease, clock, release
from mydocs.migrations.model import Entry, MigrationState, RunStamp

T = TypeVar("T")
Db = AsyncIOMotorDatabase[dict[str, Any]]
NAMES = ("a", "b")


@dataclass
class Actor:
    """
    A process as it sees itself: the lease that it believes in, and the entry that it is at work on.

    :param known: the ledger as it was read after the lease was taken
    """

    owner: Owner
    lease: Lease | None = None
    known: tuple[Entry, ...] = ()
    entry: Entry | None = None


class LeaseMachine(RuleBasedStateMachine):
    """Two owners drive the real functions; the model knows who holds the lease by the server's clock."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.clock = ManualClock()
        self.server = LocalServer(clock=self.clock).start()
        self.client: AsyncIOMotorClient[dict[str, Any]] = AsyncIOMotorClient(self.server.url, io_loop=self.loop)
        self.sync: MongoClient[dict[str, Any]] = MongoClient(self.server.url)
        self.db: Db = self.client["app"]
        self.actors = {name: Actor(Owner(host=name)) for name in NAMES}
        self.term = 0
        self.holder: str | None = None
        self.expires = 0.0

    def teardown(self) -> None:
        self.client.close()
        self.sync.close()
        self.server.stop()
        self.loop.close()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    @initialize()
    def warm_up(self) -> None:
        assert self.run(acquire(self.db, self.actors["a"].owner)) is not None
        self.run(release(self.db, Lease(owner=self.actors["a"].owner, term=1, deadline=0)))
        self.term = 1

    def of_first(self) -> tuple[Entry, ...]:
        """The entry of the script that the two compete for."""
        return tuple(entry for entry in self.run(ledger.read(self.db)).entries if entry.version == "001")

    def opening(self, name: str, held: Lease, version: str, previous: Entry | None = None) -> Entry:
        stamp = RunStamp(run_id=held.owner.run_id, term=held.term, host=name, pid=1, tool="t")
        return ledger.opening(
            stamp, at=held.now(), version=version, name="a", script=None, checksum="sha256:1", previous=previous
        )

    @property
    def is_held(self) -> bool:
        return self.holder is not None and self.clock.monotonic() < self.expires

    @rule(name=st.sampled_from(NAMES))
    def take(self, name: str) -> None:
        actor, was_held = self.actors[name], self.is_held
        taken = self.run(acquire(self.db, actor.owner))
        if was_held and self.holder != name:
            assert taken is None, "two hold the lease"
            return
        assert taken is not None, "a free lease was refused"
        if not was_held:
            self.term += 1
            self.expires = self.clock.monotonic() + LEASE_SECONDS
        assert taken.term == self.term, "the term grows by one with each acquisition and only then"
        actor.lease, self.holder = taken, name
        actor.known = self.of_first()

    @rule(name=st.sampled_from(NAMES))
    def renew(self, name: str) -> None:
        actor = self.actors[name]
        if actor.lease is None:
            return
        # What the thread does: find out by itself that the lease is gone, or move its end.
        before = actor.lease.deadline
        actor.lease.deadline = clock() + LEASE_SECONDS
        beat = lease._Heartbeat(self.db, actor.lease, lambda: None)  # noqa: SLF001  # one beat without its thread
        with patch.object(beat._stopped, "wait", side_effect=lambda _: beat.stop()):  # noqa: SLF001
            beat._renew_until_stopped(self.sync["app"])  # noqa: SLF001
        renewed = beat._stopped.is_set()  # noqa: SLF001
        actor.lease.deadline = max(before, actor.lease.deadline)
        assert renewed == (self.holder == name and actor.lease.term == self.term)
        if renewed:
            self.expires = self.clock.monotonic() + LEASE_SECONDS
        else:
            actor.lease.lost = True

    @rule(name=st.sampled_from(NAMES))
    def give_back(self, name: str) -> None:
        actor = self.actors[name]
        if actor.lease is None:
            return
        self.run(release(self.db, actor.lease))
        if self.holder == name and actor.lease.term == self.term:
            self.holder = None
        actor.lease = actor.entry = None

    @rule(name=st.sampled_from(NAMES))
    def crash(self, name: str) -> None:
        """Come back as another process, which knows nothing of the lease that is still held in its name."""
        if self.holder == name:
            self.holder = "nobody that is left"
        self.actors[name] = Actor(Owner(host=name))

    @rule(seconds=st.sampled_from([1.0, 10.0, 29.9, 30.0, 31.0, 300.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(name=st.sampled_from(NAMES), seconds=st.sampled_from([-300.0, -20.0, 20.0, 300.0]))
    def jump(self, name: str, seconds: float) -> None:
        """Let the clock of a process jump; it may only make the process stop earlier, or rely on the fence."""
        actor = self.actors[name]
        if actor.lease is not None:
            actor.lease.deadline += seconds

    @rule(force=st.booleans())
    def look_and_break(self, force: bool) -> None:
        view = self.run(ledger.read(self.db)).lease
        assert view is not None
        assert (view.live, view.term) == (self.is_held, self.term)
        if self.is_held and force:
            assert self.run(break_lease(self.db, view))
            self.holder = None
            assert not self.run(break_lease(self.db, view)), "whoever has taken it since loses it to nobody"

    @rule(name=st.sampled_from(NAMES))
    def begin_script(self, name: str) -> None:
        actor = self.actors[name]
        if actor.lease is None:
            return
        before = self.of_first()
        previous = actor.known[0] if actor.known else None
        entry = self.opening(name, actor.lease, "001", previous)
        try:
            self.run(HeldLedger(db=self.db, lease=actor.lease).start(entry, previous))
        except LeaseLost:
            actor.entry = None
            assert self.of_first() == before
        else:
            ours = [e for e in before if e.run is not None and e.run.run_id == actor.owner.run_id]
            assert ours or before == actor.known, "an entry was replaced that its writer had never seen"
            actor.entry, actor.known = entry, (entry,)

    @rule(name=st.sampled_from(NAMES))
    def take_over(self, name: str) -> None:
        """Wait until the lease is free, and begin the script; whoever had it is not asked."""
        self.clock.advance(LEASE_SECONDS)
        self.take(name)
        self.begin_script(name)

    @precondition(lambda self: any(actor.entry for actor in self.actors.values()))
    @rule(name=st.sampled_from(NAMES), paused=st.booleans(), goes_on=st.booleans())
    def end_script(self, name: str, paused: bool, goes_on: bool) -> None:
        actor = self.actors[name]
        if actor.lease is None or actor.entry is None:
            return
        if paused:  # after it has looked at its own clock for the last time
            actor.lease = replace(actor.lease, lost=False, deadline=clock() + 60)
        before = self.run(ledger.read(self.db)).entries
        (first,) = self.of_first()
        ours = (
            first.run is not None and first.run.run_id == actor.owner.run_id and first.attempts == actor.entry.attempts
        )
        ended = replace(actor.entry, state=MigrationState.APPLIED, seconds=1.0)
        following = self.opening(name, actor.lease, "002")
        try:
            if goes_on:
                self.run(HeldLedger(db=self.db, lease=actor.lease).finish_and_start(ended, following))
            else:
                self.run(HeldLedger(db=self.db, lease=actor.lease).finish(ended))
        except LeaseLost:
            assert self.run(ledger.read(self.db)).entries == before, "nothing is begun by who cannot end what it ran"
        else:
            assert ours, "a stale holder's write has landed after its successor's"

    @invariant()
    def the_server_agrees_with_the_model(self) -> None:
        document = self.sync["app"][lease.COLLECTION].find_one({"_id": "lease"})
        if document is None:
            return
        assert document["term"] == self.term
        expires = document["expires_at"].timestamp() if document["owner"] else 0
        assert (document["owner"] is not None and expires > self.clock.now().replace(tzinfo=None).timestamp()) == (
            self.is_held
        )


TestLease = pytest.mark.seconds(90)(LeaseMachine.TestCase)  # it starts 60 servers
TestLease.settings = settings(max_examples=60, stateful_step_count=25)


@pytest.mark.anyio
async def test_a_released_lease_is_free_at_once_and_its_document_stays(local_db: Db) -> None:
    first = await acquire(local_db, Owner(host="a"))
    assert first is not None
    await release(local_db, first)
    second = await acquire(local_db, Owner(host="b"))
    assert second is not None
    assert (first.term, second.term) == (1, 2)


@pytest.mark.anyio
async def test_a_lost_reply_to_an_acquisition_neither_loses_the_lease_nor_counts_twice(
    local_db: Db, local_server: LocalServer
) -> None:
    local_server.controls.cut_after(command="findAndModify")
    taken = await acquire(local_db, Owner(host="a"))
    assert taken is not None
    assert taken.term == 1


@pytest.mark.anyio
async def test_the_lease_tells_no_later_time_than_the_server(
    local_db: Db, local_server: LocalServer, local_clock: ManualClock
) -> None:
    """However long the server took to answer: the times of the next holder must come after those of this one."""
    local_server.controls.call(lambda _: local_clock.advance(60), command="findAndModify")
    local_server.controls.error(91, "shutting down", ["RetryableWriteError"], command="findAndModify")
    taken = await acquire(local_db, Owner(host="a"))
    assert taken is not None
    assert taken.acquired_at <= taken.now() <= local_clock.now()


@pytest.mark.parametrize(
    ("document", "says"),
    [
        pytest.param({"term": "1", "expires_at": None}, "`term` is '1'", id="term is text"),
        pytest.param({"owner": None}, "`term` is None", id="no term"),
        pytest.param({"term": 1, "expires_at": "soon"}, "`expires_at` is 'soon'", id="end is text"),
        pytest.param({"term": 1, "expires_at": 5, "owner": None}, "`expires_at` is 5", id="end is a number"),
    ],
)
@pytest.mark.anyio
async def test_a_lease_of_another_shape_is_named_and_left_alone(
    local_db: Db, document: dict[str, Any], says: str
) -> None:
    stored = {"_id": "lease"} | document
    await local_db[lease.COLLECTION].insert_one(dict(stored))
    with pytest.raises(LedgerInvalid, match=says):
        await ledger.read(local_db)
    if "term" in document:
        with pytest.raises(LedgerInvalid, match=says):
            await acquire(local_db, Owner())
        assert await local_db[lease.COLLECTION].find_one() == stored
