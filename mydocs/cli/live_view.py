"""Show a call to the operator while it runs: a live view on a terminal, a line for each event elsewhere. I/O."""

import contextlib
import logging
import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TextIO

from mydocs.cli import progress, render
from mydocs.cli.plain_view import PlainView, ticking
from mydocs.cli.progress import Progress
from mydocs.cli.streams import LogFormat, Output, Streams
from mydocs.cli.tables import CUT, cut_inside
from mydocs.migrations.errors import describe_holder
from mydocs.migrations.model import IndexAction, IndexState, IndexType, MigrationState
from mydocs.migrations.reporting.durations import rounded_text, seconds_text
from mydocs.migrations.reporting.events import (
    BatchDone,
    Event,
    IndexChanged,
    IndexDefined,
    LeaseTaken,
    LeaseWaiting,
    Planned,
    Sink,
    StepFinished,
    StepStarted,
    StillWaiting,
    Warned,
)
from mydocs.migrations.reporting.report import RunFinished
from mydocs.migrations.values import value

if TYPE_CHECKING:  # rich is imported only on a terminal
    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult

BAR_WIDTH = 12  # characters
LEAST_BAR = 4
FRAMES_A_SECOND = 8
LEASE = "waiting for the lease"
SPINNERS = ("dots", "line")  # with and without Unicode
MARKS = {"done": ("✓", "+"), "failed": ("✗", "x"), "info": ("•", "*")}
MIN_TITLE = 16  # characters
TIME_WIDTH = 9  # characters
ROOM_FOR_STATE = 27  # characters: the mark, the time, the gaps, and a state such as "rolled back"
STYLES = {"done": "green", "failed": "bold red", "info": "dim"}


@contextlib.contextmanager
def view(streams: Streams) -> Iterator[Sink]:
    """Yield a sink for the events of a call. It can be called from any thread."""
    if streams.log_format is LogFormat.JSON:
        yield lambda event: streams.line_json(render.event_json(event))
    elif streams.output is Output.QUIET:
        yield lambda event: _warning_only(streams, event)
    elif _is_terminal(streams.err):
        with _live(streams) as sink:
            yield sink
    else:
        plain = PlainView(streams)
        with ticking(plain):
            yield plain.take


@value
class Line:
    """One line of the live view. ``ended`` is ``None`` while its spinner turns."""

    title: str
    text: str
    since: float
    ended: float | None = None
    mark: str = "done"
    is_index: bool = False
    data: Progress | None = None  # of a data change

    @property
    def seconds(self) -> float:
        return (time.monotonic() if self.ended is None else self.ended) - self.since


