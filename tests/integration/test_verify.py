"""A script's own look at what it has made, after the wait and in every check: ready, but not right, is exit code 9."""

import asyncio
import json
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio.to_thread
import pytest
from typer.testing import CliRunner

from mydocs.cli.app import app
from mydocs.localserver import LocalServer
from mydocs.migrations import ScriptsInvalid, VerifyFailed, WorkLeft, check, migrate, status
from mydocs.migrations.driver.client import Database
from mydocs.migrations.reporting.events import Event, Verified
from mydocs.migrations.reporting.report import Outcome, to_json

Write = Callable[[str, str], Path]
pytestmark = pytest.mark.anyio

GOOD = """
    async def up(db):
        await db["notes"].insert_one({"_id": "good"})
    async def verify(db):
        assert await db["notes"].find_one({"_id": "good"})
"""
BAD = """
    async def up(db):
        await db["notes"].insert_one({"_id": "bad"})
    async def verify(db):
        found = await db["notes"].count_documents({})
        assert found == 7, f"{found} notes in place of 7"
"""


async def test_verify_runs_after_the_wait_for_the_scripts_of_this_run(
    any_db: Database, folder: Path, write: Write, local_server: LocalServer
) -> None:
    write(
        "001_index.py",
        """
        from mydocs.migrations import ensure_search_indexes
        async def up(db):
            index = {"name": "ft", "definition": {"mappings": {"dynamic": True}}}
            await ensure_search_indexes(db["pages"], [index])
        async def verify(db):
            listed = [{"$listSearchIndexes": {}}]
            reply = await db.command({"aggregate": "pages", "pipeline": listed, "cursor": {}})
            assert reply["cursor"]["firstBatch"][0]["queryable"]
        """,
    )
    local_server.search.outcome("ft", build_seconds=0.5)
    events: list[Event] = []
    report = await migrate(any_db, directory=folder, standard_indexes={}, wait=True, on_event=events.append)
    assert [(event.version, event.error) for event in events if isinstance(event, Verified)] == [("001", None)]
    assert [migration.verified for migration in report.migrations] == [True]
    again: list[Event] = []
    await migrate(any_db, directory=folder, standard_indexes={}, wait=True, on_event=again.append)
    assert not any(isinstance(event, Verified) for event in again)


async def test_a_run_that_does_not_wait_verifies_nothing(db: Database, folder: Path, write: Write) -> None:
    write("001_bad.py", BAD)
    report = await migrate(db, directory=folder, standard_indexes={})
    assert (report.outcome, report.migrations[0].verified) == (Outcome.OK, None)


async def test_what_is_not_right_stays_applied_and_ends_with_9(db: Database, folder: Path, write: Write) -> None:
    path = write("001_bad.py", BAD)
    write("002_good.py", GOOD)
    events: list[Event] = []
    with pytest.raises(VerifyFailed) as raised:
        await migrate(db, directory=folder, standard_indexes={}, wait=True, on_event=events.append)
    error, report = raised.value, raised.value.report
    assert str(error) == "001_bad.py, line 6: verify failed: AssertionError: 2 notes in place of 7"
    assert (error.exit_code, error.path, error.line) == (9, path, 6)
    assert report is not None
    assert report.outcome is Outcome.UNVERIFIED
    assert [(m.state.value, m.verified) for m in report.migrations] == [("applied", False), ("applied", True)]
    assert to_json(report)["migrations"][0]["error"] == {"type": "AssertionError", "message": "2 notes in place of 7"}
    assert [event.error is None for event in events if isinstance(event, Verified)] == [False, True]
    assert [entry["state"] async for entry in db["_migrations"].find()] == ["applied", "applied"]
    assert (await migrate(db, directory=folder, standard_indexes={}, wait=True)).outcome is Outcome.OK


async def test_check_verifies_every_applied_script(db: Database, folder: Path, write: Write) -> None:
    write("001_good.py", GOOD)
    write("002_good.py", GOOD.replace('"good"', '"better"'))
    await migrate(db, directory=folder, standard_indexes={}, wait=True)
    report = await check(db, directory=folder, standard_indexes={})
    assert [migration.verified for migration in report.migrations] == [True, True]
    await db["notes"].delete_many({})
    with pytest.raises(VerifyFailed) as raised:
        await check(db, directory=folder, standard_indexes={})
    asserted = 'assert await db["notes"].find_one({"_id": "good"})'
    assert raised.value.problems[0] == f"001_good.py, line 5: verify failed: AssertionError: {asserted}"
    assert len(raised.value.problems) == 2
    write("003_more.py", "async def up(db):\n    pass\n")
    with pytest.raises(WorkLeft, match=r"003 is pending; 001_good\.py, line 5: verify failed"):
        await check(db, directory=folder, standard_indexes={})
    assert [m.verified for m in (await status(db, directory=folder, standard_indexes={})).migrations] == [None] * 3


async def test_a_verify_has_the_time_of_a_script(db: Database, folder: Path, write: Write) -> None:
    write("001_slow.py", "import asyncio\nasync def up(db): pass\nasync def verify(db): await asyncio.sleep(60)\n")
    with pytest.raises(VerifyFailed, match="verify failed: TimeoutError: it takes longer than 1 s"):
        await migrate(db, directory=folder, standard_indexes={}, wait=True, script_timeout=1.0)


