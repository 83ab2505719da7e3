"""From the command that asks for search indexes until somebody knows that they can be queried. I/O."""

import random
from dataclasses import dataclass
from statistics import median

from .lab import Lab, Ran, Seen, side_by_side
from .peers import BARE, BEFORE, MYDOCS, OURS, SEARCH_UTILS
from .table import Row, Section

NAME = "waiting"
ONE_BY_ONE = "search-utils, one by one"
PENDING = 0.1  # seconds until a build starts
SHORTEST, LONGEST = 0.5, 8.0  # seconds of the builds
QUICK_LONGEST = 2.0
PATIENCE = 60.0  # seconds of builds in a row that the bench sits out
AT_ONCE = 5  # processes: all of them sleep nearly all of the time
WORKERS = {  # tool → its environment, its worker, and what the worker is told
    BARE: (MYDOCS, "wait_bare", "bare"),
    MYDOCS: (MYDOCS, "wait_mydocs", "together"),
    BEFORE: (BEFORE, "wait_mydocs", "one by one"),
    "search-utils, all first": (SEARCH_UTILS, "wait_peers", "all-first"),
    "5-second loop, all first": (SEARCH_UTILS, "wait_peers", "plain"),
    ONE_BY_ONE: (SEARCH_UTILS, "wait_peers", "one-by-one"),
}


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
    sizes = [(1, 1), (10, 1), (10, 5), (50, 5), (50, 20), (200, 1), (200, 20)]
    longest = LONGEST
    if lab.quick:
        sizes, longest = [(1, 1), (200, 20)], QUICK_LONGEST
    return [_case(indexes, collections, longest) for indexes, collections in sizes]


def _case(indexes: int, collections: int, longest: float) -> Case:
    chance = random.Random(indexes * 100 + collections)
    times = [SHORTEST * (longest / SHORTEST) ** chance.random() for _ in range(indexes)]
    times[chance.randrange(indexes)] = longest
    return Case(indexes, collections, {f"i{indexes}_{collections}_{n}": time for n, time in enumerate(times)})


def measure(lab: Lab) -> Section:
    """Tell the server how long each build takes; then run some processes side by side, each tool in turn."""
    all_cases = cases(lab)
    for case in all_cases:
        for name, seconds in case.builds.items():
            lab.server.search.outcome(name, pending_seconds=PENDING, build_seconds=seconds)
    turns = [
        (case, tool)
        for case in all_cases
        for number in range(1 if lab.quick else 3)
        for tool, (home, _, _) in WORKERS.items()
        if home in lab.tools.programs and (tool != ONE_BY_ONE or (case.sum <= PATIENCE and number == 0))
    ]
    measured = side_by_side(lambda turn: _run(lab, *turn), turns, AT_ONCE)
    found: dict[tuple[str, str], list[tuple[Ran, Seen]]] = {}
    for (case, tool), one in zip(turns, measured, strict=True):
        found.setdefault((case.work, tool), []).append(one)
    return Section(
        title="Create search indexes and wait until all can be queried",
        limit=f"the slowest build, {all_cases[0].slowest:.1f} s",
        rows=tuple(
            _row(case, tool, found[case.work, tool])
            for case in all_cases
            for tool in WORKERS
            if (case.work, tool) in found
        ),
    )


def _run(lab: Lab, case: Case, tool: str) -> tuple[Ran, Seen]:
    home, worker, mode = WORKERS[tool]
    database = lab.database()
    argv = lab.tools.worker(home, worker, lab.url, database, mode, case.collections, *case.builds)
    ran = lab.run(argv, database)
    lab.drop(database)
    return ran, lab.seen[database]


def _row(case: Case, tool: str, found: list[tuple[Ran, Seen]]) -> Row:
    late = sorted(
        ran.told["seen"][name] - (seen.created[name] + PENDING + build)
        for ran, seen in found
        for name, build in case.builds.items()
    )
    seconds = tuple(float(ran.told["seconds"]) for ran, _ in found)
    processor = tuple(float(ran.told["processor"]) for ran, _ in found)
    looks = median(seen.looks.total() for _, seen in found)
    most = max(max(seen.looks.values()) for _, seen in found)
    a_look = min(ran.told["looking"] / (seen.looks.total() - ran.told.get("not_counted", 0)) for ran, seen in found)
    memory = max(ran.told["peak_mb"] - ran.told["idle_mb"] for ran, _ in found)
    return Row(
        section=NAME,
        work=case.work,
        tool=tool,
        size=case.indexes,
        seconds=seconds,
        processor=processor,
        commands=median(ran.commands for ran, _ in found),
        bare=tool == BARE,
        limit=f"{1.06 * case.slowest + 0.8:.2f} s; 85 looks, 1 ms each; 60 MB" if tool in OURS else "",
        note=f"{median(seconds) / case.slowest:.2f} x the slowest build; "
        f"late {median(late):.2f} s, at most {late[-1]:.2f} s; "
        f"{looks:.0f} looks, {most} at one collection, {a_look * 1000:.1f} ms each; +{memory:.0f} MB",
    )
