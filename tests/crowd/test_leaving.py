"""How a run ends that is not let finish: by signals, a lost lease, a server that goes away. Real processes."""

import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from motor.motor_asyncio import AsyncIOMotorDatabase

from mydocs.localserver import LocalServer
from mydocs.localserver.clock import ManualClock
from mydocs.localserver.controls import Recorded
from mydocs.migrations import LeaseLost, migrate
from mydocs.migrations.ledger import entries as ledger
from mydocs.migrations.ledger import lease
from mydocs.migrations.limits import Limits, limited_to
from mydocs.migrations.model import Entry, MigrationState

Database = AsyncIOMotorDatabase[dict[str, Any]]
pytestmark = [pytest.mark.anyio, pytest.mark.seconds(180)]  # each starts several processes

# Each says through a command that it has begun, and then hangs on one that the test holds back.
ASYNC = """
    async def up(db):
        await db["began"].insert_one({})
        await db["held"].insert_one({})
        await db["after"].insert_one({})
"""
PLAIN = """
    import lightodm
    db = lightodm.get_database()
    db["began"].insert_one({})
    db["held"].insert_one({})
    db["after"].insert_one({})
"""
NEXT = """
    async def up(db):
        await db["next"].insert_one({})
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "scripts"
    path.mkdir()
    return path


def write(folder: Path, **scripts: str) -> None:
    for name, text in scripts.items():
        (folder / f"{name.removeprefix('v')}.py").write_text(textwrap.dedent(text))


class Runner:
    """A ``mydocs migrate`` process and how it ended."""

    def __init__(self, server: LocalServer, folder: Path, *arguments: str) -> None:
        command = [sys.executable, "-m", "mydocs", "migrate", *arguments, "--dir", str(folder)]
        command += ["--url", server.url, "--db", "test"]
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    async def end(self) -> tuple[int, str]:
        _, errors = await anyio.to_thread.run_sync(self.process.communicate)
        return self.process.returncode, errors


@pytest.fixture
def start(local_server: LocalServer, folder: Path) -> Iterator[Callable[..., Runner]]:
    """Start a ``mydocs migrate`` on the test's server and folder; none outlives the test."""
    started: list[Runner] = []

    def run(*arguments: str) -> Runner:
        started.append(Runner(local_server, folder, *arguments))
        return started[-1]

    yield run
    for runner in started:
        runner.process.kill()
        runner.process.wait()
        for stream in (runner.process.stdout, runner.process.stderr):
            if stream is not None:
                stream.close()


async def seen(server: LocalServer, predicate: Callable[[Recorded], bool]) -> None:
    await anyio.to_thread.run_sync(server.controls.wait_for, predicate, 30.0)


def on(collection: str, name: str = "insert") -> Callable[[Recorded], bool]:
    return lambda recorded: recorded.body.get(name) == collection


async def entry_of(db: Database, version: str) -> Entry | None:
    return next((entry for entry in (await ledger.read(db)).entries if entry.version == version), None)


async def lease_is_free(db: Database) -> bool:
    view = (await ledger.read(db)).lease
    return view is None or not view.live


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_a_signal_cancels_an_async_script_and_frees_the_lease(
    number: int, code: int, local_server: LocalServer, local_db: Database, folder: Path, start: Callable[..., Runner]
) -> None:
    write(folder, v001_hangs=ASYNC, v002_next=NEXT)
    gate = threading.Event()
    local_server.controls.delay(gate, when=on("held"))
    runner = start("run")
    await seen(local_server, on("held"))
    runner.process.send_signal(number)
    # Before the script's own command may end: cancellation does not wait for it.
    await seen(local_server, lambda r: r.name == "update" and '"Cancelled"' in _text(r))
    gate.set()
    assert (await runner.end())[0] == code
    entry = await entry_of(local_db, "001")
    assert entry is not None and entry.state is MigrationState.FAILED  # noqa: PT018
    assert entry.error is not None and entry.error.type == "Cancelled"  # noqa: PT018
    assert await entry_of(local_db, "002") is None
    assert await lease_is_free(local_db)
    assert await local_db["after"].count_documents({}) == 0


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_a_signal_interrupts_a_plain_script_and_starts_nothing_more(
    number: int, code: int, local_server: LocalServer, local_db: Database, folder: Path, start: Callable[..., Runner]
) -> None:
    write(folder, v001_hangs=PLAIN, v002_next=NEXT)
    gate = threading.Event()
    local_server.controls.delay(gate, when=on("held"))
    runner = start("run")
    await seen(local_server, on("held"))
    runner.process.send_signal(number)
    await seen(local_server, lambda r: r.name == "update" and '"Cancelled"' in _text(r))
    gate.set()
    assert (await runner.end())[0] == code
    entry = await entry_of(local_db, "001")
    assert entry is not None and entry.error is not None and entry.error.type == "Cancelled"  # noqa: PT018
    assert await local_db["after"].count_documents({}) == 0
    assert await entry_of(local_db, "002") is None
    assert await lease_is_free(local_db)


