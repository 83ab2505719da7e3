"""
What a run may cost, counted: commands, looks, imports, bytes. No limit here is a time, so a slow machine changes none.

Beside each limit stands the least that theory allows. Ratios of times are measured by `python -m tests.bench`.
"""

import asyncio
import random
import subprocess
import sys
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from mydocs.localserver import LocalServer
from mydocs.localserver.clock import ManualClock
from mydocs.localserver.controls import Recorded
from mydocs.migrations import migrate
from mydocs.migrations.driver.client import Database
from mydocs.migrations.driver.shared_looks import Looks
from mydocs.migrations.ledger import turn
from mydocs.migrations.ledger.entries import Snapshot
from mydocs.migrations.model import LeaseView

TRIVIAL = "async def up(db):\n    pass\n"
INDEXES, COLLECTIONS = 200, 20
HELD_BYTES = 60_000_000
OWN_MODULES = 30  # for help and `list`, of about two hundred in all
SEARCH_INDEXES = """
from pymongo.operations import SearchIndexModel
from mydocs.migrations import ensure_search_indexes


async def up(db):
    for number in range({collections}):
        models = [SearchIndexModel(name=f"i{{n}}", definition={{"mappings": {{}}}}) for n in range({each})]
        await ensure_search_indexes(db[f"c{{number}}"], models)
"""
TRANSFORM = """
from mydocs.migrations import transform


async def up(db):
    await transform(db["docs"], {}, lambda document: {"$set": {"done": True}}, batch_size=BATCH)
"""
DRIVERS = {"pymongo", "bson", "motor", "lightodm", "pydantic", "anyio", "asyncio", "rich", "tenacity", "dns"}


def is_listing(recorded: Recorded) -> bool:
    return recorded.name == "aggregate" and "$listSearchIndexes" in recorded.body["pipeline"][0]


def write_trivial(folder: Path, count: int) -> None:
    for number in range(1, count + 1):
        (folder / f"{number:04}_step.py").write_text(TRIVIAL)


@pytest.mark.anyio
async def test_a_thousand_applied_migrations_cost_one_command(
    db: Database, local_server: LocalServer, folder: Path
) -> None:
    """The least is 1: without asking, nobody knows."""
    write_trivial(folder, 1)
    await migrate(db, directory=folder)
    entry = await db["_migrations"].find_one({"_id": "0001"})
    assert entry is not None
    numbers = range(2, 1_001)
    await db["_migrations"].insert_many([{**entry, "_id": f"{n:04}", "script": f"{n:04}_step.py"} for n in numbers])
    await anyio.to_thread.run_sync(write_trivial, folder, 1_000)
    local_server.controls.clear()
    await migrate(db, directory=folder, wait=True)
    assert local_server.controls.counts() == Counter(aggregate=1)


@pytest.mark.anyio
@pytest.mark.parametrize("count", [1, 10, 40])
async def test_a_script_costs_one_command_and_a_run_the_same_few_whatever_its_length(
    count: int, db: Database, local_server: LocalServer, folder: Path
) -> None:
    """The least is N + 4: between each two scripts, before the first, after the last, one read, and the lease twice."""
    write_trivial(folder, count)
    local_server.controls.clear()
    await migrate(db, directory=folder)
    # The read that is repeated under the lease, the standard indexes of two collections, and the record between.
    assert local_server.controls.counts().total() == count + 4 + 4


