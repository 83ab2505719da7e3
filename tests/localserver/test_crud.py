"""Reading and writing documents, over real sockets: what holds on every MongoDB server."""

from collections.abc import Callable
from typing import Any

import pytest
from bson import Binary, Decimal128, Int64, ObjectId, Regex, Timestamp
from pymongo import DeleteOne, InsertOne, ReplaceOne, ReturnDocument, UpdateMany, UpdateOne
from pymongo.database import Database
from pymongo.errors import BulkWriteError, DuplicateKeyError, OperationFailure
from pymongo.write_concern import WriteConcern

pytestmark = pytest.mark.contract

Db = Database[dict[str, Any]]


def test_every_kind_of_value_comes_back_as_it_went_in(db: Db) -> None:
    document = {
        "_id": ObjectId(), "z": 1, "a": Int64(1), "f": 1.0, "d": Decimal128("1.10"), "s": "é", "n": None, "t": True,
        "b": Binary(b"x", 128), "u": Binary(b"0" * 16, 4), "r": Regex("^a", "i"), "ts": Timestamp(1, 2),
        "nested": {"b": [1, {"a": []}], "a": {}},
    }  # fmt: skip
    db.things.insert_one(document)
    found = db.things.find_one({})
    assert found == document
    assert list(found) == list(document)
    assert type(found["a"]) is Int64


def nested(levels: int) -> dict[str, Any]:
    document: dict[str, Any] = {}
    for level in range(levels):
        document = {"a": document} if level % 2 else {"a": [document]}
    return document


def test_a_document_that_is_nested_too_deeply_is_refused(db: Db) -> None:
    db.things.insert_one({"_id": 1, **nested(60)})
    for write in (
        lambda: db.things.insert_one({"_id": 2, **nested(300)}),
        lambda: db.things.update_one({"_id": 1}, {"$set": {"b": nested(300)}}),
    ):
        with pytest.raises(OperationFailure) as refused:
            write()
        assert refused.value.code in (15, 22)
    assert db.things.count_documents({}) == 1


def test_an_id_comes_first_whatever_its_place(db: Db) -> None:
    db.things.insert_one({"a": 1, "_id": 1})
    assert list(db.things.find_one({}) or {}) == ["_id", "a"]


@pytest.mark.parametrize("identity", [[1], Regex("a")], ids=["array", "regex"])
def test_an_id_that_cannot_be_one_is_refused(db: Db, identity: Any) -> None:
    with pytest.raises(OperationFailure) as refused:
        db.things.insert_one({"_id": identity})
    assert refused.value.code == 53


def test_a_second_document_with_an_id_is_refused_with_its_key(db: Db) -> None:
    db.things.insert_one({"_id": 1})
    with pytest.raises(DuplicateKeyError) as refused:
        db.things.insert_one({"_id": 1.0})
    details = refused.value.details or {}
    assert (details["code"], details["keyPattern"], details["keyValue"]) == (11000, {"_id": 1}, {"_id": 1.0})
    assert details["errmsg"].startswith(f"E11000 duplicate key error collection: {db.name}.things index: _id_ dup key:")


@pytest.mark.parametrize(
    ("ordered", "kept"),
    [pytest.param(True, [1, 2], id="ordered"), pytest.param(False, [1, 2, 3], id="unordered")],
)
def test_an_error_in_the_middle_of_an_insert_ends_it_only_if_ordered(db: Db, ordered: bool, kept: list[int]) -> None:
    with pytest.raises(BulkWriteError) as refused:
        db.things.insert_many([{"_id": 1}, {"_id": 2}, {"_id": 1}, {"_id": 3}], ordered=ordered)
    assert [error["index"] for error in refused.value.details["writeErrors"]] == [2]
    assert [document["_id"] for document in db.things.find().sort("_id")] == kept


