"""Over real sockets: arguments of a wrong type, and what a MongoDB server answers and this one refuses by name."""

from typing import Any

import pytest
from bson import Binary, Decimal128
from pymongo.database import Database
from pymongo.errors import OperationFailure

Db = Database[dict[str, Any]]


@pytest.mark.parametrize(
    "options",
    [{"sparse": True}, {"partialFilterExpression": {"a": 1}}, {"name": "twice", "unique": True}],
    ids=["sparse", "partial", "two indexes on one key"],
)
def test_a_hint_that_may_change_what_is_found_is_refused_by_name(db: Db, options: dict[str, Any]) -> None:
    db.things.create_index("a", **options)
    if "name" in options:
        db.things.create_index("a")
    with pytest.raises(OperationFailure, match="hint") as refused:
        db.things.find_one({}, hint={"a": 1})
    assert refused.value.code == 238


def test_the_natural_order_backwards_is_refused_by_name(db: Db) -> None:
    with pytest.raises(OperationFailure, match=r"\$natural") as refused:
        db.things.find_one({}, hint=[("$natural", -1)])
    assert refused.value.code == 238


@pytest.mark.parametrize("command", ["find", "count", "distinct", "aggregate"])
def test_collections_of_the_servers_own_are_not_read_as_empty(db: Db, command: str) -> None:
    needed: dict[str, dict[str, Any]] = {"distinct": {"key": "a"}, "aggregate": {"pipeline": [], "cursor": {}}}
    options = needed.get(command, {})
    db.create_collection("v", viewOn="things")
    for database, name in ((db, "system.views"), (db.client.local, "oplog.rs")):
        with pytest.raises(OperationFailure, match=name) as refused:
            database.command({command: name, **options})
        assert refused.value.code == 238


def test_constants_of_an_update_are_refused_by_name(db: Db) -> None:
    with pytest.raises(OperationFailure, match="constants") as refused:
        db.command("update", "things", updates=[{"q": {}, "u": [{"$set": {"a": "$$b"}}], "c": {"b": 1}}])
    assert refused.value.code == 238


def test_a_command_that_nobody_has_is_refused_by_name_like_one_that_is_not_implemented(db: Db) -> None:
    for command in ("noSuchCommand", "mapReduce"):
        with pytest.raises(OperationFailure, match=command) as refused:
            db.command(command)
        assert refused.value.code == 238


@pytest.mark.parametrize(
    ("spec", "code"),
    [({"key": {"a": 1}, "hidden": True}, 85), ({"key": {f"f{n}": 1 for n in range(33)}}, 67)],
    ids=["an index that is to be hidden", "too many fields"],
)
def test_an_index_is_refused_where_servers_differ(db: Db, spec: dict[str, Any], code: int) -> None:
    db.things.create_index("a")
    with pytest.raises(OperationFailure) as refused:
        db.command("createIndexes", "things", indexes=[{"name": "a_1", **spec}])
    assert refused.value.code == code


@pytest.mark.parametrize(
    "collation",
    [
        pytest.param({"locale": "en"}, id="strength 3"),
        pytest.param({"locale": "sv", "strength": 1}, id="letters of its own"),
        pytest.param({"locale": "en", "strength": 1, "numericOrdering": True}, id="numbers"),
        pytest.param({"locale": "en", "strength": 1, "alternate": "shifted"}, id="spaces"),
    ],
)
def test_a_unique_index_that_cannot_be_enforced_exactly_is_refused_by_name(db: Db, collation: dict[str, Any]) -> None:
    with pytest.raises(OperationFailure, match="unique index") as refused:
        db.things.create_index("a", unique=True, collation=collation)
    assert refused.value.code == 238
    db.things.create_index("a", collation=collation)


def test_a_letter_that_cannot_be_folded_exactly_is_refused_by_name(db: Db) -> None:
    db.things.create_index("a", unique=True, collation={"locale": "en", "strength": 1})
    with pytest.raises(OperationFailure, match="'ß'") as refused:
        db.things.insert_one({"a": "Straße"})
    assert refused.value.code == 238


