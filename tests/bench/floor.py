"""How long a command takes that reads the database once and has nothing to do. I/O."""

from .lab import Lab, folder_of, row_of, scratch
from .peers import BARE, MONGODB_MIGRATIONS, MYDOCS, STATUS, write_migrations
from .table import Row, Section, cannot

NAME = "floor"
AWAY = 0.020  # seconds of added round trip
SCRIPTS = 10


def measure(lab: Lab) -> Section:
    """Compare with a program that imports Motor, opens a client and reads the ledger once."""
    tools, rows = lab.tools, list[Row]()
    with scratch() as base:
        folders = {tool: write_migrations(folder_of(base, tool), tool, SCRIPTS) for tool in tools.runners}
        databases = {tool: lab.database() for tool in tools.runners}
        for tool in tools.runners:
            lab.run(tools.run_command(tool, lab.url, databases[tool], folders[tool]))
        for round_trip in (0.0, AWAY):
            nothing, status = (f"{what} at {round_trip * 1000:.0f} ms" for what in ("nothing to do", "status"))
            with lab.at_distance(round_trip) as url:
                read = (tools.worker(MYDOCS, "bare", url, databases[MYDOCS], "read"), databases[MYDOCS])
                commands = {(nothing, BARE): read, (status, BARE): read}
                for tool, database in databases.items():
                    commands[nothing, tool] = tools.run_command(tool, url, database, folders[tool]), database
                    if tool in STATUS:
                        commands[status, tool] = tools.status_command(tool, url, database, folders[tool]), database
                found = lab.in_turn(3 if lab.quick else 8, commands)
            rows += [
                row_of(NAME, work, tool, runs, "1.35 / 1.35 x bare")
                for (work, tool), runs in sorted(found.items(), key=lambda item: item[0][0])
            ]
    return Section(
        title=f"Commands with nothing to do, of {SCRIPTS} migrations: whole processes",
        limit="1 command; the bare program imports Motor, opens a client and reads the ledger",
        rows=(*rows, cannot(NAME, "status", MONGODB_MIGRATIONS, "no such command")),
    )
