"""The collections that a pipeline reaches, and how $out and $merge write to them. All I/O is the caller's."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol, TypeAlias

from bson.objectid import ObjectId

from mydocs.localserver.errors import CommandError, NotKnown
from mydocs.localserver.query.expressions import compile_expression
from mydocs.localserver.query.fields import checked, fields
from mydocs.localserver.query.values import Document, as_document
from mydocs.localserver.update.apply import apply_update

Name: TypeAlias = str | tuple[str, str]
"""A collection of the command's database, or a database and a collection."""


class Collections(Protocol):
    """The collections that a pipeline can reach."""

    def scan(self, name: Name) -> Iterable[Document]:
        """Return all documents, or none where there is no such collection."""

    def find(self, name: Name, filter_: Mapping[str, Any]) -> Iterable[Document]:
        """Return the documents that match."""

    def put(self, name: Name, document: Document, *, insert: bool) -> None:
        """Insert a document, or replace the one with its ``_id``."""

    def replace_all(self, name: Name, documents: Iterable[Document]) -> None:
        """Put documents in the place of all that a collection holds."""


MODES = fields("let:object whenNotMatched:string")
_WHEN_MATCHED = frozenset({"replace", "keepExisting", "merge", "fail"})
_WHEN_NOT_MATCHED = frozenset({"insert", "discard", "fail"})


@dataclass(frozen=True, slots=True)
class Target:
    """Where results go, and what happens to those that are there already."""

    name: Name
    matched: Any = "merge"
    not_matched: str = "insert"
    let: Mapping[str, Any] | None = None

    def identified(self, documents: Iterable[Document]) -> list[Document]:
        """Return documents that all have an ``_id``."""
        return [document if "_id" in document else {"_id": ObjectId(), **document} for document in documents]


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
    if options.get("on", "_id") not in ("_id", ["_id"]):
        raise NotKnown("$merge on other fields than _id")
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
    return Target(_name(stage, options["into"]), matched, not_matched, options.get("let"))


def _name(stage: str, into: Any) -> Name:
    if isinstance(into, str) and into:
        return into
    if isinstance(into, Mapping) and set(into) <= {"db", "coll"} and isinstance(into.get("coll"), str):
        return (into["db"], into["coll"]) if isinstance(into.get("db"), str) else str(into["coll"])
    raise CommandError(51178, f"{stage} needs the name of a collection, or an object with 'db' and 'coll'")


def merge_into(
    into: Target, document: Document, collections: Collections, *, now: datetime, variables: Mapping[str, Any]
) -> None:
    """Write one result."""
    existing: Document | None = next(iter(collections.find(into.name, {"_id": {"$eq": document["_id"]}})), None)
    if existing is None:
        if into.not_matched == "fail":
            raise CommandError(
                13113, "$merge could not find a matching document in the target collection for a document"
            )
        if into.not_matched == "insert":
            collections.put(into.name, document, insert=True)
        return
    if into.matched == "keepExisting":
        return
    if into.matched == "fail":
        collections.put(into.name, document, insert=True)  # answers with the duplicate key
        return
    if into.matched == "replace":
        result = document
    elif into.matched == "merge":
        result = {**existing, **document}
    else:
        scope = {"NOW": now, **variables}
        let = {"new": "$$ROOT"} if into.let is None else into.let
        bound = {key: compile_expression(value, scope)(document, scope) for key, value in let.items()}
        result = apply_update(existing, into.matched, now=now, variables={**variables, **bound})
    collections.put(into.name, result, insert=False)
