"""First and repeated runs of trivial migrations, here and 20 ms away. I/O."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from .lab import Lab, folder_of, scratch, side_by_side
from .peers import MONGODB_MIGRATIONS, MYDOCS, PYMONGO_MIGRATE, RUNNERS, write_migrations
from .table import Row, Section

NAME = "runs"
# What commands and time are spent on; a faster row has none of it.
EXTRAS = {
    MYDOCS: ": lease, states before and after, standard indexes",
    PYMONGO_MIGRATE: ": state after; no lock",
    MONGODB_MIGRATIONS: ": state after, one connection each; no lock",
}
AWAY = 0.020  # seconds of added round trip: another region of the same continent
REPEATS = 5


@dataclass(frozen=True, slots=True)
class Job:
    """One tool's runs of so many migrations, from so far away."""

    tool: str
    folder: Path
    count: int
    round_trip: float

    @property
    def where(self) -> str:
        return f"{self.count:,} at {self.round_trip * 1000:.0f} ms"


@dataclass(frozen=True, slots=True)
class Measured:
    """A process that ran all that was pending, and the database that it has left."""

    seconds: float
    commands: int
    database: str


def measure(lab: Lab) -> Section:
    """Measure one run at a time, but far first runs of all tools side by side: they wait nearly all of their time."""
    # A thousand migrations far away are two thousand and more round trips, which is an average in itself.
    sizes = {10: (1, 1)} if lab.quick else {10: (5, 5), 100: (3, 3), 1_000: (3, 1)}
    rows: list[Row] = []
    with scratch() as base:
        folders = {
            (tool, count): write_migrations(folder_of(base, tool, count), tool, count)
            for count in sizes
            for tool in RUNNERS
        }
        for far, round_trip in enumerate((0.0, AWAY)):
            for count, rounds in sizes.items():
                jobs = [Job(tool, folders[tool, count], count, round_trip) for tool in RUNNERS]
                with lab.at_distance(round_trip) as url:
                    first = _rounds(lab, url, jobs, rounds[far], len(RUNNERS) if far else 1)
                    left = {tool: runs[-1].database for tool, runs in first.items()}
                    repeated = _rounds(lab, url, jobs, 1 if lab.quick else REPEATS, 1, left)
                rows += _rows("first", jobs, first) + _rows("repeated", jobs, repeated)
    return Section(
        title="N migrations that each insert one document: whole processes; ratio to mydocs",
        limit="first 2 N + 4 commands: N + 4 of a runner with a lease, N of the scripts; repeated 1",
        rows=tuple(rows),
    )


def _rounds(
    lab: Lab, url: str, jobs: Sequence[Job], rounds: int, at_once: int, databases: dict[str, str] | None = None
) -> dict[str, list[Measured]]:
    """Run each job so often, the tools in turn; each time on a new database unless ``databases`` names them."""
    found: defaultdict[str, list[Measured]] = defaultdict(list)
    in_turn = [job for _ in range(rounds) for job in jobs]
    measured = side_by_side(
        lambda job: _run(lab, url, job, databases[job.tool] if databases else lab.database()), in_turn, at_once
    )
    for job, one in zip(in_turn, measured, strict=True):
        found[job.tool].append(one)
    return found


def _run(lab: Lab, url: str, job: Job, database: str) -> Measured:
    seen = lab.seen[database]
    before = seen.total
    seconds = lab.run(lab.tools.run_command(job.tool, url, database, job.folder)).seconds
    if seen.inserts["runs"] != job.count:
        raise RuntimeError(f"{job.tool} ran {seen.inserts['runs']} of {job.count} migrations")
    return Measured(seconds, seen.total - before, database)


def _rows(what: str, jobs: Sequence[Job], found: dict[str, list[Measured]]) -> list[Row]:
    ours = median(run.seconds for run in found[MYDOCS])
    rows = []
    for job in jobs:
        runs = found[job.tool]
        commands = median(run.commands for run in runs)
        own = commands - (job.count if what == "first" else 0)
        rows.append(
            Row(
                section=NAME,
                work=f"{what} {job.where}",
                tool=job.tool,
                size=job.count,
                seconds=tuple(run.seconds for run in runs),
                commands=commands,
                ratio=median(run.seconds for run in runs) / ours,
                note=f"{own:,.0f} of its own{EXTRAS[job.tool]}",
            )
        )
    return rows
