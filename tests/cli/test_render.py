"""Reports and events as text."""

import io
import re
import threading
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.live import Live

from mydocs.cli import progress, render
from mydocs.cli.live_view import LiveView
from mydocs.cli.plain_view import PlainView
from mydocs.cli.streams import Streams
from mydocs.cli.tables import fitted, table
from mydocs.migrations.model import IndexState, IndexType, LeaseView, MigrationState, StoredError
from mydocs.migrations.reporting.durations import seconds_text
from mydocs.migrations.reporting.events import (
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
from mydocs.migrations.reporting.report import IndexReport, MigrationReport, Outcome, RunFinished, RunReport


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
        LeaseWaiting(holder=LeaseView(host="h", pid=7, run_id="i", term=2, live=True, remaining=9.0)),
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
        (float("nan"), ""),
        (0.0, "0.00 s"),
        (9.994, "9.99 s"),
        (9.996, "10.0 s"),
        (99.96, "1 min 40 s"),
        (3599.6, "1 h 00 min"),
        (3900, "1 h 05 min"),
    ],
)
def test_duration_is_written_for_people(seconds: float | None, text: str) -> None:
    assert seconds_text(seconds) == text


def test_table_is_aligned_and_leaves_empty_columns_out() -> None:
    text = table(("A", "EMPTY", "B"), [("long cell", "", "x"), ("y", "", "two\nlines")])
    assert text.splitlines() == ["A          B", "long cell  x", "y          two lines"]


@given(st.lists(st.text("ab ", min_size=1, max_size=60), min_size=2, max_size=4), st.integers(20, 120))
def test_a_table_fits_any_screen_that_has_room_for_its_columns(row: list[str], width: int) -> None:
    with fitted(width, "~", str):
        lines = table(["A"] * len(row), [row, ["x"] * len(row)]).splitlines()
    assert max(map(len, lines)) <= max(width, 14 * len(row))


