"""What is written for live indexes is Python, formatted as a person's formatter would, and says what is live."""

import ast
import asyncio
import subprocess
import sys
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from bson import Decimal128, Int64, ObjectId, Regex
from pymongo import IndexModel

from mydocs.migrations.indexes.drift import LiveIndexes, compare_live, without_defaults
from mydocs.migrations.indexes.standard_definitions import StandardAction, standard_change
from mydocs.migrations.model import IndexType, TrackedIndex
from mydocs.migrations.scripts.written import WIDTH, write_indexes


def standard(name: str, key: dict[str, Any], collection: str = "orders", **options: Any) -> TrackedIndex:
    definition = {"key": key, "options": options}
    return TrackedIndex(collection=collection, name=name, type=IndexType.STANDARD, definition=definition)


ROOT = Path(__file__).parents[2]
MANY = (
    standard("status_1", {"status": 1}),
    standard("by_time", {"created_at": -1, "status": 1}, expireAfterSeconds=3600),
    standard(
        "partial",
        {"a": 1},
        partialFilterExpression={
            "at": {"$gt": datetime(2026, 1, 31, 12, 30, tzinfo=UTC)},
            "owner": ObjectId("0123456789abcdef01234567"),
            "price": {"$gte": Decimal128("1.50")},
            "count": {"$gt": Int64(3)},
            "name": Regex("^a"),
            'quo"te': "it's",
        },
    ),
    standard("_fts_text", {"lang": 1, "_fts": "text", "_ftsx": 1}, "notes", weights={"body": 1, "title": 5}),
    standard("place_2dsphere", {"place": "2dsphere"}, "notes"),
    TrackedIndex(
        collection="notes",
        name="ft",
        type=IndexType.SEARCH,
        definition={
            "mappings": {"dynamic": False, "fields": {"body": {"type": "string", "analyzer": "lucene.french"}}}
        },
    ),
    TrackedIndex(
        collection="notes",
        name="vec",
        type=IndexType.VECTOR,
        definition={"fields": [{"type": "vector", "path": "e", "numDimensions": 3, "similarity": "cosine"}]},
    ),
)


@pytest.mark.parametrize("width", [WIDTH, 100, 120])
@pytest.mark.parametrize("indexes", [MANY[:1], MANY[:3], MANY[3:], MANY], ids=["one", "standard", "notes", "all"])
def test_a_formatter_changes_nothing(tmp_path: Path, indexes: tuple[TrackedIndex, ...], width: int) -> None:
    path = tmp_path / "001_live.py"
    path.write_text(write_indexes("Indexes.", indexes))
    ruff = [sys.executable, "-m", "ruff"]
    options = [
        "--isolated",
        "--config",
        f"src = [{str(ROOT)!r}]",
        "--line-length",
        str(width),
        "--target-version",
        "py311",
    ]
    shown = subprocess.run([*ruff, "format", "--diff", *options, str(path)], capture_output=True, text=True)
    assert (shown.returncode, shown.stdout) == (0, "")
    checked = subprocess.run(
        [*ruff, "check", "--select", "E,F,I,UP", *options, str(path)], capture_output=True, text=True, cwd=ROOT
    )
    assert (checked.returncode, checked.stdout) == (0, "All checks passed!\n")


def test_the_simplest_script_reads_as_a_person_writes_it() -> None:
    assert write_indexes("Indexes.", MANY[:1]) == (
        '"""Indexes."""\n'
        "\n"
        "from typing import Any\n"
        "\n"
        "from pymongo import ASCENDING, IndexModel\n"
        "\n"
        "from mydocs.migrations import ensure_indexes\n"
        "\n"
        "\n"
        "async def up(db: Any) -> None:\n"
        '    await ensure_indexes(db["orders"], [IndexModel([("status", ASCENDING)])])\n'
    )


