"""Export the clocks, for tests to import. Pure."""

from mydocs.localserver.control.clock import Clock, ManualClock, SystemClock

__all__ = ["Clock", "ManualClock", "SystemClock"]
