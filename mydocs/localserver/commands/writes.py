"""Implement the commands that write documents: insert, update, delete, findAndModify. I/O through the store only."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from bson import ObjectId, Regex, Timestamp

from mydocs.localserver.commands.context import Context, check_writable, refuse_changes, refuse_collation, refuse_view
from mydocs.localserver.commands.reads import matching
from mydocs.localserver.errors import CommandError, NotKnown
from mydocs.localserver.query.fields import checked_alike, fields
from mydocs.localserver.query.match import Filters
from mydocs.localserver.query.projection import compile_projection
from mydocs.localserver.update.apply import Update, compile_update, upsert_base
from mydocs.localserver.wire import messages

Document = dict[str, Any]
UPDATE = fields("q:object! u:change! multi:bool upsert:bool collation:object arrayFilters:array hint:any c:any")
DELETE = fields("q:object! limit:any! collation:object hint:any")
Statement = Callable[[int, Mapping[str, Any]], None]


def insert(context: Context, body: Document) -> Document:
    """Store new documents. The first one creates the collection if it is absent."""
    name = context.collection_name(body)
    check_writable(context.database, name)
    refuse_view(context.store.collection(context.database, name))
    inserted = 0

    def one(_: int, document: Mapping[str, Any]) -> None:
        nonlocal inserted
        collection = context.writable(context.database, name)
        identified = with_identity(_stamped(document, context))
        context.check(collection, identified)
        context.store.insert(collection, identified)
        inserted += 1

    errors = _each(context, body, body["documents"], len(body["documents"]), one)
    return {"n": inserted, **errors}


def update(context: Context, body: Document) -> Document:
    """Change, replace or upsert documents."""
    name = context.collection_name(body)
    check_writable(context.database, name)
    refuse_changes(context.store.collection(context.database, name))
    # All are checked before the first one runs. The checked ones are not stored, since there may be 100,000.
    for statement in checked_alike("update.updates", body["updates"], UPDATE):
        refuse_collation(statement)
        if "c" in statement:
            raise NotKnown("constants ('c') in an update")
    changes = _Changes(context, name, context.variables(body))

    def one(place: int, statement: Mapping[str, Any]) -> None:
        many = bool(statement.get("multi"))
        changes.update(place, statement["q"], statement["u"], statement, many=many)

    statements = checked_alike("update.updates", body["updates"], UPDATE)
    errors = _each(context, body, statements, len(body["updates"]), one)
    upserted = {"upserted": changes.upserted} if changes.upserted else {}
    return {"n": changes.matched, "nModified": changes.modified, **upserted, **errors}


def delete(context: Context, body: Document) -> Document:
    """Delete the first document that matches, or all of them."""
    collection = context.store.collection(context.database, context.collection_name(body))
    refuse_view(collection)
    for statement in checked_alike("delete.deletes", body["deletes"], DELETE):
        refuse_collation(statement)
        if statement["limit"] not in (0, 1):
            raise CommandError(9, f"The limit field in delete objects must be 0 or 1. Got {statement['limit']}")
    variables = context.variables(body)
    deleted = 0

    def one(_: int, statement: Mapping[str, Any]) -> None:
        nonlocal deleted
        for document in matching(context, collection, statement["q"], variables, hint=statement.get("hint")):
            assert collection is not None
            context.store.delete(collection, document)
            deleted += 1
            if statement["limit"]:
                break

    statements = checked_alike("delete.deletes", body["deletes"], DELETE)
    errors = _each(context, body, statements, len(body["deletes"]), one)
    return {"n": deleted, **errors}


def find_and_modify(context: Context, body: Document) -> Document:
    """Change or delete one document and return it, before or (`new`) after the change."""
    name = context.collection_name(body)
    remove, new, upsert = (bool(body.get(option)) for option in ("remove", "new", "upsert"))
    if remove == ("update" in body):
        raise CommandError(
            9,
            "Cannot specify both an 'update' and 'remove'=true"
            if remove
            else "Either an update or remove=true must be specified",
        )
    if remove and (new or upsert):
        option = "'upsert'=true" if upsert else "'new'=true; 'remove' always returns the deleted document"
        raise CommandError(9, f"Cannot specify both 'remove'=true and {option}")
    if remove and "arrayFilters" in body:
        raise CommandError(9, "Cannot specify arrayFilters and remove=true")
    query, variables = body.get("query", {}), context.variables(body)
    changes = _Changes(context, name, variables)
    change = None if remove else changes.compiled(body["update"], body)
    project = compile_projection(body.get("fields", {}), now=context.now, filter=query)
    collection = context.store.collection(context.database, name)
    refuse_changes(collection)
    candidates = matching(context, collection, query, variables, sort=body.get("sort"), hint=body.get("hint"))
    found = next(candidates, None)
    if change is None:
        if found is not None and collection is not None:
            context.store.delete(collection, found)
        shown = None if found is None else project(found)
        return {"lastErrorObject": {"n": int(found is not None)}, "value": shown}
    after = changes.one(query, change, found, upsert=upsert)
    report: Document = {"n": int(after is not None), "updatedExisting": found is not None}
    if found is None and after is not None:
        report["upserted"] = after["_id"]
    value = after if new else found
    return {"lastErrorObject": report, "value": None if value is None else project(value)}


class _Changes:
    """The updates of one command, and their totals."""

    def __init__(self, context: Context, name: str, variables: Mapping[str, Any] | None) -> None:
        self.context = context
        self.name = name
        self.variables = variables
        self.matched = self.modified = 0
        self.upserted: list[Document] = []
        self._filters = Filters(context.now, variables)

    def update(
        self, place: int, query: Mapping[str, Any], change: Any, options: Mapping[str, Any], *, many: bool
    ) -> None:
        """Run one statement of the update command."""
        if many and isinstance(change, Mapping) and not _has_operators(change):
            raise CommandError(9, "multi update is not supported for replacement-style update")
        apply = self.compiled(change, options)
        any_found = False
        for found in self._found(query, options.get("hint")):
            any_found = True
            self.one(query, apply, found, upsert=False)
            self.matched += 1
            if not many:
                return
        if not any_found:
            created = self.one(query, apply, None, upsert=bool(options.get("upsert")))
            if created is not None:
                self.matched += 1
                self.upserted.append({"index": place, "_id": created["_id"]})

    def compiled(self, change: Any, options: Mapping[str, Any]) -> Update:
        """Check a change before documents are read."""
        filters = options.get("arrayFilters", ())
        return compile_update(change, now=self.context.now, array_filters=filters, variables=self.variables)

    def one(self, query: Mapping[str, Any], apply: Update, found: Document | None, *, upsert: bool) -> Document | None:
        """Change one document, or insert the one that query and update describe. Return the new version."""
        store = self.context.store
        if found is None:
            if not upsert:
                return None
            created = with_identity(apply(upsert_base(dict(query)), filter=query, inserting=True))
            collection = self.context.writable(self.context.database, self.name)
            self.context.check(collection, created)
            store.insert(collection, created)
            return created
        changed = apply(found, filter=query)
        existing = store.collection(self.context.database, self.name)
        assert existing is not None
        collection = existing
        self.context.check(collection, changed, found)
        self.modified += store.replace(collection, found, changed)
        return changed

    def _found(self, query: Mapping[str, Any], hint: Any) -> Iterator[Document]:
        collection = self.context.store.collection(self.context.database, self.name)
        return matching(self.context, collection, query, self.variables, hint=hint, filters=self._filters)


def with_identity(document: Mapping[str, Any]) -> Document:
    """
    Return a document with its `_id` first. Create an `_id` if there is none.

    :raises CommandError: code 53 for an `_id` of a type that is not allowed
    """
    identity = document.get("_id", None) if "_id" in document else ObjectId()
    if isinstance(identity, list | Regex):
        kind = "array" if isinstance(identity, list) else "regex"
        raise CommandError(53, f"The '_id' value cannot be of type {kind}")
    if isinstance(identity, Mapping) and any(str(field).startswith("$") for field in identity):
        raise CommandError(52, f"_id fields may not contain '$'-prefixed fields: {next(iter(identity))} is not valid")
    return {"_id": identity, **{name: value for name, value in document.items() if name != "_id"}}


def _each(
    context: Context, body: Mapping[str, Any], statements: Iterable[Mapping[str, Any]], number: int, run: Statement
) -> Document:
    """Run the statements of a command, whose form is already checked. Return its `writeErrors`, if there are any."""
    if not 1 <= number <= messages.MAX_BATCH:
        raise CommandError(
            16, f"Write batch sizes must be between 1 and {messages.MAX_BATCH}. Got {number} operations."
        )
    errors = []
    for place, document in enumerate(statements):
        try:
            run(place, document)
        except CommandError as error:
            # Retryable errors, and unknown features, are the answer to the whole command.
            if error.labels or error.code == 238:
                raise
            errors.append({"index": place, "code": error.code, **error.extra, "errmsg": error.message})
            if context.transaction is not None:
                context.engine.transactions.failed(context.transaction)
                break
            if body.get("ordered", True):
                break
    return {"writeErrors": errors} if errors else {}


def _has_operators(change: Mapping[str, Any]) -> bool:
    return bool(change) and next(iter(change)).startswith("$")


def _stamped(document: Mapping[str, Any], context: Context) -> Mapping[str, Any]:
    """Replace empty timestamps by the time."""
    empty = Timestamp(0, 0)
    if not any(isinstance(value, Timestamp) and value == empty for value in document.values()):
        return document
    stamp = context.engine.timestamp()
    return {
        name: stamp if name != "_id" and isinstance(value, Timestamp) and value == empty else value
        for name, value in document.items()
    }
