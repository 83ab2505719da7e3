"""One look at an index, and the wait that many looks make up."""

import random
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mydocs.migrations.indexes.readiness import (
    JITTER,
    Host,
    Listed,
    Track,
    at_timeout,
    begin,
    by_name,
    gap,
    judge,
    look,
    parse,
    pick,
)
from mydocs.migrations.limits import Limits
from mydocs.migrations.model import IndexState, IndexType, TrackedIndex

LIMITS = Limits()
NEW = {"mappings": {"dynamic": False, "fields": {"content": {"type": "string"}}}}
OLD = {"mappings": {"dynamic": True}}


def target(**options: Any) -> TrackedIndex:
    return TrackedIndex(**{"collection": "pages", "name": "ft", "type": IndexType.SEARCH} | options)


def host(number: int = 0, **fields: Any) -> dict[str, Any]:
    """One host, self-managed or Atlas, that serves version 1; None drops a field."""
    document = {
        "hostname": f"shard-00-0{number}",
        "status": "READY",
        "queryable": True,
        "mainIndex": part(1, NEW),
    } | fields
    return {key: value for key, value in document.items() if value is not None}


def part(version: int, definition: Any, status: str = "READY", **fields: Any) -> dict[str, Any]:
    return {
        "status": status,
        "queryable": status == "READY",
        "definitionVersion": {"version": version, "createdAt": "…"},
        "definition": definition,
    } | fields


def atlas(**fields: Any) -> dict[str, Any]:
    """An index at version 1 that is ready, as Atlas lists it; None drops a field."""
    document = {
        "id": "6524096020da840844a4c4a7",
        "name": "ft",
        "type": "search",
        "status": "READY",
        "queryable": True,
        "latestDefinitionVersion": {"version": 1, "createdAt": "…"},
        "latestDefinition": NEW,
        "statusDetail": [host(0), host(1)],
    } | fields
    return {key: value for key, value in document.items() if value is not None}


def local(**fields: Any) -> dict[str, Any]:
    """The same from mongodb-atlas-local."""
    return atlas(**{"latestDefinitionVersion": None, "latestVersion": 1, "statusDetail": None} | fields)


BUILDING = atlas(
    status="BUILDING",
    statusDetail=[host(status="BUILDING", mainIndex=part(0, OLD), stagedIndex=part(1, NEW, "PENDING"))],
)


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        pytest.param(
            BUILDING | {"synonymMappingStatus": "BUILDING"},
            Listed(
                id="6524096020da840844a4c4a7",
                name="ft",
                type=IndexType.SEARCH,
                status="BUILDING",
                queryable=True,
                version=1,
                definition=NEW,
                hosts=(
                    Host(
                        status="BUILDING",
                        queryable=True,
                        version=0,
                        staged=True,
                        staged_status="PENDING",
                    ),
                ),
            ),
            id="Atlas, in the middle of an update",
        ),
        pytest.param(
            atlas(type=None, latestDefinition={"fields": []}, statusDetail=[]),
            Listed(
                id="6524096020da840844a4c4a7",
                name="ft",
                type=IndexType.VECTOR,
                status="READY",
                queryable=True,
                version=1,
                definition={"fields": []},
                self_managed=True,
            ),
            id="self-managed: no type",
        ),
        pytest.param(
            local(),
            Listed(
                id="6524096020da840844a4c4a7",
                name="ft",
                type=IndexType.SEARCH,
                status="READY",
                queryable=True,
                version=1,
                definition=NEW,
            ),
            id="Atlas local: latestVersion, no hosts",
        ),
        pytest.param({"type": "other", "id": 1, "queryable": "yes", "latestVersion": True}, Listed(), id="wrong types"),
        pytest.param({"latestVersion": 2.0}, Listed(version=2), id="version as a double"),
        pytest.param({"latestVersion": 2.5}, Listed(), id="version that is none"),
        pytest.param(7, Listed(), id="no document"),
    ],
)
def test_every_dialect_is_read(document: Any, expected: Listed) -> None:
    assert parse(document) == expected


