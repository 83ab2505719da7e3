"""Collections and their indexes, over real sockets: what holds on every MongoDB server."""

import re
from typing import Any

import pytest
from pymongo import ASCENDING, IndexModel, MongoClient
from pymongo.database import Database
from pymongo.errors import CollectionInvalid, DuplicateKeyError, OperationFailure

pytestmark = pytest.mark.contract

Db = Database[dict[str, Any]]
Spec = dict[str, Any]


def create(db: Db, *specs: Spec) -> dict[str, Any]:
    named = [{"name": "_".join(f"{field}_{value}" for field, value in spec["key"].items()), **spec} for spec in specs]
    reply: dict[str, Any] = db.command("createIndexes", "things", indexes=named)
    return reply


def refusal(db: Db, *specs: Spec) -> tuple[int | None, str]:
    with pytest.raises(OperationFailure) as refused:
        create(db, *specs)
    return refused.value.code, str(refused.value)


def test_creating_indexes_creates_the_collection_and_says_so(db: Db) -> None:
    reply = create(db, {"key": {"a": 1}}, {"key": {"b": -1, "c": 1}})
    counted = (reply["numIndexesBefore"], reply["numIndexesAfter"], reply["createdCollectionAutomatically"])
    assert counted == (1, 3, True)
    assert [index["name"] for index in db.things.list_indexes()] == ["_id_", "a_1", "b_-1_c_1"]


def test_creating_what_is_there_changes_nothing(db: Db) -> None:
    create(db, {"key": {"a": 1}, "expireAfterSeconds": 60})
    again = create(db, {"key": {"a": 1.0}, "expireAfterSeconds": 60, "name": "a_1"})
    assert (again["numIndexesAfter"], again["note"]) == (2, "all indexes already exist")
    assert create(db, {"key": {"_id": 1}})["numIndexesAfter"] == 2


def test_an_index_is_listed_as_it_was_asked_for(db: Db) -> None:
    condition = {"a": {"$gt": 1}}
    create(
        db, {"key": {"a": 1}, "unique": True, "partialFilterExpression": condition}, {"key": {"b": 1}, "sparse": True}
    )
    assert [dict(index) for index in db.command("listIndexes", "things")["cursor"]["firstBatch"]] == [
        {"v": 2, "key": {"_id": 1}, "name": "_id_"},
        {"v": 2, "key": {"a": 1}, "name": "a_1", "unique": True, "partialFilterExpression": condition},
        {"v": 2, "key": {"b": 1}, "name": "b_1", "sparse": True},
    ]


@pytest.mark.parametrize(
    ("present", "wanted", "code"),
    [
        pytest.param({"key": {"a": 1}}, {"key": {"b": 1}, "name": "a_1"}, 86, id="same name, another key"),
        pytest.param({"key": {"a": 1}}, {"key": {"a": 1}, "unique": True}, 86, id="same name, now unique"),
        pytest.param({"key": {"a": 1}}, {"key": {"a": 1}, "sparse": True}, 86, id="same name, now sparse"),
        pytest.param({"key": {"a": 1}}, {"key": {"a": 1}, "name": "other"}, 85, id="same key, another name"),
        pytest.param({"key": {"a": 1}}, {"key": {"a": 1}, "expireAfterSeconds": 5}, 85, id="another option"),
        pytest.param(
            {"key": {"a": 1}}, {"key": {"a": 1}, "name": "other", "expireAfterSeconds": 5}, 85, id="name and option"
        ),
    ],
)
def test_an_index_that_contradicts_another_is_refused(db: Db, present: Spec, wanted: Spec, code: int) -> None:
    create(db, present)
    assert refusal(db, wanted)[0] == code


def test_an_option_of_long_ago_is_ignored(db: Db) -> None:
    create(db, {"key": {"a": 1}, "dropDups": True})
    assert db.things.index_information()["a_1"] == {"v": 2, "key": [("a", 1)]}


def test_one_key_may_have_several_indexes_that_take_different_documents(db: Db) -> None:
    reply = create(
        db,
        {"key": {"a": 1}},
        {"key": {"a": 1}, "name": "unique", "unique": True},
        {"key": {"a": 1}, "name": "sparse", "sparse": True},
        {"key": {"a": 1}, "name": "some", "partialFilterExpression": {"b": 1}},
    )
    assert reply["numIndexesAfter"] == 5


