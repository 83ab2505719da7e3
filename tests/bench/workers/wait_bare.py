"""Worker: submit all indexes at the same time, and list all collections every half second: the least there is. I/O."""

import asyncio
import json
import sys
import time
import warnings
from typing import Any

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # Motor's word about its end of life
    from motor.motor_asyncio import AsyncIOMotorClient, AsyncIOMotorCollection

from tests.bench.workers.rss import megabytes

URL, DATABASE, _, COLLECTIONS = sys.argv[1:5]
NAMES = sys.argv[5:]
FIELD = {"type": "vector", "path": "v", "numDimensions": 3, "similarity": "cosine"}
GAP = 0.5  # seconds between two listings of a collection


async def main() -> None:
    """Say when each index was seen ready, how long all took and how much processor time and memory it was."""
    seen: dict[str, float] = {}
    asked: list[float] = []  # processor time when the indexes of a collection had been submitted

    async def create_and_wait(collection: AsyncIOMotorCollection[dict[str, Any]], names: list[str]) -> None:
        await collection.database.create_collection(collection.name)
        models = [{"name": name, "type": "vectorSearch", "definition": {"fields": [FIELD]}} for name in names]
        await collection.database.command({"createSearchIndexes": collection.name, "indexes": models})
        asked.append(time.process_time())
        while not seen.keys() >= set(names):
            await asyncio.sleep(GAP)
            async for index in collection.aggregate([{"$listSearchIndexes": {}}]):
                if index["queryable"]:
                    seen.setdefault(index["name"], time.time())

    client: AsyncIOMotorClient[dict[str, Any]] = AsyncIOMotorClient(URL)
    db = client[DATABASE]
    await db.command("ping")
    idle = megabytes(peak=False)
    began, busy = time.perf_counter(), time.process_time()
    of = {f"c{first}": NAMES[first :: int(COLLECTIONS)] for first in range(int(COLLECTIONS))}
    await asyncio.gather(*(create_and_wait(db[name], names) for name, names in of.items()))
    seconds, ended = time.perf_counter() - began, time.process_time()
    facts = {"seconds": seconds, "processor": ended - busy, "looking": ended - asked[-1]}
    peak = megabytes(peak=True)
    client.close()
    print(json.dumps({"seen": seen, **facts, "idle_mb": idle, "peak_mb": peak}))


asyncio.run(main())
