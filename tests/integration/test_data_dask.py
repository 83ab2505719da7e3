"""A Dask cluster of two worker processes on loopback shares a walk, and goes on when one of them is killed."""

import asyncio
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from motor.motor_asyncio import AsyncIOMotorClient
from pymongo import MongoClient

from mydocs.localserver import LocalServer
from mydocs.localserver.controls import Recorded
from mydocs.migrations import migrate
from mydocs.migrations.data.workers import lanes_of
from mydocs.migrations.errors import SettingsInvalid
from mydocs.migrations.operations.executors import dask
from tests.conftest import Loop

Write = Callable[[str, str], Path]

SCRIPT = """
    import os
    from mydocs.migrations import transform

    def change(document):
        return {"$set": {"m": document["n"] + 1, "by": os.getpid()}, "$inc": {"times": 1}}

    async def up(db):
        await transform(db.things, {"m": {"$exists": False}}, change, batch_size=5, fields=("n",))
"""


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    """Start a cluster once: its processes import much."""
    distributed: Any = import_module("distributed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, host="127.0.0.1", silence_logs=50
    ) as cluster:
        yield cluster.scheduler_address


@pytest.mark.seconds(120)
def test_a_cluster_shares_a_walk_and_bears_the_death_of_a_worker(
    scheduler: str, local_server: LocalServer, folder: Path, write: Write
) -> None:
    write("001_things.py", SCRIPT)
    killed: list[int] = []

    def kill(recorded: Recorded) -> None:
        killed.append(recorded.body["updates"][0]["u"]["$set"]["by"])
        os.kill(killed[0], signal.SIGKILL)

    def is_update(recorded: Recorded) -> bool:
        return recorded.name == "update" and bool(recorded.body["update"] == "things")

    local_server.controls.call(kill, when=is_update, at=10)

    async def run(executor: Executor) -> None:
        client: AsyncIOMotorClient[dict[str, Any]] = AsyncIOMotorClient(local_server.url)
        await migrate(client["app"], directory=folder, standard_indexes={}, executor=executor)
        client.close()

    with MongoClient[dict[str, Any]](local_server.url) as client:
        things = client["app"]["things"]
        things.insert_many([{"_id": n, "n": n} for n in range(300)])
        with dask(scheduler) as executor, asyncio.Runner(loop_factory=Loop) as runner:
            assert lanes_of(executor, {}, None).count == 2  # type: ignore[arg-type]  # no script is needed for that
            runner.run(run(executor))
        found = list(things.find())
        assert [(each["m"], each["times"]) for each in found] == [(each["n"] + 1, 1) for each in found]
        by = Counter(each["by"] for each in found)
        assert os.getpid() not in by
        assert len(set(by) | set(killed)) >= 2


@pytest.mark.seconds(60)
def test_a_scheduler_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mydocs.migrations.operations.executors.CONNECT_SECONDS", 1)
    with (
        pytest.raises(SettingsInvalid, match=r"^--dask tcp://127.0.0.1:9: no scheduler answers there"),
        dask("tcp://127.0.0.1:9"),
    ):
        pass


def test_without_the_extra_the_option_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr("mydocs.migrations.operations.executors.import_module", absent)
    with pytest.raises(SettingsInvalid, match=r"pip install 'mydocs\[dask\]'"), dask("tcp://127.0.0.1:9"):
        pass
