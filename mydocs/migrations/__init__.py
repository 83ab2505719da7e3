"""
Bring a MongoDB database to the state that the code needs, and know when its search indexes can be queried.

An application awaits :func:`migrate`; a script uses the helpers; everything else is here to be annotated or caught.
A name is imported when it is first used, so that reading scripts does not cost the import of a driver.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mydocs.migrations.errors import (
        IndexFailed,
        LeaseHeld,
        LeaseLost,
        MigrationError,
        MigrationFailed,
        NotReady,
        PlanError,
        ScriptsInvalid,
        ServerError,
        UsageError,
    )
    from mydocs.migrations.events import Event
    from mydocs.migrations.indexes import drop_search_indexes, ensure_indexes, ensure_search_indexes
    from mydocs.migrations.report import IndexReport, MigrationReport, RunReport
    from mydocs.migrations.runner import migrate, wait_for_indexes, wait_until_current
    from mydocs.migrations.wait import wait_until_ready

__all__ = [
    "Event",
    "IndexFailed",
    "IndexReport",
    "LeaseHeld",
    "LeaseLost",
    "MigrationError",
    "MigrationFailed",
    "MigrationReport",
    "NotReady",
    "PlanError",
    "RunReport",
    "ScriptsInvalid",
    "ServerError",
    "UsageError",
    "drop_search_indexes",
    "ensure_indexes",
    "ensure_search_indexes",
    "migrate",
    "wait_for_indexes",
    "wait_until_current",
    "wait_until_ready",
]

_HOMES = {
    "Event": "events",
    "IndexFailed": "errors",
    "IndexReport": "report",
    "LeaseHeld": "errors",
    "LeaseLost": "errors",
    "MigrationError": "errors",
    "MigrationFailed": "errors",
    "MigrationReport": "report",
    "NotReady": "errors",
    "PlanError": "errors",
    "RunReport": "report",
    "ScriptsInvalid": "errors",
    "ServerError": "errors",
    "UsageError": "errors",
    "drop_search_indexes": "indexes",
    "ensure_indexes": "indexes",
    "ensure_search_indexes": "indexes",
    "migrate": "runner",
    "wait_for_indexes": "runner",
    "wait_until_current": "runner",
    "wait_until_ready": "wait",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
