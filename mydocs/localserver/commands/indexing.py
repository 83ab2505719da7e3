"""Implement the commands on indexes: create, list, drop, and the search-index commands. I/O through the store only."""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from bson import Int64

from mydocs.localserver.catalogue.collection import ID_INDEX, TIME_SERIES, Collection, Index
from mydocs.localserver.catalogue.index_specs import MAX_INDEXES, Spec, is_new, normal
from mydocs.localserver.commands.context import Context, number, refuse_view
from mydocs.localserver.errors import CommandError
from mydocs.localserver.query.text import shown

Document = dict[str, Any]


def create_indexes(context: Context, body: Document) -> Document:
    """Create the absent indexes: all of them or none."""
    name = context.collection_name(body)
    if not body["indexes"]:
        raise CommandError(2, "Must specify at least one index to create")
    found = context.store.collection(context.database, name)
    refuse_view(found)
    specs = [normal(spec) for spec in body["indexes"]]
    if found is not None and found.kind == TIME_SERIES and any(spec.get("unique") for spec in specs):
        raise CommandError(72, "Cannot create an index on a time-series collection with the option unique")
    fresh: list[Spec] = []
    existing = found.indexes if found is not None else (ID_INDEX,)
    for spec in specs:
        if is_new(spec, existing, fresh):
            fresh.append(spec)
    if len(existing) + len(fresh) > MAX_INDEXES:
        raise CommandError(
            67, f"add index fails, too many indexes for {context.database}.{name} key:{shown(fresh[-1])}"
        )
    if context.transaction is not None and found is not None and fresh:
        if (context.database, name) in context.transaction.base:
            kind = "existing"
        else:
            kind = "non-empty" if context.store.count(found) else ""
        if kind:
            raise CommandError(
                263,
                f"Cannot create new indexes on {kind} collection {context.database}.{name} "
                "in a multi-document transaction.",
            )
    collection = context.writable(context.database, name)
    collection = _built(context, collection, fresh) if fresh else collection
    reply: Document = {
        "numIndexesBefore": len(existing),
        "numIndexesAfter": len(collection.indexes),
        "createdCollectionAutomatically": found is None,
    }
    if not fresh:
        reply["note"] = "all indexes already exist"
    elif found is not None:
        reply["commitQuorum"] = "votingMembers"
    return reply


def list_indexes(context: Context, body: Document) -> Document:
    """List the indexes of a collection."""
    name = context.collection_name(body)
    found = context.existing(name, f"ns does not exist: {context.database}.{name}")
    refuse_view(found)
    size = number(body.get("cursor", {}), "batchSize", None)
    return context.cursor(found.namespace, [dict(index.spec) for index in found.indexes], size)


def drop_indexes(context: Context, body: Document) -> Document:
    """Drop indexes by name, by key, or (``*``) all but that on `_id`."""
    name = context.collection_name(body)
    found = context.existing(name, f"ns not found {context.database}.{name}")
    refuse_view(found)
    gone = _chosen(found, body["index"])
    for index in gone:
        if index.space is not None:
            context.store.clear(index.space)
    context.store.save(replace(found, indexes=tuple(index for index in found.indexes if index not in gone)))
    note = {"msg": "non-_id indexes dropped for collection"} if body["index"] == "*" else {}
    return {"nIndexesWas": len(found.indexes), **note}


def create_search_indexes(context: Context, body: Document) -> Document:
    """Add search indexes to the catalogue."""
    found = context.store.collection(context.database, context.collection_name(body))
    if found is not None and found.is_view:
        _check_searchable(found)
    return context.engine.search.create(*_search_target(context, body), body)


def _check_searchable(view: Collection) -> None:
    """Refuse a view that search indexes cannot follow, as mongot's ViewValidator.java does."""
    for stage in view.options["pipeline"]:
        ((operator, spec),) = stage.items()
        problem = None
        if operator not in ("$addFields", "$set", "$match"):
            problem = f"{operator} stage is not supported"
        elif operator == "$match" and spec and list(spec) != ["$expr"]:
            problem = "$match stage may only contain $expr"
        elif operator != "$match" and "_id" in spec:
            problem = "modifying _id field is not allowed"
        elif found := UNSTABLE.search(str(spec)):
            problem = f"{found.group()} is not allowed, as it does not always yield the same"
        if problem is not None:
            raise CommandError(2, f"the view {view.namespace} cannot have search indexes: {problem}")


UNSTABLE = re.compile(r"\$\$(?:NOW|CLUSTER_TIME|USER_ROLES)|'\$(?:rand|function)'")


def update_search_index(context: Context, body: Document) -> Document:
    """Give a search index another definition."""
    return context.engine.search.update(*_search_target(context, body), body)


def drop_search_index(context: Context, body: Document) -> Document:
    """Remove a search index from the catalogue."""
    return context.engine.search.drop(*_search_target(context, body), body)


def list_search_indexes(context: Context, body: Document) -> Document:
    """List search indexes as the deprecated command does. Drivers send the stage `$listSearchIndexes`."""
    database, name, identity = _search_target(context, body)
    context.existing(name, f"Collection '{database}.{name}' does not exist.")
    selector: Document = {key: body[key] for key in ("name", "id") if key in body}
    found = context.engine.search.list(database, name, identity, selector)
    return {"cursor": {"id": Int64(0), "ns": f"{database}.{name}", "firstBatch": found}}


def _search_target(context: Context, body: Mapping[str, Any]) -> tuple[str, str, Any]:
    name = context.collection_name(body)
    found = context.store.collection(context.database, name)
    return context.database, name, None if found is None else found.identity


def _built(context: Context, collection: Collection, specs: list[Spec]) -> Collection:
    made: list[Index] = []
    try:
        for spec in specs:
            index = Index(spec, next(context.store.spaces) if spec.get("unique") else None)
            context.store.fill(collection, index)
            made.append(index)
    except CommandError:
        for index in made:
            if index.space is not None:
                context.store.clear(index.space)
        raise
    built = replace(collection, indexes=(*collection.indexes, *made))
    context.store.save(built)
    return built


def _chosen(collection: Collection, wanted: Any) -> list[Index]:
    if wanted == "*":
        return [index for index in collection.indexes if index.name != ID_INDEX.name]
    if isinstance(wanted, Mapping):
        chosen = [index for index in collection.indexes if list(index.key.items()) == list(wanted.items())]
        if not chosen:
            raise CommandError(27, f"can't find index with key: {shown(wanted)}")
        if len(chosen) > 1:
            raise CommandError(181, f"{len(chosen)} indexes found for key: {shown(wanted)}; name one")
    else:
        chosen = []
        for name in wanted if isinstance(wanted, list) else [wanted]:
            index = collection.index(name) if isinstance(name, str) else None
            if index is None:
                raise CommandError(27, f"index not found with name [{name}]")
            chosen.append(index)
    if any(index.name == ID_INDEX.name for index in chosen):
        raise CommandError(72, "cannot drop _id index")
    return chosen
