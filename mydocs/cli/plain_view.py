"""Show a call on a stderr that is not a terminal: a line for each change, and one every 30 s without change. I/O."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

from mydocs.cli import progress, render
from mydocs.cli.progress import Progress
from mydocs.cli.streams import Streams
from mydocs.migrations.errors import describe_holder
from mydocs.migrations.reporting.durations import rounded_text
from mydocs.migrations.reporting.events import (
    BatchDone,
    Event,
    LeaseTaken,
    LeaseWaiting,
    Planned,
    StepFinished,
    StepStarted,
)
from mydocs.migrations.reporting.report import RunFinished

SIGN_OF_LIFE_SECONDS = 30.0  # as in the wait for indexes: to a pipeline a silent job seems to hang


class PlainView:
    """Write a line for each change. Of a data change's batches: the first, the last, and one every 30 s."""

    def __init__(self, streams: Streams, clock: Callable[[], float] = time.monotonic) -> None:
        self._streams, self._clock = streams, clock
        self._lock = threading.Lock()
        self._said = clock()
        self._what: tuple[str, float] | None = None  # an activity without events, and its start
        self._data: dict[str, tuple[Progress, float]] = {}  # by collection: the progress, and when it was last shown
        self._plan: Planned | None = None

    def take(self, event: Event) -> None:
        with self._lock:
            line = self._line(event)
            if line is not None:
                self._said = self._clock()
                self._streams.line(line)

    def tick(self) -> float:
        """
        Write a sign of life if nothing was written for long and something is going on.

        :return: seconds until the next one can be due
        """
        with self._lock:
            now = self._clock()
            if now - self._said >= SIGN_OF_LIFE_SECONDS:
                self._said = now
                if self._what is not None:
                    what, since = self._what
                    self._streams.line(f"{what}: still at it after {rounded_text(now - since)}")
            return SIGN_OF_LIFE_SECONDS - (now - self._said)

    def _line(self, event: Event) -> str | None:
        now = self._clock()
        match event:
            case BatchDone():
                return self._batch(event, now)
            case Planned():
                if event == self._plan:  # under the lease the plan is made again, usually with the same result
                    return None
                self._plan = event
            case LeaseWaiting():
                self._what = (f"waiting for the lease: {describe_holder(event.holder).partition(',')[0]}", now)
            case StepStarted():
                self._what = (event.title, now)
            case StepFinished() | LeaseTaken():
                self._what = None
                self._data.clear()
            case RunFinished():  # the result shows it
                self._what = None
                self._data.clear()
                return None
            case _:
                pass
        return render.event_line(event)

    def _batch(self, event: BatchDone, now: float) -> str | None:
        before, said = self._data.get(event.collection, (None, now - SIGN_OF_LIFE_SECONDS))
        come = progress.after(event, before)
        if before is not None and come.first_done == come.done:
            said = now - SIGN_OF_LIFE_SECONDS  # a new data change of this collection
        is_due = come.is_over or now - said >= SIGN_OF_LIFE_SECONDS
        self._data[event.collection] = (come, now if is_due else said)
        speed = render.speed_text(come)
        return f"{render.event_line(event)}{', ' + speed if speed else ''}" if is_due else None


@contextlib.contextmanager
def ticking(view: PlainView) -> Iterator[None]:
    """Call `tick` regularly while a block runs."""
    is_over = threading.Event()

    def look() -> None:
        while not is_over.wait(view.tick()):
            pass

    thread = threading.Thread(target=look, name="mydocs-signs-of-life", daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()
