"""Change the documents of a collection on the server, batch by batch: no document travels. I/O."""

import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from bson.raw_bson import RawBSONDocument

from mydocs.migrations.data import order
from mydocs.migrations.data.cluster import Lag
from mydocs.migrations.data.job import update_documents
from mydocs.migrations.data.statements import (
    MESSAGE_BYTES,
    RAW,
    Batch,
    Guard,
    check_name,
    encoded,
    id_lists,
    place_of,
    shown,
)
from mydocs.migrations.data.transform import IN_BATCHES
from mydocs.migrations.data.walk import Asked, Place, Source, Work, call_key, say_end, walk
from mydocs.migrations.driver import commands, retry
from mydocs.migrations.driver.client import Collection, Database, database_of
from mydocs.migrations.errors import NotPossible
from mydocs.migrations.scripts.script_context import Checkpoint, context

# Groups of types for which `$gte` and `$lte` find what lies between two values, and nothing of another group.
RANGED = frozenset({order.NUMBER, order.TEXT, order.BINARY, order.OBJECT_ID, order.DATE})
EXAMPLES = 100  # documents that are searched for one that a batch should have changed


async def update_in_batches(
    collection: Collection,
    filter: Mapping[str, Any],  # noqa: A002  # as the drivers call it
    update: Mapping[str, Any] | Sequence[Mapping[str, Any]],
    *,
    batch_size: int = 10_000,
) -> int:
    """
    Change every document that matches with one update on the server, in the order of `_id`.

    **The filter must leave out documents that are done**, since a batch is sent again after a lost reply or a kill.
    This is checked after each batch.

    :param update: an update document with operators, or a pipeline
    :param batch_size: number of documents that one command changes
    :return: number of changed documents, including those of earlier attempts of the same script
    :raises NotPossible: if the filter still matches documents that were just changed, before more is done; for an
        update that cannot change many documents; in a script with ``TRANSACTIONAL = True``
    """
    context().refuse_in_transaction("update_in_batches", IN_BATCHES)
    name, options = collection.name, collection.codec_options
    operators = not isinstance(update, Mapping) or all(str(key).startswith("$") for key in update)
    if not update or not operators:
        raise NotPossible(
            f"{name}: update_in_batches needs an update document with operators such as $set, or a pipeline; to write "
            "a replacement for each document use transform"
        )
    if not filter:
        raise NotPossible(
            f"{name}: update_in_batches needs a filter that leaves out what is done, and {{}} matches every document; "
            'name the field that the update sets, as in {"field": {"$exists": False}}'
        )
    sent = encoded({"u": list(update) if not isinstance(update, Mapping) else update}, options)
    wanted = encoded(filter, options)
    checked = _Batches(collection, wanted, sent["u"])
    checkpoint = context().checkpoint(call_key("update_in_batches", name, wanted.raw, sent.raw))
    return await checked.run(checkpoint, batch_size, checked.refuse_what_still_matches)


async def rename_field(collection: Collection, old: str, new: str, *, batch_size: int = 10_000) -> int:
    """
    Rename a field in every document that has it; paths with dots are fine.

    :param batch_size: number of documents that one command changes
    :return: number of changed documents, including those of earlier attempts of the same script
    :raises NotPossible: before anything is changed: for bad names, documents that have both fields (one value would be
        lost), arrays on the path; in a script with ``TRANSACTIONAL = True``
    """
    context().refuse_in_transaction("rename_field", IN_BATCHES)
    _check_names(old, new)
    db, name = database_of(collection), collection.name
    both = {old: {"$exists": True}, new: {"$exists": True}}
    await _refuse_arrays(db, name, old, new)
    await _refuse_both(db, name, old, new, both)
    renamed = _Batches(
        collection, encoded({old: {"$exists": True}}), {"$rename": {old: new}}, {new: {"$exists": False}}
    )

    async def refuse_both(batch: Batch, changed: int) -> None:
        if changed < len(batch):  # a concurrent write: a document may be gone, done, or have both now
            for bounds in _bounds(batch):
                await _refuse_both(db, name, old, new, {"$and": [bounds, both]})

    return await renamed.run(context().checkpoint(call_key("rename_field", name, old, new)), batch_size, refuse_both)


