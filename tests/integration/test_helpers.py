"""The helpers bring indexes to their definitions with the least that is needed, on each kind of server."""

from dataclasses import replace
from typing import Any

import pytest
from pymongo import IndexModel
from pymongo.operations import SearchIndexModel

from mydocs.localserver import LocalServer
from mydocs.localserver.clock import ManualClock
from mydocs.localserver.search import Dialect, Generation
from mydocs.migrations import drop_search_indexes, ensure_indexes, ensure_search_indexes
from mydocs.migrations.driver.mongo import Database
from mydocs.migrations.errors import IndexConflict, IndexRefused, SearchUnavailable
from mydocs.migrations.indexes import search as indexes

pytestmark = pytest.mark.anyio

OLD: dict[str, Any] = {"mappings": {"dynamic": False, "fields": {"content": {"type": "string"}}}}
NEW: dict[str, Any] = {"mappings": {"dynamic": False, "fields": {"title": {"type": "string"}}}}
VECTOR: dict[str, Any] = {"fields": [{"type": "vector", "path": "v", "numDimensions": 3, "similarity": "cosine"}]}
EMBED: dict[str, Any] = {"fields": [{"type": "autoEmbed", "path": "t", "model": "voyage-3-large", "modality": "text"}]}
ON_WIRE = ("create", "createSearchIndexes", "updateSearchIndex", "dropSearchIndex")


def search(definition: dict[str, Any] | None = None, name: str = "ft", **options: Any) -> SearchIndexModel:
    return SearchIndexModel(definition=definition or OLD, name=name, **options)


def vector(definition: dict[str, Any] | None = None, name: str = "ft") -> SearchIndexModel:
    return search(definition or VECTOR, name, type="vectorSearch")


