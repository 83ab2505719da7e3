"""
What scripts call to bring indexes to their definitions: look first, then do the least that is needed.

"Ensure" creates what is absent (with its collection), does nothing where the definition is equivalent, updates where it
differs, and drops and creates where an update cannot do it. Search commands are never sent again blindly: after a lost
reply the listing says what became of them, since on self-managed servers even an unchanged update rebuilds the index.
"""

import hashlib
import json
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import anyio
from pymongo import IndexModel
from pymongo.errors import OperationFailure, PyMongoError
from pymongo.operations import SearchIndexModel

from mydocs.migrations import capture, definitions, mongo, readiness, standard_definitions
from mydocs.migrations.definitions import Change
from mydocs.migrations.errors import IndexConflict, IndexRefused, NotReady, SearchUnavailable
from mydocs.migrations.events import IndexDefined
from mydocs.migrations.model import Definition, IndexAction, IndexRecord, IndexType
from mydocs.migrations.readiness import Listed
from mydocs.migrations.standard_definitions import StandardAction

logger = logging.getLogger(__name__)

IndexModels: TypeAlias = Mapping[str, Sequence[IndexModel]]

SEARCH_SECONDS = 120.0  # for the search process behind the server to come back; a restart of mongot takes a minute
GONE_SECONDS = 300.0  # for a dropped index to leave the listing and free its name; on Atlas this takes a while
GONE_GAP = 0.5  # seconds between two looks at the start, doubled up to ten times that
BUILDS_AT_ONCE = 3  # the server's own limit, maxNumActiveUserIndexBuilds; further builds would queue there

NO_INDEXES = "a transaction builds and drops no indexes; do it in a migration of its own"

# What a server answers to a create while the dropped index of that name is not gone: 68 on Atlas, 20 elsewhere.
NAME_TAKEN = frozenset({68, 20})


_STANDARD_ACTIONS = {
    StandardAction.CREATE: IndexAction.CREATED,
    StandardAction.MODIFY: IndexAction.UPDATED,
    StandardAction.PRESENT: IndexAction.UNCHANGED,
}


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
    _check_names(where, [item.name for item in asked])
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
        await _drop(db, collection.name, name)
        _done(db, collection.name, name, IndexType.SEARCH, IndexAction.DROPPED, None)


async def ensure_indexes(collection: mongo.Collection, models: Iterable[IndexModel]) -> tuple[IndexRecord, ...]:
    """
    Bring standard indexes to their definitions, in one build for all that are absent; returns when they are built.

    An index under another name with the same key and options counts as present. Expiry, hidden and (from no to yes)
    unique are changed in place.

    :return: for each model, in their order, what was done
    :raises IndexConflict: where an index with other options stands in the way; it is never dropped
    """
    capture.refuse_in_transaction("ensure_indexes", NO_INDEXES)
    db, where = mongo.database_of(collection), collection.name
    documents = [dict(model.document) for model in models]
    _check_names(where, [document["name"] for document in documents])
    listed = await standard_listing(db, where)
    changes = [standard_definitions.standard_change(document, listed) for document in documents]
    conflicts = [change.sentence for change in changes if change.sentence]
    if conflicts:
        raise IndexConflict(where, "; ".join(conflicts))
    absent = [
        document for document, change in zip(documents, changes, strict=True) if change.action is StandardAction.CREATE
    ]
    if absent:
        await _create_standard(db, where, absent)
    records = []
    for document, change in zip(documents, changes, strict=True):
        for modification in change.coll_mods:
            await mongo.command_again(db, {"collMod": where, "index": dict(modification)})
        action = _STANDARD_ACTIONS[change.action]
        capture.say(IndexDefined(collection=where, name=document["name"], type=IndexType.STANDARD, action=action.value))
        records.append(
            IndexRecord(
                collection=where, name=document["name"], type=IndexType.STANDARD, action=action, definition=document
            )
        )
    return tuple(records)