@pytest.mark.parametrize(
    "document",
    [
        pytest.param(atlas(), id="Atlas"),
        pytest.param(atlas(type=None), id="self-managed"),
        pytest.param(local(), id="Atlas local"),
        pytest.param(atlas(queryable=None), id="no queryable: READY vouches for it"),
        pytest.param(atlas(status="STEADY"), id="older word"),
        pytest.param(atlas(latestDefinitionVersion=None), id="no version"),
        pytest.param(atlas(statusDetail=[host(mainIndex=None, status=None)]), id="hosts without detail"),
        pytest.param(
            atlas(statusDetail=[host(0), {"hostname": "b", "status": "DOES_NOT_EXIST", "queryable": False}]),
            id="a host without the index",
        ),
        pytest.param(
            atlas(statusDetail=[host(stagedIndex=part(1, NEW, "DOES_NOT_EXIST"))]), id="a staged index that is none"
        ),
    ],
)
def test_ready_in_every_dialect(document: dict[str, Any]) -> None:
    verdict = judge(target(definition=NEW, id=document["id"]), parse(document))
    assert (verdict.state, verdict.queryable, verdict.reason) == (IndexState.READY, True, None)
    assert verdict.hosts_ready == verdict.hosts_total


# Each of these is ready for somebody's waiter: the name says what that one overlooks.
@pytest.mark.parametrize(
    ("document", "state", "reason"),
    [
        pytest.param(None, "absent", "not listed", id="no document is not all documents ready"),
        pytest.param(BUILDING, "building", None, id="queryable alone"),
        pytest.param(atlas(queryable=False), "building", "READY, but not queryable yet", id="status alone"),
        pytest.param(
            atlas(latestDefinition=OLD),
            "building",
            "shows another definition, perhaps the previous one",
            id="READY of the old version",
        ),
        pytest.param(
            atlas(latestDefinition=None), "building", "the listing shows no definition", id="nothing to compare with"
        ),
        pytest.param(
            atlas(id="another"), "building", "still shows the previous index", id="the index that is being replaced"
        ),
        pytest.param(
            atlas(type="vectorSearch"), "building", "still shows the previous index", id="the index of the other type"
        ),
        pytest.param(
            atlas(id="another", status="FAILED"), "building", "still shows the previous index", id="its failure"
        ),
        pytest.param(
            atlas(statusDetail=[host(0), host(1, stagedIndex=part(1, NEW, "BUILDING"))]),
            "building",
            "1 of 2 hosts have the latest definition",
            id="one host still stages",
        ),
        pytest.param(
            atlas(statusDetail=[host(0), host(1, mainIndex=part(0, OLD))]),
            "building",
            "1 of 2 hosts have the latest definition",
            id="one host serves the old version",
        ),
        pytest.param(
            atlas(statusDetail=[host(0), host(1, queryable=False)]),
            "building",
            "1 of 2 hosts have the latest definition",
            id="one host does not answer",
        ),
        pytest.param(atlas(status="DELETING"), "absent", "being deleted", id="being deleted"),
        pytest.param(atlas(status="DOES_NOT_EXIST"), "absent", "being deleted", id="does not exist"),
        pytest.param(atlas(status="STALE"), "stale", "no longer follows the collection", id="stale but queryable"),
        pytest.param(
            atlas(status="STALE", message="Docs exceeded"),
            "stale",
            "Docs exceeded",
            id="stale, and the server says why",
        ),
        pytest.param(atlas(status="PENDING", queryable=False, statusDetail=[]), "pending", None, id="not started"),
        pytest.param(atlas(status="PAUSED"), "pending", "the server says PAUSED", id="a word that nobody knows"),
        pytest.param(atlas(status=None), "pending", "the server gives no status", id="no status"),
        pytest.param(
            atlas(status="FAILED", queryable=False), "failed", "the server gives no reason", id="failed without a word"
        ),
        pytest.param(
            atlas(
                status="FAILED",
                statusDetail=[
                    host(0, status="STALE", message="Recovering"),
                    host(1, status="FAILED", stagedIndex=part(1, NEW, "FAILED", message="Invalid definition: x")),
                ],
            ),
            "failed",
            "Invalid definition: x; the old definition still serves",
            id="failed update",
        ),
    ],
)
def test_not_ready_whatever_others_take_for_it(document: Any, state: str, reason: str | None) -> None:
    asked = target(definition=NEW, id="6524096020da840844a4c4a7")
    verdict = judge(asked, None if document is None else parse(document))
    assert (verdict.state, verdict.reason) == (state, reason)


