"""Read the ledgers of other tools, and match their records with our scripts. Pure."""

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from mydocs.migrations.model import Script
from mydocs.migrations.values import value


class Tool(StrEnum):
    """A migration tool whose ledger can be read. The value is the name of its package."""

    PYMONGO_MIGRATE = "pymongo-migrate"
    MONGODB_MIGRATIONS = "mongodb-migrations"
    MIGRATE_MONGO = "migrate-mongo"


@value
class Layout:
    """The collection and keys of a tool's records, by the defaults of its latest version."""

    collection: str
    name: str
    applied_at: str


LAYOUTS: Mapping[Tool, Layout] = {
    Tool.PYMONGO_MIGRATE: Layout(collection="pymongo_migrate", name="name", applied_at="applied"),  # 1.0.0
    Tool.MONGODB_MIGRATIONS: Layout(  # 1.3.1
        collection="database_migrations", name="migration_datetime", applied_at="created_at"
    ),
    Tool.MIGRATE_MONGO: Layout(collection="changelog", name="fileName", applied_at="appliedAt"),  # 14.0.7
}


@value
class ForeignRecord:
    """A migration that another tool has applied, with the name that it has there."""

    name: str
    applied_at: datetime | None


@value
class Match:
    """The scripts that have a record of the other tool, and the records that have no script."""

    known: tuple[tuple[Script, ForeignRecord], ...]
    unknown: tuple[ForeignRecord, ...]


def read_records(tool: Tool, documents: Iterable[Mapping[str, Any]]) -> tuple[tuple[ForeignRecord, ...], int]:
    """
    Read a tool's records. A migration that was rolled back there (``applied`` is null) is left out.

    :return: the records, the latest of each name, and the number of documents that have another form
    """
    layout = LAYOUTS[tool]
    found: dict[str, ForeignRecord] = {}
    odd = 0
    for document in documents:
        name, at = document.get(layout.name), document.get(layout.applied_at)
        if not isinstance(name, str) or not name or layout.applied_at not in document:
            odd += 1
        elif at is not None:
            time = at.astimezone(UTC) if isinstance(at, datetime) and at.tzinfo else at
            if isinstance(time, datetime):
                time = time.replace(tzinfo=UTC)  # a client without `tz_aware` returns it without a zone
            found[name] = ForeignRecord(name=name, applied_at=time if isinstance(time, datetime) else None)
    return tuple(found.values()), odd


def match_scripts(tool: Tool, records: Sequence[ForeignRecord], scripts: Sequence[Script]) -> Match:
    """Find the script of each record by its name alone."""
    by_name = {_name_there(tool, script): script for script in scripts}
    known, unknown = [], []
    for record in records:
        script = by_name.get(_comparable(tool, record.name))
        if script is None:
            unknown.append(record)
        else:
            known.append((script, record))
    known.sort(key=lambda pair: pair[0].number)
    return Match(known=tuple(known), unknown=tuple(unknown))


def _name_there(tool: Tool, script: Script) -> str:
    # mongodb-migrations keeps the number of a file, not its description.
    return script.version if tool is Tool.MONGODB_MIGRATIONS else script.path.stem


def _comparable(tool: Tool, name: str) -> str:
    if tool is not Tool.MIGRATE_MONGO:
        return name
    # `20240131120000-notes.js` there is `20240131120000_notes.py` here: our file names have `_` after the number.
    return re.sub(r"^([0-9]+)-", r"\1_", name.rpartition(".")[0] or name)