def test_a_bulk_of_every_kind_adds_up(db: Db) -> None:
    db.things.insert_many([{"_id": n, "group": n % 2} for n in range(6)])
    result = db.things.bulk_write(
        [
            InsertOne({"_id": 10}),
            UpdateOne({"_id": 0}, {"$set": {"a": 1}}),
            UpdateMany({"group": 1}, {"$inc": {"a": 1}}),
            ReplaceOne({"_id": 2}, {"b": 1}),
            UpdateOne({"_id": 77}, {"$set": {"a": 1}}, upsert=True),
            DeleteOne({"_id": 4}),
        ]
    )
    assert (result.inserted_count, result.matched_count, result.modified_count) == (1, 5, 5)
    assert (result.deleted_count, result.upserted_ids) == (1, {4: 77})


def test_an_update_that_changes_nothing_matches_and_modifies_nothing(db: Db) -> None:
    db.things.insert_one({"_id": 1, "a": 1})
    same = db.things.update_one({"_id": 1}, {"$set": {"a": 1}})
    assert (same.matched_count, same.modified_count) == (1, 0)
    # 1 and 1.0 are equal, but the stored type changes.
    other = db.things.update_one({"_id": 1}, {"$set": {"a": 1.0}})
    assert (other.modified_count, type((db.things.find_one({}) or {})["a"])) == (1, float)


@pytest.mark.parametrize(
    ("update", "filters"),
    [
        pytest.param({"$set": {"a.$[e].z": 1, "a.0.z": 2}}, [{"e.b": 1}], id="identifier and index"),
        pytest.param({"$set": {"a.$[].z": 1, "a.0.y": 2}}, [], id="every element and index"),
        pytest.param({"$set": {"a.$[e].z": 1, "a.$.y": 2}}, [{"e.b": 1}], id="identifier and positional"),
        pytest.param({"$set": {"a.$[e].z": 1}, "$unset": {"a.0": 1}}, [{"e.b": 1}], id="two operators"),
        pytest.param({"$set": {"a.$[].z": 1, "a.$[e].z": 2}}, [{"e.b": 1}], id="every element and identifier"),
        pytest.param({"$set": {"a.$[e].z": 1, "a.$[f]": 2}}, [{"e.b": 1}, {"f.b": {"$lt": 2}}], id="above"),
        pytest.param({"$unset": {"a.$[e].z.z": 1, "a.$[f].z": 1}}, [{"e.b": 1}, {"f.b": 1}], id="nothing there"),
        pytest.param({"$set": {"a.$.z": 1, "a.0.z": 5}}, [], id="positional and its index"),
    ],
)
def test_an_update_that_meets_itself_in_an_element_is_refused(
    db: Db, update: dict[str, Any], filters: list[dict[str, Any]]
) -> None:
    document = {"_id": 1, "a": [{"b": 1}, {"b": 2}]}
    db.things.insert_one(document)
    with pytest.raises(OperationFailure, match="conflict") as refused:
        db.things.update_one({"a.b": 1}, update, array_filters=filters or None)
    assert refused.value.code == 40
    assert db.things.find_one() == document


def test_an_update_may_write_to_different_elements_in_different_ways(db: Db) -> None:
    db.things.insert_one({"_id": 1, "a": [{"b": 1}, {"b": 2}, {"b": 3}]})
    both = {"$set": {"a.$[e].z": 1, "a.$[f].z": 2, "a.$[].y": 3}}
    db.things.update_one({}, both, array_filters=[{"e.b": 1}, {"f.b": 2}])
    db.things.update_one({"a.b": 3}, {"$set": {"a.$.x": 4, "a.0.x": 5}})
    elements = [{"b": 1, "y": 3, "z": 1, "x": 5}, {"b": 2, "y": 3, "z": 2}, {"b": 3, "y": 3, "x": 4}]
    assert db.things.find_one() == {"_id": 1, "a": elements}


