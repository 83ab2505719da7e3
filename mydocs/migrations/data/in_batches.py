"""Change the documents of a collection on the server, batch by batch: no document travels. I/O."""

from collections.abc import Mapping
from typing import Any

from mydocs.migrations.data.statements import RAW, Batch, check_name, encoded, id_lists, shown
from mydocs.migrations.data.transform import IN_BATCHES, update
from mydocs.migrations.data.walk import Asked, Source, Work, call_key, walk
from mydocs.migrations.driver import mongo
from mydocs.migrations.errors import NotPossible
from mydocs.migrations.indexes import capture


async def rename_field(collection: mongo.Collection, old: str, new: str, *, batch_size: int = 1000) -> int:
    """
    Rename a field in every document that has it; paths with dots are fine.

    :return: documents that were changed, by earlier attempts of the same script too
    :raises NotPossible: before anything is changed: bad names, documents that have both fields (one value would be
        lost), arrays on the way; and in a script that says ``TRANSACTIONAL = True``
    """
    capture.refuse_in_transaction("rename_field", IN_BATCHES)
    _check_names(old, new)
    db, name = mongo.database_of(collection), collection.name
    both = {old: {"$exists": True}, new: {"$exists": True}}
    await _refuse_arrays(db, name, old, new)
    await _refuse_both(db, name, old, new, both)
    wanted = encoded({old: {"$exists": True}})

    async def ask(batch: Batch) -> Asked:
        query = {old: {"$exists": True}, new: {"$exists": False}}
        queries = [{"_id": {"$in": ids}, **query} for ids in id_lists(batch)]
        return Asked([encoded({"q": q, "u": {"$rename": {old: new}}, "multi": True}) for q in queries], len(batch))

    async def write(batch: Batch, statements: Batch) -> int:
        _, changed = await update(db, name, statements)
        if changed < len(batch):  # others wrote meanwhile: it may be gone, done, or have both now
            for ids in id_lists(batch):
                await _refuse_both(db, name, old, new, {"$and": [{"_id": {"$in": ids}}, both]})
        return changed

    source = Source(db=db, name=name, wanted=wanted, projection={"_id": 1})
    checkpoint = capture.checkpoint(call_key("rename_field", name, old, new))
    return (await walk(source, Work(ask=ask, write=write), checkpoint, batch_size=batch_size, pause=0.0)).changed


async def unset_field(collection: mongo.Collection, field: str, *, batch_size: int = 1000) -> int:
    """
    Remove a field from every document that has it; paths with dots are fine.

    :return: documents that were changed, by earlier attempts of the same script too
    :raises NotPossible: before anything is changed: a bad name, arrays on the way; and in a script that says
        ``TRANSACTIONAL = True``
    """
    capture.refuse_in_transaction("unset_field", IN_BATCHES)
    _check_names(field)
    db, name = mongo.database_of(collection), collection.name
    await _refuse_arrays(db, name, field)

    async def ask(batch: Batch) -> Asked:
        queries = [{"_id": {"$in": ids}, field: {"$exists": True}} for ids in id_lists(batch)]
        return Asked([encoded({"q": q, "u": {"$unset": {field: ""}}, "multi": True}) for q in queries], len(batch))

    async def write(batch: Batch, statements: Batch) -> int:
        return (await update(db, name, statements))[1]

    source = Source(db=db, name=name, wanted=encoded({field: {"$exists": True}}), projection={"_id": 1})
    checkpoint = capture.checkpoint(call_key("unset_field", name, field))
    return (await walk(source, Work(ask=ask, write=write), checkpoint, batch_size=batch_size, pause=0.0)).changed


def _check_names(*names: str) -> None:
    for name in names:
        check_name(name)
        if name.partition(".")[0] == "_id":
            raise NotPossible("_id cannot be changed; insert new documents instead")
    if len(names) == 2 and (f"{names[0]}.".startswith(f"{names[1]}.") or f"{names[1]}.".startswith(f"{names[0]}.")):
        raise NotPossible(f"{names[0]!r} cannot become {names[1]!r}: they are one, or one is inside the other")


async def _refuse_arrays(db: mongo.Database, name: str, *fields: str) -> None:
    """Look for arrays on the way to a field: there the server renames nothing and unsets nothing."""
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


async def _refuse_both(db: mongo.Database, name: str, old: str, new: str, query: Mapping[str, Any]) -> None:
    found = await _example(db, name, query)
    if found is not None:
        identity, count = found
        raise NotPossible(
            f"{name}: {count} documents have both {old} and {new}, among them that with _id {identity!r}, and renaming "
            "would lose a value; settle them first (unset_field, or transform with what is to become of both)"
        )


async def _example(db: mongo.Database, name: str, query: Mapping[str, Any]) -> tuple[object, int] | None:
    """Return one `_id` that matches and how many do."""
    counted = {"$group": {"_id": None, "count": {"$sum": 1}, "example": {"$first": "$_id"}}}
    body = {"aggregate": name, "pipeline": [{"$match": query}, counted], "cursor": {}}
    found = await mongo.documents_again(db, body, codec_options=RAW)
    return (shown(found[0]["example"]), int(found[0]["count"])) if found else None
