"""Many runners at once on one database, some of them killed: each script runs once, everybody returns."""

import os
import random
import signal
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from motor.motor_asyncio import AsyncIOMotorDatabase

from mydocs.localserver import LocalServer
from mydocs.localserver.clock import ManualClock
from mydocs.localserver.controls import Recorded
from mydocs.migrations import migrate
from mydocs.migrations.ledger import entries as ledger

Database = AsyncIOMotorDatabase[dict[str, Any]]

SCRIPTS = 12
VERSIONS = [f"{number:03}" for number in range(1, SCRIPTS + 1)]


@pytest.fixture
def scripts(tmp_path: Path) -> Path:
    """A folder of async and plain scripts that each leave one document behind."""
    folder = tmp_path / "scripts"
    folder.mkdir()
    for version in VERSIONS:
        if int(version) % 3:
            text = f'async def up(db):\n    await db["runs"].insert_one({{"script": "{version}"}})\n'
        else:
            text = f'import lightodm\nlightodm.get_database()["runs"].insert_one({{"script": "{version}"}})\n'
        (folder / f"{version}_step.py").write_text(text)
    return folder


def start(server: LocalServer, scripts: Path) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-m", "mydocs", "migrate", "run", "--wait", "--dir", str(scripts)]
    arguments += ["--url", server.url, "--db", "test", "--output", "quiet"]
    return subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


async def end(process: subprocess.Popen[str]) -> tuple[int, str]:
    _, errors = await anyio.to_thread.run_sync(process.communicate)
    return process.returncode, errors


async def runs_of(db: Database) -> Counter[str]:
    return Counter([document["script"] async for document in db["runs"].find()])


@pytest.mark.anyio
@pytest.mark.seconds(120)
@pytest.mark.parametrize("count", [8, *(pytest.param(count, marks=pytest.mark.heavy) for count in (16, 32))])
async def test_of_many_processes_one_does_the_work(
    count: int, local_server: LocalServer, local_db: Database, scripts: Path
) -> None:
    processes = [start(local_server, scripts) for _ in range(count)]
    ends = [await end(process) for process in processes]
    assert [code for code, _ in ends] == [0] * count, ends
    assert await runs_of(local_db) == Counter(VERSIONS)


@pytest.mark.anyio
@pytest.mark.seconds(120)
@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.heavy) for seed in range(2, 10))])
async def test_processes_that_are_killed_are_succeeded(
    seed: int, local_server: LocalServer, local_clock: ManualClock, local_db: Database, scripts: Path
) -> None:
    """Two of eight die at a command drawn by chance; a lease that one of them held runs out, and another goes on."""
    chance = random.Random(seed)
    processes: list[subprocess.Popen[str]] = []
    victims = chance.sample(range(8), 2)
    ready = threading.Event()

    def kill_holder(_: Recorded) -> None:
        """Kill whoever holds the lease, or the drawn victim while nobody does."""
        ready.wait()
        victim = processes[victims.pop()]
        if victim.poll() is None:
            os.kill(victim.pid, signal.SIGKILL)
            victim.wait()

    for _ in range(2):
        local_server.controls.call(kill_holder, at=chance.randint(2, 60), after=True)
    processes += [start(local_server, scripts) for _ in range(8)]
    ready.set()

    # Nobody waits for the leases of the dead to run out: their processes can be seen to have ended.
    ends = [await end(process) for process in processes]

    assert {code for code, _ in ends} <= {0, -signal.SIGKILL}, ends
    runs = await runs_of(local_db)
    entries = {entry.version: entry for entry in (await ledger.read(local_db)).entries}
    for version in VERSIONS:
        assert entries[version].state == "applied"
        # An attempt that was killed may or may not have come as far as its one write.
        assert 1 <= runs[version] <= entries[version].attempts


@pytest.mark.anyio
@pytest.mark.seconds(60)
async def test_two_hundred_tasks_of_one_process_share_their_looks(
    local_server: LocalServer, local_db: Database, scripts: Path
) -> None:
    """The first script is held up until everybody has asked for the lease, so that all the others do wait."""
    tasks = 200
    gate = threading.Event()
    local_server.controls.delay(gate, command="insert")
    asked = lambda _: local_server.controls.counts()["findAndModify"] >= tasks  # noqa: E731
    reports = []

    async def replica() -> None:
        reports.append(await migrate(local_db, directory=scripts, wait=True))

    async with anyio.create_task_group() as group:
        for _ in range(tasks):
            group.start_soon(replica)
        await anyio.to_thread.run_sync(local_server.controls.wait_for, asked, 50.0)
        gate.set()
    assert len(reports) == tasks
    assert {report.outcome for report in reports} == {"ok"}
    assert await runs_of(local_db) == Counter(VERSIONS)
    commands = len(local_server.controls.counted())
    own = 2 * SCRIPTS + 12 + SCRIPTS  # the leader's own, and one of each script
    # A read and a try for the lease each; what they look at while they wait, they look at together.
    assert commands <= own + 3 * tasks, commands
