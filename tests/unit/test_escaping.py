"""What comes from outside is shown and takes no effect: on a terminal, in a CI log, in JSON."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mydocs.migrations.reporting.escaping import harmless, harmless_json, visible

CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u2028\u2029]")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        pytest.param("plain\ttext\nöß€😀", "plain\ttext\nöß€😀", id="text"),
        pytest.param("\x1b[31mred\x1b[0m", "\\x1b[31mred\\x1b[0m", id="colour"),
        pytest.param("\x1b]0;title\x07", "\\x1b]0;title\\x07", id="title of the window"),
        pytest.param("\x1b]8;;http://x\x1b\\link", "\\x1b]8;;http://x\\x1b\\link", id="link"),
        pytest.param("\x9b31m", "\\x9b31m", id="C1"),
        pytest.param("50 %\r100 %", "50 %\\r100 %", id="carriage return"),
        pytest.param("a\u202eb\u2066c", "a\\u202eb\\u2066c", id="direction"),
        pytest.param("a\u2028b", "a\\u2028b", id="line separator"),
        pytest.param("\ud800", "\\ud800", id="half of a character"),
    ],
)
def test_control_characters_are_shown(text: str, shown: str) -> None:
    assert visible(text) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        pytest.param("::error::x", "\\x3a:error::x", id="command"),
        pytest.param(
            "first\n  ::stop-commands::x", "first\n  \\x3a:stop-commands::x", id="after spaces, on a later line"
        ),
        pytest.param("a::b and std::vector", "a::b and std::vector", id="colons inside a line"),
        pytest.param("x ##[stop-commands]y", "x \\x23#[stop-commands]y", id="old form"),
        pytest.param("##vso[task.setvariable]y", "\\x23#vso[task.setvariable]y", id="Azure"),
        pytest.param("## heading [x]", "## heading [x]", id="heading"),
    ],
)
def test_commands_of_a_workflow_are_shown(text: str, shown: str) -> None:
    assert harmless(text) == shown


@given(st.text())
def test_nothing_takes_effect(text: str) -> None:
    shown = harmless(text)
    assert not CONTROL.search(shown)
    assert "##[" not in shown
    assert not any(line.lstrip().startswith("::") for line in shown.splitlines())
    assert harmless(shown) == shown


@given(st.dictionaries(st.text(), st.text() | st.sampled_from(["##[x]", "\x9b", "\x7f", "\u202e"])))
def test_json_says_the_same_without_taking_effect(document: dict[str, str]) -> None:
    text = harmless_json(json.dumps(document, ensure_ascii=False))
    assert json.loads(text) == document
    assert not CONTROL.search(text)
    assert "##[" not in text
