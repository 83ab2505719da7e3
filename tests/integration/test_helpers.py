"""The helpers bring indexes to their definitions with the least that is needed, on each kind of server."""

from dataclasses import replace
from threading import Barrier
from typing import Any

import pytest
from pymongo import IndexModel
from pymongo.errors import AutoReconnect, OperationFailure
from pymongo.operations import SearchIndexModel

from mydocs.localserver import LocalServer
from mydocs.localserver.clock import ManualClock
from mydocs.localserver.search import Dialect, Generation
from mydocs.migrations import drop_search_indexes, ensure_indexes, ensure_search_indexes, wait_until_ready
from mydocs.migrations.driver import commands
from mydocs.migrations.driver.client import Database
from mydocs.migrations.errors import IndexConflict, IndexRefused, MigrationError, SearchUnavailable
from mydocs.migrations.indexes import standard as standard_indexes

# Let the helpers look again at once: what they wait for is the clock of the server, which a test moves.
pytestmark = [pytest.mark.anyio, pytest.mark.limits(gone_gap=0.01)]

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


EMBED_CHANGES = {
    "another embedding model": {"model": "voyage-3.5"},
    "other dimensions": {"numDimensions": 256},
    "other bits": {"quantization": "binary"},
}
IMPOSSIBLE = [
    pytest.param(search(), vector(), id="search to vector"),
    pytest.param(vector(), search(), id="vector to search"),
]
REFUSED = [
    *(
        pytest.param(vector(EMBED), vector({"fields": [EMBED["fields"][0] | change]}), id=name)
        for name, change in EMBED_CHANGES.items()
    ),
    pytest.param(vector(EMBED), vector(), id="embedding to vector"),
]


@pytest.mark.parametrize(("before", "after"), IMPOSSIBLE)
async def test_an_index_of_another_type_stays_and_the_error_names_the_ways_on(
    any_db: Database, dialect: Dialect, local_server: LocalServer, before: SearchIndexModel, after: SearchIndexModel
) -> None:
    await ensured(any_db, before)
    old = await listed(any_db)
    local_server.controls.clear()
    with pytest.raises(IndexConflict, match=r"index ft is a .* another name.*switch_search_alias.*replace=True"):
        await ensured(any_db, search(name="before it"), after)
    assert changes_sent(local_server) == []
    assert await listed(any_db) == old


@pytest.mark.parametrize(("before", "after"), REFUSED)
async def test_an_index_whose_update_the_server_refuses_stays_and_the_error_names_the_ways_on(
    any_db: Database, local_server: LocalServer, before: SearchIndexModel, after: SearchIndexModel
) -> None:
    configure(local_server, dialect=Dialect.SELF_MANAGED)
    await ensured(any_db, before)
    old = await listed(any_db)
    local_server.controls.clear()
    says = r"does not update index ft: cannot .* another name.*switch_search_alias.*replace=True"
    with pytest.raises(IndexConflict, match=says):
        await ensured(any_db, after)
    assert changes_sent(local_server) == ["updateSearchIndex"]
    assert await listed(any_db) == old


@pytest.mark.parametrize("change", EMBED_CHANGES.values(), ids=EMBED_CHANGES)
async def test_a_field_that_embeds_by_itself_is_updated_where_the_server_does_so_and_never_dropped(
    any_db: Database, local_server: LocalServer, change: dict[str, Any]
) -> None:
    configure(local_server, dialect=Dialect.ATLAS)
    await ensured(any_db, vector(EMBED))
    old = (await listed(any_db))["ft"]
    assert old["queryable"]
    local_server.search.outcome("ft", build_seconds=3600.0)
    local_server.controls.clear()
    assert await ensured(any_db, vector({"fields": [EMBED["fields"][0] | change]})) == ["updated"]
    assert changes_sent(local_server) == ["updateSearchIndex"]
    found = (await listed(any_db))["ft"]
    assert (found["id"], found["queryable"]) == (old["id"], True)


