"""Compute the state of an index from its stored builds, the settings and the time. Pure: no timers, no I/O."""

import heapq
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from math import inf
from typing import Any

from mydocs.localserver.search.settings import IndexOutcome, SearchSettings


class Status(StrEnum):
    """The states of the listing."""

    PENDING = "PENDING"
    BUILDING = "BUILDING"
    READY = "READY"
    STALE = "STALE"
    FAILED = "FAILED"
    DELETING = "DELETING"


# IndexMapper.ExternalStatus: an index has the worst status of its hosts. DELETING is not a host's status.
PRIORITY = {Status.FAILED: 5, Status.STALE: 4, Status.PENDING: 3, Status.BUILDING: 2, Status.READY: 1}
SERVING = frozenset({Status.READY, Status.STALE})


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """
    One version of an index. Times are seconds since 1970 by the server's clock.

    :param not_before: the earliest start; an earlier one would lie in the past
    :param started_at: known once it has started; until then the queue decides
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
    :param staged: a newer version that replaces ``main`` when it is ready
    :param looks_left: number of listings that still show only ``main``; not stored
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
        """Return a document for the store."""
        document = asdict(self)
        del document["looks_left"]
        return document

    @staticmethod
    def from_document(document: Mapping[str, Any]) -> "Index":
        """Read a document of `to_document`."""
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
    """An index as the listing shows it."""

    index: Index
    latest: Build
    status: Status
    queryable: bool
    hosts: tuple[HostView, ...]


Outcomes = Callable[[Index], IndexOutcome]


def starts(indexes: Iterable[Index], outcomes: Outcomes, settings: SearchSettings) -> dict[tuple[str, int], float]:
    """Return when each build starts or has started, by index id and version."""
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
    # If more builds run than the limit (which was lowered), the last ones to end count.
    places = len(running) + len(waiting) if settings.max_building is None else settings.max_building
    free_at = heapq.nlargest(places, running + [-inf] * places)
    heapq.heapify(free_at)
    for _, key, version, earliest, seconds in sorted(waiting):
        start = max(earliest, free_at[0])
        heapq.heapreplace(free_at, start + seconds)
        found[key, version] = start
    return found


def ready_time(build: Build, start: float, outcome: IndexOutcome, settings: SearchSettings) -> float:
    """Return when a build is ready; infinity if never."""
    if build.ready_at is not None:
        return build.ready_at
    seconds = _seconds(outcome.build_seconds, settings.build_seconds)
    return start + seconds if outcome.fails is None else start + seconds + outcome.recovers_after + seconds


def is_gone(index: Index, outcome: IndexOutcome, settings: SearchSettings, at: float) -> bool:
    """Return whether the catalogue can forget an index: deleted, or vanished by its outcome."""
    deleted = index.deleted_at is not None and index.deleted_at + delete_seconds(outcome, settings) <= at
    return deleted or index.created_at + outcome.vanishes_after <= at


def delete_seconds(outcome: IndexOutcome, settings: SearchSettings) -> float:
    """Return how long an index that is being deleted stays listed."""
    return _seconds(outcome.delete_seconds, settings.delete_seconds)


def updated(index: Index, build: Build, *, main_ready_at: float, staged_ready_at: float) -> Index:
    """Add a new version. The ready one continues to serve until the new one is ready."""
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
    """Return what the listing shows at a moment, or ``None`` if nothing yet."""
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
        # Only hosts that have reported count. With several hosts READY can be shown too early.
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
    """Combine as IndexMapper.calculateStatus does. A staged version that is ready has already replaced the main one."""
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
