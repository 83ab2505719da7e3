"""The ledger names every search index that a script touched, however the script did so."""

import textwrap
from pathlib import Path
from typing import Any

import pytest
from motor.motor_asyncio import AsyncIOMotorDatabase

from mydocs.localserver import LocalServer
from mydocs.migrations import MigrationFailed, migrate, wait_for_indexes
from mydocs.migrations.limits import Limits, limited_to
from mydocs.migrations.reporting.events import Event, IndexDefined, Warned

Db = AsyncIOMotorDatabase[dict[str, Any]]

ASYNC = """
    from pymongo.operations import SearchIndexModel
    from mydocs.migrations import drop_search_indexes, ensure_search_indexes
    OLD = {"mappings": {"dynamic": False}}
    NEW = {"mappings": {"dynamic": True}}
    VECTOR = {"fields": [{"type": "vector", "path": "v", "numDimensions": 3, "similarity": "cosine"}]}
    async def up(db):
        pages = db["pages"]
"""
PLAIN = """
    from lightodm import get_database
    from pymongo.operations import SearchIndexModel
    OLD = {"mappings": {"dynamic": False}}
    NEW = {"mappings": {"dynamic": True}}
    pages = get_database()["pages"]
"""
FT = ("pages", "ft", "search")


def script(start: str, *lines: str) -> str:
    """Put lines behind a start, as deep as its last line."""
    text = textwrap.dedent(start).rstrip("\n")
    indent = "    " if "async def" in start else ""
    return text + "\n" + "".join(f"{indent}{line}\n" for line in lines)


async def recorded(db: Db, folder: Path, text: str) -> list[tuple[str, str, str, str, Any]]:
    """Run a script and read which indexes its ledger entry names."""
    (folder / "001_a.py").write_text(text)
    if "pages" not in await db.list_collection_names():
        await db.create_collection("pages")
    try:
        await migrate(db, directory=folder, standard_indexes={})
    except MigrationFailed:
        assert "raise" in text
    entry = await db["_migrations"].find_one({"_id": "001"})
    assert entry is not None
    return [(i["collection"], i["name"], i["type"], i["action"], i["definition"]) for i in entry["indexes"]]


OLD, NEW = {"mappings": {"dynamic": False}}, {"mappings": {"dynamic": True}}
VECTOR = {"fields": [{"type": "vector", "path": "v", "numDimensions": 3, "similarity": "cosine"}]}
CREATE = "pages.create_search_index(model=SearchIndexModel(name='ft', definition=OLD))"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(
            script(ASYNC, "await ensure_search_indexes(pages, [SearchIndexModel(name='ft', definition=OLD)])"),
            [(*FT, "created", OLD)],
            id="helper",
        ),
        pytest.param(script(ASYNC, f"await {CREATE}"), [(*FT, "created", OLD)], id="Motor"),
        pytest.param(script(PLAIN, CREATE), [(*FT, "created", OLD)], id="lightodm in a thread"),
        pytest.param(
            script(
                ASYNC,
                "await db.command({'createSearchIndexes': 'pages', 'indexes': [{'name': 'ft', 'definition': OLD}]})",
            ),
            [(*FT, "created", OLD)],
            id="db.command",
        ),
        pytest.param(
            script(ASYNC, "await db.command({'createSearchIndexes': 'pages', 'indexes': [{'definition': OLD}]})"),
            [("pages", "default", "search", "created", OLD)],
            id="without a name",
        ),
        pytest.param(
            script(
                ASYNC,
                "await db.create_collection('other')",
                "await db['other'].create_search_indexes([",
                "    SearchIndexModel(name='ft', definition=OLD),",
                "    SearchIndexModel(name='vec', type='vectorSearch', definition=VECTOR)])",
            ),
            [("other", "ft", "search", "created", OLD), ("other", "vec", "vectorSearch", "created", VECTOR)],
            id="two on another collection",
        ),
        pytest.param(
            script(ASYNC, f"await {CREATE}", "await pages.update_search_index('ft', NEW)"),
            [(*FT, "updated", NEW)],
            id="created and updated is updated: the listing may still show what was there before",
        ),
        pytest.param(
            script(ASYNC, f"await {CREATE}", "await pages.drop_search_index('ft')"),
            [(*FT, "dropped", None)],
            id="created and dropped is dropped",
        ),
        pytest.param(
            script(
                ASYNC,
                f"await {CREATE}",
                "found = await pages.aggregate([{'$listSearchIndexes': {}}]).to_list(None)",
                "await db.command({'updateSearchIndex': 'pages', 'id': found[0]['id'], 'definition': NEW})",
            ),
            [(*FT, "updated", NEW)],
            id="updated by its id",
        ),
        pytest.param(script(ASYNC, "await db['runs'].insert_one({})"), [], id="none"),
        pytest.param(
            script(ASYNC, *2 * ["await ensure_search_indexes(pages, [SearchIndexModel(name='ft', definition=OLD)])"]),
            [(*FT, "created", OLD)],
            id="created and found again is created",
        ),
        pytest.param(
            script(
                ASYNC,
                f"await {CREATE}",
                "await db.client['elsewhere'].create_collection('p')",
                "await db.client['elsewhere']['p'].create_search_index(SearchIndexModel(name='x', definition=OLD))",
            ),
            [(*FT, "created", OLD)],
            id="another database is not ours",
        ),
        pytest.param(
            script(ASYNC, f"await {CREATE}", "raise ValueError"),
            [(*FT, "created", OLD)],
            id="a script that fails afterwards",
        ),
        pytest.param(
            script(
                ASYNC,
                "try:",
                "    await db['absent'].create_search_index(SearchIndexModel(name='ft', definition=OLD))",
                "except Exception:",
                "    pass",
            ),
            [],
            id="a command that fails does not count",
        ),
    ],
)
@pytest.mark.anyio
async def test_an_index_is_recorded_however_it_was_made(
    local_db: Db, tmp_path: Path, text: str, expected: list[Any]
) -> None:
    assert await recorded(local_db, tmp_path, text) == expected


