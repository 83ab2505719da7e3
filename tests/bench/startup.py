"""How long a command takes that has next to nothing to do. I/O."""

from pathlib import Path

from .lab import Lab, folder_of, scratch
from .peers import MONGODB_MIGRATIONS, MYDOCS, PYMONGO_MIGRATE, SEARCH_UTILS, write_migrations
from .table import Row, Section, cannot

NAME = "startup"
SCRIPTS = 10


def measure(lab: Lab) -> Section:
    """Run each command in turn, round for round, so that a noisy moment meets all of them."""
    tools, rounds = lab.tools, 3 if lab.quick else 15
    with scratch() as base:
        folder = write_migrations(folder_of(base, MYDOCS), MYDOCS, SCRIPTS)
        theirs = write_migrations(folder_of(base, PYMONGO_MIGRATE), PYMONGO_MIGRATE, SCRIPTS)
        database, other = lab.database(), lab.database()
        lab.run(tools.run_command(MYDOCS, lab.url, database, folder))
        lab.run(tools.run_command(PYMONGO_MIGRATE, lab.url, other, theirs))
        python = tools.pythons[MYDOCS]
        # What the installed program does: `python -m mydocs` imports runpy on top.
        mydocs = [python, "-c", "from mydocs.cli.main import main; main()"]
        where = ["--url", lab.url, "--db", database, "--dir", str(folder)]
        program = str(Path(tools.pythons[PYMONGO_MIGRATE]).parent / "pymongo-migrate")
        show = [program, "show", "-u", lab.url, "-d", other, "-m", str(theirs)]
        second = str(Path(tools.pythons[MONGODB_MIGRATIONS]).parent / "mongodb-migrate")
        commands = {
            ("python -c pass", "python"): [python, "-c", "pass"],
            ("python -c 'import typer'", "python"): [python, "-c", "import typer"],
            ("python -c 'import motor.motor_asyncio'", "python"): [python, "-c", "import motor.motor_asyncio"],
            ("--help", MYDOCS): [*mydocs, "--help"],
            ("--help", PYMONGO_MIGRATE): [program, "--help"],
            ("--help", MONGODB_MIGRATIONS): [second, "--help"],
            (f"list {SCRIPTS}", MYDOCS): [*mydocs, "migrate", "list", "--dir", str(folder)],
            (f"status of {SCRIPTS}", MYDOCS): [*mydocs, "migrate", "status", *where],
            (f"status of {SCRIPTS}", PYMONGO_MIGRATE): show,
        }
        times: dict[tuple[str, str], list[float]] = {key: [] for key in commands}
        before = {MYDOCS: lab.seen[database].total, PYMONGO_MIGRATE: lab.seen[other].total}
        for _ in range(rounds):
            for key, argv in commands.items():
                times[key].append(lab.run(argv).seconds)
        asked = {
            MYDOCS: (lab.seen[database].total - before[MYDOCS]) / rounds,
            PYMONGO_MIGRATE: (lab.seen[other].total - before[PYMONGO_MIGRATE]) / rounds,
        }
    rows = [
        Row(
            section=NAME,
            work=work,
            tool=tool,
            seconds=tuple(seconds),
            commands=asked[tool] if work.startswith("status") else None,
        )
        for (work, tool), seconds in times.items()
    ]
    typer, bare = rows[1].median or 1.0, rows[0].median or 1.0
    rows = [_with_ratios(row, typer, bare) for row in rows]
    without = [
        cannot(NAME, f"list {SCRIPTS}", PYMONGO_MIGRATE, "`show` needs a database"),
        cannot(NAME, f"list {SCRIPTS}", MONGODB_MIGRATIONS, "no such command"),
        cannot(NAME, f"status of {SCRIPTS}", MONGODB_MIGRATIONS, "no such command"),
        cannot(NAME, "--help", SEARCH_UTILS, "a library without a command line"),
    ]
    return Section(
        title="Start-up of a whole process; ratio to `import typer`",
        limit="the interpreter's own start, and typer for a command line that is built on it",
        rows=(*rows, *without),
    )


def _with_ratios(row: Row, typer: float, bare: float) -> Row:
    median = row.median or 0.0
    return Row(
        section=row.section,
        work=row.work,
        tool=row.tool,
        seconds=row.seconds,
        commands=row.commands,
        ratio=median / typer,
        note=f"{median / bare:.1f} x the bare interpreter",
    )
