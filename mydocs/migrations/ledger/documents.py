"""Convert between the ledger's documents and our values: entries, attempts, runs, indexes. Pure."""

import math
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from mydocs.migrations.errors import LedgerInvalid
from mydocs.migrations.model import (
    SCRIPT_NAME,
    STANDARD_VERSION,
    Entry,
    IndexAction,
    IndexType,
    MigrationState,
    RunStamp,
    SearchAlias,
    StoredError,
    TrackedIndex,
)

COLLECTION = "_migrations"
LONGEST_VERSION = 255  # digits; the limit of a file name's length in bytes on the usual systems
LARGEST_COUNT = 2**53  # attempts; far above any real count, and one more can still be stored
LOG_COLLECTION = "_migrations_log"


def parse(document: Mapping[str, Any]) -> Entry:
    """
    Read a ledger document, written by mydocs or by the application's earlier runner.

    :raises LedgerInvalid: if the document has neither form
    """
    key = document.get("_id")
    if isinstance(document.get("file_name"), str):
        return _parse_legacy(document)
    if not isinstance(key, str) or not (key == STANDARD_VERSION or (key.isascii() and key.isdigit())):
        raise LedgerInvalid(COLLECTION, repr(key), "its _id is not a version")
    if len(key) > LONGEST_VERSION:
        raise LedgerInvalid(
            COLLECTION, f"{key[:12]}…", f"its _id has {len(key)} digits, and no file's name has so many"
        )
    try:
        state = MigrationState(document.get("state", ""))
    except ValueError:
        state = MigrationState.PENDING
    if state not in (MigrationState.RUNNING, MigrationState.APPLIED, MigrationState.FAILED):
        raise LedgerInvalid(COLLECTION, repr(key), f"its state is {document.get('state')!r}")
    if not isinstance(document.get("indexes", []), list):
        raise LedgerInvalid(COLLECTION, repr(key), "its `indexes` are not a list")
    run = _mapping(document, "run")
    return Entry(
        version=key,
        name=_text(document, "name") or "",
        script=_text(document, "script"),
        checksum=_text(document, "checksum"),
        state=state,
        attempts=_whole(document, "attempts", 1),
        started_at=time_of(document, "started_at"),
        finished_at=time_of(document, "finished_at"),
        seconds=_seconds(document),
        error=_parse_error(document),
        indexes=tuple(_parse_index(key, index) for index in document.get("indexes", [])),
        aliases=parse_aliases(document.get("aliases"), "alias"),
        run=_parse_run(run) if run else None,
        checkpoint=_mapping(document, "checkpoint") or None,
        direction=_text(document, "direction") or "up",
        fence={"state": state.value, "run.id": run.get("id"), "attempts": document.get("attempts")},
    )


def parse_attempt(document: Mapping[str, Any]) -> Entry:
    """Read a document of the log. The caller reads its ``direction`` and ``outcome``."""
    run = _mapping(document, "run")
    return Entry(
        version=_text(document, "version") or "",
        name=_text(document, "name") or "",
        script=_text(document, "script"),
        checksum=None,
        state=MigrationState.FAILED,
        attempts=_whole(document, "attempt", 1),
        started_at=time_of(document, "started_at"),
        finished_at=time_of(document, "finished_at"),
        seconds=_seconds(document),
        error=_parse_error(document),
        run=_parse_run(run) if run else None,
    )


def finished_fields(entry: Entry) -> dict[str, Any]:
    """Return the fields of an entry that are set when its attempt ends."""
    document = document_of(entry)
    fields = ("state", "finished_at", "seconds", "error", "indexes", "aliases")
    return {key: document[key] for key in fields if key in document}


def without_definitions(entry: Entry) -> Entry:
    """Return the entry without its index definitions, for an entry that is too large to be stored."""
    return replace(entry, indexes=tuple(replace(index, definition=None) for index in entry.indexes))


