"""
The collection that remembers what was done; one document a migration.

A write of a run names the run and its term, and replaces an entry only if it is still as the run read it. So a holder
that has lost its lease overwrites nothing of its successor's, and a successor that meets such a late write is told.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from pymongo.errors import OperationFailure

from mydocs import search_aliases
from mydocs.migrations.driver import mongo
from mydocs.migrations.errors import LeaseLost
from mydocs.migrations.ledger import lease as leases
from mydocs.migrations.ledger.documents import (
    COLLECTION,
    LOG_COLLECTION,
    attempt_of,
    document_of,
    finished_fields,
    log_key,
    parse,
    parse_aliases,
    time_of,
)
from mydocs.migrations.ledger.lease import Lease
from mydocs.migrations.model import (
    Entry,
    IndexAction,
    LeaseView,
    MigrationState,
    RunStamp,
    Script,
    SearchAlias,
    TrackedIndex,
)

# An alias may have the name of a version, so each comes as a document inside another.
_WITH_ALIASES = [
    {
        "$unionWith": {
            "coll": search_aliases.COLLECTION,
            "pipeline": [{"$sort": {"_id": 1}}, {"$replaceWith": {"_id": None, "alias": "$$ROOT"}}],
        }
    }
]
BATCH = 100_000  # documents; one reply holds 16 MB of them, so a ledger of usual size comes in one


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """
    The ledger, and the lease as it was just before.

    :param lease: ``None`` before the first acquisition
    :param aliases: where they were asked for
    :param seen_at: when it was so, by the server's clock; known where there is a lease
    :param read_at: the same on this process' monotonic clock
    """

    entries: tuple[Entry, ...]
    lease: LeaseView | None
    seen_at: datetime | None = None
    aliases: tuple[SearchAlias, ...] = ()
    read_at: float = field(default_factory=time.monotonic, compare=False)

    def server_now(self) -> datetime | None:
        """The time by the server's clock."""
        if self.seen_at is None:
            return None
        return self.seen_at + timedelta(seconds=time.monotonic() - self.read_at)


async def read(db: mongo.Database, *, patiently: bool = False, aliases: bool = False) -> Snapshot:
    """
    Read lease and ledger in one command, the lease first; see :func:`mydocs.migrations.ledger.plan.is_interrupted`.

    :param aliases: read the search aliases, too
    :param patiently: bear a server that is away for two minutes, as somebody who waits does
    :raises LedgerInvalid: where a document is none of ours
    """
    found = await mongo.documents_again(
        db,
        {
            "aggregate": leases.COLLECTION,
            "pipeline": [*leases.view_stages(), {"$unionWith": COLLECTION}, *(_WITH_ALIASES if aliases else ())],
            "cursor": {"batchSize": BATCH},
        },
        patiently=patiently,
    )
    # An ObjectId, a version or "standard" are the keys of the ledger; the lease is the only "lease".
    shown = next((document for document in found if document["_id"] == "lease"), None)
    named = [document["alias"] for document in found if _is_alias(document)]
    entries = [parse(document) for document in found if document["_id"] != "lease" and not _is_alias(document)]
    # Where both runners have recorded a version, our record is the later in the list and so the one that counts.
    return Snapshot(
        entries=tuple(sorted(entries, key=lambda entry: not entry.legacy)),
        lease=None if shown is None else leases.parse(shown),
        aliases=parse_aliases(named, "_id"),
        seen_at=None if shown is None else time_of(shown, "seen_at"),
    )


def _is_alias(document: mongo.Document) -> bool:
    return document["_id"] is None and "alias" in document


def opening(
    stamp: RunStamp,
    *,
    at: datetime,
    version: str,
    name: str,
    script: str | None,
    checksum: str,
    previous: Entry | None = None,
    direction: str = "up",
) -> Entry:
    """
    Make the entry of a script that is about to run, after a previous attempt if there was one.

    :param at: of :meth:`mydocs.migrations.ledger.lease.Lease.now`
    """
    return Entry(
        version=version,
        name=name,
        script=script,
        checksum=checksum,
        state=MigrationState.RUNNING,
        attempts=previous.attempts + 1 if previous else 1,
        started_at=at,
        run=stamp,
        indexes=previous.indexes if previous else (),
        aliases=previous.aliases if previous else (),
        checkpoint=previous.checkpoint if previous and _goes_on(previous, checksum, direction) else None,
        direction=direction,
    )


async def start(db: mongo.Database, lease: Lease, entry: Entry, previous: Entry | None) -> None:
    """
    Record that a script is about to run; a previous attempt moves to the log.

    :param entry: of :func:`opening`
    :raises LeaseLost: where the entry is not as ``previous`` says any more, or the lease is gone
    """
    lease.check()
    if previous is not None:
        await log(db, previous, direction=previous.direction)
    ours = _query_new(entry)
    query = ours if previous is None else {"_id": entry.version, "$or": [_as_read(previous), ours]}
    try:
        reply = await _write(db, query, document_of(entry), upsert=previous is None)
    except OperationFailure as error:
        if error.code != 11000:
            raise
        raise LeaseLost(lease.term) from error
    if not reply["n"]:
        raise LeaseLost(lease.term)


