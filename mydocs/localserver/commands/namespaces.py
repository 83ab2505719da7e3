"""Implement the commands on databases and collections: create, drop, rename, list, collMod. I/O through the store."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from bson import Int64

from mydocs.localserver.aggregation.pipeline import run_pipeline
from mydocs.localserver.catalogue.collection import COLLECTION, ID_INDEX, TIME_SERIES, VIEW, Collection, Index
from mydocs.localserver.catalogue.options import collection_options, expiry, validation
from mydocs.localserver.commands.context import Context, check_writable, number, refuse_changes, refuse_view
from mydocs.localserver.commands.reads import Collections
from mydocs.localserver.errors import CommandError, NotKnown
from mydocs.localserver.query.fields import checked, fields
from mydocs.localserver.query.match import compile_filter
from mydocs.localserver.query.text import shown

Document = dict[str, Any]

COLL_MOD_INDEX = fields(
    "keyPattern:object name:string expireAfterSeconds:number hidden:bool unique:bool prepareUnique:bool"
)


def create(context: Context, body: Document) -> Document:
    """Create a collection, a view or a time series."""
    name = context.collection_name(body)
    check_writable(context.database, name)
    kind, options = collection_options(body)
    if context.store.collection(context.database, name):
        raise CommandError(48, f"Collection {context.database}.{name} already exists.")
    if kind == VIEW:
        _check_view(context, name, options)
    created = context.store.create(context.database, name, kind, options)
    if kind == TIME_SERIES and "metaField" in options["timeseries"]:
        keys = (options["timeseries"]["metaField"], options["timeseries"]["timeField"])
        index = Index({"v": 2, "key": dict.fromkeys(keys, 1), "name": "_".join(f"{key}_1" for key in keys)})
        context.store.save(replace(created, indexes=(index,)))
    return {}


VIEW_DEPTH = 20  # views over views; ViewGraph::kMaxViewDepth


def _check_view(context: Context, name: str, options: Document) -> None:
    """Refuse a view whose pipeline is not valid, or that depends on itself."""
    run_pipeline(options["pipeline"], (), collections=Collections(context, name), now=context.now)
    above, level = {name}, [options]
    for _ in range(VIEW_DEPTH):
        below = [source for each in level for source in _sources(each)]
        if above.intersection(below):
            raise CommandError(5, f"View cycle detected: {context.database}.{name} rests on itself")
        views = [context.store.collection(context.database, source) for source in below]
        level = [dict(view.options) for view in views if view is not None and view.is_view]
        if not level:
            return
    raise CommandError(165, f"View depth limit exceeded; maximum depth is {VIEW_DEPTH}")


def _sources(options: Mapping[str, Any]) -> list[str]:
    """Return the names of the collections that a view reads."""
    found = [options["viewOn"]]
    for stage in options["pipeline"]:
        ((operator, spec),) = stage.items()
        if operator in ("$lookup", "$graphLookup") and isinstance(spec.get("from"), str):
            found.append(spec["from"])
        elif operator == "$unionWith":
            found.append(spec if isinstance(spec, str) else spec.get("coll", ""))
    return found


def drop(context: Context, body: Document) -> Document:
    """Drop a collection. An absent one is not an error."""
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
    refuse_changes(found)
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
            "type": found.kind,
            "options": dict(found.options),
            "info": {"readOnly": True} if found.is_view else {"readOnly": False, "uuid": found.uuid},
            **({"idIndex": dict(ID_INDEX.spec)} if found.kind == COLLECTION else {}),
        }
        for found in _of_database(context)
    )
    documents = [
        {"name": document["name"], "type": document["type"]} if body.get("nameOnly") else document
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
    """Return the size of a collection."""
    name = context.collection_name(body)
    found = context.store.collection(context.database, name)
    refuse_view(found)
    limits = found.options if found is not None else {}
    capped = {"capped": "capped" in limits}
    if "capped" in limits:
        capped |= {"max": limits.get("max", -1), "maxSize": limits["size"]}
    documents, size = (context.store.count(found), context.store.size(found)) if found else (0, 0)
    average = {"avgObjSize": size // documents} if documents else {}
    return {
        "ns": f"{context.database}.{name}", "size": size, "count": documents, **average,
        "storageSize": size, "nindexes": len(found.indexes) if found else 0, **capped,
    }  # fmt: skip


def db_stats(context: Context, body: Document) -> Document:
    """Return the size of a database."""
    views = [collection for collection in _of_database(context) if collection.is_view]
    found = [collection for collection in _of_database(context) if not collection.is_view]
    documents = sum(context.store.count(collection) for collection in found)
    size = sum(context.store.size(collection) for collection in found)
    return {
        "db": context.database, "collections": len(found), "views": len(views), "objects": documents,
        "avgObjSize": size / documents if documents else 0, "dataSize": size, "storageSize": size,
        "indexes": sum(len(collection.indexes) for collection in found),
    }  # fmt: skip


def validate(context: Context, body: Document) -> Document:
    """Read a whole collection."""
    name = context.collection_name(body)
    found = context.existing(name, f"Collection '{context.database}.{name}' does not exist to validate.")
    refuse_view(found)
    documents = sum(1 for _ in context.store.scan(found))
    return {
        "ns": found.namespace, "nInvalidDocuments": 0, "nrecords": documents, "nIndexes": len(found.indexes),
        "valid": True, "warnings": [], "errors": [],
    }  # fmt: skip


def coll_mod(context: Context, body: Document) -> Document:
    """Change a collection's options, or an index in place."""
    name = context.collection_name(body)
    found = context.existing(name, f"ns does not exist: {context.database}.{name}")
    modified = _with_options(context, found, body)
    if modified != found:
        context.store.save(modified)
        found = modified
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