@pytest.mark.parametrize(
    ("statement", "code"),
    [
        pytest.param({"q": {}, "u": {}, "x": 1}, 40415, id="unknown field"),
        pytest.param({"q": {}}, 40414, id="missing field"),
        pytest.param({"q": {}, "u": 1}, 9, id="no update"),
        pytest.param({"q": 1, "u": {}}, 14, id="no filter"),
        pytest.param({"q": {}, "limit": 2}, 9, id="limit of a delete"),
        pytest.param({"q": {}, "limit": 1, "multi": True}, 40415, id="unknown field of a delete"),
    ],
)
def test_a_command_with_a_malformed_statement_writes_nothing(db: Db, statement: dict[str, Any], code: int) -> None:
    db.things.insert_one({"_id": 1})
    command: dict[str, Any]
    if "limit" in statement:
        command = {"delete": "things", "deletes": [{"q": {}, "limit": 1}, statement]}
    else:
        command = {"update": "things", "updates": [{"q": {}, "u": {"$set": {"a": 1}}}, statement]}
    with pytest.raises(OperationFailure) as refused:
        db.command(command)
    assert refused.value.code == code
    assert list(db.things.find()) == [{"_id": 1}]


def test_what_is_pulled_may_be_one_of_several(db: Db) -> None:
    db.things.insert_one({"_id": 1, "a": [{"b": 1}, {"c": 2}, {"b": 2}, 1]})
    db.things.update_one({}, {"$pull": {"a": {"$or": [{"b": 1}, {"c": 2}]}}})
    assert db.things.find_one() == {"_id": 1, "a": [{"b": 2}, 1]}


def test_an_upsert_takes_the_equalities_of_its_query(db: Db) -> None:
    db.things.update_one({"a": 1, "b": {"$gt": 5}, "_id": 7}, {"$set": {"c": 2}, "$setOnInsert": {"d": 3}}, upsert=True)
    assert db.things.find_one({}) == {"_id": 7, "a": 1, "c": 2, "d": 3}


def test_an_unacknowledged_write_gets_no_answer_and_is_done(db: Db) -> None:
    fire = db.get_collection("things", write_concern=WriteConcern(w=0))
    fire.insert_one({"_id": 1})
    fire.insert_one({"_id": 1})  # refused, and nobody is told
    db.things.insert_one({"_id": 2})
    assert db.things.count_documents({}) == 2


def test_find_and_modify_returns_what_was_or_what_is(db: Db) -> None:
    db.things.insert_many([{"_id": 1, "n": 5}, {"_id": 2, "n": 3}])
    before = db.things.find_one_and_update({}, {"$inc": {"n": 1}}, sort=[("n", 1)])
    after = db.things.find_one_and_update({"_id": 2}, {"$inc": {"n": 1}}, return_document=ReturnDocument.AFTER)
    removed = db.things.find_one_and_delete({"_id": 2}, projection={"_id": 0, "n": 1})
    assert (before, after, removed) == ({"_id": 2, "n": 3}, {"_id": 2, "n": 5}, {"n": 5})


def test_find_and_modify_reports_an_upsert(db: Db) -> None:
    reply = db.command("findAndModify", "things", query={"_id": 1}, update={"$set": {"a": 1}}, upsert=True)
    assert (reply["value"], reply["lastErrorObject"]) == (None, {"n": 1, "updatedExisting": False, "upserted": 1})
    reply = db.command("findAndModify", "things", query={"_id": 9}, update={"$set": {"a": 1}})
    assert (reply["value"], reply["lastErrorObject"]) == (None, {"n": 0, "updatedExisting": False})


def test_find_and_modify_that_upserts_a_duplicate_is_refused(db: Db) -> None:
    db.things.insert_one({"_id": "lease", "term": 1})
    with pytest.raises(DuplicateKeyError) as refused:
        db.things.find_one_and_update({"_id": "lease", "term": 2}, {"$set": {"x": 1}}, upsert=True)
    assert (refused.value.details or {})["keyValue"] == {"_id": "lease"}


