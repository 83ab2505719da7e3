"""First and repeated runs of trivial migrations, here and 20 ms away. I/O."""

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


@dataclass(frozen=True, slots=True)
class Pair:
    """A tool's first and second run on one new database."""

    seconds: tuple[float, float]
    commands: tuple[int, int]


def measure(lab: Lab) -> Section:
    """Measure near runs one by one; far ones, which wait nearly all of their time, side by side."""
    # A thousand migrations are two thousand and more round trips, which is an average in itself.
    rounds = {10: 1} if lab.quick else {10: 5, 100: 3, 1_000: 1}
    rows: list[Row] = []
    with scratch() as base:
        for count in rounds:
            for tool in RUNNERS:
                write_migrations(folder_of(base, tool, count), tool, count)
        for round_trip in (0.0, AWAY):
            for count, times in rounds.items():
                again = 3 if count == 1_000 and not round_trip else times
                with lab.at_distance(round_trip) as url:
                    jobs = [(tool, url, folder_of(base, tool, count), count) for _ in range(again) for tool in RUNNERS]
                    pairs = side_by_side(lambda job: _pair(lab, *job), jobs, len(RUNNERS) if round_trip else 1)
                rows += _rows(jobs, pairs, count, round_trip)
    return Section(
        title="N migrations that each insert one document: whole processes; ratio to mydocs",
        limit="first 3 N + 3 commands: 2 N + 3 of a runner with a lease, N of the scripts; repeated 1",
        rows=tuple(rows),
    )


def _pair(lab: Lab, tool: str, url: str, folder: Path, count: int) -> Pair:
    database = lab.database()
    argv = lab.tools.run_command(tool, url, database, folder)
    seen = lab.seen[database]
    first = lab.run(argv).seconds
    after_first = seen.total
    again = lab.run(argv).seconds
    if seen.inserts["runs"] != count:
        raise RuntimeError(f"{tool} ran {seen.inserts['runs']} of {count} migrations")
    return Pair((first, again), (after_first, seen.total - after_first))


def _rows(jobs: list[tuple[str, str, Path, int]], pairs: list[Pair], count: int, round_trip: float) -> list[Row]:
    rows = []
    where = f"{count:,} at {round_trip * 1000:.0f} ms"
    for which, what in enumerate(("first", "repeated")):
        of = {tool: [pair for job, pair in zip(jobs, pairs, strict=True) if job[0] == tool] for tool in RUNNERS}
        ours = median(pair.seconds[which] for pair in of[MYDOCS])
        for tool, found in of.items():
            commands = median(pair.commands[which] for pair in found)
            own = commands - (0 if which else count)
            rows.append(
                Row(
                    section=NAME,
                    work=f"{what} {where}",
                    tool=tool,
                    size=count,
                    seconds=tuple(pair.seconds[which] for pair in found),
                    commands=commands,
                    ratio=median(pair.seconds[which] for pair in found) / ours,
                    note=f"{own:,.0f} of its own{EXTRAS[tool]}",
                )
            )
    return rows
