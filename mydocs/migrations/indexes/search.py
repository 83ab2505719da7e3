"""
Bring search indexes to their definitions for scripts: read the listing, then do the least that is needed. I/O.

"Ensure" creates an absent index (with its collection), does nothing if the definition is equivalent, and updates it if
it differs. An index that answers queries is dropped only with ``replace=True``. Search commands are never repeated
blindly: after a lost reply the listing shows what happened, since on self-managed servers even an unchanged update
rebuilds the index.
"""

import dataclasses
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any, TypeAlias

import anyio
from pymongo.errors import ConnectionFailure, OperationFailure, PyMongoError
from pymongo.operations import SearchIndexModel

from mydocs.migrations.driver import commands, retry, server_errors
from mydocs.migrations.driver.client import Collection, Database, database_of
from mydocs.migrations.driver.dialects import Meaning
from mydocs.migrations.errors import IndexConflict, IndexRefused, NotReady, SearchUnavailable, UsageError
from mydocs.migrations.indexes import aliases, capture, definitions, readiness
from mydocs.migrations.indexes.build_slots import free_slots
from mydocs.migrations.indexes.definitions import Change
from mydocs.migrations.indexes.readiness import Listed
from mydocs.migrations.limits import limits
from mydocs.migrations.model import Definition, IndexAction, IndexType, TrackedIndex
from mydocs.migrations.scripts.script_context import context
from mydocs.migrations.values import value

logger = logging.getLogger(__name__)

COLLECTIONS_AT_ONCE = 8  # Motor has five threads a core for all its work

NOT_REPLACED = "the server goes on deleting it, and the migration creates it when it runs again: `mydocs migrate run`"


NO_INDEXES = "a transaction builds and drops no indexes; do it in a migration of its own"

SearchModel: TypeAlias = SearchIndexModel | Mapping[str, Any]
"""A search index: PyMongo's model, or a mapping of ``definition``, ``name`` and ``type``."""

_MODEL_KEYS = ("definition", "name", "type")
WHAT_TO_PASS = (
    "pass a list of SearchIndexModel, or of mappings such as {'name': 'ft', 'type': 'search', 'definition': {…}}"
)


async def ensure_search_indexes(
    collection: Collection | Mapping[Collection, Iterable[SearchModel]],
    models: Iterable[SearchModel] | None = None,
    *,
    replace: bool = False,
) -> tuple[TrackedIndex, ...]:
    """
    Give search and vector indexes their definitions, all in one step. Do not wait for their builds.

    An index that answers queries continues to do so. It is updated; if no update is possible, nothing is done. An index
    that a search alias names is not dropped, even with ``replace``.

    :param collection: of the indexes; or a mapping of several collections to their models, which are then handled at
        the same time
    :param replace: drop and create an index that cannot be updated; no query is answered until it is built
    :return: what was done, for each model in order
    :raises IndexConflict: if an index cannot be updated (the message names the two ways on), or would be dropped
        although a search alias names it
    :raises IndexRefused: names each definition that the server refuses; the others are created
    :raises SearchUnavailable: if the server has no search indexes
    :raises UsageError: if the argument is not a list of models
    """
    context().refuse_in_transaction("ensure_search_indexes", NO_INDEXES)
    works = []
    for each, its_models in by_collection(collection, models, WHAT_TO_PASS):
        db, where = database_of(each), each.name
        asked = _asked(its_models)
        check_names(where, [item.name for item in asked])
        works.append(partial(_ensure, db, where, asked, replace=replace))
    try:
        return await at_the_same_time(works, COLLECTIONS_AT_ONCE)
    except OperationFailure as error:
        if server_errors.is_no_search(error, of_search_command=True):
            raise SearchUnavailable(server_errors.text_of(error)) from error
        raise


def by_collection(collection: Any, models: Any, what_to_pass: str) -> Sequence[tuple[Any, Any]]:
    """
    Return the arguments of a helper as pairs of a collection and its models.

    :raises UsageError: if they have neither of the two forms
    """
    if not isinstance(collection, Mapping):
        return [(collection, models)]
    if models is not None:
        raise UsageError(f"a mapping of collections has the models in it, and more were given; {what_to_pass}")
    return list(collection.items())


async def at_the_same_time(
    works: Sequence[Callable[[], Awaitable[tuple[TrackedIndex, ...]]]], limit: int
) -> tuple[TrackedIndex, ...]:
    """
    Do the work of several collections at the same time, and return all results as one list.

    :param limit: how many at the same time
    :raises Exception: the error of the first that failed, once all have ended
    """
    done: dict[int, tuple[TrackedIndex, ...]] = {}
    errors: list[Exception] = []
    limiter = anyio.CapacityLimiter(limit)

    async def one(place: int, work: Callable[[], Awaitable[tuple[TrackedIndex, ...]]]) -> None:
        try:
            async with limiter:
                done[place] = await work()
        except Exception as error:  # noqa: BLE001  # raised below
            errors.append(error)

    async with anyio.create_task_group() as group:
        for place, work in enumerate(works):
            group.start_soon(one, place, work)
    if errors:
        raise errors[0]
    return tuple(index for place in sorted(done) for index in done[place])


