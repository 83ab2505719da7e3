"""Sharded clusters and slow secondaries, as far as stubs of them go."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pymongo.errors import OperationFailure

from mydocs.localserver import LocalServer
from mydocs.localserver.controls import Recorded
from mydocs.migrations import migrate, transform
from mydocs.migrations.data import cluster
from mydocs.migrations.data.cluster import Lag, lag_of
from mydocs.migrations.driver import commands
from mydocs.migrations.driver.client import Database
from mydocs.migrations.errors import NotPossible
from mydocs.migrations.reporting.events import Event, Warned
from mydocs.migrations.scripts.script_context import ScriptContext, current

pytestmark = pytest.mark.anyio

NOW = datetime(2026, 1, 1, tzinfo=UTC)
WITHOUT_M = {"m": {"$exists": False}}


def queries(server: LocalServer) -> list[dict[str, Any]]:
    commands = [r for r in server.controls.counted() if r.name == "update" and r.body["update"] == "things"]
    return [statement["q"] for r in commands for statement in r.body["updates"]]


@pytest.mark.parametrize("fields", [None, ("n",), ("tenant",)], ids=["whole", "fields", "the key itself"])
@pytest.mark.parametrize(
    ("key", "expected"),
    [
        pytest.param({"tenant": 1}, {"tenant": {"$eq": "a"}}, id="one field"),
        pytest.param(
            {"tenant": 1, "meta.day": "hashed", "gone": 1},
            {"tenant": {"$eq": "a"}, "meta.day": {"$eq": 3}, "gone": {"$eq": None}},
            id="several",
        ),
        pytest.param({"_id": "hashed"}, {}, id="_id"),
        pytest.param(None, {}, id="not sharded"),
    ],
)
async def test_an_update_carries_the_shard_key(
    any_db: Database, local_server: LocalServer, fields: Any, key: Any, expected: Any
) -> None:
    if key is not None:
        await any_db.client["config"]["collections"].insert_one({"_id": "app.things", "key": key})
    await any_db["things"].insert_one({"_id": 1, "n": 1, "tenant": "a", "meta": {"day": 3}})
    assert await transform(any_db["things"], WITHOUT_M, lambda d: {"$set": {"m": 1}}, fields=fields) == 1
    (query,) = queries(local_server)
    assert {name: value for name, value in query.items() if name not in ("_id", "$expr", "$and")} == expected


async def test_a_user_who_may_not_read_the_key_changes_documents_all_the_same(
    db: Database, local_server: LocalServer
) -> None:
    await db["things"].insert_one({"_id": 1})

    def is_config(recorded: Recorded) -> bool:
        return recorded.database == "config"

    local_server.controls.error(13, "not authorized on config to execute command", when=is_config)
    assert await transform(db["things"], WITHOUT_M, lambda d: {"$set": {"m": 1}}) == 1


def member(state: str, seconds: float) -> dict[str, Any]:
    return {"stateStr": state, "optimeDate": NOW - timedelta(seconds=seconds)}


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        pytest.param([member("PRIMARY", 0), member("SECONDARY", 3), member("SECONDARY", 12)], 12.0, id="the slowest"),
        pytest.param([member("PRIMARY", 5), member("SECONDARY", 3)], 0.0, id="a primary that is seen late"),
        pytest.param([member("PRIMARY", 0)], 0.0, id="alone"),
        pytest.param([member("SECONDARY", 3)], 0.0, id="no primary"),
        pytest.param([{"stateStr": "ARBITER"}, member("PRIMARY", 0), member("SECONDARY", 1)], 1.0, id="arbiter"),
    ],
)
def test_the_lag_is_that_of_the_slowest_secondary(members: Any, expected: float) -> None:
    assert lag_of({"members": members}) == expected


async def test_a_change_waits_until_secondaries_have_caught_up(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    lags, slept = [40, 20, 9, 0], [0]

    async def status(_: Database, body: Any) -> Any:
        assert body == {"replSetGetStatus": 1}
        return {"members": [member("PRIMARY", 0), member("SECONDARY", lags.pop(0))]}

    async def sleep(_: float) -> None:
        slept[0] += 1

    monkeypatch.setattr(commands, "command_again", status)
    monkeypatch.setattr(cluster, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr("mydocs.migrations.data.cluster.anyio.sleep", sleep)
    events: list[Event] = []
    token = current.set(ScriptContext(events.append))
    await Lag(db, "things", 10.0).bearable()
    assert (slept, lags) == ([2], [0])
    monkeypatch.setattr(cluster, "PATIENCE_SECONDS", -1.0)
    lags[:] = [60]
    with pytest.raises(NotPossible, match=r"still 60 s behind .* raise --max-lag"):
        await Lag(db, "things", 10.0).bearable()
    current.reset(token)
    assert [event.message for event in events if isinstance(event, Warned)] == [
        "things: a secondary is 40 s behind, the change waits until it is 10 s at most",
        "things: a secondary is 60 s behind, the change waits until it is 10 s at most",
    ]


async def test_a_lag_that_cannot_be_seen_is_a_warning(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refused(_: Database, body: Any) -> Any:
        raise OperationFailure("not authorized on admin", 13)

    monkeypatch.setattr(commands, "command_again", refused)
    events: list[Event] = []
    token = current.set(ScriptContext(events.append))
    lag = Lag(db, "things", 10.0)
    await lag.bearable()
    await lag.bearable()
    current.reset(token)
    (message,) = [event.message for event in events if isinstance(event, Warned)]
    assert message.startswith("things: the lag of secondaries cannot be seen, so nothing waits for them")


IN_A_PLAIN_SCRIPT = """
import asyncio
from motor.motor_asyncio import AsyncIOMotorClient
from mydocs.migrations import transform

async def main():
    client = AsyncIOMotorClient({url!r})
    await transform(client.app.things, {{"m": {{"$exists": False}}}}, lambda d: {{"$set": {{"m": 1}}}})
    client.close()

asyncio.run(main())
"""
IN_AN_ASYNC_SCRIPT = """
from mydocs.migrations import transform

async def up(db):
    await transform(db.things, {{"m": {{"$exists": False}}}}, lambda d: {{"$set": {{"m": 1}}}})
"""


@pytest.mark.parametrize("max_lag", [None, 10.0], ids=["no limit", "limit"])
@pytest.mark.parametrize("script", [IN_A_PLAIN_SCRIPT, IN_AN_ASYNC_SCRIPT], ids=["plain", "async"])
async def test_a_limit_of_the_lag_reaches_the_helpers_of_every_script(
    db: Database, local_server: LocalServer, tmp_path: Path, script: str, max_lag: float | None
) -> None:
    await db["things"].insert_one({"_id": 1})
    (tmp_path / "001_things.py").write_text(script.format(url=local_server.url))
    events: list[Event] = []
    await migrate(db, directory=tmp_path, standard_indexes={}, max_lag=max_lag, on_event=events.append)
    asked = local_server.controls.counts()["replSetGetStatus"]
    assert asked == (1 if max_lag else 0)
    # The local server has no secondaries and knows no such command.
    warned = [event.message for event in events if isinstance(event, Warned)]
    assert ["the lag of secondaries cannot be seen" in message for message in warned] == [True] * asked
    assert await db["things"].count_documents({"m": 1}) == 1
