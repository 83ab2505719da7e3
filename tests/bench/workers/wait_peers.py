"""Worker: the same with pymongo-search-utils, and with the loop of the drivers' documentation. I/O."""

import json
import sys
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any

from pymongo import MongoClient
from pymongo.collection import Collection
from pymongo.operations import SearchIndexModel

from tests.bench.workers.rss import megabytes

URL, DATABASE, MODE, COLLECTIONS = sys.argv[1:5]
NAMES = sys.argv[5:]
FIELD = {"type": "vector", "path": "v", "numDimensions": 3, "similarity": "cosine"}
LIMIT = 900.0  # seconds
Documents = Collection[dict[str, Any]]


def documented_loop(collection: Documents, name: str) -> None:
    """Wait as the MongoDB manual's Python examples do."""
    while True:
        listed = list(collection.list_search_indexes(name))
        if listed and listed[0].get("queryable") is True:
            return
        time.sleep(5)


def main() -> None:
    """Say when each index was seen ready, how long all took and how much processor time and memory it was."""
    utils = import_module("pymongo_search_utils.index")
    client: MongoClient[dict[str, Any]] = MongoClient(URL)
    db = client[DATABASE]
    db.command("ping")
    idle = megabytes(peak=False)
    of = {name: db[f"c{number % int(COLLECTIONS)}"] for number, name in enumerate(NAMES)}
    seen: dict[str, float] = {}
    began, busy = time.perf_counter(), time.process_time()

    asked: list[float] = []  # processor time when all indexes had been submitted

    def finish(wait: Callable[[str], None]) -> None:
        asked.append(time.process_time())
        for name in NAMES:
            wait(name)
            seen[name] = time.time()

    def create_and_wait(name: str) -> None:
        utils.create_vector_search_index(of[name], name, "v", 3, "cosine", wait_until_complete=LIMIT)

    def wait_with_utils(name: str) -> None:
        utils.wait_for_predicate(lambda: utils.is_index_ready(of[name], name), name, timeout=LIMIT)

    if MODE == "one-by-one":
        finish(create_and_wait)
    elif MODE == "all-first":
        for name in NAMES:
            utils.create_vector_search_index(of[name], name, "v", 3, "cosine")
        finish(wait_with_utils)
    else:
        for collection in {documents.name: documents for documents in of.values()}.values():
            db.create_collection(collection.name)
            mine = [name for name, documents in of.items() if documents.name == collection.name]
            collection.create_search_indexes(
                [SearchIndexModel(definition={"fields": [FIELD]}, name=name, type="vectorSearch") for name in mine]
            )
        finish(lambda name: documented_loop(of[name], name))
    seconds, ended = time.perf_counter() - began, time.process_time()
    facts = {"seconds": seconds, "processor": ended - busy, "looking": ended - asked[0]}
    peak = megabytes(peak=True)
    client.close()
    print(json.dumps({"seen": seen, **facts, "idle_mb": idle, "peak_mb": peak}))


if __name__ == "__main__":
    main()
