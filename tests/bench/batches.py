"""Change every document of a collection with a function in Python. I/O."""

from .lab import Lab, Ran
from .peers import MONGODB_MIGRATIONS, MYDOCS, PYMONGO_MIGRATE
from .table import Row, Section, cannot

NAME = "batches"
BY_HAND = "PyMongo by hand"
SIZES = (10_000, 100_000)
MILLION = 1_000_000  # on request: both tools together take five minutes on a local server
QUICK_SIZES = (1_000, 5_000)
BATCH = 1_000


def measure(lab: Lab) -> Section:
    """Change one collection by each tool, each into a field of its own."""
    rows: list[Row] = []
    sizes = QUICK_SIZES if lab.quick else SIZES
    for size in (*sizes, MILLION) if lab.million else sizes:
        database = lab.database()
        lab.run(lab.tools.worker(MYDOCS, "batches", lab.url, database, "fill", size))
        rounds = 1 if lab.quick or size == MILLION else 3  # a thousand batches are an average in themselves
        found: dict[str, list[tuple[Ran, int]]] = {BY_HAND: [], MYDOCS: []}
        for turn in range(rounds):
            for tool, mode in ((BY_HAND, "hand"), (MYDOCS, "transform")):
                before = lab.seen[database].total
                ran = lab.run(lab.tools.worker(MYDOCS, "batches", lab.url, database, mode, f"{mode}{turn}"))
                found[tool].append((ran, lab.seen[database].total - before))
        lab.run(lab.tools.worker(MYDOCS, "batches", lab.url, database, "drop", size))
        base = _median(found[BY_HAND])
        rows += [_row(size, tool, runs, base) for tool, runs in found.items()]
    why = "no helper: a migration holds a loop written by hand"
    rows += [cannot(NAME, "any number", tool, why) for tool in (PYMONGO_MIGRATE, MONGODB_MIGRATIONS)]
    return Section(
        title=f"Set a field computed in Python, batches of {BATCH:,}; ratio to the loop by hand",
        limit="2 commands a batch: read it, write it; memory of one batch",
        rows=tuple(rows),
    )


def _median(runs: list[tuple[Ran, int]]) -> float:
    return sorted(float(ran.told["seconds"]) for ran, _ in runs)[len(runs) // 2]


def _row(size: int, tool: str, runs: list[tuple[Ran, int]], base: float) -> Row:
    memory = max(ran.told["peak_mb"] - ran.told["idle_mb"] for ran, _ in runs)
    safe = "guarded against others' writes, goes on after a kill" if tool == MYDOCS else "neither of these"
    return Row(
        section=NAME,
        work=f"{size:,} documents",
        tool=tool,
        size=size,
        seconds=tuple(float(ran.told["seconds"]) for ran, _ in runs),
        commands=sorted(commands for _, commands in runs)[len(runs) // 2],
        ratio=_median(runs) / base,
        note=f"{size / _median(runs):,.0f} a second; +{memory:.0f} MB; {safe}",
    )
