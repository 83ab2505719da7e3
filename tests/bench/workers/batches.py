"""Worker: fill a collection, change all of it in one of several ways, or drop it. I/O."""

import asyncio
import contextlib
import json
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # Motor's word about its end of life
    from motor.motor_asyncio import AsyncIOMotorClient

from pymongo import MongoClient, UpdateOne

import mydocs.migrations.data.transform  # noqa: F401  # what the script imports anyway counts as idle
from mydocs.migrations import migrate
from mydocs.migrations.operations.executors import processes
from mydocs.migrations.reporting.events import Event, StepFinished, StepStarted
from tests.bench.workers.rss import megabytes

URL, DATABASE, MODE, WHAT = sys.argv[1:5]
BATCH = 200 if MODE.endswith("_small") else 1_000
CALLS = {
    "transform": "await transform(docs, wanted, add_one)",
    "fields": 'await transform(docs, wanted, add_one, fields=("n",))',
    "fields_small": f'await transform(docs, wanted, add_one, fields=("n",), batch_size={BATCH})',
    "in_batches": 'await update_in_batches(docs, wanted, [{"$set": {FIELD: {"$add": ["$n", 1]}}}])',
    "waiting1": 'await transform(docs, wanted, waiting, fields=("n",))',
    "waiting16": 'await transform(docs, wanted, waiting, fields=("n",), concurrency=16)',
    **dict.fromkeys(
        ("computing1", "computing2"), 'await transform(docs, wanted, computing, fields=("n",), batch_size=20)'
    ),
    **dict.fromkeys(
        ("blocking1", "blocking2"), 'await transform(docs, wanted, blocking, fields=("n",), batch_size=20)'
    ),
}
SCRIPT = f"""
import asyncio
import time
from mydocs.migrations import transform, update_in_batches

FIELD = "{WHAT}"


def add_one(document):
    return {{"$set": {{FIELD: document["n"] + 1}}}}


async def waiting(document):
    await asyncio.sleep(0.02)
    return add_one(document)


def computing(document):
    return {{"$set": {{FIELD: sum(number * number for number in range(200_000))}}}}


def blocking(document):
    time.sleep(0.01)
    return add_one(document)


async def up(db):
    docs, wanted = db["docs"], {{FIELD: {{"$exists": False}}}}
    {CALLS.get(MODE, "")}
"""


def fill(client: MongoClient[dict[str, Any]]) -> None:
    """Insert documents of a size."""
    collection, (count, size) = client[DATABASE]["docs"], map(int, WHAT.split("x"))
    for start in range(0, count, BATCH):
        rows = range(start, min(start + BATCH, count))
        collection.insert_many([{"_id": n, "n": n, "body": "x" * size} for n in rows])


def by_hand(client: MongoClient[dict[str, Any]], *, guarded: bool) -> None:
    """
    Write what people write: one cursor that reads the field, and bulk writes by `_id`.

    :param guarded: overwrite nothing that others have changed meanwhile, as `transform` does
    """
    collection = client[DATABASE]["docs"]
    pending: list[UpdateOne] = []
    wanted: dict[str, Any] = {WHAT: {"$exists": False}}
    for document in collection.find(wanted, {"n": 1}, batch_size=BATCH):
        guard = {**wanted, "$expr": {"$eq": ["$n", {"$literal": document["n"]}]}} if guarded else {}
        pending.append(UpdateOne({"_id": document["_id"], **guard}, {"$set": {WHAT: document["n"] + 1}}))
        if len(pending) == BATCH:
            collection.bulk_write(pending, ordered=False)
            pending = []
    if pending:
        collection.bulk_write(pending, ordered=False)


async def by_migration(folder: str, executor: Executor | None) -> tuple[float, float]:
    """
    Run a migration that changes the documents.

    :return: seconds and processor seconds that its script took, without what a run itself costs once
    """
    busy: list[float] = []

    def note(event: Event) -> None:
        if isinstance(event, StepStarted | StepFinished):
            busy.append(time.process_time())

    client: AsyncIOMotorClient[dict[str, Any]] = AsyncIOMotorClient(URL)
    report = await migrate(client[DATABASE], directory=folder, standard_indexes={}, executor=executor, on_event=note)
    client.close()
    return sum(migration.seconds or 0.0 for migration in report.migrations), busy[-1] - busy[0]


def by_itself(executor: Executor, documents: int) -> None:
    """Compute as the script does, in the processes and without a database, in pieces as large as a batch."""
    list(executor.map(compute, [20] * (documents // 20)))


def compute(documents: int) -> int:
    return sum(sum(number * number for number in range(200_000)) for _ in range(documents))


@contextlib.contextmanager
def engine() -> Iterator[Executor | None]:
    """Yield processes that have started already, where the mode has some."""
    if not MODE.startswith(("bare", "computing", "blocking")):
        yield None
        return
    count = int(MODE[-1])
    with processes(count) as pool:
        list(pool.map(time.sleep, [0.5] * count))
        yield pool


def main() -> None:
    """Say how long the change took, in all and without the run around it, and its processor and memory."""
    with MongoClient[dict[str, Any]](URL) as client, tempfile.TemporaryDirectory() as folder, engine() as pool:
        turn = int("0" + "".join(filter(str.isdigit, WHAT.rpartition("_")[2])))
        if MODE in CALLS:
            Path(folder, f"{turn + 1:03}_change.py").write_text(SCRIPT)  # of earlier rounds the files are gone
        client[DATABASE].command("ping")
        idle, busy = megabytes(peak=False), time.process_time()
        began = time.perf_counter()
        own: tuple[float, float] | None = None
        if MODE == "fill":
            fill(client)
        elif MODE.startswith(("hand", "guarded")):
            by_hand(client, guarded=MODE.startswith("guarded"))
        elif MODE == "drop":
            client.drop_database(DATABASE)
        elif MODE.startswith("bare") and pool is not None:
            by_itself(pool, client[DATABASE]["docs"].estimated_document_count())
        else:
            own = asyncio.run(by_migration(folder, pool))
        whole, busy = time.perf_counter() - began, time.process_time() - busy
    peak = megabytes(peak=True)
    seconds, processor = own or (whole, busy)
    facts = {"seconds": seconds, "whole": whole, "processor": processor}
    print(json.dumps({**facts, "idle_mb": idle, "peak_mb": peak}), flush=True)
    os._exit(0)  # what a driver waits for at its end is not a part of the work


if __name__ == "__main__":
    main()
