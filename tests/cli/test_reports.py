"""What a run waited for, as a time line, a page and JUnit XML."""

import errno
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import Result

from mydocs.cli import html_report, junit
from mydocs.cli.html_style import STYLE
from mydocs.cli.timeline import Kind, Recorder, Span, waited_for
from mydocs.localserver import LocalServer
from mydocs.migrations.model import IndexState, IndexType, LeaseView, MigrationState, StoredError
from mydocs.migrations.reporting.events import (
    BatchDone,
    Event,
    IndexChanged,
    IndexDefined,
    LeaseTaken,
    LeaseWaiting,
    StepFinished,
    StepStarted,
    StillWaiting,
    Warned,
)
from mydocs.migrations.reporting.report import (
    ErrorReport,
    IndexReport,
    MigrationReport,
    Outcome,
    RunFinished,
    RunReport,
)

SEARCH = """
from pymongo.operations import SearchIndexModel
from mydocs.migrations import ensure_search_indexes
async def up(db):
    await ensure_search_indexes(db.documents, [SearchIndexModel({"mappings": {"dynamic": True}}, "ft")])
"""
HOSTILE = '<script>alert(1)</script> & "quoted" \x00\x1b[31m\u202e\ud800 ]]>'
HOLDER = LeaseView(host="pod-7", pid=9, run_id="i", term=2, live=True, remaining=9.0)


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def recorded(*events: tuple[float, Event], seconds: float) -> Recorder:
    """Record events at moments after the beginning."""
    clock = Clock()
    recorder = Recorder(clock)
    for at, event in (*events, (seconds, RunFinished(report=RunReport(outcome=Outcome.OK, database="x")))):
        clock.now = 100.0 + at
        recorder.take(event)
    return recorder


def started(version: str) -> StepStarted:
    return StepStarted(version=version, name="a", script=f"{version}_a.py")


def finished(version: str, seconds: float, error: StoredError | None = None) -> StepFinished:
    state = MigrationState.APPLIED if error is None else MigrationState.FAILED
    return StepFinished(version=version, name="a", script=None, state=state, seconds=seconds, error=error)


def defined(name: str, action: str = "created") -> IndexDefined:
    return IndexDefined(collection="pages", name=name, type=IndexType.SEARCH, action=action)


def seen(name: str, state: IndexState, seconds: float) -> IndexChanged:
    kind = IndexType.SEARCH
    return IndexChanged(collection="pages", name=name, type=kind, state=state, queryable=False, seconds=seconds)


RUN = recorded(
    (1.0, LeaseWaiting(holder=HOLDER)),
    (3.0, LeaseTaken(term=3)),
    (3.0, started("001")),
    (3.5, defined("quick")),
    (3.5, defined("slow")),
    (4.0, finished("001", 1.0)),
    (4.0, started("002")),
    (5.0, BatchDone(collection="pages", done=5, total=10, seconds=1.0)),
    (6.0, finished("002", 2.0)),
    (6.0, seen("quick", IndexState.READY, 2.5)),
    (6.0, seen("slow", IndexState.BUILDING, 2.5)),
    (9.0, seen("slow", IndexState.READY, 5.5)),
    seconds=10.0,
)


def test_a_run_waits_for_one_thing_at_a_time_without_a_gap() -> None:
    held = waited_for(RUN.spans, RUN.seconds)
    assert [(span.kind, span.title, span.start, span.end) for span in held] == [
        (Kind.REST, "everything else", 0.0, 1.0),
        (Kind.OTHERS, "waiting for pod-7 (pid 9)", 1.0, 3.0),
        (Kind.STEP, "migration 001 a", 3.0, 4.0),
        (Kind.STEP, "migration 002 a", 4.0, 6.0),
        (Kind.INDEX, "index pages.slow (search)", 6.0, 9.0),
        (Kind.REST, "everything else", 9.0, 10.0),
    ]


def test_an_index_takes_time_from_its_order_to_its_end_beside_the_scripts() -> None:
    spans = {span.title: (span.start, span.end, span.state) for span in RUN.spans if span.kind is Kind.INDEX}
    assert spans == {
        "index pages.quick (search)": (3.5, 6.0, "ready"),
        "index pages.slow (search)": (3.5, 9.0, "ready"),
    }


