"""What filters match."""

from datetime import UTC, datetime
from typing import Any

import pytest
from bson.decimal128 import Decimal128
from bson.max_key import MaxKey
from bson.min_key import MinKey
from bson.regex import Regex
from hypothesis import given
from hypothesis import strategies as st

from mydocs.localserver.errors import CommandError, NotKnown
from mydocs.localserver.query.match import Filters, compile_filter, find_positional

NOW = datetime(2024, 1, 31, 12, tzinfo=UTC)


def matches(query: Any, document: Any) -> bool:
    return compile_filter(query, now=NOW)(document)


@pytest.mark.parametrize(
    ("query", "document", "expected"),
    [
        pytest.param({"a": 1}, {"a": True}, False, id="a bool is not a number"),
        pytest.param({"a": 1}, {"a": 1.0}, True, id="numbers of other kinds"),
        pytest.param({"a": 1}, {"a": [0, 1]}, True, id="an element is enough"),
        pytest.param({"a": [1, 2]}, {"a": [1, 2]}, True, id="a whole array"),
        pytest.param({"a": [1, 2]}, {"a": [[1, 2]]}, True, id="an array in an array"),
        pytest.param({"a": {"b": 1}}, {"a": {"b": 1, "c": 2}}, False, id="documents whole"),
        pytest.param({"a": {"b": 1, "c": 2}}, {"a": {"c": 2, "b": 1}}, False, id="documents in order"),
        pytest.param({"a": None}, {}, True, id="null is missing"),
        pytest.param({"a": None}, {"a": [None]}, True, id="null in an array"),
        pytest.param({"a.b": None}, {"a": [1, 2]}, False, id="scalars in an array lack nothing"),
        pytest.param({"a.b": None}, {"a": [{"b": 1}, {}]}, True, id="a document in an array lacks it"),
        pytest.param({"a.b": None}, {"a": []}, False, id="an empty array lacks nothing"),
        pytest.param({"a.b": {"$exists": False}}, {"a": []}, True, id="but has no such field"),
        pytest.param({"a": {"$gt": 1}}, {"a": "x"}, False, id="comparison stays in its type"),
        pytest.param({"a": {"$gte": None}}, {}, True, id="gte null is null"),
        pytest.param({"a": {"$gt": MinKey()}}, {}, True, id="everything is above MinKey"),
        pytest.param({"a": {"$lt": MaxKey()}}, {"a": MaxKey()}, False, id="MaxKey is not below itself"),
        pytest.param({"a": {"$lt": 5}}, {"a": float("nan")}, False, id="NaN is not less"),
        pytest.param({"a": {"$lt": 5}}, {"a": Decimal128("NaN")}, False, id="nor is a decimal NaN"),
        pytest.param({"a": {"$gt": 1, "$lt": 3}}, {"a": [0, 5]}, True, id="by several elements"),
        pytest.param({"a": {"$elemMatch": {"$gt": 1, "$lt": 3}}}, {"a": [0, 5]}, False, id="by one element"),
        pytest.param({"a": {"$elemMatch": {"b": 1, "c": 2}}}, {"a": [{"b": 1}, {"c": 2}]}, False, id="by one document"),
        pytest.param({"a": {"$elemMatch": {"b": 1}}}, {"a": {"b": 1}}, False, id="elemMatch needs an array"),
        pytest.param({"a": {"$ne": 1}}, {"a": [1, 2]}, False, id="ne denies every element"),
        pytest.param({"a": {"$nin": [1, None]}}, {}, False, id="nin null denies missing"),
        pytest.param({"a": {"$in": [Regex("^x")]}}, {"a": "xy"}, True, id="a regex in in"),
        pytest.param({"a": {"$in": []}}, {"a": 1}, False, id="in nothing"),
        pytest.param({"a": Regex("B", "i")}, {"a": ["x", "abc"]}, True, id="a regex in an array"),
        pytest.param({"a": {"$regex": "^b", "$options": "m"}}, {"a": "a\nb"}, True, id="options"),
        pytest.param({"a": {"$regex": "\\w"}}, {"a": "é"}, False, id="word letters are ASCII"),
        pytest.param({"a": {"$not": {"$gt": 1}}}, {}, True, id="not of missing"),
        pytest.param({"a": {"$not": Regex("x")}}, {"a": "y"}, True, id="not of a regex"),
        pytest.param({"a": {"$all": [1, 2]}}, {"a": [2, 1, 3]}, True, id="all"),
        pytest.param({"a": {"$all": [1]}}, {"a": 1}, True, id="all of a scalar"),
        pytest.param({"a": {"$all": []}}, {"a": []}, False, id="all of nothing"),
        pytest.param({"a": {"$all": [{"$elemMatch": {"b": 1}}]}}, {"a": [{"b": 1}]}, True, id="all elemMatch"),
        pytest.param({"a": {"$size": 1}}, {"a": {"0": 1}}, False, id="a document has no size"),
        pytest.param({"a": {"$size": 2}}, {"a": [1, 2]}, True, id="size"),
        pytest.param({"a": {"$type": "array"}}, {"a": []}, True, id="type of the array itself"),
        pytest.param({"a": {"$type": ["string", "number"]}}, {"a": [1]}, True, id="types of elements"),
        pytest.param({"a": {"$mod": [4, -1]}}, {"a": -5}, True, id="the remainder has the dividend's sign"),
        pytest.param({"a": {"$bitsAllSet": [0, 2]}}, {"a": 5}, True, id="bits by position"),
        pytest.param({"a": {"$bitsAnyClear": 5}}, {"a": 5}, False, id="bits by mask"),
        pytest.param({"a.0": 1}, {"a": [1, 2]}, True, id="an index"),
        pytest.param({"a.1.b": 1}, {"a": [{}, {"b": 1}]}, True, id="an index within a path"),
        pytest.param({"$expr": {"$gt": ["$a", "$b"]}}, {"a": 2, "b": 1}, True, id="expr"),
        pytest.param({"$expr": {"$lt": ["$x", "$$NOW"]}}, {"x": datetime(2024, 1, 1, tzinfo=UTC)}, True, id="now"),
        pytest.param({"$nor": [{"a": 1}, {"b": 1}], "$comment": "x"}, {"a": 2}, True, id="nor and comment"),
    ],
)
def test_filters_match_as_on_the_server(query: Any, document: Any, expected: bool) -> None:
    assert matches(query, document) is expected


