"""
What scripts call to bring search indexes to their definitions: look first, then do the least that is needed.

"Ensure" creates what is absent (with its collection), does nothing where the definition is equivalent, updates where it
differs, and drops and creates where an update cannot do it. Search commands are never sent again blindly: after a lost
reply the listing says what became of them, since on self-managed servers even an unchanged update rebuilds the index.
"""

import logging
import time
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import anyio
from pymongo.errors import OperationFailure, PyMongoError
from pymongo.operations import SearchIndexModel

from mydocs.migrations.driver import mongo
from mydocs.migrations.errors import IndexConflict, IndexRefused, NotReady, SearchUnavailable
from mydocs.migrations.indexes import capture, definitions, readiness
from mydocs.migrations.indexes.definitions import Change
from mydocs.migrations.indexes.readiness import Listed
from mydocs.migrations.model import Definition, IndexAction, IndexRecord, IndexType
from mydocs.migrations.reporting.events import IndexDefined

logger = logging.getLogger(__name__)

SEARCH_SECONDS = 120.0  # for the search process behind the server to come back; a restart of mongot takes a minute
GONE_SECONDS = 300.0  # for a dropped index to leave the listing and free its name; on Atlas this takes a while
NOT_REPLACED = "the server goes on deleting it, and the migration creates it when it runs again: `mydocs migrate run`"
GONE_GAP = 0.5  # seconds between two looks at the start, doubled up to ten times that

NO_INDEXES = "a transaction builds and drops no indexes; do it in a migration of its own"

# What a server answers to a create while the dropped index of that name is not gone: 68 on Atlas, 20 elsewhere.
NAME_TAKEN = frozenset({68, 20})


async def ensure_search_indexes(
    collection: mongo.Collection, models: Iterable[SearchIndexModel]
) -> tuple[IndexRecord, ...]:
    """
    Bring search and vector indexes to their definitions, all in one go; does not wait for their builds.

    :return: for each model, in their order, what was done
    :raises IndexRefused: names each definition that the server does not take; the others are created
    :raises SearchUnavailable: where the server has no search indexes
    """
    capture.refuse_in_transaction("ensure_search_indexes", NO_INDEXES)
    db, where = mongo.database_of(collection), collection.name
    asked = [_Asked.of(model) for model in models]
    check_names(where, [item.name for item in asked])
    try:
        return await _ensure_search(db, where, asked)
    except OperationFailure as error:
        if mongo.is_no_search(error):
            raise SearchUnavailable(str((error.details or {}).get("errmsg", error))) from error
        raise


async def drop_search_indexes(collection: mongo.Collection, *names: str) -> None:
    """
    Drop search indexes by name; one that does not exist is no error. They leave the listing some time later.

    :raises SearchUnavailable: where the server has no search indexes
    """
    capture.refuse_in_transaction("drop_search_indexes", NO_INDEXES)
    db = mongo.database_of(collection)
    for name in names:
        kind = capture.type_of(db.name, collection.name, name) or IndexType.SEARCH
        was_there = await _drop(db, collection.name, name)
        record = IndexRecord(collection=collection.name, name=name, type=kind, action=IndexAction.DROPPED)
        capture.note(record, db.name)  # also of one that an attempt before this has dropped
        if was_there:
            capture.say(IndexDefined(collection=collection.name, name=name, type=kind, action=record.action.value))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    name: str
    type: IndexType
    definition: Definition
    replacing: bool = False  # the index of that name was dropped to make room for it

    @classmethod
    def of(cls, model: SearchIndexModel) -> "_Asked":
        document = model.document
        definition = document["definition"]
        kind = document.get("type")
        return cls(
            name=document.get("name") or "default",
            type=IndexType(kind) if kind else definitions.infer_type(definition),
            definition=definition,
        )

    @property
    def document(self) -> dict[str, Any]:
        return {"name": self.name, "type": self.type.value, "definition": self.definition}


