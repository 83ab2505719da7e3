"""How long a command takes that needs no database. I/O."""

from .lab import Lab, folder_of, row_of, scratch
from .peers import BARE, MONGODB_MIGRATIONS, MYDOCS, PYMONGO_MIGRATE, SEARCH_UTILS, write_migrations
from .table import Section, cannot

NAME = "startup"
SCRIPTS = 10


def measure(lab: Lab) -> Section:
    """Compare with the import of typer alone: any command line that is built on it takes so long."""
    tools = lab.tools
    python, list_of = tools.program(MYDOCS, "python"), f"list of {SCRIPTS}"
    typer = ([python, "-c", "import typer"], "")
    with scratch() as base:
        folder = write_migrations(folder_of(base, MYDOCS), MYDOCS, SCRIPTS)
        found = lab.in_turn(
            3 if lab.quick else 15,
            {
                ("python -c pass", "python"): ([python, "-c", "pass"], ""),
                ("import motor.motor_asyncio", "python"): ([python, "-c", "import motor.motor_asyncio"], ""),
                ("--help", BARE): typer,
                **{("--help", tool): ([tools.program(tool), "--help"], "") for tool in tools.runners},
                (list_of, BARE): typer,
                **{
                    (list_of, tool): ([tools.program(tool), "migrate", "list", "--dir", str(folder)], "")
                    for tool in tools.ours
                },
            },
        )
    rows = [
        row_of(NAME, work, tool, runs, "1.6 x bare", note="python -c 'import typer'" if tool == BARE else "")
        for (work, tool), runs in found.items()
    ]
    without = [
        cannot(NAME, list_of, PYMONGO_MIGRATE, "`show` needs a database"),
        cannot(NAME, list_of, MONGODB_MIGRATIONS, "no such command"),
        cannot(NAME, "--help", SEARCH_UTILS, "a library without a command line"),
    ]
    return Section(
        title="Commands without a database: whole processes",
        limit="the interpreter's own start, and typer for a command line that is built on it",
        rows=(*rows, *without),
    )
