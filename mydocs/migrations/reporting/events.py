"""What a run says while it goes: frozen events, and the sinks that take them. Pure."""

import logging
from collections.abc import Callable
from dataclasses import dataclass

from mydocs.migrations.model import IndexState, IndexType, LeaseView, MigrationState, StoredError

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened, in which call: ``run_id`` is what this call signs lease and ledger with."""

    database: str = ""
    run_id: str = ""


Sink = Callable[[Event], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned(Event):
    """What is going to run, in order; ``standard`` says whether the standard indexes are a step of it."""

    versions: tuple[str, ...]
    standard: bool
    direction: str = "up"


@dataclass(frozen=True, slots=True, kw_only=True)
class Warned(Event):
    """Something that an operator should know and that stops nothing."""

    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseWaiting(Event):
    """Somebody else migrates; said once for each holder."""

    holder: LeaseView


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseTaken(Event):
    """This run may migrate now."""

    term: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StepStarted(Event):
    """A script, or the standard indexes (version ``standard``), starts; ``direction`` is up or down."""

    version: str
    name: str
    script: str | None
    direction: str = "up"


@dataclass(frozen=True, slots=True, kw_only=True)
class StepFinished(Event):
    """The step has ended and is recorded."""

    version: str
    name: str
    script: str | None
    state: MigrationState
    seconds: float
    error: StoredError | None = None
    direction: str = "up"


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchDone(Event):
    """A batch of a data change is written; ``done`` and ``total`` count documents, ``seconds`` since its start."""

    collection: str
    done: int
    total: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexDefined(Event):
    """A helper has brought an index to its definition, or found it there."""

    collection: str
    name: str
    type: IndexType
    action: str


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexChanged(Event):
    """An index that is waited for is seen in another state; ``seconds`` since it was asked for."""

    collection: str
    name: str
    type: IndexType | None
    state: IndexState
    queryable: bool
    seconds: float
    hosts_ready: int = 0
    hosts_total: int = 0
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StillWaiting(Event):
    """What a wait still waits for: each 30 s, and where others migrate, also when it has become less."""

    what: tuple[str, ...]
    seconds: float


def emit(sink: Sink | None, event: Event) -> None:
    """Hand an event to a sink. A sink that raises is logged and does not stop the run."""
    if sink is None:
        return
    try:
        sink(event)
    except Exception:
        logger.exception("the event sink raised on %s", type(event).__name__)