async def _ensure_search(db: mongo.Database, where: str, asked: Sequence[_Asked]) -> tuple[IndexRecord, ...]:
    listed = await _listed(db, where, asked)
    actions: dict[str, IndexAction] = {}
    ids: dict[str, str] = {}
    for item in asked:
        found = listed.get(item.name)
        change = Change.NOTHING if found is None else _change(item, found)
        if found is None or change is Change.REPLACE:
            if found is not None:
                await _drop(db, where, item.name)
                await until_gone(db, where, item.name, found.id)
            actions[item.name] = IndexAction.CREATED if found is None else IndexAction.REPLACED
        elif change is Change.UPDATE:
            actions[item.name] = await _update(db, where, item)
        else:
            actions[item.name] = IndexAction.UNCHANGED
    creating = (IndexAction.CREATED, IndexAction.REPLACED)
    ids |= await _create(
        db,
        where,
        [
            replace(item, replacing=actions[item.name] is IndexAction.REPLACED)
            for item in asked
            if actions[item.name] in creating
        ],
    )
    return tuple(
        _done(
            db,
            where,
            item.name,
            item.type,
            actions[item.name],
            item.definition,
            ids.get(item.name) if actions[item.name] is IndexAction.REPLACED else None,
        )
        for item in asked
    )


def _change(item: _Asked, found: Listed) -> Change:
    change = definitions.change(item.type, item.definition, found.type or item.type, found.definition or {})
    if change is Change.NOTHING and found.status == "FAILED":
        # The same definition again is what its author wants: the build shall be tried again. Nothing serves until it
        # has succeeded, unless an older definition does.
        return Change.UPDATE if found.queryable else Change.REPLACE
    return change


async def _create(db: mongo.Database, where: str, asked: Sequence[_Asked]) -> dict[str, str]:
    """
    Create indexes that the listing did not show, in one command, or one by one where the server refuses them together.

    :return: the server's id of each
    :raises IndexRefused: names each definition that the server does not take
    """
    if not asked:
        return {}
    try:
        return await _create_together(db, where, asked)
    except OperationFailure as error:
        if mongo.is_no_search(error) or mongo.is_unauthorised(error) or mongo.is_transient(error):
            raise
        if len(asked) == 1:
            raise IndexRefused(where, [_refusal(asked[0], error)]) from error
    ids: dict[str, str] = {}
    problems: list[str] = []
    for item in asked:
        try:
            ids |= await _create(db, where, [item])
        except IndexRefused as error:
            problems += error.problems
        else:
            if item.replacing:
                _done(db, where, item.name, item.type, IndexAction.REPLACED, item.definition, ids.get(item.name))
            else:
                _done(db, where, item.name, item.type, IndexAction.CREATED, item.definition)
    if problems:
        raise IndexRefused(where, problems, others_created=len(problems) < len(asked))
    return ids


async def _create_together(db: mongo.Database, where: str, asked: Sequence[_Asked]) -> dict[str, str]:
    started = time.monotonic()
    missing = list(asked)
    ids: dict[str, str] = {}
    gap = GONE_GAP
    while True:
        command = {"createSearchIndexes": where, "indexes": [item.document for item in missing]}
        try:
            reply = await mongo.command(db, command)
        except PyMongoError as error:
            if isinstance(error, OperationFailure) and error.code == 26:
                await mongo.ensure_collection(db, where)
                continue
            name_taken = isinstance(error, OperationFailure) and error.code in NAME_TAKEN
            limit = GONE_SECONDS if name_taken else SEARCH_SECONDS
            if not (name_taken or mongo.is_transient(error)) or time.monotonic() - started > limit:
                raise
            logger.info("creating search indexes on %s: %s; looking what is there", where, error)
            await anyio.sleep(gap)
            gap = min(2 * gap, 10 * GONE_GAP)
            listed = await _listed(db, where, missing)
            there = [item for item in missing if item.name in listed and _is_equal(item, listed[item.name])]
            other = [item.name for item in missing if item.name in listed and item not in there]
            if name_taken and other:
                raise
            ids |= {item.name: index_id for item in there if (index_id := listed[item.name].id)}
            missing = [item for item in missing if item not in there]
            if not missing:
                return ids
        else:
            created = reply.get("indexesCreated", [])
            return ids | {index["name"]: str(index["id"]) for index in created if "id" in index}