def test_any_definition_and_type_will_do_where_only_the_name_is_known() -> None:
    assert judge(target(), parse(atlas(latestDefinition=OLD))).state is IndexState.READY
    assert judge(target(), parse(atlas(type="vectorSearch"))).state is IndexState.READY


JUNK = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=3)
    | st.sampled_from(["READY", "FAILED"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3),
    max_leaves=4,
)
HOSTS = st.lists(
    JUNK | st.dictionaries(st.sampled_from(["status", "queryable", "mainIndex", "stagedIndex", "hostname"]), JUNK),
    max_size=2,
)
DOCUMENTS = st.fixed_dictionaries({}, optional=dict.fromkeys(atlas(), JUNK) | {"statusDetail": HOSTS})


@given(DOCUMENTS)
def test_no_document_raises_or_is_ready_without_saying_so(document: dict[str, Any]) -> None:
    verdict = judge(target(definition=NEW), parse(document))
    assert verdict.state is not IndexState.READY
    assert verdict.hosts_ready <= verdict.hosts_total


def test_of_two_indexes_of_one_name_the_one_that_was_asked_for_is_picked() -> None:
    going, other, mine = parse(atlas(id="1", status="DELETING")), parse(atlas(name="x")), parse(atlas(id="2"))
    named = by_name([going, other, parse({}), mine])
    assert named == {"ft": [going, mine], "x": [other]}
    assert pick(target(id="2"), named["ft"]) is mine
    assert pick(target(), [going, mine]) is mine
    assert pick(target(), [going]) is going
    assert pick(target(), []) is None


NEVER_SEEN = (
    "it was never listed; if you no longer want it, call `drop_search_indexes` in a migration to take it off the list"
)
READY, FAILED = parse(atlas()), parse(atlas(status="FAILED", queryable=False, message="x"))
SELF_FAILED = parse(atlas(status="FAILED", queryable=False, type=None, message="x"))
STARTED, STALE, OTHER = parse(atlas(status="BUILDING")), parse(atlas(status="STALE")), parse(atlas(type="vectorSearch"))


def begun(asked_at: float = 0.0, since: float | None = None, **options: Any) -> Track:
    return begin(target(**options), asked_at=asked_at, since=asked_at if since is None else since)


def watch(*looks: tuple[float, Listed | None], since: float = 0.0) -> Track:
    track = begun(since=since, definition=NEW)
    for now, listed in looks:
        track = look(track, listed, now, LIMITS)
    return track


