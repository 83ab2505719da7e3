"""Events reach a sink whatever it does; reports become JSON with the keys that others script against."""

import dataclasses
import inspect
import json
import logging
from datetime import UTC, datetime

import pytest

from mydocs.migrations.model import IndexState, IndexType, MigrationState, ScriptKind, StoredError
from mydocs.migrations.reporting import events, report
from mydocs.migrations.reporting.events import Event, Warned, emit
from mydocs.migrations.reporting.report import (
    AliasReport,
    AttemptReport,
    ErrorReport,
    IndexReport,
    MigrationReport,
    Outcome,
    RunReport,
    to_json,
)

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def test_an_event_reaches_its_sink() -> None:
    seen: list[Event] = []
    emit(seen.append, Warned(message="m"))
    assert seen == [Warned(message="m")]
    emit(None, Warned(message="m"))


def test_a_sink_that_raises_is_logged_and_forgiven(caplog: pytest.LogCaptureFixture) -> None:
    def broken(event: Event) -> None:
        raise ValueError("no")

    emit(broken, Warned(message="m"))
    assert [(record.levelno, record.getMessage()) for record in caplog.records] == [
        (logging.ERROR, "the event sink raised on Warned")
    ]


@pytest.mark.parametrize("module", [events, report])
def test_events_and_reports_are_frozen_values(module: object) -> None:
    values = [c for _, c in inspect.getmembers(module, inspect.isclass) if dataclasses.is_dataclass(c)]
    assert values
    assert [value for value in values if value.__dict__["__dataclass_params__"].frozen is not True] == []


def test_a_report_has_the_promised_keys() -> None:
    document = to_json(
        RunReport(
            outcome=Outcome.FAILED,
            database="app",
            migrations=(
                MigrationReport(
                    version="001",
                    name="a",
                    script="001_a.py",
                    state=MigrationState.FAILED,
                    seconds=1.23456,
                    error=StoredError(type="ValueError", message="no"),
                ),
            ),
            indexes=(
                IndexReport(
                    collection="pages",
                    name="ft",
                    type=IndexType.VECTOR,
                    state=IndexState.BUILDING,
                    queryable=False,
                    seconds=None,
                    reason="1 of 2 hosts",
                ),
            ),
            seconds=2.0004,
            error=ErrorReport(type="MigrationFailed", message="001_a.py failed", exit_code=1),
        )
    )
    assert document == {
        "outcome": "failed",
        "database": "app",
        "migrations": [
            {
                "version": "001",
                "name": "a",
                "script": "001_a.py",
                "state": "failed",
                "seconds": 1.235,
                "error": {"type": "ValueError", "message": "no"},
            }
        ],
        "indexes": [
            {
                "collection": "pages",
                "name": "ft",
                "type": "vectorSearch",
                "state": "building",
                "queryable": False,
                "seconds": None,
                "reason": "1 of 2 hosts",
            }
        ],
        "seconds": 2.0,
        "error": {"type": "MigrationFailed", "message": "001_a.py failed", "exit_code": 1},
    }
    assert json.loads(json.dumps(document)) == document


def test_aliases_and_what_verify_said_have_keys_of_their_own() -> None:
    migration = MigrationReport(version="1", name="a", script=None, state=MigrationState.APPLIED, verified=False)
    alias = AliasReport(alias="vec", collection="pages", index="vec_2", previous="vec_1", switched_at=NOON)
    document = to_json(RunReport(outcome=Outcome.UNVERIFIED, database="app", migrations=(migration,), aliases=(alias,)))
    assert document["migrations"][0]["verified"] is False
    assert document["aliases"] == [
        {
            "alias": "vec",
            "collection": "pages",
            "index": "vec_2",
            "previous": "vec_1",
            "switched_at": "2026-01-01T12:00:00+00:00",
            "state": None,
            "reason": None,
        }
    ]


def test_an_empty_report_says_that_there_is_no_error() -> None:
    document = to_json(RunReport(outcome=Outcome.OK, database=None))
    assert (document["error"], document["migrations"], document["indexes"]) == (None, [], [])
    assert "history" not in document


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), -float("inf")])
def test_what_is_no_number_of_seconds_never_makes_invalid_json(seconds: float) -> None:
    migration = MigrationReport(version="1", name="a", script=None, state=MigrationState.APPLIED, seconds=seconds)
    document = to_json(RunReport(outcome=Outcome.OK, database=None, migrations=(migration,), seconds=seconds))
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert (document["migrations"][0]["seconds"], document["seconds"]) == (None, 0.0)


def test_list_and_status_add_their_own_keys() -> None:
    migration = MigrationReport(
        version="001",
        name="a",
        script="001_a.py",
        state=MigrationState.APPLIED,
        surveyed=True,
        kind=ScriptKind.ASYNC,
        reversible=True,
        checksum="sha256:1",
        applied_at=NOON,
    )
    (document,) = to_json(RunReport(outcome=Outcome.OK, database="app", migrations=(migration,)))["migrations"]
    assert (
        document.items()
        >= {
            "kind": "async",
            "reversible": True,
            "checksum": "sha256:1",
            "applied_at": "2026-01-01T12:00:00+00:00",
        }.items()
    )


def test_the_history_is_there_where_it_was_asked_for() -> None:
    attempt = AttemptReport(
        version="001", direction="down", outcome="failed", started_at=NOON, finished_at=None, host="h", error=None
    )
    document = to_json(RunReport(outcome=Outcome.OK, database="app", history=(attempt,)))
    assert document["history"] == [
        {
            "version": "001",
            "direction": "down",
            "outcome": "failed",
            "started_at": "2026-01-01T12:00:00+00:00",
            "finished_at": None,
            "host": "h",
            "error": None,
        }
    ]


def test_the_outcomes_are_those_that_others_script_against() -> None:
    outcomes = {"ok", "failed", "not_ready", "planned", "interrupted", "unverified"}
    assert {outcome.value for outcome in Outcome} == outcomes


@pytest.mark.parametrize(("message", "text"), [("no room", "ValueError: no room"), ("", "ValueError")])
def test_an_error_is_shown_with_its_type(message: str, text: str) -> None:
    assert str(StoredError(type="ValueError", message=message)) == text