class LiveView:
    """The lines of the live view in the order in which they appeared. Events come from several threads."""

    def __init__(self, streams: Streams, *, unicode: bool, settles: bool = False) -> None:
        """
        Start without lines.

        :param settles: the table of the result replaces the lines
        """
        self._streams = streams
        self._settles = settles
        self._column = 0 if unicode else 1
        self._lock = threading.Lock()
        self._lines: dict[str, Line] = {}
        self._data: dict[str, Progress] = {}
        self._plan: Planned | None = None
        self.console: Console | None = None
        self.drawing: AbstractContextManager[Any] = contextlib.nullcontext()  # held while something is written

    def take(self, event: Event) -> None:
        # Written after our lock is released: rich draws under a lock of its own, which `print` takes as well.
        with self._lock:
            said = self._take(event)
        if said is not None and self.console is not None:
            text, style = said
            with self.drawing:
                self.console.print(self._streams.clean(text), style=style, markup=False, highlight=False)

    def _take(self, event: Event) -> tuple[str, str] | None:
        """Add an event to the lines, or return the text to write above them, with its style."""
        now = time.monotonic()
        match event:
            case LeaseWaiting():
                holder = describe_holder(event.holder).partition(",")[0]
                before = self._lines.get(LEASE)
                since = now if before is None else before.since
                self._lines[LEASE] = Line(title=LEASE, text=f"{holder} migrates", since=since)
            case LeaseTaken():
                self._end_lease("taken over")
            case StepStarted():
                title = event.title
                self._lines[title] = Line(title=title, text=event.doing, since=now)
            case StepFinished():
                title = event.title
                text = event.ending + (f": {event.error.message}" if event.error else "")
                failed = event.error is not None or event.state is MigrationState.FAILED
                self._settle(title, text, "failed" if failed else "done", event.seconds)
                self._end_data()
            case BatchDone():
                self._batch(event, now)
            case IndexDefined():
                if event.type is not IndexType.STANDARD and event.action != IndexAction.UNCHANGED:
                    title = event.title
                    line = Line(title=title, text=event.action, since=now, ended=now, mark="info", is_index=True)
                    self._lines[title] = line
            case IndexChanged():
                self._end_lease("done by another")
                title, text = event.title, event.standing
                self._lines[title] = Line(title=title, text=text, since=now - event.seconds, is_index=True)
                if event.state in (IndexState.READY, IndexState.FAILED):
                    mark = "done" if event.state is IndexState.READY else "failed"
                    self._settle(title, text, mark, event.seconds)
            case RunFinished():
                self._end_lease("over")
                # A line that still turns has not ended. It stays as it is, but without a spinner.
                for title, line in self._lines.items():
                    if line.ended is None:
                        self._lines[title] = replace(line, ended=now, mark="info")
            case Planned() if event == self._plan:
                pass
            case StillWaiting() if any(line.is_index for line in self._lines.values()):
                pass  # the lines already show the awaited indexes and their times
            case _:
                if isinstance(event, Planned):
                    self._plan = event
                return render.event_line(event), "yellow" if event.level >= logging.WARNING else "dim"
        return None

    def _batch(self, event: BatchDone, now: float) -> None:
        title = f"  {event.collection}"
        self._data[title] = come = progress.after(event, self._data.get(title))
        ended = now if come.is_over else None
        self._lines[title] = Line(title=title, text="", since=now - event.seconds, ended=ended, data=come)

    def _end_data(self) -> None:
        """End the data changes of a script that has ended."""
        for title in self._data:
            line = self._lines.get(title)
            if line is not None and line.ended is None:
                self._lines[title] = replace(line, ended=time.monotonic(), mark="info")
        self._data.clear()

    def _end_lease(self, text: str) -> None:
        line = self._lines.get(LEASE)
        if line is not None and line.ended is None:
            self._lines[LEASE] = replace(line, text=text, ended=time.monotonic(), mark="info")

    def _settle(self, title: str, text: str, mark: str, seconds: float) -> None:
        now = time.monotonic()
        is_index = title in self._lines and self._lines[title].is_index
        self._lines[title] = Line(title=title, text=text, since=now - seconds, ended=now, mark=mark, is_index=is_index)

    def __rich_console__(self, console: "Console", options: "ConsoleOptions") -> "RenderResult":
        from rich.table import Table

        with self._lock:
            lines = list(self._lines.values())
        shown = chosen(lines, max(4, options.max_height - 3))
        width = max((len(line.title) for line in shown), default=0)
        width = min(width, max(MIN_TITLE, options.max_width - ROOM_FOR_STATE))
        grid = Table.grid(padding=(0, 2, 0, 0))
        grid.add_column(width=2 + width, no_wrap=True)
        grid.add_column(width=TIME_WIDTH, no_wrap=True, justify="right")
        room = max(1, options.max_width - (2 + width) - TIME_WIDTH - 2 * 2)
        grid.add_column(width=room, no_wrap=True)
        for line in shown:
            took = rounded_text(line.seconds) if line.ended is None else seconds_text(line.seconds or None)
            grid.add_row(self._head(line, width), took, self._body(line, room))
        yield grid
        last = count_text(lines, len(lines) - len(shown))
        self._streams.rows = len(shown) + bool(last)
        if last:
            yield self._text(last, style="dim")

    def _head(self, line: Line, width: int) -> "RenderableType":
        from rich.spinner import Spinner
        from rich.text import Text

        title = cut_inside(self._streams.clean(line.title), width, CUT[self._column])
        if line.ended is not None:
            return Text.assemble((MARKS[line.mark][self._column], STYLES[line.mark]), " ", title)
        spinner = Spinner(SPINNERS[self._column], text=Text(title), style="cyan")
        spinner.start_time = line.since  # each picture's spinner continues that of the last picture
        return spinner

    def _body(self, line: Line, room: int) -> "RenderableType":
        if line.data is None:
            return self._text(" ".join(self._streams.clean(line.text).split()))
        come = line.data
        # The percentage comes first, then the parts that fit. On a narrow screen no part is cut.
        share = f"{come.share:4.0%}"
        width = min(BAR_WIDTH, room - len(share) - 1)
        if width < LEAST_BAR:
            return self._text(share)
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        left = room - len(share) - width - 2
        said = fitting((render.speed_text(come), f"{come.done} of {come.total} documents"), left)
        grid = Table.grid(padding=(0, 1, 0, 0))
        bar = ProgressBar(total=max(1, come.total), completed=come.done, width=width)
        grid.add_row(share, bar, *filter(None, [said]))
        return grid

    def _text(self, text: str, style: str = "") -> "RenderableType":
        """Return a text of one line. On a terminal without Unicode a cut end has no mark."""
        from rich.text import Text

        return Text(text, style=style, no_wrap=True, overflow="crop" if self._column else "ellipsis")


