"""The order, the keys and the paths of BSON values."""

import math
from datetime import UTC, datetime
from typing import Any

import pytest
from bson.binary import Binary
from bson.dbref import DBRef
from bson.decimal128 import Decimal128
from bson.int64 import Int64
from bson.max_key import MaxKey
from bson.min_key import MinKey
from bson.objectid import ObjectId
from bson.regex import Regex
from bson.timestamp import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from mydocs.localserver.errors import CommandError
from mydocs.localserver.query.values import (
    MISSING,
    compare,
    encode_key,
    equal,
    get_path,
    index_keys,
    lookup,
    sort_documents,
    sort_key,
    type_matches,
    type_name,
)

numbers = st.one_of(
    st.integers(-(2**63), 2**63 - 1),
    st.integers(-3, 3),
    st.integers(2**53 - 2, 2**53 + 2).map(Int64),
    st.integers(2**53 - 2, 2**53 + 2).map(float),
    st.floats(),
    st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=-1000, max_value=1000).map(Decimal128),
    st.sampled_from([Decimal128("NaN"), Decimal128("-Infinity"), Decimal128("0E+3"), Decimal128("1E-6000")]),
)
scalars = st.one_of(
    numbers,
    st.none(),
    st.booleans(),
    st.text(alphabet="ab\0é😀", max_size=3),
    st.binary(max_size=3),
    st.sampled_from(
        [
            MinKey(),
            MaxKey(),
            ObjectId("0" * 24),
            ObjectId("f" * 24),
            Timestamp(1, 2),
            Regex("a", "i"),
            Regex("a"),
            Binary(b"a", 5),
        ]
    ),
    st.datetimes().map(lambda date: date.replace(microsecond=0, tzinfo=UTC)),
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "a\0"]), inner, max_size=3),
    max_leaves=6,
)


def sign(number: int) -> int:
    return (number > 0) - (number < 0)


@given(values, values)
def test_encoded_keys_sort_as_compare_does(a: Any, b: Any) -> None:
    x, y = encode_key(a), encode_key(b)
    assert sign(compare(a, b)) == (x > y) - (x < y)
    assert equal(a, b) == (x == y)


@given(values, values)
def test_no_encoded_key_begins_another(a: Any, b: Any) -> None:
    x, y = encode_key(a), encode_key(b)
    assert x == y or not x.startswith(y)


@given(st.lists(values, max_size=6))
def test_compare_is_an_order(found: list[Any]) -> None:
    for a in found:
        for b in found:
            assert sign(compare(a, b)) == -sign(compare(b, a))


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        pytest.param(1, True, -1, id="a bool is not a number"),
        pytest.param(1, 1.0, 0, id="kinds of numbers are one type"),
        pytest.param(2**53 + 1, float(2**53), 1, id="beyond what doubles tell apart"),
        pytest.param(Decimal128("0.1"), 0.1, -1, id="by exact value"),
        pytest.param(math.nan, -math.inf, -1, id="NaN is smallest"),
        pytest.param(Decimal128("NaN"), math.nan, 0, id="NaN is NaN"),
        pytest.param(MISSING, None, -1, id="missing before null"),
        pytest.param({"b": 1}, {"a": "x"}, -1, id="a field's type before its name"),
        pytest.param({"a": 1, "b": 2}, {"b": 2, "a": 1}, -1, id="the order of fields counts"),
        pytest.param(b"zz", b"aaa", -1, id="binary by length first"),
        pytest.param("a", "B", 1, id="strings by bytes"),
        pytest.param([1, 2], [1], 1, id="the longer array"),
        pytest.param(DBRef("c", 1), {"$ref": "c", "$id": 1}, 0, id="a DBRef is a document"),
    ],
)
def test_values_compare_as_on_the_server(a: Any, b: Any, expected: int) -> None:
    assert sign(compare(a, b)) == expected


def test_types_come_in_the_servers_order() -> None:
    ordered: list[Any] = [
        MinKey(), None, 5, "a", {}, [], b"", ObjectId(), False, datetime(2020, 1, 1, tzinfo=UTC), Timestamp(1, 1),
        Regex("a"), MaxKey(),
    ]  # fmt: skip
    shuffled = ordered[::-1]
    assert sorted(shuffled, key=encode_key) == ordered


