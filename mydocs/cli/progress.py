"""Compute the speed of a data change and the time that is left. Pure."""

from dataclasses import replace

from mydocs.migrations.reporting.events import BatchDone
from mydocs.migrations.values import value


@value
class Progress:
    """Two moments of one data change: the first batch that was seen, and the latest one."""

    done: int
    total: int
    seconds: float
    first_done: int
    first_seconds: float

    @property
    def rate(self) -> float | None:
        """Return documents a second; ``None`` before the second batch: earlier attempts may have done the first."""
        seconds = self.seconds - self.first_seconds
        return (self.done - self.first_done) / seconds if seconds > 0 and self.done > self.first_done else None

    @property
    def seconds_left(self) -> float | None:
        return None if self.rate is None else max(0, self.total - self.done) / self.rate

    @property
    def share(self) -> float:
        return min(1.0, self.done / self.total) if self.total else 1.0

    @property
    def is_over(self) -> bool:
        return self.done >= self.total


def after(event: BatchDone, before: Progress | None) -> Progress:
    """Return the progress after a batch. A count that goes back begins a new data change of the same collection."""
    if before is None or event.done < before.done or event.seconds < before.seconds:
        return Progress(
            done=event.done,
            total=event.total,
            seconds=event.seconds,
            first_done=event.done,
            first_seconds=event.seconds,
        )
    return replace(before, done=event.done, total=event.total, seconds=event.seconds)