async def unset_field(collection: Collection, field: str, *, batch_size: int = 10_000) -> int:
    """
    Remove a field from every document that has it; paths with dots are fine.

    :param batch_size: number of documents that one command changes
    :return: number of changed documents, including those of earlier attempts of the same script
    :raises NotPossible: before anything is changed: for a bad name, arrays on the path; in a script with
        ``TRANSACTIONAL = True``
    """
    context().refuse_in_transaction("unset_field", IN_BATCHES)
    _check_names(field)
    db, name = database_of(collection), collection.name
    await _refuse_arrays(db, name, field)
    unset = _Batches(collection, encoded({field: {"$exists": True}}), {"$unset": {field: ""}})
    return await unset.run(context().checkpoint(call_key("unset_field", name, field)), batch_size)


class _StillMatches(NotPossible):
    def __init__(self, name: str, identity: bytes) -> None:
        self.identity = identity
        super().__init__(
            f"{name}: the filter still matches documents that were just changed, among them that with _id "
            f"{shown(RawBSONDocument(identity, RAW)['_id'])!r}, so nothing more is done; the filter must leave out "
            "what is done, and the application must not write the old form at the same time"
        )


class _Batches:
    """
    One update of many documents, cut into batches.

    :param also: a condition for the update that the walk does not have
    """

    def __init__(
        self,
        collection: Collection,
        wanted: RawBSONDocument,
        update: Any,
        also: Mapping[str, Any] | None = None,
    ) -> None:
        self.db, self.name = database_of(collection), collection.name
        self.source = Source(db=self.db, name=self.name, wanted=wanted, projection={"_id": 1})
        self.update = update
        self.conditions = [wanted, *([also] if also else [])]

    async def run(
        self,
        checkpoint: Checkpoint,
        batch_size: int,
        check: Callable[[Batch, int], Awaitable[None]] | None = None,
    ) -> int:
        """
        Run the update batch by batch.

        :param check: called with each batch once it is written, and with the number of its changed documents
        """
        if batch_size < 1:
            raise NotPossible(f"batch_size is {batch_size} and must be 1 or more")
        place = Place.of(checkpoint.place)
        if (
            place.refused is not None
        ):  # by an earlier attempt of the same script: check this document before anything is sent
            await self._refuse({"_id": RawBSONDocument(place.refused, RAW)["_id"]}, {place.refused})

        async def ask(batch: Batch) -> Asked:
            statements = [{"q": self._query(bounds), "u": self.update, "multi": True} for bounds in _bounds(batch)]
            return Asked([encoded(statement) for statement in statements], len(batch))

        lag = Lag(self.db, self.name, context().max_lag)

        async def write(batch: Batch, statements: Batch) -> int:
            await lag.bearable()
            if check == self.refuse_what_still_matches and place.done == 0:
                changed = await self._write_unproven(batch, statements)
            else:
                _, changed = await update_documents(self.db, self.name, statements)
            if check is not None:
                await check(batch, changed)
            return changed

        try:
            work = Work(ask=ask, write=write)
            matching = await walk(self.source, work, checkpoint, place, batch_size=batch_size, pause=0.0)
        except _StillMatches as error:
            place.refused = error.identity
            await checkpoint.save(place.stored())
            raise
        await say_end(self.source, matching, place.changed, 0, None)
        return place.changed

    async def _write_unproven(self, batch: Batch, statements: Batch) -> int:
        """
        Write the first batch, before it is known whether the filter leaves out documents that are done.

        If its reply is lost, the batch may be done or not. One document that was read before shows whether the batch
        may be sent again: the document is changed if it is still as it was, and must not match the filter afterwards.
        """
        body = {"find": self.name, "filter": {"_id": {"$eq": batch[0]["_id"]}}, "limit": 1}
        before = await commands.documents_again(self.db, body, codec_options=RAW)
        try:
            return (await update_documents(self.db, self.name, statements, commands.command))[1]
        except Exception as error:
            if not before or not retry.is_worth_another_try(error):
                raise
            query = Guard().query(encoded(before[0])) | {"$and": self.conditions}
            one = encoded({"q": query, "u": self.update})
            if len(one.raw) > MESSAGE_BYTES:
                raise
        _, proving = await update_documents(self.db, self.name, [one])
        await self._refuse({"_id": batch[0]["_id"]}, {place_of(batch[0])})
        return proving + (await update_documents(self.db, self.name, statements))[1]

    async def refuse_what_still_matches(self, batch: Batch, _: int) -> None:
        """
        Check that the documents of a batch no longer match.

        :raises NotPossible: if documents of a batch that was just written match as before
        """
        ids = set(map(place_of, batch))
        for bounds in _bounds(batch):
            await self._refuse(bounds, ids)

    async def _refuse(self, bounds: Mapping[str, Any], ids: set[bytes]) -> None:
        query = {"find": self.name, "filter": self._query(bounds), "projection": {"_id": 1}, "limit": EXAMPLES}
        # Other clients may have inserted some; those do not belong to this batch.
        found = map(encoded, await commands.documents_again(self.db, query, codec_options=RAW))
        still = next((identity for identity in map(place_of, found) if identity in ids), None)
        if still is not None:
            raise _StillMatches(self.name, still)

    def _query(self, bounds: Mapping[str, Any]) -> dict[str, Any]:
        return {"$and": [bounds, *self.conditions]}