@pytest.mark.parametrize(
    ("spec", "code"),
    [
        pytest.param({"key": {}, "name": "x"}, 67, id="empty key"),
        pytest.param({"key": {"a": 0}}, 67, id="direction 0"),
        pytest.param({"key": {"a": "nosuch"}}, 67, id="unknown plugin"),
        pytest.param({"key": {"a": True}}, 67, id="direction of another type"),
        pytest.param({"key": {"a..b": 1}}, 67, id="empty field"),
        pytest.param({"key": {"a": 1}, "nosuch": 1}, 197, id="unknown option"),
        pytest.param({"key": {"a": 1}, "unique": "yes"}, 14, id="option of another type"),
        pytest.param({"key": {"a": 1, "b": 1}, "expireAfterSeconds": 5}, 67, id="compound TTL"),
        pytest.param({"key": {"a": 1}, "expireAfterSeconds": -5}, 67, id="negative TTL"),
        pytest.param({"key": {"_id": 1}, "unique": True}, 197, id="option of the _id index"),
        pytest.param(
            {"key": {"a": 1}, "sparse": True, "partialFilterExpression": {"a": 1}}, 67, id="sparse and partial"
        ),
        pytest.param({"key": {"a": 1}, "partialFilterExpression": {"a": re.compile("x")}}, 67, id="partial by regex"),
        pytest.param({"key": {"a": 1}, "partialFilterExpression": {"a": {"$regex": "x"}}}, 67, id="partial by $regex"),
        pytest.param({"key": {"a": 1}, "name": "*"}, 2, id="name of all"),
    ],
)
def test_a_specification_that_makes_no_sense_is_refused(db: Db, spec: Spec, code: int) -> None:
    db.create_collection("things")
    assert refusal(db, spec)[0] == code


def test_a_specification_without_a_name_is_refused(db: Db) -> None:
    with pytest.raises(OperationFailure, match="'name' field is a required") as refused:
        db.command("createIndexes", "things", indexes=[{"key": {"a": 1}}])
    assert refused.value.code == 9


SPHERE = {"v": 2, "key": {"a": "2dsphere"}, "name": "a_2dsphere", "2dsphereIndexVersion": 3}
TEXT = {
    "v": 2, "key": {"_fts": "text", "_ftsx": 1}, "name": "a_text_b_text", "weights": {"a": 1, "b": 5},
    "default_language": "english", "language_override": "language", "textIndexVersion": 3,
}  # fmt: skip
ENGLISH = {
    "locale": "en", "caseLevel": False, "caseFirst": "off", "strength": 2, "numericOrdering": False,
    "alternate": "non-ignorable", "maxVariable": "punct", "normalization": False, "backwards": False, "version": "57.1",
}  # fmt: skip


@pytest.mark.parametrize(
    ("spec", "listed"),
    [
        pytest.param({"key": {"a": "text", "b": "text"}, "weights": {"b": 5}}, TEXT, id="text"),
        pytest.param(
            {"key": {"x": 1, "a": "text"}, "default_language": "german"},
            TEXT | {"key": {"x": 1, "_fts": "text", "_ftsx": 1}, "name": "x_1_a_text", "weights": {"a": 1},
                    "default_language": "german"},
            id="compound text",
        ),
        pytest.param({"key": {"a": "2dsphere"}}, SPHERE, id="2dsphere"),
        pytest.param(
            {"key": {"a": "2d"}, "bits": 20}, {"v": 2, "key": {"a": "2d"}, "name": "a_2d", "bits": 20}, id="2d"
        ),
        pytest.param({"key": {"a": "hashed"}}, {"v": 2, "key": {"a": "hashed"}, "name": "a_hashed"}, id="hashed"),
        pytest.param(
            {"key": {"$**": 1}, "wildcardProjection": {"a": 1}},
            {"v": 2, "key": {"$**": 1}, "name": "$**_1", "wildcardProjection": {"a": 1}},
            id="wildcard",
        ),
        pytest.param({"key": {"a.$**": 1}}, {"v": 2, "key": {"a.$**": 1}, "name": "a.$**_1"}, id="wildcard below"),
        pytest.param(
            {"key": {"a": 1}, "collation": {"locale": "en", "strength": 2}},
            {"v": 2, "key": {"a": 1}, "name": "a_1", "collation": ENGLISH},
            id="collation",
        ),
        pytest.param(
            {"key": {"a": 1}, "collation": {"locale": "simple"}},
            {"v": 2, "key": {"a": 1}, "name": "a_1"},
            id="simple collation",
        ),
    ],
)  # fmt: skip
def test_indexes_of_every_kind_are_listed_and_known_again(db: Db, spec: Spec, listed: Spec) -> None:
    db.things.insert_many(
        [{"a": "x"}, {"a": [1.0, 2.0]}] if "hashed" not in str(spec) and "2d" not in str(spec) else [{}]
    )
    assert create(db, spec)["numIndexesAfter"] == 2
    assert [dict(index) for index in db.command("listIndexes", "things")["cursor"]["firstBatch"]][1] == listed
    assert create(db, spec)["numIndexesAfter"] == 2
    assert create(db, {name: value for name, value in listed.items() if name != "v"})["numIndexesAfter"] == 2
    db.things.drop_index(listed["name"])
    assert list(db.things.index_information()) == ["_id_"]


