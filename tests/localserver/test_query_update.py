"""What updates do to documents."""

from datetime import UTC, datetime
from typing import Any

import pytest
from bson.int64 import Int64
from bson.timestamp import Timestamp
from hypothesis import assume, given
from hypothesis import strategies as st

from mydocs.localserver.errors import CommandError
from mydocs.localserver.query.values import MISSING, equal, get_path, type_name
from mydocs.localserver.update.apply import compile_update, upsert_base

NOW = datetime(2024, 1, 31, 12, 0, 0, 123000, tzinfo=UTC)


def apply(document: Any, update: Any, *, array_filters: Any = (), **options: Any) -> Any:
    return compile_update(update, now=NOW, array_filters=array_filters)(document, **options)


@pytest.mark.parametrize(
    ("document", "update", "expected"),
    [
        pytest.param({"a": 1}, {"$set": {"c.d": 1, "b": 2}}, {"a": 1, "b": 2, "c": {"d": 1}}, id="new fields by name"),
        pytest.param(
            {},
            {"$set": {"a10": 1, "a2": 1, "10": 1, "9": 1}},
            {"9": 1, "10": 1, "a10": 1, "a2": 1},
            id="numbers by value",
        ),
        pytest.param({"a": [1]}, {"$set": {"a.3": 4}}, {"a": [1, None, None, 4]}, id="set pads an array"),
        pytest.param({}, {"$set": {"a.0": 1}}, {"a": {"0": 1}}, id="a number in nothing is a name"),
        pytest.param({"a": [1, 2]}, {"$unset": {"a.0": ""}}, {"a": [None, 2]}, id="an element is emptied"),
        pytest.param({"a": 1}, {"$unset": {"b.c": 1, "a.b": 1}}, {"a": 1}, id="unset of nothing"),
        pytest.param({"a": 1}, {"$inc": {"a": 1.5, "b": 2}}, {"a": 2.5, "b": 2}, id="inc"),
        pytest.param({"a": 3}, {"$mul": {"a": 2, "b": 5}}, {"a": 6, "b": 0}, id="mul"),
        pytest.param({"a": 3, "b": 3}, {"$min": {"a": 5}, "$max": {"b": 5}}, {"a": 3, "b": 5}, id="min and max"),
        pytest.param({"a": 1, "b": 2}, {"$rename": {"a": "c"}}, {"b": 2, "c": 1}, id="rename"),
        pytest.param({"b": 2}, {"$rename": {"a": "b"}}, {"b": 2}, id="rename of nothing"),
        pytest.param(
            {"a": [1]}, {"$push": {"a": {"$each": [3, 2], "$sort": -1, "$slice": 2}}}, {"a": [3, 2]}, id="push"
        ),
        pytest.param({"a": [1, 2]}, {"$push": {"a": {"$each": [9], "$position": -1}}}, {"a": [1, 9, 2]}, id="position"),
        pytest.param(
            {"a": [{"n": 2}, {"n": 1}]},
            {"$push": {"a": {"$each": [], "$sort": {"n": 1}}}},
            {"a": [{"n": 1}, {"n": 2}]},
            id="sort by a field",
        ),
        pytest.param({"a": [1]}, {"$addToSet": {"a": {"$each": [1.0, True, 2]}}}, {"a": [1, True, 2]}, id="addToSet"),
        pytest.param({"a": [1, 2, 3]}, {"$pop": {"a": -1}}, {"a": [2, 3]}, id="pop"),
        pytest.param({"a": [1, 5, 8]}, {"$pull": {"a": {"$gt": 4}}}, {"a": [1]}, id="pull by condition"),
        pytest.param({"a": [{"b": 1, "c": 2}, 3]}, {"$pull": {"a": {"b": 1}}}, {"a": [3]}, id="pull documents"),
        pytest.param(
            {"a": [{"b": 1}, {"c": 2}, {"b": 2}, 1]},
            {"$pull": {"a": {"$or": [{"b": 1}, {"c": 2}]}}},
            {"a": [{"b": 2}, 1]},
            id="pull documents by one of several",
        ),
        pytest.param({"a": [1, 2, 1]}, {"$pullAll": {"a": [1]}}, {"a": [2]}, id="pullAll"),
        pytest.param({"a": 5}, {"$bit": {"a": {"and": 4, "or": 1}}}, {"a": 5}, id="bit"),
        pytest.param({"a": 1}, {"$setOnInsert": {"a": 2}}, {"a": 1}, id="setOnInsert of an update"),
        pytest.param({"a": [1, 2]}, {"$inc": {"a.$[]": 1}}, {"a": [2, 3]}, id="every element"),
        pytest.param({"_id": 1, "a": 1}, {"b": 2}, {"_id": 1, "b": 2}, id="a replacement keeps its _id"),
        pytest.param({"_id": 1}, {"b": 2, "_id": 1.0}, {"_id": 1, "b": 2}, id="and has it in front"),
        pytest.param(
            {"_id": 1, "n": 1},
            [{"$set": {"n": {"$add": ["$n", 1]}, "at": "$$NOW"}}, {"$unset": "x"}],
            {"_id": 1, "n": 2, "at": NOW},
            id="a pipeline",
        ),
        pytest.param(
            {"_id": 1, "a": {"b": 2}}, [{"$replaceWith": "$a"}], {"_id": 1, "b": 2}, id="a pipeline keeps _id"
        ),
        pytest.param({}, {"$currentDate": {"a": True}}, {"a": NOW}, id="currentDate"),
        pytest.param(
            {}, {"$currentDate": {"a": {"$type": "timestamp"}}}, {"a": Timestamp(1706702400, 1)}, id="as a timestamp"
        ),
    ],
)
def test_updates_do_what_the_server_does(document: Any, update: Any, expected: Any) -> None:
    before = repr(document)
    found = apply(document, update)
    assert equal(found, expected), found
    assert repr(document) == before


