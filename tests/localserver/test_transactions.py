"""Transactions over real sockets: what holds on every replica set, and where this server differs."""

import threading
from typing import Any

import pytest
from bson import Int64
from pymongo import MongoClient
from pymongo.client_session import ClientSession
from pymongo.database import Database
from pymongo.errors import BulkWriteError, DuplicateKeyError, OperationFailure
from pymongo.read_concern import ReadConcern

from mydocs.localserver import ManualClock

Db = Database[dict[str, Any]]
Mongo = MongoClient[dict[str, Any]]


def ids(db: Db, session: ClientSession | None = None) -> list[Any]:
    return [document["_id"] for document in db.things.find(session=session).sort("_id")]


@pytest.mark.contract
def test_a_transaction_sees_its_writes_and_others_see_them_after_the_commit(db: Db, mongo: Mongo) -> None:
    db.things.insert_many([{"_id": n, "a": n} for n in range(4)])
    with mongo.start_session() as session:
        with session.start_transaction():
            db.things.insert_one({"_id": 10}, session=session)
            db.things.update_one({"_id": 1}, {"$set": {"a": "new"}}, session=session)
            db.things.delete_one({"_id": 2}, session=session)
            assert ids(db, session) == [0, 1, 3, 10]
            assert ids(db) == [0, 1, 2, 3]
            assert list(db.things.aggregate([{"$match": {"a": "new"}}], session=session)) == [{"_id": 1, "a": "new"}]
            assert db.things.find_one({"_id": 1}) == {"_id": 1, "a": 1}
        assert ids(db) == [0, 1, 3, 10]
        assert db.things.find_one({"_id": 1}) == {"_id": 1, "a": "new"}


@pytest.mark.contract
def test_an_aborted_transaction_leaves_nothing(db: Db, mongo: Mongo) -> None:
    db.things.insert_one({"_id": 1})
    with mongo.start_session() as session:
        session.start_transaction()
        db.things.insert_one({"_id": 2}, session=session)
        session.abort_transaction()
    db.things.insert_one({"_id": 2, "name": "is free"})
    assert ids(db) == [1, 2]


@pytest.mark.contract
def test_a_transaction_reads_what_was_there_when_it_began(db: Db, mongo: Mongo) -> None:
    db.things.insert_many([{"_id": 1, "a": 1}, {"_id": 2, "a": 1}])
    with mongo.start_session() as session, session.start_transaction():
        assert ids(db, session) == [1, 2]
        db.things.insert_one({"_id": 3})
        db.things.update_one({"_id": 1}, {"$set": {"a": 2}})
        db.things.delete_one({"_id": 2})
        assert ids(db, session) == [1, 2]
        assert db.things.find_one({"_id": 1}, session=session) == {"_id": 1, "a": 1}
    assert ids(db) == [1, 3]


@pytest.mark.contract
def test_of_two_transactions_that_write_one_document_the_second_is_refused(db: Db, mongo: Mongo) -> None:
    db.things.insert_one({"_id": 1, "a": 0})
    with mongo.start_session() as first, mongo.start_session() as second:
        first.start_transaction()
        second.start_transaction()
        db.things.update_one({"_id": 1}, {"$inc": {"a": 1}}, session=first)
        with pytest.raises(OperationFailure) as refused:
            db.things.update_one({"_id": 1}, {"$inc": {"a": 10}}, session=second)
        assert refused.value.code == 112
        assert refused.value.has_error_label("TransientTransactionError")
        first.commit_transaction()
    assert db.things.find_one({}) == {"_id": 1, "a": 1}


