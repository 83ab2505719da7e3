"""
Define the events of a call: frozen values, each with its sentence and its level, for sinks. Pure.

To add an event, add its class here. Every view and log shows its sentence. A view that needs more matches the class.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import fields

from mydocs.migrations.errors import describe_holder
from mydocs.migrations.model import (
    STANDARD_VERSION,
    IndexAction,
    IndexState,
    IndexType,
    LeaseView,
    MigrationState,
    StoredError,
)
from mydocs.migrations.reporting.durations import seconds_text
from mydocs.migrations.values import value

logger = logging.getLogger(__name__)


@value
class Event:
    """Something that happened in a call. ``run_id`` is the id that the call writes to lease and ledger."""

    database: str = ""
    run_id: str = ""

    @property
    def level(self) -> int:
        """Return the level of ``logging``: INFO is useful for an operator, WARNING is necessary."""
        return logging.DEBUG

    @property
    def sentence(self) -> str:
        """Return what happened, on one line. By default it lists the event's fields."""
        own = {field.name for field in fields(Event)}
        facts = [f"{field.name}={getattr(self, field.name)}" for field in fields(self) if field.name not in own]
        return " ".join([type(self).__name__, *facts])


Sink = Callable[[Event], None]

_MEANWHILE: Mapping[str, str] = {
    IndexAction.UPDATED: "the old definition answers until the new one is built",
    IndexAction.REPLACED: "no query is answered until it is built",
}


@value
class Planned(Event):
    """The steps that run next, in order. ``standard`` tells whether the standard indexes are one of the steps."""

    versions: tuple[str, ...]
    standard: bool
    direction: str = "up"

    @property
    def level(self) -> int:
        return logging.INFO if self.versions or self.standard else logging.DEBUG

    @property
    def sentence(self) -> str:
        steps = ", ".join([*(["standard indexes"] if self.standard else []), *self.versions])
        if self.direction == "down":
            return f"database {self.database}: roll back {steps or 'nothing'}"
        return f"database {self.database}: {steps or 'no migration to run'}"


@value
class Warned(Event):
    """A fact that an operator should know and that stops nothing."""

    message: str

    @property
    def level(self) -> int:
        return logging.WARNING

    @property
    def sentence(self) -> str:
        return self.message


@value
class LeaseWaiting(Event):
    """Another run holds the lease. Emitted once for each holder."""

    holder: LeaseView

    @property
    def level(self) -> int:
        return logging.INFO

    @property
    def sentence(self) -> str:
        return f"waiting for the lease: {describe_holder(self.holder)}"


@value
class LeaseTaken(Event):
    """This run has the lease."""

    term: int

    @property
    def sentence(self) -> str:
        return f"lease taken, term {self.term}"


@value
class StepEvent(Event):
    """An event of a step: a script, or the standard indexes (version ``standard``). ``direction`` is up or down."""

    version: str
    name: str
    script: str | None
    direction: str = "up"

    @property
    def title(self) -> str:
        """Return the name of the step for an operator."""
        return "standard indexes" if self.version == STANDARD_VERSION else f"migration {self.version} {self.name}"


@value
class StepStarted(StepEvent):
    """The step starts."""

    @property
    def level(self) -> int:
        return logging.INFO

    @property
    def doing(self) -> str:
        return "rolling back" if self.direction == "down" else "running"

    @property
    def sentence(self) -> str:
        return f"{self.title}: {self.doing}"


@value
class StepFinished(StepEvent):
    """The step has ended and is recorded."""

    state: MigrationState
    seconds: float
    error: StoredError | None = None

    @property
    def level(self) -> int:
        return logging.WARNING if self.state is MigrationState.FAILED else logging.INFO

    @property
    def ending(self) -> str:
        """Return how it ended. A migration that was rolled back is pending again."""
        return "rolled back" if self.direction == "down" and self.error is None else self.state.value

    @property
    def sentence(self) -> str:
        problem = f": {self.error}" if self.error else ""
        return f"{self.title}: {self.ending} in {seconds_text(self.seconds)}{problem}"


