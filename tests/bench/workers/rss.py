"""How much memory a worker holds. I/O."""

import resource
from pathlib import Path


def megabytes(*, peak: bool) -> float:
    """
    Return the memory of this process now, or the most that it has held.

    Read from /proc where there is one: what getrusage calls the peak counts the process in that this one was
    started from.
    """
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    name = "VmHWM:" if peak else "VmRSS:"
    (line,) = [line for line in status.read_text().splitlines() if line.startswith(name)]
    return int(line.split()[1]) / 1024