def _goes_on(previous: Entry, checksum: str, direction: str) -> bool:
    """Whether the checkpoints of an earlier attempt are places in the same script's same function."""
    return previous.checksum == checksum and previous.direction == direction


async def finish(db: mongo.Database, lease: Lease, entry: Entry, session: Any = None) -> None:
    """
    Record how a script ended: its state, times, error and indexes. Success needs no checkpoints any more.

    :param session: of the script's own transaction, where the record is to stand or fall with it
    :raises LeaseLost: where the entry is not this run's any more, or the lease is gone
    """
    lease.check()
    update: dict[str, Any] = {"$set": finished_fields(entry)}
    query = _query_ours(entry)
    if entry.state is MigrationState.APPLIED:
        update["$unset"] = {"checkpoint": ""}
    else:
        # A transaction may have been committed although its script's run was not told.
        query["state"] = {"$ne": MigrationState.APPLIED.value}
    if session is not None:
        query["state"] = MigrationState.RUNNING.value
    reply = await _write(db, query, update, session=session)
    if not reply["n"]:
        raise LeaseLost(lease.term)


async def hand_over(db: mongo.Database, lease: Lease, ended: Entry, following: Entry) -> bool:
    """
    Record in one command that a script has ended well, and that the next one is about to run for the first time.

    :param ended: as for :func:`finish`
    :param following: of :func:`opening`
    :return: whether the next one is recorded; where the server refuses that, :func:`start` meets and tells the reason
    :raises LeaseLost: where the first entry is not this run's any more, or the lease is gone; nothing is written then
    """
    lease.check()
    fields: dict[str, Any] = {name: {"$literal": value} for name, value in finished_fields(ended).items()}
    # A statement that finds nothing is no error, and the server would go on to the next one. This one would insert, and
    # cannot: what it would insert has no name, and a version is no number.
    fields["name"] = {"$cond": [{"$eq": [{"$type": "$name"}, "missing"]}, {"$abs": "$_id"}, "$name"]}
    end = {"q": _query_ours(ended), "u": [{"$set": fields}, {"$unset": "checkpoint"}], "upsert": True}
    begin = {"q": _query_new(following), "u": document_of(following), "upsert": True}
    try:
        await _send(db, {"update": COLLECTION, "updates": [end, begin], "ordered": True}, None)
    except OperationFailure as error:
        statement = (error.details or {}).get("index")
        if statement == 0 and error.code == 28765:  # "$abs only supports numeric types"
            raise LeaseLost(lease.term) from error
        if statement == 1 and not mongo.is_transient(error):
            return False
        raise
    return True


async def has_ended(db: mongo.Database, entry: Entry) -> bool:
    """Whether the record that a script's own transaction makes of its success is there."""
    if entry.direction == "down":
        query, collection = {"_id": log_key(entry, entry.direction)}, LOG_COLLECTION
    else:
        query, collection = _query_ours(entry) | {"state": MigrationState.APPLIED.value}, COLLECTION
    return bool(await mongo.documents_again(db, {"find": collection, "filter": query, "limit": 1}))


async def keep_place(db: mongo.Database, lease: Lease, entry: Entry, key: str, place: Mapping[str, Any]) -> None:
    """
    Keep how far a helper has come in the entry of the script that called it.

    :param key: without ``.`` and ``$``
    :raises LeaseLost: where the entry is not this run's any more, or the lease is gone
    """
    lease.check()
    query = _query_ours(entry) | {"state": MigrationState.RUNNING.value}
    reply = await _write(db, query, {"$set": {f"checkpoint.{key}": place}})
    if not reply["n"]:
        raise LeaseLost(lease.term)


async def put(db: mongo.Database, lease: Lease, entry: Entry, previous: Entry | None) -> None:
    """
    Store an entry that no script ran for (adopted, marked, repaired).

    :raises LeaseLost: where somebody else has changed the entry meanwhile, or the lease is gone
    """
    lease.check()
    if previous is None or previous.legacy:
        query: dict[str, Any] = {"_id": entry.version, "run.id": entry.run.run_id if entry.run else None}
    else:
        query = {"_id": entry.version, "$or": [_as_read(previous), _as_read(entry)]}
    try:
        reply = await _write(db, query, document_of(entry), upsert=previous is None or previous.legacy)
    except OperationFailure as error:
        if error.code != 11000:
            raise
        raise LeaseLost(lease.term) from error
    if not reply["n"]:
        raise LeaseLost(lease.term)


