"""What was measured, as values, as a table and as JSON. Pure."""

import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from math import log10

DECADE = 12  # columns of a plot for a factor of ten
HEAD = ("work", "tool", "median s", "spread", "commands", "ratio", "what it says")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """
    One tool at one piece of work.

    :param size: how much work it is, where that differs between rows: what costs are drawn against
    :param seconds: one for each round; none where the tool cannot do it, and ``note`` says so
    :param commands: on the wire, without handshake and monitoring, median of the rounds
    :param ratio: the median over what the section compares with
    """

    section: str
    work: str
    tool: str
    size: int | None = None
    seconds: tuple[float, ...] = ()
    commands: float | None = None
    ratio: float | None = None
    note: str = ""

    @property
    def median(self) -> float | None:
        return statistics.median(self.seconds) if self.seconds else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """Rows that answer one question, and the least that theory allows."""

    title: str
    limit: str
    rows: tuple[Row, ...]


def cannot(section: str, work: str, tool: str, why: str) -> Row:
    """Say that a tool has no answer to a piece of work."""
    return Row(section=section, work=work, tool=tool, note=f"cannot: {why}")


def spread(values: Sequence[float]) -> str:
    """Show the lowest and the highest of several rounds."""
    if len(values) < 2:
        return "1 round" if values else ""
    return f"{_number(min(values))} to {_number(max(values))}"


def text(section: Section) -> str:
    """Lay one section out for a terminal of any width."""
    lines = [HEAD, *(_cells(row) for row in section.rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEAD))]
    right = {2, 4, 5}
    laid = [
        "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    return "\n".join([f"== {section.title}", f"   least possible: {section.limit}", *laid, ""])


def as_json(sections: Iterable[Section], facts: dict[str, str]) -> str:
    """Give everything that was measured, each round for itself."""
    return json.dumps({"facts": facts, "sections": [asdict(section) for section in sections]}, indent=1)


def plot(points: Sequence[tuple[float, float]], *, x: str, y: str) -> str:
    """Draw a bar a point; ten times the value is ``DECADE`` columns more, so that a power law grows by equal steps."""
    low = min(value for _, value in points)
    lines = [f"{x:>12}  {y}"]
    for at, value in points:
        bar = "#" * (1 + round(log10(value / low) * DECADE))
        lines.append(f"{at:>12,.0f}  {bar} {_number(value)}")
    return "\n".join(lines)


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row.work,
        row.tool,
        "" if row.median is None else _number(row.median),
        spread(row.seconds),
        "" if row.commands is None else f"{row.commands:,.0f}",
        "" if row.ratio is None else f"{row.ratio:.2f}",
        row.note,
    )


def _number(value: float) -> str:
    return f"{value:,.3f}" if value < 10 else f"{value:,.1f}"
