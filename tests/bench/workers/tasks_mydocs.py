"""Worker: so many replicas as tasks of one process, all with one client. I/O."""

import asyncio
import json
import sys
import time
import warnings
from typing import Any

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # Motor's word about its end of life
    from motor.motor_asyncio import AsyncIOMotorClient

from mydocs.migrations import Event, migrate
from tests.bench.workers.imported import import_all
from tests.bench.workers.rss import megabytes

URL, DATABASE, FOLDER, TASKS = sys.argv[1:5]


async def main() -> None:
    """Say how long all took, and how long after the one that did the work the last one came back."""
    ends: list[float] = []
    leaders: list[float] = []
    client: AsyncIOMotorClient[dict[str, Any]] = AsyncIOMotorClient(URL)
    await client[DATABASE].command("ping")
    import_all("mydocs")
    idle = megabytes(peak=False)

    async def replica() -> None:
        leads: list[Event] = []
        await migrate(
            client[DATABASE],
            directory=FOLDER,
            wait=True,
            standard_indexes={},
            # By its name, since versions keep the class in different modules.
            on_event=lambda event: leads.append(event) if type(event).__name__ == "LeaseTaken" else None,
        )
        ends.append(time.perf_counter())
        if leads:
            leaders.append(ends[-1])

    began, busy = time.perf_counter(), time.process_time()
    await asyncio.gather(*(replica() for _ in range(int(TASKS))))
    busy = time.process_time() - busy
    peak = megabytes(peak=True)
    client.close()
    facts = {"seconds": max(ends) - began, "processor": busy, "behind": max(ends) - min(leaders)}
    print(json.dumps({**facts, "idle_mb": idle, "peak_mb": peak}))


asyncio.run(main())