async def test_a_vector_index_of_an_older_local_server_stays_and_the_error_names_the_ways_on(
    db: Database, local_server: LocalServer
) -> None:
    await ensured(db, vector())
    configure(local_server, vector_updates=False, dialect=Dialect.ATLAS_LOCAL)
    after = vector({"fields": [VECTOR["fields"][0] | {"numDimensions": 4}]})
    with pytest.raises(IndexConflict, match=r'"mappings" is required; nothing was dropped.*replace=True'):
        await ensured(db, after)
    (record,) = await ensure_search_indexes(db["pages"], [after], replace=True)
    assert record.action.value == "replaced"


@pytest.mark.parametrize(("before", "after"), [*IMPOSSIBLE, *REFUSED])
async def test_what_an_update_cannot_change_is_dropped_and_created_for_who_says_so(
    db: Database, local_server: LocalServer, before: SearchIndexModel, after: SearchIndexModel
) -> None:
    configure(local_server, dialect=Dialect.SELF_MANAGED)
    await ensured(db, before)
    old = (await listed(db))["ft"]
    local_server.controls.clear()
    (record,) = await ensure_search_indexes(db["pages"], [after], replace=True)
    new = (await listed(db))["ft"]
    assert (record.action.value, record.id) == ("replaced", new["id"])
    assert new["id"] != old["id"]
    assert new["latestDefinition"] == after.document["definition"]
    assert changes_sent(local_server)[-2:] == ["dropSearchIndex", "createSearchIndexes"]


async def test_who_says_so_has_no_more_dropped_than_needed(
    db: Database, dialect: Dialect, local_server: LocalServer
) -> None:
    await ensured(db, search(name="a"), search(name="b"))
    local_server.controls.clear()
    records = await ensure_search_indexes(db["pages"], [search(name="a"), search(NEW, name="b")], replace=True)
    assert [record.action.value for record in records] == ["unchanged", "updated"]
    assert changes_sent(local_server) == ["updateSearchIndex"]


async def test_an_update_whose_definition_is_wrong_is_refused_and_no_replacement_is_offered(
    db: Database, local_server: LocalServer
) -> None:
    await ensured(db, vector())
    bad = vector({"fields": [VECTOR["fields"][0] | {"numDimensions": 0}]})
    with pytest.raises(IndexRefused, match="does not take index ft"):
        await ensure_search_indexes(db["pages"], [bad], replace=True)
    assert "dropSearchIndex" not in changes_sent(local_server)


@pytest.mark.parametrize("after", [search(NEW), vector()])
async def test_an_index_that_serves_nothing_is_replaced_unasked(
    db: Database, dialect: Dialect, local_server: LocalServer, after: SearchIndexModel
) -> None:
    local_server.search.outcome("ft", fails="out of space")
    await ensured(db, search())
    assert (await listed(db))["ft"]["status"] == "FAILED"
    assert await ensured(db, after) == ["replaced"]


async def test_an_index_whose_update_has_failed_and_that_still_answers_is_never_replaced_unasked(
    db: Database, dialect: Dialect, local_server: LocalServer
) -> None:
    await ensured(db, search())
    assert (await listed(db))["ft"]["status"] == "READY"
    local_server.search.outcome("ft", fails="out of space")
    assert await ensured(db, search(NEW)) == ["updated"]
    found = (await listed(db))["ft"]
    assert (found["status"], found["queryable"]) == ("FAILED", True)
    with pytest.raises(IndexConflict):
        await ensured(db, vector())
    assert "dropSearchIndex" not in changes_sent(local_server)


# What is given


@pytest.mark.parametrize(
    ("given", "name", "kind"),
    [
        pytest.param({"name": "ft", "definition": OLD}, "ft", "search", id="search"),
        pytest.param({"definition": OLD}, "default", "search", id="without a name"),
        pytest.param({"name": "v", "definition": VECTOR}, "v", "vectorSearch", id="type told from the definition"),
        pytest.param({"name": "v", "type": "vectorSearch", "definition": VECTOR}, "v", "vectorSearch", id="vector"),
    ],
)
async def test_a_mapping_is_taken_like_a_model(any_db: Database, given: dict[str, Any], name: str, kind: str) -> None:
    (record,) = await ensure_search_indexes(any_db["pages"], [given])
    assert (record.name, record.type.value, record.action.value) == (name, kind, "created")
    assert set(await listed(any_db)) == {name}


