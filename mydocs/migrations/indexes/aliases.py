"""
Switch an alias to a search index, once that can be queried. I/O.

An alias is a document of `_search_aliases`, which applications read (:mod:`mydocs.search_aliases`). One write to one
document switches it, so a reader gets the old name or the new one. Each write carries the term of its run and never
replaces one of a later term: a paused holder of the lease switches nothing after its successor did.
"""

from collections.abc import Sequence
from typing import Any

import anyio
from pymongo.errors import OperationFailure

from mydocs.migrations.driver import commands, retry
from mydocs.migrations.driver.client import Collection, Database, database_of
from mydocs.migrations.errors import IndexConflict, LeaseLost, UsageError
from mydocs.migrations.indexes import capture
from mydocs.migrations.indexes.waiter import raise_unready, wait_for
from mydocs.migrations.ledger.documents import parse_aliases, run_document
from mydocs.migrations.limits import limits
from mydocs.migrations.model import IndexAction, RunStamp, SearchAlias, TrackedIndex
from mydocs.migrations.reporting.events import AliasSwitched, StillWaiting
from mydocs.migrations.scripts.script_context import context
from mydocs.search_aliases import COLLECTION

IN_TRANSACTION = "it waits for an index, which takes longer than a transaction may; do it in a migration of its own"


async def switch_search_alias(
    collection: Collection, alias: str, to: str, *, timeout: float | None = 3600.0
) -> SearchAlias:
    """
    Wait until a search index can be queried, then switch the alias to it. Applications follow within seconds.

    An alias that already names it stays as it is. To switch back, make the same call with the old index; it takes no
    time as long as that index exists.

    :param to: the name of the index
    :param timeout: seconds for the wait, 0 for one look, or ``None`` for no limit
    :return: the alias as it is now
    :raises IndexFailed: if the build has failed, or the index does not exist; the alias is unchanged
    :raises NotReady: if the time is up; the alias is unchanged
    :raises IndexConflict: if the alias names an index of another collection
    :raises LeaseLost: if a later run has switched the alias
    """
    context().refuse_in_transaction("switch_search_alias", IN_TRANSACTION)
    names: tuple[object, object] = alias, to
    if not all(isinstance(name, str) and name for name in names):
        raise UsageError(f"alias and index are names, not {alias!r} and {to!r}; pass two texts that are not empty")
    db, where = database_of(collection), collection.name
    captured = capture.of_database(db.name)
    record = None if captured is None else captured.record_of(where, to)
    index = TrackedIndex(collection=where, name=to)
    if record is not None and record.action is not IndexAction.DROPPED:
        index = record
    tracks = await wait_for(db, [index], timeout=timeout, sink=context().emit, server_now=context().clock())
    raise_unready(tracks, timeout or 0.0)
    if captured is not None:
        context().check_lease()
    switched = await _write(db, where, alias, to, None if captured is None else context().run)
    if captured is not None:
        captured.note_alias(switched)
    context().emit(AliasSwitched(alias=alias, collection=where, index=to, previous=switched.previous))
    return switched


async def make_way(db: Database, where: str, names: Sequence[str]) -> None:
    """
    Make sure that no application uses indexes that are about to be dropped.

    Wait if an alias named one of them until a few seconds ago, since an application may still have it in its cache.

    :raises IndexConflict: if an alias names one of them
    """
    of_these = {"$in": list(names)}
    query = {"collection": where, "$or": [{"index": of_these}, {"previous": of_these}]}
    seconds = {"$divide": [{"$subtract": ["$$NOW", "$switched_at"]}, 1000]}
    age = {"$cond": [{"$eq": [{"$type": "$switched_at"}, "date"]}, seconds, None]}  # it may have been edited by hand
    pipeline = [{"$match": query}, {"$set": {"age": age}}]
    found = await commands.documents_again(db, {"aggregate": COLLECTION, "pipeline": pipeline, "cursor": {}})
    named = [f"{alias['_id']} names {alias['index']}" for alias in found if alias.get("index") in names]
    if named:
        raise IndexConflict(
            where,
            f"nothing was dropped: the search alias {', '.join(named)}; let it name another index first "
            "(`switch_search_alias`)",
        )
    grace = limits().alias_grace
    left = max((grace - alias["age"] for alias in found if alias.get("age") is not None), default=0.0)
    if left > 0:
        listed = await retry.again(lambda: commands.search_listing(db, where, names))
        if any(index.get("name") in names for index in listed):
            users = tuple(f"applications that use {where}.{name}" for name in names)
            context().emit(StillWaiting(what=users, seconds=0.0))
            await anyio.sleep(min(left, grace))


async def _write(db: Database, where: str, alias: str, to: str, run: RunStamp | None) -> SearchAlias:
    command = _switch(where, alias, to, run)
    try:
        reply = await commands.command_again(db, command)
    except OperationFailure as error:
        if error.code != 11000:
            raise
        (found,) = await commands.documents_again(db, {"find": COLLECTION, "filter": {"_id": alias}})
        if found.get("collection") != where:
            raise IndexConflict(
                where, f"the search alias {alias} names an index of {found.get('collection')}; take another alias"
            ) from error
        if run is not None and found.get("run", {}).get("term", 0) > run.term:
            raise LeaseLost(run.term) from error
        reply = await commands.command_again(db, command)  # two runs created the alias at the same time
    (switched,) = parse_aliases([reply["value"]], "_id")
    return switched


def _switch(where: str, alias: str, to: str, run: RunStamp | None) -> dict[str, Any]:
    """Return the command for the switch. Sent again it changes neither ``previous`` nor the time."""
    conditions: list[dict[str, Any]] = [{"$or": [{"collection": where}, {"collection": {"$exists": False}}]}]
    if run is not None:
        conditions.append({"$or": [{"run.term": {"$lte": run.term}}, {"run.term": {"$exists": False}}]})
    is_so = {"$eq": ["$index", {"$literal": to}]}
    fields = {
        "collection": {"$literal": where},
        "index": {"$literal": to},
        "previous": {"$ifNull": [{"$cond": [is_so, "$previous", "$index"]}, None]},
        "switched_at": {"$cond": [is_so, {"$ifNull": ["$switched_at", "$$NOW"]}, "$$NOW"]},
        # Set even if nothing changes: by this term a late write of an earlier holder is recognised.
        "run": {"$literal": run_document(run)},
    }
    return {
        "findAndModify": COLLECTION,
        "query": {"_id": alias, "$and": conditions},
        "update": [{"$set": fields}],
        "upsert": True,
        "new": True,
        "writeConcern": commands.MAJORITY,
    }
