"""Wait for all search indexes at once: one poller a collection, until each index is ready or has failed. I/O."""

import logging
import math
import random
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import datetime

import anyio
from pymongo.errors import PyMongoError

from mydocs.migrations.driver import commands, server_errors
from mydocs.migrations.driver.client import Collection, Database, Document, database_of
from mydocs.migrations.driver.shared_looks import Looks, shared_looks
from mydocs.migrations.errors import IndexFailed, NotReady
from mydocs.migrations.indexes import capture, readiness
from mydocs.migrations.indexes.arguments import check_index_names
from mydocs.migrations.indexes.readiness import Listed, Track
from mydocs.migrations.limits import limited_to, limits
from mydocs.migrations.model import IndexAction, IndexState, TrackedIndex
from mydocs.migrations.reporting.events import IndexChanged, Sink, StillWaiting, Warned, emit
from mydocs.migrations.scripts.script_context import context

logger = logging.getLogger(__name__)

LISTINGS_AT_ONCE = 8  # collections; Motor has five threads a core for all its work
SIGN_OF_LIFE_SECONDS = 30.0


async def wait_for(
    db: Database,
    indexes: Sequence[TrackedIndex],
    *,
    timeout: float | None,
    sink: Sink | None,
    server_now: datetime | None = None,
    since: float = -math.inf,
    keep: Callable[[tuple[Track, ...]], None] = lambda _: None,
) -> tuple[Track, ...]:
    """
    Return once every index is ready or has failed, or the time is up. A failed or late index raises nothing here.

    :param timeout: seconds for all of them together, 0 for one look, or ``None`` for no limit
    :param server_now: the server's present time, comparable with ``asked_at``; ``None`` if it is unknown: then the wait
        counts as the start of each build
    :param since: monotonic seconds: the start of the seconds in the report for an index that was asked for earlier
    :param keep: receives the track of each index at the end of the wait, even if the wait is cancelled
    :raises PyMongoError: if the server cannot be reached any more, or refuses to answer
    """
    now = time.monotonic()
    tracks: dict[str, list[Track]] = {}
    for index in indexes:
        age = 0.0
        if server_now is not None and index.asked_at is not None:
            age = max(0.0, (server_now - index.asked_at).total_seconds())
        begun = readiness.begin(index, asked_at=now - age, since=min(now, max(now - age, since)))
        tracks.setdefault(index.collection, []).append(begun)
    once = timeout is not None and timeout <= 0
    pollers = [_Poller(db, collection, of, sink, once=once) for collection, of in tracks.items()]
    errors: list[Exception] = []
    limiter = anyio.Semaphore(LISTINGS_AT_ONCE, fast_acquire=True)

    async def poll(poller: _Poller) -> None:
        try:
            await poller.run(limiter)
        except Exception as error:  # noqa: BLE001  # raised below, alone instead of in a group
            errors.append(error)
        if errors or all(other.is_over for other in pollers):
            group.cancel_scope.cancel()

    try:
        if pollers:
            with anyio.move_on_after(None if once else timeout):
                async with anyio.create_task_group() as group:
                    group.start_soon(_signs_of_life, pollers, sink)
                    for poller in pollers:
                        group.start_soon(poll, poller)
    finally:
        keep(tuple(track for poller in pollers for track in poller.tracks))
    if errors:
        raise errors[0]
    now = time.monotonic()
    return tuple(readiness.at_timeout(track, now) for poller in pollers for track in poller.tracks)


def raise_unready(tracks: Iterable[Track], seconds: float) -> None:
    """
    Judge a wait that has ended. A failed index takes precedence over a late one.

    :raises IndexFailed: if a build has failed
    :raises NotReady: if an index is late
    """
    failed = [track for track in tracks if track.outcome is IndexState.FAILED]
    if failed:
        failures = [(str(track.index), track.reason or "no reason given") for track in failed]
        raise IndexFailed(failures, gone=all(track.verdict.state is IndexState.ABSENT for track in failed))
    late = [f"{t.index!s} ({t.verdict.state.value})" for t in tracks if t.outcome is None]
    if late:
        raise NotReady(late, seconds)


