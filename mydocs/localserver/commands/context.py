"""Define the context of a command. No I/O of its own."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

from mydocs.localserver.catalogue.collection import TIME_SERIES, Collection
from mydocs.localserver.catalogue.storage import Store
from mydocs.localserver.errors import CommandError, NotKnown
from mydocs.localserver.query.expressions import compile_expression
from mydocs.localserver.query.values import is_number, to_int, type_name
from mydocs.localserver.wire import messages

if TYPE_CHECKING:
    from mydocs.localserver.catalogue.transactions import Transaction
    from mydocs.localserver.engine import Engine

Default = TypeVar("Default")


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """
    The context of one command.

    :param store: the store that it reads and writes: the server's own, or its transaction's
    :param now: `$$NOW` of the whole command
    :param bypass: validators are skipped
    """

    engine: "Engine"
    store: Store
    database: str
    now: datetime
    bypass: bool = False
    session: bytes | None = None
    transaction: "Transaction | None" = None

    def collection_name(self, body: Mapping[str, Any]) -> str:
        """Return the collection that a command names: the value of its first field."""
        name = next(iter(body.values()))
        check_namespace(self.database, name)
        return str(name)

    def read_name(self, body: Mapping[str, Any]) -> str:
        """Return the collection that a command reads. Refuse the server's own collections, which do not exist here."""
        name = self.collection_name(body)
        own = name.startswith("system.") and name not in SYSTEM_NAMES
        if own or (self.database, name) == ("local", "oplog.rs"):
            raise NotKnown(f"reading {self.database}.{name}")
        return name

    def writable(self, database: str, name: str) -> Collection:
        """Return a collection to write to, and create it if it is absent."""
        check_writable(database, name)
        found = self.store.collection(database, name) or self.store.create(database, name)
        refuse_view(found)
        return found

    def check(self, collection: Collection, document: dict[str, Any], old: dict[str, Any] | None = None) -> None:
        """Refuse a document that the collection does not accept, unless the command bypasses validation."""
        if not self.bypass or collection.kind == TIME_SERIES:
            collection.check(document, old)
        if collection.kind == TIME_SERIES and self.store.get(collection, document["_id"]) is not None:
            raise NotKnown("two measurements with one _id in a time series collection")
        size, most = collection.options.get("size"), collection.options.get("max")
        if old is None and size is not None:
            full = self.store.size(collection) + len(messages.encode(document)) > size
            if full or (most is not None and self.store.count(collection) >= most):
                # The oldest document would be removed, but the order of insertion is not stored.
                raise NotKnown("a write into a capped collection that is full")

    def existing(self, name: str, message: str) -> Collection:
        """
        Return a collection.

        :raises CommandError: code 26 with the message if it does not exist
        """
        found = self.store.collection(self.database, name)
        if found is None:
            raise CommandError(26, message)
        return found

    def variables(self, body: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the variables of the command's `let`. Its expressions see no document."""
        if not body.get("let"):
            return None
        return {name: compile_expression(value)({}, {"NOW": self.now}) for name, value in body["let"].items()}

    def cursor(self, namespace: str, documents: Iterable[Any], size: int | None, **options: Any) -> dict[str, Any]:
        """Return a reply with a first batch; the options are those of `Cursors.first`."""
        return self.engine.cursors.first(
            namespace, documents, size, session=self.session, transaction=self.transaction, **options
        )


def number(body: Mapping[str, Any], field: str, default: Default, *, signed: bool = False) -> int | Default:
    """
    Return a field with a whole number, not negative unless ``signed``.

    :raises CommandError: code 51024 for a negative one, 14 for one with a fraction
    """
    value = body.get(field)
    if value is None:
        return default
    whole = to_int(value) if is_number(value) else None
    if whole is None:
        raise CommandError(14, f"BSON field '{field}' is the wrong type '{type_name(value)}', expected a whole number")
    if whole < 0 and not signed:
        raise CommandError(51024, f"BSON field '{field}' value must be >= 0, actual value '{value}'")
    return whole


def refuse_view(collection: Collection | None) -> None:
    """Refuse a view if a command needs a collection."""
    if collection is not None and collection.is_view:
        raise CommandError(166, f"Namespace {collection.namespace} is a view, not a collection")


def refuse_collation(holder: Mapping[str, Any]) -> None:
    """Refuse a command, or a statement of one, that asks for a collation."""
    if "collation" in holder and holder["collation"] not in (None, {}, {"locale": "simple"}):
        raise NotKnown("collations")


def refuse_changes(collection: Collection | None) -> None:
    """Refuse to change documents of a view or of a time series."""
    refuse_view(collection)
    if collection is not None and collection.kind == TIME_SERIES:
        raise NotKnown("changes of measurements in a time series collection")


# The reserved names that a client may write to (NamespaceString::isLegalClientSystemNS).
SYSTEM_NAMES = frozenset({"system.js"})


def check_writable(database: str, name: Any) -> None:
    """Refuse names that a server refuses or reserves (73 InvalidNamespace)."""
    check_namespace(database, name)
    if name.startswith("system.") and name not in SYSTEM_NAMES:
        raise CommandError(73, f"Invalid system namespace: {database}.{name}")


def check_namespace(database: str, name: Any) -> None:
    """Refuse names that a server refuses (73 InvalidNamespace)."""
    if not isinstance(name, str):
        raise CommandError(73, f"collection name has invalid type {type_name(name)}")
    wrong_database = not database or len(database) > 63 or any(letter in '/\\. "$\0' for letter in database)
    # 255 bytes: the server's limit for "database.collection".
    wrong_name = not name or "\0" in name or "$" in name or name.startswith(".") or name.endswith(".")
    if wrong_database or wrong_name or len(f"{database}.{name}".encode()) > 255:
        raise CommandError(73, f"Invalid namespace specified '{database}.{name}'")
