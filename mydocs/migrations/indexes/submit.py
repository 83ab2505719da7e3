"""
Create, update and drop search indexes, and wait until a dropped one is gone. I/O.

No command is repeated blindly: after a lost reply the listing shows what happened, since on self-managed servers even
an unchanged update rebuilds the index.
"""

import logging
import time
from collections.abc import Sequence
from contextlib import nullcontext

import anyio
from pymongo.errors import ConnectionFailure, OperationFailure, PyMongoError

from mydocs.migrations.driver import commands, retry, server_errors
from mydocs.migrations.driver.client import Database
from mydocs.migrations.driver.dialects import Meaning
from mydocs.migrations.errors import IndexConflict, IndexRefused, NotReady, SearchUnavailable
from mydocs.migrations.indexes import capture, definitions, readiness
from mydocs.migrations.indexes.arguments import AskedIndex
from mydocs.migrations.indexes.build_slots import free_slots
from mydocs.migrations.indexes.definitions import Change
from mydocs.migrations.indexes.readiness import Listed
from mydocs.migrations.limits import limits
from mydocs.migrations.model import IndexAction, IndexType, TrackedIndex

logger = logging.getLogger(__name__)

NOT_REPLACED = "the server goes on deleting it, and the migration creates it when it runs again: `mydocs migrate run`"


def conflict(where: str, *problems: str) -> IndexConflict:
    return IndexConflict(
        where,
        *problems,
        remedy="nothing was dropped. Two ways on: give the new definition another name, and let the application "
        "change over once it is ready (`switch_search_alias`), so that queries are answered all the time; or pass "
        "replace=True, which drops the index and creates it, and no query is answered until it is built",
    )


async def create(db: Database, where: str, asked: Sequence[AskedIndex]) -> dict[str, str]:
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


async def _create_batch(db: Database, where: str, asked: Sequence[AskedIndex]) -> dict[str, str]:
    """Create indexes in one command, or one by one if the server refuses them together; see :func:`create`."""
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
            done(db, where, item, action, ids.get(item.name))
    if problems:
        raise IndexRefused(where, problems, others_created=len(problems) < len(asked))
    return ids


async def _create_together(db: Database, where: str, asked: Sequence[AskedIndex]) -> dict[str, str]:
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
            listed = await listed_now(db, where, missing)
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


async def update(db: Database, where: str, item: AskedIndex) -> IndexAction:
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
                    raise conflict(where, problem) from error
                raise IndexRefused(where, [_refusal(item, error)]) from error
            if not server_errors.is_transient(error) or time.monotonic() - started > limits().search:
                raise
            if isinstance(error, ConnectionFailure):
                capture.unanswered(db.name, command)
            logger.info("updating search index %s of %s: %s; reading the listing", item.name, where, error)
            await anyio.sleep(limits().gone_gap)
            found = (await listed_now(db, where, [item])).get(item.name)
            if found is None or not _is_equal(item, found):
                continue
        return IndexAction.UPDATED


def _is_no_update(item: AskedIndex, error: OperationFailure) -> bool:
    """Return whether the server refuses the update as such, and not because of the definition."""
    read_as_search = item.type is IndexType.VECTOR and server_errors.says(error, Meaning.READ_AS_SEARCH)
    return read_as_search or server_errors.says(error, Meaning.NOT_BY_UPDATE)


async def drop(db: Database, where: str, name: str) -> bool:
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
        return error.code not in (26, 27)  # another code: it is being deleted
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


async def listed_now(db: Database, where: str, asked: Sequence[AskedIndex]) -> dict[str, Listed]:
    """Return the listed indexes by name, without those that are being deleted."""
    names = [item.name for item in asked]
    documents = await retry.again(lambda: commands.search_listing(db, where, names), seconds=limits().search)
    listed = map(readiness.parse, documents)
    leaving = ("DELETING", "DOES_NOT_EXIST")
    return {item.name: item for item in listed if item.name is not None and item.status not in leaving}


def _is_equal(item: AskedIndex, found: Listed) -> bool:
    kind = found.type or item.type
    return definitions.change(item.type, item.definition, kind, found.definition or {}) is Change.NOTHING


def _refusal(item: AskedIndex, error: OperationFailure) -> str:
    name, text = item.name, server_errors.text_of(error)
    lost = f"; the old index {name} was dropped to make room for it and no longer serves" if item.replacing else ""
    if server_errors.says(error, Meaning.NO_ROOM):
        return f"no room for index {name}: {text}; drop an index or take a larger cluster tier{lost}"
    return f"the server does not take index {name}: {text} (code {error.code}){lost}"


def done(db: Database, where: str, item: AskedIndex, action: IndexAction, index_id: str | None = None) -> TrackedIndex:
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