def test_a_credential_is_found_before_its_name_is_cut_and_a_reason_is_not_cut() -> None:
    reason = "why " * 20
    with fitted(40, "~", lambda text: text.replace("hunter2-secret", "***")):
        text = table(("INDEX", "REASON"), [("a_long_name_of_an_index_hunter2-secret_and_more", reason)])
    assert "***" in text or "~" in text
    assert not any(piece in text for piece in ("hunter2", "secret"))
    assert reason.strip() in text


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
            run(migrations=(migration("1"),), indexes=(index("a", IndexState.UNKNOWN),)),
            "1 migration applied, 1 index not waited for in 2.10 s",
            id="not waited for",
        ),
        pytest.param(
            run(
                outcome=Outcome.FAILED,
                migrations=(
                    migration("1"),
                    migration("2", MigrationState.FAILED),
                    migration("3", MigrationState.PENDING),
                ),
            ),
            "1 migration applied, 1 failed, 1 not run in 2.10 s",
            id="failed",
        ),
        pytest.param(
            run(
                outcome=Outcome.NOT_READY,
                indexes=(index("a"), index("b", IndexState.FAILED), index("c", IndexState.BUILDING)),
            ),
            "1 index ready, 1 index failed, 1 index not ready in 2.10 s",
            id="not ready",
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
    assert lines[-3].split() == ["pages.ft", "search", "stale"]
    assert lines[-1] == "1 failed, 1 missing; 1 index stale"


def test_event_as_json_names_its_kind() -> None:
    document = render.event_json(seen(IndexState.READY))
    assert (document["event"], document["state"], document["type"]) == ("IndexChanged", "ready", "search")
    assert (document["level"], document["message"]) == ("info", "index pages.ft (search): ready, 12.0 s")
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


@pytest.mark.parametrize(
    ("batches", "text"),
    [
        pytest.param([(10, 1.0)], "", id="one batch says nothing"),
        pytest.param([(10, 1.0), (30, 2.0)], "about 4 s left, 20 a second", id="two"),
        pytest.param([(500, 0.0), (510, 1.0), (520, 2.0)], "10 a second", id="earlier attempts do not count"),
        pytest.param([(10, 1.0), (110, 2.0)], "100 a second", id="the last"),
        pytest.param([(60, 9.0), (10, 1.0)], "", id="another data change"),
    ],
)
def test_speed_of_a_data_change(batches: list[tuple[int, float]], text: str) -> None:
    come = None
    for done, seconds in batches:
        come = progress.after(BatchDone(collection="c", done=done, total=max(done, 110), seconds=seconds), come)
    assert come is not None
    assert render.speed_text(come) == text


def test_an_event_is_one_line_whatever_an_error_says() -> None:
    error = StoredError(type="ValueError", message="first\n  second")
    event = StepFinished(
        version="001", name="a", script="001_a.py", state=MigrationState.FAILED, seconds=1.0, error=error
    )
    assert render.event_line(event) == "migration 001 a: failed in 1.00 s: ValueError: first second"


def test_plain_view_gives_a_sign_of_life_each_30_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    view = PlainView(Streams([]), lambda: now[0])
    view.take(StepStarted(version="001", name="a", script="001_a.py"))
    asked = 0
    while now[0] < 65:
        now[0] += view.tick()
        asked += 1
    view.take(FINISHED)
    now[0] = 200.0
    view.tick()
    assert asked == 3, "woken without need"
    assert capsys.readouterr().err.splitlines() == [
        "migration 001 a: running",
        "migration 001 a: still at it after 30 s",
        "migration 001 a: still at it after 60 s",
        "migration 001 a: applied in 0.12 s",
    ]


def test_plain_view_says_how_fast_a_data_change_goes_each_30_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    view = PlainView(Streams([]), lambda: now[0])
    for second in range(1, 46):
        now[0] = float(second)
        view.take(BatchDone(collection="pages", done=second * 100, total=4500, seconds=float(second)))
    assert capsys.readouterr().err.splitlines() == [
        "pages: 100 of 4500 documents (2 %), 1.00 s",
        "pages: 3100 of 4500 documents (68 %), 31.0 s, about 14 s left, 100 a second",
        "pages: 4500 of 4500 documents (100 %), 45.0 s, 100 a second",
    ]


def screen_of(view: LiveView, width: int, height: int, *, color: bool = False) -> str:
    file = io.StringIO()
    console = Console(file=file, force_terminal=color, width=width, height=height, no_color=not color)
    console.print(view)
    return file.getvalue()


def test_live_view_of_more_lines_than_fit_shows_what_goes_on_and_what_has_failed() -> None:
    view = LiveView(Streams([]), unicode=False)
    for number in range(20):
        states = {3: IndexState.FAILED, 18: IndexState.BUILDING, 19: IndexState.BUILDING}
        view.take(seen(states.get(number, IndexState.READY), name=f"ft_{number:02}"))
    lines = screen_of(view, 80, 10).splitlines()
    assert [name for name in ("ft_03", "ft_18", "ft_19") if not any(name in line for line in lines)] == []
    assert lines[-1] == "  17 of 20 indexes ready, 1 failed, 13 more not shown"
    assert len(lines) <= 10
    assert max(map(len, lines)) <= 80


def test_live_view_cuts_names_inside_and_shows_what_would_take_effect() -> None:
    view = LiveView(Streams([]), unicode=False)
    for end in ("documents", "pages"):
        view.take(seen(IndexState.BUILDING, name=f"a_long_name_that_begins_alike_{end}"))
    view.take(seen(IndexState.BUILDING, name="\x1b[31m\x9bred ##[x]"))
    lines = screen_of(view, 60, 20).splitlines()
    assert len({line[2:34] for line in lines[:2]}) == 2
    assert all("~" in line for line in lines[:2])
    assert not re.search("[\x1b\x9b]|##\\[", "".join(lines))


def test_live_view_draws_a_bar_that_ends_with_its_script() -> None:
    view = LiveView(Streams([]), unicode=False)
    view.take(StepStarted(version="001", name="a", script="001_a.py"))
    for done, seconds in ((250, 1.0), (500, 2.0)):
        view.take(BatchDone(collection="pages", done=done, total=1000, seconds=seconds))
    assert re.search(
        r" 50% ━{6} +about 2 s left, 250 a second, 500 of 1000 documents *$", screen_of(view, 120, 20), re.MULTILINE
    )
    view.take(FINISHED)
    assert screen_of(view, 120, 20).splitlines()[-1].startswith("*   pages")


@pytest.mark.parametrize("color", [False, True], ids=["plain", "colour"])
@pytest.mark.parametrize("width", [40, 60, 80, 120])
@pytest.mark.parametrize("unicode", [False, True], ids=["ASCII", "Unicode"])
def test_live_view_of_any_width_shows_how_far_a_data_change_has_come(width: int, unicode: bool, color: bool) -> None:
    view = LiveView(Streams([]), unicode=unicode)
    for done, seconds in ((250, 1.0), (999, 2.0)):
        view.take(BatchDone(collection="a_collection_with_a_long_name", done=done, total=2000, seconds=seconds))
    (line,) = re.sub(r"\x1b\[[0-9;]*m", "", screen_of(view, width, 20, color=color)).splitlines()
    assert " 50%" in line
    assert len(line) <= width
    assert "…" not in line.partition("50%")[2], "what does not fit whole is left out"


def test_live_view_says_who_has_the_lease_until_it_is_taken() -> None:
    view = LiveView(Streams([]), unicode=False)
    view.take(LeaseWaiting(holder=LeaseView(host="pod-7", pid=7, run_id="i", term=2, live=True, remaining=9.0)))
    assert "pod-7 (pid 7) migrates" in screen_of(view, 80, 20)
    view.take(LeaseTaken(term=3))
    assert screen_of(view, 80, 20).startswith("* waiting for the lease")


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


@pytest.mark.seconds(120)
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
            thread.join(timeout=60)
    assert not any(thread.is_alive() for thread in threads)