async def _update(db: mongo.Database, where: str, item: _Asked) -> IndexAction:
    """Send an update once, and again only where the listing shows that it did not arrive."""
    started = time.monotonic()
    while True:
        try:
            await mongo.command(db, {"updateSearchIndex": where, "name": item.name, "definition": item.definition})
        except PyMongoError as error:
            if isinstance(error, OperationFailure) and error.code == 27:  # dropped by somebody since we looked
                return IndexAction.CREATED
            if not mongo.is_transient(error):
                if isinstance(error, OperationFailure) and not (
                    mongo.is_unauthorised(error) or mongo.is_no_search(error)
                ):
                    raise IndexRefused(where, [_refusal(item, error)]) from error
                raise
            if time.monotonic() - started > SEARCH_SECONDS:
                raise
            logger.info("updating search index %s of %s: %s; looking what is there", item.name, where, error)
            await anyio.sleep(GONE_GAP)
            found = (await _listed(db, where, [item])).get(item.name)
            if found is None or not _is_equal(item, found):
                continue
        return IndexAction.UPDATED


async def _drop(db: mongo.Database, where: str, name: str) -> bool:
    """:return: whether there was such an index"""
    try:
        await mongo.again(lambda: mongo.command(db, {"dropSearchIndex": where, "name": name}), seconds=SEARCH_SECONDS)
    except OperationFailure as error:
        if mongo.is_no_search(error):
            raise SearchUnavailable(str((error.details or {}).get("errmsg", error))) from error
        # 26: no such collection, 27: no such index; Atlas says the third while it is at it.
        if error.code in (26, 27):
            return False
        if "already requested to be deleted" not in str(error):
            raise
    return True


async def until_gone(
    db: mongo.Database,
    where: str,
    name: str,
    index_id: str | None,
    *,
    timeout: float | None = GONE_SECONDS,
    limiter: anyio.CapacityLimiter | None = None,
) -> None:
    """
    Wait until a dropped index has left the listing, by name and id.

    :param timeout: seconds, or ``None`` for no limit
    :param limiter: how many may look at once, where several are waited for
    :raises NotReady: when the time is up
    """
    gap = GONE_GAP
    with anyio.move_on_after(timeout):
        while True:
            async with limiter or nullcontext():
                documents = await mongo.again(lambda: mongo.search_listing(db, where, [name]), seconds=SEARCH_SECONDS)
            found = [item for item in map(readiness.parse, documents) if item.name == name]
            if not any(index_id is None or item.id in (None, index_id) for item in found):
                return
            await anyio.sleep(gap)
            gap = min(2 * gap, 10 * GONE_GAP)
    raise NotReady([f"{where}.{name} is dropped and still listed"], timeout or 0.0, NOT_REPLACED)


async def _listed(db: mongo.Database, where: str, asked: Sequence[_Asked]) -> dict[str, Listed]:
    """The indexes that are there to stay; one that is being deleted is not."""
    names = [item.name for item in asked]
    documents = await mongo.again(lambda: mongo.search_listing(db, where, names), seconds=SEARCH_SECONDS)
    listed = map(readiness.parse, documents)
    leaving = ("DELETING", "DOES_NOT_EXIST")
    return {item.name: item for item in listed if item.name is not None and item.status not in leaving}


def _is_equal(item: _Asked, found: Listed) -> bool:
    kind = found.type or item.type
    return definitions.change(item.type, item.definition, kind, found.definition or {}) is Change.NOTHING


def _refusal(item: _Asked, error: OperationFailure) -> str:
    name, text = item.name, str((error.details or {}).get("errmsg", error))
    lost = f"; the old index {name} was dropped to make room for it and serves no more" if item.replacing else ""
    lowered = text.lower()
    if "index" in lowered and any(word in lowered for word in ("limit", "maximum", "quota", "exceed")):
        return f"no room for index {name}: {text}; drop an index or take a larger cluster tier{lost}"
    return f"the server does not take index {name}: {text} (code {error.code}){lost}"


def _done(
    db: mongo.Database,
    where: str,
    name: str,
    kind: IndexType,
    action: IndexAction,
    definition: Definition | None,
    index_id: str | None = None,
) -> IndexRecord:
    record = IndexRecord(
        collection=where,
        name=name,
        type=kind,
        action=action,
        definition=definition,
        id=index_id,
        asked_at=None if action is IndexAction.UNCHANGED else time.monotonic(),
    )
    capture.note(record, db.name)
    capture.say(IndexDefined(collection=where, name=name, type=kind, action=action.value))
    return record


def check_names(where: str, names: Sequence[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise IndexConflict(where, f"{', '.join(twice)} is asked for twice in one call; give each index its own name")
