"""
Make a sink for OpenTelemetry (extra ``mydocs[otel]``): spans of a call, its steps and index waits, and metrics. No I/O.

Spans are started and ended explicitly and never made current, so the caller's context stays unchanged. The span of the
call is a child of the span that is current when the sink is made. Attributes are names, counts, states and the type of
an error. The text of an error, without credentials, is the status of the span. Events, and so spans, contain no
definitions and no documents.
"""

import threading
import time
from typing import TYPE_CHECKING, Any

from mydocs.migrations.model import IndexState, MigrationState
from mydocs.migrations.reporting.events import (
    BatchDone,
    Event,
    IndexChanged,
    LeaseTaken,
    LeaseWaiting,
    Planned,
    Sink,
    StepFinished,
    StepStarted,
    Verified,
    Warned,
)
from mydocs.migrations.reporting.report import RunFinished

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider

SCOPE = "mydocs.migrations"
NANOSECONDS = 1_000_000_000


def opentelemetry_sink(
    *, tracer_provider: "TracerProvider | None" = None, meter_provider: "MeterProvider | None" = None
) -> Sink:
    """
    Return a sink for consecutive calls. Calls that overlap need one each.

    :param tracer_provider: receives the spans; by default the global one
    :param meter_provider: likewise for metrics
    :raises ImportError: if the extra is not installed
    """
    try:
        from opentelemetry import metrics, trace
    except ImportError as error:
        raise ImportError("OpenTelemetry is not installed; `pip install 'mydocs[otel]'`") from error
    return _Spans(trace.get_tracer(SCOPE, tracer_provider=tracer_provider), _Meters(metrics, meter_provider))


class _Meters:
    def __init__(self, metrics: Any, provider: Any) -> None:
        meter = metrics.get_meter(SCOPE, meter_provider=provider)
        self.runs = meter.create_histogram("mydocs.migrations.run.duration", "s", "Whole calls, by outcome")
        self.steps = meter.create_histogram("mydocs.migrations.step.duration", "s", "Migrations, by state")
        self.indexes = meter.create_histogram(
            "mydocs.migrations.index.duration", "s", "From the request for an index until it is ready or has failed"
        )


class _Spans:
    """The open spans: the call, a step, and the awaited indexes."""

    def __init__(self, tracer: Any, meters: _Meters) -> None:
        from opentelemetry import context, trace

        self._tracer, self._meters = tracer, meters
        self._trace, self._parent = trace, context.get_current()
        self._lock = threading.RLock()  # an event may come from a driver's thread
        self._run: Any = None
        self._step: Any = None
        self._indexes: dict[tuple[str, str], Any] = {}

    def __call__(self, event: Event) -> None:
        with self._lock:
            if self._run is None:
                self._run = self._tracer.start_span("mydocs.migrations", context=self._parent)
                self._run.set_attributes(_present({"db.namespace": event.database, "mydocs.run.id": event.run_id}))
            self._take(event)

    def _take(self, event: Event) -> None:
        match event:
            case Planned():
                self._run.set_attributes(
                    {"mydocs.plan.versions": event.versions, "mydocs.plan.direction": event.direction}
                )
            case Verified():
                self._run.add_event("Verified", {"mydocs.version": event.version, "mydocs.right": event.error is None})
            case LeaseWaiting() | LeaseTaken() | Warned():
                self._run.add_event(type(event).__name__, _present(_facts(event)))
            case StepStarted():
                self._step = self._span(f"{event.direction} {event.version}", event)
            case BatchDone():
                (self._step or self._run).add_event("BatchDone", _facts(event))
            case StepFinished():
                self._step_finished(event)
            case IndexChanged():
                self._index_changed(event)
            case RunFinished():
                self._finished(event)
            case _:  # the spans and events above already contain it
                pass

    def _step_finished(self, event: StepFinished) -> None:
        span, self._step = self._step or self._span(f"{event.direction} {event.version}", event), None
        attributes = {"mydocs.state": event.state.value, "mydocs.direction": event.direction}
        span.set_attributes(attributes)
        if event.error is not None:
            self._fail(span, event.error.type, event.error.message)
        span.end()
        self._meters.steps.record(event.seconds, attributes)

    def _index_changed(self, event: IndexChanged) -> None:
        key = event.collection, event.name
        if key not in self._indexes:
            # Starts with the request, since a fast build is ready at the first look.
            began = time.time_ns() - int(event.seconds * NANOSECONDS)
            self._indexes[key] = self._span(f"index {event.collection}.{event.name}", event, began)
        span = self._indexes[key]
        span.add_event(event.state.value, _present({"reason": event.reason or ""}))
        span.set_attributes({"mydocs.state": event.state.value, "mydocs.queryable": event.queryable})
        if event.state is IndexState.READY:
            self._end_index(key, event.state, event.seconds)

    def _finished(self, event: RunFinished) -> None:
        report = event.report
        for index in report.indexes:
            key = index.collection, index.name
            if key in self._indexes:
                if index.state is IndexState.FAILED:
                    self._fail(self._indexes[key], "IndexFailed", index.reason or "")
                self._end_index(key, index.state, index.seconds)
        for span in (*self._indexes.values(), self._step):
            if span is not None:  # still open: a script's own wait, or a step that was not recorded
                span.end()
        attributes = {"mydocs.outcome": report.outcome.value}
        run, self._run, self._step, self._indexes = self._run, None, None, {}
        run.set_attributes(
            {
                **attributes,
                "mydocs.migrations.applied": sum(m.state is MigrationState.APPLIED for m in report.migrations),
                "mydocs.indexes.ready": sum(index.state is IndexState.READY for index in report.indexes),
            }
        )
        if report.error is not None:
            self._fail(run, report.error.type, report.error.message)
        run.end()
        self._meters.runs.record(report.seconds, attributes)

    def _end_index(self, key: tuple[str, str], state: IndexState, seconds: float | None) -> None:
        self._indexes.pop(key).end()
        if seconds is not None:
            self._meters.indexes.record(seconds, {"mydocs.state": state.value})

    def _span(self, name: str, event: StepStarted | StepFinished | IndexChanged, began: int | None = None) -> Any:
        parent = self._trace.set_span_in_context(self._run, self._parent)
        if isinstance(event, IndexChanged):
            kind = event.type.value if event.type else ""
            facts = {"db.collection.name": event.collection, "mydocs.index.name": event.name, "mydocs.index.type": kind}
        else:
            facts = {"mydocs.version": event.version, "mydocs.name": event.name, "mydocs.script": event.script or ""}
        span = self._tracer.start_span(name, context=parent, start_time=began)
        span.set_attributes(_present(facts))
        return span

    def _fail(self, span: Any, kind: str, message: str) -> None:
        span.set_attribute("error.type", kind)
        span.set_status(self._trace.Status(self._trace.StatusCode.ERROR, message))


def _facts(event: LeaseWaiting | LeaseTaken | Warned | BatchDone) -> dict[str, Any]:
    match event:
        case LeaseWaiting():
            return {"host": event.holder.host or "", "pid": event.holder.pid or 0, "term": event.holder.term}
        case LeaseTaken():
            return {"term": event.term}
        case Warned():
            return {"message": event.message}
        case BatchDone():
            return {"collection": event.collection, "done": event.done, "total": event.total, "seconds": event.seconds}


def _present(attributes: dict[str, Any]) -> dict[str, Any]:
    """Leave out attributes without a value, which a backend would show as if they had one."""
    return {key: value for key, value in attributes.items() if value != ""}
