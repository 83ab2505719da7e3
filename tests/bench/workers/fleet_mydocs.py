"""Worker: bring so many databases of one server up to date from one process, twice. I/O."""

import asyncio
import json
import sys
import time
import warnings
from typing import Any

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # Motor's word about its end of life
    from motor.motor_asyncio import AsyncIOMotorClient

from mydocs.migrations import migrate
from tests.bench.workers.rss import megabytes

URL, FOLDER = sys.argv[1:3]
NAMES = sys.argv[3:]
AT_ONCE = 16  # databases


async def main() -> None:
    """Say how long the first and the repeated runs took, and how much memory it was."""
    client: AsyncIOMotorClient[dict[str, Any]] = AsyncIOMotorClient(URL)
    await client[NAMES[0]].command("ping")
    idle = megabytes(peak=False)
    places = asyncio.Semaphore(AT_ONCE)

    async def one(name: str) -> None:
        async with places:
            await migrate(client[name], directory=FOLDER, standard_indexes={})

    seconds = []
    for _ in range(2):
        began = time.perf_counter()
        await asyncio.gather(*(one(name) for name in NAMES))
        seconds.append(time.perf_counter() - began)
    client.close()
    facts = {"first": seconds[0], "repeated": seconds[1]}
    print(json.dumps({**facts, "idle_mb": idle, "peak_mb": megabytes(peak=True)}))


asyncio.run(main())
