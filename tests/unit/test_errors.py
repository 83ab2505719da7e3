"""Each error says what, which one and what to do next, and carries its exit code."""

import inspect
from dataclasses import replace
from pathlib import Path

import pytest
from pymongo.errors import (
    AutoReconnect,
    ConfigurationError,
    InvalidURI,
    NetworkTimeout,
    OperationFailure,
    ServerSelectionTimeoutError,
)

from mydocs.cli.errors import EXIT_CODES
from mydocs.migrations import errors
from mydocs.migrations.driver import server_errors
from mydocs.migrations.errors import (
    ChangedScripts,
    ChangeInvalid,
    CommandRefused,
    DirectoryMissing,
    IndexConflict,
    IndexFailed,
    IndexRefused,
    Interrupted,
    LeaseHeld,
    LeaseLost,
    LedgerChanged,
    LedgerInvalid,
    MigrationError,
    MigrationFailed,
    NeedsDecision,
    NotAuthorised,
    NotPossible,
    NotReady,
    NotReversible,
    OutOfOrder,
    RenamedScripts,
    ScriptsInvalid,
    ScriptUnfinished,
    SearchUnavailable,
    ServerUnreachable,
    SettingsInvalid,
    SquashIncomplete,
    TimedOut,
    UnknownVersion,
    VectorsUnfit,
    VerifyFailed,
    WorkLeft,
    WouldFail,
    WouldTakeAway,
)
from mydocs.migrations.indexes.vectors import VectorReport
from mydocs.migrations.model import Entry, LeaseView, MigrationState, Script, ScriptKind
from mydocs.migrations.operations import status as survey

SCRIPT = Script(number=1, version="001", name="a", path=Path("001_a.py"), checksum="", source="", kind=ScriptKind.ASYNC)
ENTRY = Entry(version="002", name="a", script="002_a.py", checksum="", state=MigrationState.APPLIED)
HOLDER = LeaseView(host="web-1", pid=7, run_id="x", term=3, live=True, remaining=12.4)