@pytest.mark.parametrize(
    ("direction", "expected"),
    [
        pytest.param(1, [4, 3, 1, 0, 2], id="up, by the smallest"),
        pytest.param(-1, [0, 2, 1, 3, 4], id="down, by the largest"),
    ],
)
def test_arrays_sort_by_an_element_and_missing_as_null(direction: int, expected: list[int]) -> None:
    documents: list[dict[str, Any]] = [
        {"n": 0, "a": [3, 9]},
        {"n": 1, "a": 2},
        {"n": 2, "a": 5},
        {"n": 3},
        {"n": 4, "a": []},
    ]
    assert [document["n"] for document in sort_documents(documents, {"a": direction})] == expected


def test_a_sort_is_stable_and_takes_several_fields() -> None:
    documents = [{"n": n, "a": n % 2, "b": n // 2 % 2} for n in range(8)]
    found = [document["n"] for document in sort_documents(documents, {"a": -1, "b": 1})]
    assert found == [1, 5, 3, 7, 0, 4, 2, 6]


def test_a_sort_by_two_arrays_is_refused() -> None:
    with pytest.raises(CommandError, match="parallel arrays") as caught:
        sort_key({"a": [1], "b": [2]}, {"a": 1, "b": 1})
    assert caught.value.code == 2


@pytest.mark.parametrize(
    ("document", "path", "expected"),
    [
        pytest.param({"a": [5, [2, 4]]}, "a.1", [[2, 4]], id="what a number names is not expanded"),
        pytest.param({"a": [5, {"1": 4}]}, "a.1", [4, {"1": 4}], id="a number is a name and an index"),
        pytest.param({"a": [5, {"b": 4}]}, "a.b", [4], id="a scalar in an array has no fields, not even missing ones"),
        pytest.param({"a": [{"c": 1}]}, "a.b", [MISSING], id="a document in an array lacks one"),
        pytest.param({"a": 5}, "a.b", [MISSING], id="through a scalar"),
        pytest.param({"a": [{"b": [1, 2]}]}, "a.b", [1, 2, [1, 2]], id="elements, then the array"),
        pytest.param({"a": []}, "a", [[]], id="an empty array is itself"),
    ],
)
def test_paths_traverse_arrays_as_the_match_language_does(document: Any, path: str, expected: list[Any]) -> None:
    assert lookup(document, path) == expected


def test_get_path_takes_numbers_as_indexes() -> None:
    assert get_path({"a": [{"b": 1}]}, "a.0.b") == 1
    assert get_path({"a": [{"b": 1}]}, "a.b") is MISSING


@pytest.mark.parametrize(
    ("document", "pattern", "expected"),
    [
        pytest.param({"a": [1, 2, 1.0], "b": 3}, ["a", "b"], [(1, 3), (2, 3)], id="one key an element, once"),
        pytest.param(
            {"a": [{"b": 1, "c": 2}, {"b": 3}]}, ["a.b", "a.c"], [(1, 2), (3, None)], id="one array, two fields"
        ),
        pytest.param({"a": []}, ["a"], [(MISSING,)], id="an empty array is undefined"),
        pytest.param({}, ["a"], [(None,)], id="missing is null"),
        pytest.param({"a": [[1, 2]]}, ["a"], [([1, 2],)], id="an array in an array is one key"),
    ],
)
def test_index_keys(document: Any, pattern: list[str], expected: list[Any]) -> None:
    assert index_keys(document, dict.fromkeys(pattern, 1)) == expected


def test_a_sparse_index_has_no_key_for_what_lacks_its_fields() -> None:
    assert index_keys({"b": 1}, {"a": 1}, sparse=True) == []
    assert index_keys({"a": None}, {"a": 1}, sparse=True) == [(None,)]


def test_two_arrays_cannot_be_indexed_together() -> None:
    with pytest.raises(CommandError) as caught:
        index_keys({"a": [1], "b": [2]}, {"a": 1, "b": 1})
    assert caught.value.code == 171


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (1, "int"),
        (2**31, "long"),
        (Int64(1), "long"),
        (True, "bool"),
        (1.0, "double"),
        (b"", "binData"),
        (MISSING, "missing"),
    ],
)
def test_type_names(value: Any, name: str) -> None:
    assert type_name(value) == name


def test_types_match_by_alias_number_and_group() -> None:
    assert type_matches(1, "number")
    assert type_matches(1, 16)
    assert not type_matches(True, "number")
    with pytest.raises(CommandError, match="Unknown type name alias: foo"):
        type_matches(1, "foo")
