"""Wait for all search indexes at once: one poller a collection, until every target is ready or has failed."""

import logging
import random
import time
from collections.abc import Callable, Iterable, Sequence

import anyio
from pymongo.errors import PyMongoError

from mydocs.migrations.driver import mongo
from mydocs.migrations.driver.shared_looks import Looks, shared_looks
from mydocs.migrations.errors import IndexFailed, NotReady, ServerUnreachable
from mydocs.migrations.indexes import capture, readiness
from mydocs.migrations.indexes.readiness import Track
from mydocs.migrations.model import IndexAction, IndexRecord, IndexState, IndexTarget
from mydocs.migrations.reporting.events import IndexChanged, Sink, StillWaiting, Warned, emit

logger = logging.getLogger(__name__)

LISTINGS_AT_ONCE = 8  # collections; Motor has five threads a core for everything
LISTING_SECONDS = 30.0  # on the client; the server's own limit is a third of it
SIGN_OF_LIFE_SECONDS = 30.0


def target_of(record: IndexRecord, now: float, age: float = 0.0) -> IndexTarget:
    """
    Say what to wait for, from what a script did.

    Even of a new index the definition is compared: a later script may have updated it and been rolled back, and a
    self-managed server may have taken a create for one of the index that it has.

    :param age: seconds since another run has asked for it
    """
    return IndexTarget(
        collection=record.collection,
        name=record.name,
        type=record.type,
        definition=record.definition,
        compare=record.definition is not None,
        id=record.id,
        asked_at=now if record.asked_at is None else record.asked_at,
        age=age if record.asked_at is None else 0.0,
    )