async def test_a_script_that_leaves_within_verify_ends_nothing_else(db: Database, folder: Path, write: Write) -> None:
    write("001_exits.py", GOOD.replace("        assert", "        raise SystemExit(3)  #"))
    with pytest.raises(VerifyFailed, match="verify failed: SystemExit: exited with status 3"):
        await migrate(db, directory=folder, standard_indexes={}, wait=True)


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        pytest.param("return right(db)", "`verify` returned right without awaiting it", id="a coroutine"),
        pytest.param(
            "asyncio.ensure_future(right(db))",
            "the task right .* was still running when the script returned",
            id="a task",
        ),
        pytest.param("raise asyncio.CancelledError", "CancelledError: a task was cancelled, and not by", id="cancels"),
        pytest.param("asyncio.current_task().cancel(); await asyncio.sleep(0)", "CancelledError", id="cancels itself"),
    ],
)
async def test_a_verify_that_does_not_come_to_its_end_has_verified_nothing(
    any_db: Database, folder: Path, write: Write, body: str, problem: str
) -> None:
    right = "async def right(db):\n    await db['notes'].find_one()\n"
    write("001_odd.py", f"import asyncio\n{right}async def up(db): pass\nasync def verify(db):\n    {body}\n")
    with pytest.raises(VerifyFailed, match=problem) as raised:
        await migrate(any_db, directory=folder, standard_indexes={}, wait=True)
    assert raised.value.report is not None
    assert raised.value.report.outcome is Outcome.UNVERIFIED
    with pytest.raises(VerifyFailed, match=problem):
        await check(any_db, directory=folder, standard_indexes={})


async def test_who_cancels_the_run_cancels_a_verify(
    db: Database, folder: Path, write: Write, local_server: LocalServer
) -> None:
    write(
        "001_long.py",
        """
        import asyncio
        async def up(db): pass
        async def verify(db):
            await db["notes"].insert_one({})
            await asyncio.sleep(3600)
        """,
    )
    run = asyncio.create_task(migrate(db, directory=folder, standard_indexes={}, wait=True))
    began = local_server.controls.wait_for
    await anyio.to_thread.run_sync(lambda: began(lambda seen: seen.body.get("insert") == "notes"))
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run


@pytest.mark.parametrize(
    ("function", "problem"),
    [
        pytest.param("def verify(db): pass", r"line 2: `def verify` must be `async def verify\(db\)`", id="not async"),
        pytest.param("async def verify(): pass", r"line 2: `verify` is called as `verify\(db\)`", id="no parameter"),
        pytest.param("async def verify(db, a): pass", r"line 2: `verify` is called as", id="two parameters"),
    ],
)
async def test_a_verify_of_another_form_is_refused_before_anything_runs(
    db: Database, folder: Path, write: Write, function: str, problem: str
) -> None:
    write("001_odd.py", f"async def up(db): pass\n{function}\n")
    with pytest.raises(ScriptsInvalid, match=problem):
        await migrate(db, directory=folder, standard_indexes={})


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("async def up(db): verify(1)\ndef verify(number): assert number == 1\n", id="a helper"),
        pytest.param("def verify(db): raise ValueError\nprint('plain')\n", id="of a plain script"),
    ],
)
async def test_another_function_of_that_name_is_the_scripts_own(
    db: Database, folder: Path, write: Write, text: str
) -> None:
    write("001_own.py", text)
    await migrate(db, directory=folder, standard_indexes={}, wait=True)
    await check(db, directory=folder, standard_indexes={})


async def test_the_command_line_and_its_reports_know_it(folder: Path, write: Write, local_server: LocalServer) -> None:
    write("001_bad.py", BAD)
    page, junit = folder / "run.html", folder / "run.xml"
    to = ["--url", local_server.url, "--db", "x", "--dir", str(folder), "--indexes", "none"]

    def cli(*arguments: str) -> Any:
        return CliRunner().invoke(app, ["migrate", *arguments, *to])

    ended = await anyio.to_thread.run_sync(lambda: cli("run", "--wait", "--report", str(page)))
    assert ended.exit_code == 9
    assert "applied, not right" in ended.stdout
    assert "mydocs: error: 001_bad.py, line 6: verify failed: AssertionError: 1 notes in place of 7" in ended.stderr
    assert "applied, not right" in page.read_text()
    found = await anyio.to_thread.run_sync(lambda: cli("check", "--output", "json"))
    said = json.loads(found.stdout)
    assert (found.exit_code, said["outcome"], said["error"]["exit_code"]) == (9, "unverified", 9)
    assert said["migrations"][0]["verified"] is False
    settle = ["migrate", "mark", "001", "--pending", *to[:-2]]
    marked = await anyio.to_thread.run_sync(lambda: CliRunner().invoke(app, settle))
    assert marked.exit_code == 0
    write("001_bad.py", BAD.replace("insert_one", "find_one"))
    ended = await anyio.to_thread.run_sync(lambda: cli("run", "--wait", "--report", str(junit)))
    assert ended.exit_code == 9, ended.output + junit.read_text()
    (failure,) = ET.parse(junit).getroot().iter("failure")
    assert failure.get("type") == "AssertionError"
