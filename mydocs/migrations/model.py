"""Define the nouns of a migration run: frozen values and their states. Pure."""

import re
from collections.abc import Mapping
from dataclasses import field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mydocs.migrations.values import value

if TYPE_CHECKING:  # `--help` and `list` must not import it
    from concurrent.futures import Executor

Definition = Mapping[str, Any]
"""An index definition as a driver takes it: the ``definition`` of a search index, the document of a standard index."""

SCRIPT_NAME = re.compile(r"(?P<version>[0-9]{3,})_(?P<name>[A-Za-z0-9_-]+)\.py", re.ASCII)
STANDARD_VERSION = "standard"  # `_id` of the ledger entry for the application's standard indexes


class MigrationState(StrEnum):
    """The state of a migration. Only running, applied and failed are ever stored."""

    PENDING = "pending"  # on disk, not in the ledger
    RUNNING = "running"  # running, under a lease that is held
    APPLIED = "applied"  # done
    FAILED = "failed"  # ended with an error
    INTERRUPTED = "interrupted"  # was running, its lease is gone
    CHANGED = "changed"  # applied, then edited
    MISSING = "missing"  # applied, file gone


class IndexState(StrEnum):
    """The state of an index, from the view of a query."""

    ABSENT = "absent"  # not listed
    PENDING = "pending"  # accepted, not started
    BUILDING = "building"  # being built, or rebuilt after an update
    READY = "ready"  # can be queried with the definition that was asked for
    STALE = "stale"  # can be queried, but no longer follows the collection
    FAILED = "failed"  # the build ended with an error
    UNKNOWN = "unknown"  # not read; only in reports


class ScriptKind(StrEnum):
    """The kind of a script, which decides how it runs."""

    ASYNC = "async"  # defines `async def up(db)`
    PLAIN = "plain"  # the whole module, once, in a process of its own


class IndexType(StrEnum):
    """The kind of an index. The values are the server's words."""

    STANDARD = "standard"
    SEARCH = "search"
    VECTOR = "vectorSearch"

    @property
    def is_search(self) -> bool:
        """Return whether the search process builds the index, after the command has returned."""
        return self is not IndexType.STANDARD


class IndexAction(StrEnum):
    """The action that gave an index its definition."""

    CREATED = "created"
    UPDATED = "updated"
    REPLACED = "replaced"  # dropped and created, since no update could do it
    UNCHANGED = "unchanged"
    DROPPED = "dropped"


@value
class Problem:
    """
    A problem of a file.

    :param text: names the file, and the line if there is one
    """

    text: str
    path: Path | None = None
    line: int | None = None


@value
class Script:
    """
    A migration's file, parsed but not run.

    :param source: its text, which a run executes whatever becomes of the file meanwhile
    """

    number: int
    version: str
    name: str
    path: Path
    checksum: str
    kind: ScriptKind
    source: str = field(repr=False, compare=False)
    reversible: bool = False
    verifies: bool = False
    idempotent: bool = True
    transactional: bool = False
    may_use_lightodm: bool = False  # its text names it, or a function imports a module that may
    problems: tuple[Problem, ...] = ()  # found by parsing; they prevent a run
    replaces: tuple[str, ...] = ()  # versions of the migrations whose place it takes in a new database
    unfinished: int | None = None  # the line of the `raise NotImplementedError` with which its `up` begins

    @property
    def file_name(self) -> str:
        return self.path.name


@value
class StoredError:
    """An error as stored in the ledger and in reports."""

    type: str
    message: str

    def __str__(self) -> str:
        return f"{self.type}: {self.message}".rstrip(": ")


@value
class TrackedIndex:
    """
    The requested state of an index, from the command that asked for it to the wait, the ledger and the report.

    :param definition: the request: a search index's definition, or a standard index's key and options; ``None`` if the
        index was dropped, or only its name is known
    :param asked_at: time of the request by the server's clock; ``None`` if it was not recorded
    :param id: the server's id of an index that was dropped and created; known only in the run that did it, never stored
    """

    collection: str
    name: str
    type: IndexType = IndexType.SEARCH
    action: IndexAction = IndexAction.UNCHANGED
    definition: Definition | None = None
    asked_at: datetime | None = None
    id: str | None = field(default=None, compare=False)

    @property
    def key(self) -> tuple[str, str]:
        """Return what identifies the index in its database."""
        return self.collection, self.name

    def __str__(self) -> str:
        return f"{self.collection}.{self.name}"


@value
class SearchAlias:
    """
    The search index that an alias names.

    :param previous: the index that it named before
    :param switched_at: by the server's clock; ``None`` in a ledger entry, whose own times say it
    """

    alias: str
    collection: str
    index: str
    previous: str | None = None
    switched_at: datetime | None = None


@value
class RunStamp:
    """The run that wrote a ledger entry. ``term`` is the fencing token of the lease."""

    run_id: str
    term: int
    host: str
    pid: int
    tool: str


@value
class Entry:
    """A document of the ledger. ``state`` is running, applied or failed."""

    version: str
    name: str
    script: str | None
    checksum: str | None
    state: MigrationState
    attempts: int = 1
    started_at: datetime | None = None
    finished_at: datetime | None = None
    seconds: float | None = None
    error: StoredError | None = None
    indexes: tuple[TrackedIndex, ...] = ()
    aliases: tuple[SearchAlias, ...] = ()  # switched by the script
    run: RunStamp | None = None
    checkpoint: Mapping[str, Any] | None = None
    direction: str = "up"  # "down" while it is rolled back, and after a failed rollback
    # State, run and attempts as they were read. Raw, since a value that was edited by hand must still match itself.
    fence: Mapping[str, Any] | None = field(default=None, compare=False, repr=False)
    legacy: bool = False  # written by the application's earlier runner


@value
class ScriptOptions:
    """
    The options of a run for its scripts.

    :param timeout: seconds for each script, and for each ``verify``; ``None`` for no limit
    :param max_building: how many search indexes may build at the same time; ``None`` for no limit
    :param max_lag: seconds that secondaries may lag behind while a data change writes; ``None`` for no limit
    :param workers: share the work of data changes; ``None`` for one lane
    """

    timeout: float | None = None
    max_building: int | None = None
    max_lag: float | None = None
    workers: "Executor | None" = None


@value
class Lanes:
    """
    The workers that share a script's data changes.

    :param count: number of workers, if it is known
    :param fence: a filter that finds the script's ledger entry only while it belongs to this run
    """

    executor: "Executor"
    count: int
    fence: Mapping[str, Any]
    script: Script


@value
class HolderProcess:
    """
    The process that holds a lease, as seen on its own machine.

    :param boot: the id of the kernel's present boot
    :param namespace: of process ids
    :param started: when the process began, in clock ticks since that boot; a later process with the same id began later
    """

    host: str
    pid: int
    boot: str
    namespace: str
    started: int


@value
class LeaseView:
    """The lease as the server showed it. ``live`` and ``remaining`` (seconds) are by the server's clock."""

    host: str | None
    pid: int | None
    run_id: str | None
    term: int
    acquired_at: datetime | None = None
    live: bool = False
    remaining: float = 0.0
    process: HolderProcess | None = None
