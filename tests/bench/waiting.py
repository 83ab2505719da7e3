"""From the command that asks for search indexes until somebody knows that they can be queried. I/O."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median

from .lab import Lab, Ran, Seen, side_by_side
from .peers import MYDOCS, SEARCH_UTILS
from .table import Row, Section

NAME = "waiting"
ONE_BY_ONE = "search-utils, one by one"
ALL_FIRST = "search-utils, all first"
PLAIN_LOOP = "5-second loop, all first"
PENDING = 0.1  # seconds until a build starts
SHORTEST, LONGEST = 0.5, 8.0  # seconds of the builds
QUICK_LONGEST = 2.0
PATIENCE = 300.0  # seconds of builds in a row that the bench sits out


@dataclass(frozen=True, slots=True)
class Case:
    """So many indexes on so many collections, with their build times."""

    indexes: int
    collections: int
    builds: dict[str, float]

    @property
    def work(self) -> str:
        return f"{self.indexes} on {self.collections}"

    @property
    def slowest(self) -> float:
        return max(self.builds.values()) + PENDING

    @property
    def sum(self) -> float:
        return sum(self.builds.values()) + PENDING * self.indexes


def cases(lab: Lab) -> list[Case]:
    """Draw build times between the shortest and the longest, any factor being as likely as another."""
    sizes = [(1, 1), (10, 1), (10, 5), (50, 1), (50, 5), (50, 20), (200, 1), (200, 5), (200, 20)]
    longest = LONGEST
    if lab.quick:
        sizes, longest = [(1, 1), (200, 20)], QUICK_LONGEST
    return [_case(indexes, collections, longest) for indexes, collections in sizes]


def _case(indexes: int, collections: int, longest: float) -> Case:
    chance = random.Random(indexes * 100 + collections)
    times = [SHORTEST * (longest / SHORTEST) ** chance.random() for _ in range(indexes)]
    times[chance.randrange(indexes)] = longest
    return Case(indexes, collections, {f"i{indexes}_{collections}_{n}": time for n, time in enumerate(times)})


def prepare(lab: Lab) -> None:
    """Tell the server how long each build takes."""
    for case in cases(lab):
        for name, seconds in case.builds.items():
            lab.server.search.outcome(name, pending_seconds=PENDING, build_seconds=seconds)


def measure_one_by_one(lab: Lab) -> dict[str, list[tuple[Ran, Seen]]]:
    """Let pymongo-search-utils create and wait as its functions do it; takes the sum of all builds."""
    chosen = [case for case in cases(lab) if case.sum <= (8.0 if lab.quick else PATIENCE)]
    found = side_by_side(partial(_run, lab, tool=ONE_BY_ONE), chosen, 6)
    return {case.work: [pair] for case, pair in zip(chosen, found, strict=True)}


def measure(lab: Lab, one_by_one: dict[str, list[tuple[Ran, Seen]]]) -> Section:
    """Measure the rest; rounds of one case run side by side, since all of them wait."""
    rounds = 1 if lab.quick else 3
    rows: list[Row] = []
    all_cases = cases(lab)
    ours = [side_by_side(partial(_run, lab, tool=MYDOCS), [case] * rounds, rounds) for case in all_cases]
    theirs = {
        tool: side_by_side(partial(_run, lab, tool=tool), all_cases * rounds, 4) for tool in (ALL_FIRST, PLAIN_LOOP)
    }
    for number, case in enumerate(all_cases):
        rows.append(_row(case, MYDOCS, ours[number]))
        rows += [_row(case, tool, found[number :: len(all_cases)]) for tool, found in theirs.items()]
        if case.work in one_by_one:
            rows.append(_row(case, ONE_BY_ONE, one_by_one[case.work]))
        else:
            note = f"not run: builds in a row are {case.sum:.0f} s and more"
            rows.append(Row(section=NAME, work=case.work, tool=ONE_BY_ONE, note=note))
    return Section(
        title="Create search indexes and wait until all can be queried; ratio to the slowest build",
        limit=f"the slowest build, {all_cases[0].slowest:.1f} s",
        rows=tuple(rows),
    )


def _run(lab: Lab, case: Case, *, tool: str) -> tuple[Ran, Seen]:
    database = lab.database()
    mode = {MYDOCS: "mydocs", ONE_BY_ONE: "one-by-one", ALL_FIRST: "all-first", PLAIN_LOOP: "plain"}[tool]
    home = MYDOCS if tool == MYDOCS else SEARCH_UTILS
    worker = "wait_mydocs" if tool == MYDOCS else "wait_peers"
    argv = lab.tools.worker(home, worker, lab.url, database, mode, case.collections, *case.builds)
    ran = lab.run(argv)
    lab.drop(database)
    return ran, lab.seen[database]


def _row(case: Case, tool: str, found: Sequence[tuple[Ran, Seen]]) -> Row:
    late = sorted(
        ran.told["seen"][name] - (seen.created[name] + PENDING + build)
        for ran, seen in found
        for name, build in case.builds.items()
    )
    seconds = tuple(float(ran.told["seconds"]) for ran, _ in found)
    looks = median(seen.looks.total() for _, seen in found)
    most = max(max(seen.looks.values()) for _, seen in found)
    memory = max(ran.told["peak_mb"] - ran.told["idle_mb"] for ran, _ in found)
    return Row(
        section=NAME,
        work=case.work,
        tool=tool,
        size=case.indexes,
        seconds=seconds,
        commands=median(seen.total for _, seen in found),
        ratio=median(seconds) / case.slowest,
        note=f"late {median(late):.2f} s, at most {late[-1]:.2f} s; {looks:.0f} looks, "
        f"{most} at one collection; +{memory:.0f} MB",
    )
