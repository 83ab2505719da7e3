"""
Which search indexes a script touched, however it did so.

While a script runs, a listener on its client sees every command: those of our helpers, of Motor or PyMongo, of
``db.command`` and of lightodm in a thread alike. The end of a collection is that of its search indexes; one that is
renamed takes them along, since they follow its UUID. A helper knows more than its commands show (it found the index
unchanged, it dropped it only to create it again) and says so with :func:`note`; the later word counts.
"""

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from mydocs.migrations.driver import mongo
from mydocs.migrations.errors import NotPossible
from mydocs.migrations.indexes.definitions import infer_type
from mydocs.migrations.model import IndexAction, IndexRecord, IndexType, RunStamp, SearchAlias
from mydocs.migrations.reporting.events import Event, Sink, Warned, emit

_CREATE, _UPDATE, _DROP = "createSearchIndexes", "updateSearchIndex", "dropSearchIndex"
# Not dropDatabase: the ledger goes with the database.
_DROP_COLLECTION, _RENAME = "drop", "renameCollection"
_OF_THE_DATABASE = frozenset({_CREATE, _UPDATE, _DROP, _DROP_COLLECTION})

current: ContextVar["Capture | None"] = ContextVar("mydocs_capture", default=None)
"""The step under way, for the helpers that scripts call."""


Place: TypeAlias = Mapping[str, Any]
"""How far a helper has come, as the ledger keeps it."""

Store: TypeAlias = Callable[[str, Place], Coroutine[Any, Any, None]]

Seen: TypeAlias = Callable[[str, Mapping[str, Any], Mapping[str, Any]], None]
"""Takes a command's name, its body and the reply."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """
    Where one call of a helper leaves how far it has come.

    :param place: how far the same call came in an earlier attempt of the script
    :param store: ``None`` outside of a run: there is no ledger entry to keep it in
    :param loop: the run's, which its database and thus ``store`` belong to
    """

    key: str
    place: Place | None = None
    store: Store | None = None
    loop: asyncio.AbstractEventLoop | None = None

    async def save(self, place: Place) -> None:
        """:raises LeaseLost: where the step is not this run's any more"""
        if self.store is None:
            return
        saving = self.store(self.key, place)
        if self.loop is None or self.loop is asyncio.get_running_loop():
            await saving
        else:  # a plain script with a loop of its own; the run's is free, since the script is in a thread
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(saving, self.loop))