@pytest.mark.parametrize(
    ("looks", "outcome", "reason"),
    [
        pytest.param([(1, STARTED), (2, READY)], "ready", None, id="ready"),
        pytest.param([(1, FAILED), (LIMITS.failed + 0.9, FAILED)], None, None, id="failed, in its grace"),
        pytest.param([(1, FAILED), (LIMITS.failed + 1, FAILED)], "failed", "x", id="failed for good"),
        pytest.param([(1, FAILED), (2, READY)], "ready", None, id="recovers in its grace"),
        pytest.param([(1, FAILED), (9, STARTED), (10, FAILED), (24, FAILED)], None, None, id="a new grace after that"),
        pytest.param(
            [(1, SELF_FAILED), (LIMITS.failed_self_managed + 0.9, SELF_FAILED)], None, None, id="self-managed"
        ),
        pytest.param(
            [(1, SELF_FAILED), (LIMITS.failed_self_managed + 1, SELF_FAILED)],
            "failed",
            "x",
            id="self-managed, for good",
        ),
        pytest.param([(1, None), (LIMITS.appear - 0.1, None)], None, None, id="not seen yet"),
        pytest.param([(1, None), (59, None), (LIMITS.appear, None)], "failed", NEVER_SEEN, id="never seen"),
        pytest.param([(LIMITS.appear, None)], None, None, id="not seen at the first look, asked for long ago"),
        pytest.param([(1, OTHER), (59, OTHER), (70, OTHER)], None, None, id="the old index is still there"),
        pytest.param([(1, OTHER), (2, None), (3, None), (4, None)], None, None, id="the old index goes first"),
        pytest.param([(1, STARTED), (2, None), (3, None)], None, None, id="gone for two looks"),
        pytest.param(
            [(1, STARTED), (2, None), (3, None), (4, None)],
            "failed",
            "it was listed and is gone; somebody dropped it",
            id="gone, and two more looks",
        ),
        pytest.param([(1, STARTED), (2, None), (3, None), (4, STARTED), (5, None)], None, None, id="back again"),
        pytest.param([(now, STALE) for now in range(1, 1000, 10)], None, None, id="stale waits"),
    ],
)
def test_outcome_of_several_looks(looks: list[tuple[float, Listed | None]], outcome: str | None, reason: str) -> None:
    track = watch(*looks)
    assert (track.outcome, track.reason) == (outcome, reason)
    assert track.settled_at == (None if outcome is None else looks[-1][0])


def test_a_wait_that_is_taken_up_again_counts_from_its_own_start() -> None:
    assert watch((1010.0, None), (1020.0, None), (1030.0, None), since=1000.0).outcome is None
    assert watch((1010.0, None), (1059.0, None), (1060.0, None), since=1000.0).outcome is IndexState.FAILED


MANY = parse(atlas(latestDefinition={"mappings": {"dynamic": True}, "analyzer": "lucene.french", "numPartitions": 2}))
DIFFERENT = parse(atlas(latestDefinition=OLD))
STAGED = parse(atlas(latestDefinition=OLD, statusDetail=[host(0, stagedIndex=part(2, NEW, "BUILDING"))]))
ANSWERS = "answers with another definition than the one asked for: "


@pytest.mark.parametrize(
    ("looks", "outcome", "reason"),
    [
        pytest.param([(1, DIFFERENT), (LIMITS.differs + 0.9, DIFFERENT)], None, None, id="in its grace"),
        pytest.param(
            [(1, DIFFERENT), (LIMITS.differs + 1, DIFFERENT)],
            "failed",
            f"{ANSWERS}mappings.dynamic: asked False, live True; mappings.fields.content: asked string, live nothing",
            id="for good",
        ),
        pytest.param([(1, DIFFERENT), (100, STARTED), (130, DIFFERENT), (200, READY)], "ready", None, id="late update"),
        pytest.param([(1, DIFFERENT), (100, STARTED), (130, DIFFERENT), (200, DIFFERENT)], None, None, id="new grace"),
        pytest.param([(1, STAGED), (500, STAGED)], None, None, id="something is under way"),
        pytest.param(
            [(1, MANY), (LIMITS.differs + 1, MANY)],
            "failed",
            f"{ANSWERS}analyzer: asked 'lucene.standard', live 'lucene.french'; mappings.dynamic: asked False, live "
            "True; mappings.fields.content: asked string, live nothing; and 1 more",
            id="of many differences the first ones are told",
        ),
    ],
)
def test_an_index_that_only_answers_with_another_definition_has_a_grace_and_then_failed(
    looks: list[tuple[float, Listed]], outcome: str | None, reason: str | None
) -> None:
    track = begun(definition=NEW)
    for now, listed in looks:
        track = look(track, listed, now, LIMITS)
    assert (track.outcome, track.reason) == (outcome, reason)