@pytest.mark.parametrize(
    ("text", "action", "definition"),
    [
        pytest.param(script(ASYNC, "await pages.update_search_index('ft', NEW)"), "updated", NEW, id="Motor"),
        pytest.param(script(PLAIN, "pages.update_search_index('ft', NEW)"), "updated", NEW, id="lightodm"),
        pytest.param(script(PLAIN, "pages.drop_search_index('ft')"), "dropped", None, id="dropped"),
        pytest.param(script(ASYNC, "await drop_search_indexes(pages, 'ft')"), "dropped", None, id="dropped by helper"),
        pytest.param(
            script(ASYNC, "await ensure_search_indexes(pages, [SearchIndexModel(name='ft', definition=OLD)])"),
            *("unchanged", OLD),
            id="found as it should be",
        ),
        pytest.param(
            script(ASYNC, "await ensure_search_indexes(pages, [SearchIndexModel(name='ft', definition=NEW)])"),
            *("updated", NEW),
            id="updated by helper",
        ),
        pytest.param(
            script(
                ASYNC,
                "await ensure_search_indexes(pages, [",
                "    SearchIndexModel(name='ft', type='vectorSearch', definition=VECTOR)], replace=True)",
            ),
            *("replaced", VECTOR),
            id="replaced by helper",
        ),
    ],
)
@pytest.mark.anyio
async def test_what_was_done_to_an_index_of_an_earlier_run_is_recorded(
    local_db: Db, local_server: LocalServer, tmp_path: Path, text: str, action: str, definition: Any
) -> None:
    await local_db.create_collection("pages")
    local_server.search.outcome("ft", delete_seconds=0.0)
    await local_db.command({"createSearchIndexes": "pages", "indexes": [{"name": "ft", "definition": OLD}]})
    ((_, name, _, told, asked),) = await recorded(local_db, tmp_path, text)
    assert (name, told, asked) == ("ft", action, definition)


@pytest.mark.parametrize("cut", ["cut_before", "cut_after"])
@pytest.mark.parametrize(
    ("command", "model", "action", "definition"),
    [
        pytest.param("createSearchIndexes", "name='new', definition=OLD", "created", OLD, id="create"),
        pytest.param("updateSearchIndex", "name='ft', definition=NEW", "updated", NEW, id="update"),
        pytest.param("dropSearchIndex", None, "dropped", None, id="drop"),
    ],
)
@pytest.mark.anyio
async def test_a_lost_reply_is_recorded_as_what_it_turns_out_to_be(
    local_db: Db,
    local_server: LocalServer,
    tmp_path: Path,
    cut: str,
    command: str,
    model: str | None,
    action: str,
    definition: Any,
) -> None:
    await local_db.create_collection("pages")
    await local_db.command({"createSearchIndexes": "pages", "indexes": [{"name": "ft", "definition": OLD}]})
    getattr(local_server.controls, cut)(command=command)
    text = "await drop_search_indexes(pages, 'ft')"
    if model is not None:
        text = f"await ensure_search_indexes(pages, [SearchIndexModel({model})])"
    ((_, _, _, told, asked),) = await recorded(local_db, tmp_path, script(ASYNC, text))
    assert (told, asked) == (action, definition)


