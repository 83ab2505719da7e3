"""
Decide from a listed document whether an index is ready, and from several looks how a wait ends. Pure: no clock, no I/O.

Every field of a listing is optional: self-managed servers send no ``type``, local ones ``latestVersion`` in place of
``latestDefinitionVersion`` and no ``statusDetail``. A field of the wrong type counts as absent.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Final

from mydocs.migrations.indexes.definitions import SEARCH_KINDS, differences, kind_of
from mydocs.migrations.limits import Limits
from mydocs.migrations.model import Definition, IndexState, IndexType, TrackedIndex
from mydocs.migrations.values import value

SHOWN_DIFFERENCES = 3  # of the key paths that differ; the first ones show whose definition it is
GONE_LOOKS = 3  # the first look without it and two more: a listing may skip an index while a host restarts

MAX_GAP = 10.0  # seconds: the most by which a build of more than 200 s is seen late
GAP_SHARE = 0.05  # of the age: an index is seen ready late by at most a twentieth of its build time
JITTER = 0.1  # of the gap, up or down, so that 200 replicas do not look at the same moment

_VANISHED = "it was listed and is gone; somebody dropped it"
_NEVER_SEEN = (
    "it was never listed; if you no longer want it, call `drop_search_indexes` in a migration to take it off the list"
)
_NEVER_SEEN_BY_NAME = "it was never listed; check its name"  # no migration is known to have asked for it
ANOTHER = "still shows the previous index"
DIFFERS = "shows another definition, perhaps the previous one"

_STATES: Final[Mapping[str, IndexState]] = {
    "PENDING": IndexState.PENDING,
    "BUILDING": IndexState.BUILDING,
    "READY": IndexState.READY,
    "STALE": IndexState.STALE,
    "FAILED": IndexState.FAILED,
    "DELETING": IndexState.ABSENT,
    "DOES_NOT_EXIST": IndexState.ABSENT,
    # The words of older interfaces.
    "IN_PROGRESS": IndexState.BUILDING,
    "MIGRATING": IndexState.BUILDING,
    "STEADY": IndexState.READY,
}


@value
class Host:
    """The report of one host. ``version`` is of the definition that it serves; ``staged``: it builds another one."""

    status: str | None = None
    queryable: bool | None = None
    version: int | None = None
    staged: bool = False
    staged_status: str | None = None
    message: str | None = None


@value
class Listed:
    """One document of ``$listSearchIndexes``."""

    id: str | None = None
    name: str | None = None
    type: IndexType | None = None
    status: str | None = None
    queryable: bool | None = None
    version: int | None = None
    definition: Definition | None = None
    hosts: tuple[Host, ...] = ()
    message: str | None = None
    self_managed: bool = False


@value
class Verdict:
    """
    The result of one look at an index.

    :param differences: from the requested definition, if only these keep it from being ready
    """

    state: IndexState
    queryable: bool = False
    reason: str | None = None
    hosts_ready: int = 0
    hosts_total: int = 0
    differences: tuple[str, ...] = ()


@value
class Track:
    """
    The wait for one index so far. Times are monotonic seconds.

    :param asked_at: when the index was asked for, or the start of the wait if that is unknown
    :param since: start of the seconds in a report; the end of an earlier run's build is not known
    :param listed: the result of the last look
    :param seen: it was listed at least once
    :param missing_looks: number of consecutive looks that did not find it
    :param failed_since: the first of the consecutive looks that found it failed
    :param different_since: the first of the consecutive looks in which only its definition was wrong
    :param outcome: ``READY`` or ``FAILED`` at the end of the wait for it; it does not change any more
    """

    index: TrackedIndex
    asked_at: float
    since: float
    verdict: Verdict
    listed: Listed | None = None
    seen: bool = False
    missing_looks: int = 0
    failed_since: float | None = None
    different_since: float | None = None
    outcome: IndexState | None = None
    reason: str | None = None
    settled_at: float | None = None


def parse(document: object) -> Listed:
    """Read a listed document of any server. Never raise."""
    fields = _mapping(document)
    definition = fields.get("latestDefinition")
    definition = definition if isinstance(definition, Mapping) else None
    detail = fields.get("statusDetail")
    hosts = tuple(_host(entry) for entry in detail) if isinstance(detail, list | tuple) else ()
    status = _word(fields.get("status"))
    version = _integer(_mapping(fields.get("latestDefinitionVersion")).get("version"))
    return Listed(
        id=_text(fields.get("id")),
        name=_text(fields.get("name")),
        type=_type(fields.get("type"), definition),
        status=status,
        queryable=_flag(fields.get("queryable")),
        version=_integer(fields.get("latestVersion")) if version is None else version,
        definition=definition,
        hosts=hosts,
        message=_message(hosts, status) or _text(fields.get("message")),
        self_managed="type" not in fields and isinstance(detail, list | tuple),
    )


def serves_nothing(listed: Listed) -> bool:
    """Return whether an index has failed and no earlier definition of it answers queries."""
    if listed.status != "FAILED":
        return False
    if listed.queryable is not None:
        return not listed.queryable
    told = [host.queryable for host in listed.hosts if host.queryable is not None]
    # If no field tells, an index that was never updated has no earlier definition.
    return not any(told) if told else listed.version == 0


def by_name(listing: Iterable[Listed]) -> dict[str, list[Listed]]:
    """Group a listing by name, without documents that have none."""
    found: dict[str, list[Listed]] = {}
    for listed in listing:
        if listed.name is not None:
            found.setdefault(listed.name, []).append(listed)
    return found


def pick(target: TrackedIndex, named: Iterable[Listed]) -> Listed | None:
    """Return the index's document among those of its name. While an index is replaced, two may be listed."""
    return min(
        named,
        key=lambda listed: (_is_another(target, listed), _STATES.get(listed.status or "") is IndexState.ABSENT),
        default=None,
    )