def test_what_has_not_ended_is_closed_with_the_run() -> None:
    recorder = recorded((1.0, started("001")), (2.0, seen("ft", IndexState.BUILDING, 0.5)), seconds=5.0)
    assert [(span.start, span.end, span.state) for span in recorder.spans] == [
        (1.0, 5.0, "interrupted"),
        (1.5, 5.0, "building"),
    ]


def test_an_index_that_nobody_waited_for_held_nothing_up() -> None:
    recorder = recorded(
        (0.0, started("001")), (1.0, defined("ft")), (2.0, defined("old", "unchanged")), (4.0, finished("001", 4.0)),
        seconds=4.0,
    )  # fmt: skip
    (step, index) = recorder.spans
    assert (index.title, index.end) == ("index pages.ft (search)", None)
    assert [span.title for span in waited_for(recorder.spans, recorder.seconds)] == [step.title]


def test_waiting_for_others_to_migrate_is_time_that_is_named() -> None:
    waiting = StillWaiting(what=("001 is pending",), seconds=0.0)
    recorder = recorded((1.0, waiting), (4.0, seen("ft", IndexState.READY, 0.1)), seconds=4.0)
    held = waited_for(recorder.spans, recorder.seconds)
    assert [(span.kind, span.start, span.end) for span in held][1:] == [(Kind.OTHERS, 1.0, 4.0)]


@given(
    st.lists(
        st.builds(
            lambda kind, title, start, took, looks: Span(
                kind=kind, title=title, start=start, end=start + took, state="", looks=((start, "x"),) * looks
            ),
            st.sampled_from([Kind.OTHERS, Kind.STEP, Kind.INDEX]),
            st.text(max_size=3),
            st.floats(0, 50),
            st.floats(0, 50),
            st.integers(0, 1),
        ),
        max_size=8,
    )
)
def test_the_parts_of_a_run_add_up_to_it_in_order(spans: list[Span]) -> None:
    seconds = max((span.until(0.0) for span in spans), default=0.0) + 1.0
    held = waited_for(spans, seconds)
    assert all(one.end == other.start for one, other in pairwise(held))
    assert (held[0].start, held[-1].end) == (0.0, seconds)


REPORT = RunReport(
    outcome=Outcome.FAILED,
    database=HOSTILE,
    seconds=2.0,
    migrations=(
        MigrationReport(version="001", name="a", script="001_a.py", state=MigrationState.APPLIED, seconds=0.5),
        MigrationReport(
            version="002",
            name="b",
            script="002_b.py",
            state=MigrationState.FAILED,
            error=StoredError(type="ValueError", message=HOSTILE),
        ),
        MigrationReport(version="003", name="c", script="003_c.py", state=MigrationState.PENDING),
    ),
    indexes=(
        IndexReport(
            collection="pages", name="ft", type=IndexType.SEARCH, state=IndexState.UNKNOWN, queryable=None,
            reason="not waited for",
        ),
    ),
    error=ErrorReport(type="MigrationFailed", message=HOSTILE, exit_code=1),
)  # fmt: skip