def test_one_time_stands_for_a_whole_command(db: Db) -> None:
    db.things.insert_many([{"_id": n} for n in range(3)])
    db.things.update_many({}, [{"$set": {"at": "$$NOW", "ends": {"$add": ["$$NOW", 30_000]}}}])
    times = [(document["at"], document["ends"]) for document in db.things.find()]
    assert len(set(times)) == 1
    assert (times[0][1] - times[0][0]).total_seconds() == 30


def test_a_variable_of_the_command_is_seen_by_its_filter(db: Db) -> None:
    db.things.insert_many([{"_id": 1, "a": 1}, {"_id": 2, "a": 2}])
    reply = db.command("find", "things", filter={"$expr": {"$eq": ["$a", "$$wanted"]}}, let={"wanted": 2})
    assert [document["_id"] for document in reply["cursor"]["firstBatch"]] == [2]


@pytest.mark.parametrize("size", [2, 100], ids=["many batches", "one batch"])
def test_a_cursor_hands_out_everything_once(db: Db, size: int) -> None:
    db.things.insert_many([{"_id": n} for n in range(25)])
    found = db.things.find({"_id": {"$gte": 5}}, batch_size=size).sort("_id", -1).skip(2).limit(9)
    assert [document["_id"] for document in found] == list(range(22, 13, -1))


def test_a_reply_is_never_larger_than_a_document_may_be(db: Db) -> None:
    db.things.insert_many([{"_id": n, "text": "x" * 6_000_000} for n in range(4)])
    first = db.command("find", "things")["cursor"]
    assert (len(first["firstBatch"]), first["id"] != 0) == (2, True)
    assert len(list(db.things.find())) == 4


def test_a_killed_cursor_is_unknown(db: Db) -> None:
    db.things.insert_many([{"_id": n} for n in range(5)])
    identity = db.command("find", "things", batchSize=2)["cursor"]["id"]
    assert db.command("killCursors", "things", cursors=[identity])["cursorsKilled"] == [identity]
    with pytest.raises(OperationFailure) as refused:
        db.command({"getMore": identity, "collection": "things"})
    assert refused.value.code == 43


@pytest.mark.parametrize(
    "goes",
    [lambda db: db.things.drop(), lambda db: db.others.aggregate([{"$out": "things"}])],
    ids=["dropped", "replaced by $out"],
)
def test_a_cursor_of_a_collection_that_goes_is_killed(db: Db, goes: Callable[[Db], object]) -> None:
    db.things.insert_many([{"_id": n} for n in range(5)])
    found = db.things.find({}, batch_size=2)
    assert next(found) == {"_id": 0}
    goes(db)
    with pytest.raises(OperationFailure) as refused:
        list(found)
    assert refused.value.code == 175


def test_a_cursor_goes_on_while_others_write(db: Db) -> None:
    db.things.insert_many([{"_id": n} for n in range(600)])
    found = db.things.find({}, batch_size=10)
    first = [next(found)["_id"] for _ in range(10)]
    db.things.delete_many({"_id": {"$gte": 500}})
    assert set(range(500)) <= {*first, *(document["_id"] for document in found)}


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        pytest.param({"_id": 3}, [3], id="equality"),
        pytest.param({"_id": {"$in": [4, 1, 9]}}, [1, 4], id="in"),
        pytest.param({"_id": {"$gt": 1, "$lte": 4}}, [2, 3, 4], id="range"),
        pytest.param({"$and": [{"_id": {"$gte": 2}}, {"_id": {"$lt": 4}}]}, [2, 3], id="and"),
        pytest.param({"_id": {"$gte": 4}, "a": {"$ne": 1}}, [4], id="range and more"),
        pytest.param({"_id": {"$ne": 3}}, [0, 1, 2, 4, 5], id="no range"),
        pytest.param({"_id": {"$gt": "a"}}, [], id="range of another type"),
        pytest.param({"_id": {"$in": []}}, [], id="in nothing"),
        pytest.param({"$or": [{"_id": 1}, {"a": 1}]}, [1, 5], id="or"),
        pytest.param({"_id": {"$not": {"$lt": 4}}}, [4, 5], id="not"),
    ],
)
def test_a_condition_on_the_id_finds_what_it_says(db: Db, query: dict[str, Any], ids: list[int]) -> None:
    db.things.insert_many([{"_id": n, **({"a": 1} if n == 5 else {})} for n in range(6)])
    assert [document["_id"] for document in db.things.find(query).sort("_id")] == ids
    assert db.things.count_documents(query) == len(ids)
    assert db.things.delete_many(query).deleted_count == len(ids)


