"""Export record and faults, for tests to import. Pure."""

from mydocs.localserver.control.controls import Controls
from mydocs.localserver.control.faults import CommandOutcome, Cut, Fault, Hung, Recorded

__all__ = ["CommandOutcome", "Controls", "Cut", "Fault", "Hung", "Recorded"]
