"""The example applications start, say over HTTP what is missing, and become ready. Real processes, on loopback."""

import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from mydocs.localserver import LocalServer
from mydocs.localserver.clock import ManualClock
from mydocs.localserver.controls import Recorded

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "docs" / "examples"

pytestmark = pytest.mark.seconds(180)

START_SECONDS = 90.0
USER, PASSWORD = "application", "p@ss/w:rd"
# uvicorn on a socket that listens already: a request that comes before the application is up waits for it.
SERVE = """
import socket, sys, uvicorn
server = uvicorn.Server(uvicorn.Config(sys.argv[1], log_level="warning"))
server.run(sockets=[socket.socket(fileno=int(sys.argv[2]))])
"""

Start = Callable[[str], httpx.Client]


@pytest.fixture
def server(local_clock: ManualClock) -> Iterator[LocalServer]:
    """A server that asks for a login, as one in production does."""
    with LocalServer(clock=local_clock, user=USER, password=PASSWORD) as server:
        yield server


@pytest.fixture
def start(server: LocalServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Start an example on the test's server, with the shipped migrations; none outlives the test."""
    started: list[tuple[subprocess.Popen[bytes], httpx.Client]] = []
    monkeypatch.setenv("MONGO_URL", f"mongodb://127.0.0.1:{server.port}/")
    monkeypatch.setenv("MONGO_USER", USER)
    monkeypatch.setenv("MONGO_PASSWORD", PASSWORD)
    monkeypatch.setenv("MONGO_DB_NAME", "app")
    monkeypatch.setenv("MYDOCS_MIGRATIONS_DIR", str(ROOT / "migrations"))
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{EXAMPLES}")

    def run(module: str) -> httpx.Client:
        with socket.socket() as listening:
            listening.bind(("127.0.0.1", 0))
            listening.listen()
            port = listening.getsockname()[1]
            command = [sys.executable, "-c", SERVE, f"{module}:app", str(listening.fileno())]
            process = subprocess.Popen(command, pass_fds=[listening.fileno()])
        client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=START_SECONDS, trust_env=False)
        started.append((process, client))
        return client

    yield run
    for process, client in started:
        client.close()
        process.terminate()
        try:
            assert process.wait(START_SECONDS) in (0, -signal.SIGTERM)
        finally:
            process.kill()
            process.wait()


def search_indexes(server: LocalServer, **outcome: Any) -> None:
    for name in ("ft_documents", "ft_pages", "vec_pages_large_dot"):
        server.search.outcome(name, pending_seconds=0.0, **outcome)


def is_release(recorded: Recorded) -> bool:
    return recorded.body.get("update") == "_migrations_lock" and "'owner': None" in str(recorded.body)


def is_listing(recorded: Recorded, after: int) -> bool:
    return recorded.sequence > after and "$listSearchIndexes" in str(recorded.body)


def asks(server: LocalServer) -> int:
    return len(server.controls.counted())


def test_the_fastapi_example_serves_while_a_script_runs_and_indexes_build(
    server: LocalServer, local_clock: ManualClock, start: Start
) -> None:
    search_indexes(server, build_seconds=3600.0)
    go_on = threading.Event()
    server.controls.call(lambda _: go_on.wait(START_SECONDS), command="createSearchIndexes", times=1)
    client = start("fastapi_app")
    server.controls.wait_for(lambda recorded: recorded.name == "createSearchIndexes", START_SECONDS)
    assert client.get("/healthz").json() == {"alive": True}
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert "001 is running" in answer.json()["missing"]
    go_on.set()
    building = {
        "ready": False,
        "missing": [
            "index documents.ft_documents is building",
            "index pages.ft_pages is building",
            "index pages.vec_pages_large_dot is building",
        ],
        "problem": None,
    }
    while answer.json() != building:  # asked as a probe would, until the scripts are through
        assert answer.status_code == 503
        answer = client.get("/readyz")
    local_clock.advance(3601)
    while answer.status_code != 200:
        answer = client.get("/readyz")
    assert answer.json() == {"ready": True, "missing": []}
    before = asks(server)
    client.get("/readyz")
    assert asks(server) == before


def test_the_fastapi_example_goes_on_serving_when_a_build_has_failed(server: LocalServer, start: Start) -> None:
    search_indexes(server, build_seconds=0.0)
    server.search.outcome("ft_pages", pending_seconds=0.0, build_seconds=0.0, fails="out of space")
    client = start("fastapi_app")
    failed = {"index pages.ft_pages is failed (out of space)"}
    answer = client.get("/readyz")
    while set(answer.json()["missing"]) != failed:
        answer = client.get("/readyz")
    assert answer.status_code == 503
    assert client.get("/healthz").status_code == 200


def test_the_starlette_example_answers_only_when_all_is_ready(
    server: LocalServer, local_clock: ManualClock, start: Start
) -> None:
    search_indexes(server, build_seconds=3600.0)
    client = start("starlette_app")
    answers: list[httpx.Response] = []
    asking = threading.Thread(target=lambda: answers.append(client.get("/readyz")))
    asking.start()
    lease = server.controls.wait_for(is_release, START_SECONDS)
    server.controls.wait_for(lambda recorded: is_listing(recorded, lease.sequence), START_SECONDS)
    assert answers == []
    local_clock.advance(3601)
    asking.join(START_SECONDS)
    assert [(answer.status_code, answer.json()) for answer in answers] == [(200, {"ready": True, "missing": []})]
    before = asks(server)
    client.get("/readyz")
    assert asks(server) == before + 1
