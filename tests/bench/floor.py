"""Short commands, and a script's share of a first run, beside a bare program that does the least. I/O."""

from collections.abc import Sequence
from pathlib import Path
from statistics import median

from .lab import Lab, Ran, folder_of, scratch
from .peers import MONGODB_MIGRATIONS, MYDOCS, PYMONGO_MIGRATE, RUNNERS, write_migrations
from .table import Row, Section

NAME = "floor"
BARE = "bare program"
AWAY = 0.020  # seconds of added round trip
SCRIPTS = 10
MANY = 300  # scripts of a first run: so many that what else the machine does is little beside them
MOST = 1.35  # of the bare program's wall and processor time, for a command with nothing to do
MOST_A_SCRIPT = 0.3  # ms of processor above the bare loop


def measure(lab: Lab) -> Section:
    """Run all of them in turn, round for round. Processor times are the lowest: noise only adds to them."""
    rows: list[Row] = []
    with scratch() as base:
        few = {tool: write_migrations(folder_of(base, tool, SCRIPTS), tool, SCRIPTS) for tool in RUNNERS}
        many = write_migrations(folder_of(base, MYDOCS, MANY), MYDOCS, MANY)
        databases = {tool: lab.database() for tool in RUNNERS}
        for tool in RUNNERS:
            lab.run(lab.tools.run_command(tool, lab.url, databases[tool], few[tool]))
        for round_trip in (0.0, AWAY):
            with lab.at_distance(round_trip) as url:
                where = ["--url", url, "--db", databases[MYDOCS], "--dir", str(few[MYDOCS])]
                # What the installed program does: `python -m mydocs` imports runpy on top.
                mydocs = [lab.tools.pythons[MYDOCS], "-c", "from mydocs.cli.main import main; main()", "migrate"]
                commands = {
                    ("nothing to do", BARE): lab.tools.worker(MYDOCS, "bare", url, databases[MYDOCS], "read"),
                    ("nothing to do", MYDOCS): [*mydocs, "run", *where],
                    ("status", MYDOCS): [*mydocs, "status", *where],
                    **{
                        ("nothing to do", tool): lab.tools.run_command(tool, url, databases[tool], few[tool])
                        for tool in (PYMONGO_MIGRATE, MONGODB_MIGRATIONS)
                    },
                }
                rows += _short(lab, commands, f"of {SCRIPTS} at {round_trip * 1000:.0f} ms")
        rows += _scripts(lab, few[MYDOCS], many)
    return Section(
        title="A command with nothing to do, and a script of a first run; ratio of processor time to the bare program",
        limit=f"the bare program; at most {MOST} x of it, and {MOST_A_SCRIPT} ms of processor a script above its loop",
        rows=tuple(rows),
    )


def _short(lab: Lab, commands: dict[tuple[str, str], list[str]], what: str) -> list[Row]:
    found: dict[tuple[str, str], list[Ran]] = {key: [] for key in commands}
    for _ in range(3 if lab.quick else 8):
        for key, argv in commands.items():
            found[key].append(lab.run(argv))
    bare = found["nothing to do", BARE]
    others = [runs for (_, tool), runs in found.items() if tool not in (BARE, MYDOCS)]
    return [
        Row(
            section=NAME,
            work=f"{work} {what}",
            tool=tool,
            seconds=tuple(run.seconds for run in runs),
            ratio=_processor(runs) / _processor(bare),
            note=f"processor {_processor(runs):.3f} s; wall {_wall(runs) / _wall(bare):.2f} x bare; "
            f"processor {_processor(runs) / min(map(_processor, others)):.2f} x the best of the others"
            + (f"; at most {MOST}" if tool == MYDOCS else ""),
        )
        for (work, tool), runs in found.items()
    ]


def _scripts(lab: Lab, few: Path, many: Path) -> list[Row]:
    """Compare first runs of many with first runs of a few, so that what each process costs once is in neither."""
    loops: dict[int, list[Ran]] = {SCRIPTS: [], MANY: []}
    runs: dict[int, list[Ran]] = {SCRIPTS: [], MANY: []}
    for _ in range(2 if lab.quick else 6):
        for count, folder in ((SCRIPTS, few), (MANY, many)):
            loops[count].append(lab.run(lab.tools.worker(MYDOCS, "bare", lab.url, lab.database(), "loop", count)))
            runs[count].append(lab.run(lab.tools.run_command(MYDOCS, lab.url, lab.database(), folder)))
    bare, own = _a_script(loops), _a_script(runs)
    found = {
        BARE: (loops, bare, f"{bare:.2f} ms of processor"),
        MYDOCS: (runs, own, f"{own:.2f} ms of processor, {own - bare:.2f} ms above the loop; at most {MOST_A_SCRIPT}"),
    }
    return [
        Row(
            section=NAME,
            work=f"a script of a first run of {MANY}",
            tool=tool,
            seconds=tuple(run.seconds for run in measured[MANY]),
            ratio=milliseconds / bare,
            note=note,
        )
        for tool, (measured, milliseconds, note) in found.items()
    ]


def _a_script(runs: dict[int, list[Ran]]) -> float:
    return (_processor(runs[MANY]) - _processor(runs[SCRIPTS])) * 1000 / (MANY - SCRIPTS)


def _processor(runs: Sequence[Ran]) -> float:
    return min(run.processor for run in runs)


def _wall(runs: Sequence[Ran]) -> float:
    return median(run.seconds for run in runs)
