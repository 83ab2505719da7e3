"""
Bring search indexes to their definitions for scripts: read the listing, then do the least that is needed. I/O.

"Ensure" creates an absent index (with its collection), does nothing if the definition is equivalent, and updates it if
it differs. An index that answers queries is dropped only with ``replace=True``.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from functools import partial

from pymongo.errors import OperationFailure

from mydocs.migrations.driver import server_errors
from mydocs.migrations.driver.client import Collection, Database, database_of
from mydocs.migrations.driver.task_groups import at_the_same_time
from mydocs.migrations.errors import IndexConflict, SearchUnavailable
from mydocs.migrations.indexes import aliases, capture, definitions, readiness, submit
from mydocs.migrations.indexes.arguments import (
    NO_INDEXES,
    WHAT_TO_PASS,
    AskedIndex,
    SearchModel,
    asked_indexes,
    by_collection,
    check_index_names,
    refuse_twice,
)
from mydocs.migrations.indexes.build_slots import free_slots
from mydocs.migrations.indexes.definitions import Change
from mydocs.migrations.indexes.readiness import Listed
from mydocs.migrations.limits import limits
from mydocs.migrations.model import IndexAction, IndexType, TrackedIndex
from mydocs.migrations.scripts.script_context import context

COLLECTIONS_AT_ONCE = 8  # Motor has five threads a core for all its work


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
        asked = asked_indexes(its_models)
        refuse_twice(where, [item.name for item in asked])
        works.append(partial(_ensure, db, where, asked, replace=replace))
    try:
        return await at_the_same_time(works, COLLECTIONS_AT_ONCE)
    except OperationFailure as error:
        if server_errors.is_no_search(error, of_search_command=True):
            raise SearchUnavailable(server_errors.text_of(error)) from error
        raise


async def drop_search_indexes(collection: Collection, *names: str) -> None:
    """
    Drop search indexes by name. An absent index is not an error. They leave the listing some time later.

    If a search alias named one of them until a moment ago, wait a few seconds first.

    :raises IndexConflict: if a search alias names one of them; nothing is dropped
    :raises SearchUnavailable: if the server has no search indexes
    :raises UsageError: if a name is not a string
    """
    context().refuse_in_transaction("drop_search_indexes", NO_INDEXES)
    check_index_names("drop_search_indexes", names)
    db = database_of(collection)
    await aliases.make_way(db, collection.name, names)
    for name in names:
        kind = capture.type_of(db.name, collection.name, name) or IndexType.SEARCH
        if await submit.drop(db, collection.name, name):
            index = TrackedIndex(collection=collection.name, name=name, type=kind, action=IndexAction.DROPPED)
            capture.note(index, db.name)


async def _ensure(db: Database, where: str, asked: Sequence[AskedIndex], *, replace: bool) -> tuple[TrackedIndex, ...]:
    listed = await submit.listed_now(db, where, asked)
    needed = {item.name: _change(item, listed.get(item.name)) for item in asked}
    serving = [
        item
        for item in asked
        if needed[item.name] is Change.REPLACE and not readiness.serves_nothing(listed[item.name])
    ]
    if serving and not replace:
        raise submit.conflict(where, *(_of_another_type(item, listed[item.name]) for item in serving))
    actions = {item.name: _ACTIONS[needed[item.name]] for item in asked}
    for item in asked:
        if needed[item.name] is Change.UPDATE:
            try:
                async with free_slots(db, 1):
                    actions[item.name] = await submit.update(db, where, item)
            except IndexConflict:
                if not replace:
                    raise
                actions[item.name] = IndexAction.REPLACED
                serving.append(item)
    if serving:
        await aliases.make_way(db, where, [item.name for item in serving])
    for item in asked:
        if actions[item.name] is IndexAction.REPLACED:
            await submit.drop(db, where, item.name)
            await submit.until_gone(db, where, item.name, listed[item.name].id, timeout=limits().gone)
    creating = (IndexAction.CREATED, IndexAction.REPLACED)
    ids = await submit.create(
        db,
        where,
        [
            dataclasses.replace(item, replacing=actions[item.name] is IndexAction.REPLACED)
            for item in asked
            if actions[item.name] in creating
        ],
    )
    return tuple(submit.done(db, where, item, actions[item.name], ids.get(item.name)) for item in asked)


_ACTIONS = {
    Change.CREATE: IndexAction.CREATED,
    Change.NOTHING: IndexAction.UNCHANGED,
    Change.UPDATE: IndexAction.UPDATED,
    Change.REPLACE: IndexAction.REPLACED,
}


def _change(item: AskedIndex, found: Listed | None) -> Change:
    if found is None:
        return Change.CREATE
    if readiness.serves_nothing(found):
        return Change.REPLACE
    change = definitions.change(item.type, item.definition, found.type or item.type, found.definition or {})
    if change is Change.NOTHING and found.status == "FAILED":
        # An older definition serves. The author asks for the same definition again, to repeat the failed build.
        return Change.UPDATE
    return change


def _of_another_type(item: AskedIndex, found: Listed) -> str:
    return (
        f"index {item.name} is a {found.type} index and a {item.type} index was asked for, which no update makes of it"
    )
