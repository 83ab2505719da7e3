"""
Make a sink for Prometheus (extra ``mydocs[prometheus]``): what is pending, what is not ready, how a call ended. No I/O.

The gauges show what the last call of a process has found. A process that serves ``/metrics`` sets them by its own
calls, for example at its start, or by a ``status`` every few minutes.
"""

import threading
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from mydocs.migrations.model import IndexState, MigrationState
from mydocs.migrations.reporting.events import Event, IndexChanged, Planned, Sink, StepFinished
from mydocs.migrations.reporting.report import Outcome, RunFinished

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

DONE = (MigrationState.APPLIED, MigrationState.MISSING)

_lock = threading.Lock()
_sinks: "WeakKeyDictionary[CollectorRegistry, _Gauges]" = WeakKeyDictionary()


def prometheus_sink(*, registry: "CollectorRegistry | None" = None) -> Sink:
    """
    Return the sink of a registry. It is always the same one, since a registry accepts each metric once.

    :param registry: serves the metrics; by default the client's global one
    :raises ImportError: if the extra is not installed
    """
    try:
        import prometheus_client
    except ImportError as error:
        raise ImportError("prometheus-client is not installed; `pip install 'mydocs[prometheus]'`") from error
    chosen = prometheus_client.REGISTRY if registry is None else registry
    with _lock:
        if chosen not in _sinks:
            _sinks[chosen] = _Gauges(prometheus_client, chosen)
        return _sinks[chosen]


class _Gauges:
    """The metrics of one registry, each with the database as a label. Events may come from several threads."""

    def __init__(self, client: Any, registry: Any) -> None:
        def gauge(name: str, text: str, *labels: str) -> Any:
            return client.Gauge(f"mydocs_{name}", text, ("database", *labels), registry=registry)

        self._pending = gauge("migrations_pending", "Migrations that are not applied")
        self._late = gauge("indexes_not_ready", "Tracked indexes that cannot be queried as they were asked for")
        self._outcome = gauge("last_run_outcome", "1 for the outcome of the last call, else 0", "outcome")
        self._seconds = gauge("last_run_seconds", "Duration of the last call")
        self._ended = gauge("last_run_timestamp_seconds", "End of the last call")
        self._lock = threading.Lock()
        self._unready: dict[str, set[tuple[str, str]]] = {}

    def __call__(self, event: Event) -> None:
        with self._lock:
            self._take(event, event.database)

    def _take(self, event: Event, database: str) -> None:
        match event:
            case Planned(direction="up"):
                self._pending.labels(database).set(len(event.versions))
            case StepFinished(direction="up", state=MigrationState.APPLIED) if event.script is not None:
                self._pending.labels(database).dec()
            case IndexChanged():
                unready = self._unready.setdefault(database, set())
                (unready.discard if event.state is IndexState.READY else unready.add)((event.collection, event.name))
                self._late.labels(database).set(len(unready))
            case RunFinished():
                self._finished(event, database)
            case _:
                pass

    def _finished(self, event: RunFinished, database: str) -> None:
        report = event.report
        if report.migrations:
            self._pending.labels(database).set(sum(m.state not in DONE for m in report.migrations))
        self._unready[database] = {(i.collection, i.name) for i in report.indexes if i.state is not IndexState.READY}
        self._late.labels(database).set(len(self._unready[database]))
        for outcome in Outcome:
            self._outcome.labels(database, outcome.value).set(float(outcome is report.outcome))
        self._seconds.labels(database).set(round(report.seconds, 3))
        self._ended.labels(database).set_to_current_time()
