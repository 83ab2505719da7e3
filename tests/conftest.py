"""What all tests share: a clean environment, one event loop, a limit for each test, no blocking call in the loop."""

import asyncio
import contextlib
import math
import os
import select
import signal
import socket
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from types import FrameType
from typing import Any

import anyio.to_thread
import pytest
from blockbuster import blockbuster_ctx
from hypothesis import HealthCheck, settings

from mydocs.migrations.limits import Limits, limited_to

pytest_plugins = ["mydocs.localserver.pytest"]

TEST_SECONDS = 20.0  # what one test may take, its fixtures apart
EXAMPLES_SECONDS = 120.0  # what a test with the examples of Hypothesis may take, which coverage traces
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

CONTRACT_URL = os.environ.get("MYDOCS_TEST_URL")  # read before the environment is cleaned


class Loop(asyncio.SelectorEventLoop):
    """
    Close the socket of a connection that is cancelled while it is made.

    PyMongo 4.20 leaves it open (pool_shared._async_create_connection), and the test in which it is collected would be
    blamed for it.
    """

    async def sock_connect(self, sock: socket.socket, address: Any) -> None:
        try:
            await super().sock_connect(sock, address)
        except asyncio.CancelledError:
            sock.close()
            raise


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """Run coroutines on asyncio: Motor knows no other loop."""
    return "asyncio", {"loop_factory": Loop}


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no test see the settings of whoever runs it, and trace none of the processes that it starts."""
    for name in list(os.environ):
        if name.startswith(("MONGO_", "MYDOCS_", "COVERAGE_PROCESS_")):
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def short_limits(request: pytest.FixtureRequest) -> Iterator[None]:
    """Set the limits that the markers ``limits`` of a test name; the nearest one wins."""
    # A batch of a data change shrinks while a server gets slower, and here it shares its cores with everything else.
    named = [*(mark.kwargs for mark in request.node.iter_markers("limits")), {"noise": math.inf}]
    with limited_to(Limits(**{name: seconds for given in reversed(named) for name, seconds in given.items()})):
        yield


@pytest.fixture(autouse=True)
def no_blocking_in_the_loop(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a coroutine in which code of the runner blocks the event loop; Motor itself and tests may."""
    if request.node.get_closest_marker("anyio") is None:
        yield
        return
    with blockbuster_ctx("mydocs.migrations") as detector:
        # A lock that another thread holds for a moment (a driver's, coverage's) is no blocking call, and chance.
        detector.functions["threading.Lock.acquire"].deactivate()
        for function in detector.functions.values():  # a worker's loop is its own, and nothing else runs in it
            function.can_block_in("data/range_worker.py", "run_range")
        # PyMongo looks for the file of a container where a client is made; an application's own client does so as well.
        detector.functions["os.stat"].can_block_in("pymongo/pool_options.py", "get_container_env_info")
        yield


@pytest.fixture
def ended() -> Callable[[int], Awaitable[None]]:
    """Give what waits for the end of a process that is none of ours to wait for."""

    def wait(pid: int) -> None:
        try:
            if sys.platform == "darwin":
                exits = select.kevent(pid, select.KQ_FILTER_PROC, select.KQ_EV_ADD, select.KQ_NOTE_EXIT)
                select.kqueue().control([exits], 1)
            else:
                process = os.pidfd_open(pid)
                select.select([process], [], [])
                os.close(process)
        except ProcessLookupError:
            return

    async def until_ended(pid: int) -> None:
        await anyio.to_thread.run_sync(wait, pid, abandon_on_cancel=True)

    return until_ended


@pytest.fixture
def contract_url(request: pytest.FixtureRequest) -> str:
    """Where a test of the marker ``contract`` runs: MYDOCS_TEST_URL where that is set, else a local server."""
    if CONTRACT_URL is not None:
        return CONTRACT_URL
    url: str = request.getfixturevalue("local_url")
    return url


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Stop a test that takes too long. By a signal, as it also reaches one that waits for a thread or a socket."""

    marker = item.get_closest_marker("seconds")
    usual = EXAMPLES_SECONDS if getattr(getattr(item, "function", None), "is_hypothesis_test", False) else TEST_SECONDS
    limit = usual if marker is None else float(marker.args[0])
    late = TimeoutError(f"{item.nodeid} takes longer than {limit} s")
    stopped = False

    def too_long(number: int, frame: FrameType | None) -> None:
        nonlocal stopped
        with contextlib.suppress(RuntimeError):
            loop = asyncio.get_running_loop()
            if not stopped:
                stopped = True
                # An error raised here would leave the test waiting in the task that its fixtures are to end in.
                for task in asyncio.all_tasks(loop):
                    loop.call_soon_threadsafe(task.cancel)
                return
        raise late

    before = signal.signal(signal.SIGALRM, too_long)
    # Again each second, in case that an event loop keeps the first one to itself.
    signal.setitimer(signal.ITIMER_REAL, limit, 1.0)
    try:
        return (yield)
    except asyncio.CancelledError as error:
        if stopped:
            raise late from error
        raise
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what the sweep has covered. Here, as the process that prints loads no conftest.py of a folder below."""
    counts: Counter[str] = Counter()
    for report in terminalreporter.getreports(""):  # of the tests' endings
        counts.update(dict(report.user_properties).get("faults", {}))
    if counts:
        terminalreporter.section("faults injected")
        for name, count in sorted(counts.items()):
            terminalreporter.write_line(f"{name}: {count}")
