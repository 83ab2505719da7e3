"""Metrics for Prometheus, and a web address that is told how a call has ended."""

import http.server
import json
import queue
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from mydocs.localserver import LocalServer
from mydocs.migrations import MigrationError, fan_out, migrate, prometheus_sink, status, webhook_sink
from mydocs.migrations.driver.client import Database

pytestmark = pytest.mark.anyio

SEARCH = """
from pymongo.operations import SearchIndexModel
from mydocs.migrations import ensure_search_indexes
async def up(db):
    await ensure_search_indexes(db.documents, [SearchIndexModel({"mappings": {"dynamic": True}}, "ft")])
"""


@pytest.fixture
def posts() -> Iterator[tuple[str, "queue.Queue[dict[str, Any]]"]]:
    """A web server that keeps what it is posted; its address and that."""
    kept: queue.Queue[dict[str, Any]] = queue.Queue()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:  # the library's name
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            kept.put({"token": self.headers["X-Token"], **body})
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the library's name
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/hook", kept
        server.shutdown()
        thread.join()


async def test_gauges_say_what_the_last_call_has_seen(db: Database, folder: Path, local_server: LocalServer) -> None:
    registry = CollectorRegistry()
    sink = prometheus_sink(registry=registry)
    assert prometheus_sink(registry=registry) is sink

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"mydocs_{name}", {"database": db.name, **labels})

    (folder / "001_search.py").write_text(SEARCH)
    (folder / "002_bad.py").write_text("async def up(db): raise ValueError('no')\n")
    await status(db, directory=folder, on_event=sink)
    assert (value("migrations_pending"), value("last_run_outcome", outcome="ok")) == (2, 1)
    with pytest.raises(MigrationError):
        await migrate(db, directory=folder, on_event=sink)
    assert (value("migrations_pending"), value("indexes_not_ready")) == (1, 1)
    assert (value("last_run_outcome", outcome="ok"), value("last_run_outcome", outcome="failed")) == (0, 1)
    (folder / "002_bad.py").write_text("async def up(db): ...\n")
    await migrate(db, directory=folder, wait=True, on_event=sink)
    assert (value("migrations_pending"), value("indexes_not_ready")) == (0, 0)
    assert value("last_run_outcome", outcome="ok") == 1
    assert value("last_run_seconds") is not None
    assert b"mydocs_last_run_timestamp_seconds{" in generate_latest(registry)


async def test_an_address_is_told_how_a_call_has_ended(
    db: Database, folder: Path, posts: tuple[str, "queue.Queue[dict[str, Any]]"]
) -> None:
    url, kept = posts
    always = webhook_sink(url, headers={"X-Token": "all"})
    failures = webhook_sink(url, headers={"X-Token": "failures"}, only_failures=True)
    (folder / "001_good.py").write_text("async def up(db): ...\n")
    await migrate(db, directory=folder, on_event=fan_out(always, failures))
    (folder / "002_bad.py").write_text("async def up(db): raise ValueError('no')\n")
    with pytest.raises(MigrationError):
        await migrate(db, directory=folder, on_event=failures)
    told = sorted((kept.get(timeout=10) for _ in range(2)), key=lambda post: str(post["token"]))
    assert [(post["token"], post["report"]["outcome"]) for post in told] == [("all", "ok"), ("failures", "failed")]
    assert told[1]["text"].startswith(f"mydocs migrations of {db.name}: ended after ")
    assert told[1]["report"]["error"]["exit_code"] == 1
    assert kept.empty()


async def test_an_address_that_is_not_reached_fails_nothing(
    db: Database, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await migrate(db, directory=folder, on_event=webhook_sink("http://127.0.0.1:1/secret-token"))
    for thread in threading.enumerate():
        if thread.name == "mydocs-webhook":
            thread.join(10)
    assert "the webhook was not reached" in caplog.text
    assert "secret-token" not in caplog.text
    with pytest.raises(ValueError, match="http://"):
        webhook_sink("file:///etc/passwd")
