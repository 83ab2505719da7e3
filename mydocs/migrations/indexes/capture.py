"""
Record which indexes a script touches, in whatever way it does so. No I/O.

While a script runs, a listener sees the commands that it sends: those of our helpers, of Motor or PyMongo, of
``db.command`` and of lightodm. Only this module records what they did. A helper adds only what it wants an index to be,
which is needed if it sent no command. The end of a collection is the end of its indexes. A renamed collection keeps
its indexes, since they follow its UUID.

The application may use the same client meanwhile. So a command of the run's client counts only if its task or thread
has the step's context: the script's own tasks, `asyncio.to_thread`, and what Motor does for them. If an async script
starts a thread in another way (`threading.Thread`, `loop.run_in_executor`), the thread has the context only with
`contextvars.copy_context().run`; otherwise what it does to indexes is not recorded. A plain script has a process of its
own, in which every command counts.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, TypeAlias

import anyio

from mydocs.migrations.driver import dialects, listeners
from mydocs.migrations.driver.client import Database
from mydocs.migrations.driver.dialects import Meaning
from mydocs.migrations.indexes import standard_definitions
from mydocs.migrations.indexes.definitions import kind_of
from mydocs.migrations.indexes.readiness import Track
from mydocs.migrations.model import Definition, IndexAction, IndexType, SearchAlias, TrackedIndex
from mydocs.migrations.reporting.events import IndexDefined, Warned
from mydocs.migrations.scripts import script_context
from mydocs.migrations.scripts.script_context import ScriptContext

_CREATE, _UPDATE, _DROP = "createSearchIndexes", "updateSearchIndex", "dropSearchIndex"
_CREATE_STANDARD, _MODIFY_STANDARD, _DROP_STANDARD = "createIndexes", "collMod", "dropIndexes"
# Not dropDatabase, which drops the ledger as well.
_DROP_COLLECTION, _RENAME, _LIST = "drop", "renameCollection", "aggregate"
_SEEN = frozenset(
    {_CREATE, _UPDATE, _DROP, _CREATE_STANDARD, _MODIFY_STANDARD, _DROP_STANDARD, _DROP_COLLECTION, _LIST}
)
UNANSWERED: Mapping[str, Any] = {"unanswered": True}
"""Replaces the reply if the connection was lost: the command may have been executed or not."""

current: ContextVar["Capture | None"] = ContextVar("mydocs_capture", default=None)
"""What the present script has done so far, for the helpers that it calls."""


Seen: TypeAlias = Callable[[str, Mapping[str, Any], Mapping[str, Any]], None]
"""Receives a command's name, its body and the reply."""