@pytest.mark.parametrize("model", ["name='new', definition=OLD", "name='ft', definition=NEW"])
@pytest.mark.anyio
async def test_a_reply_that_never_comes_is_recorded_as_what_it_turns_out_to_be(
    local_db: Db, local_server: LocalServer, tmp_path: Path, model: str
) -> None:
    await local_db.create_collection("pages")
    await local_db.command({"createSearchIndexes": "pages", "indexes": [{"name": "ft", "definition": OLD}]})
    command = "createSearchIndexes" if "new" in model else "updateSearchIndex"
    local_server.controls.hang(command=command, after=True)
    text = f"await ensure_search_indexes(pages, [SearchIndexModel({model})])"
    with limited_to(Limits(answer=0.5)):
        ((*_, told, _),) = await recorded(local_db, tmp_path, script(ASYNC, text))
    assert told == ("created" if "new" in model else "updated")


@pytest.mark.anyio
async def test_a_lost_reply_to_the_create_of_a_replacement_leaves_it_one_and_its_id_known(
    local_db: Db, local_server: LocalServer, tmp_path: Path
) -> None:
    await local_db.create_collection("pages")
    local_server.search.outcome("ft", delete_seconds=0.0)
    await local_db.command({"createSearchIndexes": "pages", "indexes": [{"name": "ft", "definition": OLD}]})
    local_server.controls.cut_after(command="createSearchIndexes")
    model = "SearchIndexModel(name='ft', type='vectorSearch', definition=VECTOR)"
    text = script(ASYNC, f"await ensure_search_indexes(pages, [{model}], replace=True)")
    assert await recorded(local_db, tmp_path, text) == [("pages", "ft", "vectorSearch", "replaced", VECTOR)]
    report = await wait_for_indexes(local_db, timeout=10)
    assert [index.state for index in report.indexes] == ["ready"]


@pytest.mark.parametrize("text", ["await pages.drop_search_index('vec')", "await drop_search_indexes(pages, 'vec')"])
@pytest.mark.anyio
async def test_an_index_that_is_dropped_keeps_its_type(local_db: Db, tmp_path: Path, text: str) -> None:
    model = "SearchIndexModel(name='vec', type='vectorSearch', definition=VECTOR)"
    await recorded(local_db, tmp_path, script(ASYNC, f"await ensure_search_indexes(pages, [{model}])"))
    (tmp_path / "002_drops.py").write_text(script(ASYNC, text))
    await migrate(local_db, directory=tmp_path, standard_indexes={})
    entry = await local_db["_migrations"].find_one({"_id": "002"})
    assert entry is not None
    assert [(i["name"], i["type"], i["action"]) for i in entry["indexes"]] == [("vec", "vectorSearch", "dropped")]


@pytest.mark.anyio
async def test_what_a_failed_attempt_has_made_stays_made_when_the_next_one_finds_it(
    local_db: Db, tmp_path: Path
) -> None:
    lines = ["await ensure_search_indexes(pages, [SearchIndexModel(name='ft', definition=OLD)])", "raise ValueError"]
    await recorded(local_db, tmp_path, script(ASYNC, *lines))
    assert await recorded(local_db, tmp_path, script(ASYNC, *lines[:1])) == [(*FT, "created", OLD)]


@pytest.mark.anyio
async def test_a_drop_of_what_is_not_there_is_not_told(local_db: Db, tmp_path: Path) -> None:
    (tmp_path / "001_drops.py").write_text(script(ASYNC, "await drop_search_indexes(pages, 'nope')"))
    seen: list[Event] = []
    await migrate(local_db, directory=tmp_path, standard_indexes={}, on_event=seen.append)
    assert not [event for event in seen if isinstance(event, IndexDefined)]


@pytest.mark.anyio
async def test_an_update_that_the_driver_lets_pass_on_a_missing_collection_is_a_warning(
    local_db: Db, tmp_path: Path
) -> None:
    (tmp_path / "001_updates.py").write_text(script(ASYNC, "await db['absent'].update_search_index('ft', NEW)"))
    seen: list[Event] = []
    await migrate(local_db, directory=tmp_path, standard_indexes={}, on_event=seen.append)
    entry = await local_db["_migrations"].find_one({"_id": "001"})
    assert entry is not None
    assert entry["indexes"] == []
    (warning,) = [event for event in seen if isinstance(event, Warned)]
    assert "updateSearchIndex on absent" in warning.message


