"""Records of other tools find the scripts of the same names, and no others."""

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from mydocs.migrations.ledger.foreign import ForeignRecord, Tool, match_scripts, read_records
from mydocs.migrations.model import SCRIPT_NAME, Script, ScriptKind

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def script(file_name: str) -> Script:
    match = SCRIPT_NAME.fullmatch(file_name)
    assert match is not None
    version = match["version"]
    return Script(
        number=int(version),
        version=version,
        name=match["name"],
        path=Path("migrations", file_name),
        checksum="sha256:1",
        source="",
        kind=ScriptKind.ASYNC,
    )


@pytest.mark.parametrize(
    ("tool", "name", "file_name", "same"),
    [
        pytest.param(Tool.PYMONGO_MIGRATE, "001_notes", "001_notes.py", True, id="pymongo-migrate"),
        pytest.param(Tool.PYMONGO_MIGRATE, "001_notes", "001_other.py", False, id="another description"),
        pytest.param(Tool.PYMONGO_MIGRATE, "1_notes", "001_notes.py", False, id="another number of digits"),
        pytest.param(Tool.PYMONGO_MIGRATE, "001-notes", "001_notes.py", False, id="another sign"),
        pytest.param(Tool.PYMONGO_MIGRATE, "notes", "001_notes.py", False, id="no number"),
        pytest.param(Tool.MONGODB_MIGRATIONS, "20240131", "20240131_notes.py", True, id="mongodb-migrations"),
        pytest.param(Tool.MONGODB_MIGRATIONS, "1", "001_notes.py", False, id="other digits"),
        pytest.param(Tool.MIGRATE_MONGO, "20240131-a-b.js", "20240131_a-b.py", True, id="migrate-mongo"),
        pytest.param(Tool.MIGRATE_MONGO, "20240131-a.b.ts", "20240131_a.py", False, id="a dot in the name"),
        pytest.param(Tool.MIGRATE_MONGO, "20240131_notes.mjs", "20240131_notes.py", True, id="underscore"),
        pytest.param(Tool.MIGRATE_MONGO, "20240131-notes", "20240131_notes.py", True, id="no ending"),
        pytest.param(Tool.MIGRATE_MONGO, "20240131-a-b.js", "20240131_a_b.py", False, id="a later hyphen stays"),
    ],
)
def test_only_the_same_name_matches(tool: Tool, name: str, file_name: str, same: bool) -> None:
    record = ForeignRecord(name=name, applied_at=NOON)
    found = match_scripts(tool, [record], [script(file_name)])
    assert ([pair[1] for pair in found.known], list(found.unknown)) == (([record], []) if same else ([], [record]))


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        pytest.param({"name": "a", "applied": NOON}, NOON, id="with zone"),
        pytest.param({"name": "a", "applied": NOON.replace(tzinfo=None)}, NOON, id="without zone"),
        pytest.param({"name": "a", "applied": NOON.astimezone(timezone(timedelta(hours=2)))}, NOON, id="other zone"),
        pytest.param({"name": "a", "applied": "yesterday"}, None, id="no time"),
    ],
)
def test_times_are_read_in_utc(document: dict[str, Any], expected: datetime | None) -> None:
    records, odd = read_records(Tool.PYMONGO_MIGRATE, [document])
    assert (records, odd) == ((ForeignRecord(name="a", applied_at=expected),), 0)


def test_what_was_taken_back_is_no_record() -> None:
    assert read_records(Tool.PYMONGO_MIGRATE, [{"name": "a", "applied": None}]) == ((), 0)


@pytest.mark.parametrize("document", [{}, {"name": 1, "applied": NOON}, {"name": "", "applied": NOON}, {"name": "a"}])
def test_other_documents_are_counted(document: dict[str, Any]) -> None:
    assert read_records(Tool.PYMONGO_MIGRATE, [document]) == ((), 1)


def test_the_latest_of_several_records_counts() -> None:
    documents = [
        {"fileName": "1-a.js", "appliedAt": NOON - timedelta(days=1)},
        {"fileName": "1-a.js", "appliedAt": NOON},
    ]
    assert read_records(Tool.MIGRATE_MONGO, documents)[0] == (ForeignRecord(name="1-a.js", applied_at=NOON),)