class Capture:
    """The changes of one script to indexes, filled from any thread."""

    def __init__(
        self,
        context: ScriptContext,
        *,
        tracked: Callable[[], Iterable[TrackedIndex]] = lambda: (),
        max_building: int | None = None,
    ) -> None:
        """
        Start without records.

        :param context: the script's; its clock gives the time at which an index was asked for
        :param tracked: returns the ledger's indexes; called once, and only if an index is found, changed or dropped
        :param max_building: how many search indexes may build at the same time, including the next one
        """
        self.context = context
        self.max_building = max_building
        self.submitting = anyio.Lock()
        self.tracks: dict[tuple[object, ...], Track] = {}  # the indexes whose builds are counted
        self.database: str | None = None  # the step's database, once the listener is active
        self._tracked = tracked
        self._aliases: dict[str, SearchAlias] = {}
        self._lock = threading.Lock()
        self._records: dict[tuple[str, str], TrackedIndex] = {}
        self._unanswered: dict[tuple[str, str], TrackedIndex] = {}
        self._found: dict[tuple[str, str], TrackedIndex] = {}
        self._names: dict[tuple[str, str], str] = {}  # (collection, id) → name, for commands that contain only the id

    @cached_property
    def _ledger(self) -> dict[tuple[str, str], TrackedIndex]:
        return {index.key: index for index in self._tracked()}

    @property
    def records(self) -> tuple[TrackedIndex, ...]:
        """Return the latest record of each index, in the order in which they were first touched."""
        with self._lock:
            return tuple(self._records.values())

    def records_after(self, earlier: Iterable[TrackedIndex], *, interrupted: bool) -> tuple[TrackedIndex, ...]:
        """
        Return the records of all attempts at a script together: a later attempt does not forget an earlier one's.

        :param earlier: the records of the previous attempts
        :param interrupted: the last of them may have recorded nothing; what this one found may be its work
        """
        with self._lock:
            found = self._found if interrupted else {}
            before = found | {index.key: index for index in earlier}
            now = {key: _after(before.get(key), index) for key, index in self._records.items()}
            return tuple((before | now).values())

    def note(self, index: TrackedIndex) -> None:
        """
        Record a helper's result: what an index is to be.

        If the script has sent a command for the index, that decides the action. Otherwise the index is unchanged.
        """
        known = self.record_of(*index.key)
        asked_at = None if known is None else known.asked_at
        self._record(replace(index, action=IndexAction.UNCHANGED, asked_at=asked_at or self.now()))

    def record_of(self, collection: str, name: str) -> TrackedIndex | None:
        """Return the record of an index from script or ledger."""
        with self._lock:
            known = self._records.get((collection, name))
        return known or self._ledger.get((collection, name))

    def note_alias(self, alias: SearchAlias) -> None:
        """Record the latest target of an alias."""
        with self._lock:
            before = self._aliases.get(alias.alias)
            self._aliases[alias.alias] = alias if before is None else replace(alias, previous=before.previous)

    def aliases_after(self, earlier: Iterable[SearchAlias]) -> tuple[SearchAlias, ...]:
        """Return the aliases switched by all attempts at a script; ``previous`` is from before the first of them."""
        with self._lock:
            before = {alias.alias: alias for alias in earlier}
            now = {
                name: replace(alias, previous=before[name].previous) if name in before else alias
                for name, alias in self._aliases.items()
            }
            return tuple((before | now).values())

    def search_indexes(self) -> list[TrackedIndex]:
        """Return the search indexes that should exist according to ledger and script."""
        now = self._ledger | {index.key: index for index in self.records}
        return [i for i in now.values() if i.type.is_search and i.action is not IndexAction.DROPPED]

    def has_asked_for(self, index: TrackedIndex) -> bool:
        """Return whether this step has created or changed an index."""
        with self._lock:
            known = self._records.get(index.key)
        return known is not None and known.action is not IndexAction.UNCHANGED

    def type_of(self, collection: str, name: str) -> IndexType | None:
        """Return the type of an index according to script and ledger, or ``None``."""
        known = self.record_of(collection, name)
        return None if known is None else known.type

    def now(self) -> datetime:
        """Return the server's present time, or this machine's if the server was not asked."""
        return self.context.clock() or datetime.now(UTC)

    def seen(self, command: str, body: Mapping[str, Any], reply: Mapping[str, Any]) -> None:
        """
        Record a command that :func:`listener` has selected.

        :param reply: the server's, or :data:`UNANSWERED`
        """
        collection = str(body[command])
        answered = bool(reply.get("ok"))
        if command == _CREATE and (answered or reply == UNANSWERED):
            self._search_created(collection, body["indexes"], reply)
        elif command == _CREATE_STANDARD and (answered or reply == UNANSWERED):
            self._standard_created(collection, body["indexes"], reply)
        elif command in (_UPDATE, _DROP):
            self._search_changed(command, collection, body, reply)
        elif not answered:
            return
        elif command == _MODIFY_STANDARD:
            self._standard_changed(collection, body.get("index"))
        elif command == _DROP_STANDARD:
            self._standard_dropped(collection, body.get("index"))
        elif command == _LIST:
            self._listing_seen(collection, reply)
        elif command == _RENAME:
            self._collection_renamed(*(_within(str(self.database), body[end]) for end in (_RENAME, "to")))
        elif command == _DROP_COLLECTION:
            self._collection_gone(collection)

    def _search_created(self, collection: str, asked: Any, reply: Mapping[str, Any]) -> None:
        created = reply.get("indexesCreated", ())
        for place, document in enumerate(asked):
            told = created[place] if place < len(created) else {}
            name = str(told.get("name") or document.get("name") or "default")
            definition = document.get("definition", {})
            self._learn(collection, name, told.get("id"))
            self._record(
                TrackedIndex(
                    collection=collection,
                    name=name,
                    type=kind_of(document.get("type"), definition),
                    action=IndexAction.CREATED,
                    definition=definition,
                    asked_at=self.now(),
                    id=told.get("id"),
                ),
                reply,
            )

    def _search_changed(self, command: str, collection: str, body: Mapping[str, Any], reply: Mapping[str, Any]) -> None:
        if not reply.get("ok") and reply != UNANSWERED:
            if command == _UPDATE:  # PyMongo ignores a missing collection (Collection.update_search_index)
                missing = f"{reply.get('errmsg', 'refused')}; the driver does not say so, and nothing was updated"
                self.context.emit(Warned(message=f"{command} on {collection}: {missing}"))
            return
        name: str | None = body.get("name") or self._names.get((collection, str(body.get("id"))))
        if name is None:
            message = (
                f"{command} on {collection} by the id {body.get('id')}, which this script has not listed: the name of "
                "that index is unknown, so it is not recorded; use the index's name"
            )
            self.context.emit(Warned(message=message))
            return
        known = self.type_of(collection, name)
        updated = command == _UPDATE
        definition = body.get("definition", {}) if updated else None
        self._record(
            TrackedIndex(
                collection=collection,
                name=name,
                type=known or kind_of(None, definition or {}),
                # Also after a create of the same script: an earlier definition may still be listed.
                action=IndexAction.UPDATED if updated else IndexAction.DROPPED,
                definition=definition,
                asked_at=self.now(),
            ),
            reply,
        )

    def _standard_created(self, collection: str, asked: Any, reply: Mapping[str, Any]) -> None:
        new = _created(reply, len(asked))
        for document in asked:
            definition = standard_definitions.standard_definition(document)
            name = str(document.get("name") or standard_definitions.standard_name(document["key"]))
            index = self._standard(collection, name, IndexAction.CREATED, definition)
            # For several indexes the reply has only the number of new ones. The ledger knows which existed.
            known = self.record_of(collection, name)
            there = known is not None and known.action is not IndexAction.DROPPED and known.definition == definition
            if reply != UNANSWERED and (new == 0 or (new < len(asked) and there)):
                self.note(index)
            else:
                self._record(index, reply)

    def _standard_changed(self, collection: str, change: Any) -> None:
        """Record the part of a `collMod` that concerns an index."""
        if not isinstance(change, Mapping):
            return
        options = {name: value for name, value in change.items() if name not in ("name", "keyPattern")}
        for name in self._names_of(collection, change.get("name") or change.get("keyPattern")):
            known = self.record_of(collection, name)
            definition = None if known is None else known.definition
            if definition is not None:
                definition = {**definition, "options": {**definition.get("options", {}), **options}}
            elif isinstance(change.get("keyPattern"), Mapping):
                definition = {"key": dict(change["keyPattern"]), "options": options}
            self._record(self._standard(collection, name, IndexAction.UPDATED, definition))

    def _standard_dropped(self, collection: str, which: Any) -> None:
        for name in self._names_of(collection, which):
            self._record(self._standard(collection, name, IndexAction.DROPPED, None))

    def _standard(self, collection: str, name: str, action: IndexAction, definition: Definition | None) -> TrackedIndex:
        return TrackedIndex(
            collection=collection,
            name=name,
            type=IndexType.STANDARD,
            action=action,
            definition=definition,
            asked_at=self.now(),
        )

    def _names_of(self, collection: str, which: Any) -> list[str]:
        """Return the names that a command means by a name, several names, a key, or `*`."""
        if isinstance(which, list | tuple):
            return [str(name) for name in which]
        there = [index for index in self._there(collection) if index.type is IndexType.STANDARD]
        if which == "*":
            return [index.name for index in there]
        if isinstance(which, Mapping):
            key = list(which.items())
            named = [i.name for i in there if i.definition is not None and list(i.definition["key"].items()) == key]
            return named or [standard_definitions.standard_name(which)]
        return [] if which is None else [str(which)]

    def _collection_gone(self, collection: str) -> None:
        """Record that the indexes of a collection are gone with it."""
        for index in self._there(collection):
            self._forget(index)
        with self._lock:
            self._found = {key: found for key, found in self._found.items() if key[0] != collection}

    def _collection_renamed(self, before: str | None, after: str | None) -> None:
        """
        Record that the indexes of a collection are now under its new name.

        :param before: ``None`` if it came from another database
        :param after: ``None`` if it went to another database, where it has another UUID and so no search index
        """
        if after is not None:
            self._collection_gone(after)  # dropTarget may have dropped one
        moved = self._there(before) if before is not None else []
        if before is not None:
            self._collection_gone(before)
        for index in moved:
            if after is not None:
                self._record(replace(index, collection=after, action=IndexAction.UNCHANGED))

    def _there(self, collection: str) -> list[TrackedIndex]:
        """Return the indexes that exist at this moment, according to ledger and script."""
        with self._lock:
            return [
                index
                for index in (self._ledger | self._records).values()
                if index.collection == collection and index.action is not IndexAction.DROPPED
            ]

    def _forget(self, index: TrackedIndex) -> None:
        self._record(replace(index, action=IndexAction.DROPPED, definition=None, id=None, asked_at=self.now()))

    def _listing_seen(self, collection: str, reply: Mapping[str, Any]) -> None:
        """Learn from a listing that the script itself has requested: the names of ids, and what it found."""
        for document in reply.get("cursor", {}).get("firstBatch", ()):
            name, definition = document.get("name"), document.get("latestDefinition")
            if isinstance(name, str) and document.get("status") != "DELETING":
                self._learn(collection, name, document.get("id"))
                found = TrackedIndex(
                    collection=collection,
                    name=name,
                    type=kind_of(document.get("type"), definition or {}),
                    definition=definition,
                    asked_at=self.now(),
                )
                with self._lock:
                    self._found[found.key] = found

    def _learn(self, collection: str, name: str, index_id: object) -> None:
        with self._lock:
            self._names[collection, str(index_id)] = name

    def _record(self, index: TrackedIndex, reply: Mapping[str, Any] | None = None) -> None:
        with self._lock:
            before = self._records.get(index.key)
            dropped = before is not None and before.action is IndexAction.DROPPED
            if index.action is IndexAction.CREATED:
                # An index that took another one's place is recognised by its id. A self-managed server answers a
                # create for an existing index with an id that belongs to none.
                action = IndexAction.REPLACED if dropped else IndexAction.CREATED
                index = replace(index, action=action, id=index.id if dropped else None)
            if reply == UNANSWERED:
                self._unanswered[index.key] = index
                return
            attempt = self._unanswered.pop(index.key, None)
            if index.action is IndexAction.UNCHANGED and attempt is not None:
                before = attempt  # so the command has arrived
            self._records[index.key] = _after(before, index)