class Tags(HTMLParser):
    """Collects what a page is made of."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.links: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.links += [str(value) for name, value in attrs if name in {"src", "href", "action"} or name[:2] == "on"]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_shows_hostile_text_as_text_and_needs_nothing_else() -> None:
    failed = finished("001", 1.0, StoredError(type="E", message=HOSTILE))
    recorder = recorded((0.0, Warned(message=HOSTILE)), (0.1, started("001")), (1.0, failed), seconds=2.0)
    text = html_report.document(REPORT, recorder, command="run", clean=lambda text: text.replace("alert", "***"))
    tags = Tags()
    tags.feed(text)
    assert "script" not in tags.names
    assert tags.links == []
    assert "url(" not in text
    assert tags.text.count("<script>***(1)</script>") >= 5
    assert [sign for sign in "\x00\x1b\u202e\ud800" if sign in text] == []
    assert "prefers-color-scheme: dark" in text
    assert "max-width" in text


def test_the_page_of_an_unverified_run_says_what_is_not_right() -> None:
    lines = ("these checks failed:", "  001_a.py, line 3: verify failed: a < b", "  002_b.py, line 4: verify failed")
    report = RunReport(
        outcome=Outcome.UNVERIFIED,
        database="x",
        migrations=tuple(
            MigrationReport(
                version=version,
                name="a_long_name",
                script=None,
                state=MigrationState.APPLIED,
                seconds=0.5,
                verified=is_right,
            )
            for version, is_right in (("001", False), ("002", False), ("003", True))
        ),
        error=ErrorReport(type="VerifyFailed", message="; ".join(lines), exit_code=9, lines=lines),
    )
    text = html_report.document(report, RUN, command="run", clean=str)
    tags = Tags()
    tags.feed(text)
    assert "2 not right" in tags.text
    assert "\n".join(lines) in tags.text, "a line each"
    cells = re.findall(r"<td[^>]*>(.*?)</td>", text)
    assert {"applied, not right", "applied, verified", "0.50 s", "a_<wbr>long_<wbr>name"} <= set(cells)
    assert "<th>File</th>" not in text, "a column that is empty is left out"


def test_a_page_on_paper_is_light_and_of_one_size() -> None:
    assert "@media screen and (prefers-color-scheme: dark)" in STYLE
    assert re.search(r"@media print \{.*html \{ font-size: 11px; \}", STYLE, re.DOTALL)


def test_the_page_says_what_the_time_went_to() -> None:
    report = RunReport(outcome=Outcome.OK, database="x")
    text = html_report.document(report, RUN, command="run", clean=str)
    tags = Tags()
    tags.feed(text)
    assert (
        "Of 10.0 s: 2.00 s waiting for others; 3.00 s running scripts; "
        "3.00 s waiting for index pages.slow (search), the last of 2 to end." in tags.text
    )
    solid = text.count("solid")
    assert solid - STYLE.count("solid") == 4


@pytest.mark.parametrize(
    ("report", "sentence"),
    [
        pytest.param(RunReport(outcome=Outcome.OK, database="x"), "There was nothing to do.", id="nothing"),
        pytest.param(REPORT, "It ended before anything was run.", id="failed before"),
        pytest.param(RunReport(outcome=Outcome.PLANNED, database="x"), "0 to run.", id="planned"),
    ],
)
def test_the_page_of_a_run_without_steps_says_so(report: RunReport, sentence: str) -> None:
    assert html_report.told(report, (), (), 1.0) == sentence


@given(st.floats(0.001, 1e6))
def test_the_axis_has_a_few_round_moments(seconds: float) -> None:
    marks = html_report.ticks(seconds)
    assert 1 <= len(marks) <= html_report.TICKS
    assert all(0 < mark < seconds * 1.000001 for mark in marks)


def test_junit_has_a_case_for_each_migration_and_index() -> None:
    text = junit.document(REPORT, command="run", started_at=RUN.started_at, clean=lambda t: t.replace("alert", "***"))
    root = ET.fromstring(text)
    cases = {str(case.get("name")): [child.tag for child in case] for case in root.iter("testcase")}
    assert cases == {
        "001 a": [],
        "002 b": ["failure"],
        "003 c": ["skipped"],
        "pages.ft (search)": ["skipped"],
    }
    assert {name: root.get(name) for name in ("tests", "failures", "errors", "skipped")} == {
        "tests": "4", "failures": "1", "errors": "0", "skipped": "2",
    }  # fmt: skip
    assert "<script>***(1)" in str(root.findall(".//failure")[0].get("message"))


@pytest.mark.parametrize(
    ("outcome", "state", "expected"),
    [
        pytest.param(Outcome.NOT_READY, IndexState.BUILDING, ["failure"], id="late"),
        pytest.param(Outcome.FAILED, IndexState.FAILED, ["failure"], id="failed"),
        pytest.param(Outcome.OK, IndexState.UNKNOWN, ["skipped"], id="not waited for"),
        pytest.param(Outcome.OK, IndexState.READY, [], id="ready"),
    ],
)
def test_junit_blames_the_index_that_held_the_run_up(outcome: Outcome, state: IndexState, expected: list[str]) -> None:
    index = IndexReport(collection="c", name="i", type=IndexType.SEARCH, state=state, queryable=False)
    report = RunReport(outcome=outcome, database="x", indexes=(index,))
    root = ET.fromstring(junit.document(report, command="run", started_at=RUN.started_at, clean=str))
    assert [child.tag for child in root.iter("testcase") for child in child] == expected


def test_junit_of_a_run_that_ended_before_its_steps_is_not_green() -> None:
    error = ErrorReport(type="LeaseHeld", message="held", exit_code=7)
    report = RunReport(outcome=Outcome.FAILED, database="x", error=error)
    root = ET.fromstring(junit.document(report, command="run", started_at=RUN.started_at, clean=str))
    assert root.get("errors") == "1"


@pytest.mark.parametrize("ending", ["html", "xml"])
def test_run_writes_the_report_that_the_ending_names(
    cli: Callable[..., Result], folder: Path, local_url: str, ending: str
) -> None:
    (folder / "001_search.py").write_text(SEARCH)
    name = f"reports/{ending}/run.{ending.upper()}"
    ended = cli("migrate", "run", "--wait", "--url", local_url, "--db", "shop", "--report", name)
    assert ended.exit_code == 0, ended.stderr
    text = Path(name).read_text("utf-8")
    assert text.startswith("<!doctype html>" if ending == "html" else "<?xml")
    assert "documents.ft (search)" in text
    assert "001 search" in text


@pytest.mark.parametrize("command", [("run",), ("wait", "--timeout", "10ms"), ("rollback",)], ids=lambda c: c[0])
def test_a_failed_command_writes_its_report_as_well(
    cli: Callable[..., Result], folder: Path, local_url: str, command: tuple[str, ...]
) -> None:
    (folder / "001_bad.py").write_text("async def up(db):\n    raise ValueError('too few')\n")
    server = ("--url", local_url, "--db", "x")
    if command[0] == "rollback":
        cli("migrate", "mark", "001", "--applied", *server)
    ended = cli("migrate", *command, *server, "--report", "run.html")
    assert ended.exit_code in (1, 5)
    assert "✗" in Path("run.html").read_text("utf-8")


def test_unknown_ending_is_refused_before_anything_runs(
    cli: Callable[..., Result], folder: Path, local_server: LocalServer
) -> None:
    (folder / "001_search.py").write_text(SEARCH)
    ended = cli("migrate", "run", "--url", local_server.url, "--db", "x", "--report", "run.txt")
    assert (ended.exit_code, local_server.controls.counted()) == (2, [])
    assert ".xml (JUnit) or .html" in ended.stderr


@pytest.mark.parametrize("code", [0, 1], ids=["run goes well", "run fails"])
def test_a_report_that_cannot_be_written_changes_no_exit_code(
    cli: Callable[..., Result], folder: Path, local_url: str, code: int
) -> None:
    (folder / "001_a.py").write_text(f"async def up(db):\n    1 / {1 - code}\n")
    Path("file").touch()
    ended = cli("migrate", "run", "--url", local_url, "--db", "x", "--report", "file/run.html")
    assert ended.exit_code == code
    assert "warning: the report cannot be written to file/run.html" in ended.stderr


def test_a_report_that_cannot_be_written_leaves_the_one_before(
    monkeypatch: pytest.MonkeyPatch, cli: Callable[..., Result], folder: Path, local_url: str
) -> None:
    def full(path: Path, *_: Any, **__: Any) -> int:
        path.touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    for before in (None, b"before"):
        if before is not None:
            Path("report.html").write_bytes(before)
        ended = cli("migrate", "run", "--url", local_url, "--db", "x", "--report", "report.html")
        assert "the report cannot be written to report.html: No space left on device" in ended.stderr
        assert (Path("report.html").read_bytes() if before else None) == before
        assert {path.name for path in Path().iterdir()} == {"migrations"} | ({"report.html"} if before else set())
