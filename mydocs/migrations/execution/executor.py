"""Run the steps of a plan in order: record each before and after, stop at the first failure. I/O."""

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import zip_longest
from types import ModuleType
from typing import Any

import anyio
from pymongo.errors import PyMongoError

from mydocs.migrations.data.workers import lanes_of
from mydocs.migrations.driver.cancellation import Interruption, run_to_the_end
from mydocs.migrations.driver.client import Database, kept_open
from mydocs.migrations.errors import LeaseLost, LedgerChanged, ServerUnreachable, TimedOut
from mydocs.migrations.execution import transaction
from mydocs.migrations.execution.failures import failure_of, stored_error
from mydocs.migrations.execution.left_tasks import call_watched
from mydocs.migrations.execution.plain_process import PlainScripts, plain_scripts
from mydocs.migrations.execution.steps import Step, prepared, standard_step
from mydocs.migrations.indexes.capture import Capture, capturing, current, under_way
from mydocs.migrations.indexes.standard import create_standard_indexes
from mydocs.migrations.indexes.standard_list import IndexModels
from mydocs.migrations.ledger.entries import opening
from mydocs.migrations.ledger.held_ledger import HeldLedger, fence_of
from mydocs.migrations.ledger.plan import Plan, Standing, tracked
from mydocs.migrations.limits import limits
from mydocs.migrations.model import Entry, IndexAction, MigrationState, Script, ScriptOptions, StoredError, TrackedIndex
from mydocs.migrations.reporting.events import Sink, StepFinished, StepStarted, Warned, emit
from mydocs.migrations.scripts.load import ScriptExit
from mydocs.migrations.scripts.script_context import ScriptContext, Store, StoredPlace

logger = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class _Attempt:
    """
    A step that is recorded as running.

    :param indexes: returns what it has done to indexes so far
    :param sealed: the entry that the step's own transaction has recorded as its success
    """

    entry: Entry
    captured: Capture
    indexes: Callable[[], tuple[TrackedIndex, ...]]
    started: float = field(default_factory=time.monotonic)
    sealed: Entry | None = None

    def ended(self, error: StoredError | None) -> Entry:
        """Return the entry for the end of the attempt."""
        return replace(
            self.entry,
            aliases=self.captured.aliases_after(self.entry.aliases),
            state=MigrationState.APPLIED if error is None else MigrationState.FAILED,
            finished_at=self.captured.now(),
            seconds=round(time.monotonic() - self.started, 3),
            error=error,
            indexes=self.indexes(),
        )


