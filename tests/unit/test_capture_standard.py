"""The ledger names every standard index that a script touched, however the script did so, and `check` compares them."""

import asyncio
import sys
import types
from datetime import UTC
from pathlib import Path
from typing import Any

import pytest
from motor.motor_asyncio import AsyncIOMotorDatabase
from pymongo import IndexModel

from mydocs.localserver import LocalServer
from mydocs.migrations import check, migrate, rollback, status
from mydocs.migrations.errors import WorkLeft
from mydocs.migrations.model import IndexState, IndexType

pytestmark = pytest.mark.anyio

Db = AsyncIOMotorDatabase[dict[str, Any]]

START = """
from pymongo import IndexModel
from mydocs.migrations import ensure_indexes

async def up(db):
    pages = db["pages"]
"""
PLAIN = """
from lightodm import get_database
pages = get_database()["pages"]
"""


def script(*lines: str) -> str:
    return START + "".join(f"    {line}\n" for line in lines)


async def run(db: Db, folder: Path, text: str, version: str = "001") -> list[dict[str, Any]]:
    """Run a script and read which indexes its ledger entry names."""
    (folder / f"{version}_a.py").write_text(text)
    await migrate(db, directory=folder, standard_indexes={})
    entry = await db["_migrations"].find_one({"_id": version})
    assert entry is not None
    found: list[dict[str, Any]] = entry["indexes"]
    assert all(index["asked_at"] is not None for index in found)
    return found


def short(indexes: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    assert {index["type"] for index in indexes} <= {"standard"}
    return [(index["collection"], index["name"], index["action"], index["definition"]) for index in indexes]


A = {"key": {"a": 1}, "options": {}}
TTL = {"key": {"a": 1}, "options": {"expireAfterSeconds": 60}}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(
            script("await ensure_indexes(pages, [IndexModel('a'), IndexModel([('b', -1)], unique=True)])"),
            [
                ("pages", "a_1", "created", A),
                ("pages", "b_-1", "created", {"key": {"b": -1}, "options": {"unique": True}}),
            ],
            id="helper",
        ),
        pytest.param(script("await pages.create_index('a')"), [("pages", "a_1", "created", A)], id="Motor"),
        pytest.param(PLAIN + "pages.create_index('a')\n", [("pages", "a_1", "created", A)], id="lightodm"),
        pytest.param(
            script("await db.command({'createIndexes': 'pages', 'indexes': [{'key': {'a': 1.0}, 'name': 'a_1'}]})"),
            [("pages", "a_1", "created", A)],
            id="db.command",
        ),
        pytest.param(
            script("await pages.create_index('a')", "await pages.create_index('a')"),
            [("pages", "a_1", "created", A)],
            id="created and found again is created",
        ),
        pytest.param(
            script("await pages.create_index('a')", "await pages.drop_index('a_1')"),
            [("pages", "a_1", "dropped", None)],
            id="dropped by name",
        ),
        pytest.param(
            script("await pages.create_index('a')", "await pages.drop_index([('a', 1)])"),
            [("pages", "a_1", "dropped", None)],
            id="dropped by key",
        ),
        pytest.param(
            script(
                "await pages.create_index('a', name='x')", "await db.command('dropIndexes', 'pages', index={'a': 1})"
            ),
            [("pages", "x", "dropped", None)],
            id="dropped by key under another name",
        ),
        pytest.param(
            script("await pages.create_index('a')", "await pages.create_index('b')", "await pages.drop_indexes()"),
            [("pages", "a_1", "dropped", None), ("pages", "b_1", "dropped", None)],
            id="all dropped",
        ),
        pytest.param(
            script("await pages.create_index('a')", "await pages.drop_index('a_1')", "await pages.create_index('a')"),
            [("pages", "a_1", "replaced", A)],
            id="dropped and created again",
        ),
        pytest.param(
            script(
                "await pages.create_index('a')",
                "await db.command('collMod', 'pages', index={'name': 'a_1', 'expireAfterSeconds': 60})",
            ),
            [("pages", "a_1", "updated", TTL)],
            id="collMod by name",
        ),
        pytest.param(
            script(
                "await pages.create_index('a')",
                "await db.command('collMod', 'pages', index={'keyPattern': {'a': 1}, 'expireAfterSeconds': 60})",
            ),
            [("pages", "a_1", "updated", TTL)],
            id="collMod by key",
        ),
        pytest.param(
            script("await pages.create_index('a')", "await pages.drop()"),
            [("pages", "a_1", "dropped", None)],
            id="collection dropped",
        ),
        pytest.param(
            script("await pages.create_index('a')", "await pages.rename('new')"),
            [("pages", "a_1", "dropped", None), ("new", "a_1", "unchanged", A)],
            id="collection renamed",
        ),
        pytest.param(
            script(
                "await pages.create_index([('a', 1), ('b', 1)], partialFilterExpression={'a.b': {'$gt': 5}})",
                "await db['other'].create_index([('$**', 1)])",
            ),
            [
                (
                    "pages",
                    "a_1_b_1",
                    "created",
                    {"key": {"a": 1, "b": 1}, "options": {"partialFilterExpression": {"a.b": {"$gt": 5}}}},
                ),
                ("other", "$**_1", "created", {"key": {"$**": 1}, "options": {}}),
            ],
            id="names with dots and dollars",
        ),
        pytest.param(
            script("try:", "    await pages.drop_index('nope_1')", "except Exception:", "    pass"),
            [],
            id="drop of what is on no collection",
        ),
        pytest.param(script("await db.client['elsewhere']['pages'].create_index('a')"), [], id="another database"),
    ],
)
async def test_a_standard_index_is_recorded_however_it_was_made(
    local_db: Db, tmp_path: Path, text: str, expected: list[Any]
) -> None:
    found = short(await run(local_db, tmp_path, text))
    assert [index for index in found if index[1] != "nope_1"] == expected


