"""
Break a whole run at every one of its commands, run again, and look whether anything was lost or done twice.

A run with scripts of each kind is counted on the wire first. Then, for every k, the k-th command is cut off before or
after its execution, or answered with an error that passes or one that does not, or never answered, or the runner is
killed there.

The marker ``heavy`` takes every command with every kind. What always runs is a sample: every third command for each
kind, another third for the next one, so that every command meets two of the six kinds.
"""

import asyncio
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio.to_thread
import pytest
from motor.motor_asyncio import AsyncIOMotorClient, AsyncIOMotorDatabase

from mydocs.localserver import LocalServer
from mydocs.localserver.clock import ManualClock
from mydocs.localserver.controls import Controls, Fault, Recorded
from mydocs.localserver.search import SearchSettings
from mydocs.migrations import MigrationError, migrate
from mydocs.migrations.ledger import entries as ledger
from mydocs.migrations.ledger.documents import COLLECTION as LEDGER
from mydocs.migrations.ledger.lease import LEASE_SECONDS
from mydocs.migrations.limits import Limits, limited_to

Database = AsyncIOMotorDatabase[dict[str, Any]]

pytestmark = [pytest.mark.anyio, pytest.mark.seconds(180)]

SLICES = 12  # each test takes every twelfth command, so that none takes long
SAMPLE = 3  # of so many slices one is in the sample
LOOKS = 4  # at the indexes, at the end of a run; a run may see them ready at the first, or one look later
VERSIONS = ["001", "002", "003", "004", "005"]

SCRIPTS = {
    "001_search.py": """
        from pymongo.operations import SearchIndexModel
        from mydocs.migrations import ensure_search_indexes
        async def up(db):
            await db["runs"].insert_one({"script": "001"})
            await ensure_search_indexes(db["pages"], [SearchIndexModel(name="ft", definition={
                "mappings": {"dynamic": False, "fields": {"content": {"type": "string"}}}})])
    """,
    "002_plain.py": """
        from lightodm import get_database
        from pymongo.operations import SearchIndexModel
        def run():
            db = get_database()
            db["runs"].insert_one({"script": "002"})
            if not list(db["pages"].list_search_indexes("vec")):
                db["pages"].create_search_index(model=SearchIndexModel(name="vec", type="vectorSearch", definition={
                    "fields": [{"type": "vector", "path": "e", "numDimensions": 3, "similarity": "cosine"}]}))
            print("created")
        if __name__ == "__main__":
            run()
    """,
    "003_standard.py": """
        from pymongo import IndexModel
        from mydocs.migrations import ensure_indexes
        async def up(db):
            await db["runs"].insert_one({"script": "003"})
            await ensure_indexes(db["pages"], [IndexModel("number"), IndexModel("title", unique=False)])
    """,
    "004_fails_once.py": """
        async def up(db):
            await db["runs"].insert_one({"script": "004"})
            before = await db["tries"].find_one_and_update({"_id": 1}, {"$inc": {"n": 1}}, upsert=True)
            if before is None:
                raise ValueError("the first try fails")
    """,
    "005_update.py": """
        from pymongo.operations import SearchIndexModel
        from mydocs.migrations import ensure_search_indexes
        async def up(db):
            await db["runs"].insert_one({"script": "005"})
            await ensure_search_indexes(db["pages"], [SearchIndexModel(name="ft", definition={
                "mappings": {"dynamic": False, "fields": {"content": {"type": "string"},
                                                          "title": {"type": "string"}}}})])
    """,
}


@pytest.fixture
def scripts(tmp_path: Path) -> Path:
    """A folder with a script of each kind."""
    folder = tmp_path / "scripts"
    folder.mkdir()
    for name, text in SCRIPTS.items():
        lines = text.strip("\n").splitlines()
        (folder / name).write_text("\n".join(line.removeprefix(" " * 8) for line in lines) + "\n")
    return folder


@dataclass(frozen=True)
class Bench:
    server: LocalServer
    clock: ManualClock
    db: Database


@asynccontextmanager
async def bench() -> AsyncIterator[Bench]:
    """A new server whose index builds are done at once, and a database on it."""
    clock = ManualClock(running=True)
    with LocalServer(clock=clock, search=SearchSettings(build_seconds=0.0, pending_seconds=0.0)) as server:
        client: AsyncIOMotorClient[dict[str, Any]] = AsyncIOMotorClient(server.url, tz_aware=True)
        try:
            yield Bench(server, clock, client["app"])
        finally:
            client.close()


