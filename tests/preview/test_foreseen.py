"""What a plan foretells of generated scripts is what a run then does on another server, effect by effect."""

import random
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio.to_thread
import pytest
from motor.motor_asyncio import AsyncIOMotorClient, AsyncIOMotorDatabase
from pymongo import MongoClient
from pymongo.database import Database
from pymongo.operations import SearchIndexModel

from mydocs.localserver import LocalServer
from mydocs.localserver.search import SearchSettings
from mydocs.migrations import migrate, plan
from mydocs.migrations.reporting.plan_report import Effect, EffectKind
from mydocs.preview.catalogue import Catalogue, catalogue_effects
from mydocs.preview.copy import LocalCopy, Recorder
from mydocs.preview.record import read_record

pytestmark = pytest.mark.anyio

DOCUMENTS = 40
PLAIN_HEAD = """
import lightodm
MAPPED = {"mappings": {"dynamic": True}}
db = lightodm.get_database()
"""
IMPORTS = """
from pymongo.operations import SearchIndexModel
from mydocs.migrations import *
MAPPED = {"mappings": {"dynamic": True}}
"""
# Each with {c}, a collection of its own, and {g}, one of four groups that all of its documents fall into.
ASYNC = [
    'await db.{c}.update_many({{"g": {g}}}, {{"$set": {{"new": 1}}}})',
    'await db.{c}.update_many({{}}, {{"$rename": {{"n": "number"}}}})',
    'await db.{c}.update_one({{"g": {g}}}, {{"$set": {{"new": 1}}}})',
    '[await db.{c}.update_one({{"_id": d["_id"]}}, {{"$set": {{"new": 1}}}}) async for d in db.{c}.find({{"g": {g}}})]',
    'await transform(db.{c}, {{"g": {g}, "new": {{"$exists": False}}}}, lambda d: {{"$set": {{"new": d["n"]}}}})',
    'await unset_field(db.{c}, "n")',
    'await db.{c}.delete_many({{"g": {g}}})',
    'await db.{c}.delete_one({{"g": {g}}})',
    'await db.{c}.insert_many([{{"_id": 1000 + i}} for i in range({g} + 1)])',
    'await db.{c}.update_one({{"_id": -1}}, {{"$set": {{"new": 1}}}}, upsert=True)',
    'await db.{c}.create_index("g")',
    'await db.{c}.drop_index("n_1")',
    'await db.{c}.drop_index("n_1"); await db.{c}.create_index("n", unique=True)',
    'await db.{c}.create_index([("g", 1), ("n", -1)], name="by_group", sparse=True)',
    'await ensure_search_indexes(db.{c}, [SearchIndexModel(name="new", definition=MAPPED)])',
    'await ensure_search_indexes(db.{c}, [SearchIndexModel(name="ft", definition=MAPPED)])',
    'await drop_search_indexes(db.{c}, "ft")',
    'await switch_search_alias(db.{c}, "{c}", "ft")',
    'await db.drop_collection("{c}")',
    'await db.{c}.rename("{c}_renamed")',
    'await db.create_collection("{c}_new", capped=True, size=4096)',
    'await db.command({{"collMod": "{c}", "index": {{"keyPattern": {{"n": 1}}, "hidden": True}}}})',
    'await db.{c}.aggregate([{{"$match": {{"g": {g}}}}}, {{"$out": "{c}_out"}}]).to_list(None)',
    "pass",
]
PLAIN = [
    'db.{c}.update_many({{"g": {g}}}, {{"$set": {{"new": 1}}}})',
    'db.{c}.insert_one({{"_id": 1000}})',
    'db.{c}.delete_many({{"g": {g}}})',
    'db.{c}.create_index("g")',
    'db.{c}.create_search_index({{"name": "new", "definition": MAPPED}})',
    'db.{c}.drop_search_index("ft")',
]


def write_scripts(folder: Path, chance: random.Random, number: int) -> None:
    """Write scripts of all kinds, some with several changes."""
    for index in range(number):
        names = {"c": f"c{index}", "g": chance.randrange(4)}
        if chance.random() < 0.25:
            text = (
                'import lightodm\nMAPPED = {"mappings": {"dynamic": True}}\ndb = lightodm.get_database()\n'
                + chance.choice(PLAIN).format(**names)
                + "\n"
            )
        else:
            text = IMPORTS + f"\nasync def up(db):\n    {chance.choice(ASYNC).format(**names)}\n"
        (folder / f"{index + 1:03}_step.py").write_text(text)


async def fill(db: AsyncIOMotorDatabase[dict[str, Any]], number: int) -> None:
    for index in range(number):
        collection = db[f"c{index}"]
        await collection.insert_many([{"_id": i, "g": i % 4, "n": i} for i in range(DOCUMENTS)])
        await collection.create_index("n")
        await collection.create_search_index(SearchIndexModel(name="ft", definition={"mappings": {"dynamic": False}}))