class Capture:
    """What one script did to search indexes, filled from any thread; and what the helpers need to know of the run."""

    def __init__(
        self,
        sink: Sink | None = None,
        *,
        transactional: bool = False,
        places: Place | None = None,
        store: Store | None = None,
        tracked: Callable[[], Iterable[IndexRecord]] = lambda: (),
        run: RunStamp | None = None,
        check_lease: Callable[[], None] = lambda: None,
    ) -> None:
        """
        Start with nothing.

        :param tracked: what the ledger says of search indexes; asked only where an index is changed or goes
        :param run: what the run signs with
        :param check_lease: raises ``LeaseLost`` where the run may write no more
        """
        self.run = run
        self.check_lease = check_lease
        self._aliases: dict[str, SearchAlias] = {}
        self.transactional = transactional
        self.database: str | None = None  # the step's, once its commands are listened to
        self._tracked = tracked
        self._sink = sink
        self._places, self._store = places or {}, store
        self._loop = None if store is None else asyncio.get_running_loop()
        self._calls: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._records: dict[tuple[str, str], IndexRecord] = {}
        self._found: dict[tuple[str, str], IndexRecord] = {}
        self._names: dict[tuple[str, str], str] = {}  # (collection, id) → name, for commands that say only the id

    @property
    def records(self) -> tuple[IndexRecord, ...]:
        """The latest word on each index, in the order in which they were first touched."""
        with self._lock:
            return tuple(self._records.values())

    def records_after(self, earlier: Iterable[IndexRecord], *, interrupted: bool) -> tuple[IndexRecord, ...]:
        """
        The records of all attempts at a script together: what an earlier one made is not forgotten by a later one.

        :param earlier: what the attempts before have recorded
        :param interrupted: the last of them could record nothing; what this one found there may be its work
        """
        with self._lock:
            found = self._found if interrupted else {}
            before = found | {(record.collection, record.name): record for record in earlier}
            now = {key: _after(before.get(key), record) for key, record in self._records.items()}
            return tuple((before | now).values())

    def note(self, record: IndexRecord) -> None:
        """Take a record as the latest word on its index."""
        key = (record.collection, record.name)
        with self._lock:
            self._records[key] = _after(self._records.get(key), record)

    def note_alias(self, alias: SearchAlias) -> None:
        """Take it as the latest word on what an alias names."""
        with self._lock:
            before = self._aliases.get(alias.alias)
            self._aliases[alias.alias] = alias if before is None else replace(alias, previous=before.previous)

    def aliases_after(self, earlier: Iterable[SearchAlias]) -> tuple[SearchAlias, ...]:
        """What all attempts at a script have let aliases name; ``previous`` is from before the first of them."""
        with self._lock:
            before = {alias.alias: alias for alias in earlier}
            now = {
                name: replace(alias, previous=before[name].previous) if name in before else alias
                for name, alias in self._aliases.items()
            }
            return tuple((before | now).values())

    def record_of(self, collection: str, name: str) -> IndexRecord | None:
        """What script and ledger say of an index."""
        known = [*self._tracked(), *self.records]
        return next((r for r in reversed(known) if (r.collection, r.name) == (collection, name)), None)

    def type_of(self, collection: str, name: str) -> IndexType | None:
        """What kind of index it is, as far as script and ledger tell."""
        record = self.record_of(collection, name)
        return None if record is None else record.type

    def emit(self, event: Event) -> None:
        """Pass an event of the script on to the run's sink."""
        emit(self._sink, event)

    def checkpoint(self, call: str) -> Checkpoint:
        """Return the checkpoint of a helper's call; equal calls of one script are told apart by their order."""
        self._calls[call] += 1
        key = f"{call}-{self._calls[call]}"
        place = self._places.get(key)
        return Checkpoint(key, place if isinstance(place, Mapping) else None, self._store, self._loop)

    def seen(self, name: str, body: Mapping[str, Any], reply: Mapping[str, Any]) -> None:
        """Read a command of those that :func:`listener` picks, once the server has answered it."""
        if name == "aggregate":
            self.listing_seen(str(body["aggregate"]), reply)
        elif name == _RENAME:
            self.collection_renamed(*(_within(str(self.database), body[end]) for end in (_RENAME, "to")))
        elif name == _DROP_COLLECTION:
            self.collection_gone(str(body[name]))
        else:
            self.command_seen(name, body, reply)

    def command_seen(self, name: str, body: Mapping[str, Any], reply: Mapping[str, Any]) -> None:
        """Read a command on a search index that the server has answered."""
        collection = str(body[name])
        if not reply.get("ok"):
            if name == _UPDATE:  # PyMongo lets a missing collection pass (Collection.update_search_index)
                missing = f"{reply.get('errmsg', 'refused')}; the driver does not say so, and nothing was updated"
                self.emit(Warned(message=f"{name} on {collection}: {missing}"))
            return
        if name == _CREATE:
            for asked, created in zip(body["indexes"], reply.get("indexesCreated", ()), strict=False):
                definition = asked.get("definition", {})
                name_given = str(created.get("name") or asked.get("name") or "default")
                self._learn(collection, name_given, created.get("id"))
                self._created(collection, name_given, asked.get("type"), definition, created.get("id"))
            return
        index: str | None = body.get("name") or self._names.get((collection, str(body.get("id"))))
        if index is None:
            message = (
                f"{name} on {collection} by the id {body.get('id')}, which this script has not listed: nobody can say "
                "which index that is, so it is not recorded; use the index's name"
            )
            self.emit(Warned(message=message))
            return
        known = self.type_of(collection, index)
        with self._lock:
            if name == _UPDATE:
                # Also after a create of the same script: what counts is that an earlier definition may be listed.
                definition = body.get("definition", {})
                kind = known or infer_type(definition)
                action, asked_for = IndexAction.UPDATED, definition
            else:
                kind = known or IndexType.SEARCH
                action, asked_for = IndexAction.DROPPED, None
            self._records[collection, index] = IndexRecord(
                collection=collection,
                name=index,
                type=kind,
                action=action,
                definition=asked_for,
                asked_at=time.monotonic(),
            )

    def collection_gone(self, collection: str) -> None:
        """Take note that the indexes of a collection are gone with it."""
        for record in self._known(collection):
            self._drop(record)

    def collection_renamed(self, before: str | None, after: str | None) -> None:
        """
        Take note that the indexes of a collection are found under its new name.

        :param before: ``None`` where it came from another database
        :param after: ``None`` where it went to another database, where it has another UUID and so no search index
        """
        if after is not None:
            self.collection_gone(after)  # with dropTarget there was one
        for record in self._known(before) if before is not None else ():
            self._drop(record)
            if after is not None:
                self.note(replace(record, collection=after, action=IndexAction.UNCHANGED))

    def _known(self, collection: str) -> list[IndexRecord]:
        """The indexes that are there at this moment, as far as ledger and script tell."""
        tracked = {(record.collection, record.name): record for record in self._tracked()}
        with self._lock:
            self._found = {key: found for key, found in self._found.items() if key[0] != collection}
            return [
                record
                for record in (tracked | self._records).values()
                if record.collection == collection and record.action is not IndexAction.DROPPED
            ]

    def _drop(self, record: IndexRecord) -> None:
        self.note(replace(record, action=IndexAction.DROPPED, definition=None, id=None))

    def listing_seen(self, collection: str, reply: Mapping[str, Any]) -> None:
        """Learn from a listing that the script itself has asked for: the names of ids, and what it found there."""
        for document in reply.get("cursor", {}).get("firstBatch", ()):
            name, definition = document.get("name"), document.get("latestDefinition")
            if isinstance(name, str) and document.get("status") != "DELETING":
                self._learn(collection, name, document.get("id"))
                kind = document.get("type")
                found = IndexRecord(
                    collection=collection,
                    name=name,
                    type=IndexType(kind) if kind in ("search", "vectorSearch") else infer_type(definition or {}),
                    action=IndexAction.UNCHANGED,
                    definition=definition,
                )
                with self._lock:
                    self._found[collection, name] = found

    def _learn(self, collection: str, name: str, index_id: object) -> None:
        with self._lock:
            self._names[collection, str(index_id)] = name

    def _created(
        self, collection: str, name: str, kind: str | None, definition: Mapping[str, Any], index_id: object
    ) -> None:
        with self._lock:
            before = self._records.get((collection, name))
            dropped = before is not None and before.action is IndexAction.DROPPED
            self._records[collection, name] = IndexRecord(
                collection=collection,
                name=name,
                type=IndexType(kind) if kind in ("search", "vectorSearch") else infer_type(definition),
                action=IndexAction.REPLACED if dropped else IndexAction.CREATED,
                definition=definition,
                id=str(index_id) if dropped and index_id is not None else None,
                asked_at=time.monotonic(),
            )


