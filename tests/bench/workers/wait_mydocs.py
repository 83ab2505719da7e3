"""Worker: create search indexes in one migration and wait for them with `migrate(wait=True)`. I/O."""

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

from pymongo.operations import SearchIndexModel

from mydocs.migrations import IndexState, migrate
from tests.bench.workers.imported import import_all
from tests.bench.workers.rss import megabytes

URL, DATABASE, MODE, COLLECTIONS = sys.argv[1:5]
NAMES = sys.argv[5:]
TOGETHER = "await ensure_search_indexes({db[name]: models for name, models in __main__.models().items()})"
ONE_BY_ONE = """for collection, models in __main__.models().items():
        await ensure_search_indexes(db[collection], models)"""  # earlier versions have no other way
SCRIPT = f"""
from mydocs.migrations import ensure_search_indexes
from pymongo.operations import SearchIndexModel
import __main__


async def up(db):
    {TOGETHER if MODE == "together" else ONE_BY_ONE}
"""


def models() -> dict[str, list[SearchIndexModel]]:
    """Spread the names over the collections."""
    found: dict[str, list[SearchIndexModel]] = {}
    field = {"type": "vector", "path": "v", "numDimensions": 3, "similarity": "cosine"}
    for number, name in enumerate(NAMES):
        model = SearchIndexModel(definition={"fields": [field]}, name=name, type="vectorSearch")
        found.setdefault(f"c{number % int(COLLECTIONS)}", []).append(model)
    return found


async def main(folder: str) -> None:
    """Say when each index was seen ready, how long all took and how much processor time and memory it was."""
    seen: dict[str, float] = {}
    first_look: list[float] = []  # processor time when it has been answered

    def note(event: Any) -> None:
        if type(event).__name__ != "IndexChanged":  # by its name: versions keep the class in different modules
            return
        first_look.append(time.process_time())
        if event.state is IndexState.READY:
            seen[event.name] = time.time()

    client: AsyncIOMotorClient[dict[str, Any]] = AsyncIOMotorClient(URL)
    await client[DATABASE].command("ping")
    import_all("mydocs")
    idle = megabytes(peak=False)
    began, busy = time.perf_counter(), time.process_time()
    await migrate(client[DATABASE], directory=folder, wait=True, standard_indexes={}, on_event=note)
    seconds, ended = time.perf_counter() - began, time.process_time()
    looking = {"looking": ended - first_look[0], "not_counted": int(COLLECTIONS)}  # the first look at each
    facts = {"seconds": seconds, "processor": ended - busy, **looking}
    peak = megabytes(peak=True)
    client.close()
    print(json.dumps({"seen": seen, **facts, "idle_mb": idle, "peak_mb": peak}))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scripts:
        Path(scripts, "001_indexes.py").write_text(SCRIPT)
        asyncio.run(main(scripts))