async def wait_for(
    db: mongo.Database,
    targets: Sequence[IndexTarget],
    *,
    timeout: float | None,
    sink: Sink | None,
    keep: Callable[[tuple[Track, ...]], None] = lambda _: None,
) -> tuple[Track, ...]:
    """
    Return once every target is settled, or the time is up. Nothing is raised for a target that fails or is late.

    :param timeout: seconds for all of them together, or ``None`` for no limit
    :param keep: takes what was seen of each target by the end of the wait, also where that is broken off
    :raises PyMongoError: where the server cannot be asked any more, or refuses to answer
    """
    pollers = [
        _Poller(db, collection, [target for target in targets if target.collection == collection], sink)
        for collection in dict.fromkeys(target.collection for target in targets)
    ]
    errors: list[Exception] = []
    limiter = anyio.CapacityLimiter(LISTINGS_AT_ONCE)

    async def poll(poller: _Poller) -> None:
        try:
            await poller.run(limiter)
        except Exception as error:  # noqa: BLE001  # raised below, alone and not in a group
            errors.append(error)
        if errors or all(other.is_settled for other in pollers):
            group.cancel_scope.cancel()

    try:
        if pollers:
            with anyio.move_on_after(timeout):
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
    Say what a wait has come to. A failed index wins over one that is late.

    :raises IndexFailed: where a build has failed
    :raises NotReady: where an index is late
    """
    failed = [track for track in tracks if track.outcome is IndexState.FAILED]
    if failed:
        failures = [(_label(track.target), track.reason or "no reason given") for track in failed]
        raise IndexFailed(failures, gone=all(track.verdict.state is IndexState.ABSENT for track in failed))
    late = [f"{_label(t.target)} ({t.verdict.state.value})" for t in tracks if t.outcome is None]
    if late:
        raise NotReady(late, seconds)


async def wait_until_ready(collection: mongo.Collection, *names: str, timeout: float | None = 3600.0) -> None:
    """
    Wait inside a script until search indexes of one collection can be queried.

    :param names: the indexes; none for all that the script has created or changed on this collection
    :param timeout: seconds for all of them together, or ``None`` for no limit
    :raises IndexFailed: once the others are settled, where a build has failed
    :raises NotReady: where the time is up
    """
    records = capture.records_of(mongo.database_of(collection).name, collection.name)
    now = time.monotonic()
    targets = [
        target_of(records[name], now)
        if name in records
        else IndexTarget(collection=collection.name, name=name, asked_at=now)
        for name in names or [n for n, r in records.items() if r.action is not IndexAction.DROPPED]
    ]
    tracks = await wait_for(mongo.database_of(collection), targets, timeout=timeout, sink=capture.say)
    raise_unready(tracks, timeout or 0.0)


class _Poller:
    """Looks at one collection until all of its targets are settled."""

    def __init__(self, db: mongo.Database, collection: str, targets: Sequence[IndexTarget], sink: Sink | None) -> None:
        self._db, self._collection, self._sink = db, collection, sink
        now = time.monotonic()
        self.tracks = tuple(readiness.begin(target, now) for target in targets)

    @property
    def is_settled(self) -> bool:
        return all(track.outcome is not None for track in self.tracks)

    async def run(self, limiter: anyio.CapacityLimiter) -> None:
        names = tuple(sorted(track.target.name for track in self.tracks))
        # Shared with those who ask for the same names: where a listing is too large, only those are listed.
        with shared_looks(self._db, self._collection, names) as looks:
            await self._run(limiter, looks, names)

    async def _run(
        self, limiter: anyio.CapacityLimiter, looks: Looks[list[mongo.Document]], names: Sequence[str]
    ) -> None:
        async def ask() -> list[mongo.Document]:
            async with limiter:
                with anyio.fail_after(LISTING_SECONDS):
                    return await mongo.search_listing(self._db, self._collection, names)

        within = 0.0
        last_answer = time.monotonic()
        while True:
            try:
                documents = await looks.next(ask, within=within)
            except (PyMongoError, TimeoutError) as error:
                silent = time.monotonic() - last_answer
                late = isinstance(error, TimeoutError)
                if late and silent > mongo.TRANSIENT_SECONDS:
                    raise ServerUnreachable(
                        f"{self._collection} cannot be listed within {LISTING_SECONDS:.0f} s"
                    ) from error
                if silent > mongo.TRANSIENT_SECONDS or not (late or mongo.is_transient(error)):
                    raise
                logger.info("listing the search indexes of %s: %s; trying again", self._collection, error)
            else:
                last_answer = time.monotonic()
                self._take(documents, last_answer)
                if self.is_settled:
                    return
            jitter = random.uniform(-readiness.JITTER, readiness.JITTER)
            within = readiness.gap(self.tracks, time.monotonic(), jitter)

    def _take(self, documents: Iterable[mongo.Document], now: float) -> None:
        listing = [readiness.parse(document) for document in documents]
        before = self.tracks
        self.tracks = tuple(readiness.look(track, readiness.pick(track.target, listing), now) for track in before)
        for old, new in zip(before, self.tracks, strict=True):
            if new.verdict != old.verdict or new.outcome is not old.outcome:
                self._tell(new, now)

    def _tell(self, track: Track, now: float) -> None:
        verdict, target = track.verdict, track.target
        emit(
            self._sink,
            IndexChanged(
                collection=target.collection,
                name=target.name,
                type=target.type,
                state=verdict.state,
                queryable=verdict.queryable,
                seconds=now - target.asked_at,
                hosts_ready=verdict.hosts_ready,
                hosts_total=verdict.hosts_total,
                reason=track.reason or verdict.reason,
            ),
        )
        if verdict.state is IndexState.STALE:
            emit(self._sink, Warned(message=f"{_label(target)} is stale: {verdict.reason or 'it may be out of date'}"))


async def _signs_of_life(pollers: Sequence[_Poller], sink: Sink | None) -> None:
    started = time.monotonic()
    while True:
        await anyio.sleep(SIGN_OF_LIFE_SECONDS)
        late = tuple(_label(t.target) for poller in pollers for t in poller.tracks if t.outcome is None)
        emit(sink, StillWaiting(what=late, seconds=time.monotonic() - started))


def _label(target: IndexTarget) -> str:
    return f"{target.collection}.{target.name}"
