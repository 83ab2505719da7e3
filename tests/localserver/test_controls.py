"""The record of commands and the faults, without a server: the calls that a server makes are made here."""

import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mydocs.localserver.control.clock import ManualClock, SystemClock
from mydocs.localserver.controls import CommandOutcome, Controls, Cut, Hung, Recorded
from mydocs.localserver.errors import CommandError

OK = {"ok": 1.0}
HELLO = {"hello": 1, "client": {"application": {"name": "tests"}}}


def run(controls: Controls, name: str = "find", *, connection: int = 1, body: dict[str, Any] | None = None) -> Recorded:
    """Do with one command what a server does."""
    recorded = controls.arrive(name, "db", body or {name: 1}, connection)
    controls.before(recorded)
    controls.after(recorded, OK)
    return recorded


def end(controls: Controls, name: str = "find", **more: Any) -> str:
    """Say how one command ends."""
    try:
        run(controls, name, **more)
    except Cut:
        return "cut"
    except CommandError as error:
        return str(error.code)
    return "ok"


def test_commands_are_numbered_without_handshake_monitoring_and_end() -> None:
    controls = Controls()
    names = ["hello", "isMaster", "ismaster", "saslStart", "saslContinue", "find", "buildInfo", "ping", "endSessions"]
    for name in names:
        run(controls, name)
    assert [recorded.name for recorded in controls.records()] == names
    assert [(recorded.number, recorded.name) for recorded in controls.counted()] == [(1, "find"), (2, "ping")]
    assert controls.counts() == {"find": 1, "ping": 1}


def test_the_record_says_who_sent_a_command_and_what_became_of_it() -> None:
    controls = Controls()
    run(controls, "hello", connection=7, body=HELLO)
    controls.error(11600, "going down", at=2)
    assert [end(controls, connection=7), end(controls, connection=7), end(controls, connection=8)] == [
        "ok",
        "11600",
        "ok",
    ]
    refused = controls.arrive("insert", "db", {}, 7)
    controls.after(refused, {"ok": 0.0, "code": 11000})
    controls.arrive("insert", "db", {}, 7)
    controls.gone(7)
    assert run(controls, connection=7).application is None
    assert [(recorded.application, recorded.outcome) for recorded in controls.counted()] == [
        ("tests", CommandOutcome.ANSWERED),
        ("tests", CommandOutcome.REFUSED),
        (None, CommandOutcome.ANSWERED),
        ("tests", CommandOutcome.REFUSED),
        ("tests", CommandOutcome.PENDING),
        (None, CommandOutcome.ANSWERED),
    ]


def test_a_cleared_record_begins_with_number_one() -> None:
    controls = Controls()
    early = controls.arrive("find", "db", {}, 1)
    controls.clear()
    controls.after(early, OK)
    assert run(controls).number == 1
    assert [recorded.number for recorded in controls.records()] == [1]
    assert controls.counts() == {"find": 1}


def test_the_oldest_records_go_and_the_counts_stay() -> None:
    controls = Controls(keep=2)
    for _ in range(3):
        run(controls)
    assert [recorded.number for recorded in controls.counted()] == [2, 3]
    assert controls.counts() == {"find": 3}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        pytest.param({}, "cut ok ok ok ok ok", id="the next one"),
        pytest.param({"at": 3}, "ok ok cut ok ok ok", id="the third from now"),
        pytest.param({"at": 2, "times": 3}, "ok cut cut cut ok ok", id="three in a row"),
        pytest.param({"times": None}, "cut cut cut cut cut cut", id="until it is removed"),
        pytest.param({"command": "update"}, "ok cut ok ok ok ok", id="by name"),
        pytest.param({"command": "update", "at": 2}, "ok ok ok cut ok ok", id="second of a name"),
        pytest.param({"when": lambda recorded: recorded.number == 6}, "ok ok ok ok cut ok", id="by a function"),
        pytest.param({"command": "hello"}, "ok ok ok ok ok cut", id="handshake, by name only"),
    ],
)
def test_a_fault_hits_the_commands_that_were_asked_for(options: dict[str, Any], expected: str) -> None:
    controls = Controls()
    end(controls)
    controls.cut_before(**options)
    names = ["find", "update", "find", "update", "find", "hello" if options.get("command") == "hello" else "find"]
    assert " ".join(end(controls, name) for name in names) == expected