@pytest.mark.parametrize(
    ("before", "text", "expected"),
    [
        pytest.param(
            {}, script("await ensure_indexes(pages, [IndexModel('a')])"), ("a_1", "unchanged", A), id="found by helper"
        ),
        pytest.param({}, script("await pages.create_index('a')"), ("a_1", "unchanged", A), id="found by Motor"),
        pytest.param(
            {"name": "x"},
            script("await ensure_indexes(pages, [IndexModel('a')])"),
            ("x", "unchanged", A),
            id="found under another name",
        ),
        pytest.param(
            {"expireAfterSeconds": 9},
            script("await ensure_indexes(pages, [IndexModel('a', expireAfterSeconds=60)])"),
            ("a_1", "updated", TTL),
            id="changed by helper",
        ),
        pytest.param({}, script("await pages.drop_index('a_1')"), ("a_1", "dropped", None), id="dropped"),
        pytest.param(
            {},
            script("await db.command('collMod', 'pages', index={'name': 'a_1', 'hidden': True})"),
            ("a_1", "updated", None),
            id="collMod of an index that nobody knows",
        ),
    ],
)
async def test_what_was_done_to_a_standard_index_that_was_there_is_recorded(
    local_db: Db, tmp_path: Path, before: dict[str, Any], text: str, expected: tuple[Any, ...]
) -> None:
    await local_db["pages"].create_index("a", **before)
    assert short(await run(local_db, tmp_path, text)) == [("pages", *expected)]


async def test_of_several_indexes_of_one_command_the_ledger_tells_which_were_there(
    local_db: Db, tmp_path: Path
) -> None:
    await run(local_db, tmp_path, script("await pages.create_index('a')"))
    text = script("await pages.create_indexes([IndexModel('a'), IndexModel('b')])")
    found = short(await run(local_db, tmp_path, text, "002"))
    assert [(name, action) for _, name, action, _ in found] == [("a_1", "unchanged"), ("b_1", "created")]


@pytest.mark.parametrize("cut", ["cut_before", "cut_after"])
async def test_a_lost_reply_is_recorded_as_what_it_turns_out_to_be(
    local_db: Db, local_server: LocalServer, tmp_path: Path, cut: str
) -> None:
    getattr(local_server.controls, cut)(command="createIndexes")
    found = short(await run(local_db, tmp_path, script("await ensure_indexes(pages, [IndexModel('a')])")))
    assert found == [("pages", "a_1", "created", A)]


async def test_the_standard_indexes_of_the_application_are_recorded_with_their_step(
    local_db: Db, tmp_path: Path
) -> None:
    models = {"pages": [IndexModel("number")], "documents": [IndexModel([("created_at", -1)])]}
    await migrate(local_db, directory=tmp_path, standard_indexes=models)
    entry = await local_db["_migrations"].find_one({"_id": "standard"})
    assert entry is not None
    assert sorted(short(entry["indexes"])) == [
        ("documents", "created_at_-1", "created", {"key": {"created_at": -1}, "options": {}}),
        ("pages", "number_1", "created", {"key": {"number": 1}, "options": {}}),
    ]
    assert all(
        entry["started_at"] <= index["asked_at"].replace(tzinfo=None) <= entry["finished_at"].replace(tzinfo=None)
        for index in entry["indexes"]
    )
    report = await status(local_db, directory=tmp_path, standard_indexes=models)
    assert [(index.name, index.state) for index in report.indexes] == [
        ("number_1", "ready"),
        ("created_at_-1", "ready"),
    ]


