"""Reports and events as text."""

import io
import re
import threading
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from rich.console import Console
from rich.live import Live

from mydocs.cli import render
from mydocs.cli.live import LiveView, PlainView
from mydocs.cli.streams import Streams
from mydocs.cli.tables import table
from mydocs.migrations.events import (
    BatchDone,
    Event,
    IndexChanged,
    IndexDefined,
    LeaseTaken,
    LeaseWaiting,
    Planned,
    StepFinished,
    StepStarted,
    StillWaiting,
    Warned,
)
from mydocs.migrations.model import IndexState, IndexType, LeaseView, MigrationState, StoredError
from mydocs.migrations.report import IndexReport, MigrationReport, Outcome, RunFinished, RunReport


def migration(version: str, state: MigrationState = MigrationState.APPLIED) -> MigrationReport:
    return MigrationReport(version=version, name="name", script=f"{version}_name.py", state=state, seconds=0.1)


def index(name: str, state: IndexState = IndexState.READY) -> IndexReport:
    return IndexReport(collection="pages", name=name, type=IndexType.SEARCH, state=state, queryable=True, seconds=2.0)


def run(**parts: object) -> RunReport:
    return RunReport(**{"outcome": Outcome.OK, "database": "x", "seconds": 2.1, **parts})  # type: ignore[arg-type]  # a builder


def seen(state: IndexState, **more: object) -> IndexChanged:
    facts = {"collection": "pages", "name": "ft", "type": IndexType.SEARCH, "queryable": False, "seconds": 12.0, **more}
    return IndexChanged(state=state, **facts)  # type: ignore[arg-type]  # a builder


FINISHED = StepFinished(version="001", name="a", script="001_a.py", state=MigrationState.APPLIED, seconds=0.12)
EVENTS: list[tuple[Event, str]] = [
    (Planned(database="x", versions=("001",), standard=True), "database x: standard indexes, 001"),
    (Planned(database="x", versions=(), standard=False), "database x: no migration to run"),
    (Planned(database="x", versions=("001",), standard=False, direction="down"), "database x: roll back 001"),
    (Warned(message="look"), "warning: look"),
    (LeaseTaken(term=3), "lease taken, term 3"),
    (
        LeaseWaiting(holder=LeaseView(host="h", pid=7, id="i", term=2, live=True, remaining=9.0)),
        "waiting for the lease: h (pid 7), term 2, 9 s left",
    ),
    (StepStarted(version="001", name="a", script="001_a.py"), "migration 001 a: running"),
    (StepStarted(version="standard", name="standard indexes", script=None), "standard indexes: running"),
    (FINISHED, "migration 001 a: applied in 0.12 s"),
    (
        StepFinished(
            version="001",
            name="a",
            script="001_a.py",
            state=MigrationState.FAILED,
            seconds=1.0,
            error=StoredError(type="ValueError", message="no"),
        ),
        "migration 001 a: failed in 1.00 s: ValueError: no",
    ),
    (BatchDone(collection="pages", done=500, total=1000, seconds=3.0), "pages: 500 of 1000 documents (50 %), 3.00 s"),
    (
        IndexDefined(collection="pages", name="ft", type=IndexType.SEARCH, action="created"),
        "index pages.ft (search): created",
    ),
    (seen(IndexState.BUILDING), "index pages.ft (search): building, 12.0 s"),
    (
        seen(IndexState.BUILDING, hosts_ready=1, hosts_total=3),
        "index pages.ft (search): building, 1 of 3 hosts ready, 12.0 s",
    ),
    (seen(IndexState.FAILED, reason="no room"), "index pages.ft (search): failed (no room), 12.0 s"),
    (StillWaiting(what=("pages.ft",), seconds=30.0), "still waiting after 30.0 s: pages.ft"),
]


@pytest.mark.parametrize(("event", "line"), EVENTS, ids=[line for _, line in EVENTS])
def test_event_is_one_plain_line(event: Event, line: str) -> None:
    assert render.event_line(event) == line


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, ""),
        (0.0, "0.00 s"),
        (9.994, "9.99 s"),
        (9.996, "10.0 s"),
        (99.96, "1 min 40 s"),
        (3599.6, "1 h 00 min"),
        (3900, "1 h 05 min"),
    ],
)
def test_duration_is_written_for_people(seconds: float | None, text: str) -> None:
    assert render.seconds_text(seconds) == text


