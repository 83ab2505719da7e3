"""The order of `_id`: that of a server, type by type."""

import random
from typing import Any

import bson
import pytest
from bson import (
    Binary,
    Code,
    CodecOptions,
    DBRef,
    Decimal128,
    Int64,
    MaxKey,
    MinKey,
    ObjectId,
    Regex,
    Timestamp,
)
from bson.codec_options import DatetimeConversion
from bson.datetime_ms import DatetimeMS
from hypothesis import given
from hypothesis import strategies as st

from mydocs.localserver.query.values import encode_key
from mydocs.migrations.data.order import has_text, sort_key

# As the manual lists them under "Comparison/Sort Order"; inside a document the type of a field comes before its name.
IN_ORDER: list[Any] = [
    MinKey(),
    None,
    float("nan"),
    float("-inf"),
    -1,
    Decimal128("1.5"),
    Int64(2**60),
    float("inf"),
    "",
    "Z",
    "a",
    "ä",
    {},
    {"b": 1},
    {"b": 1, "a": 1},
    {"c": 1},
    DBRef("c", 1),
    {"a": "x"},
    [],
    [1],
    b"",
    Binary(b"", 4),
    b"z",
    b"aa",
    ObjectId("000000000000000000000001"),
    ObjectId("100000000000000000000000"),
    False,
    True,
    DatetimeMS(-(10**15)),
    DatetimeMS(10**15),
    Timestamp(1, 2),
    Timestamp(2, 1),
    Regex("a"),
    Code("x"),
    Code("y", {}),
    Code("y", {"a": 1}),
    MaxKey(),
]


def test_values_of_all_types_sort_as_the_manual_says() -> None:
    mixed = random.Random(1).sample(IN_ORDER, len(IN_ORDER))
    assert [repr(value) for value in sorted(mixed, key=sort_key)] == [repr(value) for value in IN_ORDER]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param("a", True, id="text"),
        pytest.param({"a": {"b": ["c"]}}, True, id="text inside"),
        pytest.param({"a": [1, {"b": b"c"}]}, False, id="no text"),
        pytest.param(1, False, id="number"),
    ],
)
def test_a_collation_has_a_word_only_where_there_is_text(value: object, expected: bool) -> None:
    assert has_text(value) is expected


scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
    st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    st.binary(),
    st.binary(min_size=12, max_size=12).map(ObjectId),
    st.integers(-(2**62), 2**62).map(DatetimeMS),
    st.decimals(allow_nan=False, places=3, min_value=-1000, max_value=1000).map(Decimal128),
)
names = st.text(alphabet="abc", min_size=1, max_size=2)
values = st.one_of(scalars, st.dictionaries(names, scalars, max_size=3))


@given(values, values)
def test_two_values_of_any_type_compare_as_they_do_on_the_local_server(first: Any, second: Any) -> None:
    options: CodecOptions[dict[str, Any]] = CodecOptions(datetime_conversion=DatetimeConversion.DATETIME_MS)
    ids = [bson.decode(bson.encode({"_id": value}), options)["_id"] for value in (first, second)]
    ours = [sort_key(identity) for identity in ids]
    theirs = [encode_key(identity) for identity in ids]
    assert (ours[0] < ours[1]) == (theirs[0] < theirs[1])
    assert (ours[0] == ours[1]) == (theirs[0] == theirs[1])
