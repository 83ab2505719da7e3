"""Events as log records: the level says how much it matters, the sentence what happened, the event all the rest."""

import logging
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import pytest

from mydocs.cli.plain_view import PlainView
from mydocs.cli.render import event_json
from mydocs.cli.streams import Streams
from mydocs.migrations import fan_out, logging_sink
from mydocs.migrations.model import IndexState, IndexType, LeaseView, MigrationState, StoredError
from mydocs.migrations.reporting.events import (
    AliasSwitched,
    BatchDone,
    Event,
    Foreseeing,
    IndexChanged,
    IndexDefined,
    LeaseTaken,
    LeaseWaiting,
    Planned,
    StepFinished,
    StepStarted,
    StillWaiting,
    Verified,
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
        (Planned(database="app", versions=("001",), standard=True), "INFO", "database app: standard indexes, 001"),
        (Planned(database="app", versions=(), standard=False), "DEBUG", "database app: no migration to run"),
        (Warned(message="look"), "WARNING", "look"),
        (LeaseWaiting(holder=HOLDER), "INFO", "waiting for the lease: elsewhere (pid 77), term 3, expired"),
        (LeaseTaken(term=4), "DEBUG", "lease taken, term 4"),
        (StepStarted(**STEP), "INFO", "migration 001 a: running"),
        (StepFinished(**STEP, state=MigrationState.APPLIED, seconds=1.0), "INFO", "migration 001 a: applied in 1.00 s"),
        (
            StepFinished(
                **STEP, state=MigrationState.FAILED, seconds=1.0, error=StoredError(type="ValueError", message="bad")
            ),
            "WARNING",
            "migration 001 a: failed in 1.00 s: ValueError: bad",
        ),
        (
            AliasSwitched(alias="vec", collection="pages", index="vec_2", previous="vec_1"),
            "INFO",
            "alias vec names pages.vec_2 from now on, and named vec_1 before",
        ),
        (
            AliasSwitched(alias="vec", collection="pages", index="vec_1", previous=None),
            "INFO",
            "alias vec names pages.vec_1 from now on",
        ),
        (
            Verified(version="001", name="a", script="001_a.py", seconds=1.0),
            "INFO",
            "migration 001 a: verified after 1.00 s",
        ),
        (
            Verified(
                version="001",
                name="a",
                script="001_a.py",
                seconds=1.0,
                error=StoredError(type="AssertionError", message="no note"),
            ),
            "WARNING",
            "migration 001 a: is not right after 1.00 s: AssertionError: no note",
        ),
        (
            BatchDone(collection="pages", done=3, total=9, seconds=1.0),
            "DEBUG",
            "pages: 3 of 9 documents (33 %), 1.00 s",
        ),
        (
            IndexDefined(collection="pages", name="ft", type=IndexType.SEARCH, action="created"),
            "DEBUG",
            "index pages.ft (search): created",
        ),
        (IndexChanged(**INDEX, state=IndexState.BUILDING), "INFO", "index pages.ft (search): building, 2.00 s"),
        (
            IndexChanged(**INDEX, state=IndexState.FAILED, reason="full"),
            "WARNING",
            "index pages.ft (search): failed (full), 2.00 s",
        ),
        (StillWaiting(what=("pages.ft",), seconds=30.0), "INFO", "still waiting after 30.0 s: pages.ft"),
        (Foreseeing(what="reading pages"), "INFO", "reading pages"),
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


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheWarmed(Event):
    """An event that is new: its class is all that is written for it."""

    keys: int

    @property
    def level(self) -> int:
        return logging.INFO

    @property
    def sentence(self) -> str:
        return f"{self.keys} keys are warm"


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsaid(Event):
    """One whose class says no sentence."""

    keys: int


def test_a_new_event_is_its_class_and_nothing_else(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    for event in (CacheWarmed(keys=3), Unsaid(keys=3)):
        logging_sink(event)
        PlainView(Streams([])).take(event)
    assert [record.levelname for record in caplog.records] == ["INFO", "DEBUG"]
    assert caplog.text.count("3 keys are warm") == caplog.text.count("Unsaid keys=3") == 1
    assert capsys.readouterr().err == "3 keys are warm\nUnsaid keys=3\n"
    assert event_json(CacheWarmed(keys=3)) | {"database": "", "run_id": ""} == {
        "database": "",
        "run_id": "",
        "keys": 3,
        "level": "info",
        "event": "CacheWarmed",
        "message": "3 keys are warm",
    }


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