def judge(target: TrackedIndex, listed: Listed | None) -> Verdict:
    """Return the state of an index from the view of a query that needs the requested definition."""
    state = IndexState.ABSENT if listed is None else _STATES.get(listed.status or "", IndexState.PENDING)
    if listed is None or state is IndexState.ABSENT:
        return Verdict(state=IndexState.ABSENT, reason="not listed" if listed is None else "being deleted")
    # A host without the index does not count, for example a shard without documents of the collection.
    hosts = [host for host in listed.hosts if _STATES.get(host.status or "") is not IndexState.ABSENT]
    ready = sum(_host_ready(host, listed.version) for host in hosts)
    # If `queryable` is missing, READY implies it: no server lists an index as READY that does not answer queries. The
    # reverse (BUILDING or FAILED while the old definition serves) is common.
    queryable = state is IndexState.READY if listed.queryable is None else listed.queryable
    reason: str | None = None
    different: tuple[str, ...] = ()
    if _is_another(target, listed):
        state, reason = IndexState.BUILDING, ANOTHER
    elif state is IndexState.FAILED:
        reason = listed.message or "the server gives no reason"
        reason += "; the old definition still serves" if queryable else ""
    elif state is IndexState.READY:
        reason = _not_yet(target, listed, queryable, ready, len(hosts))
        # Right after an update the old version can still be listed as READY and queryable.
        # The definition of a new index is compared as well: a later script may have updated it and been rolled back,
        # and a self-managed server may have answered a create with the index that it already had.
        if reason is None and target.definition is not None and listed.definition is not None:
            different = differences(target.type, target.definition, listed.definition)
            reason = DIFFERS if different else None
        state = IndexState.READY if reason is None else IndexState.BUILDING
    elif state is IndexState.STALE:
        reason = listed.message or "no longer follows the collection"
    elif listed.status not in _STATES:
        reason = f"the server says {listed.status}" if listed.status else "the server gives no status"
    return Verdict(
        state=state,
        queryable=queryable,
        reason=reason,
        hosts_ready=ready,
        hosts_total=len(hosts),
        differences=different,
    )


def begin(index: TrackedIndex, *, asked_at: float, since: float) -> Track:
    """Return the start of a wait for an index. For the times see :class:`Track`."""
    verdict = Verdict(state=IndexState.UNKNOWN, reason="not looked at yet")
    return Track(index=index, asked_at=asked_at, since=since, verdict=verdict)


def look(track: Track, listed: Listed | None, now: float, limits: Limits) -> Track:
    """Return the track after one good answer of the server. A track with an outcome stays as it is."""
    if track.outcome is not None or (listed is track.listed and is_unchanging(track)):
        return track
    verdict = judge(track.index, listed)
    absent = verdict.state is IndexState.ABSENT
    failed = verdict.state is IndexState.FAILED
    known = track.failed_since if track.failed_since is not None else now
    differs = track.different_since if track.different_since is not None else now
    track = replace(
        track,
        listed=listed,
        verdict=verdict,
        # The index that will be replaced does not count: it disappears before its successor is listed.
        seen=track.seen or not (absent or listed is None or _is_another(track.index, listed)),
        missing_looks=track.missing_looks + 1 if absent else 0,
        failed_since=known if failed else None,
        different_since=differs if verdict.differences else None,
    )
    if verdict.state is IndexState.READY:
        return _settle(track, IndexState.READY, None, now)
    if failed and now - known >= (limits.failed_self_managed if listed and listed.self_managed else limits.failed):
        return _settle(track, IndexState.FAILED, verdict.reason, now)
    if verdict.differences and now - differs >= limits.differs:
        return _settle(track, IndexState.FAILED, _other_definition(verdict.differences), now)
    if track.seen and track.missing_looks >= GONE_LOOKS:
        return _settle(track, IndexState.FAILED, _VANISHED, now)
    # Not at the first look, even if the script continued for an hour after it asked for the index.
    looked = track.missing_looks >= GONE_LOOKS
    if absent and not track.seen and looked and now - track.since >= limits.appear:
        return _settle(track, IndexState.FAILED, _never_seen(track), now)
    return track