NOT_MODIFIED = ("timeseries", "cappedSize", "cappedMax", "dryRun")


def _with_options(context: Context, collection: Collection, body: Mapping[str, Any]) -> Collection:
    for option in NOT_MODIFIED:
        if body.get(option):
            raise NotKnown(f"the option '{option}' of collMod")
    given = {option for option in COLLECTION_OPTIONS | VIEW_OPTIONS if option in body}
    wrong = given - (VIEW_OPTIONS if collection.is_view else COLLECTION_OPTIONS)
    if wrong or (collection.is_view and "index" in body):
        raise CommandError(72, f"option not supported on a {collection.kind}: {', '.join(sorted(wrong)) or 'index'}")
    options = dict(collection.options)
    if collection.is_view and given:
        if given != VIEW_OPTIONS:
            raise CommandError(72, "Both viewOn and pipeline must be specified")
        _, options = collection_options(body)
        _check_view(context, collection.name, options)
    if given & VALIDATION:
        if collection.kind == TIME_SERIES:
            raise CommandError(72, "a time series collection has no validator")
        options |= validation("collMod", body)
        if not options.get("validator"):
            options = {name: value for name, value in options.items() if name != "validator"}
        else:
            options = {"validationLevel": "strict", "validationAction": "error", **options}
    if "expireAfterSeconds" in given:
        if collection.kind != TIME_SERIES:
            raise CommandError(72, "'expireAfterSeconds' is only supported on time-series collections")
        options.pop("expireAfterSeconds", None)
        options |= expiry(body)
    if "changeStreamPreAndPostImages" in given:
        options["changeStreamPreAndPostImages"] = body["changeStreamPreAndPostImages"]
    return replace(collection, options=options)


VALIDATION = frozenset({"validator", "validationLevel", "validationAction"})
VIEW_OPTIONS = frozenset({"viewOn", "pipeline"})
COLLECTION_OPTIONS = VALIDATION | {"expireAfterSeconds", "changeStreamPreAndPostImages"}


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
        # Only the finished index drops `prepareUnique`. Until then a server's catalogue also has both.
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