@dataclass(slots=True, kw_only=True)
class Executor:
    """Run steps under a lease. ``done`` contains the latest recorded entries."""

    ledger: HeldLedger
    sink: Sink | None
    scripts: ScriptOptions
    done: list[Entry] = field(default_factory=list)
    staying: tuple[Entry, ...] = ()  # the entries that stay when others are rolled back
    entries: tuple[Entry, ...] = ()  # the ledger before the first step

    @property
    def db(self) -> Database:
        return self.ledger.db

    async def run(self, plan: Plan, models: IndexModels) -> None:
        """
        Execute every step of a plan.

        :raises NotPossible: before the first step, if the deployment lacks what a script needs
        :raises MigrationFailed: with file, line and message, once the failure is recorded
        :raises IndexConflict: if an existing index is in the way of a standard one
        :raises LeaseLost: if the lease was lost before a step's end was recorded
        """
        self.entries = plan.entries
        async with prepared(self.db, plan.steps, direction="up") as steps:
            await self._take([standard_step(models, plan.entries), *steps] if plan.standard else steps)

    async def take_back(self, standings: Sequence[Standing], entries: Sequence[Entry]) -> None:
        """
        Run the ``down`` of each migration, and remove its entry.

        :param entries: the ledger; the entries that stay record the indexes that a ``down`` has dropped
        :raises NotPossible: before the first step, if the deployment lacks what a script needs
        :raises MigrationFailed: with file, line and message, once the failure is recorded
        :raises LeaseLost: if the lease was lost before a step's end was recorded
        """
        self.entries = tuple(entries)
        async with prepared(self.db, standings, direction="down") as steps:
            leaving = {step.version for step in steps}
            self.staying = tuple(entry for entry in entries if entry.version not in leaving)
            await self._take(steps)

    async def _take(self, steps: Sequence[Step]) -> None:
        needed = any(isinstance(step.work, str) for step in steps)
        async with plain_scripts(self.db, self.ledger.lease, needed=needed) as plain:
            with kept_open(self.db, lambda: current.get() is not None):
                await run_to_the_end(partial(self._one_by_one, steps, plain))

    async def _one_by_one(self, steps: Sequence[Step], plain: PlainScripts, interruption: Interruption) -> None:
        """Execute steps until one fails or the caller is cancelled. This stops a step's work, but never its record."""
        begun: Entry | None = None  # the next step's entry, recorded in one command with the end of the previous step
        try:
            for step, following in zip_longest(steps, steps[1:]):
                interruption.check()
                self.ledger.lease.check()
                entry, begun = begun or await self._start(step, interruption), None
                self.done.append(entry)
                started = StepStarted(
                    version=entry.version, name=entry.name, script=entry.script, direction=entry.direction
                )
                emit(self.sink, started)
                begun = await self._attempt(step, entry, following, plain, interruption)
        finally:
            if begun is not None:
                await self._forget(begun, interruption)

    def _opening(self, step: Step) -> Entry:
        return opening(
            self.ledger.stamp,
            at=self.ledger.now(),
            version=step.version,
            name=step.name,
            script=step.script.file_name if step.script else None,
            checksum=step.checksum,
            previous=step.previous,
            direction=step.direction,
        )

    async def _start(self, step: Step, interruption: Interruption) -> Entry:
        entry = self._opening(step)
        # Not cancelled: Motor would send the record even if nothing waited for its answer.
        start = self.ledger.start(entry, step.previous)
        await interruption.finish(start, f"the record that {entry.name} starts")
        return entry

    async def _forget(self, begun: Entry, interruption: Interruption) -> None:
        """Remove the record of a step that could not start."""
        try:
            forget = self.ledger.remove(begun)
            await interruption.finish(forget, f"taking back the record of {begun.name}", limit=limits().release)
        except (PyMongoError, LeaseLost, ServerUnreachable) as error:
            self.done.append(begun)
            logger.warning("%s did not run and may show as interrupted: %r", begun.script, error)

    async def _attempt(
        self, step: Step, entry: Entry, following: Step | None, plain: PlainScripts, interruption: Interruption
    ) -> Entry | None:
        """
        Do the work of a started step and record its end, even if it is cancelled.

        :return: the entry of the next step, if its start is recorded too
        """
        attempt = self._attempt_at(step, entry)
        error: Exception | asyncio.CancelledError | None = None
        try:
            interruption.check()
            await self._work(step, attempt, plain, interruption)
        except (Exception, asyncio.CancelledError) as raised:  # noqa: BLE001  # raised below, once it is recorded
            error = raised
        if isinstance(error, asyncio.CancelledError) and (interruption.from_within or not interruption.requested):
            error = ScriptExit(error)
        goes_on = error is None and not interruption.requested
        begin = self._opening(following) if goes_on and following is not None and following.may_begin_early else None
        record = self._finish(attempt, error, begin)
        ended, begun = await interruption.finish(record, f"the record that {entry.name} has ended")
        if error is None or ended.state is MigrationState.APPLIED:
            return begun
        if step.script is not None and isinstance(error, Exception):
            raise failure_of(self.db, step.script, error) from error
        raise error

    def _attempt_at(self, step: Step, entry: Entry) -> _Attempt:
        if (script := step.script) is None:
            captured = Capture(ScriptContext(clock=self.ledger.now))
            return _Attempt(entry=entry, captured=captured, indexes=lambda: captured.records)
        context = ScriptContext(
            self.sink,
            transactional=script.transactional,
            run=self.ledger.stamp,
            clock=self.ledger.now,
            check_lease=self.ledger.lease.check,
            places=entry.checkpoint,
            store=partial(self.ledger.keep_place, entry),
            loop=asyncio.get_running_loop(),
            lanes=None if self.scripts.workers is None else lanes_of(self.scripts.workers, fence_of(entry), script),
            max_lag=self.scripts.max_lag,
        )
        captured = Capture(context, tracked=self._tracked, max_building=self.scripts.max_building)
        interrupted = step.previous is not None and step.previous.state is MigrationState.RUNNING
        indexes = partial(captured.records_after, entry.indexes, interrupted=interrupted)
        return _Attempt(entry=entry, captured=captured, indexes=indexes)

    def _tracked(self) -> tuple[TrackedIndex, ...]:
        """Return the last record of each index from the steps before the present one."""
        written = {entry.version for entry in self.done}
        now = [entry for entry in self.done if entry.state is not MigrationState.PENDING]
        return tracked([*(entry for entry in self.entries if entry.version not in written), *now])

    async def _work(self, step: Step, attempt: _Attempt, plain: PlainScripts, interruption: Interruption) -> None:
        captured = attempt.captured
        if isinstance(step.work, str):
            run = partial(self._run_plain, step, attempt, plain)
            with under_way(captured, self.db.name):  # without a listener: the script does not use the run's own client
                await interruption.run(partial(self._limited, run, self._deadline()))
        elif not isinstance(step.work, ModuleType):
            with capturing(self.db, captured):
                await interruption.run(partial(create_standard_indexes, self.db, step.work))
        else:
            function = partial(call_watched, getattr(step.work, step.direction), self.db)
            with capturing(self.db, captured):
                deadline = self._deadline()
                if captured.context.transactional:
                    limited = lambda session: self._limited(partial(function, session), deadline)  # noqa: E731
                    seal = partial(self._seal, attempt)
                    await transaction.in_transaction(self.db, interruption, limited, seal)
                else:
                    await interruption.run(partial(self._limited, function, deadline))

    def _deadline(self) -> float:
        return math.inf if self.scripts.timeout is None else anyio.current_time() + self.scripts.timeout

    async def _limited(self, work: Callable[[], Awaitable[None]], deadline: float) -> None:
        """
        Do a script's work, and cancel it when its time is up.

        It is cancelled once, so that its cleanup may await, and after ``Limits.script_grace`` at each of its awaits.

        :raises TimedOut: if it was cancelled for this reason
        """
        if self.scripts.timeout is None:
            await work()
            return
        with anyio.CancelScope(deadline=deadline + limits().script_grace) as scope:
            once = asyncio.timeout_at(deadline)
            try:
                async with once:
                    await work()
            except Exception as error:
                if once.expired():
                    raise TimedOut(self.scripts.timeout) from error
                raise
        if scope.cancelled_caught:
            raise TimedOut(self.scripts.timeout)

    async def _run_plain(self, step: Step, attempt: _Attempt, plain: PlainScripts) -> None:
        assert step.script is not None  # only a script has a text as its work
        assert isinstance(step.work, str)
        entry, captured = attempt.entry, attempt.captured
        store: Store = partial(self.ledger.keep_place, entry)
        if self.scripts.workers is not None:
            store = self._telling_of_one_lane(step.script, store)
        await plain.run(step.script, step.work, captured, store=store, tracked=self._tracked(), places=entry.checkpoint)

    def _telling_of_one_lane(self, script: Script, store: Store) -> Store:
        """Warn once that workers take no part in the walks of a plain script, when the first place is stored."""
        told = False

        async def keep(key: str, place: StoredPlace) -> None:
            nonlocal told
            if key.startswith("transform") and not told:
                told = True
                message = (
                    f"{script.file_name}: a plain script changes documents in one lane, without the workers; "
                    "to share the work write it as `async def up(db)`"
                )
                emit(self.sink, Warned(message=message))
            await store(key, place)

        return keep

    async def _seal(self, attempt: _Attempt, session: Any) -> None:
        """Record the success of a script in its own transaction."""
        attempt.sealed, _ = await self._record(attempt.ended(None), session=session)

    async def _finish(
        self, attempt: _Attempt, error: BaseException | None, begin: Entry | None
    ) -> tuple[Entry, Entry | None]:
        """
        Record the end of a step, unless its own transaction has, and the start of the next one with it.

        :param begin: the entry of the next step; ``None`` if it cannot start
        :return: how the step has ended, and the entry that has begun
        """
        entry, begun = attempt.sealed, None
        if entry is None or error is not None:
            ended = attempt.ended(None if error is None else stored_error(self.db, error))
            try:
                entry, begun = await self._record(ended, begin)
            except (LeaseLost, LedgerChanged):
                # A commit without an answer succeeded after all: then its record is valid, and not the failure.
                if entry is None or not await self.ledger.has_ended(entry):
                    raise
        self.done[-1] = replace(entry, state=MigrationState.PENDING) if _is_taken_back(entry) else entry
        emit(
            self.sink,
            StepFinished(
                version=entry.version,
                name=entry.name,
                script=entry.script,
                state=self.done[-1].state,
                seconds=entry.seconds or 0.0,
                error=entry.error,
                direction=entry.direction,
            ),
        )
        return entry, begun

    async def _record(
        self, ended: Entry, begin: Entry | None = None, session: Any = None
    ) -> tuple[Entry, Entry | None]:
        if _is_taken_back(ended):
            # Remove its indexes from the tracked list together with the entry.
            dropped = [record for record in ended.indexes if record.action is IndexAction.DROPPED]
            await self.ledger.untrack(self.staying, dropped, session)
            await self.ledger.log(ended, direction="down", session=session)
            await self.ledger.remove(replace(ended, state=MigrationState.RUNNING), session)
            return ended, None
        if begin is None:
            stored, begun = await self.ledger.finish(ended, session), None
        else:
            stored, begun = await self.ledger.finish_and_start(ended, begin)
        if stored is not ended:
            message = (
                f"the entry of {ended.version} is too large and was stored without the definitions of its indexes: "
                "`check` and `wait` cannot compare them with the live ones"
            )
            emit(self.sink, Warned(message=message))
        return stored, begun


def _is_taken_back(entry: Entry) -> bool:
    return entry.direction == "down" and entry.state is MigrationState.APPLIED
