"""Provide the server's time: the machine's, or one that a test moves. No I/O."""

import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Protocol


def to_milliseconds(moment: datetime) -> datetime:
    """Truncate to the milliseconds of a BSON date, so that a stored time is read back unchanged."""
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


class Clock(Protocol):
    """The source of all times in the server."""

    def now(self) -> datetime:
        """Return the time in UTC, aware, in whole milliseconds."""

    def monotonic(self) -> float:
        """Return seconds that never go back."""


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        return to_milliseconds(datetime.now(UTC))

    def monotonic(self) -> float:
        return time.monotonic()


class ManualClock:
    """
    A clock that a test moves, from any thread.

    :param start: aware; the machine's time by default
    :param running: continue with real time between the moves; else stand still
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
        """Move forward by ``seconds``, 0 or more. `set` can go back."""
        if seconds < 0:
            raise ValueError(f"a clock advances by 0 or more seconds, not by {seconds}; `set` can go back")
        with self._lock:
            self._follow()
            self._move(seconds)

    def set(self, moment: datetime) -> None:
        """Show ``moment`` (aware) from now on. `monotonic` follows a step forward and ignores a step back."""
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
