"""Workers: each document has the new value once, whoever dies, freezes or comes late."""

import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anyio
import bson
import pytest
from bson import MaxKey, MinKey, ObjectId

from mydocs.localserver import LocalServer
from mydocs.localserver.clock import ManualClock
from mydocs.localserver.controls import Recorded
from mydocs.migrations import MigrationFailed, migrate, run_range
from mydocs.migrations.data import workers
from mydocs.migrations.data.processes import Processes, WorkerDied
from mydocs.migrations.data.range_worker import Connection, FunctionAt, Kept, RangeDone, RangeTask
from mydocs.migrations.driver.client import Database
from mydocs.migrations.reporting.events import BatchDone, Event, Warned

Write = Callable[[str, str], Path]
Pool = Callable[[], Executor]

pytestmark = [pytest.mark.anyio, pytest.mark.seconds(60)]  # processes import the driver, which takes a second each

SCRIPT = """
    import os
    from mydocs.migrations import transform

    def change(document):
        return {"$set": {"m": document["n"] + 1, "by": os.getpid()}, "$inc": {"times": 1}}

    async def up(db):
        await transform(db.things, {"m": {"$exists": False}}, change, batch_size=5, fields=("n",))
"""


async def numbered(db: Database, count: int) -> None:
    await db["things"].insert_many([{"_id": n, "n": n} for n in range(count)])


async def documents(db: Database) -> list[dict[str, Any]]:
    return await db["things"].find().sort("_id", 1).to_list(None)


def is_update(recorded: Recorded) -> bool:
    return recorded.name == "update" and bool(recorded.body["update"] == "things")


def check_done(found: list[dict[str, Any]], count: int) -> None:
    assert [(each["m"], each["times"]) for each in found] == [(each["n"] + 1, 1) for each in found]
    assert len(found) == count


def hold_until_both_work(server: LocalServer) -> None:
    """Hold updates back until two workers have sent some, so that one that starts late has something left to do."""
    by: set[int] = set()
    both = threading.Event()

    def note(recorded: Recorded) -> None:
        by.add(recorded.body["updates"][0]["u"]["$set"]["by"])
        if len(by) == 2:
            both.set()

    server.controls.call(note, when=is_update, times=None)
    server.controls.delay(both, when=is_update, times=None)


@pytest.fixture
def processes() -> Iterator[Processes]:
    pool = Processes(2)
    yield pool
    pool.shutdown(cancel_futures=True)


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as pool:
        yield pool


# -- sharing


async def test_a_walk_is_shared_among_processes(
    any_db: Database, local_server: LocalServer, folder: Path, write: Write, processes: Processes
) -> None:
    await numbered(any_db, 400)
    write("001_things.py", SCRIPT)
    hold_until_both_work(local_server)
    events: list[Event] = []
    await migrate(any_db, directory=folder, standard_indexes={}, executor=processes, on_event=events.append)
    found = await documents(any_db)
    check_done(found, 400)
    by = Counter(document["by"] for document in found)
    assert len(by) == 2
    assert os.getpid() not in by
    batches = [event for event in events if isinstance(event, BatchDone)]
    assert (batches[-1].done, batches[-1].total) == (400, 400)
    assert [event.done for event in batches] == sorted({event.done for event in batches})
    assert not [event for event in events if isinstance(event, Warned)]
    entry = await any_db["_migrations"].find_one({"_id": "001"})
    assert entry is not None
    assert (entry["state"], "checkpoint" in entry) == ("applied", False)


async def test_ids_of_all_types_are_walked_and_never_two_in_one_range(
    db: Database, local_server: LocalServer, folder: Path, write: Write, threads: Executor
) -> None:
    ids: list[Any] = [MinKey(), None, *range(60), *map(str, range(60)), {"a": 1}, b"x", ObjectId(), True, MaxKey()]
    await db["things"].insert_many([{"_id": identity, "n": 1} for identity in ids])
    write("001_things.py", SCRIPT)
    given: list[RangeTask] = []

    class Watched(Executor):
        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
            given.append(args[0])
            return threads.submit(fn, *args, **kwargs)

    await migrate(db, directory=folder, standard_indexes={}, executor=Watched())
    assert await db["things"].count_documents({"times": 1}) == len(ids)
    assert len(given) > 8
    reads = [r.body for r in local_server.controls.counted() if r.name == "find" and r.body["find"] == "things"]
    assert all("min" in body or "max" in body for body in reads if body["limit"] > 1)