async def test_a_signal_between_two_scripts_leaves_no_trace_of_the_second(
    local_server: LocalServer, local_db: Database, folder: Path, start: Callable[..., Runner]
) -> None:
    write(folder, v001_first=NEXT, v002_next=NEXT)
    gate = threading.Event()

    def begins_the_second(recorded: Recorded) -> bool:
        return recorded.name == "update" and recorded.body["updates"][-1]["q"]["_id"] == "002"

    local_server.controls.delay(gate, when=begins_the_second)
    runner = start("run")
    await seen(local_server, begins_the_second)
    runner.process.send_signal(signal.SIGINT)
    assert runner.process.stderr is not None
    await anyio.to_thread.run_sync(_read_until, runner.process.stderr, "interrupted")
    gate.set()
    assert (await runner.end())[0] == 130
    entry = await entry_of(local_db, "001")
    assert entry is not None and entry.state is MigrationState.APPLIED  # noqa: PT018
    assert await entry_of(local_db, "002") is None
    assert await local_db["next"].count_documents({}) == 1
    assert await lease_is_free(local_db)


async def test_a_second_signal_leaves_at_once_with_the_entry_running(
    local_server: LocalServer, local_db: Database, folder: Path, start: Callable[..., Runner]
) -> None:
    write(folder, v001_hangs="import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n" + textwrap.dedent(PLAIN))
    gate = threading.Event()
    local_server.controls.delay(gate, when=on("held"))
    runner = start("run")
    await seen(local_server, on("held"))
    runner.process.send_signal(signal.SIGINT)
    assert runner.process.stderr is not None
    await anyio.to_thread.run_sync(_read_until, runner.process.stderr, "interrupted")
    while runner.process.poll() is None:  # again and again: two within a moment count as one
        runner.process.send_signal(signal.SIGINT)
        with anyio.move_on_after(0.2):
            await anyio.to_thread.run_sync(runner.process.wait, abandon_on_cancel=True)
    gate.set()
    assert runner.process.returncode == 130
    entry = await entry_of(local_db, "001")
    assert entry is not None and entry.state is MigrationState.RUNNING  # noqa: PT018


@pytest.mark.parametrize("kind", ["standard indexes", "waiting"])
async def test_a_signal_ends_an_index_build_or_a_wait(
    kind: str, local_server: LocalServer, local_db: Database, folder: Path, start: Callable[..., Runner]
) -> None:
    local_server.search.outcome("ft", build_seconds=3600)
    write(
        folder,
        v001_search="""
        from pymongo.operations import SearchIndexModel
        from mydocs.migrations import ensure_search_indexes
        async def up(db):
            await ensure_search_indexes(db["pages"], [SearchIndexModel({"mappings": {}}, name="ft")])
    """,
    )
    gate = threading.Event()
    if kind == "standard indexes":
        local_server.controls.delay(gate, command="createIndexes", times=None)
        until: Callable[[Recorded], bool] = lambda r: r.name == "createIndexes"  # noqa: E731
    else:
        until = lambda r: r.name == "aggregate" and local_server.controls.counts()["aggregate"] >= 5  # noqa: E731
    runner = start("run", "--wait")
    await seen(local_server, until)
    runner.process.send_signal(signal.SIGTERM)
    if kind == "standard indexes":
        await seen(local_server, lambda r: r.name == "update" and '"Cancelled"' in _text(r))
    gate.set()
    assert (await runner.end())[0] == 143
    assert await lease_is_free(local_db)


async def test_the_lease_is_taken_over_once_a_killed_holder_lets_it_run_out(
    local_server: LocalServer,
    local_clock: ManualClock,
    local_db: Database,
    folder: Path,
    start: Callable[..., Runner],
) -> None:
    write(folder, v001_hangs=ASYNC)
    gate = threading.Event()
    local_server.controls.delay(gate, when=on("held"))
    victim = start("run")
    await seen(local_server, on("held"))
    successor = start("run")
    await seen(local_server, lambda r: r.name == "findAndModify" and local_server.controls.counts()[r.name] >= 2)
    victim.process.kill()
    await victim.end()
    gate.set()
    local_clock.advance(lease.LEASE_SECONDS)
    code, errors = await successor.end()
    assert code == 0, errors
    entry = await entry_of(local_db, "001")
    assert entry is not None and entry.attempts == 2 and entry.run is not None and entry.run.term == 2  # noqa: PT018
    log = await ledger.read_log(local_db)
    assert [(attempt["version"], attempt["outcome"]) for attempt in log] == [("001", "interrupted")]