@pytest.mark.parametrize(
    ("document", "update", "code"),
    [
        pytest.param({}, {"$set": {"a": 1, "a.b": 2}}, 40, id="conflict"),
        pytest.param({}, {"$set": {"a": 1}, "$inc": {"a": 1}}, 40, id="conflict of two operators"),
        pytest.param({"_id": 1}, {"$set": {"_id": 2}}, 66, id="another _id"),
        pytest.param({"_id": 1}, {"_id": 2}, 66, id="a replacement with another _id"),
        pytest.param({"_id": 1}, [{"$set": {"_id": 2}}], 66, id="a pipeline with another _id"),
        pytest.param({"a": 1}, {"$set": {"a.b": 1}}, 28, id="through a scalar"),
        pytest.param({"a": [1]}, {"$set": {"a.b": 1}}, 28, id="a name in an array"),
        pytest.param({"a": "x"}, {"$inc": {"a": 1}}, 14, id="inc of a string"),
        pytest.param({"a": 1}, {"$inc": {"a": "x"}}, 14, id="inc by a string"),
        pytest.param({"a": Int64(2**63 - 1)}, {"$inc": {"a": 1}}, 2, id="overflow"),
        pytest.param({"a": 1}, {"$push": {"a": 1}}, 2, id="push to a scalar"),
        pytest.param({}, {"$set": {"a": 1}, "b": 1}, 9, id="operators and fields"),
        pytest.param({}, {"b": 1, "$set": {"a": 1}}, 52, id="fields and operators"),
        pytest.param({}, {"$foo": {"a": 1}}, 238, id="unknown modifier"),
        pytest.param({}, {"$set": {"a.": 1}}, 56, id="an empty name"),
        pytest.param({}, [{"$match": {}}], 238, id="a stage that is not for updates"),
        pytest.param({"a": [1]}, {"$set": {"a.$[x]": 1}}, 2, id="no such array filter"),
        pytest.param({}, {"$set": {"a.$[]": 1}}, 2, id="no such array"),
        pytest.param({"a": [1]}, {"$set": {"a.$": 1}}, 2, id="nothing positional"),
    ],
)
def test_what_the_server_refuses_is_refused_with_its_code(document: Any, update: Any, code: int) -> None:
    with pytest.raises(CommandError) as caught:
        apply(document, update)
    assert caught.value.code == code


