"""
Create standard indexes: the helper for scripts, and the application's own list, a step before the scripts. I/O.

Existing indexes are kept: a conflicting index is an error, and is never dropped.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from pymongo import IndexModel
from pymongo.errors import OperationFailure, PyMongoError

from mydocs.migrations.driver import commands, server_errors
from mydocs.migrations.driver.client import Collection, Database, database_of
from mydocs.migrations.driver.task_groups import all_or_first_error, at_the_same_time
from mydocs.migrations.errors import IndexConflict, UsageError
from mydocs.migrations.indexes import capture, standard_definitions
from mydocs.migrations.indexes.arguments import NO_INDEXES, by_collection, refuse_twice
from mydocs.migrations.indexes.standard_definitions import StandardAction
from mydocs.migrations.indexes.standard_list import IndexModels
from mydocs.migrations.limits import limits
from mydocs.migrations.model import IndexAction, IndexType, TrackedIndex
from mydocs.migrations.scripts.script_context import context

WHAT_TO_PASS = 'pass a list of pymongo.IndexModel, such as [IndexModel("status")]'
LONG_WORK = 3  # times `Limits.retries`; a shorter failure falls into the time of the retries
BUILD_TRIES = 100  # each of them took a minute and a half at least: two and a half hours in all
BUILDS_AT_ONCE = 3  # the server's own limit, maxNumActiveUserIndexBuilds; further builds would queue there

_STANDARD_ACTIONS = {
    StandardAction.CREATE: IndexAction.CREATED,
    StandardAction.MODIFY: IndexAction.UPDATED,
    StandardAction.PRESENT: IndexAction.UNCHANGED,
}


async def ensure_indexes(
    collection: Collection | Mapping[Collection, Iterable[IndexModel]],
    models: Iterable[IndexModel] | None = None,
) -> tuple[TrackedIndex, ...]:
    """
    Give standard indexes their definitions, in one build for all absent ones. Return when they are built.

    An index under another name with the same key and options counts as present. Expiry and hidden are changed in place.

    :param collection: of the indexes; or a mapping of several collections to their models, which are then handled at
        the same time
    :return: what was done, for each model in order
    :raises IndexConflict: if an index with other options is in the way; it is never dropped
    :raises UsageError: if the argument is not a list of models
    """
    context().refuse_in_transaction("ensure_indexes", NO_INDEXES)
    works = []
    for each, its_models in by_collection(collection, models, WHAT_TO_PASS):
        db, where = database_of(each), each.name
        documents = _documents(its_models)
        refuse_twice(where, [document["name"] for document in documents])
        works.append(partial(_ensure, db, where, documents))
    return await at_the_same_time(works, BUILDS_AT_ONCE)


async def _ensure(db: Database, where: str, documents: Sequence[Mapping[str, Any]]) -> tuple[TrackedIndex, ...]:
    listed = await commands.standard_listing(db, where)
    changes = [standard_definitions.standard_change(document, listed) for document in documents]
    conflicts = [change.sentence for change in changes if change.sentence]
    if conflicts:
        raise IndexConflict(where, *conflicts, standard=True)
    absent = [
        document for document, change in zip(documents, changes, strict=True) if change.action is StandardAction.CREATE
    ]
    if absent:
        await _create_standard(db, where, absent)
    records = []
    for document, change in zip(documents, changes, strict=True):
        if change.coll_mod is not None:
            await commands.command_again(db, {"collMod": where, "index": dict(change.coll_mod)})
        index = TrackedIndex(
            collection=where,
            name=change.name,
            type=IndexType.STANDARD,
            action=_STANDARD_ACTIONS[change.action],
            definition=standard_definitions.standard_definition(document),
        )
        capture.note(index, db.name)
        records.append(index)
    return tuple(records)


def _documents(models: object) -> list[dict[str, Any]]:
    """
    Return the index documents of models.

    :raises UsageError: if they are not models of standard indexes
    """
    if isinstance(models, IndexModel | Mapping):
        raise UsageError(f"one {type(models).__name__} is not a list of standard indexes; {WHAT_TO_PASS}")
    if isinstance(models, str | bytes) or not isinstance(models, Iterable):
        raise UsageError(f"a {type(models).__name__} is not a list of standard indexes; {WHAT_TO_PASS}")
    documents = []
    for model in models:
        if not isinstance(model, IndexModel):
            raise UsageError(f"a {type(model).__name__} is not a standard index; {WHAT_TO_PASS}")
        documents.append(dict(model.document))
    return documents


async def create_standard_indexes(db: Database, models: IndexModels) -> None:
    """
    Create the application's standard indexes: one command a collection, the collections at the same time.

    Existing indexes are listed only if the server refuses.

    :raises IndexConflict: if an existing index is in the way
    """
    works = [partial(_create_or_ensure, db, collection, wanted) for collection, wanted in models.items()]
    await all_or_first_error(works, BUILDS_AT_ONCE)


async def _create_or_ensure(db: Database, where: str, models: Sequence[IndexModel]) -> None:
    try:
        await _create_standard(db, where, [model.document for model in models])
    except OperationFailure as error:
        if error.code not in (85, 86):  # IndexOptionsConflict, IndexKeySpecsConflict
            raise
        await ensure_indexes(db[where], models)


async def _create_standard(db: Database, where: str, documents: Sequence[Mapping[str, Any]]) -> None:
    """
    Build standard indexes, however long it takes.

    There is no time limit, since an expired limit aborts the build. After a lost connection the same command joins the
    running build, so a failure after long work gets a new budget of retries. The number of retries is limited, since a
    build that is cut off again and again makes no progress.
    """
    command = {"createIndexes": where, "indexes": [dict(document) for document in documents]}
    for left in reversed(range(BUILD_TRIES)):
        started = time.monotonic()
        try:
            await commands.command_again(db, command)
        except PyMongoError as error:
            was_short = time.monotonic() - started < LONG_WORK * limits().retries
            if not left or was_short or not server_errors.is_transient(error):
                raise
        else:
            return