def test_handshakes_are_not_hit_by_a_fault_that_names_no_command() -> None:
    controls = Controls()
    fault = controls.cut_before(times=None)
    assert [end(controls, "hello"), end(controls)] == ["ok", "cut"]
    fault.remove()
    assert end(controls) == "ok"
    assert fault.fired == 1


def test_a_cut_before_is_not_executed_and_a_cut_after_is() -> None:
    controls = Controls()
    controls.cut_before()
    with pytest.raises(Cut):
        controls.before(controls.arrive("insert", "db", {}, 1))
    controls.cut_after()
    recorded = controls.arrive("insert", "db", {}, 1)
    controls.before(recorded)
    with pytest.raises(Cut):
        controls.after(recorded, OK)
    assert [one.outcome for one in controls.counted()] == [CommandOutcome.CUT, CommandOutcome.CUT]


def test_a_hang_before_is_not_executed_and_a_hang_after_is() -> None:
    controls = Controls()
    controls.hang(command="insert", when=lambda recorded: recorded.connection_id == 2)
    assert run(controls, "insert", connection=1).connection_id == 1
    with pytest.raises(Hung):
        controls.before(controls.arrive("insert", "db", {}, 2))
    controls.hang(after=True)
    recorded = controls.arrive("insert", "db", {}, 2)
    controls.before(recorded)
    with pytest.raises(Hung):
        controls.after(recorded, OK)
    outcomes = [one.outcome for one in controls.counted()]
    assert outcomes == [CommandOutcome.ANSWERED, CommandOutcome.HUNG, CommandOutcome.HUNG]


def test_an_error_carries_its_labels() -> None:
    controls = Controls()
    controls.error(91, "shutting down", ["RetryableWriteError"])
    with pytest.raises(CommandError) as refused:
        run(controls)
    assert (refused.value.message, refused.value.labels) == ("shutting down", ("RetryableWriteError",))


def test_a_function_is_called_before_or_after_the_execution() -> None:
    controls, seen = Controls(), []
    controls.call(lambda recorded: seen.append(("before", recorded.number)), at=2)
    controls.call(lambda recorded: seen.append(("after", recorded.number)), command="insert", after=True)
    for name in ("find", "insert"):
        recorded = controls.arrive(name, "db", {}, 1)
        controls.before(recorded)
        seen.append((name, recorded.number))
        controls.after(recorded, OK)
    assert seen == [("find", 1), ("before", 2), ("insert", 2), ("after", 2)]


def in_thread(function: Any) -> threading.Thread:
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    return thread


def test_a_delay_lasts_until_its_event_and_holds_up_nobody_else() -> None:
    controls, event = Controls(), threading.Event()
    controls.delay(event, command="insert")
    thread = in_thread(lambda: run(controls, "insert"))
    controls.wait_for(lambda recorded: recorded.name == "insert")
    assert end(controls, "find") == "ok"
    assert thread.is_alive()
    event.set()
    controls.wait_for(lambda recorded: recorded.name == "insert" and recorded.outcome is CommandOutcome.ANSWERED)
    thread.join()


@pytest.mark.parametrize("delay", [3600.0, threading.Event()], ids=["seconds", "event"])
def test_a_server_that_stops_ends_all_delays(delay: float | threading.Event) -> None:
    controls = Controls()
    controls.delay(delay)
    thread = in_thread(lambda: run(controls))
    controls.wait_for(lambda recorded: True)
    controls.close()
    thread.join(5)
    assert not thread.is_alive()


