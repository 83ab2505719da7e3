"""A server for laptops and tests that speaks MongoDB's wire protocol. It is not MongoDB, and imports no driver."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mydocs.localserver.control.clock import Clock, ManualClock, SystemClock
    from mydocs.localserver.errors import DirectoryInUse, ServerError
    from mydocs.localserver.search import SearchSettings
    from mydocs.localserver.server import LocalServer

__all__ = ["Clock", "DirectoryInUse", "LocalServer", "ManualClock", "SearchSettings", "ServerError", "SystemClock"]

# Imported at first use: the pytest plugin is loaded in every test run, also in those that start no server.
_HOMES = {
    "Clock": "clock",
    "ManualClock": "clock",
    "SystemClock": "clock",
    "SearchSettings": "search",
    "LocalServer": "server",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES.get(name, 'errors')}"), name)
