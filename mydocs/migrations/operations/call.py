"""What every call shares: its events, what it has found and done so far, and the report that is made of this. I/O."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import anyio.to_thread

import mydocs
from mydocs.migrations.driver import mongo
from mydocs.migrations.errors import Interrupted, MigrationError, NotReady
from mydocs.migrations.indexes.readiness import Track
from mydocs.migrations.indexes.standard import IndexModels, standard_names
from mydocs.migrations.ledger.entries import Snapshot
from mydocs.migrations.ledger.lease import Lease, Owner
from mydocs.migrations.ledger.plan import Plan, Standing, tracked
from mydocs.migrations.model import STANDARD_VERSION, Entry, IndexState, IndexType, MigrationState, RunStamp
from mydocs.migrations.reporting.events import Event, Planned, Sink, Warned, emit
from mydocs.migrations.reporting.report import (
    AttemptReport,
    ErrorReport,
    IndexReport,
    MigrationReport,
    Outcome,
    RunFinished,
    RunReport,
)
from mydocs.migrations.reporting.sinks import logging_sink
from mydocs.migrations.scripts.discover import Discovery, discover

NOT_CREATED = "not created yet"


@dataclass(slots=True)
class Call:
    """What a call has found and done so far; its report is made of this at any moment."""

    db: mongo.Database
    sink: Sink | None
    outcome: Outcome = Outcome.OK
    started: float = field(default_factory=time.monotonic)
    owner: Owner = field(default_factory=Owner)
    snapshot: Snapshot = field(default_factory=lambda: Snapshot(entries=(), lease=None))
    standings: tuple[Standing, ...] = ()
    standard: IndexModels | None = None
    done: list[Entry] = field(default_factory=list)
    tracks: tuple[Track, ...] = ()
    warned: set[str] = field(default_factory=set)
    migrations: tuple[MigrationReport, ...] = ()  # found by a look, where nothing was run
    indexes: tuple[IndexReport, ...] = ()
    history: tuple[AttemptReport, ...] | None = None

    def planned(self, plan: Plan, snapshot: Snapshot) -> Plan:
        """Take a plan as the one that this call follows."""
        self.standings, self.snapshot = plan.steps, snapshot
        for warning in plan.warnings:
            self.warn(warning)
        versions = tuple(standing.version for standing in plan.steps)
        emit(self.sink, Planned(versions=versions, standard=plan.standard))
        return plan

    def warn(self, message: str) -> None:
        """Say it once, however often it is found."""
        if message not in self.warned:
            self.warned.add(message)
            emit(self.sink, Warned(message=message))

    def entries(self) -> tuple[Entry, ...]:
        """The ledger as it stands after this call's own writes."""
        written = {entry.version: entry for entry in self.done}
        kept = [entry for entry in self.snapshot.entries if entry.version not in written]
        return (*kept, *self.entries_written())

    def entries_written(self) -> tuple[Entry, ...]:
        """This call's own entries; one that was taken back is none any more."""
        return tuple(entry for entry in self.done if entry.state is not MigrationState.PENDING)

    def report(self, error: MigrationError | None = None) -> RunReport:
        return RunReport(
            outcome=self.outcome if error is None else _outcome(error),
            database=self.db.name,
            migrations=(*self.migrations, *self._migrations()),
            indexes=tuple(self._indexes()),
            seconds=time.monotonic() - self.started,
            history=self.history,
            error=None if error is None else _error_report(self.db, error),
        )

    def _migrations(self) -> Sequence[MigrationReport]:
        written = {entry.version: entry for entry in self.done}
        reports = []
        for standing in self.standings:
            entry = written.get(standing.version)
            shown = entry or standing.entry
            # An entry that this call started and could not finish is nobody's any more.
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
        known = {(report.collection, report.name) for report in waited}
        submitted = [
            IndexReport(
                collection=record.collection,
                name=record.name,
                type=record.type,
                state=IndexState.PENDING,
                queryable=False,
                reason="not waited for",
            )
            for record in tracked(self.entries_written())
            if (record.collection, record.name) not in known
        ]
        return [*standard, *waited, *submitted, *self.indexes]


@asynccontextmanager
async def call_on(db: mongo.Database, sink: Sink | None, *, outcome: Outcome = Outcome.OK) -> AsyncIterator[Call]:
    """Give whatever ends a call its report: one error of ours, or the caller's cancellation, which passes unchanged."""
    call = Call(db, None, outcome)
    taken_by = logging_sink if sink is None else sink

    def stamped(event: Event) -> None:
        taken_by(replace(event, database=db.name, run_id=call.owner.run_id))

    call.sink = sink = stamped
    try:
        yield call
    except asyncio.CancelledError:
        call.outcome = Outcome.INTERRUPTED
        emit(sink, RunFinished(report=call.report()))
        raise
    except Exception as error:
        known = mongo.as_migration_error(error)
        if known is None:
            call.outcome = Outcome.FAILED
            emit(sink, RunFinished(report=call.report()))
            raise
        known.report = call.report(known)
        emit(sink, RunFinished(report=known.report))
        if known is error:
            raise
        raise known from error
    emit(sink, RunFinished(report=call.report()))


async def discovered(call: Call, directory: str | Path) -> Discovery:
    found = await anyio.to_thread.run_sync(discover, Path(directory))
    for warning in found.warnings:
        call.warn(warning)
    return found


def planned_standard(models: IndexModels) -> tuple[IndexReport, ...]:
    """Report standard indexes that the next run creates."""
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


def stamp_of(lease: Lease) -> RunStamp:
    """What a run signs its ledger entries with."""
    owner = lease.owner
    return RunStamp(
        run_id=owner.run_id, term=lease.term, host=owner.host, pid=owner.pid, tool=f"mydocs {mydocs.__version__}"
    )


def _error_report(db: mongo.Database, error: MigrationError) -> ErrorReport:
    message = mongo.without_secrets(db, str(error))
    return ErrorReport(type=type(error).__name__, message=message, exit_code=error.exit_code)


def _outcome(error: MigrationError) -> Outcome:
    if isinstance(error, NotReady):
        return Outcome.NOT_READY
    return Outcome.INTERRUPTED if isinstance(error, Interrupted) else Outcome.FAILED


def _index_report(track: Track) -> IndexReport:
    return IndexReport(
        collection=track.target.collection,
        name=track.target.name,
        type=track.target.type or IndexType.SEARCH,
        state=track.outcome or track.verdict.state,
        queryable=track.verdict.queryable,
        seconds=None if track.settled_at is None else track.settled_at - track.target.asked_at,
        reason=track.reason or track.verdict.reason,
    )