EXAMPLES = [
    (ScriptsInvalid(["001_a.py is bad"]), 1, ["001_a.py"]),
    (ChangedScripts(["001_a.py"]), 1, ["001_a.py", "mydocs migrate repair", "--allow-changed"]),
    (RenamedScripts([(SCRIPT, ENTRY)]), 1, ["001_a.py has the text of 002_a.py", "mydocs migrate mark 001 --applied"]),
    (ScriptUnfinished([replace(SCRIPT, unfinished=7)]), 1, ["001_a.py, line 7", "NotImplementedError"]),
    (OutOfOrder(["001"], "002"), 1, ["001", "002", "--allow-out-of-order"]),
    (NeedsDecision(SCRIPT, MigrationState.FAILED), 1, ["001_a.py", "mark 001 --applied", "mark 001 --pending"]),
    (NotReversible(["001_a.py has no down"]), 1, ["001_a.py"]),
    (
        SquashIncomplete(SCRIPT, ["0001"], [("0002", MigrationState.FAILED)]),
        1,
        ["001_a.py", "0001 is applied", "missing: 0002 (failed)", "mark 001 --applied"],
    ),
    (LedgerChanged("001"), 1, ["the entry of 001 is gone", "mydocs migrate mark 001 --applied"]),
    (LedgerInvalid("_migrations", "'x'", "its state is 5"), 1, ["_migrations", "'x'", "correct or remove"]),
    (MigrationFailed("001_a.py", ", line 3", "ValueError: no"), 1, ["001_a.py", "line 3", "ValueError: no"]),
    (TimedOut(5.0), 1, ["longer than 5 s", "--script-timeout"]),
    (IndexConflict("pages", "x stands in the way"), 1, ["pages", "x stands in the way"]),
    (
        IndexRefused("pages", ["no room for ft"], others_created=True),
        1,
        ["pages", "no room for ft", "the other indexes of the call were created"],
    ),
    (ChangeInvalid("pages", 7, "a list is no update"), 1, ["pages", "_id 7", "a list is no update"]),
    (NotPossible("no transactions here"), 1, ["no transactions here"]),
    (DirectoryMissing(Path("/nowhere")), 2, ["/nowhere", "--dir", "MYDOCS_MIGRATIONS_DIR"]),
    (UnknownVersion("9", ["001"], None), 2, ["9", "001"]),
    (SettingsInvalid("no url"), 2, ["no url"]),
    (ServerUnreachable("timed out"), 3, ["timed out", "check the URL"]),
    (ServerUnreachable("restarting", search=True), 3, ["restarting", "mongot"]),
    (NotAuthorised("bad auth"), 3, ["bad auth", "roles"]),
    (CommandRefused("no", 5), 3, ["no", "(code 5)"]),
    (SearchUnavailable("31082"), 3, ["no search indexes", "--local"]),
    (NotReady(["pages.ft (building)"], 60), 5, ["pages.ft (building)", "60 s", "mydocs migrate wait"]),
    (IndexFailed([("pages.ft", "no analyzer")]), 6, ["pages.ft", "no analyzer", "new migration"]),
    (IndexFailed([("pages.ft", "it is gone")], gone=True), 6, ["pages.ft", "--pending"]),
    (LeaseHeld(HOLDER, 5.0), 7, ["web-1 (pid 7), term 3, 12 s left", "after 5 s", "mydocs migrate unlock"]),
    (LeaseLost(3), 7, ["term 3", "mydocs migrate status"]),
    (WorkLeft(["001 is pending"], [survey.RUN]), 8, ["001 is pending", "mydocs migrate run --wait"]),
    (WouldFail("001", "ValueError: no"), 1, ["001 fails on the copy", "ValueError: no", "nothing was changed"]),
    (WouldTakeAway(["001 drop index pages.ft"]), 8, ["001 drop index pages.ft", "nothing was changed"]),
    (VerifyFailed(["001_a.py, line 3: no such page"]), 9, ["001_a.py, line 3: no such page"]),
    (VectorsUnfit(VectorReport(collection="p", index="v", documents=1), "1 of p"), 9, ["1 of p", "correct these"]),
    (Interrupted(2), 130, ["what was done until then is recorded"]),
    (Interrupted(15), 143, ["is recorded"]),
]


@pytest.mark.parametrize(
    ("error", "exit_code", "says"), EXAMPLES, ids=[f"{type(e).__name__} {code}" for e, code, _ in EXAMPLES]
)
def test_an_error_says_what_which_and_what_next(error: MigrationError, exit_code: int, says: list[str]) -> None:
    text = str(error)
    assert error.exit_code == exit_code
    assert [part for part in says if part not in text] == []
    assert "\n" not in text


SEVERAL = [
    (ScriptsInvalid(["001_a.py is bad", "002_b.py, too"]), 2, 0),
    (ScriptUnfinished([replace(SCRIPT, unfinished=7), replace(SCRIPT, unfinished=8)]), 2, 0),
    (NotReversible(["001_a.py has no down", "002_b.py has none"]), 2, 0),
    (IndexConflict("pages", "a is there", "b is there", remedy="rename them"), 2, 1),
    (IndexRefused("pages", ["no room for ft", "no room for v"], others_created=True), 2, 1),
    (NotReady(["pages.a (building)", "pages.b (building)"], 60), 2, 1),
    (IndexFailed([("pages.a", "no analyzer"), ("pages.b", "no room")]), 2, 1),
    (WorkLeft(["001 is pending", "002 is pending", "pages.a is absent"], [survey.RUN]), 3, 1),
    (WouldTakeAway(["001 drop index pages.ft", "002 drop collection x"]), 2, 1),
    (VerifyFailed(["001_a.py, line 3: no", "002_b.py, line 4: no"]), 2, 0),
]