HINTED = [
    pytest.param({"find": "things"}, id="find"),
    pytest.param({"count": "things"}, id="count"),
    pytest.param({"aggregate": "things", "pipeline": [], "cursor": {}}, id="aggregate"),
    pytest.param({"findAndModify": "things", "update": {"$set": {"b": 1}}, "upsert": True}, id="findAndModify"),
    pytest.param({"update": "things", "updates": [{"q": {}, "u": {"$set": {"b": 1}}, "upsert": True}]}, id="update"),
    pytest.param({"delete": "things", "deletes": [{"q": {}, "limit": 0}]}, id="delete"),
]


def hinted(db: Db, command: dict[str, Any], hint: Any) -> int | None:
    changed = {
        field: [{**value[0], "hint": hint}] for field, value in command.items() if field in ("updates", "deletes")
    }
    try:
        reply = db.command({**command, **(changed or {"hint": hint})})
    except OperationFailure as error:
        return error.code
    return next((error["code"] for error in reply.get("writeErrors", ())), None)


@pytest.mark.parametrize("command", HINTED)
@pytest.mark.parametrize(
    "hint", ["a", {"a": -1}, {"a": 1, "b": 1}, "hidden"], ids=["name", "key", "compound", "hidden"]
)
def test_a_hint_that_names_no_index_is_refused_and_nothing_is_written(
    db: Db, command: dict[str, Any], hint: Any
) -> None:
    db.things.create_index("a")
    db.things.create_index("c", name="hidden", hidden=True)
    db.things.insert_one({"_id": 1})
    assert hinted(db, command, hint) == 2
    assert list(db.things.find()) == [{"_id": 1}]
    db.things.drop()
    if "find" in command:
        assert hinted(db, command, hint) is None


@pytest.mark.parametrize("command", HINTED)
@pytest.mark.parametrize(
    "hint", ["a_1", {"a": 1.0}, "_id_", {"_id": 1}, {"$natural": 1}], ids=["name", "key", "_id name", "_id", "natural"]
)
def test_a_hint_that_names_an_index_is_followed(db: Db, command: dict[str, Any], hint: Any) -> None:
    db.things.create_index("a")
    db.things.insert_one({"_id": 1, "a": 2})
    assert hinted(db, command, hint) is None


