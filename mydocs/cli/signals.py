"""SIGINT and SIGTERM: the first one ends a call in good order, the second one ends the process."""

import asyncio
import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

import anyio

HANDLED = (signal.SIGINT, signal.SIGTERM)

# coreutils' `timeout` signals the process and then its whole group, so that one wish arrives twice within a
# millisecond; nobody presses Ctrl-C twice as fast as this.
SAME_WISH_SECONDS = 0.05

CLEANUP_SECONDS = 10.0  # for what a script awaits to clean up; a plain one has as long between SIGINT and SIGKILL


class Watch:
    """What has been received so far, and whom to cancel."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self.received: int | None = None
        self.last_words: Callable[[int], None] | None = None  # before the process is left at once
        self._at = 0.0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._scope: anyio.CancelScope | None = None
        self._task: asyncio.Task[object] | None = None

    @contextlib.contextmanager
    def scope(self) -> Iterator[anyio.CancelScope]:
        """Let the first signal cancel this block; to be used inside the event loop."""
        with anyio.CancelScope() as scope:
            self._loop, self._scope, self._task = asyncio.get_running_loop(), scope, asyncio.current_task()
            if self.received is not None:
                scope.cancel()
            try:
                yield scope
            finally:
                self._task = None

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Be the signal handler. Runs between two byte codes of the main thread, also when the loop is blocked."""
        now = time.monotonic()
        if self.received is None:
            self.received, self._at = number, now
            if self._loop is None or self._scope is None or self._loop.is_closed():
                raise KeyboardInterrupt
            self._say("interrupted; ending in good order, again to leave at once")
            self._loop.call_soon_threadsafe(self._cancel)
        elif now - self._at > SAME_WISH_SECONDS:
            self._say("left at once; `mydocs migrate status` shows what is unfinished")
            try:
                if self.last_words is not None:
                    self.last_words(128 + number)
            finally:
                os._exit(128 + number)

    def _cancel(self) -> None:
        """Cancel the block once, as asyncio does it, so that cleanup may await; when its time is up, at each await."""
        if self._task is None or self._loop is None or self._scope is None:
            return
        self._task.cancel()
        self._loop.call_later(CLEANUP_SECONDS, self._scope.cancel)


@contextlib.contextmanager
def watched(say: Callable[[str], None]) -> Iterator[Watch]:
    """
    Handle signals for a block and give the earlier handlers back; only the main thread can do that.

    :param say: writes a line at once, past all buffers
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
