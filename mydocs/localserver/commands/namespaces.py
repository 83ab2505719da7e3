"""The commands on databases and collections: create, drop, rename, list, collMod. I/O through the store only."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from bson import Int64

from mydocs.localserver.catalogue.collection import ID_INDEX, Collection, Index
from mydocs.localserver.commands.context import Context, check_writable, number
from mydocs.localserver.errors import CommandError, NotKnown
from mydocs.localserver.query.fields import checked, fields
from mydocs.localserver.query.match import compile_filter
from mydocs.localserver.query.text import shown

Document = dict[str, Any]

COLL_MOD_INDEX = fields(
    "keyPattern:object name:string expireAfterSeconds:number hidden:bool unique:bool prepareUnique:bool"
)


def create(context: Context, body: Document) -> Document:
    """Create a plain collection."""
    name = context.collection_name(body)
    check_writable(context.database, name)
    for option in body:
        if option in CREATE_OPTIONS and body[option]:
            raise NotKnown(f"the option '{option}' of create")
    if context.store.collection(context.database, name):
        raise CommandError(48, f"Collection {context.database}.{name} already exists.")
    context.store.create(context.database, name)
    return {}


# What makes a collection something other than a plain one.
CREATE_OPTIONS = frozenset({
    "capped", "size", "max", "timeseries", "viewOn", "pipeline", "validator", "validationLevel", "validationAction",
    "expireAfterSeconds", "clusteredIndex", "changeStreamPreAndPostImages", "storageEngine", "indexOptionDefaults",
    "encryptedFields",
})  # fmt: skip


def drop(context: Context, body: Document) -> Document:
    """Drop a collection; one that is not there is dropped already."""
    name = context.collection_name(body)
    found = context.store.collection(context.database, name)
    if found is None:
        return {}
    _drop(context, found)
    return {"nIndexesWas": len(found.indexes), "ns": found.namespace}


def drop_database(context: Context, body: Document) -> Document:
    """Drop all collections of a database."""
    for found in _of_database(context):
        _drop(context, found)
    return {"dropped": context.database}


def rename_collection(context: Context, body: Document) -> Document:
    """Give a collection another name."""
    if context.database != "admin":
        raise CommandError(13, "renameCollection may only be run against the admin database.")
    source, target = (str(body[field]).partition(".") for field in ("renameCollection", "to"))
    check_writable(target[0], target[2])
    found = context.store.collection(source[0], source[2])
    if found is None:
        raise CommandError(26, f"Source collection {body['renameCollection']} does not exist")
    if source == target:
        raise CommandError(20, "Can't rename a collection to itself")
    standing = context.store.collection(target[0], target[2])
    if standing is not None:
        if not body.get("dropTarget"):
            raise CommandError(48, "target namespace exists")
        _drop(context, standing)
    context.store.rename(found, target[0], target[2])
    return {}


def list_collections(context: Context, body: Document) -> Document:
    """List the collections of a database."""
    accepts = compile_filter(body.get("filter", {}), now=context.now)
    shown_ = (
        {
            "name": found.name,
            "type": "collection",
            "options": {},
            "info": {"readOnly": False, "uuid": found.uuid},
            "idIndex": dict(ID_INDEX.spec),
        }
        for found in _of_database(context)
    )
    documents = [
        {"name": document["name"], "type": "collection"} if body.get("nameOnly") else document
        for document in shown_
        if accepts(document)
    ]
    size = number(body.get("cursor", {}), "batchSize", None)
    return context.cursor(f"{context.database}.$cmd.listCollections", documents, size)


def list_databases(context: Context, body: Document) -> Document:
    """List the databases that have a collection."""
    if context.database != "admin":
        raise CommandError(13, "listDatabases may only be run against the admin database.")
    accepts = compile_filter(body.get("filter", {}), now=context.now)
    sizes: dict[str, int] = {}
    for found in context.store.collections.values():
        sizes[found.database] = sizes.get(found.database, 0) + context.store.size(found)
    listed = [
        {"name": name, "sizeOnDisk": Int64(size), "empty": False}
        for name, size in sorted(sizes.items())
        if accepts({"name": name, "sizeOnDisk": Int64(size), "empty": False})
    ]
    if body.get("nameOnly"):
        return {"databases": [{"name": entry["name"]} for entry in listed]}
    total = sum(int(str(entry["sizeOnDisk"])) for entry in listed)
    return {"databases": listed, "totalSize": Int64(total), "totalSizeMb": Int64(total // 1024**2)}


def coll_stats(context: Context, body: Document) -> Document:
    """Say how much a collection holds."""
    name = context.collection_name(body)
    found = context.store.collection(context.database, name)
    documents, size = (context.store.count(found), context.store.size(found)) if found else (0, 0)
    average = {"avgObjSize": size // documents} if documents else {}
    return {
        "ns": f"{context.database}.{name}", "size": size, "count": documents, **average,
        "storageSize": size, "nindexes": len(found.indexes) if found else 0, "capped": False,
    }  # fmt: skip


def db_stats(context: Context, body: Document) -> Document:
    """Say how much a database holds."""
    found = _of_database(context)
    documents = sum(context.store.count(collection) for collection in found)
    size = sum(context.store.size(collection) for collection in found)
    return {
        "db": context.database, "collections": len(found), "views": 0, "objects": documents,
        "avgObjSize": size / documents if documents else 0, "dataSize": size, "storageSize": size,
        "indexes": sum(len(collection.indexes) for collection in found),
    }  # fmt: skip


def validate(context: Context, body: Document) -> Document:
    """Read a whole collection."""
    name = context.collection_name(body)
    found = context.existing(name, f"Collection '{context.database}.{name}' does not exist to validate.")
    documents = sum(1 for _ in context.store.scan(found))
    return {
        "ns": found.namespace, "nInvalidDocuments": 0, "nrecords": documents, "nIndexes": len(found.indexes),
        "valid": True, "warnings": [], "errors": [],
    }  # fmt: skip


def coll_mod(context: Context, body: Document) -> Document:
    """Change an index in place."""
    name = context.collection_name(body)
    found = context.existing(name, f"ns does not exist: {context.database}.{name}")
    for option in body:
        if option in COLL_MOD_OPTIONS:
            raise NotKnown(f"the option '{option}' of collMod")
    if "index" not in body:
        return {}
    wanted = checked("collMod.index", body["index"], COLL_MOD_INDEX)
    if ("name" in wanted) == ("keyPattern" in wanted):
        raise CommandError(72, "Must specify either index name or key pattern" + (" but not both" * ("name" in wanted)))
    if not wanted.keys() - {"name", "keyPattern"}:
        raise CommandError(72, "no expireAfterSeconds, hidden, unique, or prepareUnique field")
    matching = [
        index
        for index in found.indexes
        if (index.name == wanted["name"] if "name" in wanted else _same_key(index.key, wanted["keyPattern"]))
    ]
    if not matching:
        described = wanted.get("name") or shown(wanted["keyPattern"])
        raise CommandError(27, f"cannot find index {described} for ns {found.namespace}")
    if len(matching) > 1:
        raise CommandError(181, f"index keys pattern {shown(wanted['keyPattern'])} matches several indexes; name one")
    index = matching[0]
    if index.name == ID_INDEX.name and wanted.keys() & {"hidden", "unique", "prepareUnique", "expireAfterSeconds"}:
        raise CommandError(2 if "hidden" in wanted else 72, "can't modify the _id index")
    changed, reply = _modified(context, found, index, wanted)
    indexes = tuple(changed if each is index else each for each in found.indexes)
    context.store.save(replace(found, indexes=indexes))
    return reply


COLL_MOD_OPTIONS = frozenset({
    "validator", "validationLevel", "validationAction", "viewOn", "pipeline", "expireAfterSeconds", "timeseries",
    "cappedSize", "cappedMax", "changeStreamPreAndPostImages", "dryRun",
})  # fmt: skip


def _modified(
    context: Context, collection: Collection, index: Index, wanted: Mapping[str, Any]
) -> tuple[Index, Document]:
    spec, space, reply = dict(index.spec), index.space, {}
    if "expireAfterSeconds" in wanted:
        if len(index.key) != 1:
            raise CommandError(72, "TTL indexes are single-field indexes, compound indexes do not support TTL")
        if "expireAfterSeconds" in spec:
            reply["expireAfterSeconds_old"] = spec["expireAfterSeconds"]
        spec["expireAfterSeconds"] = reply["expireAfterSeconds_new"] = wanted["expireAfterSeconds"]
    for option in ("hidden", "prepareUnique"):
        if option in wanted:
            reply[f"{option}_old"], reply[f"{option}_new"] = bool(spec.pop(option, False)), bool(wanted[option])
            if wanted[option]:
                spec[option] = True
    if wanted.get("unique") and not spec.get("unique"):
        if not spec.get("prepareUnique"):
            raise CommandError(72, "Cannot make index unique with 'prepareUnique=false'. Run collMod to set it first.")
        # Only the finished index drops `prepareUnique`; until then both stand in the catalogue of a server too.
        spec = {**{name: value for name, value in spec.items() if name != "prepareUnique"}, "unique": True}
        violations = context.store.duplicates(collection, Index(spec, 0))
        if violations:
            raise CommandError(
                359,
                "Cannot convert the index to unique. Please resolve conflicting documents before running collMod "
                "again.",
                extra={"violations": [{"ids": ids} for ids in violations]},
            )
        space = next(context.store.spaces)
        context.store.fill(collection, Index(spec, space))
        reply["unique_new"] = True
    elif "unique" in wanted and not wanted["unique"]:
        raise CommandError(2, "collMod does not support converting an index to non-unique")
    return Index(spec, space), reply


def _same_key(left: Mapping[str, Any], right: Mapping[str, Any]) -> bool:
    return list(left.items()) == list(right.items())


def _of_database(context: Context) -> list[Collection]:
    found = [each for (database, _), each in context.store.collections.items() if database == context.database]
    return sorted(found, key=lambda collection: collection.name)


def _drop(context: Context, collection: Collection) -> None:
    context.store.drop(collection)
    context.engine.cursors.drop_collection(collection.namespace)
    context.engine.search.drop_collection(collection.identity)
