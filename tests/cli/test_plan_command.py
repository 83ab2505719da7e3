"""`mydocs migrate plan` as a process: text for people, JSON for others, exit codes for pipelines."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from pymongo import MongoClient

from mydocs.cli.plan_text import plan_text
from mydocs.cli.schema import schema
from mydocs.localserver import LocalServer
from mydocs.migrations.reporting.report import Outcome, RunReport

from .conftest import Ended

pytestmark = pytest.mark.seconds(180)


@pytest.fixture
def url(local_server: LocalServer) -> str:
    """A database with two notes and a search index."""
    url = local_server.url.replace("/?", "/shop?")
    with MongoClient[dict[str, Any]](url) as client:
        client["shop"]["notes"].insert_many([{"_id": 1}, {"_id": 2}])
        client["shop"]["notes"].create_search_index({"name": "ft", "definition": {"mappings": {"dynamic": True}}})
    return url


def test_nothing_pending_is_success(program: Callable[..., Ended], folder: Path, url: str) -> None:
    ended = program("migrate", "plan", "--indexes", "none", "--url", url)
    assert (ended.code, ended.out) == (0, "nothing pending\n")


def test_what_is_foreseen_is_shown_and_nothing_is_changed(
    program: Callable[..., Ended], folder: Path, url: str, local_server: LocalServer
) -> None:
    (folder / "001_language.py").write_text(
        "async def up(db):\n    print('noise')\n"
        "    await db.notes.update_many({'lang': None}, {'$set': {'lang': 'en'}})\n"
        "    await db.notes.create_index('lang')\n"
    )
    local_server.controls.clear()
    ended = program("migrate", "plan", "--indexes", "none", "--url", url)
    assert ended.code == 0, ended.err
    assert ended.out.splitlines()[:3] == [
        "001 language",
        "  + create index notes.lang_1 {lang: 1}",
        '  ~ update 2 documents of notes where {"lang": null}',
    ]
    assert "noise" not in ended.out
    assert [line for line in ended.err.splitlines() if "copy" in line or "reading" in line] == [
        "reading the catalogue, and at most 100 documents of each collection",
        "migration 001 language: tried on the copy",
    ]
    assert "nothing was changed" in ended.out
    assert not {"insert", "update", "createIndexes"} & set(local_server.controls.counts())
    ended = program("migrate", "plan", "--indexes", "none", "--url", url, "-o", "json")
    Draft202012Validator(schema()).validate(ended.json)
    assert ended.json["outcome"] == "planned"
    assert [effect["kind"] for effect in ended.json["steps"][0]["effects"]] == ["create_index", "update"]


def test_what_takes_search_away_stops_a_pull_request(
    program: Callable[..., Ended], folder: Path, url: str, tmp_path: Path
) -> None:
    (folder / "001_drop.py").write_text(
        "from mydocs.migrations import drop_search_indexes\n"
        "async def up(db):\n    await drop_search_indexes(db.notes, 'ft')\n    await db.notes.drop()\n"
    )
    summary = tmp_path / "summary.md"
    environ = {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(summary)}
    ended = program("migrate", "plan", "--indexes", "none", "--url", url, environ=environ)
    assert ended.code == 8
    assert "  ! drop collection notes with 2 documents" in ended.out
    assert "mydocs: error: a run takes something away: 001 drop collection notes" in ended.err
    assert "drop collection notes" in summary.read_text()
    ended = program("migrate", "plan", "--indexes", "none", "--url", url, "-o", "json")
    Draft202012Validator(schema()).validate(ended.json)
    assert (ended.code, ended.json["error"]["type"], ended.json["error"]["exit_code"]) == (8, "WouldTakeAway", 8)
    assert ended.json["steps"][0]["effects"][0]["kind"] == "drop_collection"


def test_a_script_that_fails_on_the_copy_is_said(program: Callable[..., Ended], folder: Path, url: str) -> None:
    (folder / "001_fails.py").write_text("async def up(db):\n    raise ValueError('no')\n")
    ended = program("migrate", "plan", "--indexes", "none", "--url", url, "-o", "json")
    assert (ended.code, ended.json["error"]["type"]) == (1, "WouldFail")
    assert ended.json["steps"][0]["error"]["type"] == "ValueError"
    Draft202012Validator(schema()).validate(ended.json)


@pytest.mark.parametrize(
    "arguments", [("--sample", "x"), ("--show", "-1"), ("--script-timeout", "soon"), ("--to", "9")]
)
def test_what_makes_no_sense_is_a_usage_error(
    inside: Callable[..., Ended], folder: Path, url: str, arguments: tuple[str, str]
) -> None:
    ended = inside("migrate", "plan", *arguments, "--indexes", "none", "--url", url)
    assert ended.code == 2


def test_an_empty_plan_reads_as_such() -> None:
    assert plan_text(RunReport(outcome=Outcome.PLANNED, database="shop", steps=())) == "nothing pending"
