"""
Tell whether the process that holds a lease has ended, if this machine can know it. I/O: reads ``/proc``; Linux only.

A process id alone is not enough: containers on one machine share the boot id, often share the host name, and number
their processes separately. So the holder is looked up only if its boot id, process id namespace and host name are those
of this process. In any other case the lease runs out by the server's clock.
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
    """Return the identity of this process, or ``None`` if the machine does not tell."""
    return _own(os.getpid())


def parse(owner: Mapping[str, Any]) -> HolderProcess | None:
    """Read the holder's process from the lease's document, or return ``None`` if it is incomplete."""
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
    """Return the fields that the lease's document keeps besides host and pid."""
    return {"boot": process.boot, "namespace": process.namespace, "started": process.started}


def has_ended(holder: HolderProcess | None, own: HolderProcess | None) -> bool:
    """Return whether the holder ran on this machine, in this namespace, and has ended."""
    if holder is None or own is None or holder.pid == own.pid:
        return False
    if (holder.host, holder.boot, holder.namespace) != (own.host, own.boot, own.namespace):
        return False
    try:
        os.kill(holder.pid, 0)
    except ProcessLookupError:
        return True
    except OSError:  # the process of another user: it is alive, and nothing more can be read
        return False
    told = _told_of(holder.pid)
    # The process may end between the two reads. The next call then tells.
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
    """Return state and start time of a process: fields 3 and 22 of ``/proc/PID/stat`` (proc_pid_stat(5))."""
    try:
        text = (PROC / str(pid) / "stat").read_text("utf-8", "replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()  # a program's name may contain spaces and brackets
    try:
        return fields[0], int(fields[19])
    except (IndexError, ValueError):
        return None
