"""The ready-made checks find what they are there for."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from mydocs.migrations import NotPossible
from mydocs.migrations.driver.client import Database
from mydocs.migrations.testing import assert_migrations_ok

Write = Callable[[str, str], Path]

pytestmark = pytest.mark.anyio

CLEAN = """
    from pymongo import IndexModel
    from pymongo.operations import SearchIndexModel
    from mydocs.migrations import drop_search_indexes, ensure_indexes, ensure_search_indexes, unset_field
    async def up(db):
        await ensure_indexes(db["pages"], [IndexModel("a")])
        await ensure_search_indexes(db["pages"], [SearchIndexModel({"mappings": {}}, name="ft")])
        await unset_field(db["pages"], "old")
    async def down(db):
        await drop_search_indexes(db["pages"], "ft")
        await db["pages"].drop_index("a_1")
"""
UP_AND_DOWN = "async def up(db): {up}\nasync def down(db): {down}\n"


async def seed(db: Any) -> None:
    await db["pages"].insert_many([{"_id": n, "old": n, "n": 0} for n in range(3)])


async def test_migrations_in_order_pass(any_db: Database, folder: Path, write: Write) -> None:
    write("001_clean.py", CLEAN)
    write("002_plain.py", "import lightodm\nlightodm.get_database()['pages'].update_many({}, {'$set': {'b': 1}})\n")
    await assert_migrations_ok(any_db, folder, seed=seed)


@pytest.mark.parametrize(
    ("scripts", "options", "problem"),
    [
        pytest.param(
            {"001_a.py": UP_AND_DOWN.format(up="await db.pages.update_many({}, {'$inc': {'n': 1}})", down="pass")},
            {},
            r"001_a\.py run twice: document 0 of pages differs",
            id="counts on",
        ),
        pytest.param(
            {"001_a.py": "async def up(db): await db.pages.insert_one({'b': 1})"},
            {},
            r"001_a\.py run twice: document ObjectId\('\w+'\) of pages is new",
            id="inserts again",
        ),
        pytest.param(
            {"001_a.py": UP_AND_DOWN.format(up="await db.pages.create_index('b')", down="pass")},
            {},
            r"001_a\.py rolled back: index pages\.b_1 is new",
            id="down forgets an index",
        ),
        pytest.param(
            {
                "001_a.py": UP_AND_DOWN.format(
                    up="await db.pages.update_many({}, {'$unset': {'old': 1}, '$set': {'b': 1}})",
                    down="await db.pages.delete_many({})",
                )
            },
            {},
            r"001_a\.py down and up: document 0 of pages is gone",
            id="down loses documents",
        ),
        pytest.param(
            {
                "001_a.py": "from mydocs.migrations import ensure_search_indexes\n"
                "from pymongo.operations import SearchIndexModel\n"
                "async def up(db):\n"
                "    await ensure_search_indexes(db.pages, [SearchIndexModel({'mappings': {}}, 'ft')])\n"
                "    await db.command({'updateSearchIndex': 'pages', 'name': 'ft', 'definition': {'mappings': {}}})\n"
            },
            {},
            r"001_a\.py rebuilds a search index",
            id="rebuilds a search index",
        ),
        pytest.param(
            {"001_a.py": "async def up(db):\n    await db.pages.insert_one({'_id': 9})\n"},
            {},
            r"001_a\.py cannot run twice: .*DuplicateKeyError",
            id="fails the second time",
        ),
        pytest.param({"001_a.py": "print()"}, {"reversible": True}, r"001_a\.py has no `down`", id="no way back"),
        pytest.param(
            {"001_a.py": "print()", "004_b.py": "print()"},
            {"gaps": False},
            "\n- no migration has the number 002\n- no migration has the number 003",
            id="a gap",
        ),
    ],
)
async def test_a_problem_is_named(
    db: Database, folder: Path, write: Write, scripts: dict[str, str], options: dict[str, Any], problem: str
) -> None:
    for name, text in scripts.items():
        write(name, text)
    with pytest.raises(AssertionError, match=problem):
        await assert_migrations_ok(db, folder, seed=seed, standard_indexes={}, **options)


async def test_what_is_ignored_may_differ_and_what_must_not_run_twice_is_spared(
    db: Database, folder: Path, write: Write
) -> None:
    write("001_stamps.py", "async def up(db): await db.pages.update_many({}, {'$currentDate': {'updated_at': True}})")
    write("002_once.py", "IDEMPOTENT = False\nasync def up(db): await db.pages.update_many({}, {'$inc': {'n': 1}})")
    await assert_migrations_ok(db, folder, seed=seed, ignore=("updated_at",))
    assert {document["n"] async for document in db["pages"].find()} == {1}


async def test_a_database_that_is_in_use_is_not_touched(db: Database, folder: Path, write: Write) -> None:
    write("001_a.py", "async def up(db): await db.pages.drop()")
    await seed(db)
    with pytest.raises(NotPossible, match="app is not empty"):
        await assert_migrations_ok(db, folder)
    assert await db.list_collection_names() == ["pages"]


@pytest.mark.seconds(60)
def test_pytest_shows_the_test_and_the_problems_and_nothing_of_the_checks(tmp_path: Path) -> None:
    (tmp_path / "migrations").mkdir()
    (tmp_path / "migrations" / "001_a.py").write_text("async def up(db): await db.pages.insert_one({'b': 1})")
    (tmp_path / "migrations" / "003_c.py").write_text(
        "async def up(db): await db.pages.update_one({}, {'$inc': {'b': 1}})"
    )
    test = """
        import pytest
        from mydocs.localserver import SearchSettings
        from mydocs.migrations.testing import assert_migrations_ok

        pytest_plugins = ["mydocs.localserver.pytest"]

        @pytest.fixture
        def anyio_backend():
            return "asyncio"

        @pytest.mark.anyio
        async def test_ok(local_db):
            await assert_migrations_ok(local_db, "migrations", gaps=False, standard_indexes={})
    """
    (tmp_path / "test_ok.py").write_text(dedent(test))
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "test_ok.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        text=True,
        capture_output=True,
        check=False,
    )
    assert ended.returncode == 1, ended.stdout
    shown = ended.stdout.splitlines()
    lines = [line.removeprefix("E").strip() for line in shown if line.startswith("E ")]
    assert lines[:2] == [
        "AssertionError: the migrations in migrations have problems:",
        "- no migration has the number 002",
    ]
    assert all(line.startswith(("- 001_a.py ", "- 003_c.py ")) for line in lines[2:])
    assert len(lines) > 3
    assert any(line.startswith(">") and "await assert_migrations_ok(" in line for line in shown)
    assert "raise AssertionError" not in ended.stdout
    assert "testing.py" not in ended.stdout