async def drop_search_indexes(collection: Collection, *names: str) -> None:
    """
    Drop search indexes by name. An absent index is not an error. They leave the listing some time later.

    If a search alias named one of them until a moment ago, wait a few seconds first.

    :raises IndexConflict: if a search alias names one of them; nothing is dropped
    :raises SearchUnavailable: if the server has no search indexes
    :raises UsageError: if a name is not a string
    """
    context().refuse_in_transaction("drop_search_indexes", NO_INDEXES)
    capture.check_names("drop_search_indexes", names)
    db = database_of(collection)
    await aliases.make_way(db, collection.name, names)
    for name in names:
        kind = capture.type_of(db.name, collection.name, name) or IndexType.SEARCH
        if await _drop(db, collection.name, name):
            index = TrackedIndex(collection=collection.name, name=name, type=kind, action=IndexAction.DROPPED)
            capture.note(index, db.name)


@value
class _Asked:
    name: str
    type: IndexType
    definition: Definition
    replacing: bool = False  # an index of that name was dropped for it

    @classmethod
    def of(cls, model: object) -> "_Asked":
        """
        Read a model of a search index.

        :raises UsageError: if it is not one
        """
        document = model.document if isinstance(model, SearchIndexModel) else model
        if not isinstance(document, Mapping):
            raise UsageError(f"a {type(model).__name__} is not a search index; {WHAT_TO_PASS}")
        unknown = sorted(str(key) for key in document if key not in _MODEL_KEYS)
        definition, name, kind = (document.get(key) for key in _MODEL_KEYS)
        if not isinstance(model, SearchIndexModel) and unknown:
            raise UsageError(f"a search index has no {', '.join(unknown)}; {WHAT_TO_PASS}")
        if not isinstance(definition, Mapping):
            raise UsageError(f"the definition of a search index is a mapping, not {definition!r}; {WHAT_TO_PASS}")
        if not isinstance(name, str | None) or kind not in (None, *definitions.SEARCH_KINDS):
            kinds = " or ".join(definitions.SEARCH_KINDS)
            raise UsageError(f"the name of a search index is a text, its type {kinds}; {WHAT_TO_PASS}")
        return cls(
            name=name or "default",
            type=IndexType(kind) if kind else definitions.kind_of(None, definition),
            definition=definition,
        )

    @property
    def document(self) -> dict[str, Any]:
        return {"name": self.name, "type": self.type.value, "definition": self.definition}


def _asked(models: object) -> list[_Asked]:
    if isinstance(models, SearchIndexModel | Mapping):
        raise UsageError(f"one {type(models).__name__} is not a list of search indexes; {WHAT_TO_PASS}")
    if isinstance(models, str | bytes) or not isinstance(models, Iterable):
        raise UsageError(f"a {type(models).__name__} is not a list of search indexes; {WHAT_TO_PASS}")
    return [_Asked.of(model) for model in models]


async def _ensure(db: Database, where: str, asked: Sequence[_Asked], *, replace: bool) -> tuple[TrackedIndex, ...]:
    listed = await _listed(db, where, asked)
    needed = {item.name: _change(item, listed.get(item.name)) for item in asked}
    serving = [
        item
        for item in asked
        if needed[item.name] is Change.REPLACE and not readiness.serves_nothing(listed[item.name])
    ]
    if serving and not replace:
        raise _conflict(where, *(_of_another_type(item, listed[item.name]) for item in serving))
    actions = {item.name: _ACTIONS[needed[item.name]] for item in asked}
    for item in asked:
        if needed[item.name] is Change.UPDATE:
            try:
                async with free_slots(db, 1):
                    actions[item.name] = await _update(db, where, item)
            except IndexConflict:
                if not replace:
                    raise
                actions[item.name] = IndexAction.REPLACED
                serving.append(item)
    if serving:
        await aliases.make_way(db, where, [item.name for item in serving])
    for item in asked:
        if actions[item.name] is IndexAction.REPLACED:
            await _drop(db, where, item.name)
            await until_gone(db, where, item.name, listed[item.name].id, timeout=limits().gone)
    creating = (IndexAction.CREATED, IndexAction.REPLACED)
    ids = await _create(
        db,
        where,
        [
            dataclasses.replace(item, replacing=actions[item.name] is IndexAction.REPLACED)
            for item in asked
            if actions[item.name] in creating
        ],
    )
    return tuple(_done(db, where, item, actions[item.name], ids.get(item.name)) for item in asked)


