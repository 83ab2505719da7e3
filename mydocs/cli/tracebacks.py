"""Write the useful part of an error's traceback: a script's own frames, without those of its callers. Pure."""

import os
from collections.abc import Iterator
from pathlib import Path
from traceback import FrameSummary, TracebackException

import mydocs
from mydocs.migrations.errors import MigrationError, MigrationFailed

OURS = Path(mydocs.__file__).parent
# Modules whose frames are part of every traceback.
FRAMEWORKS = frozenset({"anyio", "motor", "pymongo", "typer"})
PYTHON = Path(os.__file__).parent


def traceback_text(error: BaseException) -> str:
    """
    Write where an error came from.

    Frames of frameworks are left out, and so are frames of this program before those of a script. If this program has
    made the error from another one, only the other one is written, since the first one's message is shown anyway.
    """
    by_script = isinstance(error, MigrationFailed)
    while isinstance(error, MigrationError) and error.__cause__ is not None:
        error = error.__cause__
    told = TracebackException.from_exception(error)
    for each in _chain(told, set()):
        each.stack[:] = _useful(each.stack, by_script=by_script, is_ours=isinstance(error, MigrationError))
    text = "".join(told.format()).rstrip()
    if told.stack:
        return text
    # A plain script fails in a process of its own. Its traceback is a note of the error.
    notes: list[str] = getattr(error, "__notes__", [])
    return "\n".join(notes).rstrip() or text.removeprefix("Traceback (most recent call last):\n")


def _chain(told: TracebackException, seen: set[int]) -> Iterator[TracebackException]:
    if id(told) in seen:
        return
    seen.add(id(told))
    yield told
    for other in (told.__cause__, told.__context__, *(told.exceptions or ())):
        if other is not None:
            yield from _chain(other, seen)


def _useful(stack: list[FrameSummary], *, by_script: bool, is_ours: bool) -> list[FrameSummary]:
    """
    Return a script's frames and those below them; without a script, all of our own.

    :param is_ours: the error is ours, and its message makes our own frames unnecessary
    """
    kept = [frame for frame in stack if not _is_framework(Path(frame.filename))]
    first = next((index for index, frame in enumerate(kept) if _is_script(Path(frame.filename))), None)
    if first is None:
        return [] if by_script else kept
    return [frame for frame in kept[first:] if not (is_ours and Path(frame.filename).is_relative_to(OURS))]


def _is_script(file: Path) -> bool:
    """Return whether a file is not ours, not of Python, and not installed."""
    return not (file.is_relative_to(OURS) or file.is_relative_to(PYTHON) or "site-packages" in file.parts)


def _is_framework(file: Path) -> bool:
    return any(file.is_relative_to(PYTHON / name) for name in ("asyncio", "concurrent")) or any(
        parent.parent.name == "site-packages" and parent.name in FRAMEWORKS for parent in file.parents
    )