async def run(db: Database, scripts: Path) -> MigrationError | None:
    """Run everything once and return what it raised."""
    try:
        await migrate(db, directory=scripts, wait=True, lock_timeout=40, timeout=15)
    except MigrationError as error:
        return error
    return None


async def run_to_the_end(db: Database, scripts: Path) -> None:
    """Run as often as an operator would: the one script fails once, and its failure may have been broken off."""
    errors = [error for _ in range(3) if (error := await run(db, scripts)) is not None]
    assert len(errors) < 3, f"three clean runs were not enough: {errors}"


async def runs_of(db: Database) -> Counter[str]:
    return Counter([document["script"] async for document in db["runs"].find()])


async def applied(db: Database) -> set[str]:
    return {entry["_id"] async for entry in db[LEDGER].find({"state": "applied", "_id": {"$ne": "standard"}})}


async def check_invariants(db: Database, known_applied: set[str], runs_then: Counter[str]) -> None:
    """What has to hold after any fault and clean runs after it."""
    runs = await runs_of(db)
    entries = {entry["_id"]: entry async for entry in db[LEDGER].find()}
    assert {version: entry["state"] for version, entry in entries.items()} == dict.fromkeys(
        ["standard", *VERSIONS], "applied"
    )
    assert all(runs[version] >= 1 for version in VERSIONS), "recorded, and did not run"
    for version in known_applied:
        assert runs[version] == runs_then[version], f"{version} ran again although it was recorded as applied"
    lease = (await ledger.read(db)).lease
    assert lease is not None
    assert not lease.live, "the lease was left behind"
    listing = await db["pages"].aggregate([{"$listSearchIndexes": {}}]).to_list(None)
    assert {index["name"]: index["status"] for index in listing} == {"ft": "READY", "vec": "READY"}
    fields = next(index for index in listing if index["name"] == "ft")["latestDefinition"]["mappings"]["fields"]
    assert set(fields) == {"content", "title"}
    standard = {index["name"] async for index in db["pages"].list_indexes()}
    assert {"number_1", "title_1", "document_id_1"} <= standard


@pytest.fixture
def covered(record_property: Callable[[str, object], None]) -> Iterator[Counter[str]]:
    """Faults by kind; their sum over all tests is printed at the end."""
    counts: Counter[str] = Counter()
    yield counts
    record_property("faults", dict(counts))


counted: list[int] = []  # by the first test of a process, for all of them


@pytest.fixture
async def commands(scripts: Path) -> int:
    """How many commands two runs take that nothing disturbs: one up to the script that fails, and the rest."""
    if not counted:
        async with bench() as b:
            await run_to_the_end(b.db, scripts)
            counted.append(len(b.server.controls.counted()))
            await check_invariants(b.db, set(), Counter())
    return counted[0]


FAULTS: dict[str, Callable[[Controls, int], Fault]] = {
    "cut before": lambda controls, k: controls.cut_before(at=k),
    "cut after": lambda controls, k: controls.cut_after(at=k),
    "passing error": lambda controls, k: controls.error(91, "shutting down", ["RetryableWriteError"], at=k),
    "lasting error": lambda controls, k: controls.error(13, "not authorized on app", at=k),
}
KINDS = [*FAULTS, "silence", "SIGKILL"]


def slices(*kinds: str) -> pytest.MarkDecorator:
    """Give a test the sample of each kind, and, under the marker ``heavy``, all of it."""
    params = []
    for kind in kinds:
        sample = range(KINDS.index(kind) % SAMPLE, SLICES, SAMPLE)
        params += [pytest.param(kind, part, id=f"{kind}-sample-{part}") for part in sample]
        params += [pytest.param(kind, part, id=f"{kind}-all-{part}", marks=pytest.mark.heavy) for part in range(SLICES)]
    return pytest.mark.parametrize(("kind", "part"), params)


@slices(*FAULTS)
async def test_nothing_is_lost_or_done_twice_after_a_fault_at_any_command(
    kind: str, part: int, scripts: Path, commands: int, covered: Counter[str]
) -> None:
    for k in range(1 + part, commands + 1, SLICES):
        async with bench() as b:
            injected = FAULTS[kind](b.server.controls, k)
            error: MigrationError | None = None
            while not injected.fired:  # the first run ends with the script that fails, later faults hit the second
                error = await run(b.db, scripts)
            assert error is None or error.exit_code in (1, 3), f"command {k}: {error!r}"
            known, runs_then = await applied(b.db), await runs_of(b.db)
            b.clock.advance(LEASE_SECONDS + 1)  # where the release was what failed, the lease runs out by itself
            await run_to_the_end(b.db, scripts)
            await check_invariants(b.db, known, runs_then)
            covered[kind] += 1


