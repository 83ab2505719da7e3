"""Commands that make no sense are refused with a code; none of them breaks the server."""

from contextlib import closing
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mydocs.localserver.commands.handshake import Greeting, Login
from mydocs.localserver.commands.table import COMMANDS, GENERIC, Command
from mydocs.localserver.control.clock import SystemClock
from mydocs.localserver.control.controls import Controls
from mydocs.localserver.engine import Engine

ODD: st.SearchStrategy[Any] = st.sampled_from([
    None, True, 1, -1, 1.5, "x", "", {}, {"a": 1}, {"$a": 1}, {"": 1}, {"w": "x"}, {"level": 1}, {"batchSize": "x"},
    [], [1], ["x"], [{}], [{"q": 1, "limit": 0}], [{"q": {}, "u": 1}], [{"q": {}, "u": {"$set": 1}}], [{"$a": 1}],
    [{"key": 1}], [{"key": {"a": 1}, "name": 1}], [{"key": {"a": True}}], {"name": 1}, {"id": 1}, {"locale": 1},
])  # fmt: skip


def sensible(kind: str) -> Any:
    return {"string": "a", "array": [], "objects": [], "object": {}, "number": 1, "bool": False}.get(kind, 1)


@pytest.mark.parametrize("name", sorted(name for name, command in COMMANDS.items() if isinstance(command, Command)))
@settings(max_examples=60)
@given(data=st.data())
def test_an_odd_command_is_answered_with_a_code(name: str, data: st.DataObject) -> None:
    command = COMMANDS[name]
    assert isinstance(command, Command)
    body: dict[str, Any] = {name: data.draw(st.sampled_from(["a", "a", "a", "", 1, None]))}
    body |= {field: sensible(kind[:-1]) for field, kind in command.fields.items() if kind.endswith("!")}
    more = sorted(
        {*command.fields, *GENERIC, "indexes", "definition", "name"} - {"*", "startTransaction", "autocommit"}
    )
    body |= data.draw(st.dictionaries(st.sampled_from(more), ODD, max_size=3))
    with closing(Engine(None, SystemClock(), None, None, Controls())) as engine:
        greeting = Greeting(engine, "d", Login(), 1, "")
        engine.run("insert", "d", {"insert": "a", "documents": [{"_id": 1, "a": [1, {"b": 2}]}]}, greeting)
        reply = engine.run(name, "d", body, greeting)
    assert reply["ok"] == 1.0 or (reply["code"] > 1 and reply["errmsg"])
    engine.close()