def _never_seen(track: Track) -> str:
    return _NEVER_SEEN_BY_NAME if track.index.definition is None else _NEVER_SEEN


def is_unchanging(track: Track) -> bool:
    """Return whether another look with the same answer changes nothing: the end is known, or a build takes its time."""
    waits = track.listed is not None and track.verdict.state in (IndexState.PENDING, IndexState.BUILDING)
    return track.outcome is not None or (waits and not track.verdict.differences)


def at_timeout(track: Track, now: float | None = None) -> Track:
    """End a track that is failed, vanished or was never seen when the time is up. A late one stays open."""
    if track.outcome is not None:
        return track
    if track.verdict.state is IndexState.FAILED:
        return _settle(track, IndexState.FAILED, track.verdict.reason, now)
    if track.verdict.state is IndexState.ABSENT:
        return _settle(track, IndexState.FAILED, _VANISHED if track.seen else _never_seen(track), now)
    return track


def gap(tracks: Iterable[Track], now: float, least: float, jitter: float) -> float:
    """
    Return the seconds until the next look at a collection.

    A grace or a deadline that ends before it does not shorten it: the build has failed already, and an earlier look
    would only report it sooner.

    :param least: seconds between two looks, ``Limits.look_gap``
    :param jitter: from ``-JITTER`` to ``JITTER``
    """
    youngest = max((track.asked_at for track in tracks if track.outcome is None), default=now)
    return min(max(GAP_SHARE * (now - youngest), least), MAX_GAP) * (1 + jitter)


def _settle(track: Track, outcome: IndexState, reason: str | None, now: float | None) -> Track:
    return replace(track, outcome=outcome, reason=reason, settled_at=now)


def _is_another(target: TrackedIndex, listed: Listed) -> bool:
    """Return whether this is the index that was dropped for the new one: another id, or another type."""
    # If only the name is known, any type matches.
    other_type = target.definition is not None and listed.type not in (None, target.type)
    return other_type or (target.id is not None and listed.id != target.id)


def _not_yet(target: TrackedIndex, listed: Listed, queryable: bool, ready: int, hosts: int) -> str | None:
    """Return why an index that is listed as READY is not ready, or ``None`` if it is."""
    if not queryable:
        return "READY, but not queryable yet"
    # A listing without a definition proves nothing: it is better to be late than early.
    if target.definition is not None and listed.definition is None:
        return "the listing shows no definition"
    return f"{ready} of {hosts} hosts have the latest definition" if ready < hosts else None


def _other_definition(lines: tuple[str, ...]) -> str:
    more = len(lines) - SHOWN_DIFFERENCES
    told = "; ".join(lines[:SHOWN_DIFFERENCES]) + (f"; and {more} more" if more > 0 else "")
    return f"answers with another definition than the one asked for: {told}"


def _message(hosts: Iterable[Host], status: str | None) -> str | None:
    # One host's failure makes the whole index failed. Another host may still explain why it is stale.
    blamed_first = sorted(hosts, key=lambda host: status not in (host.status, host.staged_status))
    return next((host.message for host in blamed_first if host.message), None)


def _host_ready(host: Host, latest: int | None) -> bool:
    current = host.version is None or latest is None or host.version >= latest
    return (
        current
        and not host.staged
        and host.queryable is not False
        and _STATES.get(host.status or "READY") is IndexState.READY
    )


def _host(entry: object) -> Host:
    fields = _mapping(entry)
    main, staged = _mapping(fields.get("mainIndex")), _mapping(fields.get("stagedIndex"))
    staged_status = _word(staged.get("status"))
    # The message of the newer definition comes first, since the wait is for that one.
    messages = (_text(part.get("message")) for part in (staged, main, fields))
    return Host(
        status=_word(fields.get("status")),
        queryable=_flag(fields.get("queryable")),
        version=_integer(_mapping(main.get("definitionVersion")).get("version")),
        staged=bool(staged) and _STATES.get(staged_status or "") is not IndexState.ABSENT,
        staged_status=staged_status,
        message=next(filter(None, messages), None),
    )


def _type(value: object, definition: Definition | None) -> IndexType | None:
    known = isinstance(value, str) and value in SEARCH_KINDS
    return kind_of(value, definition or {}) if known or definition is not None else None


def _mapping(value: object) -> Mapping[Any, Any]:
    return value if isinstance(value, Mapping) else {}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _word(value: object) -> str | None:
    text = _text(value)
    return text and text.upper()


def _flag(value: object) -> bool | None:
    return value if isinstance(value, bool) else None


def _integer(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if isinstance(value, int) or value.is_integer() else None
