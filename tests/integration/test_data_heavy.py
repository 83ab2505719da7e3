"""A million documents: the memory is that of a few batches, whatever the size of the collection."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mydocs.localserver import LocalServer

ROOT = Path(__file__).parents[2]


def worker(server: LocalServer, mode: str, what: str) -> dict[str, float]:
    command = [sys.executable, "-m", "tests.bench.workers.batches", server.url, "app", mode, what]
    done = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": str(ROOT)}, cwd=ROOT, capture_output=True, text=True, check=True
    )
    told: dict[str, float] = json.loads(done.stdout)
    return told


@pytest.mark.heavy
@pytest.mark.seconds(3600)
@pytest.mark.parametrize("mode", ["fields", "in_batches"])
def test_memory_stays_flat_to_a_million_documents(local_server: LocalServer, mode: str) -> None:
    grown: list[float] = []
    for size in (100_000, 1_000_000):  # the smaller one has as many batches under way at a time
        worker(local_server, "fill", f"{size}x50")
        told = worker(local_server, mode, f"{mode}_0")
        grown.append(told["peak_mb"] - told["idle_mb"])
        worker(local_server, "drop", "")
    assert grown[1] < 1.2 * grown[0] + 5, grown
