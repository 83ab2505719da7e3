"""What was measured, as values, as a table and as JSON. Pure."""

import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from math import log10

from .peers import BEFORE, MYDOCS

DECADE = 12  # columns of a plot for a factor of ten
HEAD = ("work", "tool", "wall s", "spread", "processor s", "commands", "to bare", "to best peer", "limit", "more")
TEXT_COLUMNS = {0, 1, 3, 8, 9}  # the others hold numbers
PAGE_HEAD = ("work", "before", "now", "bare program", "best peer", "to bare", "to best peer", "limit")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """
    One tool at one piece of work.

    :param size: how much work it is, where that differs between rows: what costs are drawn against
    :param seconds: one for each round; none where the tool cannot do it, and ``note`` says so
    :param processor: seconds of it, one for each round, where they are measured
    :param commands: on the wire, without handshake and monitoring, median of the rounds
    :param bare: whether it is the least that can do this work: what the other rows of the work are compared with
    :param limit: the budget of SPEC section 12
    """

    section: str
    work: str
    tool: str
    size: int | None = None
    seconds: tuple[float, ...] = ()
    processor: tuple[float, ...] = ()
    commands: float | None = None
    bare: bool = False
    limit: str = ""
    note: str = ""

    @property
    def is_ours(self) -> bool:
        return not self.bare and self.tool.startswith(MYDOCS)

    @property
    def median(self) -> float | None:
        return statistics.median(self.seconds) if self.seconds else None

    @property
    def lowest(self) -> float | None:
        """Processor seconds of the best round: noise only adds to them."""
        return min(self.processor, default=None)


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
    lines = [HEAD, *(_cells(row, section.rows) for row in section.rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEAD))]
    laid = [
        "  ".join(
            cell.ljust(width) if column in TEXT_COLUMNS else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    return "\n".join([f"== {section.title}", f"   least possible: {section.limit}", *laid, ""])


def with_tables(page: str, sections: Iterable[Section]) -> str:
    """Put what compares mydocs into a page, below the marks of the sections, such as `<!-- table: runs -->`."""
    for section in sections:
        table = "".join(f"| {' | '.join(line)} |\n" for line in _page_lines(section.rows))
        begin, mark, rest = page.partition(f"<!-- table: {section.rows[0].section} -->\n\n")
        page = begin + mark + (table + rest[rest.index("\n\n") + 1 :] if mark else rest)
    return page


def _page_lines(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """Give a line for each piece of work. A cell is `wall / processor, commands`; ratios are before → now."""
    lines = [PAGE_HEAD, ("---",) * len(PAGE_HEAD)]
    for now in rows:
        same = [row for row in rows if row.work == now.work and row.seconds]
        if now.tool != MYDOCS or same in ([], [now]):
            continue
        ours = [*(row for row in same if row.tool == BEFORE), now]
        bare, peers = [row for row in same if row.bare], _peers(same)
        best = min(peers, key=lambda row: row.median or 0.0, default=None)
        lines.append(
            (
                now.work,
                _measured(*ours[:-1]),
                _measured(now),
                _measured(*bare),
                f"{best.tool} {_measured(best)}" if best else "",
                *(" → ".join(filter(None, (_ratio(row, others) for row in ours))) for others in (bare, peers)),
                now.limit,
            )
        )
    return lines


def _measured(row: Row | None = None) -> str:
    if row is None or row.median is None:
        return ""
    processor = "" if row.lowest is None else f" / {_number(row.lowest)}"
    return f"{_number(row.median)}{processor}" + ("" if row.commands is None else f", {row.commands:,.0f}")


def _peers(rows: Iterable[Row]) -> list[Row]:
    return [row for row in rows if not row.bare and not row.is_ours]


def _ratio(row: Row, others: Sequence[Row]) -> str:
    """Compare wall time (medians) and processor time (lowest) with the best of others, which may be two of them."""
    wall = min((other.median for other in others if other.median), default=None)
    processor = min((other.lowest for other in others if other.lowest), default=None)
    found = [
        f"{own / best:.2f}" if own is not None and best is not None else ""
        for own, best in ((row.median, wall), (row.lowest, processor))
    ]
    return " / ".join(found) if all(found) else found[0]


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


def _cells(row: Row, rows: Sequence[Row]) -> tuple[str, ...]:
    same = [other for other in rows if other.work == row.work]
    return (
        row.work,
        row.tool,
        "" if row.median is None else _number(row.median),
        spread(row.seconds),
        "" if row.lowest is None else _number(row.lowest),
        "" if row.commands is None else f"{row.commands:,.0f}",
        "" if row.bare else _ratio(row, [other for other in same if other.bare]),
        _ratio(row, _peers(same)) if row.is_ours else "",
        row.limit,
        row.note,
    )


def _number(value: float) -> str:
    return f"{value:,.3f}" if value < 10 else f"{value:,.1f}"