@pytest.mark.parametrize(
    ("spec", "code"),
    [
        pytest.param({"key": {"a": "hashed"}, "unique": True}, 16764, id="unique hashed"),
        pytest.param({"key": {"a": "hashed", "b": "hashed"}}, 31303, id="hashed twice"),
        pytest.param({"key": {"a": "text"}, "unique": True}, 67, id="unique text"),
        pytest.param({"key": {"a": "text", "x": 1, "b": "text"}}, 67, id="text apart"),
        pytest.param({"key": {"a": "text"}, "weights": {"a": 0}}, 67, id="no weight"),
        pytest.param({"key": {"a": "text", "b": "2dsphere"}}, 67, id="text and geo"),
        pytest.param({"key": {"$**": 1}, "unique": True}, 67, id="unique wildcard"),
        pytest.param({"key": {"a": 1}, "wildcardProjection": {"a": 1}}, 2, id="projection of nothing"),
        pytest.param({"key": {"a": 1}, "collation": {}}, 40414, id="collation without a locale"),
        pytest.param({"key": {"a": 1}, "collation": {"locale": "klingon"}}, 2, id="unknown locale"),
        pytest.param({"key": {"a": 1}, "collation": {"locale": "en", "x": 1}}, 40415, id="unknown field"),
        pytest.param({"key": {"a": 1}, "collation": {"locale": "en", "caseFirst": "no"}}, 2, id="unknown order"),
    ],
)
def test_an_index_of_a_kind_that_makes_no_sense_is_refused(db: Db, spec: Spec, code: int) -> None:
    db.create_collection("things")
    assert refusal(db, spec)[0] == code


def test_a_hashed_index_refuses_arrays(db: Db) -> None:
    create(db, {"key": {"a": "hashed"}})
    with pytest.raises(OperationFailure) as refused:
        db.things.insert_one({"a": [1]})
    assert refused.value.code == 16766


def test_a_collection_has_one_text_index(db: Db) -> None:
    create(db, {"key": {"a": "text"}})
    assert refusal(db, {"key": {"b": "text"}})[0] in (67, 85)


def test_an_index_with_another_collation_is_another_index(db: Db) -> None:
    create(db, {"key": {"a": 1}}, {"key": {"a": 1}, "name": "en", "collation": {"locale": "en"}})
    assert len(db.things.index_information()) == 3
    assert refusal(db, {"key": {"a": 1}, "name": "a_1", "collation": {"locale": "en"}})[0] == 86


@pytest.mark.parametrize(
    ("strength", "same", "different"),
    [
        pytest.param(1, ["Resume", "résumé", "RÉSUMÉ"], ["resumes", "re sume", "resume!"], id="letters"),
        pytest.param(2, ["Résumé", "rÉsumé", "re\u0301sume\u0301"], ["resume", "Resumé"], id="letters and marks"),
    ],
)
def test_a_unique_index_with_a_collation_takes_what_it_takes_for_equal_once(
    db: Db, strength: int, same: list[str], different: list[str]
) -> None:
    create(db, {"key": {"a": 1}, "unique": True, "collation": {"locale": "en", "strength": strength}})
    db.things.insert_one({"_id": 1, "a": same[0]})
    for text in same[1:]:
        with pytest.raises(DuplicateKeyError):
            db.things.insert_one({"a": text})
        with pytest.raises(DuplicateKeyError):
            db.things.insert_one({"a": [text]})
    db.things.insert_many([{"a": text} for text in different])
    db.things.update_one({"_id": 1}, {"$set": {"a": same[1]}})
    db.things.delete_one({"_id": 1})
    db.things.insert_one({"a": same[-1]})


def test_the_same_index_twice_in_one_command_is_refused(db: Db) -> None:
    db.things.insert_one({})
    code, message = refusal(db, {"key": {"a": 1}}, {"key": {"a": 1}})
    assert (code, "identical indexes" in message) == (96, True)


