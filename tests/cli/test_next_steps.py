"""Every error ends with what to type next."""

from pathlib import Path

import pytest

from mydocs.migrations.errors import (
    DirectoryMissing,
    IndexRefused,
    MigrationError,
    MigrationFailed,
    NotReady,
    SettingsInvalid,
    UnknownVersion,
)


def next_step(error: MigrationError) -> str | None:
    return error.next_step_after("run")


@pytest.mark.parametrize(("code", "says"), [(1, "correct the script"), (3, "server"), (5, "ready"), (6, "definition")])
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
