"""Define collections and indexes, and the keys of a document in an index. Pure."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any
from uuid import UUID

from bson.binary import Binary

from mydocs.localserver.catalogue.collations import folding
from mydocs.localserver.catalogue.index_kinds import is_wildcard, plugin
from mydocs.localserver.errors import CommandError
from mydocs.localserver.query.match import compile_filter
from mydocs.localserver.query.text import shown
from mydocs.localserver.query.values import MISSING, encode_key, index_keys, lookup

NO_TIME = datetime(1970, 1, 1, tzinfo=UTC)  # the filter of an index cannot use the time, so any value will do


@dataclass(frozen=True)
class Index:
    """
    An index of a collection.

    :param spec: as `listIndexes` shows it
    :param space: of the entries of a unique index; ``None`` for the others, which have none
    """

    spec: Mapping[str, Any]
    space: int | None = None

    @property
    def name(self) -> str:
        return str(self.spec["name"])

    @property
    def key(self) -> dict[str, Any]:
        return dict(self.spec["key"])

    @property
    def prepared(self) -> bool:
        """Return whether new duplicates are refused although old ones may exist."""
        return bool(self.spec.get("prepareUnique")) and self.space is None

    @property
    def is_complete(self) -> bool:
        """Return whether every document has a key in it."""
        left_out = self._wildcard or plugin(self.spec["key"]) not in (None, "hashed")
        return not (left_out or self.spec.get("sparse") or self.spec.get("partialFilterExpression"))

    def keys(self, document: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        """
        Return the keys of a document in this index, or none if the index leaves it out.

        :raises CommandError: code 171 if a compound index meets two arrays, 16766 if a hashed one meets any
        """
        if self._has_none:
            return []
        if plugin(self.spec["key"]) is not None:
            self._check_hashed(document)
            return []
        unchecked = self._is_unchecked
        if not self.covers(dict(document)):
            return []
        found = index_keys(document, self.key, sparse=bool(self.spec.get("sparse")))
        if unchecked or self.fold is None:
            return found
        folded = {index_entry(key): key for key in (tuple(map(self.fold, key)) for key in found)}
        return list(folded.values())

    def _check_hashed(self, document: Mapping[str, Any]) -> None:
        for name, value in self.spec["key"].items():
            if value == "hashed" and any(isinstance(found, list) for found in lookup(document, name, expand=False)):
                raise CommandError(
                    16766, f"hashed indexes do not currently support array values. Found array at: {name}"
                )

    @cached_property
    def fold(self) -> Callable[[Any], Any] | None:
        """Return a function that makes all values equal which are equal for the index; only used to compare keys."""
        return folding(self.spec["collation"]) if "collation" in self.spec else None

    @cached_property
    def _is_unchecked(self) -> bool:
        """Return whether it refuses no key."""
        return self.space is None and not self.prepared

    @cached_property
    def _has_none(self) -> bool:
        """Return whether no document must be checked; only a compound index can meet a key that it cannot index."""
        plain = plugin(self.spec["key"]) is None
        return plain and (self._wildcard or (self._is_unchecked and len(self.spec["key"]) == 1))

    @cached_property
    def _wildcard(self) -> bool:
        return any(map(is_wildcard, self.spec["key"]))

    @cached_property
    def covers(self) -> Callable[[dict[str, Any]], bool]:
        return compile_filter(dict(self.spec.get("partialFilterExpression", {})), now=NO_TIME)


def index_entry(values: Sequence[Any]) -> bytes:
    """Encode the key of a document in an index."""
    return b"".join(map(encode_key, values))


ID_INDEX = Index({"v": 2, "key": {"_id": 1}, "name": "_id_"})
COLLECTION, VIEW, TIME_SERIES = "collection", "view", "timeseries"  # as listCollections names them


@dataclass(frozen=True)
class Collection:
    """
    A collection. A change of its indexes makes a new value.

    :param space: of its documents; never used again for another collection
    :param kind: plain (or capped), a view, which stores nothing, or a time series
    :param options: as `listCollections` shows them
    """

    space: int
    database: str
    name: str
    uuid: Binary
    indexes: tuple[Index, ...] = field(default=(ID_INDEX,))
    kind: str = COLLECTION
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_view(self) -> bool:
        return self.kind == VIEW

    @cached_property
    def _is_valid(self) -> Callable[[dict[str, Any]], bool]:
        return compile_filter(dict(self.options.get("validator", {})), now=NO_TIME)

    def check(self, document: dict[str, Any], old: dict[str, Any] | None = None) -> None:
        """
        Refuse a document that the collection's options do not allow.

        :param old: the document before the change
        :raises CommandError: 121 if the validator refuses it, 2 for a measurement without its time
        """
        if self.kind == TIME_SERIES:
            name = self.options["timeseries"]["timeField"]
            if not isinstance(document.get(name), datetime):
                raise CommandError(2, f"'{name}' must be present and contain a valid BSON UTC datetime value")
        if "validator" not in self.options:
            return
        level, action = (self.options.get(name) for name in ("validationLevel", "validationAction"))
        if level == "off" or action == "warn" or self._is_valid(document):
            return
        if level == "moderate" and old is not None and not self._is_valid(old):
            return
        raise CommandError(
            121,
            "Document failed validation",
            extra={
                "errInfo": {
                    "failingDocumentId": document.get("_id"),
                    "details": {"operatorName": next(iter(self.options["validator"]), "$and")},
                }
            },
        )

    @property
    def namespace(self) -> str:
        return f"{self.database}.{self.name}"

    @property
    def identity(self) -> UUID:
        return self.uuid.as_uuid()

    @property
    def spaces(self) -> tuple[int, ...]:
        return (self.space, *(index.space for index in self.indexes if index.space is not None))

    def index(self, name: str) -> Index | None:
        return next((index for index in self.indexes if index.name == name), None)

    def duplicate(self, index: Index, values: Sequence[Any]) -> CommandError:
        """Return the error for a key that another document has."""
        key = dict(zip(index.key, values, strict=True))
        # BSON can no longer send "undefined", the key of an empty array.
        key_value = {name: None if value is MISSING else value for name, value in key.items()}
        return CommandError(
            11000,
            f"E11000 duplicate key error collection: {self.namespace} index: {index.name} dup key: {shown(key)}",
            extra={"keyPattern": index.key, "keyValue": key_value},
        )

    def dump(self) -> dict[str, Any]:
        indexes = [{"spec": index.spec, "space": index.space} for index in self.indexes]
        return {
            "space": self.space, "db": self.database, "name": self.name, "uuid": self.uuid, "indexes": indexes,
            "kind": self.kind, "options": dict(self.options),
        }  # fmt: skip

    @classmethod
    def load(cls, stored: Mapping[str, Any]) -> "Collection":
        indexes = tuple(Index(entry["spec"], entry["space"]) for entry in stored["indexes"])
        space, name, kind = int(stored["space"]), (stored["db"], stored["name"]), stored.get("kind", COLLECTION)
        return cls(space, *name, stored["uuid"], indexes, kind, stored.get("options", {}))
