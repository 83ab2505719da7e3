"""
Bring a MongoDB database to the state that the code needs, and know when its search indexes can be queried.

An application awaits :func:`migrate`. A script uses the helpers. The other names are for annotations and ``except``.
A name is imported at its first use, so that reading the scripts does not import a driver.
"""

import logging
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mydocs.migrations.data.embeddings import fingerprint_field, new_embedding, stale_embeddings
    from mydocs.migrations.data.function_calls import RetryLater
    from mydocs.migrations.data.in_batches import rename_field, unset_field, update_in_batches
    from mydocs.migrations.data.range_worker import run_range
    from mydocs.migrations.data.transform import transform
    from mydocs.migrations.errors import (
        IndexConflict,
        IndexFailed,
        IndexRefused,
        LeaseError,
        LeaseHeld,
        LeaseLost,
        LedgerChanged,
        LedgerInvalid,
        MigrationError,
        MigrationFailed,
        NotPossible,
        NotReady,
        PlanError,
        ScriptsInvalid,
        ServerError,
        Unverified,
        UsageError,
        VectorsUnfit,
        VerifyFailed,
        WorkLeft,
    )
    from mydocs.migrations.indexes.aliases import switch_search_alias
    from mydocs.migrations.indexes.search import drop_search_indexes, ensure_search_indexes
    from mydocs.migrations.indexes.standard import ensure_indexes
    from mydocs.migrations.indexes.vectors import VectorFinding, VectorKind, VectorReport, check_vectors
    from mydocs.migrations.indexes.waiter import wait_until_ready
    from mydocs.migrations.model import IndexState, IndexType, MigrationState, SearchAlias, StoredError
    from mydocs.migrations.operations.check import check
    from mydocs.migrations.operations.connection import connect
    from mydocs.migrations.operations.migrate import migrate
    from mydocs.migrations.operations.pull import PullReport, pull
    from mydocs.migrations.operations.rollback import rollback
    from mydocs.migrations.operations.settle import mark, repair, unlock
    from mydocs.migrations.operations.status import status, work_left
    from mydocs.migrations.operations.takeover import import_ledger
    from mydocs.migrations.operations.wait import wait_for_indexes, wait_until_current
    from mydocs.migrations.reporting.events import Event, Sink
    from mydocs.migrations.reporting.metrics import prometheus_sink
    from mydocs.migrations.reporting.plan_report import PlanReport
    from mydocs.migrations.reporting.report import (
        AttemptReport,
        ErrorReport,
        IndexReport,
        MigrationReport,
        Outcome,
        RunReport,
    )
    from mydocs.migrations.reporting.sinks import fan_out, logging_sink
    from mydocs.migrations.reporting.telemetry import opentelemetry_sink
    from mydocs.migrations.reporting.webhook import webhook_sink
    from mydocs.preview.operation import plan

__all__ = [
    "AttemptReport",
    "ErrorReport",
    "Event",
    "IndexConflict",
    "IndexFailed",
    "IndexRefused",
    "IndexReport",
    "IndexState",
    "IndexType",
    "LeaseError",
    "LeaseHeld",
    "LeaseLost",
    "LedgerChanged",
    "LedgerInvalid",
    "MigrationError",
    "MigrationFailed",
    "MigrationReport",
    "MigrationState",
    "NotPossible",
    "NotReady",
    "Outcome",
    "PlanError",
    "PlanReport",
    "PullReport",
    "RetryLater",
    "RunReport",
    "ScriptsInvalid",
    "SearchAlias",
    "ServerError",
    "Sink",
    "StoredError",
    "Unverified",
    "UsageError",
    "VectorFinding",
    "VectorKind",
    "VectorReport",
    "VectorsUnfit",
    "VerifyFailed",
    "WorkLeft",
    "check",
    "check_vectors",
    "connect",
    "drop_search_indexes",
    "ensure_indexes",
    "ensure_search_indexes",
    "fan_out",
    "fingerprint_field",
    "import_ledger",
    "logging_sink",
    "mark",
    "migrate",
    "new_embedding",
    "opentelemetry_sink",
    "plan",
    "prometheus_sink",
    "pull",
    "rename_field",
    "repair",
    "rollback",
    "run_range",
    "stale_embeddings",
    "status",
    "switch_search_alias",
    "transform",
    "unlock",
    "unset_field",
    "update_in_batches",
    "wait_for_indexes",
    "wait_until_current",
    "wait_until_ready",
    "webhook_sink",
    "work_left",
]

_HOMES = {
    "AttemptReport": "reporting.report",
    "ErrorReport": "reporting.report",
    "Event": "reporting.events",
    "IndexConflict": "errors",
    "IndexFailed": "errors",
    "IndexRefused": "errors",
    "IndexReport": "reporting.report",
    "IndexState": "model",
    "IndexType": "model",
    "LeaseError": "errors",
    "LeaseHeld": "errors",
    "LeaseLost": "errors",
    "LedgerChanged": "errors",
    "LedgerInvalid": "errors",
    "MigrationError": "errors",
    "MigrationFailed": "errors",
    "MigrationReport": "reporting.report",
    "MigrationState": "model",
    "NotPossible": "errors",
    "NotReady": "errors",
    "Outcome": "reporting.report",
    "PlanError": "errors",
    "PlanReport": "reporting.plan_report",
    "PullReport": "operations.pull",
    "RetryLater": "data.function_calls",
    "RunReport": "reporting.report",
    "ScriptsInvalid": "errors",
    "SearchAlias": "model",
    "ServerError": "errors",
    "Sink": "reporting.events",
    "StoredError": "model",
    "Unverified": "errors",
    "UsageError": "errors",
    "VectorFinding": "indexes.vectors",
    "VectorKind": "indexes.vectors",
    "VectorReport": "indexes.vectors",
    "VectorsUnfit": "errors",
    "VerifyFailed": "errors",
    "WorkLeft": "errors",
    "check": "operations.check",
    "check_vectors": "indexes.vectors",
    "connect": "operations.connection",
    "drop_search_indexes": "indexes.search",
    "ensure_indexes": "indexes.standard",
    "ensure_search_indexes": "indexes.search",
    "fan_out": "reporting.sinks",
    "fingerprint_field": "data.embeddings",
    "import_ledger": "operations.takeover",
    "logging_sink": "reporting.sinks",
    "mark": "operations.settle",
    "migrate": "operations.migrate",
    "new_embedding": "data.embeddings",
    "opentelemetry_sink": "reporting.telemetry",
    "plan": "mydocs.preview.operation",  # outside this package, since it also imports the local server
    "prometheus_sink": "reporting.metrics",
    "pull": "operations.pull",
    "rename_field": "data.in_batches",
    "repair": "operations.settle",
    "rollback": "operations.rollback",
    "run_range": "data.range_worker",
    "stale_embeddings": "data.embeddings",
    "status": "operations.status",
    "switch_search_alias": "indexes.aliases",
    "transform": "data.transform",
    "unlock": "operations.settle",
    "unset_field": "data.in_batches",
    "update_in_batches": "data.in_batches",
    "wait_for_indexes": "operations.wait",
    "wait_until_current": "operations.wait",
    "wait_until_ready": "indexes.waiter",
    "webhook_sink": "reporting.webhook",
    "work_left": "operations.status",
}

# In an application that has not configured logging nothing is printed, not even a warning.
logging.getLogger("mydocs").addHandler(logging.NullHandler())


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = _HOMES[name]
    value = getattr(import_module(home if home.startswith("mydocs.") else f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
