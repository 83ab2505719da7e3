"""
Write the ledger as the holder of the lease. I/O.

Each write names the run and its term, and replaces an entry only if it is still as the run read it. So a holder that
has lost its lease overwrites nothing of its successor's, and a successor notices such a late write.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import cached_property
from typing import Any

from pymongo.errors import DocumentTooLarge, OperationFailure

import mydocs
from mydocs.migrations.driver import commands, server_errors
from mydocs.migrations.driver.client import Database
from mydocs.migrations.errors import LeaseLost, LedgerChanged, MigrationError, NotPossible
from mydocs.migrations.ledger import entries
from mydocs.migrations.ledger.documents import (
    COLLECTION,
    LOG_COLLECTION,
    attempt_of,
    document_of,
    finished_fields,
    log_key,
    without_definitions,
)
from mydocs.migrations.ledger.lease import Lease
from mydocs.migrations.model import Entry, IndexAction, MigrationState, RunStamp, Script, TrackedIndex
from mydocs.migrations.values import value


@value
class HeldLedger:
    """The ledger while the lease is held. It stamps and filters its writes by itself."""

    db: Database
    lease: Lease

    @cached_property
    def stamp(self) -> RunStamp:
        """Return the stamp of the run's writes."""
        owner, tool = self.lease.owner, f"mydocs {mydocs.__version__}"
        return RunStamp(run_id=owner.run_id, term=self.lease.term, host=owner.host, pid=owner.pid, tool=tool)

    def now(self) -> datetime:
        """Return the server's present time."""
        return self.lease.now()

    async def start(self, entry: Entry, previous: Entry | None) -> None:
        """
        Record that a script is about to run. A previous attempt moves to the log.

        :param entry: from :func:`mydocs.migrations.ledger.entries.opening`
        :raises LeaseLost: if the entry is no longer as in ``previous``, or the lease is lost
        :raises LedgerChanged: if the entry was removed
        """
        self.lease.check()
        if previous is not None:
            await self.log(previous, direction=previous.direction)
        ours = _query_new(entry)
        query = ours if previous is None else {"_id": entry.version, "$or": [_as_read(previous), ours]}
        await self._write(entry.version, query, document_of(entry), upsert=previous is None)

    async def finish(self, entry: Entry, session: Any = None) -> Entry:
        """
        Record how a script ended: its state, times, error and indexes. After success the checkpoints are removed.

        :param session: of the script's own transaction, if the record must be committed or aborted with it
        :return: the entry as stored; without the definitions of its indexes if those are too large
        :raises LeaseLost: if the entry no longer belongs to this run, or the lease is lost
        :raises LedgerChanged: if the entry was removed
        """
        self.lease.check()
        query = _query_ours(entry)
        if session is not None:
            query["state"] = MigrationState.RUNNING.value
        elif entry.state is not MigrationState.APPLIED:
            # A transaction may have been committed although the run did not get the answer.
            query["state"] = {"$ne": MigrationState.APPLIED.value}

        async def send(stored: Entry) -> None:
            update: dict[str, Any] = {"$set": finished_fields(stored)}
            if stored.state is MigrationState.APPLIED:
                update["$unset"] = {"checkpoint": ""}
            await self._write(entry.version, query, update, session=session)

        return await _as_far_as_it_fits(entry, send)

    async def finish_and_start(self, ended: Entry, following: Entry) -> tuple[Entry, Entry | None]:
        """
        Record in one command that a script has ended well, and that the next one is about to run for the first time.

        :param ended: as for :meth:`finish`
        :param following: from :func:`mydocs.migrations.ledger.entries.opening`
        :return: the first as stored, and the second if it is recorded too; if not, :meth:`start` gives the reason
        :raises LeaseLost: if the first entry no longer belongs to this run, or the lease is lost; nothing is written
        :raises LedgerChanged: if the first entry was removed
        """
        self.lease.check()
        fields: dict[str, Any] = {name: {"$literal": value} for name, value in finished_fields(ended).items()}
        end = {
            "q": _query_ours(ended),
            "u": [*_ONLY_IF_FOUND, {"$set": fields}, {"$unset": "checkpoint"}],
            "upsert": True,
        }
        begin = {"q": _query_new(following), "u": document_of(following), "upsert": True}
        try:
            await self._send({"update": COLLECTION, "updates": [end, begin], "ordered": True}, None)
        except DocumentTooLarge:  # perhaps only both together
            return await self.finish(ended), None
        except OperationFailure as error:
            if server_errors.is_transient(error):
                raise
            if (error.details or {}).get("index") == 1:
                return ended, None
            # The first statement was refused: it found nothing, or it is refused alone as well.
            return await self.finish(ended), None
        return ended, following

    async def has_ended(self, entry: Entry) -> bool:
        """Return whether the record exists by which a script's own transaction marks its success."""
        if entry.direction == "down":
            query, collection = {"_id": log_key(entry, entry.direction)}, LOG_COLLECTION
        else:
            query, collection = _query_ours(entry) | {"state": MigrationState.APPLIED.value}, COLLECTION
        return bool(await commands.documents_again(self.db, {"find": collection, "filter": query, "limit": 1}))

    async def keep_place(self, entry: Entry, key: str, place: Mapping[str, Any]) -> None:
        """
        Store how far a helper has come, in the entry of the script that called it.

        :param key: without ``.`` and ``$``
        :raises LeaseLost: if the entry no longer belongs to this run, or the lease is lost
        :raises LedgerChanged: if the entry was removed
        """
        self.lease.check()
        await self._write(entry.version, fence_of(entry), {"$set": {f"checkpoint.{key}": place}})

    async def put(self, entry: Entry, previous: Entry | None) -> None:
        """
        Store an entry for which no script ran (adopted, marked, repaired).

        :raises LeaseLost: if another run has changed the entry, or the lease is lost
        :raises LedgerChanged: if the entry was removed
        """
        self.lease.check()
        if previous is None or previous.legacy:
            query: dict[str, Any] = {"_id": entry.version, "run.id": entry.run.run_id if entry.run else None}
        else:
            query = {"_id": entry.version, "$or": [_as_read(previous), _as_read(entry)]}

        async def send(stored: Entry) -> None:
            upsert = previous is None or previous.legacy
            await self._write(entry.version, query, document_of(stored), upsert=upsert)

        await _as_far_as_it_fits(entry, send)

    async def remove(self, entry: Entry, session: Any = None) -> None:
        """
        Remove an entry that is still as it was read. The log keeps what :meth:`log` has stored.

        Of the earlier runner, all entries of the file are removed: it stored one for each run of a script.

        :param session: of the script's own transaction
        :raises LeaseLost: if the lease is lost, or in a transaction the entry is gone
        """
        self.lease.check()
        if entry.legacy:
            deletes = [{"q": _legacy_of([entry]), "limit": 0}]
        else:
            deletes = [{"q": {"_id": entry.version} | _as_read(entry), "limit": 1}]
        reply = await self._send({"delete": COLLECTION, "deletes": deletes}, session)
        if session is not None and not reply["n"]:
            raise LeaseLost(self.lease.term)

    async def untrack(self, kept: Sequence[Entry], dropped: Sequence[TrackedIndex], session: Any = None) -> None:
        """Record an index as dropped in the entries that still name it, so that no run waits for it."""
        names = {index.key for index in dropped}
        self.lease.check()
        for entry in kept:
            indexes = tuple(
                replace(index, action=IndexAction.DROPPED) if index.key in names else index for index in entry.indexes
            )
            if indexes != entry.indexes:
                fields = {"indexes": document_of(replace(entry, indexes=indexes))["indexes"]}
                update = {"q": {"_id": entry.version} | _as_read(entry), "u": {"$set": fields}}
                await self._send({"update": COLLECTION, "updates": [update]}, session)

    async def adopt(self, legacy: Sequence[Entry], scripts: Sequence[Script]) -> None:
        """
        Rewrite the earlier runner's documents in the new form, with the checksums of the present files.

        Insert first and remove afterwards, so that a stop in between loses nothing. A second insert changes nothing.
        """
        if not legacy:
            return
        self.lease.check()
        on_disk = {script.number: script for script in scripts}
        updates = []
        for entry in legacy:
            script = on_disk.get(int(entry.version))
            adopted = replace(entry, checksum=script.checksum if script else None, run=self.stamp)
            document = document_of(adopted)
            updates.append({"q": {"_id": document.pop("_id")}, "u": {"$setOnInsert": document}, "upsert": True})
        await self._send({"update": COLLECTION, "updates": updates}, None)
        await self._send({"delete": COLLECTION, "deletes": [{"q": _legacy_of(legacy), "limit": 0}]}, None)

    async def log(self, entry: Entry, *, direction: str, outcome: str | None = None, session: Any = None) -> None:
        """Log an attempt that the ledger will no longer show. A second call changes nothing."""
        document = attempt_of(entry, direction, outcome)
        updates = [{"q": {"_id": document["_id"]}, "u": document, "upsert": True}]
        await self._send({"update": LOG_COLLECTION, "updates": updates}, session)

    async def _write(
        self, version: str, query: dict[str, Any], update: dict[str, Any], *, upsert: bool = False, session: Any = None
    ) -> None:
        """Send one update that may be repeated: each finds its own result and writes it again."""
        updates = [{"q": query, "u": update, "upsert": upsert}]
        try:
            reply = await self._send({"update": COLLECTION, "updates": updates}, session)
        except OperationFailure as error:
            if error.code != server_errors.DUPLICATE_KEY:
                raise
            raise await self._why_refused(version, error) from error
        if not reply["n"]:
            raise await self._why_not_found(version)

    async def _send(self, body: dict[str, Any], session: Any) -> dict[str, Any]:
        if session is not None:  # a transaction has one write concern, its commit's, and is repeated as a whole
            return await commands.command(self.db, body, session=session)
        return await commands.command_again(self.db, body | {"writeConcern": commands.MAJORITY})

    async def _why_refused(self, version: str, error: OperationFailure) -> MigrationError:
        index = server_errors.unique_index_of(error)
        if index is None:
            return await self._why_not_found(version)
        return NotPossible(
            f"the unique index {index} of {COLLECTION} does not take the entry of {version}; mydocs needs no index "
            f"there, drop it: db.{COLLECTION}.dropIndex({index!r})"
        )

    async def _why_not_found(self, version: str) -> MigrationError:
        """Return the error for a write that found no entry: the lease is lost, or the entry was removed."""
        found = await entries.read(self.db)
        ours = self.lease.owner.run_id, self.lease.term
        if found.lease is not None and (found.lease.run_id, found.lease.term) != ours:
            return LeaseLost(self.lease.term)
        if any(entry.version == version for entry in found.entries):
            return LeaseLost(self.lease.term)
        return LedgerChanged(version)