@pytest.mark.anyio
async def test_a_script_costs_one_task_of_the_event_loop(db: Database, folder: Path) -> None:
    """The least is 1: only what a cancellation ends has a task of its own, and what is recorded of it has none."""
    made: list[str] = []

    def counting(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> Any:
        made.append(coroutine.__qualname__)
        return asyncio.Task(coroutine, loop=loop, **options)

    tasks = {}
    for count in (10, 30):
        write_trivial(folder, count)
        await db.client.drop_database(db.name)
        loop, made[:] = asyncio.get_running_loop(), []
        loop.set_task_factory(counting)
        try:
            await migrate(db, directory=folder)
        finally:
            loop.set_task_factory(None)
        tasks[count] = list(made)
    assert len(tasks[30]) - len(tasks[10]) == 30 - 10, tasks


@pytest.mark.anyio
async def test_waiting_for_two_hundred_indexes_on_twenty_collections_holds_less_than_60_megabytes(
    db: Database, local_server: LocalServer, local_clock: ManualClock, folder: Path
) -> None:
    """The least is what one listing of a collection takes: the server's own copy is counted in here."""
    for number in range(INDEXES // COLLECTIONS):
        local_server.search.outcome(f"i{number}", build_seconds=3_600.0)
    # After two looks at each collection, all builds have ended.
    local_server.controls.call(
        lambda _: local_clock.advance(3_600.0), command="aggregate", when=is_listing, at=2 * COLLECTIONS + 1
    )
    text = SEARCH_INDEXES.format(collections=COLLECTIONS, each=INDEXES // COLLECTIONS)
    (folder / "001_indexes.py").write_text(text)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        report = await migrate(db, directory=folder, wait=True, standard_indexes={})
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len([index for index in report.indexes if index.queryable]) == INDEXES
    assert peak - before < HELD_BYTES


@pytest.mark.anyio
async def test_two_hundred_indexes_are_asked_for_and_looked_at_by_the_collection(
    db: Database, local_server: LocalServer, folder: Path
) -> None:
    """The least is one listing before, one creation, and one listing after, for each collection."""
    for number in range(COLLECTIONS):
        await db.create_collection(f"c{number}")
    text = SEARCH_INDEXES.format(collections=COLLECTIONS, each=INDEXES // COLLECTIONS)
    (folder / "001_indexes.py").write_text(text)
    await migrate(db, directory=folder, wait=True, standard_indexes={})
    counts = local_server.controls.counts()
    listings = [recorded for recorded in local_server.controls.counted() if is_listing(recorded)]
    assert counts["createSearchIndexes"] == COLLECTIONS
    assert len(listings) == 2 * COLLECTIONS


class Alone(Looks[Snapshot]):
    """Looks of one waiter; says how long it would wait for the next, and lets no time pass."""

    waited = 0.0

    async def next(self, ask: Any, *, within: float) -> Snapshot:
        self.waited += within
        return Snapshot(entries=(), lease=None)


@pytest.mark.anyio
@pytest.mark.parametrize("minutes", [1, 5, 60])
async def test_a_waiting_replica_looks_at_most_six_times_a_minute_and_ten_times_beyond(
    minutes: int, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The least is one look, by somebody who knows when the work will be done."""
    monkeypatch.setattr(random, "uniform", lambda low, high: low)
    lease = LeaseView(
        host="other", pid=1, run_id="x", term=1, live=True, remaining=20.0
    )  # the least that a renewal leaves
    alone, looks = Alone(members=1), 0
    while alone.waited < minutes * 60:
        await turn.look(db, alone, alone.waited, lease)
        looks += 1
    assert looks <= 10 + 6 * minutes


@pytest.mark.anyio
@pytest.mark.parametrize("documents", [1_000, 3_000])
async def test_a_batch_is_read_once_written_once_and_checkpointed_once(
    documents: int, db: Database, local_server: LocalServer, folder: Path
) -> None:
    """The least is 2 a batch; the third is what a killed run goes on from."""
    batch = 100
    await db["docs"].insert_many([{"_id": n} for n in range(documents)])
    (folder / "001_change.py").write_text(TRANSFORM.replace("BATCH", str(batch)))
    local_server.controls.clear()
    await migrate(db, directory=folder, standard_indexes={})
    # N + 4 and the second read of the ledger. Then once a walk: the total, whether the filter tells what is done,
    # whether the collection is sharded, the batch that finds nothing more, and what still matches at the end.
    assert local_server.controls.counts().total() <= 3 * (documents // batch) + 6 + 5


@pytest.mark.anyio
async def test_the_memory_of_a_transformation_does_not_grow_with_the_collection(
    db: Database, local_server: LocalServer, folder: Path
) -> None:
    """The least is one batch; ten times as many of them must not take even twice as much."""
    peaks = []
    text = TRANSFORM.replace("BATCH", "50")
    for version, documents in enumerate((150, 1_500)):
        await db["docs"].delete_many({})
        await db["docs"].insert_many([{"_id": n, "text": "x" * 4_000} for n in range(documents)])
        (folder / f"{version:03}_change.py").write_text(text)
        local_server.controls.clear()
        tracemalloc.start()
        # The record holds every command's documents, and is in this process.
        await migrate(db, directory=folder, standard_indexes={}, on_event=lambda _: local_server.controls.clear())
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 2 * peaks[0], peaks


def modules_of(*arguments: str) -> set[str]:
    """Give the names of all modules that a process has imported at its end."""
    program = (
        "import atexit, sys; atexit.register(lambda: print(*sorted(sys.modules), file=sys.stderr)); "
        f"sys.argv = ['mydocs', *{list(arguments)!r}]; "
    )
    program += "from mydocs.cli.main import main; main()" if arguments else "import typer"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(done.stderr.split())


@pytest.mark.parametrize(
    "arguments", [["--help"], ["migrate", "--help"], ["migrate", "run", "--help"], ["migrate", "list"]]
)
def test_help_and_list_import_no_driver_and_little_beyond_typer(arguments: list[str]) -> None:
    """The least is typer and one module that declares the commands."""
    beyond = [name.partition(".")[0] for name in modules_of(*arguments) - modules_of()]
    assert not set(beyond) & DRIVERS
    assert set(beyond) - sys.stdlib_module_names <= {"mydocs", "typer"}
    assert beyond.count("mydocs") <= OWN_MODULES


def test_a_run_with_nothing_to_do_and_status_import_nothing_that_only_work_needs(
    local_server: LocalServer, tmp_path: Path
) -> None:
    """Importing is most of their time, and each of these takes as long as several commands to the server."""
    (tmp_path / "001_a.py").write_text("async def up(db):\n    await db['t'].insert_one({})\n")
    where = ["--url", local_server.url, "--db", "app", "--dir", str(tmp_path)]
    modules_of("migrate", "run", *where)
    unneeded = ("tenacity", "rich", "lightodm", "pydantic", "multiprocessing.spawn", "anyio._backends", "anyio.abc")
    of_ours = ("execution", "data", "indexes.capture", "indexes.search", "indexes.waiter", "ledger.turn")
    names = (*unneeded, *(f"mydocs.migrations.{name}" for name in of_ours))
    for command in ("run", "status"):
        loaded = modules_of("migrate", command, *where)
        assert {name for name in loaded for start in names if name == start or name.startswith(f"{start}.")} == set()


def test_status_in_a_process_of_its_own_needs_one_connection(local_server: LocalServer, tmp_path: Path) -> None:
    """A second one takes two round trips before its first command, and here only one more command is left for it."""
    modules_of("migrate", "run", "--url", local_server.url, "--db", "app", "--dir", str(tmp_path))
    local_server.controls.clear()
    modules_of("migrate", "status", "--url", local_server.url, "--db", "app", "--dir", str(tmp_path))
    asked = [recorded for recorded in local_server.controls.records() if recorded.database == "app"]
    assert [recorded.name for recorded in asked] == ["aggregate", "listIndexes", "listIndexes"]
    assert len({recorded.connection_id for recorded in asked}) == 1
