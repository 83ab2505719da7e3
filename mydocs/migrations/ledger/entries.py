"""Read the collection that remembers what was done, one document a migration; it is written in `held_ledger`. I/O."""

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


@value
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


async def read(db: Database, *, patiently: bool = False, aliases: bool = False) -> Snapshot:
    """
    Read lease and ledger in one command, the lease first; see :func:`mydocs.migrations.ledger.plan.is_interrupted`.

    :param aliases: read the search aliases, too
    :param patiently: bear a server that is away for two minutes, as somebody who waits does
    :raises LedgerInvalid: where a document is none of ours
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
    Make the entry of a script that is about to run, after a previous attempt if there was one.

    :param at: by the server's clock
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
    """Return the kept attempts, oldest first."""
    return await commands.documents_again(
        db, {"find": LOG_COLLECTION, "sort": {"started_at": 1, "_id": 1}, "batchSize": BATCH}
    )


def _goes_on(previous: Entry, checksum: str, direction: str) -> bool:
    """Whether the checkpoints of an earlier attempt are places in the same script's same function."""
    return previous.checksum == checksum and previous.direction == direction