def _bounds(batch: Batch) -> list[dict[str, Any]]:
    """
    Return conditions on `_id` that hold for the documents of a batch, and for none of another batch.

    It is a range if all values are of one group of types, since a condition sees no others; else a list.
    """
    conditions: list[dict[str, Any]] = []
    start = 0
    groups = [_group(document["_id"]) for document in batch]
    for end in range(1, len(batch) + 1):
        if end < len(batch) and groups[end] == groups[start]:
            continue
        part = batch[start:end]
        if groups[start] in RANGED:
            conditions.append({"_id": {"$gte": part[0]["_id"], "$lte": part[-1]["_id"]}})
        else:
            conditions += [{"_id": {"$in": ids}} for ids in id_lists(part)]
        start = end
    return conditions


def _group(identity: object) -> int | None:
    is_nan = isinstance(identity, float) and math.isnan(identity)
    return None if is_nan else order.rank(identity)


def _check_names(*names: str) -> None:
    for name in names:
        check_name(name)
        if name.partition(".")[0] == "_id":
            raise NotPossible("_id cannot be changed; insert new documents instead")
    if len(names) == 2 and (f"{names[0]}.".startswith(f"{names[1]}.") or f"{names[1]}.".startswith(f"{names[0]}.")):
        raise NotPossible(f"{names[0]!r} cannot become {names[1]!r}: they are one, or one is inside the other")


async def _refuse_arrays(db: Database, name: str, *fields: str) -> None:
    """Refuse arrays on the path to a field, where the server cannot rename or unset the field."""
    ways = sorted({field[:place] for field in fields for place, sign in enumerate(field) if sign == "."})
    if not ways:
        return
    query = {fields[0]: {"$exists": True}, "$or": [{way: {"$type": "array"}} for way in ways]}
    found = await _example(db, name, query)
    if found is not None:
        identity, count = found
        raise NotPossible(
            f"{name}: on the way to {' or '.join(fields)} {count} documents have an array, among them that with _id "
            f"{identity!r}; a server cannot change fields in the elements of arrays like that, so use transform"
        )


async def _refuse_both(db: Database, name: str, old: str, new: str, query: Mapping[str, Any]) -> None:
    found = await _example(db, name, query)
    if found is not None:
        identity, count = found
        raise NotPossible(
            f"{name}: {count} documents have both {old} and {new}, among them that with _id {identity!r}, and renaming "
            "would lose a value; correct them first (unset_field, or transform with what is to become of both)"
        )


async def _example(db: Database, name: str, query: Mapping[str, Any]) -> tuple[object, int] | None:
    """Return one `_id` that matches, and the number of matches."""
    counted = {"$group": {"_id": None, "count": {"$sum": 1}, "example": {"$first": "$_id"}}}
    body = {"aggregate": name, "pipeline": [{"$match": query}, counted], "cursor": {}}
    found = await commands.documents_again(db, body, codec_options=RAW)
    return (shown(found[0]["example"]), int(found[0]["count"])) if found else None
