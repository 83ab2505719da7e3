"""Export the clocks, for tests to import."""

from mydocs.localserver.control.clock import Clock, ManualClock, SystemClock

__all__ = ["Clock", "ManualClock", "SystemClock"]