@pytest.mark.parametrize(
    ("given", "says"),
    [
        pytest.param(search(), "one SearchIndexModel is not a list", id="one model"),
        pytest.param({"name": "ft", "definition": OLD}, "one dict is not a list", id="one mapping"),
        pytest.param("ft", "a str is not a list", id="a name"),
        pytest.param(None, "a NoneType is not a list", id="nothing"),
        pytest.param([None], "a NoneType is not a search index", id="list of nothing"),
        pytest.param(["ft"], "a str is not a search index", id="list of names"),
        pytest.param([IndexModel("a")], "a IndexModel is not a search index", id="standard index"),
        pytest.param([OLD], "a search index has no mappings", id="the definition itself"),
        pytest.param([{"name": "ft"}], "the definition of a search index is a mapping, not None", id="no definition"),
        pytest.param([{"name": 5, "definition": OLD}], "the name of a search index is a text", id="name"),
        pytest.param([{"type": "x", "definition": OLD}], "its type search or vectorSearch", id="type"),
        pytest.param([search(type="x")], "its type search or vectorSearch", id="type of a model"),
    ],
)
async def test_anything_else_is_an_error_that_says_what_to_pass(
    db: Database, local_server: LocalServer, given: Any, says: str
) -> None:
    with pytest.raises(MigrationError, match=says) as caught:
        await ensure_search_indexes(db["pages"], given)
    assert "pass a list of SearchIndexModel, or of mappings such as {'name': 'ft'" in str(caught.value)
    assert not local_server.controls.counted()


@pytest.mark.parametrize(
    ("given", "says"),
    [
        pytest.param(IndexModel("a"), "one IndexModel is not a list", id="one model"),
        pytest.param("a", "a str is not a list", id="a name"),
        pytest.param(["a"], "a str is not a standard index", id="list of names"),
        pytest.param([search()], "a SearchIndexModel is not a standard index", id="search index"),
    ],
)
async def test_anything_else_than_standard_indexes_is_an_error_that_says_what_to_pass(
    db: Database, local_server: LocalServer, given: Any, says: str
) -> None:
    with pytest.raises(MigrationError, match=f"{says}.*pass a list of pymongo.IndexModel"):
        await ensure_indexes(db["pages"], given)
    assert not local_server.controls.counted()


@pytest.mark.parametrize(
    "given",
    [
        pytest.param(lambda db: db, id="database"),
        pytest.param(lambda db: db.client, id="client"),
        pytest.param(lambda db: "pages", id="name"),
        pytest.param(lambda db: None, id="nothing"),
        pytest.param(lambda db: db.delegate["pages"], id="synchronous"),
    ],
)
async def test_anything_else_than_a_collection_is_an_error_that_says_what_to_pass(db: Database, given: Any) -> None:
    for work in (
        ensure_search_indexes(given(db), [search()]),
        ensure_indexes(given(db), [IndexModel("a")]),
        drop_search_indexes(given(db), "ft"),
        wait_until_ready(given(db), "ft"),
    ):
        with pytest.raises(MigrationError, match=r'is not a collection of Motor or PyMongo Async; .* db\["pages"\]'):
            await work


# Servers that refuse


@pytest.mark.limits(no_collection=0.1)
async def test_a_collection_that_the_server_never_finds_ends_in_its_own_words(
    db: Database, local_server: LocalServer
) -> None:
    local_server.controls.error(26, "Collection 'app.pages' does not exist.", command="createSearchIndexes", times=None)
    with pytest.raises(OperationFailure, match="does not exist"):
        await ensured(db, search(), vector(name="vec"))
    assert len(changes_sent(local_server)) < 40  # with pauses of 10, 20, 40 ms …


@pytest.mark.parametrize("code", [20, 8000])
@pytest.mark.parametrize("count", [1, 3])
async def test_a_full_cluster_is_told_at_once_whatever_its_code(
    any_db: Database, local_server: LocalServer, code: int, count: int
) -> None:
    await any_db.create_collection("pages")
    full = "The maximum number of FTS indexes has been reached for this instance size."
    local_server.controls.error(code, full, command="createSearchIndexes", times=None)
    with pytest.raises(IndexRefused, match=r"no room for index s0: The maximum number .* larger cluster tier"):
        await ensured(any_db, *(search(name=f"s{number}") for number in range(count)))
    assert local_server.controls.counts()["createSearchIndexes"] == (1 if count == 1 else count + 1)