def configure(server: LocalServer, **changes: Any) -> None:
    server.search.settings = replace(server.search.settings, **changes)


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the helpers look again at once: what they wait for is the clock of the server, which a test moves."""
    monkeypatch.setattr(indexes, "GONE_GAP", 0.01)


@pytest.fixture(params=list(Dialect))
def dialect(request: pytest.FixtureRequest, local_server: LocalServer) -> Dialect:
    """Make the server one of each kind."""
    configure(local_server, dialect=request.param)
    found: Dialect = request.param
    return found


def changes_sent(server: LocalServer) -> list[str]:
    return [recorded.name for recorded in server.controls.counted() if recorded.name in ON_WIRE]


async def listed(db: Database, collection: str = "pages") -> dict[str, Any]:
    reply = await db.command({"aggregate": collection, "pipeline": [{"$listSearchIndexes": {}}], "cursor": {}})
    return {document["name"]: document for document in reply["cursor"]["firstBatch"]}


def version(document: dict[str, Any]) -> int:
    found: int = document.get("latestVersion", document.get("latestDefinitionVersion", {}).get("version"))
    return found


async def ensured(db: Database, *models: SearchIndexModel) -> list[str]:
    """Ensure models on `pages` and say what was done to each."""
    return [record.action.value for record in await ensure_search_indexes(db["pages"], models)]


# Search indexes


async def test_what_is_absent_is_created_with_its_collection(
    any_db: Database, dialect: Dialect, local_server: LocalServer
) -> None:
    assert await ensured(any_db, search(), vector(name="vec")) == ["created", "created"]
    found = await listed(any_db)
    assert {name: document["latestDefinition"] for name, document in found.items()} == {"ft": OLD, "vec": VECTOR}
    assert changes_sent(local_server) == ["createSearchIndexes", "create", "createSearchIndexes"]


async def test_what_is_there_is_left_alone_with_one_look_and_no_command_more(
    any_db: Database, dialect: Dialect, local_server: LocalServer
) -> None:
    await ensured(any_db, search(), vector(name="vec"))
    local_server.controls.clear()
    configure(local_server, fill_defaults=True)
    again = {"fields": [dict(reversed(VECTOR["fields"][0].items()))]}
    assert await ensured(any_db, search(), vector(again, name="vec")) == ["unchanged", "unchanged"]
    assert [recorded.name for recorded in local_server.controls.counted()] == ["aggregate"]


async def test_what_differs_is_updated_once(db: Database, dialect: Dialect, local_server: LocalServer) -> None:
    await ensured(db, search())
    local_server.controls.clear()
    assert await ensured(db, search(NEW)) == ["updated"]
    assert changes_sent(local_server) == ["updateSearchIndex"]
    document = (await listed(db))["ft"]
    assert (document["latestDefinition"], version(document)) == (NEW, 1)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param(search(), vector(), id="search to vector"),
        pytest.param(vector(), search(), id="vector to search"),
        pytest.param(
            vector(EMBED),
            vector({"fields": [EMBED["fields"][0] | {"model": "voyage-3.5"}]}),
            id="another embedding model",
        ),
        pytest.param(vector(), vector(EMBED), id="vector to embedding"),
    ],
)
async def test_what_an_update_cannot_change_is_dropped_and_created(
    db: Database, dialect: Dialect, local_server: LocalServer, before: SearchIndexModel, after: SearchIndexModel
) -> None:
    await ensured(db, before)
    old = (await listed(db))["ft"]
    local_server.controls.clear()
    (record,) = await ensure_search_indexes(db["pages"], [after])
    new = (await listed(db))["ft"]
    assert (record.action.value, record.id) == ("replaced", new["id"])
    assert new["id"] != old["id"]
    assert new["latestDefinition"] == after.document["definition"]
    assert changes_sent(local_server) == ["dropSearchIndex", "createSearchIndexes"]


async def test_a_vector_index_that_this_server_cannot_update_is_an_error_with_its_reason(
    db: Database, local_server: LocalServer
) -> None:
    await ensured(db, vector())
    configure(local_server, vector_updates=False)
    with pytest.raises(IndexRefused, match="mappings"):
        await ensured(db, vector({"fields": [VECTOR["fields"][0] | {"numDimensions": 4}]}))


async def test_one_bad_definition_of_several_is_named_and_the_others_are_created(
    any_db: Database, dialect: Dialect
) -> None:
    bad = search({"analyzer": "lucene.standard"}, "bad")
    with pytest.raises(IndexRefused, match="the server does not take index bad: ") as caught:
        await ensured(any_db, search(name="one"), bad, vector(name="two"))
    assert len(caught.value.problems) == 1
    assert set(await listed(any_db)) == {"one", "two"}


async def test_a_replacement_that_is_refused_says_that_the_old_index_is_gone(db: Database, dialect: Dialect) -> None:
    await ensured(db, search())
    bad = vector({"fields": [VECTOR["fields"][0] | {"numDimensions": 0}]})
    with pytest.raises(IndexRefused, match=r"the old index ft was dropped .* and serves no more") as caught:
        await ensured(db, bad)
    assert "the other indexes" not in str(caught.value)
    assert await listed(db) == {}
    with pytest.raises(IndexRefused, match=r"ft: .*the other indexes of the call were created") as caught:
        await ensured(db, bad, search(name="other"))
    assert "was dropped" not in str(caught.value)


async def test_a_full_cluster_is_an_error_that_says_what_to_do(db: Database, local_server: LocalServer) -> None:
    configure(local_server, quota=1)
    with pytest.raises(IndexRefused, match=r"no room for index two: .*maximum number.* larger cluster tier"):
        await ensured(db, search(name="one"), search(name="two"))
    assert set(await listed(db)) == {"one"}


async def test_one_name_twice_in_a_call_is_an_error_and_nothing_is_sent(
    db: Database, local_server: LocalServer
) -> None:
    with pytest.raises(IndexConflict, match="ft is asked for twice"):
        await ensured(db, search(), search(NEW))
    assert not local_server.controls.counted()


async def test_a_name_that_is_still_being_deleted_is_waited_for(
    db: Database, local_server: LocalServer, local_clock: ManualClock
) -> None:
    await ensured(db, search())
    local_server.search.outcome("ft", delete_seconds=3600)
    await drop_search_indexes(db["pages"], "ft")
    assert (await listed(db))["ft"]["status"] == "DELETING"
    tried = local_server.controls.call(
        lambda _: local_clock.advance(3600), at=2, command="createSearchIndexes", after=False
    )
    assert await ensured(db, search(NEW)) == ["created"]
    assert tried.fired == 1
    assert (await listed(db))["ft"]["latestDefinition"] == NEW


async def test_a_replacement_waits_until_the_old_index_is_gone(
    db: Database, local_server: LocalServer, local_clock: ManualClock
) -> None:
    await ensured(db, search())
    local_server.search.outcome("ft", delete_seconds=3600)
    local_server.controls.call(lambda _: local_clock.advance(3600), at=4, command="aggregate")
    assert await ensured(db, vector()) == ["replaced"]
    assert changes_sent(local_server)[-2:] == ["dropSearchIndex", "createSearchIndexes"]


@pytest.mark.parametrize("cut", ["cut_before", "cut_after"])
async def test_a_lost_reply_to_a_create_loses_no_index_and_makes_none_twice(
    any_db: Database, dialect: Dialect, local_server: LocalServer, cut: str
) -> None:
    await any_db.create_collection("pages")
    getattr(local_server.controls, cut)(command="createSearchIndexes")
    assert await ensured(any_db, search(), vector(name="vec")) == ["created", "created"]
    assert {name: version(document) for name, document in (await listed(any_db)).items()} == {"ft": 0, "vec": 0}


@pytest.mark.parametrize("cut", ["cut_before", "cut_after"])
async def test_a_lost_reply_to_an_update_does_not_build_the_index_twice(
    any_db: Database, dialect: Dialect, local_server: LocalServer, cut: str
) -> None:
    await ensured(any_db, search())
    getattr(local_server.controls, cut)(command="updateSearchIndex")
    assert await ensured(any_db, search(NEW)) == ["updated"]
    document = (await listed(any_db))["ft"]
    assert (document["latestDefinition"], version(document)) == (NEW, 1)


async def test_a_lost_reply_to_a_drop_is_a_drop(any_db: Database, dialect: Dialect, local_server: LocalServer) -> None:
    await ensured(any_db, search())
    local_server.controls.cut_after(command="dropSearchIndex")
    await drop_search_indexes(any_db["pages"], "ft")
    assert await listed(any_db) == {}


async def test_dropping_what_is_not_there_is_no_error(any_db: Database, dialect: Dialect) -> None:
    await drop_search_indexes(any_db["pages"], "ft")
    await ensured(any_db, search(name="other"))
    await drop_search_indexes(any_db["pages"], "ft", "other")
    assert await listed(any_db) == {}


async def test_dropping_what_is_being_deleted_is_no_error(db: Database, local_server: LocalServer) -> None:
    await ensured(db, search())
    local_server.search.outcome("ft", delete_seconds=3600)
    await drop_search_indexes(db["pages"], "ft")
    await drop_search_indexes(db["pages"], "ft")


@pytest.mark.parametrize("work", ["create", "update", "drop"])
async def test_a_search_process_that_is_starting_is_waited_for(
    any_db: Database, local_server: LocalServer, work: str
) -> None:
    await ensured(any_db, search())
    local_server.search.unreachable(3600)
    reached = local_server.controls.call(lambda _: local_server.search.unreachable(0), at=3)
    if work == "create":
        assert await ensured(any_db, search(name="other")) == ["created"]
    elif work == "update":
        assert await ensured(any_db, search(NEW)) == ["updated"]
    else:
        await drop_search_indexes(any_db["pages"], "ft")
    assert reached.fired == 1


@pytest.mark.parametrize("generation", list(Generation))
async def test_a_server_without_search_is_named_as_one(
    any_db: Database, local_server: LocalServer, generation: Generation
) -> None:
    await any_db.create_collection("pages")
    configure(local_server, enabled=False, generation=generation)
    for work in (ensured(any_db, search()), drop_search_indexes(any_db["pages"], "ft")):
        with pytest.raises(SearchUnavailable, match="no search indexes") as caught:
            await work
        assert caught.value.exit_code == 3


async def test_a_build_that_has_failed_is_tried_again_with_the_same_definition(
    db: Database, dialect: Dialect, local_server: LocalServer
) -> None:
    local_server.search.outcome("ft", fails="out of space")
    await ensured(db, search())
    assert (await listed(db))["ft"]["status"] == "FAILED"
    assert await ensured(db, search()) == ["replaced"]
    local_server.search.outcome("ft", fails=None)
    assert (await listed(db))["ft"]["status"] == "READY"


async def test_a_listing_that_is_too_large_is_read_one_by_one(db: Database, local_server: LocalServer) -> None:
    await ensured(db, search(), vector(name="vec"))
    configure(local_server, listing_too_large=True)
    assert await ensured(db, search(NEW), vector(name="vec")) == ["updated", "unchanged"]


# Standard indexes


async def standard(db: Database, *models: IndexModel) -> list[str]:
    return [record.action.value for record in await ensure_indexes(db["pages"], models)]


async def keys(db: Database) -> dict[str, Any]:
    return dict(await db["pages"].index_information())


async def test_absent_standard_indexes_are_built_in_one_command(any_db: Database, local_server: LocalServer) -> None:
    assert await standard(any_db, IndexModel("a"), IndexModel([("b", -1), ("c", 1)], unique=True)) == ["created"] * 2
    assert set(await keys(any_db)) == {"_id_", "a_1", "b_-1_c_1"}
    assert local_server.controls.counts()["createIndexes"] == 1
    local_server.controls.clear()
    assert await standard(any_db, IndexModel("a"), IndexModel([("b", -1), ("c", 1)], unique=True)) == ["unchanged"] * 2
    assert local_server.controls.counts() == {"listIndexes": 1}


async def test_an_index_under_another_name_counts_as_present(db: Database) -> None:
    await db["pages"].create_index("a", name="by_hand")
    assert await standard(db, IndexModel("a")) == ["unchanged"]
    assert set(await keys(db)) == {"_id_", "by_hand"}


@pytest.mark.parametrize(
    ("before", "after", "key", "value"),
    [
        pytest.param({"expireAfterSeconds": 60}, {"expireAfterSeconds": 90}, "expireAfterSeconds", 90, id="expiry"),
        pytest.param({}, {"expireAfterSeconds": 90}, "expireAfterSeconds", 90, id="expiry added"),
        pytest.param({}, {"hidden": True}, "hidden", True, id="hidden"),
        pytest.param({"hidden": True}, {}, "hidden", None, id="shown again"),
    ],
)
async def test_what_can_be_changed_in_place_is(
    db: Database, local_server: LocalServer, before: dict[str, Any], after: dict[str, Any], key: str, value: Any
) -> None:
    await db["pages"].create_index("a", **before)
    local_server.controls.clear()
    assert await standard(db, IndexModel("a", **after)) == ["updated"]
    assert (await keys(db))["a_1"].get(key) == value
    assert local_server.controls.counts().keys() <= {"listIndexes", "collMod"} | {"aggregate"}


@pytest.mark.parametrize(
    ("there", "asked", "says"),
    [
        pytest.param(
            IndexModel("a", unique=True), IndexModel("a"), "exists with other options .*unique", id="not unique again"
        ),
        pytest.param(IndexModel("a"), IndexModel("a", unique=True), "exists with other options .*unique", id="unique"),
        pytest.param(
            IndexModel("a", sparse=True), IndexModel("a"), "exists with other options .*sparse", id="other options"
        ),
        pytest.param(
            IndexModel("b", name="n"), IndexModel("a", name="n"), "index n exists with the key {b: 1}", id="other key"
        ),
    ],
)
async def test_an_index_that_stands_in_the_way_is_an_error_and_stays(
    db: Database, there: IndexModel, asked: IndexModel, says: str
) -> None:
    await db["pages"].create_indexes([there])
    before = await keys(db)
    with pytest.raises(IndexConflict, match=says) as caught:
        await standard(db, asked, IndexModel("z"))
    assert str(caught.value).startswith("pages: ")
    assert "dropIndex" in str(caught.value)
    assert await keys(db) == before


async def test_an_option_changes_in_place_only_where_nothing_else_of_the_call_is_in_the_way(db: Database) -> None:
    await db["pages"].create_indexes([IndexModel("a"), IndexModel("b", sparse=True)])
    with pytest.raises(IndexConflict):
        await standard(db, IndexModel("a", hidden=True), IndexModel("b"))
    assert "hidden" not in (await keys(db))["a_1"]


@pytest.mark.parametrize("cut", ["cut_before", "cut_after"])
async def test_a_lost_reply_to_a_build_joins_it(any_db: Database, local_server: LocalServer, cut: str) -> None:
    getattr(local_server.controls, cut)(command="createIndexes")
    assert await standard(any_db, IndexModel("a")) == ["created"]
    assert set(await keys(any_db)) == {"_id_", "a_1"}