# A statement that finds nothing is not an error, and the server would continue with the next one. With an upsert it
# would insert, and this expression makes the insert fail: the new document has no name yet, and a version is not a
# number. It does not matter whether a server evaluates the branch that `$cond` does not take.
_ONLY_IF_FOUND: tuple[dict[str, Any], ...] = (
    {"$set": {"found": {"$abs": {"$cond": [{"$eq": [{"$type": "$name"}, "missing"]}, "$_id", 0]}}}},
    {"$unset": "found"},
)


async def _as_far_as_it_fits(entry: Entry, send: Callable[[Entry], Awaitable[None]]) -> Entry:
    """Store an entry. If it is too large for a document, store it without the definitions of its indexes."""
    try:
        await send(entry)
    except (OperationFailure, DocumentTooLarge) as error:
        if not server_errors.is_too_large(error):
            raise
        entry = without_definitions(entry)
        await send(entry)
    return entry


def fence_of(entry: Entry) -> dict[str, Any]:
    """Return the condition that finds an entry only while its script runs in this run."""
    return _query_ours(entry) | {"state": MigrationState.RUNNING.value}


def _query_ours(entry: Entry) -> dict[str, Any]:
    assert entry.run is not None  # every entry of opening() has one
    return {
        "_id": entry.version,
        "run.id": entry.run.run_id,
        "run.term": entry.run.term,
        "attempts": entry.attempts,
    }


def _query_new(entry: Entry) -> dict[str, Any]:
    """Return a query that finds nothing before the entry is written, so that it is inserted, and then itself."""
    assert entry.run is not None  # every entry of opening() has one
    return {"_id": entry.version, "run.id": entry.run.run_id, "attempts": entry.attempts}


def _legacy_of(entries: Sequence[Entry]) -> dict[str, Any]:
    return {"file_name": {"$in": [entry.script for entry in entries]}, "_id": {"$not": {"$type": "string"}}}


def _as_read(entry: Entry) -> dict[str, Any]:
    """Return a condition that is true until the entry is written again."""
    if entry.fence is not None:
        return dict(entry.fence)
    return {
        "state": entry.state.value,
        "run.id": entry.run.run_id if entry.run else None,
        **({"attempts": entry.attempts} if entry.run else {}),
    }
