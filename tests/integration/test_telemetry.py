"""What a run says to OpenTelemetry: one trace, with what an operator looks for and nothing that is secret."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from mydocs.localserver import LocalServer
from mydocs.migrations import IndexFailed, MigrationFailed, Sink, migrate, opentelemetry_sink
from mydocs.migrations.driver.client import Database

Write = Callable[[str, str], Path]

pytestmark = pytest.mark.anyio

SEARCH = """
    from pymongo.operations import SearchIndexModel
    from mydocs.migrations import ensure_search_indexes, transform
    async def up(db):
        await db["pages"].insert_many([{"n": n, "secret": "in a document"} for n in range(3)])
        await transform(db["pages"], {}, lambda document: {"$set": {"m": document["n"]}})
        await ensure_search_indexes(db["pages"], [SearchIndexModel(name="ft", definition={"mappings": {}})])
"""


class Backend:
    """Holds what was exported."""

    def __init__(self) -> None:
        self._spans, self._metrics = InMemorySpanExporter(), InMemoryMetricReader()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self._spans))
        self._meters = MeterProvider(metric_readers=[self._metrics])

    def sink(self) -> Sink:
        return opentelemetry_sink(tracer_provider=self.tracers, meter_provider=self._meters)

    @property
    def finished(self) -> tuple[ReadableSpan, ...]:
        return self._spans.get_finished_spans()

    @property
    def spans(self) -> dict[str, ReadableSpan]:
        assert len({span.name for span in self.finished}) == len(self.finished)
        return {span.name: span for span in self.finished}

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        """How many values each metric has, by the value of its only attribute or its attribute for the state."""
        data = self._metrics.get_metrics_data()
        assert data is not None
        found: dict[str, dict[str, int]] = {}
        for metric in data.resource_metrics[0].scope_metrics[0].metrics:
            for point in metric.data.data_points:
                assert point.attributes is not None
                key = str(point.attributes.get("mydocs.state") or point.attributes.get("mydocs.outcome"))
                found.setdefault(metric.name, {})[key] = getattr(point, "count", 0)
        return found


@pytest.fixture
def backend() -> Backend:
    return Backend()


def attributes(span: ReadableSpan) -> Mapping[str, Any]:
    return dict(span.attributes or {})


async def test_a_run_is_a_trace_of_its_steps_and_its_index_waits(
    any_db: Database, folder: Path, write: Write, backend: Backend
) -> None:
    write("001_search.py", SEARCH)
    with backend.tracers.get_tracer("application").start_as_current_span("start-up") as around:
        await migrate(any_db, directory=folder, wait=True, on_event=backend.sink())
        assert trace.get_current_span() is around
    spans = backend.spans
    assert set(spans) == {"start-up", "mydocs.migrations", "up standard", "up 001", "index pages.ft"}
    run = spans["mydocs.migrations"]
    assert run.parent == around.get_span_context()
    assert [spans[name].parent for name in ("up standard", "up 001", "index pages.ft")] == [run.context] * 3
    assert attributes(run)["db.namespace"] == "app"
    assert attributes(run)["mydocs.outcome"] == "ok"
    assert attributes(run)["mydocs.plan.versions"] == ("001",)
    assert attributes(spans["up 001"]) == {
        "mydocs.version": "001",
        "mydocs.name": "search",
        "mydocs.script": "001_search.py",
        "mydocs.state": "applied",
        "mydocs.direction": "up",
    }
    assert "BatchDone" in [event.name for event in spans["up 001"].events]
    assert attributes(spans["index pages.ft"])["mydocs.state"] == "ready"
    assert {span.status.status_code for span in spans.values()} == {StatusCode.UNSET}
    assert all(
        (span.start_time or 0) <= (span.end_time or 0) <= (run.end_time or 0)
        for name, span in spans.items()
        if name != "start-up"
    )
    assert backend.counts == {
        "mydocs.migrations.run.duration": {"ok": 1},
        "mydocs.migrations.step.duration": {"applied": 2},
        "mydocs.migrations.index.duration": {"ready": 1},
    }


async def test_a_failed_script_is_an_error_of_its_step_and_of_the_run(
    db: Database, folder: Path, write: Write, backend: Backend
) -> None:
    write("001_bad.py", "async def up(db): raise ValueError('cannot reach mongodb://me:s3cret@host/')")
    with pytest.raises(MigrationFailed):
        await migrate(db, directory=folder, standard_indexes={}, on_event=backend.sink())
    spans = backend.spans
    assert {name: span.status.status_code for name, span in spans.items()} == {
        "mydocs.migrations": StatusCode.ERROR,
        "up 001": StatusCode.ERROR,
    }
    assert attributes(spans["up 001"])["error.type"] == "ValueError"
    assert attributes(spans["mydocs.migrations"])["error.type"] == "MigrationFailed"
    assert "s3cret" not in "".join(span.to_json() for span in spans.values())
    assert backend.counts["mydocs.migrations.step.duration"] == {"failed": 1}


@pytest.mark.limits(failed=0.0)
async def test_a_failed_build_is_an_error_of_its_index(
    db: Database, folder: Path, write: Write, backend: Backend, local_server: LocalServer
) -> None:
    write("001_search.py", SEARCH)
    local_server.search.outcome("ft", fails="out of space")
    with pytest.raises(IndexFailed):
        await migrate(db, directory=folder, wait=True, standard_indexes={}, on_event=backend.sink())
    index = backend.spans["index pages.ft"]
    assert (index.status.status_code, index.status.description) == (StatusCode.ERROR, "out of space")
    assert "in a document" not in "".join(span.to_json() for span in backend.spans.values())


async def test_one_sink_serves_one_call_after_the_other(
    db: Database, folder: Path, write: Write, backend: Backend
) -> None:
    sink = backend.sink()
    write("001_search.py", SEARCH)
    await migrate(db, directory=folder, standard_indexes={}, on_event=sink)
    write("002_search.py", "async def up(db): pass")
    await migrate(db, directory=folder, standard_indexes={}, on_event=sink)
    runs = [span for span in backend.finished if span.name == "mydocs.migrations"]
    assert [attributes(run)["mydocs.plan.versions"] for run in runs] == [("001",), ("002",)]
    (second,) = [span for span in backend.finished if span.name == "up 002"]
    assert second.parent == runs[1].context
