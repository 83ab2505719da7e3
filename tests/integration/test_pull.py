"""Live indexes become a script that changes nothing where it runs, and the ledger knows them once it has."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from motor.motor_asyncio import AsyncIOMotorClient, AsyncIOMotorDatabase
from pymongo import ASCENDING, DESCENDING, IndexModel
from pymongo.operations import SearchIndexModel

from mydocs.localserver import LocalServer
from mydocs.localserver.search import SearchSettings
from mydocs.localserver.search.settings import Dialect
from mydocs.migrations import (
    MigrationState,
    UsageError,
    WorkLeft,
    check,
    ensure_search_indexes,
    migrate,
    pull,
    status,
)
from mydocs.migrations.driver.client import Database

pytestmark = pytest.mark.anyio

STANDARD = [
    IndexModel([("status", ASCENDING), ("at", DESCENDING)]),
    IndexModel([("sku", ASCENDING)], name="sku", unique=True, sparse=True),
    IndexModel([("seen", ASCENDING)], expireAfterSeconds=3600),
    IndexModel([("n", ASCENDING)], partialFilterExpression={"n": {"$gt": 5}}, hidden=True),
]
SEARCH = SearchIndexModel(
    name="ft",
    definition={
        "analyzer": "lucene.french",
        "mappings": {
            "dynamic": False,
            "fields": {
                "title": [{"type": "string", "analyzer": "lucene.english"}, {"type": "autocomplete", "maxGrams": 9}],
                "meta": {"type": "document", "fields": {"tag": {"type": "token"}}},
            },
        },
        "storedSource": {"include": ["title"]},
    },
)
EVERYTHING = SearchIndexModel(name="all", definition={"mappings": {"dynamic": True}})
VECTOR = SearchIndexModel(
    name="vec",
    type="vectorSearch",
    definition={
        "fields": [
            {"type": "vector", "path": "e", "numDimensions": 3, "similarity": "cosine", "quantization": "scalar"},
            {"type": "filter", "path": "tag"},
        ]
    },
)


@pytest.fixture(
    params=[(dialect, fill) for dialect in Dialect for fill in (False, True)],
    ids=lambda p: f"{p[0]}{'-filled' if p[1] else ''}",
)
async def live(request: pytest.FixtureRequest) -> AsyncIterator[AsyncIOMotorDatabase[dict[str, Any]]]:
    """A database on a server of each dialect that has indexes of every kind, made by hand."""
    dialect, fill = request.param
    settings = SearchSettings(
        dialect=dialect, fill_defaults=fill, pending_seconds=0.0, build_seconds=0.0, delete_seconds=0.0
    )
    with LocalServer(search=settings) as server:
        client: AsyncIOMotorClient[dict[str, Any]] = AsyncIOMotorClient(server.url, tz_aware=True)
        try:
            db = client["app"]
            await db["orders"].create_indexes(STANDARD)
            await db["notes"].insert_one({"_id": 1})
            await db["notes"].create_search_indexes([SEARCH, EVERYTHING, VECTOR])
            yield db
        finally:
            client.close()


async def listed(db: AsyncIOMotorDatabase[dict[str, Any]]) -> dict[str, Any]:
    """Everything that a change of an index would show in."""
    found: dict[str, Any] = {"orders": await db["orders"].list_indexes().to_list(None)}
    for document in await db["notes"].aggregate([{"$listSearchIndexes": {}}]).to_list(None):
        found[document["name"]] = (document["id"], document["latestDefinition"], document["status"])
    return found


async def test_running_what_was_written_changes_nothing(
    live: AsyncIOMotorDatabase[dict[str, Any]], folder: Path
) -> None:
    before = await listed(live)
    report = await pull(live, directory=folder, standard_indexes={})
    assert report.path == folder / "001_live_indexes.py"
    assert report.path.read_text() == report.text
    assert {str(index) for index in report.indexes} == {
        *(f"orders.{model.document['name']}" for model in STANDARD),
        *("notes.ft", "notes.all", "notes.vec"),
    }
    ran = await migrate(live, directory=folder, standard_indexes={}, wait=True)
    assert ran.migrations[0].state is MigrationState.APPLIED
    assert await listed(live) == before
    entry = await live["_migrations"].find_one()
    assert entry is not None
    assert {index["action"] for index in entry["indexes"]} == {"unchanged"}
    assert len(entry["indexes"]) == len(STANDARD) + 3
    await check(live, directory=folder, standard_indexes={})
    again = await pull(live, directory=folder, standard_indexes={})
    assert (again.path, again.indexes) == (None, ())


async def test_adopted_indexes_are_known_at_once(live: AsyncIOMotorDatabase[dict[str, Any]], folder: Path) -> None:
    before = await listed(live)
    report = await pull(live, adopt=True, directory=folder, standard_indexes={})
    assert report.state is MigrationState.APPLIED
    assert await listed(live) == before
    await check(live, directory=folder, standard_indexes={})
    shown = await status(live, directory=folder, standard_indexes={})
    assert [m.state for m in shown.migrations] == [MigrationState.APPLIED]
    assert len(shown.indexes) == len(STANDARD) + 3
    (record, *_) = await ensure_search_indexes(live["notes"], [SEARCH])
    assert record.action == "unchanged"
    assert (await migrate(live, directory=folder, standard_indexes={}, wait=True)).migrations == ()
    await live["orders"].drop_index("sku")
    with pytest.raises(WorkLeft, match=r"orders\.sku is absent"):
        await check(live, directory=folder, standard_indexes={})
    difference = await pull(live, diff=True, directory=folder, standard_indexes={})
    assert difference.differences == ("orders.sku: asked for, and not live",)


async def test_what_is_written_is_written_without_what_servers_fill_in(
    live: AsyncIOMotorDatabase[dict[str, Any]], folder: Path
) -> None:
    text = (await pull(live, directory=folder, standard_indexes={})).text
    assert 'IndexModel([("status", ASCENDING), ("at", DESCENDING)])' in text
    assert 'definition={"mappings": {"dynamic": True}}' in text
    for filled in ("indexOptions", "norms", "representation", "numPartitions", "minGrams"):
        assert filled not in text


async def test_named_collections_only(db: Database, folder: Path) -> None:
    await db["a"].create_index("x")
    await db["b"].create_index("x")
    report = await pull(db, "b", directory=folder)
    assert [str(index) for index in report.indexes] == ["b.x_1"]
    with pytest.raises(UsageError, match="no collection c in app"):
        await pull(db, "b", "c", directory=folder)


async def test_standard_indexes_of_the_project_are_accounted_for(db: Database, folder: Path) -> None:
    models = {"a": [IndexModel([("x", ASCENDING)])]}
    await db["a"].create_index("x", name="another_name")
    await db["a"].create_index("y")
    report = await pull(db, directory=folder, standard_indexes=models)
    assert [str(index) for index in report.indexes] == ["a.y_1"]


async def test_differences_are_said_by_key_and_nothing_is_written(
    db: Database, folder: Path, write: Callable[[str, str], Path]
) -> None:
    write(
        "001_indexes.py",
        """
        from pymongo.operations import SearchIndexModel
        from mydocs.migrations import ensure_search_indexes

        async def up(db):
            await db.notes.create_index("x", expireAfterSeconds=60)
            model = SearchIndexModel(name="ft", definition={"mappings": {"dynamic": False}})
            await ensure_search_indexes(db.notes, [model])
        """,
    )
    await migrate(db, directory=folder, standard_indexes={})
    await db.command({"collMod": "notes", "index": {"name": "x_1", "expireAfterSeconds": 90}})
    await db["notes"].update_search_index("ft", {"mappings": {"dynamic": True}})
    await db["notes"].create_index("y")
    report = await pull(db, diff=True, directory=folder, standard_indexes={})
    assert report.differences == (
        "notes.ft: mappings.dynamic: asked False, live True",
        "notes.x_1: expireAfterSeconds: asked 60, live 90",
        "notes.y_1: live, and no migration asked for it",
    )
    assert report.path is None
    assert not (folder / "002_live_indexes.py").exists()
    with pytest.raises(UsageError, match="nothing to adopt"):
        await pull(db, diff=True, adopt=True, directory=folder)


async def test_a_server_without_search_has_its_standard_indexes_written(folder: Path) -> None:
    with LocalServer(search=SearchSettings(enabled=False)) as server:
        client: AsyncIOMotorClient[dict[str, Any]] = AsyncIOMotorClient(server.url)
        await client["app"]["a"].create_index("x")
        report = await pull(client["app"], directory=folder)
        assert [str(index) for index in report.indexes] == ["a.x_1"]
        client.close()