def test_a_hint_without_an_order_gives_that_of_its_index(db: Db) -> None:
    db.things.create_index([("n", -1), ("_id", 1)])
    db.things.insert_many([{"_id": n, "n": n // 2} for n in range(6)])
    found = db.things.find({}, hint=[("n", -1), ("_id", 1)])
    assert [document["_id"] for document in found] == [4, 5, 2, 3, 0, 1]
    assert next(db.things.aggregate([], hint="n_-1__id_1"))["_id"] == 4
    assert [document["_id"] for document in db.things.find({}, hint="n_-1__id_1").sort("_id", 1)] == [0, 1, 2, 3, 4, 5]
    assert (db.things.find_one_and_update({}, {"$set": {"a": 1}}, hint="n_-1__id_1") or {})["_id"] == 4


def test_distinct_takes_arrays_apart_and_equal_values_once(db: Db) -> None:
    db.things.insert_many([{"a": [1, 2]}, {"a": 2.0}, {"a": None}, {"b": 1}, {"a": "x"}])
    found = db.things.distinct("a")
    assert len(found) == 4
    assert all(value in found for value in (None, 1, 2, "x"))  # their order is not promised


def test_count_respects_skip_and_limit(db: Db) -> None:
    db.things.insert_many([{"_id": n} for n in range(10)])
    assert db.command("count", "things", query={"_id": {"$gte": 2}}, skip=3, limit=4)["n"] == 4
    assert db.things.estimated_document_count() == 10


def test_a_document_that_no_reply_can_hold_is_refused(db: Db) -> None:
    db.things.insert_one({"_id": 1, "s": "x" * 9_000_000})
    with pytest.raises(OperationFailure) as refused:
        list(db.things.aggregate([{"$project": {"a": "$s", "b": "$s"}}]))
    assert refused.value.code == 10334


def test_an_element_can_be_chosen_beside_fields_that_are_left_out(db: Db) -> None:
    db.things.insert_one({"_id": 1, "owns": [{"t": 1}, {"t": 2}], "hat": 1, "coat": 2})
    chosen = {"owns": {"$elemMatch": {"t": 2}}}
    assert db.things.find_one({}, {**chosen, "hat": 0}) == {"_id": 1, "owns": [{"t": 2}], "coat": 2}
    assert db.things.find_one({}, {"owns": {"$elemMatch": {"t": 9}}, "hat": 0}) == {"_id": 1, "coat": 2}
    assert db.things.find_one({}, chosen) == {"_id": 1, "owns": [{"t": 2}]}
    assert db.things.find_one({}, {**chosen, "_id": 0}) == {"owns": [{"t": 2}]}
    with pytest.raises(OperationFailure) as refused:
        db.things.find_one({"owns.t": 2}, {"owns.$": 1, "hat": 0})
    assert refused.value.code in (31254, 31395)


def test_results_are_merged_by_fields_that_a_unique_index_keeps_apart(db: Db) -> None:
    db.totals.create_index([("year", 1), ("kind", 1)], unique=True)
    db.totals.insert_one({"_id": 1, "year": 2024, "kind": "a", "n": 1})
    db.things.insert_many([{"_id": 7, "year": 2024, "kind": "a"}, {"_id": 8, "year": 2025, "kind": "a"}])
    fields = [{"$project": {"_id": 0, "year": 1, "kind": 1, "n": {"$literal": 5}}}]
    list(db.things.aggregate([*fields, {"$merge": {"into": "totals", "on": ["kind", "year"]}}]))
    found = list(db.totals.find({}, {"_id": 0}).sort("year"))
    assert found == [{"year": 2024, "kind": "a", "n": 5}, {"year": 2025, "kind": "a", "n": 5}]
    assert db.totals.find_one({"year": 2024}, {"_id": 1}) == {"_id": 1}
    replace = {"into": "totals", "on": ["year", "kind"], "whenMatched": "replace", "whenNotMatched": "discard"}
    list(db.things.aggregate([{"$project": {"_id": 0, "year": 1, "kind": 1}}, {"$merge": replace}]))
    assert db.totals.find_one({"_id": 1}) == {"_id": 1, "year": 2024, "kind": "a"}
    with pytest.raises(OperationFailure) as refused:  # another `_id` than that of the document that is there
        list(db.things.aggregate([{"$merge": {"into": "totals", "on": ["year", "kind"]}}]))
    assert refused.value.code == 66
    with pytest.raises(OperationFailure) as refused:
        list(db.things.aggregate([{"$project": {"year": 1}}, {"$merge": {"into": "totals", "on": ["year", "kind"]}}]))
    assert refused.value.code == 51132


def test_vectors_can_be_checked_in_one_aggregation(db: Db) -> None:
    vectors: list[Any] = [[1.0, 0.0], [3.0, 4.0], [0.0, 0.0], [1.0], [1.0, "x"], [float("nan"), 1.0], "x", None]
    db.things.insert_many([{"_id": n, "v": v} for n, v in enumerate(vectors)])
    db.things.insert_one({"_id": 9, "v": Binary(b"\x27\0" + b"\0" * 8, 9)})
    numbers = {"$allElementsTrue": [{"$map": {"input": "$v", "in": {"$isNumber": "$$this"}}}]}
    squares = {"$map": {"input": "$v", "in": {"$pow": ["$$this", 2]}}}
    norm = {"$sqrt": {"$reduce": {"input": squares, "initialValue": 0, "in": {"$add": ["$$value", "$$this"]}}}}
    kind = {
        "$switch": {
            "branches": [
                {
                    "case": {"$eq": [{"$type": "$v"}, "binData"]},
                    "then": {"$concat": ["b", {"$toString": {"$binarySize": "$v"}}]},
                },
                {"case": {"$not": [{"$isArray": "$v"}]}, "then": {"$type": "$v"}},
                {"case": {"$ne": [{"$size": "$v"}, 2]}, "then": "length"},
                {"case": {"$not": [numbers]}, "then": "values"},
            ],
            "default": {"$cond": [{"$lte": [{"$abs": {"$subtract": [norm, 1]}}, 0.01]}, "fit", "norm"]},
        }
    }
    stages = [{"$set": {"kind": kind}}, {"$group": {"_id": "$kind", "n": {"$sum": 1}, "one": {"$min": "$_id"}}}]
    (found,) = db.things.aggregate([{"$facet": {"kinds": stages, "all": [{"$count": "n"}]}}])
    # NaN is below all numbers to these comparisons, so it passes for a norm that fits.
    assert {one["_id"]: one["n"] for one in found["kinds"]} == {
        "fit": 2, "norm": 2, "length": 1, "values": 1, "string": 1, "null": 1, "b10": 1
    }  # fmt: skip
    assert found["all"] == [{"n": 9}]
    assert len(list(db.things.aggregate([{"$sample": {"size": 4}}]))) == 4


def test_a_collection_is_counted_without_being_read(db: Db) -> None:
    db.things.insert_many([{} for _ in range(5)])
    assert next(db.things.aggregate([{"$collStats": {"count": {}}}]))["count"] == 5
    with pytest.raises(OperationFailure) as refused:
        list(db.nothing.aggregate([{"$collStats": {"count": {}}}]))
    assert refused.value.code == 26


@pytest.mark.parametrize(("wanted", "code"), [(50, 100), ("nobody", 79)], ids=["members", "mode"])
def test_a_write_concern_that_cannot_be_met_is_reported_beside_what_was_written(
    db: Db, wanted: int | str, code: int
) -> None:
    concern = {"w": wanted, "wtimeout": 1}
    reply = db.command("insert", "things", documents=[{"_id": 1}], writeConcern=concern)
    assert (reply["n"], reply["writeConcernError"]["code"]) == (1, code)
    assert db.things.count_documents({}) == 1


def test_a_reply_says_when_it_is_of(db: Db) -> None:
    client = db.client
    with client.start_session() as session:
        db.things.insert_one({"_id": 1}, session=session)
        written = session.operation_time
        assert written is not None
        assert session.cluster_time is not None
        assert session.cluster_time["clusterTime"] >= written
        with pytest.raises(OperationFailure):
            db.command("find", "things", nonsense=1, session=session)
        db.things.insert_one({"_id": 2}, session=session)
        assert session.operation_time > written


def test_a_pipeline_can_write_its_result(db: Db) -> None:
    db.things.insert_many([{"_id": n, "group": n % 2} for n in range(6)])
    totals = [{"$group": {"_id": "$group", "n": {"$sum": "$_id"}}}]
    assert list(db.things.aggregate([*totals, {"$out": "totals"}])) == []
    assert list(db.totals.find().sort("_id")) == [{"_id": 0, "n": 6}, {"_id": 1, "n": 9}]
    db.totals.insert_one({"_id": 5})
    list(db.things.aggregate([*totals, {"$set": {"n": 0}}, {"$merge": {"into": "totals"}}]))
    assert list(db.totals.find().sort("_id")) == [{"_id": 0, "n": 0}, {"_id": 1, "n": 0}, {"_id": 5}]


def test_what_is_computed_in_an_array_takes_the_place_of_scalars(db: Db) -> None:
    db.things.insert_one({"_id": 1, "a": [{"b": 1}, 2, [3]], "x": 9})
    projection = {"_id": 0, "a.b": "$x"}
    expected = [{"a": [{"b": 9}, {"b": 9}, [{"b": 9}]]}]
    assert list(db.things.aggregate([{"$project": projection}])) == list(db.things.find({}, projection)) == expected


def test_a_group_adds_up_without_losing_anything(db: Db) -> None:
    db.things.insert_many([{"n": 0.1} for _ in range(10)])
    group = {"_id": None, "sum": {"$sum": "$n"}, "mean": {"$avg": "$n"}}
    assert list(db.things.aggregate([{"$group": group}])) == [{"_id": None, "sum": 1.0, "mean": 0.1}]


@pytest.mark.parametrize(
    ("command", "code"),
    [
        pytest.param({"find": "a", "xyz": 1}, 40415, id="unknown field"),
        pytest.param({"find": "a", "filter": "x"}, 14, id="wrong type"),
        pytest.param({"find": ""}, 73, id="no name"),
        pytest.param({"aggregate": "a", "pipeline": []}, 9, id="no cursor"),
        pytest.param({"aggregate": "a", "pipeline": [{}], "cursor": {}}, 40323, id="empty stage"),
        pytest.param({"insert": "a", "documents": []}, 16, id="no documents"),
        pytest.param({"update": "a", "updates": []}, 16, id="no updates"),
        pytest.param({"delete": "a", "deletes": []}, 16, id="no deletes"),
        pytest.param({"create": "system.foo"}, 73, id="a name of the server's own"),
        pytest.param({"insert": "system.foo", "documents": [{}]}, 73, id="into a name of the server's own"),
        pytest.param({"findAndModify": "a", "remove": True, "arrayFilters": []}, 9, id="array filters to remove by"),
        pytest.param(
            {"aggregate": "a", "pipeline": [{"$out": "b"}], "cursor": {}, "readConcern": {"level": "linearizable"}},
            72,
            id="linearizable $out",
        ),
        pytest.param({"insert": "a", "documents": [{}], "writeConcern": {"w": 51}}, 9, id="more than there can be"),
        pytest.param({"ping": 1, "apiStrict": True}, 322, id="strict about no version"),
        pytest.param({"ping": 1, "apiVersion": "never"}, 322, id="a version that nobody has"),
        pytest.param({"find": "a", "writeConcern": {"w": 1}}, 72, id="a write concern to read with"),
        pytest.param(
            {"insert": "a", "documents": [{}], "readConcern": {"level": "majority"}},
            72,
            id="a read concern to write with",
        ),
        pytest.param({"find": "a", "maxTimeMS": -1}, 2, id="a negative limit of time"),
        pytest.param({"find": "a", "maxTimeMS": 2**31}, 2, id="too large a limit of time"),
        pytest.param({"aggregate": "a", "pipeline": [{"$unset": []}], "cursor": {}}, 31119, id="unset of nothing"),
        pytest.param({"findAndModify": "a", "query": {}}, 9, id="neither update nor remove"),
        pytest.param({"findAndModify": "a", "remove": True, "update": {}}, 9, id="update and remove"),
    ],
)
def test_a_wrong_command_is_refused_with_the_servers_code(db: Db, command: dict[str, Any], code: int) -> None:
    with pytest.raises(OperationFailure) as refused:
        db.command(command)
    assert refused.value.code == code
