"""Define how long the runner waits for its own commands: one value for a call and all that it starts. Pure."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from mydocs.migrations.values import value


@value
class Limits:
    """The limits, all in seconds. A call and all that it starts have the same."""

    # For the answer to one command, once the driver knows a server. Then the connection counts as lost.
    answer: float = 30.0
    # From the first try of a command to the start of its last.
    retries: float = 30.0
    # How long a wait continues without a good answer of the server: elections take 12 s, a restart of mongot a minute.
    # The last 5 s of two minutes are left for the end of the program.
    patience: float = 115.0
    # The moment of the monotonic clock after which any answer is too late.
    until: float = math.inf
    # After a cancellation, for work that must be finished. Kubernetes kills after 30 s.
    grace: float = 5.0
    # For a leaving process to release the lease.
    release: float = 5.0
    # From one renewal of the lease to the next: a third of it. And for one try, so that several fit into the rest.
    renew_every: float = 10.0
    renewal: float = 5.0
    # Between two looks of one process that waits for its turn: most runs with little to do take about as long.
    turn_gap: float = 0.3
    # For a script's cleanup: between SIGINT and SIGKILL for a plain one.
    script_grace: float = 10.0
    # From the first try of a whole transaction to the start of its last, as in the drivers; also for the tries of a
    # commit with unknown outcome.
    transaction: float = 120.0
    commit: float = 30.0
    # By how much the times of a data change's batches may differ because of network and shared cores, or a hiccup.
    noise: float = 0.1

    # Between two looks at an index: the rate at which MongoDB's own Django backend polls.
    look_gap: float = 0.5
    # Until a failed build counts as failed. mongot itself repeats it for three of its reasons, and the listing does not
    # say which reason it was. Atlas publishes a recovery within 15 s. A self-managed mongot publishes its status every
    # 30 s (CommunityMetadataUpdater).
    failed: float = 15.0
    failed_self_managed: float = 35.0
    # Until an accepted index is listed. It takes seconds.
    appear: float = 60.0
    # Atlas lists the old version for a while after an update, usually for seconds. After this time nothing is under
    # way: the index was changed by hand, or the server answered a create with the index that it already had. A wrong
    # decision costs one more `wait`. The number is the time that a wait continues without a good answer.
    differs: float = 120.0
    # For a dropped index to leave the listing and free its name; on Atlas this takes a while. Then, the pause between
    # the first two looks; it doubles up to ten times that.
    gone: float = 300.0
    gone_gap: float = 0.5
    # Until the server's search knows a collection that was just created.
    no_collection: float = 30.0
    # For the search process behind the server to come back. A restart of mongot takes a minute.
    search: float = 120.0
    # Until no application uses the old index of an alias: the ten seconds of its cache (`SearchAliases.ttl`), and the
    # read after them.
    alias_grace: float = 15.0


_current: ContextVar[Limits] = ContextVar("mydocs_limits", default=Limits())  # noqa: B039  # it is frozen


def limits() -> Limits:
    """Return the limits of the present call."""
    return _current.get()


@contextmanager
def limited_to(value: Limits) -> Iterator[None]:
    """Set the limits for all that a block awaits or starts; for tests, which cannot wait for a minute."""
    token = _current.set(value)
    try:
        yield
    finally:
        _current.reset(token)
