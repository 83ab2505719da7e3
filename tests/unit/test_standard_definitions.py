"""Standard indexes: what `listIndexes` shows for what was asked, and what may be changed in place."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mydocs.migrations.indexes.standard_definitions import (
    Keys,
    StandardAction,
    standard_change,
    standard_differences,
    standard_equivalent,
    standard_name,
)


def index(key: Any, name: str | None = None, **options: Any) -> dict[str, Any]:
    return {"v": 2, "key": key, "name": name or standard_name(key), **options}


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        pytest.param("status", "status_1", id="name alone"),
        pytest.param({"a": 1, "b": -1.0}, "a_1_b_-1", id="mapping"),
        pytest.param([("a.b", 1), ("c", "text")], "a.b_1_c_text", id="pairs"),
        pytest.param(["a", ("b", -1)], "a_1_b_-1", id="mixed"),
    ],
)
def test_default_name_is_that_of_the_drivers(keys: Keys, expected: str) -> None:
    assert standard_name(keys) == expected


FRENCH = {
    "locale": "fr",
    "caseLevel": False,
    "caseFirst": "off",
    "strength": 3,
    "numericOrdering": False,
    "alternate": "non-ignorable",
    "maxVariable": "punct",
    "normalization": False,
    "backwards": False,
    "version": "57.1",
}
TEXT = {"_fts": "text", "_ftsx": 1}
LISTED_TEXT = {"default_language": "english", "language_override": "language", "textIndexVersion": 3}


@pytest.mark.parametrize(
    ("asked", "listed"),
    [
        pytest.param(index({"a": 1}), index({"a": 1.0}, ns="db.c", background=True), id="old servers' keys"),
        pytest.param(index([("a", 1), ("b", -1)]), index({"a": 1, "b": -1}, sparse=False), id="pairs"),
        pytest.param(index({"a": 1}, unique=1), index({"a": 1}, unique=True), id="flag as a number"),
        pytest.param(index({"a": 1}, collation={"locale": "fr"}), index({"a": 1}, collation=FRENCH), id="collation"),
        pytest.param(index({"a": 1}, collation={"locale": "simple"}), index({"a": 1}), id="simple collation"),
        pytest.param(
            index({"t": "text", "u": "text"}),
            index(TEXT, "t", weights={"u": 1, "t": 1}, **LISTED_TEXT),
            id="text",
        ),
        pytest.param(
            index({"a": 1, "t": "text", "b": -1}, weights={"t": 5}),
            index({"a": 1, **TEXT, "b": -1}, "t", weights={"t": 5}, **LISTED_TEXT),
            id="compound text",
        ),
        pytest.param(index({"g": "2dsphere"}), index({"g": "2dsphere"}) | {"2dsphereIndexVersion": 3}, id="sphere"),
        pytest.param(index({"g": "2d"}), index({"g": "2d"}, bits=26, min=-180.0, max=180.0), id="2d"),
        pytest.param(
            index({"$**": 1}, wildcardProjection={"a": 1}),
            index({"$**": 1}, wildcardProjection={"a": True}),
            id="wildcard",
        ),
    ],
)
def test_what_a_server_fills_in_is_no_difference(asked: dict[str, Any], listed: dict[str, Any]) -> None:
    assert standard_differences(asked, listed) == ()
    assert standard_differences(listed, asked) == ()
    assert standard_change(asked, [listed]).action is StandardAction.PRESENT


@pytest.mark.parametrize(
    "listed",
    [
        pytest.param(index({"b": 1, "a": 1}), id="order of the key"),
        pytest.param(index({"a": 1, "b": -1}), id="direction"),
        pytest.param(index({"a": 1, "b": 1}, unique=True), id="unique"),
        pytest.param(index({"a": 1, "b": 1}, sparse=True), id="sparse"),
        pytest.param(index({"a": 1, "b": 1}, partialFilterExpression={"c": {"$gt": 1}}), id="partial"),
        pytest.param(index({"a": 1, "b": 1}, collation=FRENCH), id="collation"),
        pytest.param(index({"a": 1, "b": 1}, expireAfterSeconds=0), id="expires"),
        pytest.param(index({"a": 1, "b": 1}, hidden=True), id="hidden"),
        pytest.param(index({"a": 1, "b": "hashed"}), id="hashed"),
        pytest.param(index(TEXT, "t", weights={"a": 1, "b": 2}, **LISTED_TEXT), id="text"),
    ],
)
def test_other_key_or_options_are_a_difference(listed: dict[str, Any]) -> None:
    assert not standard_equivalent(index({"a": 1, "b": 1}), listed)
    assert not standard_equivalent(listed, index({"a": 1, "b": 1}))


A = {"a": 1}


@pytest.mark.parametrize(
    ("asked", "listed", "expected"),
    [
        pytest.param({"key": A}, [], ("create", "a_1"), id="nothing there"),
        pytest.param(index(A), [index({"b": 1})], ("create", "a_1"), id="another index there"),
        pytest.param(index(A), [index(A)], ("present", "a_1"), id="there"),
        pytest.param(index(A, "mine"), [index(A)], ("present", "a_1"), id="there under another name"),
        pytest.param(
            index(A, "mine"), [index({"b": 1}, "mine"), index(A)], ("present", "a_1"), id="there, its name taken"
        ),
        pytest.param(
            index(A), [index(A, "p", sparse=True), index(A)], ("present", "a_1"), id="there, beside one with options"
        ),
        pytest.param(
            index(A, expireAfterSeconds=60),
            [index(A, expireAfterSeconds=30)],
            ("modify", "a_1", {"expireAfterSeconds": 60}),
            id="expires later",
        ),
        pytest.param(
            index(A, "mine", expireAfterSeconds=0, hidden=True),
            [index(A)],
            ("modify", "a_1", {"expireAfterSeconds": 0, "hidden": True}),
            id="begins to expire, hidden",
        ),
        pytest.param(index(A), [index(A, hidden=True)], ("modify", "a_1", {"hidden": False}), id="shown again"),
        pytest.param(index(A, unique=True, hidden=True), [index(A)], ("conflict", "a_1"), id="unique"),
        pytest.param(
            index(A, "mine", hidden=True),
            [index(A, "a_1", sparse=True), index(A, "mine")],
            ("modify", "mine", {"hidden": True}),
            id="the one of its name",
        ),
        pytest.param(index(A), [index(A, expireAfterSeconds=1)], ("conflict", "a_1"), id="expires no longer"),
        pytest.param(index(A), [index(A, unique=True)], ("conflict", "a_1"), id="unique no longer"),
        pytest.param(index(A, hidden=True, sparse=True), [index(A)], ("conflict", "a_1"), id="more than can be done"),
        pytest.param(
            index({"a": 1, "b": 1}, expireAfterSeconds=1),
            [index({"a": 1, "b": 1})],
            ("conflict", "a_1_b_1"),
            id="two fields do not expire",
        ),
        pytest.param(
            index({"a": "hashed"}, expireAfterSeconds=1),
            [index({"a": "hashed"})],
            ("conflict", "a_hashed"),
            id="a hash does not expire",
        ),
    ],
)
def test_change_is_the_least_that_does_it(
    asked: dict[str, Any], listed: list[dict[str, Any]], expected: tuple[Any, ...]
) -> None:
    done = standard_change(asked, listed)
    action, name, *steps = expected
    assert (done.action, done.name) == (action, name)
    assert done.coll_mod == ({"name": name, **steps[0]} if steps else None)
    assert (done.sentence is None) == (action != "conflict")


@pytest.mark.parametrize(
    ("asked", "listed", "expected"),
    [
        pytest.param(
            index(A, "mine", sparse=True),
            index(A),
            "index a_1 on {a: 1} exists with other options (sparse: asked True, live False), which cannot be changed "
            "in place; drop it first (mongosh: dropIndex('a_1')), or ask for the options that it has",
            id="options",
        ),
        pytest.param(
            index(A, "mine"),
            index({"b": -1}, "mine"),
            "index mine exists with the key {b: -1} and {a: 1} was asked for; give the new index another name, or drop "
            "the old one first (mongosh: dropIndex('mine'))",
            id="name",
        ),
    ],
)
def test_conflict_says_what_which_and_what_to_do(asked: dict[str, Any], listed: dict[str, Any], expected: str) -> None:
    assert standard_change(asked, [listed]).sentence == expected


INDEXES = st.builds(
    index,
    st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from([1, -1, "text", "2dsphere"])), min_size=1, max_size=3),
    unique=st.booleans(),
    hidden=st.booleans(),
    expireAfterSeconds=st.none() | st.integers(0, 9),
    collation=st.none() | st.just({"locale": "fr"}),
)


@given(INDEXES, st.lists(INDEXES, max_size=4))
def test_an_index_that_is_there_is_present_whatever_else_is(
    asked: dict[str, Any], others: list[dict[str, Any]]
) -> None:
    assert standard_change(asked, [*others, asked]).action is StandardAction.PRESENT
