"""Read the ledger, one document a migration. I/O; `held_ledger` writes it."""

import time
from dataclasses import field
from datetime import datetime, timedelta
from typing import Any

from mydocs import search_aliases
from mydocs.migrations.driver import commands
from mydocs.migrations.driver.client import Database, Document
from mydocs.migrations.ledger import lease as leases
from mydocs.migrations.ledger.documents import (
    COLLECTION,
    LOG_COLLECTION,
    parse,
    parse_aliases,
    time_of,
)
from mydocs.migrations.model import (
    Entry,
    LeaseView,
    MigrationState,
    RunStamp,
    SearchAlias,
)
from mydocs.migrations.values import value

# An alias may have the same name as a version, so each alias document is nested in another.
_WITH_ALIASES = [
    {
        "$unionWith": {
            "coll": search_aliases.COLLECTION,
            "pipeline": [{"$sort": {"_id": 1}}, {"$replaceWith": {"_id": None, "alias": "$$ROOT"}}],
        }
    }
]
BATCH = 100_000  # documents; a reply holds up to 16 MB of them, so a ledger of usual size comes in one reply


@value
class Snapshot:
    """
    The ledger, and the lease as it was just before the ledger was read.

    :param lease: ``None`` before the first acquisition
    :param aliases: the search aliases, if the caller asked for them
    :param seen_at: time of the read by the server's clock; known only if there is a lease
    :param read_at: the same moment on this process' monotonic clock
    """

    entries: tuple[Entry, ...]
    lease: LeaseView | None
    seen_at: datetime | None = None
    aliases: tuple[SearchAlias, ...] = ()
    read_at: float = field(default_factory=time.monotonic, compare=False)

    def server_now(self) -> datetime | None:
        """Return the present time by the server's clock, or ``None`` if it is not known."""
        if self.seen_at is None:
            return None
        return self.seen_at + timedelta(seconds=time.monotonic() - self.read_at)


async def read(db: Database, *, patiently: bool = False, aliases: bool = False) -> Snapshot:
    """
    Read the lease, then the ledger, in one command; see :func:`mydocs.migrations.ledger.plan.is_interrupted`.

    :param aliases: read the search aliases, too
    :param patiently: retry for two minutes while the server is away, as a waiting command does
    :raises LedgerInvalid: if a document has an unknown form
    """
    found = await commands.documents_again(
        db,
        {
            "aggregate": leases.COLLECTION,
            "pipeline": [*leases.view_stages(), {"$unionWith": COLLECTION}, *(_WITH_ALIASES if aliases else ())],
            "cursor": {"batchSize": BATCH},
        },
        patiently=patiently,
    )
    # The ledger's keys are an ObjectId, a version, or "standard". Only the lease has the key "lease".
    shown = next((document for document in found if document["_id"] == "lease"), None)
    named = [document["alias"] for document in found if _is_alias(document)]
    entries = [parse(document) for document in found if document["_id"] != "lease" and not _is_alias(document)]
    # If both runners have recorded a version, our record comes later in the list and so replaces the other.
    return Snapshot(
        entries=tuple(sorted(entries, key=lambda entry: not entry.legacy)),
        lease=None if shown is None else leases.parse(shown),
        aliases=parse_aliases(named, "_id"),
        seen_at=None if shown is None else time_of(shown, "seen_at"),
    )


def _is_alias(document: Document) -> bool:
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
    Return the entry of a script that is about to run, based on the previous attempt if there is one.

    :param at: time by the server's clock
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


async def read_log(db: Database) -> list[dict[str, Any]]:
    """Return the logged attempts, oldest first."""
    return await commands.documents_again(
        db, {"find": LOG_COLLECTION, "sort": {"started_at": 1, "_id": 1}, "batchSize": BATCH}
    )


def _goes_on(previous: Entry, checksum: str, direction: str) -> bool:
    """Return whether the checkpoints of the previous attempt belong to the same function of the same script text."""
    return previous.checksum == checksum and previous.direction == direction