def test_a_name_is_written_where_it_is_not_the_drivers_own() -> None:
    text = write_indexes("Indexes.", MANY)
    assert 'IndexModel([("status", ASCENDING)])' in text
    assert 'name="by_time"' in text
    assert 'IndexModel([("place", "2dsphere")])' in text
    assert '("title", "text")' in text
    assert "_fts" not in text.replace('name="_fts_text"', "")


def test_values_mean_what_they_were() -> None:
    tree = ast.parse(write_indexes("Indexes.", MANY[2:3]))
    assert "ObjectId, Regex" in ast.unparse(tree)
    made = ast.unparse(tree)
    for part in ("datetime(2026, 1, 31, 12, 30, tzinfo=UTC)", "{'$gt': 3}", "Decimal128('1.50')", "Regex('^a', 0)"):
        assert part in made


def test_an_odd_title_cannot_end_its_docstring() -> None:
    text = write_indexes('a """ b \\', MANY[:1])
    assert ast.get_docstring(ast.parse(text)) == "a ''' b /"


def test_defaults_are_left_out_from_the_inside_as_well() -> None:
    whole = {"dynamic": False, "a": {"type": "x", "default": 1}, "items": [{"default": 1, "b": 2}], "default": 1}

    def meaning(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: meaning(item) for key, item in value.items() if key != "default"}
        return [meaning(item) for item in value] if isinstance(value, list) else value

    tidied = without_defaults(whole, lambda some: meaning(some) == meaning(whole))
    assert tidied == {"dynamic": False, "a": {"type": "x"}, "items": [{"b": 2}]}
    large = {str(number): number for number in range(300)} | {"default": 1}
    assert without_defaults(large, lambda some: meaning(some) == meaning(large)) == large


# As a server of 8.0 lists them.
LISTED: dict[str, dict[str, Any]] = {
    "collation": {
        "key": {"name": 1},
        "collation": {
            "locale": "de",
            "strength": 2,
            "caseLevel": False,
            "caseFirst": "off",
            "numericOrdering": False,
            "alternate": "non-ignorable",
            "maxVariable": "punct",
            "normalization": False,
            "backwards": False,
            "version": "57.1",
        },
    },
    "text": {
        "key": {"lang": 1, "_fts": "text", "_ftsx": 1},
        "weights": {"body": 1, "title": 3},
        "default_language": "french",
        "language_override": "language",
        "textIndexVersion": 3,
    },
    "plain text": {
        "key": {"_fts": "text", "_ftsx": 1},
        "weights": {"body": 1},
        "default_language": "english",
        "language_override": "language",
        "textIndexVersion": 3,
    },
    "sphere": {"key": {"place": "2dsphere"}, "2dsphereIndexVersion": 3},
    "hashed": {"key": {"hash": "hashed"}},
    "wildcard": {"key": {"$**": 1}, "wildcardProjection": {"secret": False}},
    "by a shell": {"key": {"a": 1.0, "b": -1.0}, "expireAfterSeconds": 60.0, "background": True},
}


@pytest.mark.parametrize("listed", LISTED.values(), ids=LISTED.keys())
def test_what_is_written_is_what_is_listed(listed: dict[str, Any]) -> None:
    document = {"v": 2, "name": "made by hand", **listed}
    found = compare_live({"c": LiveIndexes(standard=({"v": 2, "key": {"_id": 1}, "name": "_id_"}, document))}, (), {})
    (index,) = found.unaccounted
    text = write_indexes("Indexes.", [index])
    for filled in ("Version", "language_override", "english", "background", "alternate", '"v"'):
        assert filled not in text
    models: list[IndexModel] = []

    async def take(collection: object, given: list[IndexModel]) -> None:
        models.extend(given)

    namespace: dict[str, Any] = {}
    exec(text.replace("from mydocs.migrations import ensure_indexes", ""), namespace)
    namespace["ensure_indexes"] = take
    asyncio.run(namespace["up"](defaultdict(str)))
    (model,) = models
    assert standard_change(model.document, [document]).action is StandardAction.PRESENT
    again = compare_live({"c": LiveIndexes(standard=(document,))}, [index], {})
    assert (again.unaccounted, again.differences) == ((), ())
