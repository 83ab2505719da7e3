"""Gather what a call finds and does, and build its report at any moment. Pure, except that it reads the clock."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from mydocs.migrations.errors import Interrupted, MigrationError, NotReady, Unverified
from mydocs.migrations.indexes.standard_list import IndexModels, standard_names
from mydocs.migrations.ledger.entries import Snapshot
from mydocs.migrations.ledger.plan import Plan, Standing, tracked
from mydocs.migrations.model import (
    STANDARD_VERSION,
    Entry,
    IndexState,
    IndexType,
    MigrationState,
    SearchAlias,
    TrackedIndex,
)
from mydocs.migrations.reporting.events import DataChanged, Event, StepStarted
from mydocs.migrations.reporting.report import (
    AliasReport,
    AttemptReport,
    DataReport,
    ErrorReport,
    IndexReport,
    MigrationReport,
    Outcome,
    RunReport,
)

if TYPE_CHECKING:  # a call with nothing to do must not import these modules
    from mydocs.migrations.execution.verification import Verification
    from mydocs.migrations.indexes.readiness import Track

NOT_CREATED = "not created yet"


@dataclass(slots=True, kw_only=True)
class ReportBuilder:
    """
    The findings and actions of a call so far.

    :param standings: the migrations of the call
    :param done: the entries that it has written, in their latest form
    :param awaited: the versions that were not applied when the call began to wait for others to apply them
    :param migrations: found by reading, if nothing was run; likewise ``indexes``
    """

    database: str
    outcome: Outcome = Outcome.OK
    started: float = field(default_factory=time.monotonic)
    snapshot: Snapshot = field(default_factory=lambda: Snapshot(entries=(), lease=None))
    standings: tuple[Standing, ...] = ()
    standard: IndexModels | None = None
    done: list[Entry] = field(default_factory=list)
    awaited: frozenset[str] = frozenset()
    tracks: "tuple[Track, ...]" = ()
    migrations: tuple[MigrationReport, ...] = ()
    indexes: tuple[IndexReport, ...] = ()
    history: tuple[AttemptReport, ...] | None = None
    aliases: tuple[AliasReport, ...] | None = None
    verifications: "tuple[Verification, ...]" = ()
    data: dict[str, list[DataReport]] = field(default_factory=dict)
    _step: str = ""
    _said: set[str] = field(default_factory=set)
    _wanted: tuple[tuple[str, ...], bool] | None = None

    def hear(self, event: Event) -> None:
        """Store the facts of an event that no ledger entry contains."""
        if isinstance(event, StepStarted):
            self._step = event.version
        elif isinstance(event, DataChanged):
            changed = DataReport(
                collection=event.collection, changed=event.changed, still_matching=event.still_matching
            )
            self.data.setdefault(self._step, []).append(changed)

    def follow(self, plan: Plan, snapshot: Snapshot) -> bool:
        """Make a plan the current one. Return whether it differs from the previous one."""
        wanted = (tuple(standing.version for standing in plan.steps), plan.standard)
        is_new, self._wanted = wanted != self._wanted, wanted
        self.standings, self.snapshot = plan.steps, snapshot
        return is_new

    def unsaid(self, warnings: Iterable[str]) -> list[str]:
        """Return the warnings that were not emitted yet. A second plan finds the same ones as the first."""
        new = [warning for warning in dict.fromkeys(warnings) if warning not in self._said]
        self._said.update(new)
        return new

    def entries(self) -> tuple[Entry, ...]:
        """The ledger after the call's own writes."""
        written = {entry.version for entry in self.done}
        kept = [entry for entry in self.snapshot.entries if entry.version not in written]
        return (*kept, *self.entries_written())

    def entries_written(self) -> tuple[Entry, ...]:
        """The call's own entries, without those that were rolled back."""
        return tuple(entry for entry in self.done if entry.state is not MigrationState.PENDING)

    def build(
        self, *, error: MigrationError | None = None, message: str = "", lines: tuple[str, ...] = ()
    ) -> RunReport:
        """
        Return the report of what is known now.

        :param message: the error's text without secrets
        """
        return RunReport(
            outcome=self.outcome if error is None else _outcome(error),
            database=self.database,
            migrations=tuple(map(self._with_verification, (*self.migrations, *self._migrations()))),
            indexes=tuple(self._indexes()),
            seconds=time.monotonic() - self.started,
            history=self.history,
            aliases=self.aliases if self.aliases is not None else self._switched(),
            error=None
            if error is None
            else ErrorReport(type=type(error).__name__, message=message, exit_code=error.exit_code, lines=lines),
        )

    def _with_verification(self, migration: MigrationReport) -> MigrationReport:
        for each in self.verifications:
            if each.version == migration.version:
                return replace(migration, verified=each.error is None, error=each.error)
        return migration

    def _switched(self) -> tuple[AliasReport, ...] | None:
        """Return the aliases that the call's own entries have switched, each with its last target."""
        switched = {alias.alias: alias for entry in self.entries_written() for alias in entry.aliases}
        return tuple(map(alias_report, switched.values())) or None

    def _migrations(self) -> Sequence[MigrationReport]:
        written = {entry.version: entry for entry in self.done}
        reports = []
        for standing in self.standings:
            entry = written.get(standing.version)
            shown = entry or standing.entry
            # An entry that this call started and could not finish belongs to no live run.
            state = standing.state if entry is None else entry.state
            if entry is not None and state is MigrationState.RUNNING:
                state = MigrationState.INTERRUPTED
            reports.append(
                MigrationReport(
                    version=standing.version,
                    name=standing.name,
                    script=standing.script.file_name if standing.script else None,
                    state=state,
                    seconds=shown.seconds if shown else None,
                    error=shown.error if shown else None,
                    data=tuple(self.data.get(standing.version, ())),
                    by_others=state is MigrationState.APPLIED and standing.version in self.awaited,
                )
            )
        return reports

    def _indexes(self) -> Sequence[IndexReport]:
        made = [e for e in self.done if e.version == STANDARD_VERSION and e.state is MigrationState.APPLIED]
        standard = [
            IndexReport(
                collection=collection,
                name=name,
                type=IndexType.STANDARD,
                state=IndexState.READY,
                queryable=True,
                seconds=entry.seconds,
            )
            for entry in made
            for collection, name in standard_names(self.standard or {})
        ]
        waited = [_index_report(track) for track in self.tracks]
        known = {(report.collection, report.name) for report in [*standard, *waited]}
        submitted = [_submitted(index) for index in tracked(self.entries_written()) if index.key not in known]
        return [*standard, *waited, *submitted, *self.indexes]


