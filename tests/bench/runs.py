"""First and repeated runs of trivial migrations, here and 20 ms away. I/O."""

from dataclasses import dataclass
from pathlib import Path
from statistics import median

from .lab import Lab, Ran, folder_of, row_of, scratch, side_by_side
from .peers import BARE, MYDOCS, write_migrations
from .table import Row, Section

NAME = "runs"
AWAY = 0.020  # seconds of added round trip: another region of the same continent


@dataclass(frozen=True, slots=True)
class Size:
    """So many migrations from so far away, and how often they are run for the first time and again."""

    count: int
    round_trip: float
    first: int
    repeated: int
    at_once: bool = False  # all tools side by side: they wait nearly all of their time

    @property
    def where(self) -> str:
        return f"{self.count:,} at {self.round_trip * 1000:.0f} ms"


QUICK = (Size(10, 0.0, 1, 1), Size(10, AWAY, 1, 1))
# Many migrations are an average in themselves.
SIZES = (
    *(Size(10, 0.0, 5, 5), Size(100, 0.0, 3, 3), Size(1_000, 0.0, 3, 2)),
    *(Size(10, AWAY, 3, 3), Size(100, AWAY, 1, 3), Size(1_000, AWAY, 1, 1, at_once=True)),
)


FEW = 10  # migrations: what a process costs once, which is left out of a script's share
MOST_A_SCRIPT = 0.3  # ms of processor above the bare loop


def measure(lab: Lab) -> Section:
    """Compare with a loop that sends the same commands, and with one read of the ledger."""
    rows: list[Row] = []
    few: dict[str, list[Ran]] = {}
    with scratch() as base:
        for size in QUICK if lab.quick else SIZES:
            folders = {
                tool: write_migrations(folder_of(base, tool, size.where), tool, size.count)
                for tool in lab.tools.runners
            }
            with lab.at_distance(size.round_trip) as url:
                databases, first = _first_runs(lab, url, size, folders)
                repeated = _repeated_runs(lab, url, size, folders, databases)
            few = first if size.count == FEW else few
            limit = f"{2 * size.count + 12:,} of its own; {MOST_A_SCRIPT} ms a script"
            for tool, runs in first.items():
                note = _note(size, tool, first, few)
                rows.append(row_of(NAME, f"first {size.where}", tool, runs, limit, size=size.count, note=note))
            for tool, runs in repeated.items():
                rows.append(row_of(NAME, f"repeated {size.where}", tool, runs, "1 command", size=size.count))
    return Section(
        title="N migrations that each insert one document: whole processes",
        limit="first 2 N + 4 commands: N + 4 of a runner with a lease, N of the scripts; repeated 1",
        rows=tuple(rows),
    )


def _first_runs(
    lab: Lab, url: str, size: Size, folders: dict[str, Path]
) -> tuple[dict[str, str], dict[str, list[Ran]]]:
    """Run each tool on new databases, and return the last of them beside what was measured."""
    tools = (BARE, *folders)
    turns = [(tool, lab.database()) for _ in range(size.first) for tool in tools]

    def run(turn: tuple[str, str]) -> Ran:
        tool, database = turn
        if tool == BARE:
            ran = lab.run(lab.tools.worker(MYDOCS, "bare", url, database, "loop", size.count), database)
        else:
            ran = lab.run(lab.tools.run_command(tool, url, database, folders[tool]), database)
        inserted = lab.seen[database].inserts["runs"]
        if inserted != size.count:
            raise RuntimeError(f"{tool} ran {inserted} of {size.count} migrations")
        return ran

    measured = side_by_side(run, turns, len(tools) if size.at_once else 1)
    found: dict[str, list[Ran]] = {tool: [] for tool in tools}
    for (tool, _), ran in zip(turns, measured, strict=True):
        found[tool].append(ran)
    return dict(turns), found


def _repeated_runs(
    lab: Lab, url: str, size: Size, folders: dict[str, Path], databases: dict[str, str]
) -> dict[str, list[Ran]]:
    ledger = databases[MYDOCS]
    commands = {BARE: (lab.tools.worker(MYDOCS, "bare", url, ledger, "read"), ledger)}
    for tool, folder in folders.items():
        commands[tool] = lab.tools.run_command(tool, url, databases[tool], folder), databases[tool]
    return lab.in_turn(size.repeated, commands)


def _note(size: Size, tool: str, first: dict[str, list[Ran]], few: dict[str, list[Ran]]) -> str:
    """Say how many commands are the tool's own and, for many migrations here, what each adds in processor time."""
    note = f"{median(run.commands for run in first[tool]) - size.count:,.0f} commands of its own"
    if size.round_trip or size.count == FEW:
        return note
    share, bare = (
        (min(run.processor for run in first[which]) - min(run.processor for run in few[which])) / (size.count - FEW)
        for which in (tool, BARE)
    )
    above = "" if tool == BARE else f", {(share - bare) * 1000:+.2f} beside bare"
    return f"{note}; {share * 1000:.2f} ms of processor a script{above}"
