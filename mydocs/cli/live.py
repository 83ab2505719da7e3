"""What an operator sees while a call goes on: a live view on a terminal, a plain line an event elsewhere. I/O."""

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from mydocs.cli import render
from mydocs.cli.streams import LogFormat, Output, Streams
from mydocs.migrations.events import (
    BatchDone,
    Event,
    IndexChanged,
    IndexDefined,
    Planned,
    Sink,
    StepFinished,
    StepStarted,
    Warned,
)
from mydocs.migrations.model import IndexState, MigrationState
from mydocs.migrations.report import RunFinished

if TYPE_CHECKING:  # rich is imported where there is a terminal, and only there
    from rich.console import Console, ConsoleOptions, RenderResult

BATCH_LINE_SECONDS = 2.0  # between two plain lines about one data change, which may have thousands of batches
FRAMES_A_SECOND = 8
FRAMES = ("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏", "|/-\\")  # with and without Unicode
MARKS = {"done": ("✓", "+"), "failed": ("✗", "x"), "info": ("•", "*")}
STYLES = {"done": "green", "failed": "bold red", "info": "dim"}


@contextlib.contextmanager
def view(streams: Streams) -> Iterator[Sink]:
    """Yield a sink for the events of a call; it can be called from any thread."""
    if streams.log_format is LogFormat.JSON:
        yield lambda event: streams.line_json(render.event_json(event))
    elif streams.output is Output.QUIET:
        yield lambda event: _warning_only(streams, event)
    elif _is_terminal():
        with _live(streams) as sink:
            yield sink
    else:
        yield PlainView(streams).take


class PlainView:
    """One line an event; of a data change's batches, one every two seconds and the last."""

    def __init__(self, streams: Streams) -> None:
        self._streams = streams
        self._batches: dict[str, float] = {}
        self._plan: Planned | None = None

    def take(self, event: Event) -> None:
        if isinstance(event, BatchDone) and event.done < event.total:
            now = time.monotonic()
            if now - self._batches.get(event.collection, -BATCH_LINE_SECONDS) < BATCH_LINE_SECONDS:
                return
            self._batches[event.collection] = now
        if isinstance(event, Planned):
            if event == self._plan:  # under the lease it is looked at again, mostly with the same result
                return
            self._plan = event
        line = render.event_line(event)
        if line is not None:
            self._streams.line(line)


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of the live view; ``ended`` is ``None`` while its spinner turns."""

    title: str
    text: str
    since: float
    ended: float | None = None
    mark: str = "done"

    @property
    def seconds(self) -> float:
        return (time.monotonic() if self.ended is None else self.ended) - self.since


class LiveView:
    """The lines of the live view in the order in which they appeared. Events come from several threads."""

    def __init__(self, streams: Streams, *, unicode: bool) -> None:
        self._streams = streams
        self._column = 0 if unicode else 1
        self._lock = threading.Lock()
        self._lines: dict[str, Line] = {}
        self._plan: Planned | None = None
        self.console: Console | None = None

    def take(self, event: Event) -> None:
        # Said after the lock is given back: rich draws the lines under a lock of its own, which `print` takes as well.
        with self._lock:
            said = self._take(event)
        if said is not None and self.console is not None:
            text, style = said
            self.console.print(self._streams.clean(text), style=style, markup=False, highlight=False)

    def _take(self, event: Event) -> tuple[str, str] | None:
        """Take an event into the lines, or return what is to be said above them, with its style."""
        now = time.monotonic()
        match event:
            case StepStarted():
                title = render.step_name(event)
                self._lines[title] = Line(title=title, text="running", since=now)
            case StepFinished():
                title = render.step_name(event)
                text = render.step_state(event) + (f": {event.error.message}" if event.error else "")
                failed = event.error is not None or event.state is MigrationState.FAILED
                self._settle(title, text, "failed" if failed else "done", event.seconds)
            case BatchDone():
                title = f"  {event.collection}"
                line = self._lines.get(title) or Line(title=title, text="", since=now - event.seconds)
                share = f"{event.done} of {event.total} documents"
                ended = now if event.done >= event.total else None
                self._lines[title] = replace(line, text=share, ended=ended)
            case IndexChanged():
                title = render.index_name(event)
                text = render.index_state(event)
                self._lines[title] = Line(title=title, text=text, since=now - event.seconds)
                if event.state in (IndexState.READY, IndexState.FAILED):
                    mark = "done" if event.state is IndexState.READY else "failed"
                    self._settle(title, text, mark, event.seconds)
            case IndexDefined():
                return f"  {render.index_name(event)}: {event.action}", "dim"
            case RunFinished():
                # What still turns has not ended: it is left as it is, and no spinner is left on the screen.
                for title, line in self._lines.items():
                    if line.ended is None:
                        self._lines[title] = replace(line, ended=now, mark="info")
            case Planned() if event == self._plan:
                pass
            case _:
                if isinstance(event, Planned):
                    self._plan = event
                text_line = render.event_line(event)
                if text_line is not None:
                    return text_line, "yellow" if isinstance(event, Warned) else "dim"
        return None

    def _settle(self, title: str, text: str, mark: str, seconds: float) -> None:
        now = time.monotonic()
        self._lines[title] = Line(title=title, text=text, since=now - seconds, ended=now, mark=mark)

    def __rich_console__(self, console: "Console", options: "ConsoleOptions") -> "RenderResult":
        from rich.text import Text

        with self._lock:
            lines = list(self._lines.values())
        # What does not fit on the screen has ended long ago: what still turns is shown.
        room = max(4, options.max_height - 2)
        if len(lines) > room:
            turning = [line for line in lines if line.ended is None][:room]
            ended = [line for line in lines if line.ended is not None]
            lines = [*ended[len(ended) - (room - len(turning)) :], *turning] if len(turning) < room else turning
        width = max((len(line.title) for line in lines), default=0)
        for line in lines:
            if line.ended is None:
                frames = FRAMES[self._column]
                mark, style = frames[int(time.monotonic() * FRAMES_A_SECOND) % len(frames)], "cyan"
            else:
                mark, style = MARKS[line.mark][self._column], STYLES[line.mark]
            body = (
                f"{line.title.ljust(width)}  {render.seconds_text(line.seconds):>9}  {self._streams.clean(line.text)}"
            )
            yield Text.assemble((mark, style), " ", " ".join(body.splitlines()), no_wrap=True, overflow="ellipsis")


@contextlib.contextmanager
def _live(streams: Streams) -> Iterator[Sink]:
    from rich.console import Console
    from rich.live import Live

    console = Console(stderr=True)
    shown = LiveView(streams, unicode=console.encoding.lower().startswith("utf"))
    shown.console = console
    live: Any = Live(
        shown, console=console, refresh_per_second=FRAMES_A_SECOND, redirect_stdout=False, redirect_stderr=True
    )
    with live:
        yield shown.take


def _is_terminal() -> bool:
    return sys.stderr is not None and sys.stderr.isatty() and os.environ.get("TERM", "") not in {"dumb", "unknown"}


def _warning_only(streams: Streams, event: Event) -> None:
    if isinstance(event, Warned):
        streams.note(f"warning: {event.message}")
