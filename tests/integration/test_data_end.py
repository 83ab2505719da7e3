"""When a data change is over: how many documents still match, and what that means."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pymongo
import pytest

from mydocs.localserver import LocalServer
from mydocs.localserver.controls import Recorded
from mydocs.migrations import migrate
from mydocs.migrations.driver.client import Database
from mydocs.migrations.reporting.events import DataChanged, Event, Warned
from mydocs.migrations.reporting.report import to_json

Write = Callable[[str, str], Path]

pytestmark = pytest.mark.anyio

TRANSFORM = 'await transform(db.things, {"m": {"$exists": False}}, change, batch_size=10)'
IN_BATCHES = 'await update_in_batches(db.things, {"m": {"$exists": False}}, {"$set": {"m": 1}}, batch_size=10)'
EVERY = "await transform(db.things, {}, change, batch_size=10)"
LEAVING = 'await transform(db.things, {"m": {"$exists": False}}, leave_some, batch_size=10)'
UNSET = 'await unset_field(db.things, "n", batch_size=10)'


def is_update(recorded: Recorded) -> bool:
    return recorded.name == "update" and bool(recorded.body["update"] == "things")


@pytest.mark.parametrize("shared", [False, True], ids=["one lane", "workers"])
@pytest.mark.parametrize(
    ("call", "old", "changed", "still"),
    [
        pytest.param(TRANSFORM, 0, 30, 0, id="nothing is left"),
        pytest.param(TRANSFORM, 3, 30, 3, id="the application writes the old form"),
        pytest.param(IN_BATCHES, 0, 30, 0, id="on the server"),
        pytest.param(IN_BATCHES, 2, 30, 2, id="on the server, and the application writes the old form"),
        pytest.param(UNSET, 2, 30, 2, id="a field that comes back"),
        pytest.param(EVERY, 3, 30, None, id="a filter that finds what is done"),
        pytest.param(LEAVING, 0, 20, 0, id="documents that were to stay"),
        pytest.param(LEAVING, 1, 20, 1, id="documents that were to stay, and one of the old form"),
    ],
)
async def test_a_change_that_is_over_says_how_many_documents_still_match(
    db: Database,
    local_server: LocalServer,
    folder: Path,
    write: Write,
    call: str,
    old: int,
    changed: int,
    still: int | None,
    shared: bool,
) -> None:
    await db["things"].insert_many([{"_id": n, "n": n} for n in range(30)])
    write(
        "001_things.py",
        f"""
        from mydocs.migrations import transform, unset_field, update_in_batches

        def change(document):
            return {{"$set": {{"m": document["n"]}}}}

        def leave_some(document):
            return None if document["n"] % 3 == 0 else {{"$set": {{"m": document["n"]}}}}

        async def up(db):
            {call}
        """,
    )
    seen = [0]

    def insert(_: Recorded) -> None:
        seen[0] += 1
        with pymongo.MongoClient[Any](local_server.url) as client:  # behind the walk
            client["app"]["things"].insert_many([{"_id": -seen[0] * 10 - n, "n": 1} for n in range(old)])

    if old:
        local_server.controls.call(insert, when=lambda r: is_update(r) and r.body["updates"] and not seen[0], at=1)
    events: list[Event] = []
    with ThreadPoolExecutor(1) as pool:
        executor = pool if shared else None
        report = await migrate(db, directory=folder, standard_indexes={}, executor=executor, on_event=events.append)
    (over,) = [event for event in events if isinstance(event, DataChanged)]
    assert (over.changed, over.still_matching) == (changed, still)
    warned = [event.message for event in events if isinstance(event, Warned)]
    assert any(
        "still match the filter after the change; most often the application" in each for each in warned
    ) == bool(still)
    (migration,) = to_json(report)["migrations"]
    assert migration["data"] == [{"collection": "things", "changed": changed, "still_matching": still}]