# A second of silence stands for the half minute of a real run, and nothing is tried again.
IMPATIENT = Limits(answer=1.0, retries=0.0, release=1.0, grace=1.0)


def may_wait_for_ever(recorded: Recorded) -> bool:
    """Whether a command is a script's own, or builds an index; only a cancellation ends the wait for those."""
    own = recorded.body.get(recorded.name) in ("runs", "tries") or "'vec'" in str(recorded.body)
    return own or recorded.name == "createIndexes"


async def run_into_silence(b: Bench, scripts: Path, k: int) -> MigrationError | None:
    """Run until the k-th command has had no answer, and cancel the run where nothing else ends it."""
    loop = asyncio.get_running_loop()
    under_way: list[asyncio.Task[MigrationError | None]] = []
    cancelled: list[Recorded] = []

    def cancel(recorded: Recorded) -> None:
        cancelled.append(recorded)
        loop.call_soon_threadsafe(under_way[-1].cancel)

    b.server.controls.call(lambda recorded: cancel(recorded) if may_wait_for_ever(recorded) else None, at=k)
    fault = b.server.controls.hang(at=k)
    error: MigrationError | None = None
    while not fault.fired:
        with limited_to(IMPATIENT):
            under_way.append(asyncio.ensure_future(run(b.db, scripts)))
        try:
            error = await under_way[-1]
        except asyncio.CancelledError:
            assert cancelled
    return error


@slices("silence")
async def test_nothing_is_lost_or_done_twice_after_silence_at_any_command(
    kind: str, part: int, scripts: Path, commands: int, covered: Counter[str]
) -> None:
    for k in range(1 + part, commands + 1, SLICES):
        async with bench() as b:
            error = await run_into_silence(b, scripts, k)
            assert error is None or error.exit_code in (1, 3), f"command {k}: {error!r}"
            if error is not None and error.exit_code == 3:
                assert "has no answer within" in str(error), f"command {k}: {error!r}"
            known, runs_then = await applied(b.db), await runs_of(b.db)
            b.clock.advance(LEASE_SECONDS + 1)
            await run_to_the_end(b.db, scripts)
            await check_invariants(b.db, known, runs_then)
            covered[kind] += 1


@slices("SIGKILL")
async def test_nothing_is_lost_or_done_twice_after_a_kill_at_any_command(
    kind: str, part: int, scripts: Path, commands: int, covered: Counter[str]
) -> None:
    for k in range(1 + part, commands + 1, SLICES):
        async with bench() as b:
            killed = await _run_and_kill(b, scripts, k)
            assert killed or k > commands - LOOKS, f"neither run came to its command {k}"
            known, runs_then = await applied(b.db), await runs_of(b.db)
            b.clock.advance(LEASE_SECONDS + 1)
            await run_to_the_end(b.db, scripts)
            await check_invariants(b.db, known, runs_then)
            covered[kind] += killed


async def _run_and_kill(b: Bench, scripts: Path, k: int) -> bool:
    """
    Start the command line as a process, twice if the first run ends before, and kill it at its k-th command.

    That command is executed and not answered, so what follows meets every state that a kill can leave behind.
    """
    process: subprocess.Popen[bytes] | None = None

    def kill(recorded: Recorded) -> None:
        assert process is not None
        os.kill(process.pid, signal.SIGKILL)
        process.wait()

    b.server.controls.call(kill, at=k, after=True)
    arguments = [sys.executable, "-m", "mydocs", "migrate", "run", "--wait", "--dir", str(scripts)]
    arguments += ["--url", b.server.url, "--db", "app", "--output", "quiet"]
    for _ in range(2):
        process = subprocess.Popen(arguments, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)  # noqa: ASYNC220
        _, errors = await anyio.to_thread.run_sync(process.communicate)
        if process.returncode == -signal.SIGKILL:
            return True
        # Only the script that is meant to fail may end the first run, and nothing the second.
        assert process.returncode == 0 or b"the first try fails" in errors, errors
    return False