@pytest.mark.parametrize("engine", [ThreadPoolExecutor, ProcessPoolExecutor], ids=["threads", "process pool"])
async def test_any_executor_of_the_standard_library_will_do(
    db: Database, folder: Path, write: Write, engine: Callable[[int], Executor]
) -> None:
    await numbered(db, 100)
    write("001_things.py", SCRIPT)
    with engine(2) as pool:
        await migrate(db, directory=folder, standard_indexes={}, executor=pool)
    check_done(await documents(db), 100)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        pytest.param(
            "lambda d: {'$set': {'m': d['n'] + 1, 'times': 1}}", "is not defined at the top of the script", id="lambda"
        ),
        pytest.param("Change()", "is not defined at the top", id="object"),
        pytest.param("inner()", "is not defined at the top", id="inside a function"),
    ],
)
async def test_a_function_that_no_worker_could_find_is_walked_in_one_lane_and_that_is_said(
    db: Database, folder: Path, write: Write, threads: Executor, text: str, reason: str
) -> None:
    await numbered(db, 100)
    write(
        "001_things.py",
        f"""
        from mydocs.migrations import transform

        class Change:
            def __call__(self, document):
                return {{"$set": {{"m": document["n"] + 1, "times": 1}}}}

        def inner():
            def change(document):
                return {{"$set": {{"m": document["n"] + 1, "times": 1}}}}
            return change

        async def up(db):
            await transform(db.things, {{"m": {{"$exists": False}}}}, {text}, batch_size=10)
        """,
    )
    events: list[Event] = []
    await migrate(db, directory=folder, standard_indexes={}, executor=threads, on_event=events.append)
    check_done(await documents(db), 100)
    (warned,) = [event.message for event in events if isinstance(event, Warned)]
    assert reason in warned
    assert "so the change is made in one lane" in warned


async def test_a_function_of_a_module_beside_the_script_and_one_that_is_async_go_too(
    db: Database, folder: Path, write: Write, processes: Processes
) -> None:
    await numbered(db, 60)
    write(
        "helper_of_things.py",
        "async def change(batch):\n    return [{'$set': {'m': d['n'] + 1}, '$inc': {'times': 1}} for d in batch]\n",
    )
    write(
        "001_things.py",
        """
        from helper_of_things import change
        from mydocs.migrations import transform

        async def up(db):
            wanted = {"m": {"$exists": False}}
            await transform(db.things, wanted, change, batch=True, concurrency=2, batch_size=5, pause=0.001)
        """,
    )
    await migrate(db, directory=folder, standard_indexes={}, executor=processes)
    check_done(await documents(db), 60)


async def test_an_error_of_the_function_ends_the_walk_with_its_own_words(
    db: Database, folder: Path, write: Write, processes: Processes
) -> None:
    await numbered(db, 200)
    script = SCRIPT.replace(
        "    return {", '    if document["n"] == 77:\n            raise ValueError("broken")\n        return {'
    )
    path = write("001_things.py", script)
    with pytest.raises(MigrationFailed, match=r"001_things.py failed.*: ValueError: broken"):
        await migrate(db, directory=folder, standard_indexes={}, executor=processes)
    done = await db["things"].count_documents({"m": {"$exists": True}})
    assert done < 200
    path.write_text(path.read_text().replace('raise ValueError("broken")', "pass"))
    await migrate(db, directory=folder, standard_indexes={}, executor=processes)
    check_done(await documents(db), 200)


# -- those that die, freeze or come late


