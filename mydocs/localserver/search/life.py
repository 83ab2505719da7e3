"""How far an index has come, from what was stored, the settings and the time. Pure: nothing ticks, no I/O."""

import heapq
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from math import inf
from typing import Any

from mydocs.localserver.search.settings import IndexOutcome, SearchSettings


class Status(StrEnum):
    """The listing's words."""

    PENDING = "PENDING"
    BUILDING = "BUILDING"
    READY = "READY"
    STALE = "STALE"
    FAILED = "FAILED"
    DELETING = "DELETING"


# IndexMapper.ExternalStatus: the worst of the hosts is that of the index. DELETING is not a host's status.
PRIORITY = {Status.FAILED: 5, Status.STALE: 4, Status.PENDING: 3, Status.BUILDING: 2, Status.READY: 1}
SERVING = frozenset({Status.READY, Status.STALE})


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """
    One version of an index. Times are seconds since 1970 by the server's clock.

    :param not_before: a start before this time would lie in the past
    :param started_at: known once it has started; until then it follows from the queue
    :param ready_at: known once it is ready, so that a later change of its outcome does not undo it
    """

    version: int
    created_at: float
    definition: Mapping[str, Any]
    not_before: float = -inf
    started_at: float | None = None
    ready_at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """
    An entry of the catalogue.

    :param main: the version that serves, or the only one
    :param staged: a newer version that takes over from ``main`` when it is ready
    :param looks_left: for how many looks the listing still shows ``main`` alone; not stored
    """

    id: str
    db: str
    collection: str
    uuid: str
    name: str
    type: str
    created_at: float
    main: Build
    staged: Build | None = None
    deleted_at: float | None = None
    looks_left: int = 0

    @property
    def latest(self) -> Build:
        return self.staged or self.main

    def to_document(self) -> dict[str, Any]:
        """Make a document of it for the store."""
        document = asdict(self)
        del document["looks_left"]
        return document

    @staticmethod
    def from_document(document: Mapping[str, Any]) -> "Index":
        """Read what `to_document` made."""
        staged = document["staged"]
        builds = {"main": Build(**document["main"]), "staged": Build(**staged) if staged else None}
        return Index(**{**document, **builds})


@dataclass(frozen=True, slots=True, kw_only=True)
class PartView:
    """One version on one host."""

    build: Build
    status: Status
    message: str | None

    @property
    def queryable(self) -> bool:
        return self.status in SERVING


@dataclass(frozen=True, slots=True, kw_only=True)
class HostView:
    """An index on one host."""

    hostname: str
    status: Status
    queryable: bool
    main: PartView
    staged: PartView | None


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexView:
    """What the listing says of an index."""

    index: Index
    latest: Build
    status: Status
    queryable: bool
    hosts: tuple[HostView, ...]


Outcomes = Callable[[Index], IndexOutcome]


def starts(indexes: Iterable[Index], outcomes: Outcomes, settings: SearchSettings) -> dict[tuple[str, int], float]:
    """Say when each build starts or has started, by index id and version."""
    found, running, waiting = {}, [], []
    for index in indexes:
        outcome = outcomes(index)
        seconds = _seconds(outcome.build_seconds, settings.build_seconds)
        for build in (index.main, index.staged):
            if build is None or index.deleted_at is not None:
                continue
            if build.started_at is None:
                earliest = build.created_at + _seconds(outcome.pending_seconds, settings.pending_seconds)
                waiting.append((build.created_at, index.id, build.version, max(earliest, build.not_before), seconds))
                continue
            found[index.id, build.version] = build.started_at
            if build.ready_at is None:
                running.append(build.started_at + seconds)
    # Where more run than there are places for (the limit was lowered), the last of them to end count.
    places = len(running) + len(waiting) if settings.max_building is None else settings.max_building
    free_at = heapq.nlargest(places, running + [-inf] * places)
    heapq.heapify(free_at)
    for _, key, version, earliest, seconds in sorted(waiting):
        start = max(earliest, free_at[0])
        heapq.heapreplace(free_at, start + seconds)
        found[key, version] = start
    return found


def ready_time(build: Build, start: float, outcome: IndexOutcome, settings: SearchSettings) -> float:
    """Say when a build is ready; infinity for one that never is."""
    if build.ready_at is not None:
        return build.ready_at
    seconds = _seconds(outcome.build_seconds, settings.build_seconds)
    return start + seconds if outcome.fails is None else start + seconds + outcome.recovers_after + seconds