def test_integers_widen_as_on_the_server() -> None:
    assert type_name(apply({"a": 2**31 - 1}, {"$inc": {"a": 1}})["a"]) == "long"
    assert type_name(apply({"a": Int64(1)}, {"$inc": {"a": 1}})["a"]) == "long"
    assert type_name(apply({"a": 1}, {"$inc": {"a": 1}})["a"]) == "int"


def test_array_filters_choose_elements_at_every_depth() -> None:
    document = {"a": [{"k": 1, "b": [1, 2]}, {"k": 2, "b": [1, 2]}]}
    found = apply(document, {"$set": {"a.$[x].b.$[y]": 0}}, array_filters=[{"x.k": 2}, {"y": {"$gt": 1}}])
    assert found == {"a": [{"k": 1, "b": [1, 2]}, {"k": 2, "b": [1, 0]}]}


def test_an_array_filter_that_nobody_uses_is_refused() -> None:
    with pytest.raises(CommandError, match="was not used") as caught:
        apply({}, {"$set": {"a": 1}}, array_filters=[{"x": 1}])
    assert caught.value.code == 9


def test_the_positional_operator_takes_the_matched_element() -> None:
    found = apply({"a": [{"k": 1}, {"k": 2}]}, {"$set": {"a.$.n": 5}}, filter={"a.k": 2})
    assert found == {"a": [{"k": 1}, {"k": 2, "n": 5}]}


def test_an_upsert_starts_from_the_equalities() -> None:
    query = {"_id": 1, "a.b": {"$eq": 2}, "$and": [{"c": {"$in": [3]}}], "d": {"$gt": 4}, "e": None}
    assert upsert_base(query) == {"_id": 1, "a": {"b": 2}, "c": 3, "e": None}
    found = apply(upsert_base(query), {"$setOnInsert": {"n": 1}, "$set": {"a.x": 1}}, inserting=True)
    assert found == {"_id": 1, "a": {"b": 2, "x": 1}, "c": 3, "e": None, "n": 1}


def test_a_filter_that_sets_a_field_twice_is_no_start() -> None:
    with pytest.raises(CommandError) as caught:
        upsert_base({"a": 1, "a.b": 2})
    assert caught.value.code == 54


values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=2),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["a", "b"]), inner, max_size=2),
    max_leaves=4,
)
documents = st.dictionaries(st.sampled_from(["a", "b"]), values, max_size=2)


@given(documents, st.sampled_from(["a", "c", "c.d", "a.b", "a.1"]), values)
def test_what_was_set_is_read_back_and_setting_it_again_changes_nothing(document: Any, path: str, value: Any) -> None:
    holder = get_path(document, path.rpartition(".")[0]) if "." in path else {}
    assume(holder is MISSING or isinstance(holder, dict) or (isinstance(holder, list) and path == "a.1"))
    once = apply(document, {"$set": {path: value}})
    assert equal(get_path(once, path), value)
    assert equal(apply(once, {"$set": {path: value}}), once)


@given(documents, st.lists(values, max_size=3))
def test_pull_undoes_push(document: Any, items: list[Any]) -> None:
    pushed = apply({**document, "x": []}, {"$push": {"x": {"$each": items}}})
    assert pushed["x"] == items
    assert apply(pushed, {"$pullAll": {"x": items}})["x"] == []


names = st.sampled_from(["a", "b", "a10", "a2", "10", "9", "$x", "", "a.b", "_id"])
held = st.one_of(st.none(), st.integers(0, 2), st.just({"b": [1]}), st.just([{"b": 1}]))


@given(st.dictionaries(names, held, max_size=3), st.dictionaries(names, held, min_size=1, max_size=3))
def test_a_lone_set_does_what_it_does_beside_another_operator(document: Any, fields: Any) -> None:
    def outcome(update: Any) -> Any:
        try:
            changed = apply(document, update)
        except CommandError as error:
            return error.code, error.message
        return list(changed.items())

    assert outcome({"$set": fields}) == outcome({"$set": fields, "$unset": {"nobody": ""}})


def test_what_a_lone_set_stores_is_shared_by_no_two_documents() -> None:
    change = compile_update({"$set": {"a": [1]}}, now=NOW)
    first, second = change({}), change({})
    first["a"].append(2)
    assert second == {"a": [1]}
