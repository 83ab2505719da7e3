"""Handle SIGINT and SIGTERM: the first one ends a call in good order, the second one ends the process. I/O."""

import asyncio
import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

HANDLED = (signal.SIGINT, signal.SIGTERM)

# coreutils' `timeout` signals the process and then its whole group, so one request arrives twice within a millisecond.
# Nobody presses Ctrl-C twice as fast as this.
SAME_WISH_SECONDS = 0.05


class Watch:
    """The signals received so far, and the task to cancel."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self.received: int | None = None
        self.last_words: Callable[[int], None] | None = None  # called before the process is left at once
        self._at = 0.0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[object] | None = None

    @contextlib.contextmanager
    def cancelling(self) -> Iterator[None]:
        """Let the first signal cancel this block, once, so that cleanup may await. To be used inside the event loop."""
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        if self.received is not None:
            self._cancel()
        try:
            yield
        finally:
            self._task = None

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal. This runs between two byte codes of the main thread, even if the loop is blocked."""
        now = time.monotonic()
        if self.received is None:
            self.received, self._at = number, now
            if self._loop is None or self._loop.is_closed():
                raise KeyboardInterrupt
            # In this order: whoever reads the line may count on the end of what is under way.
            self._loop.call_soon_threadsafe(self._cancel)
            self._say("interrupted; ending in good order, again to leave at once")
        elif now - self._at > SAME_WISH_SECONDS:
            self._say("left at once; `mydocs migrate status` shows what is unfinished")
            try:
                if self.last_words is not None:
                    self.last_words(128 + number)
            finally:
                os._exit(128 + number)

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()


@contextlib.contextmanager
def watched(say: Callable[[str], None]) -> Iterator[Watch]:
    """
    Handle signals in a block, then restore the earlier handlers. Only the main thread can do this.

    :param say: writes a line at once, without any buffer
    """
    watch = Watch(say)
    if threading.current_thread() is not threading.main_thread():
        yield watch
        return
    before = {number: signal.signal(number, watch.handle) for number in HANDLED}
    try:
        yield watch
    finally:
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
