"""Many runners that start at the same moment on one database. I/O."""

import subprocess
import tempfile
import threading
import time
from pathlib import Path
from statistics import mean, median

from mydocs.migrations.limits import Limits

from .lab import Lab, Ran, Seen, folder_of, scratch
from .peers import MYDOCS, OURS, environment, write_migrations
from .table import Row, Section, cannot

NAME = "crowds"
PROCESSES = 8
SCRIPTS = 20
TASKS = (10, 50, 200, 1_000)


def measure(lab: Lab) -> Section:
    """Release eight processes at once; then start many tasks in one process."""
    rounds = 1 if lab.quick else 3
    rows: list[Row] = []
    tools = lab.tools
    with scratch() as base:
        folders = {tool: write_migrations(folder_of(base, tool), tool, SCRIPTS) for tool in tools.python_runners}
        crowds = [{tool: _processes(lab, tool, folder) for tool, folder in folders.items()} for _ in range(rounds)]
        rows += [_process_row(tool, [crowd[tool] for crowd in crowds]) for tool in folders]
        for tasks in TASKS[::2] if lab.quick else TASKS:
            works = [{tool: _tasks(lab, tool, tasks, folders[tool]) for tool in tools.ours} for _ in range(rounds)]
            rows += [_task_row(tool, tasks, [work[tool] for work in works]) for tool in tools.ours]
    why = "without a lock that others wait for, each replica runs every script, as the eight processes do"
    rows += [cannot(NAME, "replicas in one process", tool, why) for tool in tools.runners if tool not in OURS]
    return Section(
        title=f"Crowds on {SCRIPTS} scripts of one insert each; without a lock no bare program could do it",
        limit=f"each script once; {2 * SCRIPTS + 4} commands of the one that works, 2 of each other",
        rows=tuple(rows),
    )


def _processes(lab: Lab, tool: str, folder: Path) -> tuple[float, int, Seen]:
    """Start processes that have imported everything and wait for the end of their input; then end it for all."""
    database = lab.database()
    program, *arguments = lab.tools.run_command(tool, lab.url, database, folder)
    argv = lab.tools.worker(tool, "gate", Path(program).name, *arguments)
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


def _tasks(lab: Lab, tool: str, tasks: int, folder: Path) -> tuple[Ran, Seen]:
    database = lab.database()
    ran = lab.run(lab.tools.worker(tool, "tasks_mydocs", lab.url, database, folder, tasks), database)
    return ran, lab.seen[database]


def _task_row(tool: str, tasks: int, found: list[tuple[Ran, Seen]]) -> Row:
    behind = max(ran.told["behind"] for ran, _ in found)
    memory = max(ran.told["peak_mb"] - ran.told["idle_mb"] for ran, _ in found)
    times = mean(seen.inserts["runs"] / SCRIPTS for _, seen in found)
    commands = median(ran.commands for ran, _ in found)
    own = commands - 2 * SCRIPTS
    return Row(
        section=NAME,
        work=f"{tasks:,} tasks of one process",
        tool=tool,
        size=tasks,
        seconds=tuple(ran.told["seconds"] for ran, _ in found),
        processor=tuple(ran.told["processor"] for ran, _ in found),
        commands=commands,
        limit="2 s after the leader",
        note=f"each script ran {times:.1f} times; last one back {behind:.2f} s after the leader; "
        f"{own / tasks:.1f} commands a task; +{memory:.0f} MB",
    )