def test_no_index_of_a_command_that_fails_is_created(db: Db) -> None:
    db.things.insert_many([{"a": 1, "b": 1}, {"a": 2, "b": 1}])
    code, message = refusal(db, {"key": {"a": 1}, "unique": True}, {"key": {"b": 1}, "unique": True})
    assert code == 11000
    assert "dup key: { b: 1 }" in message
    assert list(db.things.index_information()) == ["_id_"]
    db.things.insert_one({"a": 1, "b": 1})


UNIQUE = [
    pytest.param({}, [{"a": 1}], {"a": 1}, False, id="equal"),
    pytest.param({}, [{"a": 1}], {"a": 1.0}, False, id="equal numbers of other types"),
    pytest.param({}, [{"a": 1}], {"a": "1"}, True, id="other type"),
    pytest.param({}, [{"a": [1, 2]}], {"a": [2, 3]}, False, id="an element in common"),
    pytest.param({}, [{"b": 1}], {"a": None}, False, id="missing is null"),
    pytest.param({}, [{"a": {"x": 1, "y": 2}}], {"a": {"y": 2, "x": 1}}, True, id="order of fields"),
    pytest.param({"sparse": True}, [{"b": 1}], {"b": 2}, True, id="sparse leaves out what has none"),
    pytest.param({"sparse": True}, [{"a": None}], {"a": None}, False, id="sparse takes null"),
    pytest.param({"partialFilterExpression": {"b": 1}}, [{"a": 1}], {"a": 1, "b": 1}, True, id="partial leaves out"),
    pytest.param(
        {"partialFilterExpression": {"b": 1}}, [{"a": 1, "b": 1}], {"a": 1, "b": 1}, False, id="partial takes"
    ),
]


@pytest.mark.parametrize(("options", "present", "wanted", "fits"), UNIQUE)
def test_a_unique_index_refuses_equal_keys_and_no_others(
    db: Db, options: Spec, present: list[Spec], wanted: Spec, fits: bool
) -> None:
    create(db, {"key": {"a": 1}, "unique": True, **options})
    db.things.insert_many([dict(document) for document in present])
    if fits:
        db.things.insert_one(dict(wanted))
    else:
        with pytest.raises(DuplicateKeyError):
            db.things.insert_one(dict(wanted))
    assert db.things.count_documents({}) == len(present) + fits


def test_one_document_may_have_a_key_twice(db: Db) -> None:
    create(db, {"key": {"a": 1}, "unique": True})
    db.things.insert_one({"a": [1, 1]})
    assert db.things.count_documents({"a": 1}) == 1


def test_a_key_is_free_again_when_its_document_is_gone_or_changed(db: Db) -> None:
    create(db, {"key": {"a": 1}, "unique": True})
    db.things.insert_many([{"_id": 1, "a": 1}, {"_id": 2, "a": 2}])
    with pytest.raises(DuplicateKeyError) as refused:
        db.things.update_one({"_id": 1}, {"$set": {"a": 2}})
    assert (refused.value.details or {})["keyPattern"] == {"a": 1}
    assert db.things.find_one({"_id": 1}) == {"_id": 1, "a": 1}
    db.things.update_one({"_id": 2}, {"$set": {"a": 3}})
    db.things.update_one({"_id": 1}, {"$set": {"a": 2}})
    db.things.delete_one({"_id": 2})
    db.things.insert_one({"a": 3})
    db.things.drop_index("a_1")
    db.things.insert_one({"a": 3})


def test_a_compound_index_refuses_two_arrays(db: Db) -> None:
    create(db, {"key": {"a": 1, "b": 1}})
    with pytest.raises(OperationFailure) as refused:
        db.things.insert_one({"a": [1], "b": [1]})
    assert refused.value.code == 171


def test_indexes_are_dropped_by_name_by_key_or_all(db: Db) -> None:
    create(db, *({"key": {field: 1}} for field in "abcde"))
    db.things.drop_index("a_1")
    db.things.drop_index([("b", ASCENDING)])
    db.command("dropIndexes", "things", index=["c_1", "d_1"])
    assert list(db.things.index_information()) == ["_id_", "e_1"]
    assert db.command("dropIndexes", "things", index="*")["nIndexesWas"] == 2
    for index, code in (("nosuch", 27), ({"z": 1}, 27), ("_id_", 72)):
        with pytest.raises(OperationFailure) as refused:
            db.command("dropIndexes", "things", index=index)
        assert refused.value.code == code