ZERO = {"$divide": [1, 0]}


@pytest.mark.parametrize(
    ("command", "code"),
    [
        pytest.param(
            {"findAndModify": "things", "update": [{"$set": {"a": ZERO}}]}, 2, id="a constant of an update's pipeline"
        ),
        pytest.param(
            {"aggregate": "things", "pipeline": [{"$merge": {"into": "x", "whenMatched": [{"$set": {"a": "$$b"}}]}}],
             "cursor": {}},
            17276,
            id="a pipeline of $merge",
        ),
        pytest.param(
            {"aggregate": "things", "pipeline": [{"$merge": {"into": "x", "let": {"b": ZERO}, "whenMatched": []}}],
             "cursor": {}},
            2,
            id="a constant of $merge",
        ),
        pytest.param({"find": "things", "maxTimeMS": "1"}, 2, id="a limit of time by a string"),
        pytest.param({"create": "x", "validator": {"$expr": {"$lt": ["$at", "$$NOW"]}}}, 238, id="a validator by time"),
        pytest.param({"find": "things", "projection": {"a": {"$range": [0, 10**9]}}}, 146, id="too long a range"),
    ],
)  # fmt: skip
def test_more_is_refused_on_an_empty_collection_than_every_server_refuses(
    db: Db, command: dict[str, Any], code: int
) -> None:
    with pytest.raises(OperationFailure) as refused:
        db.command(command)
    assert refused.value.code == code


def test_a_write_concern_that_cannot_be_met_is_reported_beside_an_error_too(db: Db) -> None:
    db.create_collection("things")
    with pytest.raises(OperationFailure) as refused:
        db.command("dropIndexes", "things", index="nosuch", writeConcern={"w": 2})
    assert (refused.value.details or {})["writeConcernError"]["code"] == 100


LARGEST = 2**63 - 1
NO_OBJECTS: list[Any] = [1, None, "x", []]
NO_STRINGS: list[Any] = [[], {"a": 1}, Decimal128("1")]


def update(change: Any, **options: Any) -> dict[str, Any]:
    return {"update": "things", "updates": [{"q": {}, "u": change, **options}]}


def pipeline(*stages: Any) -> dict[str, Any]:
    return {"aggregate": "things", "pipeline": list(stages), "cursor": {}}


def shift(**changes: Any) -> dict[str, Any]:
    return pipeline({"$project": {"x": {"$dateAdd": {"startDate": "$$NOW", "unit": "day", "amount": 1, **changes}}}})


def lookup(**options: Any) -> dict[str, Any]:
    return pipeline({"$lookup": {"from": "others", "pipeline": [], "as": "x", **options}})


def search(**field: Any) -> dict[str, Any]:
    vector = {"type": "vector", "path": "v", "numDimensions": 3, "similarity": "cosine", **field}
    index = {"name": "x", "type": "vectorSearch", "definition": {"fields": [vector]}}
    return {"createSearchIndexes": "things", "indexes": [index]}