_ACTIONS = {
    Change.CREATE: IndexAction.CREATED,
    Change.NOTHING: IndexAction.UNCHANGED,
    Change.UPDATE: IndexAction.UPDATED,
    Change.REPLACE: IndexAction.REPLACED,
}


def _change(item: _Asked, found: Listed | None) -> Change:
    if found is None:
        return Change.CREATE
    if readiness.serves_nothing(found):
        return Change.REPLACE
    change = definitions.change(item.type, item.definition, found.type or item.type, found.definition or {})
    if change is Change.NOTHING and found.status == "FAILED":
        # An older definition serves. The author asks for the same definition again, to repeat the failed build.
        return Change.UPDATE
    return change


def _of_another_type(item: _Asked, found: Listed) -> str:
    return (
        f"index {item.name} is a {found.type} index and a {item.type} index was asked for, which no update makes of it"
    )


def _conflict(where: str, *problems: str) -> IndexConflict:
    return IndexConflict(
        where,
        *problems,
        remedy="nothing was dropped. Two ways on: give the new definition another name, and let the application "
        "change over once it is ready (`switch_search_alias`), so that queries are answered all the time; or pass "
        "replace=True, which drops the index and creates it, and no query is answered until it is built",
    )


async def _create(db: Database, where: str, asked: Sequence[_Asked]) -> dict[str, str]:
    """
    Create indexes that the listing did not show, as many at a time as the limit for builds allows.

    :return: the server's id of each
    :raises IndexRefused: names each definition that the server refuses
    """
    ids: dict[str, str] = {}
    problems: list[str] = []
    left = list(asked)
    while left:
        async with free_slots(db, len(left)) as count:
            batch, left = left[:count], left[count:]
            try:
                ids |= await _create_batch(db, where, batch)
            except IndexRefused as error:
                problems += error.problems
    if problems:
        raise IndexRefused(where, problems, others_created=len(problems) < len(asked))
    return ids


async def _create_batch(db: Database, where: str, asked: Sequence[_Asked]) -> dict[str, str]:
    """Create indexes in one command, or one by one if the server refuses them together; see :func:`_create`."""
    try:
        return await _create_together(db, where, asked)
    except OperationFailure as error:
        if _is_no_answer_to_a_definition(error):
            raise
        if len(asked) == 1:
            raise IndexRefused(where, [_refusal(asked[0], error)]) from error
    ids: dict[str, str] = {}
    problems: list[str] = []
    for item in asked:
        try:
            ids |= await _create_batch(db, where, [item])
        except IndexRefused as error:
            problems += error.problems
        else:
            action = IndexAction.REPLACED if item.replacing else IndexAction.CREATED
            _done(db, where, item, action, ids.get(item.name))
    if problems:
        raise IndexRefused(where, problems, others_created=len(problems) < len(asked))
    return ids


async def _create_together(db: Database, where: str, asked: Sequence[_Asked]) -> dict[str, str]:
    started = time.monotonic()
    missing = list(asked)
    ids: dict[str, str] = {}
    gap = limits().gone_gap
    has_collection = False
    while True:
        command = {"createSearchIndexes": where, "indexes": [item.document for item in missing]}
        try:
            reply = await commands.command(db, command)
        except PyMongoError as error:
            no_collection = isinstance(error, OperationFailure) and error.code == 26
            if no_collection and not has_collection:
                await commands.ensure_collection(db, where)
                has_collection = True
                continue
            name_taken = _is_name_taken(error)
            patience = limits()
            limit = patience.gone if name_taken else patience.no_collection if no_collection else patience.search
            if (
                not (no_collection or name_taken or server_errors.is_transient(error))
                or time.monotonic() - started > limit
            ):
                raise
            if isinstance(error, ConnectionFailure):
                capture.unanswered(db.name, command)
            logger.info("creating search indexes on %s: %s; reading the listing", where, error)
            await anyio.sleep(gap)
            gap = min(2 * gap, 10 * limits().gone_gap)
            if no_collection:
                has_collection = False  # it may have been dropped since
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


def _is_name_taken(error: BaseException) -> bool:
    """Return whether the dropped index of that name still exists. A full cluster may send the same code."""
    return server_errors.says(error, Meaning.NAME_TAKEN) and not server_errors.says(error, Meaning.NO_ROOM)


def _is_no_answer_to_a_definition(error: OperationFailure) -> bool:
    return (
        error.code == 26  # no such collection
        or server_errors.is_no_search(error, of_search_command=True)
        or server_errors.is_unauthorised(error)
        or server_errors.is_transient(error)
    )