@pytest.mark.parametrize(("error", "count", "after"), SEVERAL, ids=[type(e).__name__ for e, _, _ in SEVERAL])
def test_several_problems_have_a_line_each(error: MigrationError, count: int, after: int) -> None:
    head, *lines = error.lines()
    assert head.endswith(":")
    assert [line.startswith("  ") for line in lines] == [True] * count + [False] * after
    assert [line for line in lines if line.strip() not in str(error)] == [], "no word is lost between the two forms"
    assert ";" not in "".join(lines[:count])


def test_an_error_without_files_marks_one_place_that_has_none() -> None:
    assert [(p.text, p.path, p.line) for p in LeaseLost(3).places()] == [(str(LeaseLost(3)), None, None)]


def test_one_problem_is_said_in_one_line() -> None:
    assert [error for error, _, _ in EXAMPLES if error.lines() != (str(error),)] == []


def test_a_failed_script_lists_the_problems_of_its_cause() -> None:
    failed = MigrationFailed("001_a.py", ", line 3", "IndexRefused: …", by_hand="001")
    failed.__cause__ = IndexRefused("pages", ["no room for ft", "no room for v"])
    head, *lines = failed.lines()
    assert head == "001_a.py failed, line 3: pages: the server refuses these indexes:"
    assert lines[:2] == ["  no room for ft", "  no room for v"]
    assert "mark 001 --applied" in lines[2]


def test_every_error_is_one_of_the_tree_and_has_an_example() -> None:
    defined = [c for _, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, Exception)]
    bases = {base for c in defined for base in c.__bases__}
    assert all(issubclass(c, MigrationError) for c in defined)
    assert set(defined) - bases == {type(error) for error, _, _ in EXAMPLES}


STOPPED = [error for error, code, _ in EXAMPLES if code != 2]  # a wrong option is corrected in the command itself


@pytest.mark.parametrize("error", STOPPED, ids=lambda error: type(error).__name__)
def test_what_to_do_is_named_by_the_sentence_or_after_it(error: MigrationError) -> None:
    hint = error.next_step_after("run")
    assert "mydocs migrate" in f"{error} {hint}" or "the same command again" in str(hint)
    assert hint is None or "mydocs migrate" not in str(error)


@pytest.mark.parametrize("error", STOPPED, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("command", ["status", "list", "wait"])
def test_no_command_sends_its_reader_to_itself_alone(error: MigrationError, command: str) -> None:
    """What follows a failed `status` is not `mydocs migrate status`, unless there is more to do first."""
    hint = error.next_step_after(command) or ""
    assert not hint.startswith(f"`mydocs migrate {command}`") or ";" in hint


def test_every_exit_code_has_an_error() -> None:
    assert {code for _, code, _ in EXAMPLES} == EXIT_CODES.keys() - {0}


def failure(code: int | None, text: str = "no") -> OperationFailure:
    return OperationFailure(text, code, {"errmsg": text, "ok": 0.0})


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        pytest.param(failure(13), NotAuthorised, id="13"),
        pytest.param(failure(18), NotAuthorised, id="18"),
        pytest.param(failure(8000, "bad auth : authentication failed"), NotAuthorised, id="login on Atlas"),
        pytest.param(failure(8000, "user is not allowed to do action [find]"), NotAuthorised, id="role on Atlas"),
        pytest.param(failure(8000, "maximum number of indexes reached"), CommandRefused, id="quota on Atlas"),
        pytest.param(failure(31082), SearchUnavailable, id="no mongot"),
        pytest.param(failure(115), SearchUnavailable, id="7.0 command"),
        pytest.param(failure(6047401), SearchUnavailable, id="7.0 stage"),
        pytest.param(
            failure(40324, "Unrecognized pipeline stage name: '$listSearchIndexes'"), SearchUnavailable, id="old stage"
        ),
        pytest.param(failure(40324, "Unrecognized pipeline stage name: '$x'"), CommandRefused, id="some unknown stage"),
        pytest.param(failure(59, "no such command: 'updateSearchIndex'"), SearchUnavailable, id="old command"),
        pytest.param(failure(59, "no such command: 'x'"), CommandRefused, id="some unknown command"),
        pytest.param(failure(73), SettingsInvalid, id="invalid namespace"),
        pytest.param(failure(91), ServerUnreachable, id="shutting down"),
        pytest.param(
            failure(125, "Error connecting to Search Index Management service."), ServerUnreachable, id="mongot is away"
        ),
        pytest.param(failure(125, "Error creating index"), CommandRefused, id="125 for another reason"),
        pytest.param(failure(None), CommandRefused, id="no code"),
        pytest.param(AutoReconnect("closed"), ServerUnreachable, id="connection lost"),
        pytest.param(NetworkTimeout("slow"), ServerUnreachable, id="timeout"),
        pytest.param(ServerSelectionTimeoutError("none"), ServerUnreachable, id="no server"),
        pytest.param(InvalidURI("bad"), SettingsInvalid, id="bad URL"),
        pytest.param(ConfigurationError("bad"), SettingsInvalid, id="bad option"),
    ],
)
def test_a_drivers_error_becomes_a_sentence_for_an_operator(raised: Exception, expected: type[MigrationError]) -> None:
    assert type(server_errors.as_migration_error(raised)) is expected