@pytest.mark.contract
def test_concurrent_increments_in_transactions_are_all_counted(db: Db, mongo: Mongo) -> None:
    db.things.insert_one({"_id": 1, "a": 0})

    def increment() -> None:
        with mongo.start_session() as session:
            for _ in range(5):
                session.with_transaction(lambda within: _increment_by_hand(db, within))

    threads = [threading.Thread(target=increment) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert db.things.find_one({}) == {"_id": 1, "a": 20}


def _increment_by_hand(db: Db, session: ClientSession) -> None:
    found = db.things.find_one({"_id": 1}, session=session)
    assert found is not None
    db.things.update_one({"_id": 1}, {"$set": {"a": found["a"] + 1}}, session=session)


@pytest.mark.contract
def test_an_error_ends_its_transaction(db: Db, mongo: Mongo) -> None:
    db.things.insert_one({"_id": 1})
    with mongo.start_session() as session:
        session.start_transaction()
        db.things.insert_one({"_id": 2}, session=session)
        with pytest.raises(DuplicateKeyError):
            db.things.insert_one({"_id": 1}, session=session)
        with pytest.raises(OperationFailure) as refused:
            db.things.insert_one({"_id": 3}, session=session)
        assert refused.value.code == 251
        session.abort_transaction()
    assert ids(db) == [1]


@pytest.mark.contract
@pytest.mark.parametrize("ordered", [True, False])
def test_the_first_write_that_is_refused_is_reported_and_ends_its_transaction(
    db: Db, mongo: Mongo, ordered: bool
) -> None:
    db.things.insert_one({"_id": 1})
    with mongo.start_session() as session:
        session.start_transaction()
        with pytest.raises(BulkWriteError) as refused:
            db.things.insert_many([{"_id": 2}, {"_id": 1}, {"_id": 1}], ordered=ordered, session=session)
        assert [(error["index"], error["code"]) for error in refused.value.details["writeErrors"]] == [(1, 11000)]
        with pytest.raises(OperationFailure) as over:
            session.commit_transaction()
        assert over.value.code == 251
    assert ids(db) == [1]


@pytest.mark.contract
@pytest.mark.parametrize(
    "command",
    [
        pytest.param({"count": "things"}, id="count"),
        pytest.param({"createIndexes": "things", "indexes": [{"key": {"a": 1}, "name": "a"}]}, id="index on documents"),
        pytest.param({"drop": "things"}, id="drop"),
        pytest.param({"aggregate": "things", "pipeline": [{"$out": "other"}], "cursor": {}}, id="$out"),
        pytest.param({"listCollections": 1}, id="listCollections"),
    ],
)
def test_what_cannot_be_part_of_a_transaction_is_refused(db: Db, mongo: Mongo, command: dict[str, Any]) -> None:
    db.things.insert_one({"_id": 1})
    with mongo.start_session() as session:
        session.start_transaction()
        with pytest.raises(OperationFailure) as refused:
            db.command(command, session=session)
        session.abort_transaction()
    assert refused.value.code == 263


@pytest.mark.contract
@pytest.mark.parametrize(
    ("command", "code"),
    [
        pytest.param(
            {"createIndexes": "things", "indexes": [{"key": {"a": 1}, "name": "a"}]}, 263, id="index on what is there"
        ),
        pytest.param({"insert": "things", "documents": [{}], "writeConcern": {"w": 1}}, 72, id="write concern"),
        pytest.param({"find": "things", "readConcern": {"level": "local"}}, 72, id="read concern"),
    ],
)
def test_what_a_transaction_cannot_be_asked_for_is_refused(
    db: Db, mongo: Mongo, command: dict[str, Any], code: int
) -> None:
    db.create_collection("things")
    with mongo.start_session() as session:
        session.start_transaction()
        db.things.find_one({}, session=session)
        with pytest.raises(OperationFailure) as refused:
            db.command(command, session=session)
        session.abort_transaction()
    assert refused.value.code == code
    assert list(db.things.index_information()) == ["_id_"]


@pytest.mark.contract
@pytest.mark.parametrize("database", ["admin", "config", "local"])
def test_the_databases_of_the_server_take_no_part_in_transactions(mongo: Mongo, database: str) -> None:
    with mongo.start_session() as session:
        session.start_transaction()
        with pytest.raises(OperationFailure) as refused:
            mongo[database].things.insert_one({}, session=session)
        session.abort_transaction()
    assert refused.value.code == 263


@pytest.mark.contract
def test_a_transaction_that_starts_with_a_read_concern_it_cannot_have_is_refused(db: Db, mongo: Mongo) -> None:
    with mongo.start_session() as session:
        session.start_transaction(ReadConcern("linearizable"))
        with pytest.raises(OperationFailure) as refused:
            db.things.find_one({}, session=session)
        assert refused.value.code == 72


def test_a_transaction_that_nobody_ended_holds_up_no_other_after_a_minute(
    local_clock: ManualClock, db: Db, mongo: Mongo
) -> None:
    db.things.insert_one({"_id": 1, "a": 0})
    with mongo.start_session() as forgotten, mongo.start_session() as next_one:
        forgotten.start_transaction()
        db.things.update_one({"_id": 1}, {"$set": {"a": 1}}, session=forgotten)
        local_clock.advance(61)
        with next_one.start_transaction():
            db.things.update_one({"_id": 1}, {"$set": {"a": 2}}, session=next_one)
    assert db.things.find_one() == {"_id": 1, "a": 2}


@pytest.mark.contract
def test_a_collection_and_its_index_come_with_the_commit(db: Db, mongo: Mongo) -> None:
    with mongo.start_session() as session:
        with session.start_transaction():
            db.create_collection("things", session=session, check_exists=False)
            db.things.create_index("a", unique=True, session=session)
            db.things.insert_one({"_id": 1, "a": 1}, session=session)
            assert db.list_collection_names() == []
        assert list(db.things.index_information()) == ["_id_", "a_1"]
        with pytest.raises(DuplicateKeyError):
            db.things.insert_one({"a": 1})


@pytest.mark.contract
def test_a_commit_may_be_asked_for_twice(db: Db, mongo: Mongo) -> None:
    with mongo.start_session() as session:
        session.start_transaction()
        db.things.insert_one({"_id": 1}, session=session)
        session.commit_transaction()
        session.commit_transaction()
    assert ids(db) == [1]


@pytest.mark.contract
@pytest.mark.parametrize("command", [{"abortTransaction": 1}, {"find": "things"}], ids=["abort", "read"])
def test_a_transaction_that_is_committed_is_over(db: Db, mongo: Mongo, command: dict[str, Any]) -> None:
    db.things.insert_one({"_id": 1})
    fields = {"txnNumber": Int64(1), "autocommit": False}
    with mongo.start_session(causal_consistency=False) as session:
        db.command({"find": "things", **fields, "startTransaction": True}, session=session)
        mongo.admin.command({"commitTransaction": 1, **fields}, session=session)
        where = mongo.admin if "abortTransaction" in command else db
        with pytest.raises(OperationFailure) as refused:
            where.command({**command, **fields}, session=session)
    assert refused.value.code == 256


@pytest.mark.contract
def test_a_transaction_is_ended_on_the_admin_database(db: Db, mongo: Mongo) -> None:
    with mongo.start_session() as session:
        session.start_transaction()
        db.things.insert_one({"_id": 1}, session=session)
        for command in ("commitTransaction", "abortTransaction"):
            with pytest.raises(OperationFailure) as refused:
                db.command(command, session=session)
            assert refused.value.code == 13
        session.commit_transaction()
    assert ids(db) == [1]


def test_a_write_outside_wins_over_an_open_transaction(db: Db, mongo: Mongo) -> None:
    db.things.insert_one({"_id": 1, "a": 0})
    with mongo.start_session() as session:
        session.start_transaction()
        db.things.update_one({"_id": 1}, {"$set": {"a": "inside"}}, session=session)
        db.things.update_one({"_id": 1}, {"$set": {"a": "outside"}})
        with pytest.raises(OperationFailure) as refused:
            session.commit_transaction()
        assert refused.value.has_error_label("TransientTransactionError")
    assert db.things.find_one({}) == {"_id": 1, "a": "outside"}


def test_a_unique_key_that_was_taken_meanwhile_is_a_conflict(db: Db, mongo: Mongo) -> None:
    db.things.create_index("a", unique=True)
    with mongo.start_session() as session:
        session.start_transaction()
        db.things.insert_one({"_id": 1, "a": 1}, session=session)
        db.things.insert_one({"_id": 2, "a": 1})
        with pytest.raises(OperationFailure) as refused:
            session.commit_transaction()
        assert refused.value.code == 112
    assert ids(db) == [2]


def test_an_index_that_came_meanwhile_is_a_conflict(db: Db, mongo: Mongo) -> None:
    db.things.insert_one({"_id": 1, "a": 1})
    with mongo.start_session() as session:
        session.start_transaction()
        db.things.insert_one({"_id": 2, "a": 1}, session=session)
        db.things.create_index("a", unique=True)
        with pytest.raises(OperationFailure) as refused:
            session.commit_transaction()
        assert refused.value.code == 112
    assert ids(db) == [1]


def test_a_transaction_that_is_open_for_a_minute_is_aborted(local_clock: ManualClock, db: Db, mongo: Mongo) -> None:
    with mongo.start_session() as session:
        session.start_transaction()
        db.things.insert_one({"_id": 1}, session=session)
        local_clock.advance(61)
        with pytest.raises(OperationFailure) as refused:
            session.commit_transaction()
        assert refused.value.code == 251
    assert ids(db) == []