def _created(reply: Mapping[str, Any], asked: int) -> int:
    """Return how many indexes are new by a reply to `createIndexes`. A sharded cluster answers by shard."""
    shards = reply.get("raw")
    replies = list(shards.values()) if isinstance(shards, Mapping) else [reply]
    counts = [(each.get("numIndexesBefore"), each.get("numIndexesAfter")) for each in replies]
    told = [after - before for before, after in counts if isinstance(before, int) and isinstance(after, int)]
    return min(max(told, default=asked), asked)


def _after(before: TrackedIndex | None, index: TrackedIndex) -> TrackedIndex:
    """Merge two observations of one index. What the script has created stays created if it is found later."""
    made = before is not None and before.action not in (IndexAction.UNCHANGED, IndexAction.DROPPED)
    if before is not None and made and index.action is IndexAction.UNCHANGED:
        replaced = before.action is IndexAction.REPLACED
        known = (before.id or index.id) if replaced else None
        return replace(index, action=before.action, id=known, asked_at=before.asked_at)
    return index


@contextmanager
def capturing(db: Database, capture: Capture) -> Iterator[Capture]:
    """Record what the present script does to the indexes of a database, until the block ends."""
    tap = listener(db.name, capture.seen, is_wanted=lambda: current.get() is capture)
    with under_way(capture, db.name), listeners.tapped(db, tap):
        yield capture


