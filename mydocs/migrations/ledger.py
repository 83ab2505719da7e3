"""
The collection that remembers what was done; one document a migration.

A write of a run names the run and its term, and replaces an entry only if it is still as the run read it. So a holder
that has lost its lease overwrites nothing of its successor's, and a successor that meets such a late write is told.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from pymongo.errors import OperationFailure

from mydocs.migrations import lease as leases
from mydocs.migrations import mongo
from mydocs.migrations.discover import PATTERN
from mydocs.migrations.errors import LeaseLost, LedgerInvalid
from mydocs.migrations.lease import Lease
from mydocs.migrations.model import (
    STANDARD_VERSION,
    Entry,
    IndexAction,
    IndexRecord,
    IndexType,
    LeaseView,
    MigrationState,
    RunStamp,
    Script,
    StoredError,
)

logger = logging.getLogger(__name__)

COLLECTION = "_migrations"
LOG_COLLECTION = "_migrations_log"
BATCH = 100_000  # documents; one reply holds 16 MB of them, so a ledger of usual size comes in one


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The ledger, and the lease as it was just before; ``lease`` is ``None`` before the first acquisition."""

    entries: tuple[Entry, ...]
    lease: LeaseView | None


async def read(db: mongo.Database) -> Snapshot:
    """
    Read lease and ledger in one command, the lease first; see :func:`mydocs.migrations.plan.is_interrupted`.

    :raises LedgerInvalid: where a document is none of ours
    """
    found = await mongo.documents_again(
        db,
        {
            "aggregate": leases.COLLECTION,
            "pipeline": [*leases.view_stages(), {"$unionWith": COLLECTION}],
            "cursor": {"batchSize": BATCH},
        },
    )
    # An ObjectId, a version or "standard" are the keys of the ledger; the lease is the only "lease".
    lease = next((leases.parse(document) for document in found if document["_id"] == "lease"), None)
    entries = [parse(document) for document in found if document["_id"] != "lease"]
    # Where both runners have recorded a version, our record is the later in the list and so the one that counts.
    return Snapshot(entries=tuple(sorted(entries, key=lambda entry: not entry.legacy)), lease=lease)


def parse(document: Mapping[str, Any]) -> Entry:
    """
    Read a ledger document, of ours or of the application's earlier runner.

    :raises LedgerInvalid: where it is neither
    """
    key = document.get("_id")
    if isinstance(document.get("file_name"), str):
        return _parse_legacy(document)
    if not isinstance(key, str) or not (key == STANDARD_VERSION or (key.isascii() and key.isdigit())):
        raise LedgerInvalid(COLLECTION, repr(key), "its _id is no version")
    try:
        state = MigrationState(document.get("state", ""))
    except ValueError:
        state = MigrationState.PENDING
    if state not in (MigrationState.RUNNING, MigrationState.APPLIED, MigrationState.FAILED):
        raise LedgerInvalid(COLLECTION, repr(key), f"its state is {document.get('state')!r}")
    if not isinstance(document.get("indexes", []), list):
        raise LedgerInvalid(COLLECTION, repr(key), "its `indexes` are no list")
    run = _mapping(document, "run")
    return Entry(
        version=key,
        name=_text(document, "name") or "",
        script=_text(document, "script"),
        checksum=_text(document, "checksum"),
        state=state,
        attempts=_whole(document, "attempts", 1),
        started_at=_time(document, "started_at"),
        finished_at=_time(document, "finished_at"),
        seconds=_seconds(document),
        error=_parse_error(document),
        indexes=tuple(_parse_index(key, index) for index in document.get("indexes", [])),
        run=_parse_run(run) if run else None,
        checkpoint=_mapping(document, "checkpoint") or None,
        direction=_text(document, "direction") or "up",
        fence={"state": state.value, "run.id": run.get("id"), "attempts": document.get("attempts")},
    )


