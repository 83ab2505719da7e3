"""
Tell whether the process that holds a lease has ended, where this machine can know it. Reads ``/proc``; Linux only.

A process id says nothing by itself: containers on one machine have the same boot id, often the same host name, and each
its own ids. So a holder is looked up only where boot, namespace of process ids, and host name are this process' own.
Anywhere else nobody guesses, and the lease runs out by the server's clock.
"""

import os
import socket
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from mydocs.migrations.model import HolderProcess

PROC = Path("/proc")


def own_process() -> HolderProcess | None:
    """Say which process this is; ``None`` where the machine does not tell."""
    return _own(os.getpid())


def parse(owner: Mapping[str, Any]) -> HolderProcess | None:
    """Read what the lease's document says of its holder's process; ``None`` where it says too little."""
    told = owner.get("process")
    if not isinstance(told, Mapping):
        return None
    host, pid = owner.get("host"), owner.get("pid")
    boot, namespace, started = told.get("boot"), told.get("namespace"), told.get("started")
    if not (isinstance(host, str) and isinstance(boot, str) and isinstance(namespace, str)):
        return None
    if not isinstance(pid, int) or not isinstance(started, int) or pid <= 0:
        return None
    return HolderProcess(host=host, pid=pid, boot=boot, namespace=namespace, started=started)


def document_of(process: HolderProcess) -> dict[str, Any]:
    """What the lease's document keeps besides host and pid."""
    return {"boot": process.boot, "namespace": process.namespace, "started": process.started}


def has_ended(holder: HolderProcess | None, own: HolderProcess | None) -> bool:
    """Whether the holder ran on this very machine, in this namespace, and does not any more."""
    if holder is None or own is None or holder.pid == own.pid:
        return False
    if (holder.host, holder.boot, holder.namespace) != (own.host, own.boot, own.namespace):
        return False
    try:
        os.kill(holder.pid, 0)
    except ProcessLookupError:
        return True
    except OSError:  # another user's: it lives, and that is all that can be said
        return False
    told = _told_of(holder.pid)
    # Between the two looks it may have gone; the next time will tell.
    return told is not None and (told[1] != holder.started or told[0] in ("Z", "X"))


@cache
def _own(pid: int) -> HolderProcess | None:
    told = _told_of(pid)
    if told is None:
        return None
    try:
        boot = (PROC / "sys" / "kernel" / "random" / "boot_id").read_text("ascii").strip()
        namespace = os.readlink(PROC / "self" / "ns" / "pid")  # noqa: PTH115  # Path.readlink() would resolve nothing else
    except (OSError, UnicodeDecodeError):
        return None
    return HolderProcess(host=socket.gethostname(), pid=pid, boot=boot, namespace=namespace, started=told[1])


def _told_of(pid: int) -> tuple[str, int] | None:
    """Return state and start of a process: fields 3 and 22 of ``/proc/PID/stat`` (proc_pid_stat(5))."""
    try:
        text = (PROC / str(pid) / "stat").read_text("utf-8", "replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()  # a program's name may hold spaces and brackets
    try:
        return fields[0], int(fields[19])
    except (IndexError, ValueError):
        return None
