"""Worker: fill a collection, change all of it by hand or with `transform`, or drop it. I/O."""

import asyncio
import json
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # Motor's word about its end of life
    from motor.motor_asyncio import AsyncIOMotorClient

from pymongo import MongoClient, UpdateOne

import mydocs.migrations.data.transform  # noqa: F401  # what the script imports anyway counts as idle
from mydocs.migrations import migrate
from tests.bench.workers.rss import megabytes

URL, DATABASE, MODE, WHAT = sys.argv[1:5]
BATCH = 1_000
BODY = "the quick brown fox jumps over the lazy dog, " * 6
SCRIPT = f"""
from mydocs.migrations import transform


def change(document):
    if "{WHAT}" in document:
        return None
    return {{"$set": {{"{WHAT}": len(document["body"].split())}}}}


async def up(db):
    await transform(db["docs"], {{"{WHAT}": {{"$exists": False}}}}, change)
"""


def fill(client: MongoClient[dict[str, Any]]) -> None:
    """Insert documents of about 300 bytes."""
    collection, count = client[DATABASE]["docs"], int(WHAT)
    for start in range(0, count, BATCH):
        collection.insert_many([{"_id": n, "n": n, "body": BODY} for n in range(start, min(start + BATCH, count))])


def by_hand(client: MongoClient[dict[str, Any]]) -> None:
    """Write what people write: one cursor, and bulk writes by `_id`."""
    collection = client[DATABASE]["docs"]
    pending: list[UpdateOne] = []
    for document in collection.find({WHAT: {"$exists": False}}, batch_size=BATCH):
        change = {"$set": {WHAT: len(document["body"].split())}}
        pending.append(UpdateOne({"_id": document["_id"]}, change))
        if len(pending) == BATCH:
            collection.bulk_write(pending, ordered=False)
            pending = []
    if pending:
        collection.bulk_write(pending, ordered=False)


async def by_migration(folder: str) -> None:
    """Run a migration that calls `transform`."""
    client: AsyncIOMotorClient[dict[str, Any]] = AsyncIOMotorClient(URL)
    await migrate(client[DATABASE], directory=folder, standard_indexes={})
    client.close()


def main() -> None:
    """Say how long the change took and how much memory it was."""
    with MongoClient[dict[str, Any]](URL) as client, tempfile.TemporaryDirectory() as folder:
        turn = int("0" + "".join(filter(str.isdigit, WHAT)))
        Path(folder, f"{turn + 1:03}_change.py").write_text(SCRIPT)  # of earlier rounds the files are gone
        client[DATABASE].command("ping")
        idle = megabytes(peak=False)
        began = time.perf_counter()
        if MODE == "fill":
            fill(client)
        elif MODE == "hand":
            by_hand(client)
        elif MODE == "transform":
            asyncio.run(by_migration(folder))
        else:
            client.drop_database(DATABASE)
        seconds = time.perf_counter() - began
    peak = megabytes(peak=True)
    print(json.dumps({"seconds": seconds, "idle_mb": idle, "peak_mb": peak}))


if __name__ == "__main__":
    main()