@pytest.mark.parametrize(
    ("code", "text", "command"),
    [
        pytest.param(
            8000,
            "$listSearchIndexes is not allowed or the syntax is incorrect, see the Atlas documentation",
            "aggregate",
            id="listing",
        ),
        pytest.param(59, "command not found", "createSearchIndexes", id="create"),
    ],
)
async def test_no_search_in_the_words_of_atlas_is_named_as_such(
    any_db: Database, local_server: LocalServer, code: int, text: str, command: str
) -> None:
    local_server.controls.error(code, text, command=command, times=None)
    with pytest.raises(SearchUnavailable, match="no search indexes") as caught:
        await ensured(any_db, search())
    assert caught.value.exit_code == 3


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
    with pytest.raises(IndexRefused, match=r"the old index ft was dropped .* and no longer serves") as caught:
        await ensure_search_indexes(db["pages"], [bad], replace=True)
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
    await ensure_search_indexes(db["pages"], [vector()], replace=True)
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


@pytest.mark.limits(retries=0.0)
async def test_a_build_that_is_cut_off_again_and_again_ends(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    tries = 0

    async def cut(*_: object) -> None:
        nonlocal tries
        tries += 1
        raise AutoReconnect("connection closed")

    monkeypatch.setattr(commands, "command_again", cut)
    with pytest.raises(AutoReconnect):
        await standard(db, IndexModel("a"))
    assert tries == standard_indexes.BUILD_TRIES


# Several collections at the same time


async def test_a_mapping_of_collections_is_worked_on_at_the_same_time(
    any_db: Database, local_server: LocalServer
) -> None:
    names = [f"c{number}" for number in range(4)]
    both = Barrier(2, timeout=10)  # two creates at once, or none gets on
    local_server.controls.call(lambda _: both.wait(), command="createSearchIndexes", times=4)
    for name in names:
        await any_db.create_collection(name)
    records = await ensure_search_indexes({any_db[name]: [search(), vector(name="vec")] for name in names})
    assert [str(record) for record in records] == [f"{name}.{index}" for name in names for index in ("ft", "vec")]
    assert {record.action.value for record in records} == {"created"}
    for name in names:
        assert set(await listed(any_db, name)) == {"ft", "vec"}


async def test_a_collection_that_fails_keeps_the_others_from_nothing(any_db: Database) -> None:
    bad = search({"analyzer": "lucene.standard"}, "bad")
    with pytest.raises(IndexRefused, match=r"^a: the server does not take index bad"):
        await ensure_search_indexes({any_db["a"]: [bad], any_db["b"]: [search()]})
    assert set(await listed(any_db, "b")) == {"ft"}


async def test_a_mapping_of_collections_is_taken_for_standard_indexes_too(any_db: Database) -> None:
    records = await ensure_indexes({any_db["a"]: [IndexModel("x")], any_db["b"]: [IndexModel("y", unique=True)]})
    assert [str(record) for record in records] == ["a.x_1", "b.y_1"]
    assert set(await any_db["b"].index_information()) == {"_id_", "y_1"}


async def test_a_mapping_with_something_else_is_an_error_before_anything_is_sent(
    db: Database, local_server: LocalServer
) -> None:
    with pytest.raises(MigrationError, match="a str is not a collection"):
        await ensure_search_indexes({db["a"]: [search()], "b": [search()]})  # type: ignore[dict-item]  # on purpose
    with pytest.raises(MigrationError, match="more were given"):
        await ensure_search_indexes({db["a"]: [search()]}, [search()])
    with pytest.raises(MigrationError, match="ft is asked for twice"):
        await ensure_search_indexes({db["a"]: [search()], db["b"]: [search(), search()]})
    with pytest.raises(MigrationError, match="one IndexModel is not a list"):
        await ensure_indexes({db["a"]: IndexModel("x")})  # type: ignore[dict-item]  # on purpose
    assert not local_server.controls.counted()
