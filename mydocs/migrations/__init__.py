"""
Bring a MongoDB database to the state that the code needs, and know when its search indexes can be queried.

An application awaits :func:`migrate`; a script uses the helpers; everything else is here to be annotated or caught.
A name is imported when it is first used, so that reading scripts does not cost the import of a driver.
"""

import logging
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mydocs.migrations.data import rename_field, transform, unset_field
    from mydocs.migrations.errors import (
        IndexConflict,
        IndexFailed,
        IndexRefused,
        LeaseError,
        LeaseHeld,
        LeaseLost,
        LedgerInvalid,
        MigrationError,
        MigrationFailed,
        NotPossible,
        NotReady,
        PlanError,
        ScriptsInvalid,
        ServerError,
        UsageError,
        WorkLeft,
    )
    from mydocs.migrations.events import Event, Sink
    from mydocs.migrations.indexes import drop_search_indexes, ensure_search_indexes
    from mydocs.migrations.model import IndexState, IndexType, MigrationState, StoredError
    from mydocs.migrations.report import AttemptReport, ErrorReport, IndexReport, MigrationReport, Outcome, RunReport
    from mydocs.migrations.reverse import rollback
    from mydocs.migrations.runner import migrate, wait_for_indexes, wait_until_current
    from mydocs.migrations.settle import mark, repair, unlock
    from mydocs.migrations.sinks import fan_out, logging_sink
    from mydocs.migrations.standard import ensure_indexes
    from mydocs.migrations.survey import check, status, work_left
    from mydocs.migrations.telemetry import opentelemetry_sink
    from mydocs.migrations.wait import wait_until_ready

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
    "LedgerInvalid",
    "MigrationError",
    "MigrationFailed",
    "MigrationReport",
    "MigrationState",
    "NotPossible",
    "NotReady",
    "Outcome",
    "PlanError",
    "RunReport",
    "ScriptsInvalid",
    "ServerError",
    "Sink",
    "StoredError",
    "UsageError",
    "WorkLeft",
    "check",
    "drop_search_indexes",
    "ensure_indexes",
    "ensure_search_indexes",
    "fan_out",
    "logging_sink",
    "mark",
    "migrate",
    "opentelemetry_sink",
    "rename_field",
    "repair",
    "rollback",
    "status",
    "transform",
    "unlock",
    "unset_field",
    "wait_for_indexes",
    "wait_until_current",
    "wait_until_ready",
    "work_left",
]

_HOMES = {
    "AttemptReport": "report",
    "ErrorReport": "report",
    "Event": "events",
    "IndexConflict": "errors",
    "IndexFailed": "errors",
    "IndexRefused": "errors",
    "IndexReport": "report",
    "IndexState": "model",
    "IndexType": "model",
    "LeaseError": "errors",
    "LeaseHeld": "errors",
    "LeaseLost": "errors",
    "LedgerInvalid": "errors",
    "MigrationError": "errors",
    "MigrationFailed": "errors",
    "MigrationReport": "report",
    "MigrationState": "model",
    "NotPossible": "errors",
    "NotReady": "errors",
    "Outcome": "report",
    "PlanError": "errors",
    "RunReport": "report",
    "ScriptsInvalid": "errors",
    "ServerError": "errors",
    "Sink": "events",
    "StoredError": "model",
    "UsageError": "errors",
    "WorkLeft": "errors",
    "check": "survey",
    "drop_search_indexes": "indexes",
    "ensure_indexes": "standard",
    "ensure_search_indexes": "indexes",
    "fan_out": "sinks",
    "logging_sink": "sinks",
    "mark": "settle",
    "migrate": "runner",
    "opentelemetry_sink": "telemetry",
    "rename_field": "data",
    "repair": "settle",
    "rollback": "reverse",
    "status": "survey",
    "transform": "data",
    "unlock": "settle",
    "unset_field": "data",
    "wait_for_indexes": "runner",
    "wait_until_current": "runner",
    "wait_until_ready": "wait",
    "work_left": "survey",
}

# An application that has not set logging up gets nothing printed, not even a warning.
logging.getLogger("mydocs").addHandler(logging.NullHandler())


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
