"""What a server refuses before it looks for documents: all of it on a collection that is empty, over real sockets."""

from typing import Any

import pytest
from pymongo.database import Database
from pymongo.errors import OperationFailure

pytestmark = pytest.mark.contract

Db = Database[dict[str, Any]]
Update = dict[str, Any] | list[dict[str, Any]]

MALFORMED: list[tuple[str, Update, int]] = [
    ("inc by a string", {"$inc": {"n": "x"}}, 14),
    ("mul by null", {"$mul": {"n": None}}, 14),
    ("rename to itself", {"$rename": {"a": "a"}}, 2),
    ("rename to a number", {"$rename": {"a": 1}}, 2),
    ("rename of every element", {"$rename": {"a.$[]": "b"}}, 2),
    ("bit of nothing known", {"$bit": {"a": {"foo": 1}}}, 2),
    ("bit by a double", {"$bit": {"a": {"and": 1.5}}}, 2),
    ("push each of a scalar", {"$push": {"a": {"$each": 1}}}, 2),
    ("push with an unknown clause", {"$push": {"a": {"$each": [1], "$foo": 1}}}, 2),
    ("push with a slice by a string", {"$push": {"a": {"$each": [1], "$slice": "x"}}}, 2),
    ("push with sort 0", {"$push": {"a": {"$each": [1], "$sort": 0}}}, 2),
    ("push with an empty sort", {"$push": {"a": {"$each": [1], "$sort": {}}}}, 2),
    ("push with a sort of fields by 2", {"$push": {"a": {"$each": [1], "$sort": {"b": 2}}}}, 2),
    ("push with a position by a string", {"$push": {"a": {"$each": [1], "$position": "a"}}}, 2),
    ("addToSet each of a scalar", {"$addToSet": {"a": {"$each": 1}}}, 14),
    ("addToSet each and more", {"$addToSet": {"a": {"$each": [1], "$slice": 1}}}, 2),
    ("pullAll of a scalar", {"$pullAll": {"a": 1}}, 2),
    ("pull by a wrong filter", {"$pull": {"a": {"$in": 1}}}, 2),
    ("pop by a string", {"$pop": {"a": "x"}}, 9),
    ("currentDate of a string", {"$currentDate": {"a": "x"}}, 2),
    ("an array filter that is not there", {"$set": {"a.$[e]": 1}}, 2),
    ("a conflict", {"$set": {"a": 1, "a.b": 1}}, 40),
    ("setOnInsert of an empty name", {"$setOnInsert": {"a.": 1}}, 56),
    ("no fields", {"$set": 1}, 9),
    ("a stage with two names", [{"$set": {"a": 1}, "$unset": "b"}], 40323),
    ("an undefined variable", [{"$set": {"a": "$$nobody"}}], 17276),
]


@pytest.mark.parametrize(("update", "code"), [pytest.param(change, code, id=name) for name, change, code in MALFORMED])
@pytest.mark.parametrize("exists", [False, True], ids=["no collection", "empty collection"])
def test_a_malformed_update_is_refused_where_nothing_matches(db: Db, update: Update, code: int, exists: bool) -> None:
    if exists:
        db.create_collection("things")
    for attempt in (
        lambda: db.things.update_one({}, update),
        lambda: db.things.update_many({"a": 1}, update),
        lambda: db.things.update_one({}, update, upsert=True),
        lambda: db.things.find_one_and_update({}, update),
    ):
        with pytest.raises(OperationFailure) as refused:
            attempt()
        assert refused.value.code == code
    assert db.things.find_one() is None


def test_an_array_filter_that_nobody_uses_is_refused_where_nothing_matches(db: Db) -> None:
    with pytest.raises(OperationFailure) as refused:
        db.things.update_many({}, {"$set": {"a": 1}}, array_filters=[{"x": 1}])
    assert refused.value.code == 9


def test_the_statements_before_a_malformed_one_are_done(db: Db) -> None:
    good, bad = ({"q": {}, "u": {operator: {"n": value}}} for operator, value in (("$set", 1), ("$inc", "x")))
    db.things.insert_one({"_id": 1})
    reply = db.command("update", "things", updates=[good, bad, good])
    assert [(error["index"], error["code"]) for error in reply["writeErrors"]] == [(1, 14)]
    assert db.things.find_one() == {"_id": 1, "n": 1}


