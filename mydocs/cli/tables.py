"""Align columns of plain text. Pure, except for the width that a caller sets for a block."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

from mydocs.migrations.reporting.escaping import visible

GAP = "  "
CUT = "…~"  # with and without Unicode
LEAST_WIDTH = 12  # characters of a column that is cut
FREE_TEXTS = frozenset({"REASON", "ERROR", "REPAIR"})  # columns that are never cut; the screen wraps them

_screen: ContextVar[tuple[int, str, Callable[[str], str]] | None] = ContextVar("screen", default=None)


@contextmanager
def fitted(width: int, mark: str, clean: Callable[[str], str]) -> Iterator[None]:
    """
    Make tables fit a screen in a block: names that are too long are cut in the middle.

    :param mark: marks the place of a cut
    :param clean: removes credentials before a name is cut, since a cut one would not be recognised
    """
    token = _screen.set((width, mark, clean))
    try:
        yield
    finally:
        _screen.reset(token)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Align rows in columns. A column that is empty in all rows is left out."""
    screen = _screen.get()
    clean = str if screen is None else screen[2]
    body = [[visible(clean(" ".join(cell.split()))) for cell in row] for row in rows]
    if not body:
        return ""
    used = [column for column in range(len(head)) if any(row[column] for row in body)]
    lines = [[line[column] for column in used] for line in ([*head], *body)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(used))]
    if screen is not None:
        widths = narrowed(widths, screen[0], [name not in FREE_TEXTS for name in lines[0]])
        lines = [
            [
                cell if name in FREE_TEXTS else cut_inside(cell, width, screen[1])
                for cell, width, name in zip(line, widths, lines[0], strict=True)
            ]
            for line in lines
        ]
    return "\n".join(
        GAP.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def narrowed(widths: Sequence[int], room: int, may_shrink: Sequence[bool]) -> list[int]:
    """
    Narrow the columns, the widest first, until all fit into a line.

    :param may_shrink: whether a column may be cut; the others do not count, since the screen wraps them
    """
    found = list(widths)
    counted = [column for column in range(len(found)) if may_shrink[column]]
    while sum(found[column] for column in counted) + len(GAP) * (len(counted) - 1) > room:
        widest = max(counted, key=lambda column: found[column])
        if found[widest] <= LEAST_WIDTH:
            break
        found[widest] -= 1
    return found


def cut_inside(text: str, width: int, mark: str) -> str:
    """Cut a name in the middle, since names of one kind usually differ at their ends."""
    if len(text) <= width:
        return text
    end = (width - len(mark)) // 2
    return f"{text[: width - len(mark) - end]}{mark}{text[len(text) - end :]}"