async def remove(db: mongo.Database, lease: Lease, entry: Entry, session: Any = None) -> None:
    """
    Forget an entry that is as it was read; the log keeps what :func:`log` put there before.

    Of the earlier runner's entries all of that file's go: it kept one for each time that a script ran.

    :param session: of the script's own transaction
    :raises LeaseLost: where the lease is gone, or the entry in a transaction
    """
    lease.check()
    if entry.legacy:
        deletes = [{"q": _legacy_of([entry]), "limit": 0}]
    else:
        deletes = [{"q": {"_id": entry.version} | _as_read(entry), "limit": 1}]
    reply = await _send(db, {"delete": COLLECTION, "deletes": deletes}, session)
    if session is not None and not reply["n"]:
        raise LeaseLost(lease.term)


async def untrack(
    db: mongo.Database,
    lease: Lease,
    entries: Sequence[Entry],
    dropped: Sequence[TrackedIndex],
    session: Any = None,
) -> None:
    """Say in the entries that still name an index that it was dropped, so that nobody waits for it any more."""
    names = {index.key for index in dropped}
    lease.check()
    for entry in entries:
        indexes = tuple(
            replace(index, action=IndexAction.DROPPED) if index.key in names else index for index in entry.indexes
        )
        if indexes != entry.indexes:
            fields = {"indexes": document_of(replace(entry, indexes=indexes))["indexes"]}
            await _write(db, {"_id": entry.version} | _as_read(entry), {"$set": fields}, session=session)


async def adopt(
    db: mongo.Database, lease: Lease, legacy: Sequence[Entry], scripts: Sequence[Script], stamp: RunStamp
) -> None:
    """
    Rewrite the earlier runner's documents in the new form, with the checksums of the present files.

    Inserts first and removes afterwards, so that a stop in between loses nothing; inserting again changes nothing.
    """
    if not legacy:
        return
    lease.check()
    on_disk = {script.number: script for script in scripts}
    updates = []
    for entry in legacy:
        script = on_disk.get(int(entry.version))
        adopted = replace(entry, checksum=script.checksum if script else None, run=stamp)
        document = document_of(adopted)
        updates.append({"q": {"_id": document.pop("_id")}, "u": {"$setOnInsert": document}, "upsert": True})
    await mongo.command_again(db, {"update": COLLECTION, "updates": updates, "writeConcern": mongo.MAJORITY})
    await mongo.command_again(
        db,
        {
            "delete": COLLECTION,
            "deletes": [{"q": _legacy_of(legacy), "limit": 0}],
            "writeConcern": mongo.MAJORITY,
        },
    )


async def log(
    db: mongo.Database, entry: Entry, *, direction: str, outcome: str | None = None, session: Any = None
) -> None:
    """Keep an attempt that the ledger is about to stop showing; keeping it twice changes nothing."""
    document = attempt_of(entry, direction, outcome)
    updates = [{"q": {"_id": document["_id"]}, "u": document, "upsert": True}]
    await _send(db, {"update": LOG_COLLECTION, "updates": updates}, session)


async def read_log(db: mongo.Database) -> list[dict[str, Any]]:
    """Return the kept attempts, oldest first."""
    return await mongo.documents_again(
        db, {"find": LOG_COLLECTION, "sort": {"started_at": 1, "_id": 1}, "batchSize": BATCH}
    )


async def _write(
    db: mongo.Database, query: dict[str, Any], update: dict[str, Any], *, upsert: bool = False, session: Any = None
) -> dict[str, Any]:
    """Send one update that may be sent again: each of ours finds its own result and writes it once more."""
    return await _send(db, {"update": COLLECTION, "updates": [{"q": query, "u": update, "upsert": upsert}]}, session)


async def _send(db: mongo.Database, body: dict[str, Any], session: Any) -> dict[str, Any]:
    if session is not None:  # a transaction has one write concern, that of its commit, and is repeated as a whole
        return await mongo.command(db, body, session=session)
    return await mongo.command_again(db, body | {"writeConcern": mongo.MAJORITY})


def _query_ours(entry: Entry) -> dict[str, Any]:
    assert entry.run is not None  # every entry of opening() has one
    return {
        "_id": entry.version,
        "run.id": entry.run.run_id,
        "run.term": entry.run.term,
        "attempts": entry.attempts,
    }


def _query_new(entry: Entry) -> dict[str, Any]:
    """Find nothing before an entry is written, so that it is inserted; and itself where it is written again."""
    assert entry.run is not None  # every entry of opening() has one
    return {"_id": entry.version, "run.id": entry.run.run_id, "attempts": entry.attempts}


def _legacy_of(entries: Sequence[Entry]) -> dict[str, Any]:
    return {"file_name": {"$in": [entry.script for entry in entries]}, "_id": {"$not": {"$type": "string"}}}


def _as_read(entry: Entry) -> dict[str, Any]:
    """A condition that holds as long as nobody has written the entry since it was read."""
    if entry.fence is not None:
        return dict(entry.fence)
    return {
        "state": entry.state.value,
        "run.id": entry.run.run_id if entry.run else None,
        **({"attempts": entry.attempts} if entry.run else {}),
    }
