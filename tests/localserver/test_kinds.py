"""Views, validators, capped and time series collections, over real sockets."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from bson import Int64
from pymongo import MongoClient
from pymongo.database import Database
from pymongo.errors import OperationFailure, WriteError

from mydocs.localserver import LocalServer, ManualClock

Db = Database[dict[str, Any]]
Mongo = MongoClient[dict[str, Any]]
contract = pytest.mark.contract


def code_of(db: Db, command: dict[str, Any]) -> int | None:
    with pytest.raises(OperationFailure) as refused:
        db.command(command)
    return refused.value.code


# -- views


@pytest.fixture
def view(db: Db) -> str:
    db.things.insert_many([{"_id": n, "n": n, "on": n % 2 == 0} for n in range(6)])
    db.create_collection(
        "evens", viewOn="things", pipeline=[{"$match": {"on": True}}, {"$set": {"twice": {"$add": ["$n", "$n"]}}}]
    )
    return "evens"


@contract
def test_a_view_is_read_like_a_collection(db: Db, view: str) -> None:
    evens = db[view]
    assert [one["twice"] for one in evens.find().sort("_id", -1)] == [8, 4, 0]
    assert evens.find_one({"twice": 4}, {"n": 1, "_id": 0}) == {"n": 2}
    assert evens.count_documents({"n": {"$gt": 0}}) == 2
    assert evens.estimated_document_count() == 3
    assert sorted(evens.distinct("twice")) == [0, 4, 8]
    assert list(evens.aggregate([{"$group": {"_id": None, "n": {"$sum": "$n"}}}])) == [{"_id": None, "n": 6}]
    joined = {"from": view, "localField": "n", "foreignField": "n", "as": "even"}
    found = db.things.aggregate([{"$lookup": joined}, {"$match": {"even": {"$ne": []}}}, {"$count": "n"}])
    assert list(found) == [{"n": 3}]
    db.things.insert_one({"_id": 10, "n": 10, "on": True})
    assert evens.count_documents({}) == 4
    (listed,) = db.list_collections(filter={"name": view})
    assert (listed["type"], listed["info"]["readOnly"], "idIndex" in listed) == ("view", True, False)
    assert listed["options"]["viewOn"] == "things"
    evens.drop()
    assert db.things.count_documents({}) == 7


@contract
@pytest.mark.parametrize(
    "command",
    [
        {"insert": "evens", "documents": [{}]},
        {"update": "evens", "updates": [{"q": {}, "u": {"$set": {"a": 1}}}]},
        {"delete": "evens", "deletes": [{"q": {}, "limit": 0}]},
        {"findAndModify": "evens", "remove": True},
        {"createIndexes": "evens", "indexes": [{"key": {"a": 1}, "name": "a"}]},
        {"listIndexes": "evens"},
        {"dropIndexes": "evens", "index": "*"},
        {"validate": "evens"},
    ],
    ids=lambda command: next(iter(command)),
)
def test_a_view_cannot_be_written_to(db: Db, view: str, command: dict[str, Any]) -> None:
    assert code_of(db, command) == 166
    assert db[view].count_documents({}) == 3


@contract
def test_a_view_is_given_another_pipeline(db: Db, view: str) -> None:
    db.command("collMod", view, viewOn="things", pipeline=[{"$match": {"on": False}}])
    assert sorted(db[view].distinct("_id")) == [1, 3, 5]


@contract
@pytest.mark.parametrize(
    ("command", "code"),
    [
        pytest.param({"create": "v", "viewOn": "evens", "pipeline": [{"$out": "x"}]}, 167, id="a view that writes"),
        pytest.param({"create": "v", "viewOn": "a", "capped": True, "size": 1}, 72, id="a capped view"),
        pytest.param({"create": "v", "pipeline": [{"$match": {}}]}, 72, id="a pipeline on nothing"),
        pytest.param({"create": "v", "viewOn": "v"}, 5, id="a view on itself"),
        pytest.param(
            {"collMod": "evens", "viewOn": "evens", "pipeline": []}, 5, id="a view that becomes one on itself"
        ),
        pytest.param({"create": "things", "viewOn": "evens"}, 48, id="a name that is taken"),
        pytest.param({"create": "v", "viewOn": "a", "pipeline": [{"$limit": 0}]}, 15958, id="a pipeline that is wrong"),
    ],
)
def test_a_view_that_makes_no_sense_is_refused(db: Db, view: str, command: dict[str, Any], code: int) -> None:
    assert code_of(db, command) == code


def test_views_rest_on_each_other_to_a_depth(db: Db, view: str) -> None:
    for level in range(19):
        db.create_collection(f"v{level}", viewOn="evens" if level == 0 else f"v{level - 1}")
    assert db.v18.count_documents({}) == 3
    assert code_of(db, {"create": "deepest", "viewOn": "v18"}) == 165


def test_a_view_can_have_search_indexes_where_its_stages_allow_it(db: Db, view: str) -> None:
    index = {"name": "s", "definition": {"mappings": {"dynamic": True}}}
    wrong: list[dict[str, Any]] = [
        {"$match": {"on": True}}, {"$limit": 1}, {"$set": {"_id": 1}}, {"$set": {"at": "$$NOW"}},
        {"$set": {"a": {"$rand": {}}}},
    ]  # fmt: skip
    for number, stage in enumerate(wrong):
        db.create_collection(f"wrong{number}", viewOn="things", pipeline=[stage])
        assert code_of(db, {"createSearchIndexes": f"wrong{number}", "indexes": [index]}) == 2
    pipeline = [{"$match": {"$expr": {"$eq": ["$on", True]}}}, {"$set": {"a": 1}}, {"$match": {}}]
    db.create_collection("searchable", viewOn="things", pipeline=pipeline)
    db.searchable.create_search_index(index)
    assert [one["name"] for one in db.searchable.list_search_indexes()] == ["s"]
    assert list(db.things.list_search_indexes()) == []


# -- validators

SCHEMA = {"$jsonSchema": {"required": ["name"], "properties": {"name": {"bsonType": "string"}, "n": {"minimum": 0}}}}


@contract
def test_a_validator_refuses_what_does_not_fit(db: Db) -> None:
    db.create_collection("things", validator=SCHEMA)
    db.things.insert_one({"_id": 1, "name": "a", "n": 1})
    for write in (
        lambda: db.things.insert_one({"_id": 2}),
        lambda: db.things.update_one({"_id": 1}, {"$set": {"n": -1}}),
        lambda: db.things.replace_one({"_id": 1}, {"n": 1}),
        lambda: db.things.update_one({"_id": 3}, {"$set": {"n": 1}}, upsert=True),
        lambda: db.things.find_one_and_update({"_id": 1}, {"$unset": {"name": ""}}),
    ):
        with pytest.raises(OperationFailure) as refused:
            write()
        assert refused.value.code == 121
    with pytest.raises(WriteError) as failed:
        db.things.insert_one({"_id": 2})
    assert (failed.value.details or {})["errInfo"]["failingDocumentId"] == 2
    db.get_collection("things").insert_one({"_id": 2}, bypass_document_validation=True)
    assert db.things.count_documents({}) == 2
    (listed,) = db.list_collections()
    assert listed["options"]["validator"] == SCHEMA


@contract
def test_a_validator_comes_later_and_lets_old_documents_be(db: Db) -> None:
    db.things.insert_one({"_id": 1, "n": -1})
    db.command("collMod", "things", validator={"n": {"$gte": 0}}, validationLevel="moderate")
    db.things.update_one({"_id": 1}, {"$set": {"n": -2}})
    with pytest.raises(WriteError):
        db.things.insert_one({"n": -1})
    db.command("collMod", "things", validationLevel="strict")
    with pytest.raises(WriteError):
        db.things.update_one({"_id": 1}, {"$set": {"n": -3}})
    db.command("collMod", "things", validationAction="warn")
    db.things.update_one({"_id": 1}, {"$set": {"n": -3}})
    db.command("collMod", "things", validationAction="error", validationLevel="off")
    db.things.insert_one({"n": -1})
    db.command("collMod", "things", validator={}, validationLevel="strict")
    db.things.insert_one({"n": -1})


@contract
def test_a_pipeline_writes_past_no_validator(db: Db) -> None:
    db.create_collection("to", validator={"n": {"$gte": 0}})
    db.things.insert_one({"_id": 1, "n": -1})
    for stage in ({"$out": "to"}, {"$merge": "to"}):
        with pytest.raises(OperationFailure) as refused:
            list(db.things.aggregate([stage]))
        assert refused.value.code == 121
    db.things.update_one({}, {"$set": {"n": 1}})
    list(db.things.aggregate([{"$out": "to"}]))
    with pytest.raises(WriteError):
        db.to.insert_one({"n": -1})


@contract
@pytest.mark.parametrize(
    ("command", "code"),
    [
        pytest.param({"create": "x", "validator": {"a": {"$foo": 1}}}, None, id="unknown operator"),
        pytest.param({"create": "x", "validator": {"$jsonSchema": {"foo": 1}}}, 9, id="unknown keyword"),
        pytest.param({"create": "x", "validator": {"$jsonSchema": {"required": []}}}, 9, id="required of nothing"),
        pytest.param({"create": "x", "validator": {"$jsonSchema": {"bsonType": 1}}}, 14, id="no type"),
        pytest.param({"create": "x", "validator": {"$jsonSchema": {"bsonType": "str"}}}, 2, id="unknown type"),
        pytest.param({"create": "x", "validator": {}, "validationLevel": "some"}, 2, id="unknown level"),
        pytest.param({"create": "x", "validator": {}, "validationAction": "ignore"}, 2, id="unknown action"),
        pytest.param({"create": "x", "validator": []}, 14, id="no document"),
    ],
)
def test_a_validator_that_is_wrong_is_refused(db: Db, command: dict[str, Any], code: int | None) -> None:
    found = code_of(db, command)
    assert code in (None, found)
    assert db.list_collection_names() == []


@contract
@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({"bsonType": ["int", "long"]}, [1, Int64(1)], [1.5, "x"]),
        ({"type": "number"}, [1, 1.5], ["x", None]),
        ({"type": "boolean"}, [True], [1]),
        ({"enum": [1, "a", None]}, [1, 1.0, "a", None], [2, "b"]),
        ({"minimum": 1, "maximum": 3}, [1, 3, "x"], [0, 3.5]),
        ({"minimum": 1, "exclusiveMinimum": True}, [2], [1]),
        ({"maximum": 3, "exclusiveMaximum": True}, [2], [3]),
        ({"multipleOf": 3}, [6, 0], [7]),
        ({"minLength": 2, "maxLength": 3}, ["ab", "äöü", 1], ["a", "abcd"]),
        ({"pattern": "^a"}, ["ab", 1], ["b"]),
        ({"minItems": 1, "maxItems": 2, "uniqueItems": True}, [[1], [1, 2], 1], [[], [1, 2, 3], [1, 1.0]]),
        ({"items": {"bsonType": "int"}}, [[1, 2], []], [[1, "x"]]),
        ({"items": [{"bsonType": "int"}], "additionalItems": False}, [[1], []], [["x"], [1, 2]]),
        ({"required": ["a", "b"]}, [{"a": 1, "b": None}, 1], [{"a": 1}]),
        ({"properties": {"a": {"bsonType": "int"}}}, [{"a": 1}, {}], [{"a": "x"}]),
        ({"properties": {"a": {}}, "additionalProperties": False}, [{"a": 1}, {}], [{"b": 1}]),
        ({"patternProperties": {"^n": {"type": "number"}}, "additionalProperties": {"type": "string"}},
         [{"n1": 1, "x": "y"}], [{"n1": "x"}, {"x": 1}]),
        ({"minProperties": 1, "maxProperties": 1}, [{"a": 1}], [{}, {"a": 1, "b": 1}]),
        ({"dependencies": {"a": ["b"], "c": {"required": ["d"]}}}, [{"a": 1, "b": 1}, {}], [{"a": 1}, {"c": 1}]),
        ({"allOf": [{"minimum": 1}, {"maximum": 2}]}, [1], [3]),
        ({"anyOf": [{"type": "string"}, {"minimum": 5}]}, ["x", 5], [1]),
        ({"oneOf": [{"minimum": 1}, {"maximum": 3}]}, [0, 4], [2]),
        ({"not": {"type": "string"}, "title": "t", "description": "d"}, [1], ["x"]),
    ],
    ids=str,
)  # fmt: skip
def test_a_schema_chooses(db: Db, schema: dict[str, Any], good: list[Any], bad: list[Any]) -> None:
    db.things.insert_many([{"_id": n, "v": value} for n, value in enumerate([*good, *bad])])
    found = db.things.find({"$jsonSchema": {"properties": {"v": schema}}})
    assert sorted(one["_id"] for one in found) == list(range(len(good)))


# -- capped and time series collections


@contract
def test_a_capped_collection_is_listed_with_its_limits(db: Db) -> None:
    db.create_collection("log", capped=True, size=1024, max=5)
    db.log.insert_many([{"_id": n} for n in range(5)])
    (listed,) = db.list_collections()
    assert listed["options"] == {"capped": True, "size": 1024, "max": 5}
    assert db.command("collStats", "log")["capped"] is True
    for command in ({"create": "x", "capped": True}, {"create": "x", "size": 5}):
        assert code_of(db, command) == 72


def test_a_capped_collection_that_is_full_is_refused_by_name(db: Db) -> None:
    db.create_collection("log", capped=True, size=1000, max=1)
    db.log.insert_one({})
    assert code_of(db, {"insert": "log", "documents": [{}]}) == 238
    assert code_of(db, {"find": "log", "tailable": True}) == 238


@contract
def test_measurements_are_taken_with_their_time(db: Db) -> None:
    db.create_collection("temperatures", timeseries={"timeField": "at", "metaField": "room"}, expireAfterSeconds=60)
    now = datetime.now(UTC).replace(microsecond=0)
    db.temperatures.insert_many([{"at": now, "room": n % 2, "c": 20 + n} for n in range(4)])
    assert db.temperatures.count_documents({"room": 1}) == 2
    with pytest.raises(WriteError) as refused:
        db.temperatures.insert_one({"room": 1})
    assert refused.value.code == 2
    (listed,) = db.list_collections(filter={"name": "temperatures"})
    assert listed["type"] == "timeseries"
    assert listed["options"] == {
        "timeseries": {
            "timeField": "at", "metaField": "room", "granularity": "seconds", "bucketMaxSpanSeconds": 3600
        },
        "expireAfterSeconds": 60,
    }  # fmt: skip
    assert list(db.temperatures.index_information()) == ["room_1_at_1"]
    wrong: list[dict[str, Any]] = [
        {},
        {"timeField": 1},
        {"timeField": "a", "metaField": "a"},
        {"timeField": "a", "x": 1},
    ]
    for spec in wrong:
        assert code_of(db, {"create": "x", "timeseries": spec}) in (40414, 14, 72, 2, 40415)
    assert code_of(db, {"create": "x", "expireAfterSeconds": 5}) == 72
    unique = {"key": {"c": 1}, "name": "c", "unique": True}
    assert code_of(db, {"createIndexes": "temperatures", "indexes": [unique]}) in (67, 72)


def test_measurements_expire_and_are_not_changed(db: Db, local_server: LocalServer, local_clock: ManualClock) -> None:
    db.create_collection("temperatures", timeseries={"timeField": "at"}, expireAfterSeconds=60)
    now = local_clock.now()
    db.temperatures.insert_many([{"at": now}, {"at": now + timedelta(hours=1)}])
    assert (
        code_of(db, {"update": "temperatures", "updates": [{"q": {}, "u": {"$set": {"c": 1}}, "multi": True}]}) == 238
    )
    local_clock.advance(180)
    assert db.temperatures.count_documents({}) == 1
    assert db.temperatures.delete_many({}).deleted_count == 1
    db.command("collMod", "temperatures", expireAfterSeconds="off")
    assert "expireAfterSeconds" not in next(db.list_collections())["options"]


def test_kinds_survive_a_restart(tmp_path: Path) -> None:
    with LocalServer(tmp_path) as server, Mongo(server.url) as client:
        client.d.create_collection("v", viewOn="a", pipeline=[{"$match": {"n": 1}}])
        client.d.create_collection("checked", validator={"n": 1})
    with LocalServer(tmp_path) as server, Mongo(server.url) as client:
        client.d.a.insert_many([{"n": 1}, {"n": 2}])
        assert client.d.v.count_documents({}) == 1
        with pytest.raises(WriteError):
            client.d.checked.insert_one({})