ZERO = {"$divide": [1, 0]}


@pytest.mark.parametrize(
    "command",
    [
        pytest.param({"find": "things", "filter": {"$expr": {"$eq": ["$a", ZERO]}}}, id="filter"),
        pytest.param({"find": "things", "projection": {"a": ZERO}}, id="projection"),
        pytest.param({"aggregate": "things", "pipeline": [{"$project": {"a": ZERO}}], "cursor": {}}, id="stage"),
        pytest.param(
            {"aggregate": "things", "pipeline": [{"$group": {"_id": None, "n": {"$sum": ZERO}}}], "cursor": {}},
            id="accumulator",
        ),
        pytest.param(
            {"aggregate": "things", "pipeline": [{"$set": {"a": {"$cond": ["$b", ZERO, 1]}}}], "cursor": {}},
            id="a branch that may never be taken",
        ),
        pytest.param({"delete": "things", "deletes": [{"q": {"$expr": ZERO}, "limit": 0}]}, id="delete"),
    ],
)
def test_a_constant_that_cannot_be_calculated_is_refused_on_nothing(db: Db, command: dict[str, Any]) -> None:
    reply: dict[str, Any] = {}
    try:
        reply = db.command(command)
    except OperationFailure as error:
        reply = {"writeErrors": [{"code": error.code}]}
    assert [error["code"] for error in reply.get("writeErrors", ())] == [2]


@pytest.mark.parametrize(
    ("merge", "code"),
    [
        pytest.param({"into": "others", "on": "a"}, 51183, id="no unique index"),
        pytest.param({"into": "others", "on": []}, 51187, id="on nothing"),
        pytest.param({"into": "others", "on": ["a", "a"]}, 31465, id="on one field twice"),
    ],
)
def test_a_merge_is_checked_where_there_is_nothing_to_merge(db: Db, merge: dict[str, Any], code: int) -> None:
    with pytest.raises(OperationFailure) as refused:
        list(db.things.aggregate([{"$merge": merge}]))
    assert refused.value.code == code


# -- and on documents: what was done without a word


@pytest.mark.parametrize(
    ("document", "update", "code"),
    [
        pytest.param({"items": [{"tags": ["x"]}]}, {"$pull": {"items.tags": "x"}}, 28, id="pull"),
        pytest.param({"items": [{"tags": ["x"]}]}, {"$pullAll": {"items.tags": ["x"]}}, 28, id="pullAll"),
        pytest.param({"items": [{"tags": ["x"]}]}, {"$pop": {"items.tags": 1}}, 28, id="pop"),
        pytest.param({"a": 1}, {"$pop": {"a.b.c": 1}}, 28, id="pop through a scalar"),
        pytest.param({"a": 1}, {"$rename": {"a.x": "b"}}, 28, id="rename"),
        pytest.param({"a": [{"x": 1}]}, {"$rename": {"a.x": "b"}}, 28, id="rename through an array"),
        pytest.param({"a": [1]}, {"$rename": {"a.0": "b"}}, 2, id="rename of an element"),
        pytest.param({"a": 1, "b": [1]}, {"$rename": {"a": "b.0"}}, 2, id="rename to an element"),
    ],
)
def test_a_path_that_cannot_exist_is_refused(db: Db, document: Any, update: Any, code: int) -> None:
    db.things.insert_one({"_id": 1, **document})
    with pytest.raises(OperationFailure) as refused:
        db.things.update_one({}, update)
    assert refused.value.code == code
    assert db.things.find_one() == {"_id": 1, **document}


@pytest.mark.parametrize(
    "update",
    [
        {"$unset": {"a.b": 1, "items.tags": 1}},
        {"$pull": {"nope.b": 1, "items.5.x": 1}},
        {"$pop": {"o.x.y": 1}},
        {"$rename": {"arr.9": "b"}},
        {"$rename": {"nope.x": "b"}},
    ],
    ids=str,
)
def test_a_path_that_is_not_there_is_left_alone(db: Db, update: Any) -> None:
    document = {"_id": 1, "a": 1, "items": [{"tags": ["x"]}], "o": {}, "arr": [1, 2]}
    db.things.insert_one(document)
    assert db.things.update_one({}, update).modified_count == 0
    assert db.things.find_one() == document
