"""The time that the server uses: the machine's, or one that a test moves. No I/O."""

import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Protocol


def to_milliseconds(moment: datetime) -> datetime:
    """Cut off what a BSON date cannot hold, so that a time reads the same before and after it was stored."""
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


class Clock(Protocol):
    """Where everything timed in the server gets its time from."""

    def now(self) -> datetime:
        """Give the time in UTC, aware, in whole milliseconds."""

    def monotonic(self) -> float:
        """Give seconds that never go back."""


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        return to_milliseconds(datetime.now(UTC))

    def monotonic(self) -> float:
        return time.monotonic()


class ManualClock:
    """
    A clock that a test moves; may be moved from any thread.

    :param start: aware; the machine's time where it is left out
    :param running: go on with real time between the moves; else stand still
    """

    def __init__(self, start: datetime | None = None, *, running: bool = False) -> None:
        self._lock = threading.Lock()
        self._running = running
        self._wall = start or datetime.now(UTC)
        self._steady = 0.0
        self._read_at = time.monotonic()

    def now(self) -> datetime:
        with self._lock:
            self._follow()
            return to_milliseconds(self._wall)

    def monotonic(self) -> float:
        with self._lock:
            self._follow()
            return self._steady

    def advance(self, seconds: float) -> None:
        """Move on by ``seconds``, 0 or more; `set` can go back."""
        if seconds < 0:
            raise ValueError(f"a clock advances by 0 or more seconds, not by {seconds}; `set` can go back")
        with self._lock:
            self._follow()
            self._move(seconds)

    def set(self, moment: datetime) -> None:
        """Show ``moment`` (aware) from now on; `monotonic` follows a step forward and ignores a step back."""
        with self._lock:
            self._follow()
            self._steady += max(0.0, (moment - self._wall).total_seconds())
            self._wall = moment.astimezone(UTC)

    def _follow(self) -> None:
        if self._running:
            read_at = time.monotonic()
            self._move(read_at - self._read_at)
            self._read_at = read_at

    def _move(self, seconds: float) -> None:
        self._wall += timedelta(seconds=seconds)
        self._steady += seconds