@pytest.fixture
async def servers() -> AsyncIterator[tuple[LocalServer, LocalServer]]:
    """One to plan for, one to run on."""
    settings = SearchSettings(pending_seconds=0.0, build_seconds=0.0, delete_seconds=0.0)
    with LocalServer(search=settings) as first, LocalServer(search=settings) as second:
        yield first, second


def look(client: MongoClient[dict[str, Any]]) -> tuple[Catalogue, dict[str, dict[Any, Any]]]:
    """See all of the second server: its catalogue, and its documents by collection and ``_id``."""
    database: Database[dict[str, Any]] = client["app"]
    catalogue = LocalCopy(LocalServer(), database, Recorder(), "").catalogue()
    return catalogue, {name: {d["_id"]: d for d in database[name].find()} for name in catalogue.collections}


def done(before: tuple[Catalogue, Any], after: tuple[Catalogue, Any], foreseen: list[Effect]) -> Counter[Any]:
    """Say what has happened between two looks, as the lines of a plan would."""
    renamed = [(e.collection, e.name) for e in foreseen if e.kind is EffectKind.RENAME_COLLECTION]
    record = read_record("app", [])
    record.renamed = [pair for pair in renamed if pair[0] in before[0].collections and pair[1] is not None]  # type: ignore[misc]  # looked at in the same line
    record.dropped_indexes = {(e.collection, str(e.name)) for e in foreseen if e.kind is EffectKind.REPLACE_INDEX}
    happened = [key(effect) for effect in catalogue_effects(before[0], after[0], record)]
    counts: Counter[Any] = Counter(dict.fromkeys(happened, 1))
    gone = dict(record.renamed)
    for name in before[1].keys() | after[1].keys():
        if name in gone or name in gone.values():
            continue
        old, new = before[1].get(name, {}), after[1].get(name, {})
        if name in after[1]:
            counts["insert", name] += len(new.keys() - old.keys())
            counts["delete", name] += len(old.keys() - new.keys())
        counts["update", name] += sum(old[i] != new[i] for i in old.keys() & new.keys())
    return +counts


def key(effect: Effect) -> Any:
    return effect.kind.value, effect.collection, effect.name, effect.type, effect.detail, effect.answers_meanwhile


def foretold(effects: list[Effect]) -> Counter[Any]:
    counts: Counter[Any] = Counter()
    for effect in effects:
        if effect.kind.value in ("insert", "update", "delete"):
            # What $out writes is new where its collection is.
            kind = "insert" if effect.detail and "$out" in effect.detail else effect.kind.value
            counts[kind, effect.collection] += effect.documents or 0
        else:
            counts[key(effect)] += 1
    return +counts


async def compare(servers: tuple[LocalServer, LocalServer], folder: Path, seed: int, number: int, sample: int) -> None:
    write_scripts(folder, random.Random(seed), number)
    first, second = servers
    clients = [AsyncIOMotorClient[dict[str, Any]](server.url, tz_aware=True) for server in servers]
    try:
        for client in clients:
            await fill(client["app"], number)
        first.controls.clear()
        report = await plan(clients[0]["app"], directory=folder, standard_indexes={}, sample=sample)
        read = {"aggregate", "count", "find", "getMore", "killCursors", "listCollections", "listIndexes", "endSessions"}
        assert set(first.controls.counts()) <= read
        assert all("$out" not in str(r.body) for r in first.controls.counted() if r.name == "aggregate")
        assert [step.error for step in report.steps] == [None] * number
        with MongoClient[dict[str, Any]](second.url, tz_aware=True) as watcher:
            before = await anyio.to_thread.run_sync(look, watcher)
            for step in report.steps:
                await migrate(clients[1]["app"], directory=folder, target=step.version, standard_indexes={})
                after = await anyio.to_thread.run_sync(look, watcher)
                text = (folder / f"{step.version}_step.py").read_text()
                assert foretold(list(step.effects)) == done(before, after, list(step.effects)), text
                before = after
    finally:
        for client in clients:
            client.close()


@pytest.mark.seconds(180)
@pytest.mark.parametrize(("seed", "sample"), [(1, 100), (2, 10)])
async def test_what_is_foretold_happens(
    servers: tuple[LocalServer, LocalServer], tmp_path: Path, seed: int, sample: int
) -> None:
    await compare(servers, tmp_path, seed, 5, sample)


@pytest.mark.heavy
@pytest.mark.seconds(900)
@pytest.mark.parametrize("seed", range(100, 110))
async def test_what_is_foretold_of_two_hundred_scripts_happens(
    servers: tuple[LocalServer, LocalServer], tmp_path: Path, seed: int
) -> None:
    await compare(servers, tmp_path, seed, 20, 100 if seed % 2 else 10)
