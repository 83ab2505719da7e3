"""The way back: run the ``down`` of applied migrations, newest first, under the lease."""

import time
from collections.abc import Sequence
from pathlib import Path

import anyio
import anyio.to_thread

from mydocs.migrations.driver import mongo
from mydocs.migrations.errors import NotReady, PlanError
from mydocs.migrations.execution.executor import Executor, prepare
from mydocs.migrations.indexes.search import until_gone
from mydocs.migrations.indexes.waiter import LISTINGS_AT_ONCE
from mydocs.migrations.ledger import entries as ledger
from mydocs.migrations.ledger.plan import Standing, classify, make_rollback
from mydocs.migrations.model import IndexAction, IndexRecord, MigrationState
from mydocs.migrations.operations.call import Call, call_on, discovered, stamp_of
from mydocs.migrations.operations.migrate import wait_for_tracked
from mydocs.migrations.operations.settle import leading
from mydocs.migrations.reporting.events import Planned, Sink, emit
from mydocs.migrations.reporting.report import Outcome, RunReport
from mydocs.migrations.scripts.discover import Discovery

LEAVES_LATER = "the server goes on deleting it, `mydocs migrate status` shows the indexes that are to stay"


async def rollback(
    db: mongo.Database,
    *,
    directory: str | Path = "migrations",
    steps: int | None = None,
    target: str | None = None,
    wait: bool = False,
    timeout: float | None = 3600.0,
    lock_timeout: float | None = 600.0,
    dry_run: bool = False,
    on_event: Sink | None = None,
) -> RunReport:
    """
    Take migrations back; what was taken back is pending again.

    :param steps: how many, 1 or more, counted from the newest that is applied; ``None`` for 1
    :param target: take back all above this version, in place of ``steps``
    :param wait: return only when dropped search indexes are gone and the others can be queried
    :param timeout: seconds for all of that wait together, ``None`` for no limit
    :param dry_run: say what would be taken back, and do nothing
    :raises UsageError: where ``steps`` is less than 1, or both are given
    :raises PlanError: where somebody else has migrated while the lease was waited for, so that ``steps`` means others
    :raises NotReversible: names every migration that has no ``down``, before the first one is touched
    :raises MigrationFailed: where a ``down`` raised; those before it are taken back
    :raises NotReady: names the indexes that are still listed, or cannot be queried yet, when the time is up
    """
    async with call_on(db, on_event, outcome=Outcome.PLANNED if dry_run else Outcome.OK) as call:
        found = await discovered(call, directory)
        chosen = await _plan(call, found, steps, target)
        if chosen and not dry_run:
            dropped = await _roll_back(call, found, chosen, target, lock_timeout)
            if wait:
                started = time.monotonic()
                await _until_all_gone(db, dropped, timeout)
                await wait_for_tracked(call, timeout, waited=time.monotonic() - started)
    return call.report()


async def _plan(
    call: Call, found: Discovery, steps: int | None, target: str | None, run_id: str | None = None
) -> tuple[Standing, ...]:
    call.snapshot = await ledger.read(call.db)
    standings = classify(found.scripts, call.snapshot.entries, call.snapshot.lease, run_id=run_id)
    chosen = make_rollback(standings, steps=steps, target=target)
    call.standings = chosen
    versions = tuple(standing.version for standing in chosen)
    emit(call.sink, Planned(versions=versions, standard=False, direction="down"))
    return chosen


async def _roll_back(
    call: Call, found: Discovery, named: Sequence[Standing], target: str | None, lock_timeout: float | None
) -> list[IndexRecord]:
    """:param named: what was to be taken back before the lease was waited for"""
    async with leading(call, lock_timeout) as lease:
        if any(entry.legacy for entry in call.snapshot.entries):
            legacy = [entry for entry in (await ledger.read(call.db)).entries if entry.legacy]
            await ledger.adopt(call.db, lease, legacy, found.scripts, stamp_of(lease))
        chosen = await _plan(call, found, None if target is not None else len(named), target, call.owner.run_id)
        before, now = ([standing.version for standing in standings] for standings in (named, chosen))
        if target is None and now != before:
            raise PlanError(
                f"somebody else has migrated meanwhile, and {', '.join(now) or 'nothing'} would be taken back instead "
                f"of {', '.join(before)}; nothing was, look at `mydocs migrate status`"
            )
        executor = Executor(db=call.db, lease=lease, stamp=stamp_of(lease), sink=call.sink, done=call.done)
        await executor.take_back(await anyio.to_thread.run_sync(prepare, chosen), call.snapshot.entries)
    latest = {
        (record.collection, record.name): record
        for entry in call.done
        if entry.state is MigrationState.PENDING
        for record in entry.indexes
    }
    return [record for record in latest.values() if record.action is IndexAction.DROPPED]


async def _until_all_gone(db: mongo.Database, dropped: Sequence[IndexRecord], timeout: float | None) -> None:
    late = {f"{record.collection}.{record.name}": None for record in dropped}
    errors: list[Exception] = []
    limiter = anyio.CapacityLimiter(LISTINGS_AT_ONCE)

    async def one(record: IndexRecord) -> None:
        try:
            await until_gone(db, record.collection, record.name, None, timeout=None, limiter=limiter)
            del late[f"{record.collection}.{record.name}"]
        except Exception as error:  # noqa: BLE001  # raised below, alone and not in a group
            errors.append(error)
            group.cancel_scope.cancel()

    with anyio.move_on_after(timeout):
        async with anyio.create_task_group() as group:
            for record in dropped:
                group.start_soon(one, record)
    if errors:
        raise errors[0]
    if late:
        raise NotReady([f"{index} is dropped and still listed" for index in late], timeout or 0.0, LEAVES_LATER)
