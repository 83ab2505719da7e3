"""
Processes of this machine as an executor: one that dies costs its task and no other, and none outlives the run. I/O.

``ProcessPoolExecutor`` is of no use after one of its processes was killed, and leaves the others behind when its own
process is.
"""

import contextlib
import multiprocessing
import queue
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

LEAVE_SECONDS = 5.0  # for a process that was told to end


class WorkerDied(BrokenProcessPool):
    """The process that had a task ended before the task did; another one takes its place."""


class Processes(Executor):
    """So many processes, each started with its first task."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._tasks: queue.SimpleQueue[tuple[Future[Any], Any] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._running: dict[Future[Any], SpawnProcess] = {}
        self._closed = False
        self._threads = [
            threading.Thread(target=self._serve, name=f"mydocs-worker-{number}", daemon=True) for number in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Queue a call; function, arguments and result are pickled."""
        if self._closed:
            raise RuntimeError("the processes were told to end")
        future: Future[T] = Future()
        self._tasks.put((future, (fn, args, kwargs)))
        return future

    def kill(self, future: Future[Any]) -> None:
        """End the process that works on a task, if one does; the task ends with ``WorkerDied``."""
        with self._lock:
            process = self._running.get(future)
            if process is not None:
                process.kill()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """
        End the processes once their tasks are done.

        :param cancel_futures: end them at once
        """
        self._closed = True
        if cancel_futures:
            with contextlib.suppress(queue.Empty):
                while task := self._tasks.get_nowait():
                    task[0].cancel()
            with self._lock:
                for process in self._running.values():
                    process.kill()
        for _ in self._threads:
            self._tasks.put(None)
        if wait:
            for thread in self._threads:
                thread.join()

    def _serve(self) -> None:
        """Hand tasks to one process after the other, in a thread."""
        process: SpawnProcess | None = None
        pipe: Connection | None = None
        while (task := self._tasks.get()) is not None:
            future, call = task
            if not future.set_running_or_notify_cancel():
                continue
            try:
                if process is None or pipe is None or not process.is_alive():
                    process, pipe = _start()
                with self._lock:
                    self._running[future] = process
                pipe.send(call)
                succeeded, value = pipe.recv()
            except (EOFError, OSError):
                status = None if process is None else _ended(process)
                process, pipe = None, None
                future.set_exception(WorkerDied(f"a worker ended with status {status} while it had a task"))
            except Exception as error:  # noqa: BLE001  # what cannot be pickled
                future.set_exception(error)
            else:
                future.set_result(value) if succeeded else future.set_exception(value)
            finally:
                with self._lock:
                    self._running.pop(future, None)
        if pipe is not None and process is not None:
            pipe.close()
            _ended(process)


def _start() -> tuple[SpawnProcess, Connection]:
    context = multiprocessing.get_context("spawn")  # a fork would take threads' locks along
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(theirs,), name="mydocs-worker", daemon=True)
    process.start()
    theirs.close()
    return process, ours


def _ended(process: SpawnProcess) -> int | None:
    process.join(LEAVE_SECONDS)
    if process.is_alive():
        process.kill()
        process.join()
    return process.exitcode


def _work(pipe: Connection) -> None:
    """Do task after task until the other end is closed; that is also so when the run's process has died."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C at the terminal is the run's, which ends its workers
    while True:
        try:
            function, args, kwargs = pipe.recv()
        except EOFError:
            return
        try:
            answer = (True, function(*args, **kwargs))
        except Exception as error:  # noqa: BLE001  # handed on
            answer = (False, error)
        try:
            pipe.send(answer)
        except OSError:
            return
