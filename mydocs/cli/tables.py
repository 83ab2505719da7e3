"""Align columns of plain text. Pure."""

from collections.abc import Iterable, Sequence

from mydocs.migrations.reporting.escaping import visible

GAP = "  "


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Align rows in columns. A column that is empty in all rows is left out."""
    body = [[visible(" ".join(cell.split())) for cell in row] for row in rows]
    if not body:
        return ""
    used = [column for column in range(len(head)) if any(row[column] for row in body)]
    lines = [[line[column] for column in used] for line in ([*head], *body)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(used))]
    return "\n".join(
        GAP.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )
