"""Events as log records: the level says how much it matters, the sentence what happened, the event all the rest."""

import logging
import subprocess
import sys
from typing import Any

import pytest

from mydocs.migrations import fan_out, logging_sink
from mydocs.migrations.model import IndexState, IndexType, LeaseView, MigrationState, StoredError
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
from mydocs.migrations.reporting.report import ErrorReport, Outcome, RunFinished, RunReport

STEP: dict[str, Any] = {"version": "001", "name": "a", "script": "001_a.py"}
INDEX: dict[str, Any] = {
    "collection": "pages",
    "name": "ft",
    "type": IndexType.SEARCH,
    "queryable": False,
    "seconds": 2.0,
}
HOLDER = LeaseView(host="elsewhere", pid=77, run_id="x", term=3)


@pytest.mark.parametrize(
    ("event", "level", "sentence"),
    [
        (Planned(versions=("001",), standard=True), "INFO", "up: standard indexes, 001 to run"),
        (Planned(versions=(), standard=False), "DEBUG", "up: nothing to run"),
        (Warned(message="look"), "WARNING", "look"),
        (LeaseWaiting(holder=HOLDER), "INFO", "waiting for the lease: elsewhere (pid 77), term 3, expired"),
        (LeaseTaken(term=4), "DEBUG", "LeaseTaken term=4"),
        (StepStarted(**STEP), "INFO", "001 a: up starts"),
        (StepFinished(**STEP, state=MigrationState.APPLIED, seconds=1.0), "INFO", "001 a: applied after 1.00 s"),
        (
            StepFinished(
                **STEP, state=MigrationState.FAILED, seconds=1.0, error=StoredError(type="ValueError", message="bad")
            ),
            "WARNING",
            "001 a: failed after 1.00 s: ValueError: bad",
        ),
        (
            BatchDone(collection="pages", done=3, total=9, seconds=1.0),
            "DEBUG",
            "pages: 3 of 9 documents after 1.0 s",
        ),
        (
            IndexDefined(collection="pages", name="ft", type=IndexType.SEARCH, action="created"),
            "DEBUG",
            "IndexDefined collection=pages name=ft type=search action=created",
        ),
        (IndexChanged(**INDEX, state=IndexState.BUILDING), "INFO", "index pages.ft: building after 2.0 s"),
        (
            IndexChanged(**INDEX, state=IndexState.FAILED, reason="full"),
            "WARNING",
            "index pages.ft: failed after 2.0 s (full)",
        ),
        (StillWaiting(what=("pages.ft",), seconds=30.0), "INFO", "still waiting after 30 s: pages.ft"),
        (
            RunFinished(
                report=RunReport(
                    outcome=Outcome.FAILED,
                    database="app",
                    seconds=2.0,
                    error=ErrorReport(type="NotReady", message="late", exit_code=5),
                )
            ),
            "INFO",
            "ended after 2.00 s, failed: NotReady: late",
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Event) else "",
)
def test_an_event_is_one_record_with_a_sentence(
    event: Event, level: str, sentence: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    logging_sink(event)
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("mydocs.migrations", level)
    assert record.getMessage().endswith(f": {sentence}")
    assert record.__dict__["event"] is event


def test_a_sink_for_several_goes_on_when_one_of_them_raises(caplog: pytest.LogCaptureFixture) -> None:
    taken: list[Event] = []

    def broken(event: Event) -> None:
        raise RuntimeError("broken sink")

    fan_out(broken, taken.append)(Warned(message="look"))
    assert taken == [Warned(message="look")]
    assert "the event sink raised on Warned" in caplog.text


def test_without_logging_set_up_not_even_a_warning_is_printed() -> None:
    """In a process of its own: pytest always sets logging up."""
    code = (
        "from mydocs.migrations import logging_sink\n"
        "from mydocs.migrations.reporting.events import Warned\n"
        "logging_sink(Warned(message='look'))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")
