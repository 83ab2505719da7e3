"""How long the runner waits for its own commands: one value for a call and all that it starts. Pure."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from mydocs.migrations.values import value


@value
class Limits:
    """
    Seconds, all of them.

    :param answer: for the answer to one command, once the driver knows a server; then the connection counts as lost
    :param retries: no new try of a command later than this after the first
    :param patience: how long a wait goes on without a good answer of the server: elections take 12 s, a restart of
        mongot a minute. The last 5 s of two minutes are left for the end of the program
    :param until: the moment of the monotonic clock at which an answer comes too late in any case
    :param release: how long a leaving process may take to give the lease back
    :param renewal: for one try to renew the lease, so that several fit into what is left of it
    :param renew_every: from one renewal of the lease to the next, a third of it
    :param script_grace: between SIGINT and SIGKILL for a plain script
    :param noise: by which the answers to a batch of a data change may differ, on a network and on shared cores
    :param grace: for what must be finished and has not been when the caller is cancelled; Kubernetes kills 30 s later
    """

    answer: float = 30.0
    retries: float = 30.0
    patience: float = 115.0
    until: float = math.inf
    release: float = 5.0
    script_grace: float = 10.0
    renewal: float = 5.0
    renew_every: float = 10.0
    noise: float = 0.02
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