def fitting(parts: Sequence[str], room: int) -> str:
    """Join as many parts as fit, in their order."""
    said = ""
    for part in filter(None, parts):
        longer = f"{said}, {part}" if said else part
        if len(longer) > room:
            break
        said = longer
    return said


def chosen(lines: Sequence[Line], room: int) -> list[Line]:
    """Return the lines that fit on a screen: first those that run or have failed, then the last ones that ended."""
    if len(lines) <= room:
        return list(lines)
    first = [line for line in lines if line.ended is None or line.mark == "failed"][:room]
    ended = sorted((line for line in lines if line not in first), key=lambda line: line.ended or 0.0)
    kept = {id(line) for line in (*first, *ended[len(ended) - (room - len(first)) :])}
    return [line for line in lines if id(line) in kept]


def count_text(lines: Sequence[Line], hidden: int) -> str:
    """Return a line with the number of awaited indexes, and of the lines that did not fit."""
    waited = [line for line in lines if line.is_index and not (line.mark == "info" and line.ended is not None)]
    ready = sum(line.ended is not None and line.mark == "done" for line in waited)
    failed = sum(line.ended is not None and line.mark == "failed" for line in waited)
    parts = [
        *([f"{ready} of {len(waited)} indexes ready"] if len(waited) > 1 else []),
        *([f"{failed} failed"] if failed else []),
        *([f"{hidden} more not shown"] if hidden else []),
    ]
    return "  " + ", ".join(parts) if parts else ""


@contextlib.contextmanager
def _live(streams: Streams) -> Iterator[Sink]:
    from rich.console import Console, ConsoleDimensions
    from rich.live import Live

    class Screen(Console):
        """Rich asks the three standard descriptors for the size. Two of them are redirected while scripts run."""

        @property
        def size(self) -> ConsoleDimensions:
            found = super().size
            with contextlib.suppress(OSError, ValueError):
                width, height = os.get_terminal_size(self.file.fileno())
                given = os.environ.get("COLUMNS", "").isdigit(), os.environ.get("LINES", "").isdigit()
                if width and height:
                    return ConsoleDimensions(found.width if given[0] else width, found.height if given[1] else height)
            return found

        @size.setter
        def size(self, new: tuple[int, int]) -> None:
            self.width, self.height = new

    console = Screen(file=streams.err)
    # On the same screen the table of the result replaces the lines, since it contains the same.
    settles = streams.output is Output.TABLE and streams.out is not None and streams.out.isatty()
    shown = LiveView(streams, unicode=console.encoding.lower().startswith("utf"))
    shown.console = console
    live: Any = Live(
        shown,
        console=console,
        refresh_per_second=FRAMES_A_SECOND,
        redirect_stdout=False,
        redirect_stderr=False,
        transient=settles,
    )
    # To write a line above its picture, rich reads first where that is, and holds its lock for the reading only. A
    # picture that another thread draws in between would stay on the screen.
    shown.drawing = getattr(live, "_lock", shown.drawing)

    def above(text: str) -> None:
        with shown.drawing:
            console.print(text, markup=False, highlight=False, soft_wrap=True)

    streams.above = above
    try:
        with live:
            yield shown.take
    finally:
        streams.above, streams.rows = None, 0


def _is_terminal(stream: TextIO | None) -> bool:
    return stream is not None and stream.isatty() and os.environ.get("TERM", "") not in {"dumb", "unknown"}


def _warning_only(streams: Streams, event: Event) -> None:
    if isinstance(event, Warned):
        streams.note(event.message, "warning")