@pytest.mark.parametrize("command", ["listIndexes", "dropIndexes", "collMod"])
def test_a_collection_that_is_not_there_has_no_indexes(db: Db, command: str) -> None:
    with pytest.raises(OperationFailure) as refused:
        db.command({command: "nosuch", **({"index": "*"} if command == "dropIndexes" else {})})
    assert refused.value.code == 26


def test_an_expiry_and_hiding_are_changed_in_place(db: Db) -> None:
    create(db, {"key": {"a": 1}, "expireAfterSeconds": 60})
    reply = db.command("collMod", "things", index={"name": "a_1", "expireAfterSeconds": 5})
    assert (reply["expireAfterSeconds_old"], reply["expireAfterSeconds_new"]) == (60, 5)
    reply = db.command("collMod", "things", index={"keyPattern": {"a": 1}, "hidden": True})
    assert (reply["hidden_old"], reply["hidden_new"]) == (False, True)
    assert db.things.index_information()["a_1"] == {
        "v": 2, "key": [("a", 1)], "expireAfterSeconds": 5, "hidden": True
    }  # fmt: skip


def test_an_index_becomes_unique_in_two_steps(db: Db) -> None:
    create(db, {"key": {"a": 1}})
    db.things.insert_many([{"_id": 1, "a": 1}, {"_id": 2, "a": 1}])
    with pytest.raises(OperationFailure) as refused:
        db.command("collMod", "things", index={"name": "a_1", "unique": True})
    assert refused.value.code == 72
    db.command("collMod", "things", index={"name": "a_1", "prepareUnique": True})
    with pytest.raises(DuplicateKeyError):
        db.things.insert_one({"a": 1})
    with pytest.raises(OperationFailure) as refused:
        db.command("collMod", "things", index={"name": "a_1", "unique": True})
    assert refused.value.code == 359
    assert [sorted(one["ids"]) for one in (refused.value.details or {})["violations"]] == [[1, 2]]
    db.things.delete_one({"_id": 2})
    assert db.command("collMod", "things", index={"name": "a_1", "unique": True})["unique_new"] is True
    assert db.things.index_information()["a_1"]["unique"] is True
    with pytest.raises(DuplicateKeyError):
        db.things.insert_one({"a": 1})


def test_collections_are_created_listed_renamed_and_dropped(db: Db, mongo: MongoClient[dict[str, Any]]) -> None:
    db.create_collection("a")
    with pytest.raises(CollectionInvalid):
        db.create_collection("a")
    with pytest.raises(OperationFailure) as refused:
        db.command("create", "a")
    assert refused.value.code == 48
    listed = next(db.list_collections(filter={"name": "a"}))
    assert (listed["type"], listed["idIndex"]["name"], listed["info"]["uuid"].subtype) == ("collection", "_id_", 4)
    db.a.create_indexes([IndexModel("x", unique=True)])
    db.a.insert_one({"_id": 1, "x": 1})
    db.a.rename("b")
    assert db.list_collection_names() == ["b"]
    assert db.b.find_one({}) == {"_id": 1, "x": 1}
    with pytest.raises(DuplicateKeyError):
        db.b.insert_one({"x": 1})
    db.create_collection("c")
    with pytest.raises(OperationFailure) as refused:
        db.b.rename("c")
    assert refused.value.code == 48
    db.b.rename("c", dropTarget=True)
    assert mongo[db.name].list_collection_names() == ["c"]
    assert db.name in mongo.list_database_names()
    db.c.drop()
    assert db.list_collection_names() == []
    assert db.name not in mongo.list_database_names()


def test_two_databases_differ_by_more_than_case(db: Db, mongo: MongoClient[dict[str, Any]]) -> None:
    db.a.insert_one({})
    other = mongo[db.name.upper()]
    assert list(other.a.find()) == []
    for write in (lambda: other.a.insert_one({}), lambda: other.create_collection("a")):
        with pytest.raises(OperationFailure) as refused:
            write()
        assert refused.value.code == 13297


def test_a_collection_is_validated_as_drivers_ask(db: Db) -> None:
    db.a.insert_one({"_id": 1})
    assert db.validate_collection("a")["valid"] is True
    assert db.validate_collection("a", scandata=True, full=True)["valid"] is True


def test_a_collection_made_again_is_empty_and_another_one(db: Db) -> None:
    db.a.insert_one({"_id": 1})
    before = next(db.list_collections())["info"]["uuid"]
    db.a.drop()
    db.create_collection("a")
    assert db.a.find_one({}) is None
    assert next(db.list_collections())["info"]["uuid"] != before
