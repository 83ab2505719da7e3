"""A dialect is rows of one table: what a server says of search indexes is told by code and text together."""

import pytest
from pymongo.errors import OperationFailure

from mydocs.migrations.driver import dialects, server_errors
from mydocs.migrations.driver.dialects import Meaning, Words

FULL = "The maximum number of FTS indexes has been reached for this instance size."


@pytest.mark.parametrize(
    ("code", "text", "meanings"),
    [
        pytest.param(20, FULL, {Meaning.NO_ROOM, Meaning.NAME_TAKEN}, id="full free cluster"),
        pytest.param(8000, FULL, {Meaning.NO_ROOM}, id="full cluster"),
        pytest.param(20, "Index already requested to be deleted", {Meaning.NAME_TAKEN, Meaning.GONE}, id="going"),
        pytest.param(68, "Duplicate Index", {Meaning.NAME_TAKEN}, id="name taken"),
        pytest.param(2, "numDimensions exceeds the limit of an index", set(), id="limit of a definition"),
        pytest.param(31082, "Using Atlas Search Database Commands …", {Meaning.NO_SEARCH}, id="mongod alone"),
        pytest.param(
            8000,
            "$listSearchIndexes is not allowed or the syntax is incorrect, see the Atlas documentation",
            {Meaning.NO_SEARCH},
            id="Atlas without search",
        ),
        pytest.param(8000, "user is not allowed to do action [listSearchIndexes]", set(), id="not allowed"),
        pytest.param(59, "no such command: 'createSearchIndexes'", {Meaning.NO_SEARCH, Meaning.UNKNOWN}, id="old"),
        pytest.param(59, "command not found", {Meaning.UNKNOWN}, id="unknown"),
        pytest.param(125, "Error connecting to Search Index Management service.", {Meaning.STARTING}, id="starting"),
        pytest.param(125, "cluster topology mismatch: x", set(), id="125 for something else"),
        pytest.param(27, "No index with name x exists in namespace db.c", {Meaning.GONE}, id="gone"),
        pytest.param(197, "An index's type cannot be changed", {Meaning.NOT_BY_UPDATE}, id="type"),
        pytest.param(125, '"mappings" is required', {Meaning.READ_AS_SEARCH}, id="local server of 8.0"),
    ],
)
def test_code_and_text_together_tell_what_a_server_means(code: int, text: str, meanings: set[Meaning]) -> None:
    assert {meaning for meaning in Meaning if dialects.says(code, text, meaning)} == meanings


def test_a_dialect_that_is_added_to_the_table_is_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    no_search = OperationFailure("nothing to seek here", 4711)
    full = OperationFailure("the shelf is full", 4712)
    assert not server_errors.is_no_search(no_search)
    rows = (
        Words(meaning=Meaning.NO_SEARCH, codes=(4711,)),
        Words(meaning=Meaning.NO_ROOM, codes=(4712,), text="shelf is full"),
    )
    monkeypatch.setitem(dialects.DIALECTS, "another engine", rows)
    assert server_errors.is_no_search(no_search)
    assert server_errors.says(full, Meaning.NO_ROOM)
    assert not server_errors.says(OperationFailure("the door is shut", 4712), Meaning.NO_ROOM)
    assert type(server_errors.as_migration_error(no_search)).__name__ == "SearchUnavailable"