def document_of(entry: Entry) -> dict[str, Any]:
    """Return the document of an entry. :func:`parse` reads it back."""
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
                "asked_at": index.asked_at,
            }
            for index in entry.indexes
        ],
        "run": run_document(entry.run),
    }
    if entry.aliases:
        document["aliases"] = [
            {"alias": each.alias, "collection": each.collection, "index": each.index, "previous": each.previous}
            for each in entry.aliases
        ]
    if entry.checkpoint:
        document["checkpoint"] = entry.checkpoint
    if entry.direction != "up":
        document["direction"] = entry.direction
    return document


def parse_aliases(documents: object, key: str) -> tuple[SearchAlias, ...]:
    """
    Read search aliases. Documents of another shape are skipped.

    :param key: the field of each document that holds the alias
    """
    found = [item for item in documents if isinstance(item, Mapping)] if isinstance(documents, list) else []
    return tuple(
        SearchAlias(
            alias=item[key],
            collection=item["collection"],
            index=item["index"],
            previous=_text(item, "previous"),
            switched_at=time_of(item, "switched_at"),
        )
        for item in found
        if all(isinstance(item.get(name), str) for name in (key, "collection", "index"))
    )


def attempt_of(entry: Entry, direction: str, outcome: str | None = None) -> dict[str, Any]:
    """Return the log document of an attempt. :func:`parse_attempt` reads it back."""
    return {
        "_id": log_key(entry, direction),
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
        "run": run_document(entry.run),
    }


def log_key(entry: Entry, direction: str) -> str:
    return f"{entry.version}:{direction}:{entry.attempts}:{entry.run.run_id if entry.run else 'unknown'}"


def run_document(run: RunStamp | None) -> dict[str, Any] | None:
    """Return the part of a document that says which run wrote it."""
    return (
        None
        if run is None
        else {"id": run.run_id, "term": run.term, "host": run.host, "pid": run.pid, "tool": run.tool}
    )


def _error(error: StoredError | None) -> dict[str, str] | None:
    return None if error is None else {"type": error.type, "message": error.message}


def _parse_error(document: Mapping[str, Any]) -> StoredError | None:
    error = _mapping(document, "error")
    if not error:
        return None
    return StoredError(type=_text(error, "type") or "", message=_text(error, "message") or "")


def _parse_run(run: Mapping[str, Any]) -> RunStamp:
    return RunStamp(
        run_id=_text(run, "id") or "",
        term=_whole(run, "term", 0),
        host=_text(run, "host") or "",
        pid=_whole(run, "pid", 0),
        tool=_text(run, "tool") or "",
    )


def _parse_legacy(document: Mapping[str, Any]) -> Entry:
    match = SCRIPT_NAME.fullmatch(document["file_name"])
    if match is None or len(match["version"]) > LONGEST_VERSION:
        raise LedgerInvalid(
            COLLECTION,
            repr(document.get("_id")),
            f"its file_name {document['file_name'][:LONGEST_VERSION]!r} has no version",
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


def _parse_index(key: str, index: Any) -> TrackedIndex:
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
    return TrackedIndex(
        collection=index["collection"],
        name=index["name"],
        type=kind,
        action=action,
        definition=_mapping(index, "definition") or None,
        asked_at=time_of(index, "asked_at"),
    )


def _mapping(document: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = document.get(key)
    return value if isinstance(value, Mapping) else {}


def _text(document: Mapping[str, Any], key: str) -> str | None:
    value = document.get(key)
    return value if isinstance(value, str) else None


def _whole(document: Mapping[str, Any], key: str, default: int) -> int:
    value = document.get(key)
    return min(value, LARGEST_COUNT) if isinstance(value, int) and not isinstance(value, bool) else default


def time_of(document: Mapping[str, Any], key: str) -> datetime | None:
    """Return a time, or ``None`` if there is none, whatever type the client decodes it to."""
    value = document.get(key)
    return _aware(value) if isinstance(value, datetime) else None


def _seconds(document: Mapping[str, Any]) -> float | None:
    value = document.get("seconds")
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        return None
    return float(value)


def _aware(at: datetime) -> datetime | None:
    """Return a time with its zone. Times are stored in UTC; a client without ``tz_aware`` gives them without a zone."""
    try:
        return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except OverflowError:  # a client's own time zone moves a time out of the years 1 to 9999
        return None