async def _update(db: Database, where: str, item: _Asked) -> IndexAction:
    """
    Send an update once, and again only if the listing shows that it did not arrive.

    :return: the action to record; ``CREATED`` if the index is gone and must be created
    :raises IndexConflict: if the server cannot make this change by an update
    :raises IndexRefused: if the server refuses the definition
    """
    started = time.monotonic()
    command = {"updateSearchIndex": where, "name": item.name, "definition": item.definition}
    while True:
        try:
            await commands.command(db, command)
        except PyMongoError as error:
            if isinstance(error, OperationFailure) and error.code == 27:  # dropped since the listing was read
                return IndexAction.CREATED
            if isinstance(error, OperationFailure) and not _is_no_answer_to_a_definition(error):
                if _is_no_update(item, error):
                    problem = f"the server does not update index {item.name}: {server_errors.text_of(error)}"
                    raise _conflict(where, problem) from error
                raise IndexRefused(where, [_refusal(item, error)]) from error
            if not server_errors.is_transient(error) or time.monotonic() - started > limits().search:
                raise
            if isinstance(error, ConnectionFailure):
                capture.unanswered(db.name, command)
            logger.info("updating search index %s of %s: %s; reading the listing", item.name, where, error)
            await anyio.sleep(limits().gone_gap)
            found = (await _listed(db, where, [item])).get(item.name)
            if found is None or not _is_equal(item, found):
                continue
        return IndexAction.UPDATED


def _is_no_update(item: _Asked, error: OperationFailure) -> bool:
    """Return whether the server refuses the update as such, and not because of the definition."""
    read_as_search = item.type is IndexType.VECTOR and server_errors.says(error, Meaning.READ_AS_SEARCH)
    return read_as_search or server_errors.says(error, Meaning.NOT_BY_UPDATE)


async def _drop(db: Database, where: str, name: str) -> bool:
    """
    Drop an index.

    :return: whether it existed
    """
    try:
        await retry.again(
            lambda: commands.command(db, {"dropSearchIndex": where, "name": name}), seconds=limits().search
        )
    except OperationFailure as error:
        if server_errors.is_no_search(error, of_search_command=True):
            raise SearchUnavailable(server_errors.text_of(error)) from error
        if not server_errors.says(error, Meaning.GONE):
            raise
        return error.code not in (26, 27)  # else it is being deleted
    return True


async def until_gone(
    db: Database,
    where: str,
    name: str,
    index_id: str | None,
    *,
    timeout: float | None,
    limiter: anyio.CapacityLimiter | None = None,
) -> None:
    """
    Wait until a dropped index has left the listing, by name and id.

    :param timeout: seconds, or ``None`` for no limit
    :param limiter: limits how many waits look at the same time
    :raises NotReady: when the time is up
    """
    gap = limits().gone_gap
    with anyio.move_on_after(timeout):
        while True:
            async with limiter or nullcontext():
                documents = await retry.again(
                    lambda: commands.search_listing(db, where, [name]), seconds=limits().search
                )
            found = [item for item in map(readiness.parse, documents) if item.name == name]
            if not any(index_id is None or item.id in (None, index_id) for item in found):
                return
            await anyio.sleep(gap)
            gap = min(2 * gap, 10 * limits().gone_gap)
    raise NotReady([f"{where}.{name} is dropped and still listed"], timeout or 0.0, NOT_REPLACED)


async def _listed(db: Database, where: str, asked: Sequence[_Asked]) -> dict[str, Listed]:
    """Return the listed indexes by name, without those that are being deleted."""
    names = [item.name for item in asked]
    documents = await retry.again(lambda: commands.search_listing(db, where, names), seconds=limits().search)
    listed = map(readiness.parse, documents)
    leaving = ("DELETING", "DOES_NOT_EXIST")
    return {item.name: item for item in listed if item.name is not None and item.status not in leaving}


def _is_equal(item: _Asked, found: Listed) -> bool:
    kind = found.type or item.type
    return definitions.change(item.type, item.definition, kind, found.definition or {}) is Change.NOTHING


def _refusal(item: _Asked, error: OperationFailure) -> str:
    name, text = item.name, server_errors.text_of(error)
    lost = f"; the old index {name} was dropped to make room for it and serves no more" if item.replacing else ""
    if server_errors.says(error, Meaning.NO_ROOM):
        return f"no room for index {name}: {text}; drop an index or take a larger cluster tier{lost}"
    return f"the server does not take index {name}: {text} (code {error.code}){lost}"


def _done(db: Database, where: str, item: _Asked, action: IndexAction, index_id: str | None = None) -> TrackedIndex:
    index = TrackedIndex(
        collection=where,
        name=item.name,
        type=item.type,
        action=action,
        definition=item.definition,
        id=index_id if action is IndexAction.REPLACED else None,
    )
    capture.note(index, db.name)
    return index


def check_names(where: str, names: Sequence[str]) -> None:
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        raise IndexConflict(where, f"{', '.join(twice)} is asked for twice in one call; give each index its own name")
