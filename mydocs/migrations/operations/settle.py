"""Mark as applied or pending, repair, unlock by hand. I/O: changes ledger or lease, runs no script."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from mydocs.migrations.driver.client import Database
from mydocs.migrations.driver.session import Session
from mydocs.migrations.errors import LeaseHeld, NotPossible, UsageError
from mydocs.migrations.ledger import entries as ledger
from mydocs.migrations.ledger import lease as leases
from mydocs.migrations.ledger.held_ledger import HeldLedger
from mydocs.migrations.ledger.plan import Standing, classify, find
from mydocs.migrations.ledger.turn import take_turn
from mydocs.migrations.model import Entry, LeaseView, MigrationState, Script
from mydocs.migrations.operations.arguments import check_seconds
from mydocs.migrations.operations.report_builder import ReportBuilder
from mydocs.migrations.operations.reported import discovered, reported
from mydocs.migrations.reporting.events import Sink
from mydocs.migrations.reporting.report import MigrationReport, RunReport
from mydocs.migrations.scripts.discover import Discovery
from mydocs.migrations.values import value


@value
class Repair:
    """The migrations that a repair would accept (``changed``) and forget (``missing``)."""

    changed: tuple[Standing, ...]
    missing: tuple[Standing, ...]


async def mark(
    db: Database,
    *versions: str,
    applied: bool,
    everything: bool = False,
    directory: str | Path = "migrations",
    lock_timeout: float | None = 600.0,
    on_event: Sink | None = None,
) -> RunReport:
    """
    Mark migrations as applied or pending in the ledger without running them.

    :param applied: ``True`` marks them as applied, ``False`` as pending
    :param everything: all scripts of the folder, in place of ``versions``
    :param lock_timeout: seconds to wait while another run holds the lease; 0 is one try, ``None`` is no limit
    :raises UnknownVersion: if a version has neither a script nor an entry
    :raises LeaseHeld: if the lease is not free in that time
    """
    async with reported(db, on_event) as (session, report):
        if everything == bool(versions):
            raise UsageError("name the versions to mark, or all of them with --all, and not both")
        async with leading(session, lock_timeout) as held:
            found = await discovered(session, report, directory)
            standings = await _standings(session, report, found)
            chosen = [s for s in standings if s.script] if everything else [find(standings, v) for v in versions]
            for standing in chosen:
                if applied:
                    await mark_applied(held, standing)
                else:
                    await _mark_pending(held, standing)
            await report_on(session, report, found, chosen)
    return report.build()


async def repair_plan(db: Database, *, directory: str | Path = "migrations") -> Repair:
    """Return what :func:`repair` would do. Write nothing."""
    async with reported(db, lambda _: None) as (session, report):  # silent: repair emits the same events again
        standings = await _standings(session, report, await discovered(session, report, directory))
    return _repair_of(standings)


async def repair(
    db: Database,
    *,
    directory: str | Path = "migrations",
    lock_timeout: float | None = 600.0,
    on_event: Sink | None = None,
) -> RunReport:
    """
    Accept the present text of edited scripts, and forget applied ones whose file is gone. The log keeps these.

    :param lock_timeout: seconds to wait while another run holds the lease; 0 is one try, ``None`` is no limit
    :raises LeaseHeld: if the lease is not free in that time
    """
    async with reported(db, on_event) as (session, report), leading(session, lock_timeout) as held:
        found = await discovered(session, report, directory)
        wanted = _repair_of(await _standings(session, report, found))
        for standing in wanted.changed:
            script, entry = _both(standing)
            await held.put(replace(entry, checksum=script.checksum, script=script.file_name, name=script.name), entry)
        for standing in wanted.missing:
            if standing.entry is not None:
                await held.log(standing.entry, direction="up")
                await held.remove(standing.entry)
        await report_on(session, report, found, (*wanted.changed, *wanted.missing))
    return report.build()


async def unlock(db: Database, *, force: bool = False) -> LeaseView | None:
    """
    Free the lease of a holder that is gone.

    :param force: also free the lease of a live holder; its next renewal fails, and it stops
    :return: the lease as it was
    :raises LeaseHeld: if the holder is alive and ``force`` is not given
    """
    async with reported(db, None) as (_, report):
        report.snapshot = await ledger.read(db)
        view = report.snapshot.lease
        if view is not None and view.live:
            if not force:
                raise LeaseHeld(view, 0.0, "wait for it, or remove it with `mydocs migrate unlock --force`")
            if not await leases.break_lease(db, view):
                raise NotPossible("the lease has just changed hands; try again with `mydocs migrate unlock`")
    return report.snapshot.lease


@asynccontextmanager
async def leading(session: Session, lock_timeout: float | None) -> AsyncIterator[HeldLedger]:
    """Hold the lease for a block of work that no other run can do for this one."""
    check_seconds(lock_timeout=lock_timeout)
    lease = await take_turn(session, timeout=lock_timeout, is_done=lambda _: False)
    assert isinstance(lease, leases.Lease)  # only the lease ends this wait, since nothing counts as done
    async with leases.held(session.db, lease):
        yield HeldLedger(db=session.db, lease=lease)


async def _standings(session: Session, report: ReportBuilder, found: Discovery) -> tuple[Standing, ...]:
    report.snapshot = await ledger.read(session.db)
    return classify(found.scripts, report.snapshot.entries, report.snapshot.lease)


async def mark_applied(held: HeldLedger, standing: Standing, *, at: datetime | None = None) -> None:
    """
    Record a migration as applied without running it. One that is applied stays as it is.

    :param at: when it was applied, if that is known; else now
    """
    script, entry = standing.script, standing.entry
    if entry is not None and entry.state is MigrationState.APPLIED and not entry.legacy:
        return
    now = at or held.now()
    if entry is not None and not entry.legacy:
        await held.log(entry, direction=entry.direction)
    settled = Entry(
        version=standing.version,
        name=standing.name,
        script=script.file_name if script else entry.script if entry else None,
        checksum=script.checksum if script else entry.checksum if entry else None,
        state=MigrationState.APPLIED,
        attempts=entry.attempts if entry else 0,
        started_at=entry.started_at if entry and entry.started_at else now,
        finished_at=now,
        indexes=entry.indexes if entry else (),
        run=held.stamp,
    )
    await held.put(settled, entry)
    if entry is not None and entry.legacy:
        await held.remove(entry)


async def _mark_pending(held: HeldLedger, standing: Standing) -> None:
    if standing.entry is not None:
        await held.log(standing.entry, direction=standing.entry.direction)
        await held.remove(standing.entry)


async def report_on(session: Session, report: ReportBuilder, found: Discovery, settled: Sequence[Standing]) -> None:
    """Report the marked migrations as the ledger shows them now. Those without an entry are pending."""
    now = {standing.version: standing.state for standing in await _standings(session, report, found)}
    report.migrations = tuple(
        MigrationReport(
            version=standing.version,
            name=standing.name,
            script=standing.script.file_name if standing.script else None,
            state=now.get(standing.version, MigrationState.PENDING),
        )
        for standing in settled
    )


def _repair_of(standings: Sequence[Standing]) -> Repair:
    return Repair(
        changed=tuple(s for s in standings if s.state is MigrationState.CHANGED),
        # Applied without a file: another script replaces it, and counts as applied because of this entry.
        missing=tuple(s for s in standings if s.script is None and s.state is not MigrationState.APPLIED),
    )


def _both(standing: Standing) -> tuple[Script, Entry]:
    assert standing.script is not None  # an edited script has a file
    assert standing.entry is not None  # and an entry that it differs from
    return standing.script, standing.entry