async def test_a_worker_that_is_killed_has_its_range_given_to_another(
    db: Database, local_server: LocalServer, folder: Path, write: Write, processes: Processes
) -> None:
    await numbered(db, 200)
    write("001_things.py", SCRIPT)
    killed: list[int] = []

    def kill(recorded: Recorded) -> None:
        killed.append(recorded.body["updates"][0]["u"]["$set"]["by"])
        os.kill(killed[-1], signal.SIGKILL)

    local_server.controls.call(kill, when=is_update, at=3, times=1)
    local_server.controls.call(kill, when=is_update, at=20, times=1, after=True)
    events: list[Event] = []
    await migrate(db, directory=folder, standard_indexes={}, executor=processes, on_event=events.append)
    check_done(await documents(db), 200)
    assert len(set(killed)) == 2
    lost = [event.message for event in events if isinstance(event, Warned)]
    assert len(lost) == 2
    assert all("a worker was lost" in message for message in lost)


async def test_a_pool_that_is_of_no_use_after_a_death_leaves_the_rest_to_one_lane(
    db: Database, local_server: LocalServer, folder: Path, write: Write
) -> None:
    await numbered(db, 100)
    write("001_things.py", SCRIPT)
    local_server.controls.call(
        lambda r: os.kill(r.body["updates"][0]["u"]["$set"]["by"], signal.SIGKILL), when=is_update, at=3
    )
    events: list[Event] = []
    with ProcessPoolExecutor(2) as pool:
        await migrate(db, directory=folder, standard_indexes={}, executor=pool, on_event=events.append)
    check_done(await documents(db), 100)
    assert any("cannot be used any more" in event.message for event in events if isinstance(event, Warned))