async def create_standard_indexes(db: mongo.Database, models: IndexModels) -> bool:
    """
    Create the application's standard indexes: one command a collection, the collections at the same time.

    Only where the server refuses is it looked what stands there. Returns ``False``: it was not cancelled unnoticed.

    :raises IndexConflict: where an existing index stands in the way
    """
    errors: list[Exception] = []
    limiter = anyio.CapacityLimiter(BUILDS_AT_ONCE)

    async def create(collection: str) -> None:
        try:
            async with limiter:
                await _create_or_ensure(db, collection, models[collection])
        except Exception as error:  # noqa: BLE001  # raised below, alone and not in a group
            errors.append(error)
            group.cancel_scope.cancel()

    async with anyio.create_task_group() as group:
        for collection in models:
            group.start_soon(create, collection)
    if errors:
        raise errors[0]
    return False


def standard_checksum(models: IndexModels) -> str:
    """Fingerprint a list of standard indexes; the order of the collections does not count."""
    documents = {
        name: [
            {key: list(value.items()) if key == "key" else value for key, value in model.document.items()}
            for model in of
        ]
        for name, of in models.items()
    }
    text = json.dumps(documents, sort_keys=True, default=repr)
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def standard_names(models: IndexModels) -> list[tuple[str, str]]:
    """Return (collection, name) of each standard index."""
    return [(collection, model.document["name"]) for collection, of in models.items() for model in of]


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


async def _drop(db: mongo.Database, where: str, name: str) -> None:
    try:
        await mongo.again(lambda: mongo.command(db, {"dropSearchIndex": where, "name": name}), seconds=SEARCH_SECONDS)
    except OperationFailure as error:
        if mongo.is_no_search(error):
            raise SearchUnavailable(str((error.details or {}).get("errmsg", error))) from error
        # 26: no such collection, 27: no such index; Atlas says the third while it is at it.
        if error.code not in (26, 27) and "already requested to be deleted" not in str(error):
            raise


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
    raise NotReady([f"{where}.{name} is dropped and still listed"], timeout or 0.0)


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
    record = IndexRecord(collection=where, name=name, type=kind, action=action, definition=definition, id=index_id)
    capture.note(record, db.name)
    capture.say(IndexDefined(collection=where, name=name, type=kind, action=action.value))
    return record


def _check_names(where: str, names: Sequence[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise IndexConflict(where, f"{', '.join(twice)} is asked for twice in one call; give each index its own name")


async def _create_or_ensure(db: mongo.Database, where: str, models: Sequence[IndexModel]) -> None:
    try:
        await _create_standard(db, where, [model.document for model in models])
    except OperationFailure as error:
        if error.code not in (85, 86):  # IndexOptionsConflict, IndexKeySpecsConflict
            raise
        await ensure_indexes(db[where], models)


async def _create_standard(db: mongo.Database, where: str, documents: Sequence[Mapping[str, Any]]) -> None:
    """
    Build standard indexes, however long it takes.

    No time limit: one that expires aborts the build. After a lost connection the same command joins the build that goes
    on, so a failure that comes after long work has a new budget of retries.
    """
    command = {"createIndexes": where, "indexes": [dict(document) for document in documents]}
    while True:
        started = time.monotonic()
        try:
            await mongo.command_again(db, command)
        except PyMongoError as error:
            if not mongo.is_transient(error) or time.monotonic() - started < 3 * mongo.RETRY_SECONDS:
                raise
        else:
            return


async def standard_listing(db: mongo.Database, where: str) -> list[mongo.Document]:
    """List the standard indexes of a collection; of one that does not exist there are none."""
    try:
        return await mongo.documents_again(db, {"listIndexes": where, "cursor": {"batchSize": 1000}})
    except OperationFailure as error:
        if error.code != 26:  # NamespaceNotFound: the collection does not exist yet
            raise
        return []
