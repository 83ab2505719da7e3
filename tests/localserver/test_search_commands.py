"""Search indexes, faults and fixtures as a driver sees them, over sockets."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from bson import Binary
from pymongo import MongoClient, ReadPreference, WriteConcern
from pymongo.collection import Collection
from pymongo.errors import AutoReconnect, NotPrimaryError, OperationFailure, ServerSelectionTimeoutError
from pymongo.operations import SearchIndexModel
from pymongo.read_concern import ReadConcern

from mydocs.localserver import LocalServer
from mydocs.localserver.control.clock import ManualClock
from mydocs.localserver.search import Dialect, SearchSettings

if TYPE_CHECKING:
    from motor.motor_asyncio import AsyncIOMotorDatabase

Documents = Collection[dict[str, Any]]
TEXT = {"mappings": {"dynamic": False}}
VECTOR = {"fields": [{"type": "vector", "path": "v", "numDimensions": 1536, "similarity": "euclidean"}]}


@pytest.fixture
def client(local_url: str) -> Iterator[MongoClient[dict[str, Any]]]:
    with MongoClient[dict[str, Any]](local_url, serverSelectionTimeoutMS=1_000, appname="tests") as client:
        yield client


@pytest.fixture
def docs(client: MongoClient[dict[str, Any]]) -> Documents:
    """An empty collection that exists."""
    return client["test"].create_collection("docs")


def listed(docs: Documents, name: str) -> dict[str, Any]:
    (one,) = docs.list_search_indexes(name)
    return dict(one)


# The cases of mongodb/specifications, source/index-management/tests/README.md, which every driver runs against Atlas.


def test_case_1_an_index_is_created_and_can_be_queried_later(docs: Documents, local_clock: ManualClock) -> None:
    model = SearchIndexModel(definition=TEXT, name="test-search-index")
    assert docs.create_search_index(model) == "test-search-index"
    assert not listed(docs, "test-search-index")["queryable"]
    local_clock.advance(60)
    index = listed(docs, "test-search-index")
    assert (index["queryable"], index["latestDefinition"]) == (True, TEXT)


def test_case_2_several_indexes_are_created_at_once(docs: Documents, local_clock: ManualClock) -> None:
    models = [SearchIndexModel(definition=TEXT, name=f"test-search-index-{number}") for number in (1, 2)]
    assert docs.create_search_indexes(models) == ["test-search-index-1", "test-search-index-2"]
    local_clock.advance(60)
    assert [(one["name"], one["queryable"]) for one in docs.list_search_indexes()] == [
        ("test-search-index-1", True),
        ("test-search-index-2", True),
    ]


def test_case_3_a_dropped_index_is_gone_later(docs: Documents, local_clock: ManualClock) -> None:
    docs.create_search_index(SearchIndexModel(definition=TEXT, name="test-search-index"))
    local_clock.advance(60)
    docs.drop_search_index("test-search-index")
    assert listed(docs, "test-search-index")["status"] == "DELETING"
    local_clock.advance(60)
    assert list(docs.list_search_indexes()) == []


def test_case_4_an_updated_index_is_ready_with_its_new_definition(docs: Documents, local_clock: ManualClock) -> None:
    docs.create_search_index(SearchIndexModel(definition=TEXT, name="test-search-index"))
    local_clock.advance(60)
    changed = {"mappings": {"dynamic": True}}
    docs.update_search_index("test-search-index", changed)
    before = listed(docs, "test-search-index")
    assert (before["status"] == "READY", before["queryable"]) == (False, True)
    local_clock.advance(60)
    index = listed(docs, "test-search-index")
    assert (index["status"], index["queryable"], index["latestDefinition"]) == ("READY", True, changed)


def test_case_5_a_drop_on_a_missing_collection_is_no_error(client: MongoClient[dict[str, Any]]) -> None:
    client["test"]["missing"].drop_search_index("test-search-index")
    with pytest.raises(OperationFailure) as refused:
        client["test"]["missing"].create_search_index({"definition": TEXT})
    assert refused.value.code == 26


def test_case_6_concerns_of_the_collection_are_not_in_the_way(docs: Documents, local_clock: ManualClock) -> None:
    picky = docs.with_options(write_concern=WriteConcern(w=1), read_concern=ReadConcern("majority"))
    picky.create_search_index(SearchIndexModel(definition=TEXT, name="test-search-index-case6"))
    local_clock.advance(60)
    assert listed(picky, "test-search-index-case6")["latestDefinition"] == TEXT


@pytest.mark.parametrize(
    ("definition", "kind", "expected"),
    [(TEXT, None, "search"), (TEXT, "search", "search"), (VECTOR, "vectorSearch", "vectorSearch")],
    ids=["implicit", "search", "vectorSearch"],
)
def test_case_7_an_index_has_the_type_that_was_asked_for(
    docs: Documents, local_clock: ManualClock, definition: dict[str, Any], kind: str | None, expected: str
) -> None:
    docs.create_search_index(SearchIndexModel(definition=definition, name="test-search-index-case7", type=kind))
    local_clock.advance(60)
    index = listed(docs, "test-search-index-case7")
    assert (index["queryable"], index["type"]) == (True, expected)


def test_case_8_a_vector_definition_without_its_type_is_refused(docs: Documents) -> None:
    with pytest.raises(OperationFailure, match="Attribute mappings missing"):
        docs.create_search_index(SearchIndexModel(definition=VECTOR, name="test-search-index-case8-error"))


# -- what else crosses the wire


def test_indexes_stay_with_their_collection(client: MongoClient[dict[str, Any]], docs: Documents) -> None:
    docs.create_search_index({"definition": TEXT})
    assert list(client["test"]["missing"].list_search_indexes()) == []
    docs.drop()
    assert list(docs.list_search_indexes()) == []
    client["test"].create_collection("docs")
    assert list(docs.list_search_indexes()) == []


def test_a_listing_can_be_read_in_batches_and_from_a_secondary(docs: Documents) -> None:
    docs.create_search_indexes([SearchIndexModel(TEXT, f"i{number}") for number in range(250)])
    reader = docs.with_options(read_preference=ReadPreference.SECONDARY_PREFERRED)
    assert len(list(reader.aggregate([{"$listSearchIndexes": {}}], batchSize=100))) == 250
    (count,) = reader.aggregate([{"$listSearchIndexes": {}}, {"$match": {"name": {"$ne": "i7"}}}, {"$count": "n"}])
    assert count == {"n": 249}


def test_the_deprecated_command_lists_what_the_stage_does(docs: Documents) -> None:
    docs.create_search_indexes([SearchIndexModel(definition=TEXT, name=name) for name in ("a", "b")])
    command = docs.database.command
    assert command("listSearchIndexes", "docs")["cursor"]["firstBatch"] == list(docs.list_search_indexes())
    assert [one["name"] for one in command("listSearchIndexes", "docs", name="b")["cursor"]["firstBatch"]] == ["b"]
    with pytest.raises(OperationFailure, match=r"test\.nothing") as caught:
        command("listSearchIndexes", "nothing")
    assert caught.value.code == 26


def test_a_listing_is_only_ever_the_first_stage(docs: Documents) -> None:
    docs.insert_one({"a": 1})
    with pytest.raises(OperationFailure):
        list(docs.aggregate([{"$match": {}}, {"$listSearchIndexes": {}}]))


@pytest.mark.parametrize("stage", ["$search", "$searchMeta", "$vectorSearch"])
def test_searching_is_refused_by_name(docs: Documents, stage: str) -> None:
    docs.insert_one({"a": 1})
    with pytest.raises(OperationFailure, match=stage.replace("$", "[$]")) as refused:
        list(docs.aggregate([{stage: {"index": "default"}}]))
    assert refused.value.code == 238


def test_a_build_goes_on_over_a_restart(tmp_path: Path) -> None:
    clock, settings = ManualClock(), SearchSettings(dialect=Dialect.SELF_MANAGED, build_seconds=30)
    with (
        LocalServer(tmp_path, clock=clock, search=settings) as server,
        MongoClient[dict[str, Any]](server.url) as client,
    ):
        docs = client["test"].create_collection("docs")
        docs.create_search_index({"name": "a", "definition": TEXT})
        key = listed(docs, "a")["id"]
    clock.advance(29)
    with (
        LocalServer(tmp_path, clock=clock, search=settings) as server,
        MongoClient[dict[str, Any]](server.url) as client,
    ):
        docs = client["test"]["docs"]
        assert (listed(docs, "a")["status"], listed(docs, "a")["id"]) == ("BUILDING", key)
        clock.advance(2)
        assert listed(docs, "a")["status"] == "READY"


# -- faults and the record


def test_a_write_that_was_cut_off_after_it_was_done_is_done_once(docs: Documents, local_server: LocalServer) -> None:
    local_server.controls.clear()
    local_server.controls.cut_after(command="insert")
    docs.insert_one({"a": 1})
    assert docs.count_documents({}) == 1
    assert local_server.controls.counts()["insert"] == 2


def test_a_search_command_that_was_cut_off_is_not_repeated(docs: Documents, local_server: LocalServer) -> None:
    local_server.controls.cut_before(command="createSearchIndexes")
    with pytest.raises(AutoReconnect):
        docs.create_search_index({"definition": TEXT})
    assert local_server.controls.counts()["createSearchIndexes"] == 1
    assert list(docs.list_search_indexes()) == []


def test_the_record_shows_the_bodies_and_who_sent_them(docs: Documents, local_server: LocalServer) -> None:
    docs.insert_one({"_id": 1, "blob": Binary(b"x")})
    recorded = local_server.controls.counted()[-1]
    assert (recorded.name, recorded.database, recorded.application) == ("insert", "test", "tests")
    assert recorded.body["documents"] == [{"_id": 1, "blob": b"x"}]


def test_during_an_election_a_driver_finds_no_primary(docs: Documents, local_server: LocalServer) -> None:
    local_server.controls.election()
    with pytest.raises((NotPrimaryError, ServerSelectionTimeoutError)):
        docs.find_one()
    local_server.controls.end_election()
    assert docs.find_one() is None


def test_a_server_that_is_down_comes_back(docs: Documents, local_server: LocalServer) -> None:
    local_server.controls.down()
    with pytest.raises((AutoReconnect, ServerSelectionTimeoutError)):
        docs.insert_one({"a": 1})
    local_server.controls.up()
    docs.insert_one({"a": 1})


def test_a_delayed_command_holds_up_no_other_connection(docs: Documents, local_server: LocalServer) -> None:
    event = threading.Event()
    local_server.controls.delay(event, command="insert")
    writer = threading.Thread(target=docs.insert_one, args=({"a": 1},))
    writer.start()
    local_server.controls.wait_for(lambda recorded: recorded.name == "insert")
    assert docs.count_documents({}) == 0
    event.set()
    writer.join()
    assert docs.count_documents({}) == 1


# -- fixtures


@pytest.mark.anyio
async def test_the_database_of_the_plugin_works_in_a_coroutine(
    local_db: "AsyncIOMotorDatabase[dict[str, Any]]", local_server: LocalServer, local_clock: ManualClock
) -> None:
    await local_db.create_collection("docs")
    local_server.search.outcome("a", fails="Invalid definition: no such analyzer")
    await local_db["docs"].create_search_index(SearchIndexModel(TEXT, "a"))
    local_clock.advance(60)
    (index,) = await local_db["docs"].list_search_indexes().to_list()
    assert (index["status"], index["statusDetail"][0]["mainIndex"]["message"]) == (
        "FAILED",
        "Invalid definition: no such analyzer",
    )


def test_each_test_gets_a_server_of_its_own(client: MongoClient[dict[str, Any]]) -> None:
    assert [name for name in client.list_database_names() if name not in {"admin", "local", "config"}] == []