@value
class Verified(Event):
    """The ``verify`` of a script has ended. ``error`` is what it raised, or ``None`` if it passed."""

    version: str
    name: str
    script: str | None
    seconds: float
    error: StoredError | None = None

    @property
    def level(self) -> int:
        return logging.INFO if self.error is None else logging.WARNING

    @property
    def sentence(self) -> str:
        found = "verified" if self.error is None else "is not right"
        problem = f": {self.error}" if self.error else ""
        return f"migration {self.version} {self.name}: {found} after {seconds_text(self.seconds)}{problem}"


@value
class BatchDone(Event):
    """A batch of a data change is written. ``done`` and ``total`` count documents, ``seconds`` since its start."""

    collection: str
    done: int
    total: int
    seconds: float

    @property
    def sentence(self) -> str:
        share = f" ({self.done * 100 // self.total} %)" if self.total else ""
        return f"{self.collection}: {self.done} of {self.total} documents{share}, {seconds_text(self.seconds)}"


@value
class DataChanged(Event):
    """
    A data change is over.

    :param changed: documents, including those of earlier attempts
    :param still_matching: documents that still match the filter, without those that the function left as they are;
        ``None`` if the filter does not tell finished documents from others
    """

    collection: str
    changed: int
    still_matching: int | None

    @property
    def level(self) -> int:
        return logging.INFO

    @property
    def sentence(self) -> str:
        still = "" if self.still_matching is None else f", {self.still_matching} still match the filter"
        return f"{self.collection}: {self.changed} documents changed{still}"


@value
class AliasSwitched(Event):
    """A script has switched a search alias to another index. Applications use it from now on."""

    alias: str
    collection: str
    index: str
    previous: str | None

    @property
    def level(self) -> int:
        return logging.INFO

    @property
    def sentence(self) -> str:
        before = f", and named {self.previous} before" if self.previous else ""
        return f"alias {self.alias} names {self.collection}.{self.index} from now on{before}"


@value
class IndexDefined(Event):
    """A script has given an index its definition, or found that it has it."""

    collection: str
    name: str
    type: IndexType
    action: str

    @property
    def title(self) -> str:
        return index_title(self.collection, self.name, self.type)

    @property
    def sentence(self) -> str:
        """Return the sentence. It also says whether queries are answered until the build has ended."""
        meanwhile = _MEANWHILE.get(self.action) if self.type.is_search else None
        return f"{self.title}: {self.action}" + (f" ({meanwhile})" if meanwhile else "")


@value
class IndexChanged(Event):
    """An awaited index has changed its state. ``seconds`` since it was asked for."""

    collection: str
    name: str
    type: IndexType | None
    state: IndexState
    queryable: bool
    seconds: float
    hosts_ready: int = 0
    hosts_total: int = 0
    reason: str | None = None

    @property
    def level(self) -> int:
        return logging.WARNING if self.state is IndexState.FAILED else logging.INFO

    @property
    def title(self) -> str:
        return index_title(self.collection, self.name, self.type)

    @property
    def standing(self) -> str:
        """Return its state, the number of ready hosts, and the reason."""
        hosts = ""
        if self.hosts_total > 1 and self.hosts_ready < self.hosts_total:
            hosts = f", {self.hosts_ready} of {self.hosts_total} hosts ready"
        return f"{self.state.value}{hosts}" + (f" ({self.reason})" if self.reason else "")

    @property
    def sentence(self) -> str:
        return f"{self.title}: {self.standing}, {seconds_text(self.seconds)}"


@value
class StillWaiting(Event):
    """The rest that a wait waits for. Emitted every 30 s; while other runs migrate, also when less is left."""

    what: tuple[str, ...]
    seconds: float

    @property
    def level(self) -> int:
        return logging.INFO

    @property
    def sentence(self) -> str:
        return f"still waiting after {seconds_text(self.seconds)}: {', '.join(self.what)}"


@value
class Foreseeing(Event):
    """The present work of a plan: it reads the database, or tries a step on the copy."""

    what: str

    @property
    def level(self) -> int:
        return logging.INFO

    @property
    def sentence(self) -> str:
        return self.what


def index_title(collection: str, name: str, kind: IndexType | None) -> str:
    """Return the name of an index for an operator."""
    return f"index {collection}.{name}" + (f" ({kind.value})" if kind else "")


def emit(sink: Sink | None, event: Event) -> None:
    """Pass an event to a sink. If the sink raises, log it and continue the run."""
    if sink is None:
        return
    try:
        sink(event)
    except Exception:
        logger.exception("the event sink raised on %s", type(event).__name__)