def test_table_is_aligned_and_leaves_empty_columns_out() -> None:
    text = table(("A", "EMPTY", "B"), [("long cell", "", "x"), ("y", "", "two\nlines")])
    assert text.splitlines() == ["A          B", "long cell  x", "y          two lines"]


@pytest.mark.parametrize(
    ("report", "sentence"),
    [
        pytest.param(run(), "nothing to do", id="nothing"),
        pytest.param(run(migrations=(migration("1"),)), "1 migration applied in 2.10 s", id="one"),
        pytest.param(
            run(migrations=(migration("1"), migration("2")), indexes=(index("a"), index("b"))),
            "2 migrations applied, 2 indexes ready in 2.10 s",
            id="more, and indexes",
        ),
        pytest.param(
            run(migrations=(migration("1"),), indexes=(index("a", IndexState.PENDING),)),
            "1 migration applied, 1 index still building in 2.10 s",
            id="not waited for",
        ),
        pytest.param(
            run(outcome=Outcome.PLANNED, migrations=(migration("1", MigrationState.PENDING),)),
            "1 migration would run",
            id="planned",
        ),
    ],
)
def test_run_ends_with_what_it_came_to(report: RunReport, sentence: str) -> None:
    assert render.run_text(report).splitlines()[-1] == sentence


def test_status_shows_when_and_why() -> None:
    at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    applied = MigrationReport(
        version="001", name="a", script=None, state=MigrationState.MISSING, applied_at=at, seconds=1.0
    )
    failed = MigrationReport(
        version="002", name="b", script=None, state=MigrationState.FAILED, error=StoredError(type="E", message="why")
    )
    lines = render.status_text(run(migrations=(applied, failed), indexes=(index("ft", IndexState.STALE),))).splitlines()
    assert lines[1].split() == ["001", "a", "missing", "2026-01-02", "03:04:05Z", "1.00", "s"]
    assert lines[2].split() == ["002", "b", "failed", "E:", "why"]
    assert lines[-1].split() == ["pages.ft", "search", "stale"]


def test_event_as_json_names_its_kind() -> None:
    document = render.event_json(seen(IndexState.READY))
    assert (document["event"], document["state"], document["type"]) == ("IndexChanged", "ready", "search")
    assert render.event_json(RunFinished(report=run()))["report"]["outcome"] == "ok"


def test_plain_view_says_a_plan_once_and_not_every_batch(capsys: pytest.CaptureFixture[str]) -> None:
    view = PlainView(Streams([]))
    for _ in range(2):
        view.take(Planned(database="x", versions=("001",), standard=False))
    for done in range(100, 1001, 100):
        view.take(BatchDone(collection="pages", done=done, total=1000, seconds=0.1))
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "database x: 001"
    assert [line.split()[1] for line in lines[1:]] == ["100", "1000"]


def test_live_view_settles_every_line_and_keeps_warnings() -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=100, height=30, no_color=True)
    view = LiveView(Streams([]), unicode=True)
    view.console = console
    with Live(view, console=console, auto_refresh=False):
        for event, _ in EVENTS:
            view.take(event)
        view.take(replace(FINISHED, version="002", name="b", error=StoredError(type="E", message="no")))
        view.take(seen(IndexState.READY))
        view.take(RunFinished(report=run()))
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.getvalue())
    assert "warning: look" in text
    last = text[text.rindex("migration 001 a") :]
    assert "✓ index pages.ft (search)" in last
    assert "✗ migration 002 b" in last
    assert not any(frame in last for frame in "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏")


def test_live_view_takes_events_of_many_threads_while_it_draws() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=80, height=24)
    view = LiveView(Streams([]), unicode=False)
    view.console = console

    def work() -> None:
        for _ in range(50):
            for event, _ in EVENTS:
                view.take(event)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(3)]
    with Live(view, console=console, refresh_per_second=50):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=10)
    assert not any(thread.is_alive() for thread in threads)
