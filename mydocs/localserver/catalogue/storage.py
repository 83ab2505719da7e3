"""
Keep collections in SQLite: documents, unique index entries and the catalogue in one ordered table. I/O.

Everything is an entry ``(space, key) -> value``. Space 0 holds the small settings of other modules, space 1 the
catalogue of collections. Each collection and each unique index has a space of its own, keyed by the encoded ``_id`` or
the encoded index key. So `_id` equality, `_id` ranges and `_id` order are seeks, a unique index is the table's primary
key, and to drop a collection is to delete its spaces.

An open transaction is a `Store` on a second connection. It reads the snapshot of SQLite and writes to a temporary table
that lies over the real one, so both use the same code to read and write.
"""

import itertools
import sqlite3
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from bson.binary import Binary

from mydocs.localserver.catalogue.collection import COLLECTION, ID_INDEX, Collection, Index, index_entry
from mydocs.localserver.errors import CommandError
from mydocs.localserver.query.values import encode_key
from mydocs.localserver.wire import messages

META, CATALOGUE, FIRST_FREE = 0, 1, 16  # spaces
MAX_DEPTH = 100  # levels below a document; "Nested Depth for BSON Documents" in MongoDB's limits
CHUNK = 256  # documents that a scan holds at a time

SCHEMA = """
CREATE TABLE IF NOT EXISTS entries (
    space INTEGER NOT NULL, key BLOB NOT NULL, value BLOB NOT NULL, PRIMARY KEY (space, key)
) WITHOUT ROWID
"""
# Temporary names win over the database's own, so the statements below read and write through this view.
OVERLAY = """
CREATE TEMP TABLE written (
    space INTEGER NOT NULL, key BLOB NOT NULL, value BLOB, PRIMARY KEY (space, key)
) WITHOUT ROWID;
CREATE TEMP VIEW entries AS
    SELECT space, key, value FROM main.entries AS old
        WHERE NOT EXISTS (SELECT 1 FROM temp.written AS new WHERE new.space = old.space AND new.key = old.key)
    UNION ALL SELECT space, key, value FROM temp.written WHERE value IS NOT NULL;
CREATE TEMP TRIGGER put INSTEAD OF INSERT ON entries BEGIN
    INSERT OR REPLACE INTO written VALUES (new.space, new.key, new.value);
END;
CREATE TEMP TRIGGER gone INSTEAD OF DELETE ON entries BEGIN
    INSERT OR REPLACE INTO written VALUES (old.space, old.key, NULL);
END;
"""

Touch = Callable[[int, bytes], None]
"""Called before an entry is written, so that transactions notice conflicting writes."""