async def test_a_lease_is_taken_over_at_once_where_its_holder_can_be_seen_to_have_ended(
    local_server: LocalServer, local_db: Database, folder: Path, start: Callable[..., Runner]
) -> None:
    write(folder, v001_hangs=ASYNC)
    gate = threading.Event()
    local_server.controls.delay(gate, when=on("held"))
    victim = start("run")
    await seen(local_server, on("held"))
    victim.process.kill()
    await victim.end()
    gate.set()
    code, errors = await start("run").end()  # and the server's clock has not come near the end of the lease
    assert code == 0, errors
    assert f"pid {victim.process.pid}) has ended without giving it back; this run takes it over" in errors
    entry = await entry_of(local_db, "001")
    assert entry is not None and entry.attempts == 2 and entry.run is not None and entry.run.term == 2  # noqa: PT018


async def test_an_interrupted_script_that_must_not_run_twice_asks_for_a_decision(
    local_server: LocalServer,
    local_clock: ManualClock,
    local_db: Database,
    folder: Path,
    start: Callable[..., Runner],
) -> None:
    write(folder, v001_once="IDEMPOTENT = False\n" + textwrap.dedent(ASYNC))
    gate = threading.Event()
    local_server.controls.delay(gate, when=on("held"))
    victim = start("run")
    await seen(local_server, on("held"))
    victim.process.kill()
    await victim.end()
    gate.set()
    local_clock.advance(lease.LEASE_SECONDS)
    code, errors = await start("run").end()
    assert code == 1
    assert "mydocs migrate mark 001 --applied" in errors
    assert "mydocs migrate mark 001 --pending" in errors
    assert (await start("mark", "001", "--applied").end())[0] == 0
    assert (await start("run").end())[0] == 0
    assert await local_db["began"].count_documents({}) == 1


async def test_a_held_lease_is_shown_and_only_force_breaks_it(
    local_server: LocalServer, local_db: Database, folder: Path, start: Callable[..., Runner]
) -> None:
    write(folder, v001_hangs=ASYNC)
    gate = threading.Event()
    local_server.controls.delay(gate, when=on("held"))
    holder = start("run")
    await seen(local_server, on("held"))
    code, errors = await start("run", "--lock-timeout", "0").end()
    assert code == 7
    assert f"pid {holder.process.pid}" in errors
    code, errors = await start("unlock").end()
    assert code == 7
    assert f"pid {holder.process.pid}" in errors
    assert (await start("unlock", "--force").end())[0] == 0
    code, errors = await start("run").end()
    assert code == 0, errors
    gate.set()
    code, errors = await holder.end()
    assert code == 7, errors  # its record does not land on its successor's
    entry = await entry_of(local_db, "001")
    assert entry is not None and entry.state is MigrationState.APPLIED and entry.attempts == 2  # noqa: PT018


@pytest.mark.parametrize("kind", ["async", "plain"])
async def test_a_lost_lease_cancels_the_script_and_writes_nothing_more(
    kind: str, local_server: LocalServer, local_db: Database, folder: Path
) -> None:
    write(folder, v001_hangs=ASYNC if kind == "async" else PLAIN)
    gate = threading.Event()
    local_server.controls.delay(gate, when=on("held"))
    async with anyio.create_task_group() as group:

        async def steal() -> None:
            await seen(local_server, on("held"))
            await local_db[lease.COLLECTION].update_one(
                {"_id": "lease"}, {"$set": {"owner.id": "thief"}, "$inc": {"term": 1}}
            )

        group.start_soon(steal)
        with pytest.raises(LeaseLost) as raised, limited_to(Limits(renew_every=0.05)):
            await migrate(local_db, directory=folder)
    gate.set()  # only now: what the script does on its way out would be seen
    assert raised.value.exit_code == 7
    entry = await entry_of(local_db, "001")
    assert entry is not None and entry.state is MigrationState.RUNNING  # noqa: PT018
    view = (await ledger.read(local_db)).lease
    assert view is not None and view.run_id == "thief" and view.term == 2  # noqa: PT018
    assert await local_db["after"].count_documents({}) == 0


@pytest.mark.parametrize("at", [1, 2, 3, 5, 8, 13])
async def test_a_server_that_is_away_for_a_while_only_delays_a_run(
    at: int, local_server: LocalServer, local_db: Database, folder: Path
) -> None:
    write(folder, v001_next=NEXT, v002_next=NEXT, v003_next=NEXT)
    back = threading.Timer(2.0, local_server.controls.up)

    def go_away(_: Recorded) -> None:
        local_server.controls.down()
        back.start()

    local_server.controls.call(go_away, at=at)
    report = await migrate(local_db, directory=folder, wait=True)
    assert [migration.state for migration in report.migrations] == [MigrationState.APPLIED] * 3


async def test_an_election_only_delays_a_run(local_server: LocalServer, local_db: Database, folder: Path) -> None:
    write(folder, v001_next=NEXT)
    local_server.controls.call(lambda _: local_server.controls.election(2.0), at=4)
    assert (await migrate(local_db, directory=folder)).outcome == "ok"


def _text(recorded: Recorded) -> str:
    return str(recorded.body).replace("'", '"')


def _read_until(stream: Any, word: str) -> None:
    while word not in (line := stream.readline()):
        if not line:
            raise AssertionError(f"the process ended without saying {word!r}")
