"""Change every document of a collection: by hand, with a function, on the server, and among workers. I/O."""

from collections.abc import Sequence
from typing import Any

from pymongo import MongoClient

from .lab import Lab, Ran
from .peers import MONGODB_MIGRATIONS, MYDOCS, PYMONGO_MIGRATE
from .table import Row, Section, cannot

NAME = "batches"
BY_HAND = "PyMongo by hand"
SIZES = (10_000, 100_000)
MILLION = 1_000_000  # on request: all ways together take a quarter of an hour on a local server
QUICK_SIZES = (1_000, 5_000)
BATCH = 1_000
WAYS = (
    ("hand", BY_HAND),
    ("guarded", f"{BY_HAND}, guarded"),
    ("fields", MYDOCS),
    ("transform", "mydocs, whole document"),
    ("in_batches", "mydocs, server"),
)
LARGE = (500, 40_000)  # documents, and bytes of each
WAITING = 320  # documents, with a call of 20 ms each
COMPUTING = 400  # documents, with some 15 ms of processor each, or a call that blocks for 10 ms
FAR = 0.02  # seconds, there and back
# Documents, in batches of 200: in these the round trips decide, and not the local server's own time.
FAR_SIZE = 10_000
FAR_WAYS = (("hand_small", BY_HAND), ("guarded_small", f"{BY_HAND}, guarded"), ("fields_small", MYDOCS))


def measure(lab: Lab) -> Section:
    """Change one collection in each way, each into a field of its own."""
    rows: list[Row] = []
    sizes = QUICK_SIZES if lab.quick else SIZES
    for size in (*sizes, MILLION) if lab.million else sizes:
        rounds = 1 if lab.quick or size == MILLION else 3  # a thousand batches are an average in themselves
        rows += _compared(lab, f"{size:,} documents", (size, 270), WAYS, rounds=rounds)
    far = QUICK_SIZES[-1] if lab.quick else FAR_SIZE
    rows += _compared(lab, f"{far:,}, 20 ms away, by 200", (far, 270), FAR_WAYS, rounds=1, distance=FAR)
    rows += _compared(lab, "500 of 40 kB", LARGE, WAYS[:4], rounds=1)
    waiting = (("waiting1", "mydocs, one call at a time"), ("waiting16", "mydocs, concurrency=16"))
    rows += _compared(lab, f"{WAITING} calls of 20 ms", (WAITING, 10), waiting, rounds=1)
    # What two processes can gain on this machine, while the server is a third one, is what the bare ones gain.
    bare = (("bare1", "1 process, no database"), ("bare2", "2 processes, no database"))
    computing = (("computing1", "mydocs, 1 worker"), ("computing2", "mydocs, 2 workers"))
    blocking = (("blocking1", "mydocs, 1 worker"), ("blocking2", "mydocs, 2 workers"))
    rounds = 1 if lab.quick else 3
    for work, ways in (("that compute, bare", bare), ("that compute", computing), ("calls that block", blocking)):
        rows += _compared(lab, f"{COMPUTING} {work}", (COMPUTING, 10), ways, rounds=rounds)
    why = "no helper: a migration holds a loop written by hand"
    rows += [cannot(NAME, "any number", tool, why) for tool in (PYMONGO_MIGRATE, MONGODB_MIGRATIONS)]
    return Section(
        title=f"Set a field of every document, batches of {BATCH:,}; compared with the first line of each block",
        limit="2 commands a batch: read it, write it; memory of a few batches; bytes of the field",
        rows=tuple(rows),
    )


def _compared(
    lab: Lab,
    work: str,
    filling: tuple[int, int],
    ways: Sequence[tuple[str, str]],
    *,
    rounds: int,
    distance: float = 0.0,
) -> list[Row]:
    database, (size, length) = lab.database(), filling
    lab.run(lab.tools.worker(MYDOCS, "batches", lab.url, database, "fill", f"{size}x{length}"))
    found: dict[str, list[tuple[Ran, int, int, int]]] = {tool: [] for _, tool in ways}
    for turn in range(rounds):
        for number, (mode, tool) in enumerate(ways):
            before = lab.seen[database].total
            with lab.counted(distance) as (url, proxy):
                field = f"{mode}_{turn * len(ways) + number}"
                ran = lab.run(lab.tools.worker(MYDOCS, "batches", url, database, mode, field))
            found[tool].append((ran, lab.seen[database].total - before, proxy.sent, proxy.received))
            with MongoClient[dict[str, Any]](lab.url) as client:  # each way finds the same documents
                client[database]["docs"].update_many({}, {"$unset": {field: ""}})
    lab.drop(database)
    return [_row(work, size, tool, runs, bare=tool == ways[0][1]) for tool, runs in found.items()]


def _median(runs: list[tuple[Ran, int, int, int]]) -> float:
    return sorted(float(ran.told["seconds"]) for ran, *_ in runs)[len(runs) // 2]


def _row(work: str, size: int, tool: str, runs: list[tuple[Ran, int, int, int]], *, bare: bool) -> Row:
    memory = max(ran.told["peak_mb"] - ran.told["idle_mb"] for ran, *_ in runs)
    processor = min(float(ran.told["processor"]) for ran, *_ in runs)
    whole = sorted(float(ran.told["whole"]) for ran, *_ in runs)[len(runs) // 2]
    around = f", {whole:.2f} s with the run around it" if tool.startswith(MYDOCS) else ""
    _, commands, sent, received = runs[len(runs) // 2]
    return Row(
        section=NAME,
        work=work,
        tool=tool,
        size=size,
        seconds=tuple(float(ran.told["seconds"]) for ran, *_ in runs),
        commands=commands,
        processor=tuple(float(ran.told["processor"]) for ran, *_ in runs),
        bare=bare,
        note=(
            f"{size / _median(runs):,.0f} a second{around}; processor {processor * 1e6 / size:,.0f} µs, "
            f"sent {sent / size:,.0f} B, received {received / size:,.0f} B a document; +{memory:.0f} MB"
        ),
    )
