"""The runner as a library: what an application may do around it, and what a call leaves behind in its process."""

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import lightodm.connection
import pymongo.monitoring
import pytest
from motor.motor_asyncio import AsyncIOMotorClient
from pymongo import AsyncMongoClient

from mydocs.localserver import LocalServer
from mydocs.localserver.clock import ManualClock
from mydocs.localserver.controls import Recorded
from mydocs.migrations import (
    Event,
    IndexFailed,
    MigrationFailed,
    migrate,
    rollback,
    status,
    wait_for_indexes,
    wait_until_current,
    work_left,
)
from mydocs.migrations.driver import shared_looks as looks
from mydocs.migrations.driver.client import Database, client_of
from mydocs.migrations.errors import ServerUnreachable
from mydocs.migrations.limits import Limits, limited_to
from mydocs.migrations.reporting.events import IndexChanged
from mydocs.migrations.reporting.report import Outcome, RunFinished, RunReport

Write = Callable[[str, str], Path]

pytestmark = pytest.mark.anyio

ASYNC = """
    from pymongo.operations import SearchIndexModel
    from mydocs.migrations import drop_search_indexes, ensure_search_indexes
    async def up(db):
        await db["runs"].insert_one({"by": "async", "in": db.name})
        await ensure_search_indexes(db["pages"], [SearchIndexModel(name="ft", definition={"mappings": {}})])
    async def down(db):
        await drop_search_indexes(db["pages"], "ft")
"""
PLAIN = """
    import lightodm
    db = lightodm.get_database()
    db["runs"].insert_one({"by": "plain", "in": db.name})
"""


@pytest.fixture
def scripts(write: Write, folder: Path) -> Path:
    """An async script that makes a search index, and a plain one that asks lightodm for its database."""
    write("001_async.py", ASYNC)
    write("002_plain.py", PLAIN)
    return folder


@pytest.fixture(params=["motor", "pymongo"])
async def client(request: pytest.FixtureRequest, local_server: LocalServer) -> AsyncIterator[Any]:
    """A client of either driver, connected."""
    if request.param == "motor":
        motor: AsyncIOMotorClient[dict[str, Any]] = AsyncIOMotorClient(local_server.url)
        await motor["admin"].command("ping")
        yield motor
        motor.close()
    else:
        async with AsyncMongoClient[dict[str, Any]](local_server.url) as pymongo_client:
            await pymongo_client["admin"].command("ping")
            yield pymongo_client


async def runs(db: Database) -> list[tuple[str, str]]:
    # By their text: the ids of two processes have no order.
    return sorted([(document["by"], document["in"]) async for document in db["runs"].find()])


async def lease_is_free(db: Database) -> bool:
    lease = await db["_migrations_lock"].find_one({"_id": "lease"})
    return lease is None or lease["owner"] is None


def leases() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("mydocs-lease")]


def traces(db: Database) -> dict[str, Any]:
    """What of a process and of a client a call could leave changed."""
    for thread in leases():
        thread.join(5.0)  # it is told to end and not waited for
    listeners = client_of(db).options.pool_options._event_listeners  # noqa: SLF001
    return {
        "tasks": {task for task in asyncio.all_tasks() if "/pymongo/" not in repr(task)},
        "threads": leases(),
        "modules": {name for name in sys.modules if name.startswith("mydocs_migration")},
        "main": sys.modules["__main__"],
        "path": list(sys.path),
        "argv": list(sys.argv),
        "stdout": sys.stdout,
        "environment": dict(os.environ),
        "folder": str(Path.cwd()),
        "signals": {number: signal.getsignal(number) for number in signal.valid_signals()},
        "lightodm": (lightodm.connection.MongoConnection._instance, lightodm.connection._mongo_conn),  # noqa: SLF001
        "listeners of the client": list(listeners._EventListeners__command_listeners),  # noqa: SLF001
        "is listening": listeners.enabled_for_commands,
        "listeners of clients to come": list(pymongo.monitoring._LISTENERS.command_listeners),  # noqa: SLF001
        "shared looks": dict(looks._shared),  # noqa: SLF001
    }


# What an application may do


async def test_two_databases_at_once_each_get_their_own_scripts_and_their_own_lightodm(
    client: Any, scripts: Path
) -> None:
    reports: dict[str, RunReport] = {}

    async def run(name: str) -> None:
        reports[name] = await migrate(client[name], directory=scripts, wait=True)

    before = traces(client["a"])
    async with anyio.create_task_group() as group:
        group.start_soon(run, "a")
        group.start_soon(run, "b")
    for name in ("a", "b"):
        assert reports[name].outcome is Outcome.OK
        assert reports[name].database == name
        assert await runs(client[name]) == [("async", name), ("plain", name)]
    assert traces(client["a"]) == before