async def test_a_worker_that_is_frozen_loses_its_range_and_changes_nothing_when_it_goes_on(
    db: Database, local_server: LocalServer, folder: Path, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    await numbered(db, 100)
    write("001_things.py", SCRIPT)
    monkeypatch.setattr(workers, "STALE_SECONDS", 6.0)  # with a sign of life every 2 s
    monkeypatch.setattr(workers, "POLL_SECONDS", 0.1)
    frozen: list[int] = []
    sent: list[Any] = []

    def freeze(recorded: Recorded) -> None:
        frozen.append(recorded.body["updates"][0]["u"]["$set"]["by"])
        os.kill(frozen[0], signal.SIGSTOP)
        sent.extend(statement["q"]["_id"] for statement in recorded.body["updates"])

    local_server.controls.call(freeze, when=is_update, at=2)
    local_server.controls.cut_before(when=is_update, at=2)  # so it sends that again when it goes on
    events: list[Event] = []
    with ProcessPoolExecutor(2) as pool:  # which cannot end one of its processes
        await migrate(db, directory=folder, standard_indexes={}, executor=pool, on_event=events.append)
        check_done(await documents(db), 100)
        # What the application writes meanwhile, in the new form.
        await db["things"].update_many({"_id": {"$in": sent}}, {"$set": {"m": "by the application"}})
        os.kill(frozen[0], signal.SIGCONT)
    found = await documents(db)
    assert {document["m"] for document in found if document["_id"] in sent} == {"by the application"}
    assert {document["times"] for document in found} == {1}
    assert any("a worker is silent" in event.message for event in events if isinstance(event, Warned))


PROGRAM = """
import asyncio, sys
from motor.motor_asyncio import AsyncIOMotorClient as Client
from mydocs.migrations import migrate
from mydocs.migrations.operations.executors import processes

async def main():
    with processes(2) as pool:
        await migrate(Client(sys.argv[1])["app"], directory=sys.argv[2], standard_indexes={}, executor=pool)

if __name__ == "__main__":
    asyncio.run(main())
"""


async def test_a_plain_script_is_told_once_that_it_has_one_lane(
    db: Database, local_server: LocalServer, folder: Path, write: Write, threads: ThreadPoolExecutor
) -> None:
    await numbered(db, 30)
    write(
        "001_things.py",
        f"""
        import asyncio
        from motor.motor_asyncio import AsyncIOMotorClient
        from mydocs.migrations import transform

        def change(document):
            return {{"$set": {{"m": 1}}}}

        async def main():
            client = AsyncIOMotorClient({local_server.url!r})
            await transform(client.app.things, {{"m": {{"$exists": False}}}}, change, batch_size=10)
            await transform(client.app.things, {{"k": {{"$exists": False}}}}, lambda d: {{"$set": {{"k": 1}}}})
            client.close()

        asyncio.run(main())
        """,
    )
    events: list[Event] = []
    await migrate(db, directory=folder, standard_indexes={}, executor=threads, on_event=events.append)
    (warned,) = [event.message for event in events if isinstance(event, Warned)]
    assert "001_things.py: a plain script changes documents in one lane" in warned
    assert await db["things"].count_documents({"m": 1, "k": 1}) == 30


@pytest.mark.parametrize("successor", ["workers", "one lane"])
async def test_a_run_that_is_killed_is_succeeded_from_the_places_of_its_ranges(
    db: Database,
    local_server: LocalServer,
    local_clock: ManualClock,
    folder: Path,
    write: Write,
    tmp_path: Path,
    threads: Executor,
    successor: str,
    ended: Callable[[int], Awaitable[None]],
) -> None:
    await numbered(db, 300)
    write("001_things.py", SCRIPT)
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    environment = os.environ | {"PYTHONPATH": str(Path(workers.__file__).parents[3])}
    command = [sys.executable, str(program), local_server.url, str(folder)]
    process = await anyio.to_thread.run_sync(lambda: subprocess.Popen(command, env=environment))
    by: list[int] = []
    sizes: list[int] = []

    def note(recorded: Recorded) -> None:
        by.append(recorded.body["updates"][0]["u"]["$set"]["by"])
        sizes.append(len(recorded.body["updates"]))

    go_on = threading.Event()
    local_server.controls.call(note, when=is_update, times=None)
    local_server.controls.delay(go_on, when=is_update, at=30, times=None)
    try:
        await anyio.to_thread.run_sync(
            local_server.controls.wait_for, lambda r: len(set(by)) == 2 and len(by) >= 30, 40
        )
        process.kill()
        assert await anyio.to_thread.run_sync(process.wait) == -signal.SIGKILL
    finally:
        process.kill()
        local_server.controls.clear_faults()
        go_on.set()
    local_clock.advance(31)  # what is left of the lease
    executor = threads if successor == "workers" else None
    events: list[Event] = []
    await migrate(db, directory=folder, standard_indexes={}, executor=executor, on_event=events.append)
    check_done(await documents(db), 300)
    first = next(event for event in events if isinstance(event, BatchDone))
    # Of each worker the batches that are held up, and one whose place was on its way, are not in the places.
    assert first.done >= sum(sizes[:29]) - 2 * 2 * 5
    for pid in set(by):  # they have nobody to work for, and end by themselves
        await ended(pid)


async def test_a_run_that_is_cancelled_ends_its_workers_before_it_is_recorded(
    db: Database, local_server: LocalServer, folder: Path, write: Write, processes: Processes
) -> None:
    await numbered(db, 200)
    write("001_things.py", SCRIPT)
    go_on = threading.Event()
    local_server.controls.delay(go_on, when=is_update, at=5, times=None)

    async def cancel() -> None:
        await anyio.to_thread.run_sync(
            local_server.controls.wait_for,
            lambda r: is_update(r) and sum(map(is_update, local_server.controls.counted())) > 5,
        )
        group.cancel_scope.cancel()

    async with anyio.create_task_group() as group:
        group.start_soon(cancel)
        await migrate(db, directory=folder, standard_indexes={}, executor=processes)
    go_on.set()
    entry = await db["_migrations"].find_one({"_id": "001"})
    assert entry is not None
    assert (entry["state"], entry["error"]["type"]) == ("failed", "Cancelled")
    local_server.controls.clear_faults()
    await migrate(db, directory=folder, standard_indexes={}, executor=processes)
    check_done(await documents(db), 200)


async def test_a_call_that_is_to_be_made_later_is_made_again_by_its_worker(
    db: Database, folder: Path, write: Write, processes: Processes, tmp_path: Path
) -> None:
    await numbered(db, 60)
    write(
        "001_things.py",
        f"""
        from pathlib import Path
        from mydocs.migrations import RetryLater, transform

        TOLD = Path({str(tmp_path / "told")!r})

        def change(document):
            if document["n"] == 3 and not TOLD.exists():
                TOLD.touch()
                raise RetryLater(0.1)
            return {{"$set": {{"m": document["n"] + 1}}, "$inc": {{"times": 1}}}}

        async def up(db):
            await transform(db.things, {{"m": {{"$exists": False}}}}, change, batch_size=5)
        """,
    )
    await migrate(db, directory=folder, standard_indexes={}, executor=processes)
    check_done(await documents(db), 60)


async def test_a_pause_that_a_provider_asks_one_worker_for_holds_for_all(db: Database) -> None:
    def kept(number: str) -> Kept:
        task = RangeTask(
            connection=Connection(arguments={}),
            database=db.name,
            collection="things",
            wanted=b"",
            options=db.codec_options,
            function=FunctionAt(module="", name="", path="", folder=""),
            batch_size=1,
            batch=False,
            concurrency=1,
            fields=None,
            pause=0.0,
            shard_key=(),
            max_lag=None,
            key="key",
            number=number,
            token=1,
            fence=bson.encode({"_id": "001"}),
            place={},
        )
        return Kept(db, task)

    ranges = {number: {"token": 1} for number in ("0", "1")}
    await db["_migrations"].insert_one({"_id": "001", "checkpoint": {"key": {"ranges": ranges}}})
    one, other = kept("0"), kept("1")
    await other.write({})
    assert not other.gate.is_closed
    one.gate.close(1_000)
    await one.write({})
    await other.write({})
    assert other.gate.is_closed


# -- what an engine is given


async def test_a_task_shows_no_password_and_holds_no_document(
    db: Database, folder: Path, write: Write, threads: Executor
) -> None:
    await numbered(db, 100)
    write("001_things.py", SCRIPT)
    tasks: list[RangeTask] = []

    class Map(Executor):  # as the recipes for Ray and Spark do it
        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
            assert fn is run_range
            tasks.append(args[0])
            return threads.submit(fn, *args)

    await migrate(db, directory=folder, standard_indexes={}, executor=Map())
    check_done(await documents(db), 100)
    assert repr(Connection(arguments={"password": "secret"})) == "Connection(…)"
    assert "Connection(…)" in repr(tasks[0])
    assert all(isinstance(task.wanted, bytes) for task in tasks)


async def test_a_late_worker_of_an_earlier_run_finds_nothing_to_write_to(
    db: Database, local_server: LocalServer, folder: Path, write: Write, threads: Executor
) -> None:
    await numbered(db, 100)
    write("001_things.py", SCRIPT)
    tasks: list[RangeTask] = []

    class Keep(Executor):
        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
            tasks.append(args[0])
            return threads.submit(fn, *args)

    await migrate(db, directory=folder, standard_indexes={}, executor=Keep())
    await db["things"].update_many({}, {"$unset": {"m": ""}})
    local_server.controls.clear()
    done: RangeDone = await anyio.to_thread.run_sync(run_range, tasks[0])
    assert done.superseded
    assert not [recorded for recorded in local_server.controls.counted() if is_update(recorded)]


def test_a_process_that_dies_costs_its_task_only() -> None:
    pool = Processes(1)
    try:
        with pytest.raises(WorkerDied, match="ended with status 3 while it had a task"):
            pool.submit(os._exit, 3).result(30)
        assert pool.submit(os.getpid).result(30) != os.getpid()
        with pytest.raises(ValueError, match="invalid literal"):
            pool.submit(int, "x").result(30)
    finally:
        pool.shutdown(cancel_futures=True)
    with pytest.raises(RuntimeError, match="told to end"):
        pool.submit(os.getpid)
