"""Record when things happened in a call, and what the call waited for at each moment. No I/O."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from enum import StrEnum

from mydocs.migrations.errors import describe_holder
from mydocs.migrations.model import IndexAction, IndexState, IndexType
from mydocs.migrations.reporting.events import (
    BatchDone,
    Event,
    IndexChanged,
    IndexDefined,
    LeaseTaken,
    LeaseWaiting,
    Planned,
    StepFinished,
    StepStarted,
    StillWaiting,
    Warned,
)
from mydocs.migrations.reporting.report import RunFinished
from mydocs.migrations.values import value

SETTLED = (IndexState.READY, IndexState.FAILED)
NOT_NOTED = 0.01  # seconds; a shorter gap between two spans does not count as waiting


class Kind(StrEnum):
    """The kind of a span: what takes time in a run."""

    OTHERS = "others"  # waiting for another run
    STEP = "step"  # a script, or the standard indexes
    INDEX = "index"  # a search index, from its request on
    REST = "rest"  # connecting, reading the ledger, writing the reports


@value
class Span:
    """A part of a call; ``start`` and ``end`` are seconds since the call began, ``end`` is open while it lasts."""

    kind: Kind
    title: str
    start: float
    state: str
    end: float | None = None
    text: str = ""
    looks: tuple[tuple[float, str], ...] = ()  # for an index: the time of each state's first look

    def until(self, now: float) -> float:
        return now if self.end is None else self.end


class Recorder:
    """A sink that records what a call did, and when. Events may come from any thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._began = clock, clock()
        self._lock = threading.Lock()
        self._spans: dict[tuple[Kind, str], Span] = {}
        self._is_over = False
        self.started_at = datetime.now(UTC)
        self.seconds = 0.0
        self.warnings: list[str] = []

    @property
    def spans(self) -> tuple[Span, ...]:
        """Return all spans, in the order of their start."""
        with self._lock:
            return tuple(sorted(self._spans.values(), key=lambda span: span.start))

    def finish(self) -> None:
        """Close open spans: the call is over."""
        with self._lock:
            if not self._is_over:
                self._is_over, self.seconds = True, self._clock() - self._began
                self._close_others(self.seconds)
                self._spans = {key: _left(span, self.seconds) for key, span in self._spans.items()}

    def take(self, event: Event) -> None:
        if isinstance(event, RunFinished):
            self.finish()
            return
        with self._lock:
            self._take(event, self._clock() - self._began)

    def _take(self, event: Event, now: float) -> None:
        match event:
            case LeaseWaiting():
                self._close_others(now)
                self._open(Kind.OTHERS, f"waiting for {describe_holder(event.holder).partition(',')[0]}", now)
            case StillWaiting() if not any(span.kind is Kind.INDEX for span in self._spans.values()):
                self._open(Kind.OTHERS, "waiting for others to migrate", now - event.seconds)
            case LeaseTaken() | Planned():
                self._close_others(now)
            case StepStarted():
                self._close_others(now)
                self._open(Kind.STEP, event.title, now)
            case StepFinished():
                text = str(event.error) if event.error else None
                self._change(Kind.STEP, event.title, state=event.ending, end=now, text=text)
            case BatchDone():
                for key, span in self._spans.items():
                    if span.kind is Kind.STEP and span.end is None:
                        done = f"{event.collection}: {event.done} of {event.total} documents"
                        self._spans[key] = replace(span, text=done)
            case IndexDefined() if event.type is not IndexType.STANDARD:
                if event.action in {IndexAction.CREATED, IndexAction.UPDATED, IndexAction.REPLACED}:
                    self._spans.pop((Kind.INDEX, event.title), None)
                    self._open(Kind.INDEX, event.title, now, state=event.action)
            case IndexChanged():
                self._close_others(now)
                self._seen(event, now)
            case Warned():
                self.warnings.append(event.message)
            case _:
                pass

    def _seen(self, event: IndexChanged, now: float) -> None:
        title = event.title
        before = self._spans.get((Kind.INDEX, title))
        if before is None:
            before = self._open(Kind.INDEX, title, max(0.0, now - event.seconds))
        self._spans[Kind.INDEX, title] = replace(
            before,
            state=event.state.value,
            end=now if event.state in SETTLED else None,
            text=event.reason or "",
            looks=(*before.looks, (now, event.state.value)),
        )

    def _open(self, kind: Kind, title: str, start: float, state: str = "running") -> Span:
        span = self._spans.setdefault((kind, title), Span(kind=kind, title=title, start=max(0.0, start), state=state))
        if span.end is not None:  # it continues, after other spans in between
            span = self._spans[kind, title] = replace(span, end=None)
        return span

    def _change(self, kind: Kind, title: str, *, state: str, end: float, text: str | None) -> None:
        span = self._spans.get((kind, title))
        if span is not None:
            kept = span.text if text is None else text
            self._spans[kind, title] = replace(span, state=state, end=end, text=kept)

    def _close_others(self, now: float) -> None:
        for key, span in self._spans.items():
            if span.kind is Kind.OTHERS and span.end is None:
                self._spans[key] = replace(span, end=now, state="over")


def waited_for(spans: Sequence[Span], seconds: float) -> tuple[Span, ...]:
    """
    Return what a call waited for, from its first moment to its last, without gaps and one thing at a time.

    While a script runs, it is that script, even if indexes are built at the same time. After the scripts it is the
    index that ends last.
    """
    parts: list[Span] = []
    reached = 0.0

    def up_to(moment: float) -> None:
        nonlocal reached
        if moment - reached > NOT_NOTED:
            parts.append(Span(kind=Kind.REST, title="everything else", start=reached, end=moment, state=""))
            reached = moment

    for span in sorted((s for s in spans if s.kind is not Kind.INDEX), key=lambda span: span.start):
        up_to(span.start)
        if span.until(seconds) > reached:
            parts.append(replace(span, start=reached, end=span.until(seconds)))
            reached = span.until(seconds)
    # Only looks show a wait: an index without looks is still being built when the run has ended.
    built = [span for span in spans if span.kind is Kind.INDEX and span.looks]
    slowest = max(built, key=lambda span: span.until(seconds), default=None)
    if slowest is not None and slowest.until(seconds) > reached + NOT_NOTED:
        parts.append(replace(slowest, start=reached, end=slowest.until(seconds)))
        reached = slowest.until(seconds)
    up_to(seconds)
    return tuple(parts)


def _left(span: Span, now: float) -> Span:
    """Close a span that was open at the end: an interrupted script, an index that is still being built."""
    if span.end is not None or (span.kind is Kind.INDEX and not span.looks):
        return span
    return replace(span, end=now, state="interrupted" if span.kind is Kind.STEP else span.state)