def alias_report(alias: SearchAlias, state: IndexState | None = None, reason: str | None = None) -> AliasReport:
    """
    Report an alias.

    :param state: of the index that the alias names
    """
    return AliasReport(
        alias=alias.alias,
        collection=alias.collection,
        index=alias.index,
        previous=alias.previous,
        switched_at=alias.switched_at,
        state=state,
        reason=reason,
    )


def planned_standard(models: IndexModels) -> tuple[IndexReport, ...]:
    """Report the standard indexes that the next run creates."""
    return tuple(
        IndexReport(
            collection=collection,
            name=name,
            type=IndexType.STANDARD,
            state=IndexState.PENDING,
            queryable=False,
            reason=NOT_CREATED,
        )
        for collection, name in standard_names(models)
    )


def _outcome(error: MigrationError) -> Outcome:
    if isinstance(error, NotReady):
        return Outcome.NOT_READY
    if isinstance(error, Unverified):
        return Outcome.UNVERIFIED
    return Outcome.INTERRUPTED if isinstance(error, Interrupted) else Outcome.FAILED


def _submitted(index: TrackedIndex) -> IndexReport:
    """Report an index that a script asked for without waiting. A standard index is ready when its command returns."""
    built = not index.type.is_search
    return IndexReport(
        collection=index.collection,
        name=index.name,
        type=index.type,
        state=IndexState.READY if built else IndexState.UNKNOWN,
        queryable=True if built else None,
        reason=None if built else "not waited for",
    )


def _index_report(track: "Track") -> IndexReport:
    return IndexReport(
        collection=track.index.collection,
        name=track.index.name,
        type=track.index.type,
        state=track.outcome or track.verdict.state,
        queryable=None if track.verdict.state is IndexState.UNKNOWN else track.verdict.queryable,
        seconds=None if track.settled_at is None else track.settled_at - track.since,
        reason=track.reason or track.verdict.reason,
    )