def test_an_error_of_other_making_is_not_dressed_up() -> None:
    assert server_errors.as_migration_error(ValueError("mine")) is None
    ours = LeaseLost(1)
    assert server_errors.as_migration_error(ours) is ours


def test_the_servers_sentence_is_told_without_the_drivers_dumps() -> None:
    refused = server_errors.as_migration_error(
        OperationFailure("no, full error: {...}", 5, {"errmsg": "no", "ok": 0.0})
    )
    assert str(refused) == "the server refused: no (code 5)"
    lost = server_errors.as_migration_error(
        ServerSelectionTimeoutError("h:1: refused, Timeout: 5s, Topology Description: <…>")
    )
    assert "Topology" not in str(lost)


@pytest.mark.parametrize(
    ("error", "transient"),
    [
        pytest.param(failure(10107), True, id="no primary"),
        pytest.param(failure(462), True, id="overload"),
        pytest.param(OperationFailure("x", 1, {"errorLabels": ["RetryableWriteError"]}), True, id="label"),
        pytest.param(failure(11000), False, id="duplicate key"),
        pytest.param(failure(13), False, id="not authorised"),
        pytest.param(AutoReconnect("x"), True, id="connection"),
        pytest.param(ValueError(), False, id="not the driver's"),
    ],
)
def test_only_what_may_pass_is_tried_again(error: Exception, transient: bool) -> None:
    assert server_errors.is_transient(error) is transient


@pytest.mark.parametrize(
    ("raised", "code"),
    [
        pytest.param(ValueError(), 1, id="the script's own"),
        pytest.param(failure(11000), 1, id="refused"),
        pytest.param(failure(13), 3, id="not authorised"),
        pytest.param(failure(59, "no such command: 'createSearchIndexes'"), 3, id="no search"),
        pytest.param(failure(59), 1, id="no such command"),
        pytest.param(AutoReconnect("x"), 3, id="unreachable"),
        pytest.param(NotReady(["ft"], 1), 5, id="not ready"),
        pytest.param(IndexFailed([("ft", "no")]), 6, id="index failed"),
        pytest.param(UnknownVersion("1", []), 1, id="a usage error inside a script"),
    ],
)
def test_a_scripts_error_has_the_exit_code_of_what_let_it_down(raised: Exception, code: int) -> None:
    assert server_errors.exit_code_of(raised) == code


def test_nobody_is_told_to_drop_a_search_index_that_answers() -> None:
    search = IndexConflict("pages", "the search alias vec names vec_1; let it name another index first")
    standard = IndexConflict("pages", "a_1 has other options", standard=True)
    assert [str(error.next_step_after("run")).partition(",")[0] for error in (search, standard)] == [
        "do in the migration what the message says",
        "drop or rename the index that is in the way",
    ]
