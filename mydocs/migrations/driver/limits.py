"""How long the runner waits for its own commands: one value for a call and all that it starts. Pure."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """
    Seconds, all of them.

    :param record: for the record that a script starts or has ended, with all its repetitions
    :param release: how long a leaving process may take to give the lease back
    :param grace: for what must be finished and has not been when the caller is cancelled; Kubernetes kills 30 s later
    """

    record: float = 75.0
    release: float = 5.0
    grace: float = 5.0


_current: ContextVar[Limits] = ContextVar("mydocs_limits", default=Limits())  # noqa: B039  # it is frozen


def limits() -> Limits:
    """Return the limits of the call under way."""
    return _current.get()


@contextmanager
def limited_to(value: Limits) -> Iterator[None]:
    """Set the limits for what is awaited or started in a block; for tests, which have no minute to wait."""
    token = _current.set(value)
    try:
        yield
    finally:
        _current.reset(token)
