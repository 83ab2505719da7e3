"""What values say of themselves: durations, events, reports, errors, and what a listing leaves open."""

import logging
import math
from pathlib import Path
from typing import Any

import pytest

from mydocs.migrations.errors import (
    IN_THE_SENTENCE,
    IndexConflict,
    MigrationFailed,
    ScriptsInvalid,
    UsageError,
)
from mydocs.migrations.indexes import definitions
from mydocs.migrations.indexes.readiness import Host, Listed, serves_nothing
from mydocs.migrations.ledger.plan import Standing, find, refuse_unfit
from mydocs.migrations.model import IndexState, IndexType, MigrationState, Problem, Script, ScriptKind
from mydocs.migrations.reporting.durations import rounded_text, seconds_text
from mydocs.migrations.reporting.events import DataChanged, IndexChanged, Planned
from mydocs.migrations.reporting.plan_report import PlannedStep
from mydocs.migrations.reporting.report import DataReport, MigrationReport, Outcome, RunReport, to_json


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, ""),
        (math.nan, ""),
        (0.123, "0.12 s"),
        (12.34, "12.3 s"),
        (200.0, "3 min 20 s"),
        (3900.0, "1 h 05 min"),
    ],
)
def test_a_duration_is_as_exact_as_its_length_allows(seconds: float | None, text: str) -> None:
    assert seconds_text(seconds) == text


def test_a_duration_that_goes_on_has_whole_seconds() -> None:
    assert (rounded_text(31.7), rounded_text(200.0)) == ("32 s", "3 min 20 s")


def test_a_way_back_names_its_database() -> None:
    assert Planned(database="app", versions=("002",), standard=False, direction="down").sentence == (
        "database app: roll back 002"
    )


@pytest.mark.parametrize(
    ("still", "end"), [(None, "changed"), (3, "changed, 3 still match the filter")], ids=["unknown", "three"]
)
def test_the_end_of_a_data_change_says_what_still_matches(still: int | None, end: str) -> None:
    event = DataChanged(collection="pages", changed=5, still_matching=still)
    assert event.sentence == f"pages: 5 documents {end}"
    assert event.level == logging.INFO


def test_an_index_says_how_many_hosts_are_ready() -> None:
    event = IndexChanged(
        collection="pages",
        name="ft",
        type=IndexType.SEARCH,
        state=IndexState.BUILDING,
        queryable=False,
        seconds=1.0,
        hosts_ready=1,
        hosts_total=3,
        reason="initial sync",
    )
    assert event.standing == "building, 1 of 3 hosts ready (initial sync)"


def test_a_report_holds_the_steps_of_a_plan_and_the_data_that_was_changed() -> None:
    changed = MigrationReport(
        version="001",
        name="a",
        script="001_a.py",
        state=MigrationState.APPLIED,
        data=(DataReport(collection="pages", changed=5, still_matching=None),),
    )
    steps = (PlannedStep(version="002", name="b"),)
    document = to_json(RunReport(outcome=Outcome.PLANNED, database="app", migrations=(changed,), steps=steps))
    assert document["migrations"][0]["data"] == [{"collection": "pages", "changed": 5, "still_matching": None}]
    assert document["steps"] == [{"version": "002", "name": "b", "effects": [], "unknown": [], "error": None}]


def test_an_error_of_ours_inside_a_script_knows_better_what_to_do() -> None:
    failed = MigrationFailed("001_a.py", ", line 3", "IndexConflict: in the way", by_hand="001")
    assert failed.advice() is IN_THE_SENTENCE
    conflict = IndexConflict("pages", "another one has that name")
    failed = MigrationFailed("001_a.py", ", line 3", "IndexConflict: in the way")
    failed.__cause__ = conflict
    assert failed.advice() == conflict.advice()
    assert MigrationFailed("001_a.py", "", "ValueError").advice() == MigrationFailed.next_step


def test_a_version_is_a_text_and_a_problem_of_a_script_is_named_with_its_file() -> None:
    with pytest.raises(UsageError, match="'005'"):
        find((), 5)  # type: ignore[arg-type]  # what somebody passes who has not read the types
    script = Script(
        number=1,
        version="001",
        name="a",
        path=Path("001_a.py"),
        checksum="sha256:1",
        source="",
        kind=ScriptKind.PLAIN,
        problems=(Problem(text="001_a.py, line 1: does nothing"),),
    )
    standing = Standing(version="001", state=MigrationState.PENDING, script=script)
    with pytest.raises(ScriptsInvalid, match=r"001_a\.py, line 1: does nothing"):
        refuse_unfit([standing])
    refuse_unfit([])


@pytest.mark.parametrize(
    ("listed", "nothing"),
    [
        (Listed(status="READY"), False),
        (Listed(status="FAILED", queryable=True), False),
        (Listed(status="FAILED", queryable=False), True),
        (Listed(status="FAILED", hosts=(Host(queryable=False), Host(queryable=True))), False),
        (Listed(status="FAILED", version=0), True),
        (Listed(status="FAILED", version=2), False),
    ],
    ids=["ready", "still answers", "answers nothing", "one host answers", "never updated", "updated"],
)
def test_an_index_serves_nothing_where_it_has_failed_and_no_earlier_one_answers(listed: Listed, nothing: bool) -> None:
    assert serves_nothing(listed) is nothing


@pytest.mark.parametrize(
    ("option", "change"),
    [
        pytest.param({"storedSource": "all"}, definitions.Change.UPDATE, id="a stored source of another form"),
        pytest.param({"storedSource": {"include": []}}, definitions.Change.NOTHING, id="nothing is stored"),
        pytest.param({"typeSets": "all"}, definitions.Change.UPDATE, id="type sets of another form"),
    ],
)
def test_an_option_of_another_form_is_compared_as_it_is(option: dict[str, Any], change: definitions.Change) -> None:
    listed = {"mappings": {"dynamic": True}}
    assert definitions.change(IndexType.SEARCH, listed | option, IndexType.SEARCH, listed) is change