async def test_status_shows_the_standard_indexes_of_scripts_and_a_run_reports_them_as_built(
    local_db: Db, tmp_path: Path
) -> None:
    (tmp_path / "001_a.py").write_text(script("await ensure_indexes(pages, [IndexModel('a')])"))
    reports = [
        await migrate(local_db, directory=tmp_path, standard_indexes={}),
        await status(local_db, directory=tmp_path, standard_indexes={}),
    ]
    for report in reports:
        (index,) = report.indexes
        assert (index.collection, index.name, index.type) == ("pages", "a_1", IndexType.STANDARD)
        assert (index.state, index.queryable) == (IndexState.READY, True)
    await check(local_db, directory=tmp_path, standard_indexes={})


async def gone(db: Db) -> None:
    await db["pages"].drop_index("a_1")


async def other_options(db: Db) -> None:
    await gone(db)
    await db["pages"].create_index("a", sparse=True)


async def other_key(db: Db) -> None:
    await gone(db)
    await db["pages"].create_index("b", name="a_1")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        pytest.param(gone, r"index pages\.a_1 is absent \(it was created and is gone\)", id="dropped by hand"),
        pytest.param(other_options, r"pages\.a_1: sparse: asked False, live True", id="other options"),
        pytest.param(other_key, r"pages\.a_1: key: asked \[\['a', 1\]\], live \[\['b', 1\]\]", id="other key"),
    ],
)
async def test_check_names_what_differs_from_a_standard_index_of_a_script(
    local_db: Db, tmp_path: Path, change: Any, says: str
) -> None:
    await run(local_db, tmp_path, script("await ensure_indexes(pages, [IndexModel('a')])"))
    await change(local_db)
    with pytest.raises(WorkLeft, match=says):
        await check(local_db, directory=tmp_path, standard_indexes={})


async def test_a_standard_index_that_a_rollback_drops_is_tracked_no_more(local_db: Db, tmp_path: Path) -> None:
    await run(local_db, tmp_path, script("await ensure_indexes(pages, [IndexModel('a')])"))
    text = script("pass") + "\n\nasync def down(db):\n    await db['pages'].drop_index('a_1')\n"
    await run(local_db, tmp_path, text, "002")
    await rollback(local_db, directory=tmp_path, wait=True, timeout=10)
    report = await status(local_db, directory=tmp_path, standard_indexes={})
    assert report.indexes == ()


async def test_what_the_application_does_meanwhile_is_not_the_scripts(local_db: Db, tmp_path: Path) -> None:
    shared = types.ModuleType("shared_with_the_application")
    started, done = asyncio.Event(), asyncio.Event()
    shared.started, shared.done = started, done  # type: ignore[attr-defined]
    sys.modules[shared.__name__] = shared

    async def application() -> None:
        await started.wait()
        await local_db["pages"].create_index("of_the_application")
        await local_db["runs"].drop()
        done.set()

    task = asyncio.create_task(application())
    try:
        found = await run(
            local_db,
            tmp_path,
            script(
                "import asyncio, shared_with_the_application as shared",
                "shared.started.set()",
                "await shared.done.wait()",
                "async def of_a_task():",
                "    await pages.create_index('c')",
                "await asyncio.create_task(of_a_task())",
                "await asyncio.to_thread(db.delegate['pages'].create_index, 'd')",
                "await pages.create_index('a')",
            ),
        )
    finally:
        await task
        del sys.modules[shared.__name__]
    assert sorted(index["name"] for index in found) == ["a_1", "c_1", "d_1"]


async def test_the_time_of_a_record_is_the_servers(local_db: Db, tmp_path: Path) -> None:
    first, second = await run(
        local_db, tmp_path, script("await pages.create_index('a')", "await pages.create_index('b')")
    )
    entry = await local_db["_migrations"].find_one({"_id": "001"})
    assert entry is not None
    times = [entry["started_at"], first["asked_at"], second["asked_at"], entry["finished_at"]]
    assert times == sorted(times)
    assert all(time.replace(tzinfo=UTC) for time in times)


async def test_an_index_that_is_found_again_keeps_the_time_at_which_it_was_asked_for(
    local_db: Db, tmp_path: Path
) -> None:
    (made,) = await run(local_db, tmp_path, script("await ensure_indexes(pages, [IndexModel('a')])"))
    (found,) = await run(local_db, tmp_path, script("await ensure_indexes(pages, [IndexModel('a')])"), "002")
    assert found["action"] == "unchanged"
    assert found["asked_at"] == made["asked_at"]