def is_gone(index: Index, outcome: IndexOutcome, settings: SearchSettings, at: float) -> bool:
    """Say whether the catalogue can forget an index: deleted, or dropped behind everybody's back."""
    deleted = index.deleted_at is not None and index.deleted_at + delete_seconds(outcome, settings) <= at
    return deleted or index.created_at + outcome.vanishes_after <= at


def delete_seconds(outcome: IndexOutcome, settings: SearchSettings) -> float:
    """Say for how long an index that is being deleted is listed."""
    return _seconds(outcome.delete_seconds, settings.delete_seconds)


def updated(index: Index, build: Build, *, main_ready_at: float, staged_ready_at: float) -> Index:
    """Put in a new version; what is ready by now goes on serving until the new one is."""
    main = index.main
    if index.staged is not None and staged_ready_at <= build.created_at:
        return replace(index, main=replace(index.staged, ready_at=staged_ready_at), staged=build)
    if main_ready_at <= build.created_at:
        return replace(index, main=replace(main, ready_at=main_ready_at), staged=build)
    return replace(index, main=build, staged=None)


def view(
    index: Index,
    begun: Mapping[tuple[str, int], float],
    outcome: IndexOutcome,
    settings: SearchSettings,
    at: float,
) -> IndexView | None:
    """Say what the listing shows at a moment, ``None`` for nothing yet."""
    if at < index.created_at + outcome.appears_after:
        return None
    if index.deleted_at is not None:
        return IndexView(index=index, latest=index.latest, status=Status.DELETING, queryable=False, hosts=())
    shown = index
    if index.staged is not None and (at < index.staged.created_at + outcome.old_seconds or index.looks_left > 0):
        shown = replace(index, staged=None)
    names = outcome.hosts or settings.hosts
    lags = (*outcome.lags, *[0.0] * len(names))
    hosts = []
    for hostname, lag in zip(names, lags, strict=False):
        told = at - lag
        if settings.publish_seconds > 0:
            told = told // settings.publish_seconds * settings.publish_seconds
        host = _host(hostname, shown, begun, outcome, settings, told)
        if host is not None:
            hosts.append(host)
    return IndexView(
        index=index,
        latest=shown.latest,
        # Only hosts that have reported count: with several of them READY can be shown too early.
        status=max((host.status for host in hosts), key=PRIORITY.__getitem__, default=Status.PENDING),
        queryable=bool(hosts) and all(host.queryable for host in hosts),
        hosts=tuple(hosts),
    )


def _host(
    hostname: str,
    index: Index,
    begun: Mapping[tuple[str, int], float],
    outcome: IndexOutcome,
    settings: SearchSettings,
    at: float,
) -> HostView | None:
    def part(build: Build | None) -> PartView | None:
        if build is None or at < build.created_at:
            return None
        status, message = _phase(build, begun[index.id, build.version], outcome, settings, at)
        return PartView(build=build, status=status, message=message)

    main, staged = part(index.main), part(index.staged)
    if main is None:
        return None
    if staged is not None and staged.queryable:
        main, staged = staged, None
    return HostView(
        hostname=hostname,
        status=_combine(main, staged, latest=index.latest.version),
        queryable=main.queryable,
        main=main,
        staged=staged,
    )


def _combine(main: PartView, staged: PartView | None, *, latest: int) -> Status:
    """Play IndexMapper.calculateStatus; a staged version that is ready has taken over before."""
    if main.build.version == latest or main.status in {Status.PENDING, Status.BUILDING}:
        return main.status
    if staged is not None and staged.status is Status.FAILED:
        return Status.STALE if main.status is Status.STALE else Status.FAILED
    return Status.BUILDING


def _phase(
    build: Build, start: float, outcome: IndexOutcome, settings: SearchSettings, at: float
) -> tuple[Status, str | None]:
    if at < start:
        return Status.PENDING, None
    ready = ready_time(build, start, outcome, settings)
    if at < ready:
        failed = start + _seconds(outcome.build_seconds, settings.build_seconds)
        if build.ready_at is None and outcome.fails is not None and failed <= at < failed + outcome.recovers_after:
            return Status.FAILED, outcome.fails
        return Status.BUILDING, None
    if ready + outcome.stale_after <= at < ready + outcome.stale_after + outcome.stale_seconds:
        return Status.STALE, outcome.stale_message
    return Status.READY, None


def _seconds(value: float | None, default: float) -> float:
    return default if value is None else value