def test_an_index_that_was_ready_once_stays_settled() -> None:
    assert watch((1, READY), (2, None), (3, FAILED)) == watch((1, READY))


def test_a_build_that_shows_nothing_new_is_not_judged_again() -> None:
    track = watch((1, STARTED))
    assert look(track, STARTED, 1000.0, LIMITS) is track
    again = parse(atlas(status="BUILDING"))
    assert again == STARTED
    assert look(track, again, 1000.0, LIMITS) == track


@pytest.mark.parametrize(
    ("looks", "outcome", "reason"),
    [
        pytest.param([(1, FAILED)], "failed", "x", id="failed, whatever is left of its grace"),
        pytest.param([(1, None)], "failed", NEVER_SEEN, id="never seen"),
        pytest.param([(1, STARTED), (2, None)], "failed", "it was listed and is gone; somebody dropped it", id="gone"),
        pytest.param([(1, STARTED)], None, None, id="late"),
        pytest.param([(1, STALE)], None, None, id="stale"),
        pytest.param([], None, None, id="never looked at"),
        pytest.param([(1, READY)], "ready", None, id="ready"),
    ],
)
def test_what_the_timeout_makes_of_a_wait(
    looks: list[tuple[float, Listed | None]], outcome: str | None, reason: str
) -> None:
    track = at_timeout(watch(*looks), 9.0)
    assert (track.outcome, track.reason) == (outcome, reason)


@given(
    st.lists(st.tuples(st.floats(0, 40), st.sampled_from([None, STARTED, READY, FAILED, SELF_FAILED, STALE, OTHER])))
)
def test_a_track_settles_at_most_once(steps: list[tuple[float, Listed | None]]) -> None:
    now, track = 0.0, begun()
    for pause, listed in steps:
        now += pause
        before, track = track, look(track, listed, now, LIMITS)
        assert before.outcome is None or (track is before and at_timeout(before) is before)
        assert (track.outcome is IndexState.READY) <= (track.verdict.state is IndexState.READY)


def looks_until(track: Track, end: float, seed: int) -> list[float]:
    dice, now, times = random.Random(seed), track.asked_at, []
    while now < end:
        times.append(now)
        now += gap([track], now, LIMITS.look_gap, dice.uniform(-JITTER, JITTER))
    return [*times, now]


@given(st.integers(0, 2**32))
def test_looks_are_at_most_85_in_the_first_200_seconds_and_one_in_9_after_that(seed: int) -> None:
    times = looks_until(begun(), 1000.0, seed)
    assert sum(now <= 200 for now in times) <= 85
    assert all(later - now >= 9 for now, later in pairwise(times) if now >= 200)


@given(st.floats(0.01, 100), st.integers(0, 2**32))
@example(0.01, 0)
def test_an_index_is_seen_ready_at_most_5_5_percent_of_its_build_time_late(build: float, seed: int) -> None:
    assert looks_until(begun(), build, seed)[-1] - build <= max(0.55, 0.055 * build) + 1e-9


def test_the_gap_is_that_of_the_youngest_index_which_is_not_settled() -> None:
    settled = look(begun(95.0), READY, 96.0, LIMITS)
    assert gap([begun(0.0), begun(50.0), settled], 150.0, LIMITS.look_gap, 0.0) == pytest.approx(5.0)
    assert gap([begun(0.0)], 1000.0, LIMITS.look_gap, JITTER) == pytest.approx(11.0)
    assert gap([begun(asked_at=-60.0, since=0.0)], 1.0, LIMITS.look_gap, 0.0) == pytest.approx(3.05)
    assert gap([settled], 1000.0, LIMITS.look_gap, 0.0) == pytest.approx(0.5)