def connect(path: Path | None) -> sqlite3.Connection:
    # One lock around every command serialises the threads, so SQLite's own check is not needed.
    connection = sqlite3.connect(path or ":memory:", isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        # An acknowledged write must survive the end of this process, but not a loss of power: NORMAL does not wait for
        # the disk at each commit.
        connection.execute("PRAGMA synchronous = NORMAL")
    except sqlite3.DatabaseError:  # the file is not a database
        connection.close()
        raise
    return connection


def overlay(connection: sqlite3.Connection) -> None:
    """Let a connection read the present state and write over it without changing it."""
    connection.executescript(OVERLAY)
    connection.execute("BEGIN")
    # SQLite takes the snapshot at the first read, not at BEGIN.
    connection.execute("SELECT 1 FROM main.entries LIMIT 1").fetchone()


def _depth(document: Any) -> int:
    """Return the number of levels below a document."""
    level, depth = [document], -1
    while level:
        depth += 1
        level = [
            part
            for holder in level
            for part in (holder.values() if isinstance(holder, dict) else holder)
            if isinstance(part, dict | list)
        ]
    return depth


class Store:
    """Collections as one connection sees them. Not safe for threads: the caller holds the server's lock."""

    def __init__(
        self, connection: sqlite3.Connection, touch: Touch, spaces: "itertools.count[int] | None" = None
    ) -> None:
        self.connection = connection
        self.touch = touch
        if spaces is None:
            connection.execute(SCHEMA)
        self.collections: dict[tuple[str, str], Collection] = {}
        self.reload()
        used = [space for found in self.collections.values() for space in found.spaces]
        self.spaces = spaces or itertools.count(max(used, default=FIRST_FREE) + 1)

    def reload(self) -> None:
        """Read the catalogue from the database."""
        loaded = (Collection.load(messages.decode(value)) for _, value in self._entries(CATALOGUE))
        self.collections = {(found.database, found.name): found for found in loaded}

    # -- the catalogue

    def collection(self, database: str, name: str) -> Collection | None:
        return self.collections.get((database, name))

    def create(
        self, database: str, name: str, kind: str = COLLECTION, options: Mapping[str, Any] | None = None
    ) -> Collection:
        """
        Add a new collection.

        :raises CommandError: code 13297 if the name of another database differs from this one by case only
        """
        for other, _ in self.collections:
            if other != database and other.lower() == database.lower():
                raise CommandError(
                    13297,
                    f"db already exists with different case already have: [{other}] trying to create [{database}]",
                )
        indexes = (ID_INDEX,) if kind == COLLECTION else ()
        identity = Binary(uuid.uuid4().bytes, 4)
        created = Collection(next(self.spaces), database, name, identity, indexes, kind, options or {})
        self.save(created)
        return created

    def save(self, collection: Collection) -> None:
        """Write a collection's entry of the catalogue, new or changed."""
        self._put(CATALOGUE, encode_key(collection.space), messages.encode(collection.dump()))
        self.collections[collection.database, collection.name] = collection

    def rename(self, collection: Collection, database: str, name: str) -> None:
        del self.collections[collection.database, collection.name]
        # In another database it becomes another collection. Within one it keeps its identity.
        identity = collection.uuid if database == collection.database else Binary(uuid.uuid4().bytes, 4)
        self.save(replace(collection, database=database, name=name, uuid=identity))

    def drop(self, collection: Collection) -> None:
        self._delete(CATALOGUE, encode_key(collection.space))
        for space in collection.spaces:
            self.clear(space)
        del self.collections[collection.database, collection.name]

    # -- documents

    def get(self, collection: Collection, identity: Any) -> dict[str, Any] | None:
        value = self._value(collection.space, encode_key(identity))
        return None if value is None else messages.decode(value)

    def count(self, collection: Collection) -> int:
        row = self.connection.execute("SELECT count(*) FROM entries WHERE space = ?", (collection.space,)).fetchone()
        return int(row[0])

    def size(self, collection: Collection) -> int:
        query = "SELECT coalesce(sum(length(value)), 0) FROM entries WHERE space = ?"
        return int(self.connection.execute(query, (collection.space,)).fetchone()[0])

    def scan(
        self, collection: Collection, low: bytes = b"", high: bytes | None = None, *, backwards: bool = False
    ) -> Iterator[dict[str, Any]]:
        """
        Yield documents in the order of `_id`, from ``low`` up to and with ``high`` (encoded).

        It reads a chunk at a time, so a cursor may pause and continue while others write.
        """
        if low == high:  # one `_id`: a lookup of its key is faster than an ordered scan
            found = self._value(collection.space, low)
            if found is not None:
                yield messages.decode(found)
            return
        size = 1  # documents decoded at a time; it grows, since that is faster for readers of many documents
        for rows in self._chunks(collection.space, low, high, backwards=backwards):
            values, start = [value for _, value in rows], 0
            while start < len(values):
                yield from messages.decode_all(values[start : start + size])
                start += size
                size = min(CHUNK, 4 * size)

    def insert(self, collection: Collection, document: dict[str, Any]) -> None:
        """
        Store a new document.

        :raises CommandError: code 11000 if `_id` or a unique index already has its key
        """
        key, data = encode_key(document["_id"]), self._encoded(document)
        if self._value(collection.space, key) is not None:
            raise collection.duplicate(ID_INDEX, (document["_id"],))
        claims = self._claims(collection, document, key)
        self._put(collection.space, key, data)
        for space, entry in claims:
            self._put(space, entry, key)

    def replace(self, collection: Collection, old: dict[str, Any], new: dict[str, Any]) -> bool:
        """Store a new version of a document with the same `_id`. Return whether it differs."""
        data = self._encoded(new)
        # Compared as bytes: 1 and 1.0 are equal, but not the same document.
        if data == messages.encode(old):
            return False
        key = encode_key(new["_id"])
        claims = self._claims(collection, new, key)
        self._release(collection, old, keep=claims)
        self._put(collection.space, key, data)
        for space, entry in claims:
            self._put(space, entry, key)
        return True

    def delete(self, collection: Collection, document: dict[str, Any]) -> None:
        self._release(collection, document, keep=set())
        self._delete(collection.space, encode_key(document["_id"]))

    def fill(self, collection: Collection, index: Index) -> None:
        """
        Check a new index against the stored documents, and add the keys of a unique one.

        :raises CommandError: code 11000 for the first duplicate; the caller removes the keys again
        """
        owner: dict[bytes, bytes] = {}
        for document in self.scan(collection):
            key = encode_key(document["_id"])
            for values in index.keys(document):
                if index.space is None:
                    continue
                entry = index_entry(values)
                if owner.setdefault(entry, key) != key:
                    raise collection.duplicate(index, values)
        for entry, key in owner.items():
            self._put(index.space or 0, entry, key)

    def duplicates(self, collection: Collection, index: Index) -> list[list[Any]]:
        """Return the `_id` of documents that share a key of the index, a list for each such key."""
        owners: dict[bytes, list[Any]] = {}
        for document in self.scan(collection):
            for values in index.keys(document):
                owners.setdefault(index_entry(values), []).append(document["_id"])
        return [owner for owner in owners.values() if len(owner) > 1]

    def clear(self, space: int) -> None:
        """Delete every entry of a space."""
        self._begin()
        self.connection.execute("DELETE FROM entries WHERE space = ?", (space,))

    # -- small settings of others (the search catalogue)

    def put_meta(self, name: str, value: dict[str, Any]) -> None:
        self._put(META, name.encode(), messages.encode(value))

    def delete_meta(self, name: str) -> None:
        self._delete(META, name.encode())

    def scan_meta(self, prefix: str) -> Iterator[tuple[str, dict[str, Any]]]:
        low = prefix.encode()
        for key, value in self._entries(META, low, low + b"\xff"):
            yield key.decode(), messages.decode(value)

    # -- unique indexes

    def _claims(self, collection: Collection, document: dict[str, Any], key: bytes) -> set[tuple[int, bytes]]:
        """Return the index entries that a document needs. Raise if another document has one of them."""
        claims = set()
        for index in collection.indexes:
            # For every index, since some keys cannot be indexed at all (two arrays in one compound key).
            for values in index.keys(document):
                if index.space is not None:
                    entry = index_entry(values)
                    if self._value(index.space, entry) not in (None, key):
                        raise collection.duplicate(index, values)
                    claims.add((index.space, entry))
                elif index.prepared and self._clashes(collection, index, index_entry(values), key):
                    raise collection.duplicate(index, values)
        return claims

    def _clashes(self, collection: Collection, index: Index, entry: bytes, key: bytes) -> bool:
        # `prepareUnique` keeps old duplicates and refuses new ones, so there is no table of owners to read.
        return any(
            index_entry(values) == entry
            for other in self.scan(collection)
            if encode_key(other["_id"]) != key
            for values in index.keys(other)
        )

    def _release(self, collection: Collection, document: dict[str, Any], *, keep: set[tuple[int, bytes]]) -> None:
        for index in collection.indexes:
            if index.space is not None:
                for values in index.keys(document):
                    claim = (index.space, index_entry(values))
                    if claim not in keep:
                        self._delete(*claim)

    # -- entries

    def commit(self) -> bool:
        """Commit the writes since the last commit. Return whether there were any."""
        wrote = self.connection.in_transaction
        if wrote:
            self.connection.execute("COMMIT")
        return wrote

    def rollback(self) -> None:
        """Undo the writes since the last commit."""
        if self.connection.in_transaction:
            self.connection.execute("ROLLBACK")
            self.reload()

    def take_over(self, other: "Store", *, catalogue: bool) -> None:
        """Write the contents of a transaction's store over this one; ``catalogue``: it changed collections too."""
        for space, key, value in other.connection.execute("SELECT space, key, value FROM temp.written"):
            if value is None:
                self._delete(space, key)
            else:
                self._put(space, key, value)
        if catalogue:
            self.reload()

    def _encoded(self, document: dict[str, Any]) -> bytes:
        data = messages.encode(document)
        if len(data) > messages.MAX_DOCUMENT:
            raise CommandError(
                10334, f"BSONObj size: {len(data)} is invalid. Size must be between 0 and {messages.MAX_DOCUMENT}"
            )
        # Each level has a byte for "document" or "array". If there are few such bytes, no exact count is needed.
        if data.count(b"\x03") + data.count(b"\x04") > MAX_DEPTH and _depth(document) > MAX_DEPTH:
            raise CommandError(15, f"Document exceeds maximum nesting depth of {MAX_DEPTH}")
        return data

    def _value(self, space: int, key: bytes) -> bytes | None:
        query = "SELECT value FROM entries WHERE space = ? AND key = ?"
        row = self.connection.execute(query, (space, key)).fetchone()
        return None if row is None else row[0]

    def _put(self, space: int, key: bytes, value: bytes) -> None:
        self._begin()
        self.touch(space, key)
        self.connection.execute("INSERT OR REPLACE INTO entries VALUES (?, ?, ?)", (space, key, value))

    def _delete(self, space: int, key: bytes) -> None:
        self._begin()
        self.touch(space, key)
        self.connection.execute("DELETE FROM entries WHERE space = ? AND key = ?", (space, key))

    def _begin(self) -> None:
        if not self.connection.in_transaction:
            self.connection.execute("BEGIN IMMEDIATE")

    def _entries(self, space: int, low: bytes = b"", high: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        for rows in self._chunks(space, low, high):
            yield from rows

    def _chunks(
        self, space: int, low: bytes = b"", high: bytes | None = None, *, backwards: bool = False
    ) -> Iterator[list[tuple[bytes, bytes]]]:
        order = "DESC" if backwards else "ASC"
        above, below = ">=", "<="
        parameters: list[Any] = [space, low]
        if high is not None:
            parameters.append(high)
        while True:
            upper = "" if len(parameters) == 2 else f" AND key {below} ?"
            query = (
                f"SELECT key, value FROM entries WHERE space = ? AND key {above} ?{upper} ORDER BY key {order} LIMIT ?"
            )
            rows = self.connection.execute(query, (*parameters, CHUNK)).fetchall()
            yield rows
            if len(rows) < CHUNK:
                return
            if backwards:
                parameters[2:], below = [rows[-1][0]], "<"
            else:
                parameters[1], above = rows[-1][0], ">"
