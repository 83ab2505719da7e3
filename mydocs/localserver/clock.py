"""The clock, where tests import it from."""

from mydocs.localserver.control.clock import Clock, ManualClock, SystemClock

__all__ = ["Clock", "ManualClock", "SystemClock"]