@contextmanager
def under_way(capture: Capture, database: str) -> Iterator[None]:
    """Make a script known to the helpers that are called in this block."""
    capture.database = database
    token, script = current.set(capture), script_context.current.set(capture.context)
    try:
        yield
    finally:
        script_context.current.reset(script)
        current.reset(token)


def listener(database: str, seen: Seen, *, is_wanted: Callable[[], bool] = lambda: True) -> listeners.CommandTap:
    """
    Return a driver's listener for the commands that concern indexes of a database.

    :param seen: receives each of them with the server's reply
    :param is_wanted: tells whether a command of the calling task or thread counts
    """
    pending: dict[tuple[object, int], tuple[str, Mapping[str, Any]]] = {}

    def started(event: Any) -> None:
        name, of = event.command_name, event.database_name
        concerned = (name in _SEEN and of == database) or (name == _RENAME and of == "admin")
        if concerned and (name != _LIST or _lists_indexes(event.command)) and is_wanted():
            pending[event.connection_id, event.request_id] = (name, event.command)

    def ended(event: Any) -> None:
        name, body = pending.pop((event.connection_id, event.request_id), ("", {}))
        if name:
            reply = event.reply if hasattr(event, "reply") else _of_a_failure(name, event.failure)
            if reply is not None:
                seen(name, body, reply)

    return listeners.CommandTap(started, ended)


