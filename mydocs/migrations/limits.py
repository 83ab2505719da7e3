"""How long the runner waits for its own commands: one value for a call and all that it starts. Pure."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from mydocs.migrations.values import value


@value
class Limits:
    """Seconds, all of them; the same for a call and for what it starts."""

    # For the answer to one command, once the driver knows a server; then the connection counts as lost.
    answer: float = 30.0
    # No new try of a command later than this after the first.
    retries: float = 30.0
    # How long a wait goes on without a good answer of the server: elections take 12 s, a restart of mongot a minute.
    # The last 5 s of two minutes are left for the end of the program.
    patience: float = 115.0
    # The moment of the monotonic clock at which an answer comes too late in any case.
    until: float = math.inf
    # For what must be finished and has not been when the caller is cancelled; Kubernetes kills 30 s later.
    grace: float = 5.0
    # For a leaving process to give the lease back.
    release: float = 5.0
    # From one renewal of the lease to the next, a third of it; and for one try, so that several fit into what is left.
    renew_every: float = 10.0
    renewal: float = 5.0
    # Between two looks of one process that waits for its turn: most runs with little to do take about as long.
    turn_gap: float = 0.3
    # Between SIGINT and SIGKILL for a plain script.
    script_grace: float = 10.0
    # No new try of a whole transaction later than this after the first, as in the drivers; nor of a commit whose
    # outcome is not known.
    transaction: float = 120.0
    commit: float = 30.0
    # By which the answers to a batch of a data change may differ, on a network and on shared cores.
    noise: float = 0.02

    # Between two looks at an index: the rate at which MongoDB's own Django backend polls.
    look_gap: float = 0.5
    # Until a failed build counts as failed: mongot itself retries it for three of its reasons, and the listing does not
    # say which one it was. Atlas publishes a recovery within 15 s; a self-managed mongot publishes its status every
    # 30 s (CommunityMetadataUpdater).
    failed: float = 15.0
    failed_self_managed: float = 35.0
    # Until an index that was accepted is listed: it takes seconds.
    appear: float = 60.0
    # Atlas lists the old version for a while after an update, seconds as a rule. After this long nothing is under way:
    # somebody changed the index, or the server took a create for one of the index that it has. To be wrong costs one
    # more `wait`; the number is as long as a wait goes on without a good answer.
    differs: float = 120.0
    # For a dropped index to leave the listing and free its name: on Atlas this takes a while. And between two looks at
    # the start; the pause is doubled up to ten times that.
    gone: float = 300.0
    gone_gap: float = 0.5
    # For the server's search to hear of a collection that was just created.
    no_collection: float = 30.0
    # For the search process behind the server to come back; a restart of mongot takes a minute.
    search: float = 120.0
    # For an application to stop using what an alias named before: the ten seconds of its cache (`SearchAliases.ttl`)
    # and the read that ends them.
    alias_grace: float = 15.0


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
