"""How cost grows with the size of the work, drawn as text. Pure."""

from collections.abc import Sequence

from . import batches, crowds, fleets, runs, waiting
from .peers import MYDOCS
from .table import Row, Section, plot


def plots(sections: Sequence[Section]) -> str:
    """Draw what the rows of mydocs show; a section that was not measured is left out."""
    ours = [row for section in sections for row in section.rows if row.tool == MYDOCS and row.size and row.seconds]
    first = [row for row in ours if row.section == runs.NAME and row.work.startswith("first")]
    near = [row for row in first if row.work.endswith(" 0 ms") and not row.work.endswith("20 ms")]
    far = [row for row in first if row.work.endswith("20 ms")]
    widest = [row for row in ours if row.section == waiting.NAME and _is_widest(row)]
    tasks = [row for row in ours if row.section == crowds.NAME]
    idle = [row for row in ours if row.section == fleets.NAME and row.work.startswith(fleets.REPEATED)]
    documents = [row for row in ours if row.section == batches.NAME and row.work == f"{row.size:,} documents"]
    drawn = [
        _seconds(near, "migrations", "seconds of the first run at 0 ms"),
        _seconds(far, "migrations", "seconds of the first run at 20 ms"),
        _commands(near, "migrations", "commands of the first run"),
        _seconds(widest, "indexes", "seconds until all are ready"),
        _commands(widest, "indexes", "commands until all are ready"),
        _seconds(tasks, "replicas", "seconds until all are back"),
        _commands(tasks, "replicas", "commands of all of them"),
        _seconds(idle, "databases", "seconds of one process when nothing is to do"),
        _seconds(documents, "documents", "seconds of a transformation"),
        _commands(documents, "documents", "commands of a transformation"),
    ]
    return "\n\n".join(one for one in drawn if one)


def _is_widest(row: Row) -> bool:
    """Of each number of indexes take the one on the most collections."""
    return row.work in {"1 on 1", "10 on 5", "50 on 20", "200 on 20"}


def _seconds(rows: Sequence[Row], x: str, y: str) -> str:
    points = [(float(row.size or 0), row.median or 0.0) for row in rows]
    return plot(points, x=x, y=y) if len(points) > 1 else ""


def _commands(rows: Sequence[Row], x: str, y: str) -> str:
    points = [(float(row.size or 0), row.commands or 1.0) for row in rows]
    return plot(points, x=x, y=y) if len(points) > 1 else ""