@pytest.mark.parametrize(
    ("command", "code"),
    [
        *(pytest.param(pipeline({"$listSearchIndexes": one}), 14, id=f"listing {one}") for one in NO_OBJECTS),
        pytest.param({"find": "things", "filter": {"a": {"$regex": "a", "$options": 1}}}, 2, id="options of a regex"),
        pytest.param({"find": "things", "filter": {"a": {"$bitsAnyClear": [LARGEST]}}}, 2, id="a bit too far"),
        pytest.param(update({"$set": {"a.$[e]": 1}}, arrayFilters=1), 14, id="array filters"),
        pytest.param(update(1), 9, id="an update"),
        pytest.param(lookup(let=1), 9, id="let of a lookup"),
        pytest.param(pipeline({"$merge": {"into": "x", "whenMatched": [], "let": 1}}), 14, id="let of a merge"),
        pytest.param(pipeline({"$merge": {"into": "x", "whenMatched": {}}}), 51191, id="whenMatched"),
        pytest.param(pipeline({"$merge": {"into": "x", "whenNotMatched": []}}), 14, id="whenNotMatched"),
        pytest.param(pipeline({"$project": {"x": {"$let": {"vars": 1, "in": 1}}}}), 10065, id="vars of let"),
        pytest.param({"collMod": "things", "index": {"name": None, "hidden": True}}, 72, id="no index to change"),
        pytest.param({"collMod": "things", "index": {"keyPattern": 1, "hidden": True}}, 14, id="key of an index"),
        *(pytest.param(search(**{key: {}}), 2, id=f"{key}") for key in ("type", "similarity", "quantization")),
        *(pytest.param(shift(unit=unit), 5439013, id=f"unit {unit}") for unit in NO_STRINGS),
        pytest.param({"endSessions": 1}, 14, id="endSessions"),
        pytest.param({"killSessions": [1]}, 14, id="killSessions"),
        pytest.param({"insert": "a", "documents": [{}], "writeConcern": {"w": Decimal128("NaN")}}, 9, id="w"),
    ],
)
def test_an_argument_of_a_wrong_type_is_refused_with_a_code(db: Db, command: dict[str, Any], code: int) -> None:
    db.things.insert_one({"a": [1]})

    with pytest.raises(OperationFailure) as refused:
        db.command(command)
    assert refused.value.code == code


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        pytest.param({"$round": Decimal128("1E+6000")}, Decimal128("1E+6000"), id="round"),
        pytest.param({"$floor": Decimal128("-1E+6000")}, Decimal128("-1E+6000"), id="floor"),
        pytest.param({"$trunc": [Decimal128("1.5"), 100]}, Decimal128("1.5"), id="more places than there are"),
        pytest.param({"$stdDevPop": {"$literal": [1e300, 1e300]}}, 0.0, id="a deviation of what is large"),
        pytest.param({"$stdDevPop": {"$literal": [1e300, -1e300]}}, float("inf"), id="a large deviation"),
        pytest.param({"$stdDevSamp": {"$literal": [2, 4, 4, 4, 5, 5, 7, 9, "x"]}}, 2.138089935299395, id="a sample"),
    ],
)
def test_numbers_that_are_large_are_calculated_with(db: Db, expression: Any, expected: Any) -> None:
    db.things.insert_one({})
    assert list(db.things.aggregate([{"$project": {"_id": 0, "x": expression}}])) == [{"x": expected}]


@pytest.mark.parametrize(
    ("options", "found"),
    [
        pytest.param({"skip": LARGEST}, 0, id="skip"),
        pytest.param({"limit": LARGEST}, 1, id="limit"),
        pytest.param({"skip": LARGEST, "limit": LARGEST}, 0, id="both"),
        pytest.param({"filter": {"a": {"$bitsAllClear": [2**31 - 1]}}}, 1, id="bits"),
    ],
)
def test_what_is_as_large_as_can_be_is_taken(db: Db, options: dict[str, Any], found: int) -> None:
    db.things.insert_one({"a": 1})
    assert len(db.command("find", "things", **options)["cursor"]["firstBatch"]) == found


def test_a_conflict_of_indexes_can_be_told_whatever_is_in_them(db: Db) -> None:
    db.things.create_index("a", partialFilterExpression={"b": Binary(b"x", 4)})
    with pytest.raises(OperationFailure) as refused:
        db.things.create_index("a", unique=True)
    assert refused.value.code == 86


def test_more_than_a_hundred_levels_are_refused(db: Db) -> None:
    document: dict[str, Any] = {"_id": 1}
    for _ in range(100):
        document = {"_id": 1, "a": document}
    db.things.insert_one(document)
    with pytest.raises(OperationFailure) as refused:
        db.things.insert_one({"_id": 2, "a": document})
    assert refused.value.code == 15


@pytest.mark.parametrize("client", [None, 5, {"application": 5}, {"application": {"name": 5}}])
def test_a_greeting_of_any_form_is_answered(db: Db, client: Any) -> None:
    assert db.command("hello", client=client)["isWritablePrimary"]
