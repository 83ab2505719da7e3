"""Ranges of `_id`: every value in one of them, and no two groups of types in one."""

from typing import Any

import bson
from bson import Binary, CodecOptions, Int64, MaxKey, MinKey, ObjectId, Timestamp
from bson.codec_options import DatetimeConversion
from bson.datetime_ms import DatetimeMS
from hypothesis import given
from hypothesis import strategies as st

from mydocs.migrations.data.order import rank, sort_key
from mydocs.migrations.data.ranges import (
    LEAST_DOCUMENTS,
    LOWEST,
    MOST_RANGES,
    RANGES_A_LANE,
    Range,
    cut,
    next_group,
    number_of_ranges,
    place,
)

OPTIONS: CodecOptions[dict[str, Any]] = CodecOptions(datetime_conversion=DatetimeConversion.DATETIME_MS)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1).map(Int64),
    st.floats(),
    st.text(max_size=3, alphabet="abz"),
    st.binary(max_size=3).map(Binary),
    st.binary(min_size=12, max_size=12).map(ObjectId),
    st.integers(-(2**62), 2**62).map(DatetimeMS),
    st.builds(Timestamp, st.integers(0, 9), st.integers(0, 9)),
    st.just(MinKey()),
    st.just(MaxKey()),
)


def value_of(bound: bytes) -> Any:
    return bson.decode(bound, OPTIONS)["_id"]


def holds(each: Range, identity: Any) -> bool:
    key = sort_key(identity)
    above = each.low is None or sort_key(value_of(each.low)) <= key
    return above and (each.high is None or key < sort_key(value_of(each.high)))


def firsts_of(identities: list[Any]) -> list[Any]:
    """The first of each group, as the server is asked for them."""
    found: dict[int, Any] = {}
    for identity in sorted(identities, key=sort_key):
        found.setdefault(rank(identity), identity)
    return list(found.values())


@given(st.lists(scalars), st.lists(scalars), st.integers(1, 20))
def test_every_id_is_in_one_range_and_no_two_groups_that_exist_share_one(
    sampled: list[Any], others: list[Any], wanted: int
) -> None:
    found = cut(sorted(sampled, key=sort_key), firsts_of(sampled + others), wanted)
    assert found[0].low is None
    assert found[-1].high is None
    groups: dict[int, set[int]] = {}
    for identity in sampled + others:
        (number,) = [number for number, each in enumerate(found) if holds(each, identity)]
        groups.setdefault(number, set()).add(rank(identity))
    assert all(len(ranks) == 1 for ranks in groups.values())


def test_ranges_have_about_as_many_documents_each() -> None:
    found = cut(list(range(1000)), [0], 8)
    assert [value_of(each.high) for each in found[:-1] if each.high] == [125, 250, 375, 500, 625, 750, 875]


def test_what_is_done_already_is_left_out() -> None:
    after = place(7)
    assert cut([10, 20], [1], 2, after)[0].low == after


def test_groups_follow_each_other_as_on_a_server() -> None:
    keys = [sort_key(value) for value in LOWEST.values()]
    assert keys == sorted(keys)
    assert next_group(MinKey()) == place(None)
    assert value_of(next_group("a") or b"") == {}
    assert next_group(MaxKey()) is None


def test_there_are_several_ranges_a_lane_and_none_of_next_to_nothing() -> None:
    assert number_of_ranges(2, 1_000_000) == 2 * RANGES_A_LANE
    assert number_of_ranges(4, 5 * LEAST_DOCUMENTS) == 5
    assert number_of_ranges(4, 0) == 1
    assert number_of_ranges(10_000, 10**9) == MOST_RANGES
