"""Write the results of $out and $merge to the collections of a pipeline. All I/O is the caller's."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol, TypeAlias

from bson.objectid import ObjectId

from mydocs.localserver.errors import CommandError, NotKnown
from mydocs.localserver.query.expressions import compile_expression
from mydocs.localserver.query.fields import checked, fields
from mydocs.localserver.query.values import MISSING, Document, as_document, equal, get_path
from mydocs.localserver.update.apply import Update, compile_update

Name: TypeAlias = str | tuple[str, str]
"""A collection of the command's database, or a database and a collection."""


class Collections(Protocol):
    """The collections that a pipeline can read and write."""

    def scan(self, name: Name) -> Iterable[Document]:
        """Return all documents, or none if the collection does not exist."""

    def find(self, name: Name, filter_: Mapping[str, Any]) -> Iterable[Document]:
        """Return the documents that match."""

    def stats(self) -> Document:
        """Return the size of the pipeline's collection, as the command collStats does."""

    def put(self, name: Name, document: Document, *, insert: bool) -> None:
        """Insert a document, or replace the one with its ``_id``."""

    def has_unique(self, name: Name, paths: tuple[str, ...]) -> bool:
        """Return whether a unique index prevents two documents with the same values in these fields."""

    def replace_all(self, name: Name, documents: Iterable[Document]) -> None:
        """Replace all documents of a collection."""


MODES = fields("let:object whenNotMatched:string")
_WHEN_MATCHED = frozenset({"replace", "keepExisting", "merge", "fail"})
_WHEN_NOT_MATCHED = frozenset({"insert", "discard", "fail"})


@dataclass(frozen=True, slots=True)
class Target:
    """The target collection of results, and how to treat existing documents."""

    name: Name
    matched: Any = "merge"
    not_matched: str = "insert"
    let: Mapping[str, Any] | None = None
    on: tuple[str, ...] = ("_id",)

    def identified(self, documents: Iterable[Document]) -> list[Document]:
        """Return the documents, each with an ``_id`` if ``_id`` identifies them."""
        return [identified(document) if "_id" in self.on else document for document in documents]


def identified(document: Document) -> Document:
    """Return a document with an ``_id``."""
    return document if "_id" in document else {"_id": ObjectId(), **document}


def target(stage: str, spec: Any) -> Target:
    """Parse the specification of ``$out`` or ``$merge``."""
    if isinstance(spec, str):
        return Target(_name(stage, spec))
    options = as_document(spec)
    if options is None:
        code, what = (16990, "string or object") if stage == "$out" else (51182, "string or object")
        raise CommandError(code, f"{stage} only supports a {what} argument")
    if stage == "$out":
        if "timeseries" in options:
            raise NotKnown("$out into a time series collection")
        return Target(_name(stage, options))
    if unknown := [key for key in options if key not in ("into", "on", "let", "whenMatched", "whenNotMatched")]:
        raise CommandError(40415, f"BSON field '$merge.{unknown[0]}' is an unknown field.")
    if "into" not in options:
        raise CommandError(40414, "BSON field '$merge.into' is missing but a required field")
    on = _on(options.get("on", "_id"))
    matched, not_matched = options.get("whenMatched", "merge"), options.get("whenNotMatched", "insert")
    if not isinstance(matched, str | list):
        raise CommandError(51191, f"{stage} field 'whenMatched' must be either a string or an array")
    checked(stage, {"whenNotMatched": not_matched, "let": options.get("let")}, MODES)
    if not isinstance(matched, list) and matched not in _WHEN_MATCHED:
        raise CommandError(2, f"Enumeration value '{matched}' for field 'whenMatched' is not a valid value.")
    if not_matched not in _WHEN_NOT_MATCHED:
        raise CommandError(2, f"Enumeration value '{not_matched}' for field 'whenNotMatched' is not a valid value.")
    if (matched, not_matched) in (
        ("fail", "fail"),
        ("fail", "discard"),
        ("keepExisting", "discard"),
        ("keepExisting", "fail"),
    ):
        raise CommandError(
            51181,
            f"Combination of {stage} modes 'whenMatched: {matched}' and 'whenNotMatched: "
            f"{not_matched}' is not supported",
        )
    if "let" in options and not isinstance(matched, list):
        raise CommandError(51199, "Cannot use 'let' variables with 'whenMatched' other than a pipeline")
    return Target(_name(stage, options["into"]), matched, not_matched, options.get("let"), on)


def _on(given: Any) -> tuple[str, ...]:
    paths = given if isinstance(given, list) else [given]
    if not all(isinstance(path, str) for path in paths):
        raise CommandError(51134 if isinstance(given, list) else 51186, "$merge 'on' must be a string or strings")
    if not paths:
        raise CommandError(51187, "If explicitly specifying $merge 'on', must include at least one field")
    twice = next((path for path in paths if paths.count(path) > 1), None)
    if twice is not None:
        raise CommandError(31465, f"Found a duplicate field '{twice}' in the 'on' of $merge")
    return tuple(paths)


def _name(stage: str, into: Any) -> Name:
    if isinstance(into, str) and into:
        return into
    if isinstance(into, Mapping) and set(into) <= {"db", "coll"} and isinstance(into.get("coll"), str):
        return (into["db"], into["coll"]) if isinstance(into.get("db"), str) else str(into["coll"])
    raise CommandError(51178, f"{stage} needs the name of a collection, or an object with 'db' and 'coll'")


Write: TypeAlias = Callable[[Document], None]


def compile_merge(into: Target, collections: Collections, *, now: datetime, variables: Mapping[str, Any]) -> Write:
    """Return a function that writes one result. Refuse an invalid pipeline and invalid variables."""
    scope = {"NOW": now, **variables}
    let = {"new": "$$ROOT"} if into.let is None else into.let
    bound = {key: compile_expression(value, scope) for key, value in let.items()}

    def pipeline(values: Mapping[str, Any]) -> Update:
        return compile_update(into.matched, now=now, variables={**variables, **values})

    if isinstance(into.matched, list):
        pipeline(dict.fromkeys(bound))
    if into.on != ("_id",) and not collections.has_unique(into.name, into.on):
        raise CommandError(51183, "Cannot find index to verify that join fields will be unique")

    def write(document: Document) -> None:
        existing: Document | None = next(iter(collections.find(into.name, _key(document, into.on))), None)
        if existing is None:
            if into.not_matched == "fail":
                raise CommandError(
                    13113, "$merge could not find a matching document in the target collection for a document"
                )
            if into.not_matched == "insert":
                collections.put(into.name, identified(document), insert=True)
            return
        if into.matched == "keepExisting":
            return
        if into.matched == "fail":
            collections.put(into.name, identified(document), insert=True)  # answers with the duplicate key
            return
        if into.matched == "replace":
            result = {"_id": existing["_id"], **document}
        elif into.matched == "merge":
            result = {**existing, **document}
        else:
            result = pipeline({key: evaluate(document, scope) for key, evaluate in bound.items()})(existing)
        if not equal(result["_id"], existing["_id"]):
            raise CommandError(66, "$merge failed to update the matching document, did you attempt to modify the _id?")
        collections.put(into.name, result, insert=False)

    return write


def _key(document: Document, paths: tuple[str, ...]) -> dict[str, Any]:
    found = {}
    for path in paths:
        value = get_path(document, path)
        if value is MISSING or value is None or isinstance(value, list):
            code = 51185 if isinstance(value, list) else 51132
            raise CommandError(
                code, f"$merge write error: 'on' field '{path}' cannot be missing, null, undefined or an array"
            )
        found[path] = {"$eq": value}
    return found
