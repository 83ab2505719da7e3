"""How a call ends that is cancelled, or whose own commands have no answer."""

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mydocs.localserver import LocalServer
from mydocs.localserver.controls import Recorded
from mydocs.migrations import migrate
from mydocs.migrations.driver.limits import Limits, limited_to
from mydocs.migrations.driver.mongo import Database
from mydocs.migrations.errors import ServerUnreachable
from mydocs.migrations.ledger import lease as leases
from mydocs.migrations.model import MigrationState

Write = Callable[[str, str], Path]

pytestmark = pytest.mark.anyio

TRIVIAL = """
    async def up(db):
        await db["runs"].insert_one({})
"""


def is_release(recorded: Recorded) -> bool:
    return recorded.body.get("update") == leases.COLLECTION and "owner" in str(recorded.body["updates"][0]["u"])


def is_record(recorded: Recorded, state: str) -> bool:
    return recorded.body.get("update") == "_migrations" and f"'{state}'" in str(recorded.body["updates"][0]["u"])


async def states(db: Database) -> dict[str, str]:
    return {entry["_id"]: entry["state"] async for entry in db["_migrations"].find()}


@pytest.mark.parametrize("fault", ["a release that takes long", "a release without an answer"])
async def test_a_time_limit_of_the_caller_that_comes_in_the_release_is_the_caller_s(
    any_db: Database, local_server: LocalServer, folder: Path, write: Write, fault: str
) -> None:
    write("001_a.py", TRIVIAL)
    gate, loop = threading.Event(), asyncio.get_running_loop()

    def expire() -> None:
        timeout.reschedule(loop.time())
        if fault == "a release that takes long":
            loop.call_later(0.02, gate.set)

    local_server.controls.call(lambda _: loop.call_soon_threadsafe(expire), when=is_release)
    local_server.controls.delay(gate, when=is_release)
    with limited_to(Limits(release=0.1)), pytest.raises(TimeoutError):
        async with asyncio.timeout(None) as timeout:
            await migrate(any_db, directory=folder, standard_indexes={})
    assert await states(any_db) == {"001": "applied"}


@pytest.mark.parametrize(
    ("state", "named", "shown"),
    [
        pytest.param("running", "the record that a starts", [MigrationState.PENDING], id="start"),
        pytest.param("applied", "the record that a has ended", [MigrationState.INTERRUPTED], id="end"),
    ],
)
async def test_a_record_without_an_answer_is_an_error_of_ours_with_a_report(
    any_db: Database,
    local_server: LocalServer,
    folder: Path,
    write: Write,
    state: str,
    named: str,
    shown: list[MigrationState],
) -> None:
    write("001_a.py", TRIVIAL)
    local_server.controls.delay(threading.Event(), when=lambda recorded: is_record(recorded, state), times=None)
    with limited_to(Limits(record=0.1)), pytest.raises(ServerUnreachable, match=named) as raised:
        await migrate(any_db, directory=folder, standard_indexes={})
    assert raised.value.exit_code == 3
    report: Any = raised.value.report
    assert [m.state for m in report.migrations] == shown
    assert (await leases_view(any_db))["owner"] is None


async def leases_view(db: Database) -> dict[str, Any]:
    found = await db[leases.COLLECTION].find_one({"_id": "lease"})
    assert found is not None
    return found