async def wait_until_ready(collection: Collection, *names: str, timeout: float | None = 3600.0) -> None:
    """
    Wait inside a script until search indexes of one collection can be queried.

    :param names: the indexes; none means all that the script has created or changed on this collection
    :param timeout: seconds for all of them together, 0 for one look, or ``None`` for no limit
    :raises IndexFailed: if a build has failed, once the others have ended
    :raises NotReady: if the time is up
    :raises UsageError: if a name is not a string
    """
    check_index_names("wait_until_ready", names)
    db, where = database_of(collection), collection.name
    records = capture.records_of(db.name, where)
    there = [
        name for name, index in records.items() if index.type.is_search and index.action is not IndexAction.DROPPED
    ]
    indexes = [records.get(name) or TrackedIndex(collection=where, name=name) for name in names or there]
    tracks = await wait_for(db, indexes, timeout=timeout, sink=context().emit, server_now=context().clock())
    raise_unready(tracks, timeout or 0.0)


class _Poller:
    """Look at one collection until each of its indexes is ready or has failed."""

    def __init__(
        self, db: Database, collection: str, tracks: Sequence[Track], sink: Sink | None, *, once: bool
    ) -> None:
        self._db, self._collection, self._sink, self._once = db, collection, sink, once
        self.tracks = tuple(tracks)
        self._read: list[tuple[Document, Listed]] = []
        self._looked = False

    @property
    def is_over(self) -> bool:
        return (self._once and self._looked) or all(track.outcome is not None for track in self.tracks)

    async def run(self, limiter: anyio.Semaphore) -> None:
        names = tuple(sorted(track.index.name for track in self.tracks))
        # Shared with pollers that ask for the same names: if a listing is too large, only those are listed.
        with shared_looks(self._db, self._collection, names) as looks:
            await self._run(limiter, looks, names)

    async def _run(self, limiter: anyio.Semaphore, looks: Looks[list[Document]], names: Sequence[str]) -> None:
        async def ask() -> list[Document]:
            async with limiter:
                with limited_to(replace(limits(), until=last_answer + limits().patience)):
                    return await commands.search_listing(self._db, self._collection, names)

        within = 0.0
        last_answer = time.monotonic()
        trouble: PyMongoError | None = None  # since the last good answer
        while True:
            try:
                documents = await looks.next(ask, within=within)
            except PyMongoError as error:
                # A look with hardly any time left fails for that reason, and would hide the server's own error.
                trouble = trouble if trouble and isinstance(error, server_errors.NoAnswer) else error
                logger.info("listing the search indexes of %s: %s", self._collection, error)
            else:
                trouble, last_answer = None, time.monotonic()
                self._take(documents, last_answer)
                if self.is_over:
                    return
            now = time.monotonic()
            jitter = random.uniform(-readiness.JITTER, readiness.JITTER)
            within = readiness.gap(self.tracks, now, limits().look_gap, jitter)
            in_time = not self._once and now + within < last_answer + limits().patience
            if trouble and not (in_time and server_errors.is_transient(trouble)):
                raise trouble

    def _take(self, documents: Sequence[Document], now: float) -> None:
        self._looked = True
        if documents == [document for document, _ in self._read] and all(map(readiness.is_unchanging, self.tracks)):
            return
        listing = readiness.by_name(self._parsed(documents))
        before, patience = self.tracks, limits()
        self.tracks = tuple(
            readiness.look(track, readiness.pick(track.index, listing.get(track.index.name, ())), now, patience)
            for track in before
        )
        for old, new in zip(before, self.tracks, strict=True):
            if new.verdict != old.verdict or new.outcome is not old.outcome:
                self._tell(new, now)

    def _parsed(self, documents: Sequence[Document]) -> list[Listed]:
        """Parse a listing. Documents that are unchanged since the last look are not parsed again."""
        known = self._read
        self._read = [
            known[place]
            if place < len(known) and known[place][0] == document
            else (document, readiness.parse(document))
            for place, document in enumerate(documents)
        ]
        return [listed for _, listed in self._read]

    def _tell(self, track: Track, now: float) -> None:
        verdict, index = track.verdict, track.index
        emit(
            self._sink,
            IndexChanged(
                collection=index.collection,
                name=index.name,
                type=None if index.definition is None else index.type,
                state=verdict.state,
                queryable=verdict.queryable,
                seconds=now - track.since,
                hosts_ready=verdict.hosts_ready,
                hosts_total=verdict.hosts_total,
                reason=track.reason or verdict.reason,
            ),
        )
        if verdict.state is IndexState.STALE:
            emit(self._sink, Warned(message=f"{index} is stale: {verdict.reason or 'it may be out of date'}"))


async def _signs_of_life(pollers: Sequence[_Poller], sink: Sink | None) -> None:
    started = time.monotonic()
    while True:
        await anyio.sleep(SIGN_OF_LIFE_SECONDS)
        late = tuple(str(t.index) for poller in pollers for t in poller.tracks if t.outcome is None)
        emit(sink, StillWaiting(what=late, seconds=time.monotonic() - started))