@pytest.mark.parametrize(
    ("query", "code"),
    [
        pytest.param({"a": {"$foo": 1}}, 238, id="unknown operator"),
        pytest.param({"$foo": 1}, 238, id="unknown top level operator"),
        pytest.param({"a": {"$in": 1}}, 2, id="in without an array"),
        pytest.param({"$or": []}, 2, id="empty or"),
        pytest.param({"a": {"$gt": Regex("a")}}, 2, id="regex compared"),
        pytest.param({"a": {"$not": 1}}, 2, id="not of a value"),
        pytest.param({"a": {"$gt": 1, "b": 2}}, 2, id="operators and fields"),
        pytest.param({"$where": "1"}, 238, id="where"),
        pytest.param({"$jsonSchema": {"encrypt": {}}}, 238, id="an encrypted schema"),
        pytest.param({"a": {"$near": [1, 2]}}, 238, id="geo"),
        pytest.param({"a": Regex("[[:alpha:]]")}, 238, id="POSIX class"),
        pytest.param({"a": Regex("x\\Z")}, 238, id="an escape that Python reads otherwise"),
        pytest.param({"$expr": {"$sin": 1}}, 238, id="an operator that is left out"),
        pytest.param({"$expr": {"$foo": 1}}, 238, id="an operator that nobody has"),
    ],
)
def test_what_is_wrong_or_not_known_is_refused_before_any_document(query: Any, code: int) -> None:
    with pytest.raises(CommandError) as caught:
        compile_filter(query, now=NOW)
    assert caught.value.code == code


scalars = st.one_of(st.none(), st.booleans(), st.integers(-2, 2), st.sampled_from(["", "a", 0.5]))
documents = st.dictionaries(
    st.sampled_from(["a", "b"]),
    scalars | st.lists(scalars, max_size=2) | st.dictionaries(st.sampled_from(["b"]), scalars, max_size=1),
    max_size=2,
)
conditions = st.one_of(
    st.tuples(st.sampled_from(["$eq", "$gt", "$gte", "$lt", "$lte", "$ne"]), scalars).map(lambda pair: dict([pair])),
    st.lists(scalars, max_size=2).map(lambda items: {"$in": items}),
    st.booleans().map(lambda yes: {"$exists": yes}),
)
paths = st.sampled_from(["a", "b", "a.b", "a.0"])


