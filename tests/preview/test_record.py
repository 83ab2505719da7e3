"""Commands become writes with the filters that say which documents, whatever loop has sent them."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mydocs.preview.record import Read, Sent, WriteKind, read_record, without_id


def sent(name: str, body: dict[str, Any], reply: dict[str, Any] | None = None, database: str = "app") -> Sent:
    return Sent(name=name, database=database, body=body, reply={"ok": 1.0, **(reply or {})})


def found(collection: str, query: dict[str, Any], *documents: Any) -> Sent:
    return sent("find", {"find": collection, "filter": query}, {"cursor": {"id": 0, "firstBatch": list(documents)}})


def update(collection: str, *queries: dict[str, Any], n: int, multi: bool = False) -> Sent:
    updates = [{"q": query, "u": {"$set": {"a": 1}}, "multi": multi} for query in queries]
    return sent("update", {"update": collection, "updates": updates}, {"n": n})


def writes(*commands: Sent) -> list[tuple[str, str, Any, int]]:
    return [(w.kind.value, w.collection, w.filter, w.done) for w in read_record("app", commands).writes]


@pytest.mark.parametrize(
    ("query", "rest"),
    [
        pytest.param({}, {}, id="all"),
        pytest.param({"_id": 1}, None, id="one"),
        pytest.param({"a": 1}, {"a": 1}, id="no _id"),
        pytest.param({"a": 1, "_id": {"$gt": 3}}, {"a": 1}, id="beside"),
        pytest.param({"$and": [{"_id": {"$gt": 3}}, {"a": 1}]}, {"a": 1}, id="and"),
        pytest.param({"$and": [{"_id": {"$gt": 3}}, {"$and": [{"_id": 1}, {"a": 1}]}]}, {"a": 1}, id="nested"),
        pytest.param({"$and": [{"_id": 1}]}, None, id="and of one"),
        pytest.param({"$and": [{"a": 1}, {"b": 1}], "_id": 4}, {"$and": [{"a": 1}, {"b": 1}]}, id="and of two"),
        pytest.param({"$or": [{"_id": 1}]}, {"$or": [{"_id": 1}]}, id="or stays"),
    ],
)
def test_conditions_on_the_id_are_taken_out(query: dict[str, Any], rest: Any) -> None:
    assert without_id(query) == rest


@given(st.dictionaries(st.sampled_from(["a", "b"]), st.integers()))
def test_a_filter_without_ids_stays(query: dict[str, int]) -> None:
    assert without_id(query) == query
    assert without_id({"$and": [query, {"_id": 5}]}) == (query or None)


def test_a_walk_is_one_write_with_the_filter_of_its_reads() -> None:
    wanted = {"lang": None}
    assert writes(
        found("notes", wanted, {"_id": 1}, {"_id": 2}),
        update("notes", {"_id": 1, "lang": None}, {"_id": 2, "text": "as read"}, n=2),
        found("notes", {"$and": [{"_id": {"$gt": 2}}, wanted]}, {"_id": 3}),
        update("notes", {"_id": 3}, n=1),
        found("notes", {"$and": [{"_id": {"$gt": 3}}, wanted]}),
    ) == [("update", "notes", wanted, 3)]


def test_an_update_of_many_has_its_own_filter() -> None:
    assert writes(update("notes", {"a": 1}, n=7, multi=True), update("notes", {"a": 1}, n=0, multi=True)) == [
        ("update", "notes", {"a": 1}, 7)
    ]


def test_a_write_by_an_id_that_nobody_read_has_no_filter() -> None:
    assert writes(update("notes", {"_id": 1}, n=1)) == [("update", "notes", None, 1)]


def test_an_upsert_is_an_insert() -> None:
    command = sent(
        "update",
        {"update": "a", "updates": [{"q": {"_id": 1}, "u": {"$set": {"b": 1}}, "upsert": True}]},
        {"n": 1, "upserted": [{"index": 0, "_id": 1}]},
    )
    assert writes(command) == [("insert", "a", None, 1)]


def test_single_statements_are_counted_as_such() -> None:
    record = read_record("app", [update("a", {"x": 1}, n=1), update("a", {"x": 1}, n=1)])
    assert [(w.single, w.done) for w in record.writes] == [(2, 2)]
    record = read_record("app", [update("a", {"x": 1}, n=1), update("a", {"x": 1}, n=5, multi=True)])
    assert [(w.single, w.done) for w in record.writes] == [(None, 6)]


def test_the_runners_own_commands_are_no_effect() -> None:
    assert (
        writes(*(update(name, {"_id": "001"}, n=1) for name in ("_migrations", "_migrations_lock", "_search_aliases")))
        == []
    )


def test_other_kinds_of_writes_are_read() -> None:
    commands = [
        sent("insert", {"insert": "a", "documents": [{}, {}]}, {"n": 2}),
        sent("delete", {"delete": "a", "deletes": [{"q": {"b": 1}, "limit": 0}]}, {"n": 3}),
        sent("findAndModify", {"findAndModify": "a", "query": {"c": 1}, "remove": True}, {"lastErrorObject": {"n": 1}}),
        sent("findAndModify", {"findAndModify": "a", "query": {"d": 1}}, {"lastErrorObject": {"upserted": 1, "n": 1}}),
        sent("aggregate", {"aggregate": "a", "pipeline": [{"$match": {}}, {"$out": "b"}]}),
        sent("aggregate", {"aggregate": "a", "pipeline": [{"$merge": {"into": "c"}}]}),
        sent("create", {"create": "d"}),
    ]
    assert [(w.kind, w.collection) for w in read_record("app", commands).writes] == [
        (WriteKind.INSERT, "a"),
        (WriteKind.DELETE, "a"),
        (WriteKind.DELETE, "a"),
        (WriteKind.UPDATE, "b"),
        (WriteKind.UPDATE, "c"),
    ]


def test_what_is_refused_drops_renames_and_strays_is_noted() -> None:
    record = read_record(
        "app",
        [
            sent("update", {"update": "a"}, {"ok": 0.0, "code": 238, "errmsg": "does not implement $x"}),
            sent("update", {"update": "a"}, {"ok": 0.0, "code": 11000, "errmsg": "duplicate"}),
            sent("dropIndexes", {"dropIndexes": "a", "index": ["x_1", "y_1"]}),
            sent("dropIndexes", {"dropIndexes": "a", "index": "*"}),
            sent("renameCollection", {"renameCollection": "app.a", "to": "app.b"}, database="admin"),
            sent("insert", {"insert": "a", "documents": [{}]}, {"n": 1}, database="other"),
            sent("ping", {"ping": 1}, database="admin"),
        ],
    )
    assert record.refused == ["the copy cannot do this: does not implement $x"]
    assert record.dropped_indexes == {("a", "x_1"), ("a", "y_1"), ("a", "*")}
    assert record.renamed == [("a", "b")]
    assert record.other_databases == {"other"}


def test_a_read_that_finds_nothing_is_noted_unless_it_ends_a_walk() -> None:
    record = read_record("app", [found("a", {"x": 1}), found("b", {"x": 1}, {}), found("b", {"x": 1}), found("c", {})])
    assert record.empty_reads == [Read(collection="a", filter={"x": 1})]
    assert record.read == {"a", "b", "c"}
