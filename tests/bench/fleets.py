"""Many databases that are brought up to date from one process. I/O."""

from statistics import median

from .lab import Lab, Ran, folder_of, scratch
from .peers import MONGODB_MIGRATIONS, MYDOCS, PYMONGO_MIGRATE, write_migrations
from .table import Row, Section, cannot

NAME = "fleets"
SCRIPTS = 10
FIRST, REPEATED = "first", "repeated"


def measure(lab: Lab) -> Section:
    """Run the same folder on ever more databases, twice."""
    rows: list[Row] = []
    rounds = 1 if lab.quick else 3
    with scratch() as base:
        folder = write_migrations(folder_of(base, MYDOCS), MYDOCS, SCRIPTS)
        for size in (10, 50) if lab.quick else (10, 100, 400):
            found: list[tuple[Ran, int]] = []
            for _ in range(rounds):
                names = [lab.database() for _ in range(size)]
                ran = lab.run(lab.tools.worker(MYDOCS, "fleet_mydocs", lab.url, folder, *names))
                found.append((ran, sum(lab.seen[name].total for name in names)))
            memory = max(ran.told["peak_mb"] - ran.told["idle_mb"] for ran, _ in found)
            for which in (FIRST, REPEATED):
                seconds = tuple(float(ran.told[which]) for ran, _ in found)
                repeated = size  # one command each; a test holds that
                total = median(commands for _, commands in found) - 1  # the worker's ping
                rows.append(
                    Row(
                        section=NAME,
                        work=f"{which} run on {size}",
                        tool=MYDOCS,
                        size=size,
                        seconds=seconds,
                        commands=repeated if which == REPEATED else total - repeated,
                        note=f"{median(seconds) / size * 1000:.1f} ms a database; +{memory:.0f} MB",
                    )
                )
    why = "one process for each database"
    rows += [cannot(NAME, "many in one process", tool, why) for tool in (PYMONGO_MIGRATE, MONGODB_MIGRATIONS)]
    return Section(
        title=f"Databases from one process, {SCRIPTS} migrations each, 16 at one time",
        limit=f"first {2 * SCRIPTS + 4} commands a database, repeated 1",
        rows=tuple(rows),
    )
