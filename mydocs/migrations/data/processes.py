"""
Run tasks in processes of this machine: a dead process costs only its task, and none outlives the run. I/O.

``ProcessPoolExecutor`` cannot be used any more after one of its processes was killed. It leaves the others behind when
its own process is killed.
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

LEAVE_SECONDS = 5.0  # limit for the end of a process that was told to end


class WorkerDied(BrokenProcessPool):
    """The process of a task ended before the task did. Another process takes its place."""


class Processes(Executor):
    """An executor with a number of processes, each started with its first task."""

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
        """Queue a call. Function, arguments and result are pickled."""
        if self._closed:
            raise RuntimeError("the processes were told to end")
        future: Future[T] = Future()
        self._tasks.put((future, (fn, args, kwargs)))
        return future

    def kill(self, future: Future[Any]) -> None:
        """End the process of a running task. The task ends with ``WorkerDied``."""
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
        """Send tasks to one process after the other, in a thread."""
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
            except Exception as error:  # noqa: BLE001  # a value that cannot be pickled
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
    context = multiprocessing.get_context("spawn")  # a fork would copy locks that threads hold
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
    """Do tasks until the other end is closed, which also happens when the run's process dies."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C at the terminal goes to the run, which ends its workers
    while True:
        try:
            function, args, kwargs = pipe.recv()
        except EOFError:
            return
        try:
            answer = (True, function(*args, **kwargs))
        except Exception as error:  # noqa: BLE001  # passed on
            answer = (False, error)
        try:
            pipe.send(answer)
        except OSError:
            return