async def start(
    db: mongo.Database,
    lease: Lease,
    stamp: RunStamp,
    *,
    version: str,
    name: str,
    script: str | None,
    checksum: str,
    previous: Entry | None,
    direction: str = "up",
) -> Entry:
    """
    Record that a script is about to run; a previous attempt moves to the log.

    :raises LeaseLost: where the entry is not as ``previous`` says any more, or the lease is gone
    """
    lease.check()
    entry = Entry(
        version=version,
        name=name,
        script=script,
        checksum=checksum,
        state=MigrationState.RUNNING,
        attempts=previous.attempts + 1 if previous else 1,
        started_at=_now(),
        run=stamp,
        indexes=previous.indexes if previous else (),
        checkpoint=previous.checkpoint if previous and _goes_on(previous, checksum, direction) else None,
        direction=direction,
    )
    if previous is not None:
        await log(db, previous, direction=previous.direction)
    ours = {"_id": version, "run.id": stamp.id, "attempts": entry.attempts}
    query = ours if previous is None else {"_id": version, "$or": [_as_read(previous), ours]}
    try:
        reply = await _write(db, query, _document(entry), upsert=previous is None)
    except OperationFailure as error:
        if error.code != 11000:
            raise
        raise LeaseLost(lease.term) from error
    if not reply["n"]:
        raise LeaseLost(lease.term)
    return entry


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


async def has_ended(db: mongo.Database, entry: Entry) -> bool:
    """Whether the record that a script's own transaction makes of its success is there."""
    if entry.direction == "down":
        query, collection = {"_id": _log_key(entry, entry.direction)}, LOG_COLLECTION
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


def finished_fields(entry: Entry) -> dict[str, Any]:
    """The fields of an entry that its end decides."""
    document = _document(entry)
    return {key: document[key] for key in ("state", "finished_at", "seconds", "error", "indexes")}


async def put(db: mongo.Database, lease: Lease, entry: Entry, previous: Entry | None) -> None:
    """
    Store an entry that no script ran for (adopted, marked, repaired).

    :raises LeaseLost: where somebody else has changed the entry meanwhile, or the lease is gone
    """
    lease.check()
    if previous is None or previous.legacy:
        query: dict[str, Any] = {"_id": entry.version, "run.id": entry.run.id if entry.run else None}
    else:
        query = {"_id": entry.version, "$or": [_as_read(previous), _as_read(entry)]}
    try:
        reply = await _write(db, query, _document(entry), upsert=previous is None or previous.legacy)
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
    dropped: Sequence[IndexRecord],
    session: Any = None,
) -> None:
    """Say in the entries that still name an index that it was dropped, so that nobody waits for it any more."""
    names = {(record.collection, record.name) for record in dropped}
    lease.check()
    for entry in entries:
        indexes = tuple(
            replace(index, action=IndexAction.DROPPED) if (index.collection, index.name) in names else index
            for index in entry.indexes
        )
        if indexes != entry.indexes:
            fields = {"indexes": _document(replace(entry, indexes=indexes))["indexes"]}
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
        document = _document(adopted)
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
    key = _log_key(entry, direction)
    document = {
        "_id": key,
        "version": entry.version,
        "name": entry.name,
        "script": entry.script,
        "direction": direction,
        "outcome": outcome or ("interrupted" if entry.state is MigrationState.RUNNING else entry.state.value),
        "attempt": entry.attempts,
        "started_at": entry.started_at,
        "finished_at": entry.finished_at,
        "seconds": entry.seconds,
        "error": _error(entry.error),
        "host": entry.run.host if entry.run else None,
        "run": _run(entry.run),
    }
    updates = [{"q": {"_id": key}, "u": document, "upsert": True}]
    await _send(db, {"update": LOG_COLLECTION, "updates": updates}, session)


def _log_key(entry: Entry, direction: str) -> str:
    return f"{entry.version}:{direction}:{entry.attempts}:{entry.run.id if entry.run else 'unknown'}"


async def read_log(db: mongo.Database) -> list[dict[str, Any]]:
    """Return the kept attempts, oldest first."""
    return await mongo.documents_again(
        db, {"find": LOG_COLLECTION, "sort": {"started_at": 1, "_id": 1}, "batchSize": BATCH}
    )