INDEX = "await ensure_search_indexes(pages, [SearchIndexModel(name='ft', definition=OLD)])"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(script(ASYNC, "await pages.drop()"), [(*FT, "dropped", None)], id="dropped"),
        pytest.param(script(PLAIN, "pages.drop()"), [(*FT, "dropped", None)], id="dropped by lightodm"),
        pytest.param(script(ASYNC, "await db.command({'drop': 'pages'})"), [(*FT, "dropped", None)], id="db.command"),
        pytest.param(script(ASYNC, "await db['other'].drop()"), [], id="another one"),
        pytest.param(
            script(ASYNC, "await db.client['elsewhere'].drop_collection('pages')"), [], id="of another database"
        ),
        pytest.param(
            script(ASYNC, "await pages.rename('new')"),
            [(*FT, "dropped", None), ("new", "ft", "search", "unchanged", OLD)],
            id="renamed",
        ),
        pytest.param(
            script(ASYNC, "await db['new'].insert_one({})", "await db['new'].rename('pages', dropTarget=True)"),
            [(*FT, "dropped", None)],
            id="overwritten by another one",
        ),
        pytest.param(
            script(
                ASYNC,
                "await db.client.admin.command({'renameCollection': db.name + '.pages', 'to': 'elsewhere.pages'})",
            ),
            [(*FT, "dropped", None)],
            id="moved to another database",
        ),
        pytest.param(
            script(ASYNC, "await pages.drop()", "await db.create_collection('pages')", f"await {CREATE}"),
            [(*FT, "replaced", OLD)],
            id="dropped and made again",
        ),
    ],
)
@pytest.mark.anyio
async def test_search_indexes_share_the_fate_of_their_collection(
    local_db: Db, tmp_path: Path, text: str, expected: list[Any]
) -> None:
    (tmp_path / "001_a.py").write_text(script(ASYNC, INDEX))
    await migrate(local_db, directory=tmp_path, standard_indexes={})
    (tmp_path / "002_b.py").write_text(text)
    await migrate(local_db, directory=tmp_path, standard_indexes={})
    entry = await local_db["_migrations"].find_one({"_id": "002"})
    assert entry is not None
    assert [(i["collection"], i["name"], i["type"], i["action"], i["definition"]) for i in entry["indexes"]] == expected
    report = await wait_for_indexes(local_db, timeout=10)
    there = {
        (name, document["name"])
        for name in await local_db.list_collection_names()
        async for document in local_db[name].aggregate([{"$listSearchIndexes": {}}])
    }
    assert {(index.collection, index.name) for index in report.indexes} == there


async def warned(db: Db, folder: Path, text: str) -> tuple[list[Any], list[str]]:
    """What is recorded of a script, and what it is warned of."""
    seen: list[Event] = []
    (folder / "001_a.py").write_text(text)
    await migrate(db, directory=folder, standard_indexes={}, on_event=seen.append)
    entry = await db["_migrations"].find_one({"_id": "001"})
    assert entry is not None
    return entry["indexes"], [event.message for event in seen if isinstance(event, Warned)]


@pytest.mark.anyio
async def test_a_helper_on_another_database_is_not_recorded_and_says_so(local_db: Db, tmp_path: Path) -> None:
    more = script(
        ASYNC,
        "pages = db.client['other']['pages']",
        INDEX,
        "await wait_until_ready(pages, 'ft')",
    ).replace("import drop", "import wait_until_ready, drop")
    indexes, messages = await warned(local_db, tmp_path, more)
    assert indexes == []
    (message,) = messages
    assert message.startswith(f"pages.ft was created in the database other, and this run is on {local_db.name}: ")


@pytest.mark.parametrize(
    "command",
    [
        pytest.param("{'updateSearchIndex': 'pages', 'id': INDEX_ID, 'definition': NEW}", id="update"),
        pytest.param("{'dropSearchIndex': 'pages', 'id': INDEX_ID}", id="drop"),
    ],
)
@pytest.mark.anyio
async def test_a_command_by_an_id_that_the_script_never_saw_is_warned_of(
    local_db: Db, tmp_path: Path, command: str
) -> None:
    await local_db.create_collection("pages")
    made = await local_db.command({"createSearchIndexes": "pages", "indexes": [{"name": "ft", "definition": OLD}]})
    index_id = made["indexesCreated"][0]["id"]
    text = script(ASYNC, f"await db.command({command.replace('INDEX_ID', repr(index_id))})")
    indexes, (message,) = await warned(local_db, tmp_path, text)
    assert indexes == []
    assert f"on pages by the id {index_id}, which this script has not listed" in message


@pytest.mark.anyio
async def test_the_client_of_the_application_keeps_no_listener_of_ours(local_db: Db, tmp_path: Path) -> None:
    listeners = local_db.client.delegate.options.pool_options._event_listeners  # noqa: SLF001
    await recorded(local_db, tmp_path, script(PLAIN, CREATE))
    assert not any(listeners.event_listeners())
    assert not listeners.enabled_for_commands
