"""Write durations for people. Pure."""

import math


def seconds_text(seconds: float | None) -> str:
    """Write a measured duration: ``0.12 s``, ``12.3 s``, ``3 min 20 s``, ``1 h 05 min``; nothing for ``None``."""
    if seconds is None or not math.isfinite(seconds):
        return ""
    if seconds < 9.995:
        return f"{seconds:.2f} s"
    if seconds < 99.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


def rounded_text(seconds: float) -> str:
    """Write a duration that is estimated, or not over yet, in whole seconds."""
    return f"{round(seconds)} s" if seconds < 99.5 else seconds_text(seconds)