@given(documents, paths, conditions)
def test_not_and_nor_are_the_complement(document: Any, path: str, condition: Any) -> None:
    expected = not matches({path: condition}, document)
    assert matches({path: {"$not": condition}}, document) is expected
    assert matches({"$nor": [{path: condition}]}, document) is expected


@given(documents, paths, scalars, scalars)
def test_in_is_an_or_of_equalities(document: Any, path: str, one: Any, two: Any) -> None:
    assert matches({path: {"$in": [one, two]}}, document) is matches({"$or": [{path: one}, {path: two}]}, document)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        pytest.param({"a": {"$elemMatch": {"b": 2}}}, 1, id="elemMatch"),
        pytest.param({"a.b": 2}, 1, id="through the array"),
        pytest.param({"$and": [{"x": 1}, {"a.b": {"$gte": 2}}]}, 1, id="inside and"),
        pytest.param({"x": 1}, None, id="no array"),
        pytest.param({"a.b": {"$ne": 1}}, None, id="denied"),
    ],
)
def test_the_positional_operator_is_the_element_that_matched(query: Any, expected: int | None) -> None:
    assert find_positional(query, {"x": 1, "a": [{"b": 1}, {"b": 2}]}, "a") == expected


def test_a_filter_that_chose_several_elements_is_refused() -> None:
    with pytest.raises(NotKnown):
        find_positional({"a.b": 1, "a.c": 2}, {"a": [{"b": 1}, {"c": 2}]}, "a")


@pytest.mark.parametrize("wanted", [1, 1.0, True, None, "a", [1], {"a": 1}, Decimal128("1")])
@pytest.mark.parametrize("document", [{}, {"n": 1}, {"n": True}, {"n": None}, {"n": [1]}, {"n": {"a": 1}}, {"n": "a"}])
def test_a_field_is_equal_to_a_literal_whichever_stands_first(document: dict[str, Any], wanted: Any) -> None:
    literal = {"$literal": wanted}
    answers = [
        compile_filter({"$expr": {"$eq": pair}}, now=NOW)(document) for pair in (["$n", literal], [literal, "$n"])
    ]
    assert answers[0] == answers[1]


guards = st.one_of(
    st.tuples(st.sampled_from(["$a", "$b", "$$ROOT"]), scalars | documents).map(
        lambda pair: {"$eq": [pair[0], {"$literal": pair[1]}]}
    ),
    st.sampled_from(["$a", "$b"]).map(lambda path: {"$eq": [{"$type": path}, "missing"]}),
    st.sampled_from([{"$gt": ["$a", "$b"]}, {"$eq": ["$a.b", {"$literal": 1}]}, {"$eq": ["$a", "$b"]}]),
)
statements = st.tuples(
    st.dictionaries(paths, conditions | scalars, max_size=1), st.lists(guards, max_size=2), st.booleans()
).map(
    lambda parts: (
        ({"$and": [parts[0]]} if parts[2] else parts[0])
        | ({"$expr": parts[1][0] if len(parts[1]) == 1 else {"$and": parts[1]}} if parts[1] else {})
    )
)


@given(st.lists(statements, min_size=1, max_size=4), st.lists(documents, min_size=1, max_size=4))
def test_the_filters_of_one_command_match_as_each_alone(queries: list[Any], found: list[Any]) -> None:
    filters = Filters(NOW, None)
    for query in queries:
        together = [filters.compiled(query)(document) for document in found]
        assert together == [matches(query, document) for document in found]


def test_filters_that_python_takes_for_equal_are_kept_apart() -> None:
    filters = Filters(NOW, None)
    assert [filters.compiled({"a": value})({"a": 1}) for value in (True, 1, 1.0, False)] == [False, True, True, False]
    same = [filters.compiled({"$expr": {"$eq": ["$$ROOT", {"$literal": {"a": each}}]}}) for each in (1, 1.0, True)]
    assert [each({"a": 1}) for each in same] == [True, True, False]


def test_each_of_the_filters_of_a_command_is_checked() -> None:
    filters = Filters(NOW, None)
    filters.compiled({"a": 1})
    with pytest.raises(NotKnown):
        filters.compiled({"a": {"$foo": 1}, "$expr": {"$eq": ["$a", {"$literal": 1}]}})
