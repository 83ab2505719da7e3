"""The nouns of a migration run. Pure: frozen values and the states that they can be in."""

import re
from collections.abc import Mapping
from dataclasses import field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mydocs.migrations.values import value

if TYPE_CHECKING:  # help and `list` start without it
    from concurrent.futures import Executor

Definition = Mapping[str, Any]
"""An index definition as a driver takes it: of a search index its ``definition``, of a standard index its document."""

SCRIPT_NAME = re.compile(r"(?P<version>[0-9]{3,})_(?P<name>[A-Za-z0-9_-]+)\.py", re.ASCII)
STANDARD_VERSION = "standard"  # `_id` of the ledger entry for the application's standard indexes


class MigrationState(StrEnum):
    """Where a migration stands. Only running, applied and failed are ever stored."""

    PENDING = "pending"  # on disk, not in the ledger
    RUNNING = "running"  # under way, and the lease that covers it lives
    APPLIED = "applied"  # done
    FAILED = "failed"  # ended with an error
    INTERRUPTED = "interrupted"  # was running, its lease is gone
    CHANGED = "changed"  # applied, then edited
    MISSING = "missing"  # applied, file gone


class IndexState(StrEnum):
    """Where an index stands, seen from somebody who wants to query it."""

    ABSENT = "absent"  # not listed
    PENDING = "pending"  # accepted, not started
    BUILDING = "building"  # being built, or rebuilt after an update
    READY = "ready"  # can be queried with the definition that was asked for
    STALE = "stale"  # can be queried, no longer follows the collection
    FAILED = "failed"  # the build ended with an error
    UNKNOWN = "unknown"  # nobody looked; only in reports


class ScriptKind(StrEnum):
    """How a script is run."""

    ASYNC = "async"  # defines `async def up(db)`
    PLAIN = "plain"  # the whole module, once, in a process of its own


class IndexType(StrEnum):
    """What kind of index it is; the values are the server's words."""

    STANDARD = "standard"
    SEARCH = "search"
    VECTOR = "vectorSearch"

    @property
    def is_search(self) -> bool:
        """Whether the search process builds it, after the command was answered."""
        return self is not IndexType.STANDARD


class IndexAction(StrEnum):
    """What was done to bring an index to its definition."""

    CREATED = "created"
    UPDATED = "updated"
    REPLACED = "replaced"  # dropped and created, since an update could not do it
    UNCHANGED = "unchanged"
    DROPPED = "dropped"


@value
class Problem:
    """
    What is wrong with a file.

    :param text: names the file, and the line where there is one
    """

    text: str
    path: Path | None = None
    line: int | None = None


@value
class Script:
    """A migration's file, parsed but not run."""

    number: int
    version: str
    name: str
    path: Path
    checksum: str
    kind: ScriptKind
    reversible: bool = False
    verifies: bool = False
    idempotent: bool = True
    transactional: bool = False
    names_lightodm: bool = False  # somewhere in its text
    problems: tuple[Problem, ...] = ()  # what parsing finds that keeps it from being run
    replaces: tuple[str, ...] = ()  # versions of the migrations that it stands for in a new database
    unfinished: int | None = None  # the line on which its `up` raises NotImplementedError before it does anything

    @property
    def file_name(self) -> str:
        return self.path.name


@value
class StoredError:
    """An error as ledger and reports keep it."""

    type: str
    message: str

    def __str__(self) -> str:
        return f"{self.type}: {self.message}".rstrip(": ")


@value
class TrackedIndex:
    """
    What an index was asked to be: one value from the command that asked for it to the wait, the ledger and the report.

    :param definition: what was asked for: of a search index its definition, of a standard index its key and options;
        ``None`` where it was dropped, or only its name is known
    :param asked_at: when, by the server's clock; ``None`` where nobody has recorded it
    :param id: the server's, where the index was dropped and created; known in the run that did it, and never stored
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
        """What tells it from the other indexes of the database."""
        return self.collection, self.name

    def __str__(self) -> str:
        return f"{self.collection}.{self.name}"


@value
class SearchAlias:
    """
    Which search index an alias names.

    :param previous: what it named before
    :param switched_at: by the server's clock; ``None`` in a ledger entry, whose own times tell it
    """

    alias: str
    collection: str
    index: str
    previous: str | None = None
    switched_at: datetime | None = None


@value
class RunStamp:
    """Who wrote a ledger entry. ``term`` is the fencing token of the lease."""

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
    aliases: tuple[SearchAlias, ...] = ()  # that the script has switched
    run: RunStamp | None = None
    checkpoint: Mapping[str, Any] | None = None
    direction: str = "up"  # "down" while it is taken back, and after that has failed
    # Its state, run and attempts as they were read: raw, since a value that somebody edited must still match itself.
    fence: Mapping[str, Any] | None = field(default=None, compare=False, repr=False)
    legacy: bool = False  # written by the application's earlier runner


@value
class Lanes:
    """
    Who else can do parts of a script's data changes.

    :param count: workers, as far as that is known
    :param fence: finds the script's ledger entry as long as it is this run's
    """

    executor: "Executor"
    count: int
    fence: Mapping[str, Any]
    script: Script


@value
class HolderProcess:
    """
    The process that holds a lease, for those who can see it.

    :param boot: the id of this start of the machine's kernel
    :param namespace: of process ids
    :param started: when the process began, in clock ticks since that boot; a later process of the same id began later
    """

    host: str
    pid: int
    boot: str
    namespace: str
    started: int


@value
class LeaseView:
    """The lease as the server showed it; ``live`` and ``remaining`` (seconds) are by the server's clock."""

    host: str | None
    pid: int | None
    run_id: str | None
    term: int
    acquired_at: datetime | None = None
    live: bool = False
    remaining: float = 0.0
    process: HolderProcess | None = None