def test_waiting_finds_what_has_come_and_what_comes_and_gives_up() -> None:
    controls = Controls()
    run(controls, "insert")
    assert controls.wait_for(lambda recorded: recorded.name == "insert").number == 1
    found: list[Recorded] = []
    thread = in_thread(lambda: found.append(controls.wait_for(lambda recorded: recorded.name == "drop")))
    run(controls, "find")
    run(controls, "drop")
    thread.join()
    assert [recorded.number for recorded in found] == [3]
    with pytest.raises(TimeoutError, match="'insert': 1"):
        controls.wait_for(lambda recorded: False, timeout=0.01)


def test_a_server_that_is_down_cuts_everything_the_handshake_too() -> None:
    controls, calls = Controls(), []
    controls.cut_all = lambda: calls.append("cut")
    under_way = controls.arrive("insert", "db", {}, 1)
    controls.before(under_way)
    controls.down()
    assert (controls.is_down, calls) == (True, ["cut"])
    with pytest.raises(Cut):
        controls.after(under_way, OK)
    assert end(controls, "hello") == "cut"
    controls.up()
    assert end(controls, "hello") == "ok"


@pytest.mark.parametrize(
    ("body", "labels"),
    [
        pytest.param({"find": "c"}, (), id="read"),
        pytest.param({"insert": "c", "txnNumber": 1}, ("RetryableWriteError",), id="write that a driver can repeat"),
        pytest.param({"insert": "c", "txnNumber": 1, "autocommit": False}, ("TransientTransactionError",), id="in txn"),
    ],
)
def test_during_an_election_there_is_no_primary(body: dict[str, Any], labels: tuple[str, ...]) -> None:
    controls = Controls()
    controls.election()
    assert controls.electing
    assert end(controls, "hello") == "ok"
    with pytest.raises(CommandError) as refused:
        run(controls, next(iter(body)), body=body)
    assert (refused.value.code, refused.value.labels) == (10107, labels)
    assert controls.counted()[0].outcome is CommandOutcome.REFUSED
    controls.end_election()
    assert end(controls) == "ok"


def test_all_faults_can_be_cleared_at_once() -> None:
    controls = Controls()
    controls.cut_before(times=None)
    controls.election()
    controls.down()
    controls.clear_faults()
    assert end(controls) == "ok"


def test_there_is_no_command_before_the_next() -> None:
    with pytest.raises(ValueError, match="number 1"):
        Controls().cut_before(at=0)


# -- the clock


@given(st.lists(st.floats(0, 1e6), max_size=5))
def test_a_clock_that_stands_still_moves_by_what_it_is_told(moves: list[float]) -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    clock = ManualClock(start)
    for move in moves:
        clock.advance(move)
    assert clock.monotonic() == pytest.approx(sum(moves))
    assert abs(clock.now() - start - timedelta(seconds=sum(moves))) < timedelta(milliseconds=2)
    assert clock.now().microsecond % 1000 == 0


def test_a_clock_that_is_set_back_still_counts_its_seconds_on() -> None:
    clock = ManualClock(datetime(2026, 1, 1, tzinfo=UTC))
    clock.set(datetime(2026, 1, 2, tzinfo=UTC))
    clock.set(datetime(2025, 1, 1, tzinfo=UTC))
    assert (clock.now().year, clock.monotonic()) == (2025, 86_400)
    with pytest.raises(ValueError, match="set"):
        clock.advance(-1)


@pytest.mark.parametrize("clock", [ManualClock(running=True), SystemClock()], ids=["manual", "system"])
def test_a_clock_that_runs_goes_with_real_time(clock: ManualClock | SystemClock) -> None:
    before = clock.monotonic()
    while clock.monotonic() == before:
        pass
    assert abs(clock.now() - datetime.now(UTC)) < timedelta(seconds=5)
    if isinstance(clock, ManualClock):
        clock.advance(3600)
        assert clock.now() - datetime.now(UTC) > timedelta(seconds=3590)
