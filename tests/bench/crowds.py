"""Many runners that start at the same moment on one database. I/O."""

import subprocess
import tempfile
import threading
import time
from pathlib import Path
from statistics import mean, median

from mydocs.migrations.limits import Limits

from .lab import Lab, Ran, Seen, folder_of, scratch
from .peers import MONGODB_MIGRATIONS, MYDOCS, PYMONGO_MIGRATE, RUNNERS, environment, write_migrations
from .table import Row, Section, cannot

NAME = "crowds"
PROCESSES = 8
SCRIPTS = 20
ENTRIES = {
    MYDOCS: "mydocs.cli.main:main",
    PYMONGO_MIGRATE: "pymongo_migrate.cli:cli",
    MONGODB_MIGRATIONS: "mongodb_migrations.cli:main",
}
TASKS = (10, 50, 200, 1_000)


def measure(lab: Lab) -> Section:
    """Release eight processes at once; then start many tasks in one process."""
    rounds = 1 if lab.quick else 3
    rows: list[Row] = []
    with scratch() as base:
        folders = {tool: write_migrations(folder_of(base, tool), tool, SCRIPTS) for tool in RUNNERS}
        for tool in RUNNERS:
            found = [_processes(lab, tool, folders[tool]) for _ in range(rounds)]
            rows.append(_process_row(tool, found))
        for tasks in TASKS[::2] if lab.quick else TASKS:
            works = [_tasks(lab, tasks, folders[MYDOCS]) for _ in range(rounds)]
            rows.append(_task_row(tasks, works))
    why = "without a lock that others wait for, each replica runs every script, as the eight processes do"
    rows += [cannot(NAME, "replicas in one process", tool, why) for tool in RUNNERS[1:]]
    return Section(
        title=f"Crowds on {SCRIPTS} scripts of one insert each",
        limit=f"each script once; {2 * SCRIPTS + 4} commands of the one that works, 2 of each other",
        rows=tuple(rows),
    )


def _processes(lab: Lab, tool: str, folder: Path) -> tuple[float, int, Seen]:
    """Start processes that have imported everything and wait for the end of their input; then end it for all."""
    database = lab.database()
    arguments = lab.tools.run_command(tool, lab.url, database, folder)
    rest = arguments[3:] if tool == MYDOCS else arguments[1:]
    argv = lab.tools.worker(tool, "gate", ENTRIES[tool], *rest)
    processes = [
        subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment(),
            cwd=tempfile.gettempdir(),
        )
        for _ in range(PROCESSES)
    ]
    for process in processes:
        assert process.stdout is not None
        process.stdout.readline()  # "ready"
    began = time.perf_counter()
    # To the end of each in a thread of its own: what they print must not fill a pipe and hold them up.
    threads = [threading.Thread(target=process.communicate) for process in processes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - began
    return seconds, sum(process.returncode != 0 for process in processes), lab.seen[database]


def _process_row(tool: str, found: list[tuple[float, int, Seen]]) -> Row:
    times = mean(seen.inserts["runs"] / SCRIPTS for _, _, seen in found)
    patience = f"; a waiting process looks every {Limits().turn_gap} s at first" if tool == MYDOCS else ""
    return Row(
        section=NAME,
        work=f"{PROCESSES} processes",
        tool=tool,
        seconds=tuple(seconds for seconds, _, _ in found),
        commands=median(seen.total for _, _, seen in found),
        note=f"each script ran {times:.1f} times; {sum(failed for _, failed, _ in found)} of "
        f"{PROCESSES * len(found)} processes failed{patience}",
    )


def _tasks(lab: Lab, tasks: int, folder: Path) -> tuple[Ran, Seen]:
    database = lab.database()
    ran = lab.run(lab.tools.worker(MYDOCS, "tasks_mydocs", lab.url, database, folder, tasks))
    return ran, lab.seen[database]


def _task_row(tasks: int, found: list[tuple[Ran, Seen]]) -> Row:
    behind = max(ran.told["behind"] for ran, _ in found)
    memory = max(ran.told["peak_mb"] - ran.told["idle_mb"] for ran, _ in found)
    times = mean(seen.inserts["runs"] / SCRIPTS for _, seen in found)
    commands = median(seen.total for _, seen in found)
    own = commands - 2 * SCRIPTS
    return Row(
        section=NAME,
        work=f"{tasks:,} tasks of one process",
        tool=MYDOCS,
        size=tasks,
        seconds=tuple(ran.told["seconds"] for ran, _ in found),
        commands=commands,
        note=f"each script ran {times:.1f} times; last one back {behind:.2f} s after the leader; "
        f"{own / tasks:.1f} commands a task; +{memory:.0f} MB",
    )