def _after(before: IndexRecord | None, record: IndexRecord) -> IndexRecord:
    """What two words on an index come to: what the script has made does not get unmade by being found so later."""
    made = before is not None and before.action not in (IndexAction.UNCHANGED, IndexAction.DROPPED)
    if before is not None and made and record.action is IndexAction.UNCHANGED:
        return replace(record, action=before.action, id=before.id, asked_at=before.asked_at)
    return record


@contextmanager
def capturing(db: mongo.Database, capture: Capture) -> Iterator[Capture]:
    """Capture what is done to the search indexes of a database until the block ends."""
    capture.database = db.name
    token = current.set(capture)
    try:
        with mongo.tapped(db, listener(db.name, capture.seen)):
            yield capture
    finally:
        current.reset(token)


def listener(database: str, seen: Seen) -> mongo.CommandTap:
    """
    Make a driver's listener for the commands that concern search indexes of a database.

    :param seen: takes each of them with the server's reply
    """
    pending: dict[tuple[object, int], tuple[str, Mapping[str, Any]]] = {}

    def started(event: Any) -> None:
        if event.command_name == _RENAME and event.database_name == "admin":
            pending[event.connection_id, event.request_id] = (_RENAME, event.command)
        if event.database_name != database:
            return
        if event.command_name in _OF_THE_DATABASE:
            pending[event.connection_id, event.request_id] = (event.command_name, event.command)
        elif event.command_name == "aggregate" and _lists_indexes(event.command):
            pending[event.connection_id, event.request_id] = ("aggregate", event.command)

    def ended(event: Any) -> None:
        name, body = pending.pop((event.connection_id, event.request_id), ("", {}))
        reply = getattr(event, "reply", None)  # a command that failed has none
        if reply is not None and name:
            seen(name, body, reply)

    return mongo.CommandTap(started, ended)


