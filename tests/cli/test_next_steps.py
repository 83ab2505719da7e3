"""Every error ends with what to type next."""

import inspect
from pathlib import Path

import pytest

from mydocs.cli.errors import EXIT_CODES
from mydocs.migrations import errors
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
    LedgerInvalid,
    MigrationError,
    MigrationFailed,
    NeedsDecision,
    NotAuthorised,
    NotPossible,
    NotReady,
    NotReversible,
    OutOfOrder,
    PlanError,
    ScriptsInvalid,
    SearchUnavailable,
    ServerError,
    ServerUnreachable,
    SettingsInvalid,
    UnknownVersion,
    WorkLeft,
)
from mydocs.migrations.model import LeaseView, MigrationState, Script, ScriptKind

SCRIPT = Script(number=3, version="003", name="a", path=Path("003_a.py"), checksum="", kind=ScriptKind.ASYNC)
HOLDER = LeaseView(host="h", pid=1, run_id="i", term=1, live=True, remaining=9.0)
ERRORS = [
    MigrationFailed("003_a.py", ", line 3", "ValueError"),
    ScriptsInvalid(["003_a.py is not valid Python"]),
    ChangedScripts(["003_a.py"]),
    OutOfOrder(["003"], "004"),
    NeedsDecision(SCRIPT, MigrationState.FAILED),
    NotReversible(["003_a.py has no down"]),
    PlanError("something else"),
    LedgerInvalid("_migrations", "'x'", "no version"),
    IndexConflict("pages", "in the way"),
    IndexRefused("pages", ["too many"]),
    ChangeInvalid("pages", 1, "the function returned int"),
    NotPossible("no transactions here"),
    UnknownVersion("9", ["001"]),
    ServerUnreachable("closed"),
    NotAuthorised("no"),
    CommandRefused("no", 1),
    SearchUnavailable("31082"),
    ServerError("down"),
    NotReady(["pages.ft"], 9.0),
    IndexFailed([("pages.ft", "no room")]),
    LeaseHeld(HOLDER, 9.0),
    LeaseLost(3),
    WorkLeft(["003 is pending"]),
    Interrupted(2),
]


def next_step(error: MigrationError) -> str | None:
    return error.next_step_after("run")


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_the_next_command_is_named_by_the_sentence_or_after_it(error: MigrationError) -> None:
    hint = next_step(error)
    assert "mydocs migrate" in f"{error} {hint}" or "the same command again" in str(hint)
    assert hint is None or "mydocs migrate" not in str(error)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("command", ["status", "list", "wait"])
def test_no_command_sends_its_reader_to_itself_alone(error: MigrationError, command: str) -> None:
    """What follows a failed `status` is not `mydocs migrate status`, unless there is more to do first."""
    hint = error.next_step_after(command) or ""
    assert not hint.startswith(f"`mydocs migrate {command}`") or ";" in hint


def test_no_error_is_left_out() -> None:
    classes = {c for c in vars(errors).values() if inspect.isclass(c) and issubclass(c, MigrationError)}
    leaves = {c for c in classes if not c.__subclasses__() and c.exit_code != 2}
    assert leaves - {type(error) for error in ERRORS} == set()


def test_every_exit_code_has_an_error_with_a_next_command() -> None:
    codes = {error.exit_code for error in ERRORS} | {Interrupted(15).exit_code}
    assert codes == EXIT_CODES.keys() - {0}


@pytest.mark.parametrize(("code", "says"), [(1, "mend the script"), (3, "server"), (5, "ready"), (6, "definition")])
def test_a_script_is_mended_only_where_it_was_the_script_that_failed(code: int, says: str) -> None:
    error = MigrationFailed("003_a.py", ", line 3", "OperationFailure: not authorized")
    error.exit_code = code
    assert says in str(next_step(error))


def test_an_error_of_ours_in_a_script_knows_better_what_is_to_be_done() -> None:
    error = MigrationFailed("003_a.py", ", line 3", "IndexRefused: no room")
    error.__cause__ = IndexRefused("pages", ["no room for index ft; drop an index"])
    assert next_step(error) == next_step(error.__cause__)


def test_a_sentence_of_ours_in_a_script_that_says_what_to_do_says_enough() -> None:
    error = MigrationFailed("003_a.py", ", line 3", "NotReady: pages.ft is building; `mydocs migrate wait` goes on")
    error.__cause__ = NotReady(["pages.ft"], 9.0)
    error.exit_code = 5
    assert next_step(error) is None


def test_a_script_that_must_not_run_twice_is_settled_by_hand() -> None:
    error = MigrationFailed("003_a.py", ", line 3", "ValueError", by_hand="003")
    assert "`mydocs migrate mark 003 --pending`" in str(error)
    assert next_step(error) is None


@pytest.mark.parametrize("error", [SettingsInvalid("--to x"), DirectoryMissing(Path("m"))], ids=["value", "folder"])
def test_a_wrong_option_is_mended_in_the_command_itself(error: MigrationError) -> None:
    assert next_step(error) is None
    assert "--" in str(error)


def test_many_versions_are_not_all_listed() -> None:
    text = str(UnknownVersion("9", [f"{number:03}" for number in range(1, 1001)]))
    assert text == "no migration 9; known are 001, 002, …, 999, 1000"