def parse_attempt(document: Mapping[str, Any]) -> Entry:
    """Read a document of the log; its ``direction`` and ``outcome`` are the caller's to read."""
    run = _mapping(document, "run")
    return Entry(
        version=_text(document, "version") or "",
        name=_text(document, "name") or "",
        script=_text(document, "script"),
        checksum=None,
        state=MigrationState.FAILED,
        attempts=_whole(document, "attempt", 1),
        started_at=_time(document, "started_at"),
        finished_at=_time(document, "finished_at"),
        seconds=_seconds(document),
        error=_parse_error(document),
        run=_parse_run(run) if run else None,
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
    assert entry.run is not None  # every entry that start() returns has one
    return {
        "_id": entry.version,
        "run.id": entry.run.id,
        "run.term": entry.run.term,
        "attempts": entry.attempts,
    }


def _legacy_of(entries: Sequence[Entry]) -> dict[str, Any]:
    return {"file_name": {"$in": [entry.script for entry in entries]}, "_id": {"$not": {"$type": "string"}}}


def _as_read(entry: Entry) -> dict[str, Any]:
    """A condition that holds as long as nobody has written the entry since it was read."""
    if entry.fence is not None:
        return dict(entry.fence)
    return {
        "state": entry.state.value,
        "run.id": entry.run.id if entry.run else None,
        **({"attempts": entry.attempts} if entry.run else {}),
    }


def _document(entry: Entry) -> dict[str, Any]:
    document: dict[str, Any] = {
        "_id": entry.version,
        "name": entry.name,
        "script": entry.script,
        "checksum": entry.checksum,
        "state": entry.state.value,
        "attempts": entry.attempts,
        "started_at": entry.started_at,
        "finished_at": entry.finished_at,
        "seconds": entry.seconds,
        "error": _error(entry.error),
        "indexes": [
            {
                "collection": index.collection,
                "name": index.name,
                "type": index.type.value,
                "action": index.action.value,
                "definition": index.definition,
            }
            for index in entry.indexes
        ],
        "run": _run(entry.run),
    }
    if entry.checkpoint:
        document["checkpoint"] = entry.checkpoint
    if entry.direction != "up":
        document["direction"] = entry.direction
    return document


def _run(run: RunStamp | None) -> dict[str, Any] | None:
    return None if run is None else {"id": run.id, "term": run.term, "host": run.host, "pid": run.pid, "tool": run.tool}


def _error(error: StoredError | None) -> dict[str, str] | None:
    return None if error is None else {"type": error.type, "message": error.message}


def _parse_error(document: Mapping[str, Any]) -> StoredError | None:
    error = _mapping(document, "error")
    if not error:
        return None
    return StoredError(type=_text(error, "type") or "", message=_text(error, "message") or "")


def _parse_run(run: Mapping[str, Any]) -> RunStamp:
    return RunStamp(
        id=_text(run, "id") or "",
        term=_whole(run, "term", 0),
        host=_text(run, "host") or "",
        pid=_whole(run, "pid", 0),
        tool=_text(run, "tool") or "",
    )


def _parse_legacy(document: Mapping[str, Any]) -> Entry:
    match = PATTERN.fullmatch(document["file_name"])
    if match is None:
        raise LedgerInvalid(
            COLLECTION, repr(document.get("_id")), f"its file_name {document['file_name']!r} has no version"
        )
    run_at = document.get("run_at")
    if isinstance(run_at, str):
        try:
            run_at = datetime.fromisoformat(run_at)
        except ValueError:
            run_at = None
    at = _aware(run_at) if isinstance(run_at, datetime) else None
    return Entry(
        version=match["version"],
        name=match["name"],
        script=document["file_name"],
        checksum=None,
        state=MigrationState.APPLIED,
        started_at=at,
        finished_at=at,
        legacy=True,
    )


def _parse_index(key: str, index: Any) -> IndexRecord:
    if (
        not isinstance(index, Mapping)
        or not isinstance(index.get("collection"), str)
        or not isinstance(index.get("name"), str)
    ):
        raise LedgerInvalid(COLLECTION, repr(key), f"its `indexes` hold {index!r}")
    try:
        kind, action = IndexType(index.get("type", "search")), IndexAction(index.get("action", "created"))
    except ValueError as error:
        raise LedgerInvalid(COLLECTION, repr(key), f"index {index['name']}: {error}") from error
    return IndexRecord(
        collection=index["collection"],
        name=index["name"],
        type=kind,
        action=action,
        definition=_mapping(index, "definition") or None,
    )


def _mapping(document: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = document.get(key)
    return value if isinstance(value, Mapping) else {}


def _text(document: Mapping[str, Any], key: str) -> str | None:
    value = document.get(key)
    return value if isinstance(value, str) else None


def _whole(document: Mapping[str, Any], key: str, default: int) -> int:
    value = document.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) else default


def _time(document: Mapping[str, Any], key: str) -> datetime | None:
    value = document.get(key)
    return _aware(value) if isinstance(value, datetime) else None


def _seconds(document: Mapping[str, Any]) -> float | None:
    value = document.get("seconds")
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _aware(at: datetime) -> datetime:
    """Times are stored in UTC; a client without ``tz_aware`` gives them without a zone."""
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)


def _now() -> datetime:
    """The client's clock, to the millisecond that BSON keeps. Nothing is decided by it."""
    now = datetime.now(UTC)
    return now.replace(microsecond=now.microsecond // 1000 * 1000)