async def test_a_call_can_be_made_again_after_any_other(client: Any, scripts: Path, write: Write) -> None:
    db = client["app"]
    write("003_bad.py", "async def up(db): raise ValueError('not yet')")
    before = traces(db)
    with pytest.raises(MigrationFailed, match="not yet"):
        await migrate(db, directory=scripts, wait=True)
    write("003_bad.py", "async def up(db): pass\nasync def down(db): pass")
    await migrate(db, directory=scripts, wait=True)
    await rollback(db, directory=scripts)
    await migrate(db, directory=scripts, wait=True)
    await wait_until_current(db, directory=scripts)
    await wait_for_indexes(db)
    assert work_left(await status(db, directory=scripts)) == ()
    assert await runs(db) == [("async", "app"), ("plain", "app")]
    assert traces(db) == before


@pytest.mark.parametrize("anyio_backend", [pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop")])
async def test_it_runs_under_uvloop(client: Any, scripts: Path) -> None:
    assert type(asyncio.get_running_loop()).__module__ == "uvloop"
    report = await migrate(client["app"], directory=scripts, wait=True)
    assert report.outcome is Outcome.OK
    assert await runs(client["app"]) == [("async", "app"), ("plain", "app")]


async def test_an_error_in_a_task_group_is_one_error_and_no_group_in_itself(
    client: Any, scripts: Path, write: Write
) -> None:
    write("003_bad.py", "async def up(db): raise ValueError('bad')")
    with pytest.raises(ExceptionGroup) as caught:
        async with anyio.create_task_group() as group:
            group.start_soon(lambda: migrate(client["app"], directory=scripts))
    assert [type(error) for error in caught.value.exceptions] == [MigrationFailed]


async def test_the_callers_time_limit_ends_a_wait_and_is_the_callers_error(
    client: Any, scripts: Path, local_server: LocalServer
) -> None:
    local_server.search.outcome("ft", build_seconds=3600)
    db = client["app"]
    before = traces(db)
    waiting = asyncio.Event()
    ends: list[Outcome] = []

    def sink(event: Event) -> None:
        if isinstance(event, IndexChanged):
            waiting.set()
        elif isinstance(event, RunFinished):
            ends.append(event.report.outcome)

    async def expire() -> None:
        await waiting.wait()
        limit.reschedule(asyncio.get_running_loop().time())

    async with asyncio.TaskGroup() as group:
        group.create_task(expire())
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(None) as limit:
                await migrate(db, directory=scripts, wait=True, on_event=sink)
    assert ends == [Outcome.INTERRUPTED]
    assert traces(db) == before


@pytest.mark.seconds(90)
@pytest.mark.parametrize("every", [pytest.param(2, id="sample"), pytest.param(1, id="all", marks=pytest.mark.heavy)])
async def test_a_call_that_is_cancelled_at_any_command_leaves_nothing_behind_and_the_next_one_ends_the_work(
    client: Any, scripts: Path, local_server: LocalServer, every: int
) -> None:
    """The sample has every second command: the odd ones with Motor, the even ones with PyMongo."""
    loop = asyncio.get_running_loop()
    before = traces(client["app"])
    moment, ended = 0 if isinstance(client, AsyncMongoClient) else 1 - every, 0
    while not ended:
        moment += every
        db = client[f"app{moment}"]
        task = asyncio.create_task(migrate(db, directory=scripts, wait=True))

        def cancel(_: Recorded, task: asyncio.Task[RunReport] = task) -> None:
            loop.call_soon_threadsafe(task.cancel)

        fault = local_server.controls.call(cancel, at=moment)
        try:
            await task
        except asyncio.CancelledError:
            pass
        else:  # it was over before that command
            ended = moment
        fault.remove()
        assert traces(db) == before, moment
        assert await lease_is_free(db), moment
        report = await migrate(db, directory=scripts, wait=True)
        assert report.outcome is Outcome.OK, moment
        # A script may run twice, but not be left out, nor be run in another's database.
        assert set(await runs(db)) == {("async", db.name), ("plain", db.name)}, moment
    assert ended > 15  # commands of a run with two scripts and a wait


def test_an_application_without_logging_sees_nothing_printed(
    local_server: LocalServer, folder: Path, write: Write
) -> None:
    """In a process of its own: pytest sets logging up and takes the streams. A warning and a failure are at hand."""
    write("001_fails.py", "async def up(db): raise ValueError('bad')")
    program = """
        import asyncio, sys, warnings
        warnings.simplefilter("ignore", DeprecationWarning)  # Motor's, at its import
        from motor.motor_asyncio import AsyncIOMotorClient
        from mydocs.migrations import MigrationError, migrate

        async def main():
            client = AsyncIOMotorClient(sys.argv[1])
            await client["app"]["_migrations"].insert_one({"_id": "000", "state": "applied"})
            try:
                await migrate(client["app"], directory=sys.argv[2], wait=True)
            except MigrationError as error:
                return error.exit_code

        sys.exit(7 if asyncio.run(main()) == 1 else 0)
    """
    command = [sys.executable, "-c", textwrap.dedent(program), local_server.url, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (7, "", "")


async def test_events_say_of_which_database_and_which_run_they_are(client: Any, scripts: Path) -> None:
    seen: list[Event] = []
    await migrate(client["app"], directory=scripts, on_event=seen.append)
    assert {event.database for event in seen} == {"app"}
    (run,) = {event.run_id for event in seen}
    entry = await client["app"]["_migrations"].find_one({"_id": "001"})
    assert entry["run"]["id"] == run


# Plain scripts beside PyMongo's asynchronous driver


async def test_a_plain_script_logs_in_as_the_asynchronous_client_does(folder: Path, write: Write) -> None:
    write("001_plain.py", PLAIN)
    with LocalServer(user="app", password="s3cret/word") as server:
        async with AsyncMongoClient[dict[str, Any]](server.url, username="app", password="s3cret/word") as client:
            await client.aconnect()
            await migrate(client["app"], directory=folder, standard_indexes={})
            assert await runs(client["app"]) == [("plain", "app")]


async def test_where_the_client_cannot_be_made_again_a_plain_script_is_a_clear_error(
    local_server: LocalServer, folder: Path, write: Write
) -> None:
    write("001_plain.py", PLAIN)
    async with AsyncMongoClient[dict[str, Any]](local_server.url) as client:
        await client.aconnect()
        del client._init_kwargs  # noqa: SLF001  # as in a PyMongo that has renamed it
        with pytest.raises(
            Exception, match=r"the client cannot be made again there \(this PyMongo does not tell"
        ) as caught:
            await migrate(client["app"], directory=folder, standard_indexes={})
        assert await lease_is_free(client["app"])
    assert caught.value.exit_code == 2  # type: ignore[attr-defined]  # of the one tree


# Crowds and probes


def listings(server: LocalServer) -> int:
    return sum("$listSearchIndexes" in str(recorded.body) for recorded in server.controls.counted())


@pytest.mark.parametrize("outcome", ["ready", "failed"])
@pytest.mark.limits(failed=0.0)
async def test_tasks_that_wait_for_the_same_indexes_share_their_looks(
    client: Any,
    scripts: Path,
    local_server: LocalServer,
    local_clock: ManualClock,
    outcome: str,
) -> None:
    tasks = 100
    fails = {"fails": "out of space"} if outcome == "failed" else {}
    local_server.search.outcome("ft", build_seconds=3600, **fails)
    await migrate(client["app"], directory=scripts)
    local_server.controls.clear()
    waiting: set[int] = set()
    ends: list[str] = []

    async def replica(number: int) -> None:
        def sink(event: Event) -> None:
            if isinstance(event, IndexChanged) and not waiting >= {*range(tasks)}:
                waiting.add(number)
                if len(waiting) == tasks:
                    local_clock.advance(3601)

        try:
            await wait_for_indexes(client["app"], on_event=sink)
        except IndexFailed:
            ends.append("failed")
        else:
            ends.append("ready")

    async with anyio.create_task_group() as group:
        for number in range(tasks):
            group.start_soon(replica, number)
    assert Counter(ends) == {outcome: tasks}
    # Every half a second for all of them, while each alone would have looked twice at the least.
    assert listings(local_server) <= tasks // 2


async def test_a_probe_costs_one_command_and_one_for_each_collection_with_indexes(
    client: Any, scripts: Path, local_server: LocalServer
) -> None:
    local_server.search.outcome("ft", build_seconds=3600)
    await migrate(client["app"], directory=scripts)
    local_server.controls.clear()
    report = await status(client["app"], directory=scripts)
    assert local_server.controls.counts() == Counter({"aggregate": 2, "listIndexes": 2})
    assert work_left(report) == ("index pages.ft is building",)


async def test_a_probe_of_the_ledger_alone_costs_one_command(
    client: Any, scripts: Path, local_server: LocalServer
) -> None:
    before = await status(client["app"], directory=scripts, indexes=False)
    assert work_left(before)[:2] == ("001 is pending", "002 is pending")
    assert "index documents.status_1 is pending (not created yet)" in work_left(before)
    await migrate(client["app"], directory=scripts)
    local_server.controls.clear()
    report = await status(client["app"], directory=scripts, indexes=False)
    assert local_server.controls.counts() == Counter({"aggregate": 1})
    assert work_left(report) == ()


# Every end is one of the two that were promised


async def test_a_listing_that_never_comes_is_an_error_of_the_one_tree(
    client: Any, scripts: Path, local_server: LocalServer
) -> None:
    await migrate(client["app"], directory=scripts)
    local_server.controls.hang(when=lambda r: "$listSearchIndexes" in str(r.body), times=None)
    limits = Limits(answer=1.5, patience=3.0)
    with limited_to(limits), pytest.raises(ServerUnreachable, match="aggregate on pages has no answer") as caught:
        await wait_for_indexes(client["app"])
    assert caught.value.report is not None


async def test_an_error_that_is_none_of_ours_passes_and_the_last_event_says_that_it_failed(client: Any) -> None:
    seen: list[Event] = []

    class Broken(os.PathLike[str]):
        def __fspath__(self) -> str:
            raise LookupError("no path")

    broken: Any = Broken()
    with pytest.raises(LookupError, match="no path"):
        await migrate(client["app"], directory=broken, on_event=seen.append)
    assert isinstance(seen[-1], RunFinished)
    assert seen[-1].report.outcome is Outcome.FAILED