def note(record: IndexRecord, database: str) -> None:
    """
    Tell the step under way, if there is one, what a helper did to an index.

    :param database: the index's own; one that is not the step's is none that the ledger speaks of
    """
    capture = current.get()
    if capture is None:
        return
    if capture.database in (None, database):
        capture.note(record)
        return
    message = (
        f"{record.collection}.{record.name} was {record.action.value} in the database {database}, and this run is on "
        f"{capture.database}: nothing waits for that index, and `check` does not look at it"
    )
    capture.emit(Warned(message=message))


def of_database(database: str) -> Capture | None:
    """The capture of the step under way, where that is one on this database."""
    capture = current.get()
    return capture if capture is not None and capture.database in (None, database) else None


def records_of(database: str, collection: str) -> dict[str, IndexRecord]:
    """What the step under way did to the indexes of a collection, by name; nothing where there is none."""
    capture = current.get()
    if capture is None or capture.database not in (None, database):
        return {}
    return {record.name: record for record in capture.records if record.collection == collection}


def type_of(database: str, collection: str, name: str) -> IndexType | None:
    """What kind of index it is, as far as the step under way and the ledger tell."""
    capture = current.get()
    return None if capture is None or capture.database not in (None, database) else capture.type_of(collection, name)


def say(event: Event) -> None:
    """Pass an event on to the run under way, if there is one."""
    capture = current.get()
    if capture is not None:
        capture.emit(event)


def checkpoint(call: str) -> Checkpoint:
    """
    Return the checkpoint of a helper's call in the step under way; one that keeps nothing where there is none.

    :param call: tells calls with other arguments apart; without the ``.`` and ``$`` that no field's name may have
    """
    capture = current.get()
    return Checkpoint(call) if capture is None else capture.checkpoint(call)


def refuse_in_transaction(helper: str, reason: str) -> None:
    """
    Keep a helper out of a script that runs in a transaction.

    :raises NotPossible: before anything is sent
    """
    capture = current.get()
    if capture is not None and capture.transactional:
        raise NotPossible(f"{helper} cannot be used in a script that says TRANSACTIONAL = True: {reason}")


def _lists_indexes(command: Mapping[str, Any]) -> bool:
    pipeline = command.get("pipeline")
    return bool(isinstance(pipeline, list) and pipeline and "$listSearchIndexes" in pipeline[0])


def _within(database: str, namespace: object) -> str | None:
    """The collection that a namespace names, where it is one of the database."""
    name, _, collection = str(namespace).partition(".")
    return collection if name == database else None