def _of_a_failure(command: str, failure: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the reply that a failure amounts to, or ``None`` if nothing was done."""
    if "code" not in failure:  # the driver's own failure: the connection was lost
        return UNANSWERED
    gone = dialects.says(failure["code"], str(failure.get("errmsg")), Meaning.GONE)
    return {"ok": 1} if command in (_DROP, _DROP_STANDARD) and gone else None


def note(index: TrackedIndex, database: str) -> None:
    """
    Record what a helper has made of an index in the present step, if there is one, and emit it as an event.

    :param database: the index's own; the ledger contains only indexes of the step's database
    """
    capture = current.get()
    if capture is None:
        return
    if capture.database in (None, database):
        if index.action is not IndexAction.DROPPED:
            capture.note(index)
    else:
        message = (
            f"{index} was {index.action.value} in the database {database}, and this run is on {capture.database}: "
            "nothing waits for that index, and `check` does not read it"
        )
        capture.context.emit(Warned(message=message))
    defined = IndexDefined(collection=index.collection, name=index.name, type=index.type, action=index.action.value)
    capture.context.emit(defined)


def of_database(database: str) -> Capture | None:
    """Return the capture of the present step if it is on this database."""
    capture = current.get()
    return capture if capture is not None and capture.database in (None, database) else None


def records_of(database: str, collection: str) -> dict[str, TrackedIndex]:
    """Return what the present step did to the indexes of a collection, by name; nothing without a step."""
    capture = of_database(database)
    return (
        {}
        if capture is None
        else {record.name: record for record in capture.records if record.collection == collection}
    )


def type_of(database: str, collection: str, name: str) -> IndexType | None:
    """Return the type of an index according to the present step and the ledger, or ``None``."""
    capture = of_database(database)
    return None if capture is None else capture.type_of(collection, name)


def unanswered(database: str, command: Mapping[str, Any]) -> None:
    """Record in the present step that a helper gave up the wait for the answer to its command."""
    capture = of_database(database)
    if capture is not None:
        capture.seen(next(iter(command)), command, UNANSWERED)


def _lists_indexes(command: Mapping[str, Any]) -> bool:
    pipeline = command.get("pipeline")
    return bool(isinstance(pipeline, list) and pipeline and "$listSearchIndexes" in pipeline[0])


def _within(database: str, namespace: object) -> str | None:
    """Return the collection of a namespace if it belongs to the database."""
    name, _, collection = str(namespace).partition(".")
    return collection if name == database else None
