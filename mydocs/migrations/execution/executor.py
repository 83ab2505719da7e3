"""Run the steps of a plan in order: record each before and after, stop at the first failure."""

import asyncio
import logging
import math
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from concurrent import futures
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from importlib import import_module
from types import ModuleType
from typing import Any, TypeAlias

import anyio
import anyio.lowlevel
import anyio.to_thread
from pymongo.errors import PyMongoError

from mydocs.migrations.data.workers import lanes_of
from mydocs.migrations.driver import listeners, server_errors
from mydocs.migrations.driver.cancellation import Interruption, run_to_the_end, to_the_end
from mydocs.migrations.driver.client import Database, kept_open, sync_database, without_secrets
from mydocs.migrations.errors import (
    LeaseLost,
    LedgerChanged,
    MigrationFailed,
    NotPossible,
    ServerUnreachable,
    TimedOut,
)
from mydocs.migrations.execution import transaction
from mydocs.migrations.execution.left_tasks import call_watched
from mydocs.migrations.execution.plain_process import PlainFailed, PlainScripts, plain_scripts
from mydocs.migrations.indexes.capture import Capture, capturing, current, under_way
from mydocs.migrations.indexes.standard import create_standard_indexes
from mydocs.migrations.indexes.standard_list import IndexModels, standard_checksum
from mydocs.migrations.ledger.entries import opening
from mydocs.migrations.ledger.held_ledger import HeldLedger, fence_of
from mydocs.migrations.ledger.plan import Plan, Standing, tracked
from mydocs.migrations.limits import limits
from mydocs.migrations.model import (
    STANDARD_VERSION,
    Entry,
    IndexAction,
    MigrationState,
    Script,
    ScriptKind,
    StoredError,
    TrackedIndex,
)
from mydocs.migrations.reporting.events import Sink, StepFinished, StepStarted, Warned, emit
from mydocs.migrations.scripts import load
from mydocs.migrations.scripts.script_context import ScriptContext, Store, StoredPlace
from mydocs.migrations.values import value

logger = logging.getLogger(__name__)

MESSAGE_LENGTH = 2_000  # characters of an error's text that are stored and shown


Indexes: TypeAlias = Callable[[], tuple[TrackedIndex, ...]]
"""What a step has done to indexes by the time that it is asked."""


@value
class Step:
    """A script that is checked and can be run: the module of an async one, the text of a plain one."""

    script: Script
    previous: Entry | None
    loaded: ModuleType | str

    @property
    def version(self) -> str:
        """As the ledger has it, where it knows the script: its file may have got another number of digits since."""
        return self.previous.version if self.previous else self.script.version


def prepare(standings: Sequence[Standing]) -> list[Step]:
    """
    Load every async script before the first one runs. Imports them, and blocks meanwhile.

    :raises ScriptsInvalid: where one of them cannot be imported
    :raises NotPossible: where one asks for what this tool cannot do
    """
    steps = []
    for standing in standings:
        if (script := standing.script) is not None:
            loaded = load.load_async(script) if script.kind is ScriptKind.ASYNC else load.load_plain(script)
            steps.append(Step(script=script, previous=standing.entry, loaded=loaded))
    if any(_can_meet_lightodm(step) for step in steps):
        import_module("mydocs.migrations.scripts.binding")  # here in a thread, as lightodm takes a third of a second
    return steps


@dataclass(slots=True, kw_only=True)
class Executor:
    """Runs steps under a lease; ``done`` holds the entries as they were recorded last."""

    ledger: HeldLedger
    sink: Sink | None
    script_timeout: float | None = None  # seconds for each script; None for no limit
    max_building: int | None = None  # search indexes, when a helper submits one more
    workers: futures.Executor | None = None
    max_lag: float | None = None  # seconds that secondaries may be behind while a data change writes
    done: list[Entry] = field(default_factory=list)
    staying: tuple[Entry, ...] = ()
    entries: tuple[Entry, ...] = ()  # the ledger before the first step
    sealed: Entry | None = None  # what the present step's own transaction records of its success
    following: Step | None = None  # what comes after the present step
    plain: PlainScripts | None = None
    begun: Entry | None = None  # of the next step, recorded in one command with the end of the one before

    @property
    def db(self) -> Database:
        return self.ledger.db

    async def run(self, plan: Plan, models: IndexModels) -> None:
        """
        Take every step of a plan.

        :raises NotPossible: before the first step, where the deployment lacks what a script needs
        :raises MigrationFailed: with file, line and message, once the failure is recorded
        :raises IndexConflict: where an existing index stands in the way of a standard one
        :raises LeaseLost: where the lease was gone before a step's end was recorded
        """
        self.entries = plan.entries
        async with self._prepared(plan.steps) as steps:
            try:
                if plan.standard:
                    previous = next((e for e in plan.entries if e.version == STANDARD_VERSION), None)
                    self.following = next(iter(steps), None)
                    await self._to_the_end(partial(self._standard, models, previous))
                for step, following in zip(steps, [*steps[1:], None], strict=False):
                    self.following = following
                    await self._to_the_end(partial(self._run, step, "up"))
            finally:
                await self._forget_begun()

    async def take_back(self, standings: Sequence[Standing], entries: Sequence[Entry]) -> None:
        """
        Run the ``down`` of each migration, and forget its entry.

        :param entries: the ledger; those that stay are told of the indexes that a ``down`` has dropped
        :raises NotPossible: before the first step, where the deployment lacks what a script needs
        :raises MigrationFailed: with file, line and message, once the failure is recorded
        :raises LeaseLost: where the lease was gone before a step's end was recorded
        """
        self.entries = tuple(entries)
        async with self._prepared(standings) as steps:
            leaving = {step.version for step in steps}
            self.staying = tuple(entry for entry in entries if entry.version not in leaving)
            for step in steps:
                await self._to_the_end(partial(self._run, step, "down"))

    @asynccontextmanager
    async def _prepared(self, standings: Sequence[Standing]) -> AsyncIterator[list[Step]]:
        """Check and load all scripts, and keep what they need until the block ends."""
        listeners.check_driver(self.db)
        scripts = [standing.script for standing in standings if standing.script is not None]
        folders = [script.path.parent for script in scripts if script.kind is ScriptKind.ASYNC]
        needed = any(script.kind is ScriptKind.PLAIN for script in scripts)
        async with AsyncExitStack() as stack:
            await anyio.to_thread.run_sync(stack.enter_context, load.importable(folders))
            steps = await anyio.to_thread.run_sync(prepare, standings)
            await self._check_transactions(steps)
            self.plain = await stack.enter_async_context(plain_scripts(self.db, self.ledger.lease, needed=needed))
            yield steps

    async def _to_the_end(self, step: Callable[[Interruption], Coroutine[Any, Any, None]]) -> None:
        """Take a step: once it is recorded as running, nothing but its own work can be cancelled."""
        await anyio.lowlevel.checkpoint()  # a run that is cancelled starts nothing more
        await run_to_the_end(step)

    async def _check_transactions(self, steps: Sequence[Step]) -> None:
        names = [step.script.file_name for step in steps if step.script.transactional]
        if names and not await transaction.is_possible(self.db):
            raise NotPossible(
                f"{', '.join(names)}: TRANSACTIONAL = True needs transactions, which a single server does not have; "
                "make it a replica set (one member will do), or take the line out and write the script so that it can "
                "run twice"
            )

    async def _standard(self, models: IndexModels, previous: Entry | None, interruption: Interruption) -> None:
        entry = await self._start(
            interruption,
            opening(
                self.ledger.stamp,
                at=self.ledger.now(),
                version=STANDARD_VERSION,
                name="standard indexes",
                script=None,
                checksum=standard_checksum(models),
                previous=previous,
            ),
            previous,
        )
        captured = Capture(ScriptContext(clock=self.ledger.now))
        work = partial(create_standard_indexes, self.db, models)
        with capturing(self.db, captured):
            await self._attempt(interruption, entry, lambda: interruption.run(work()), lambda: captured.records)

    async def _run(self, step: Step, direction: str, interruption: Interruption) -> None:
        script = step.script
        self.sealed = None
        async with _lightodm_bound(self.db, step):
            entry = await self._start(interruption, self._opening(step, direction), step.previous)
            store = partial(self.ledger.keep_place, entry)
            context = ScriptContext(
                self.sink,
                transactional=script.transactional,
                run=self.ledger.stamp,
                clock=self.ledger.now,
                check_lease=self.ledger.lease.check,
                places=entry.checkpoint,
                store=store,
                loop=asyncio.get_running_loop(),
                lanes=None if self.workers is None else lanes_of(self.workers, fence_of(entry), script),
                max_lag=self.max_lag,
            )
            captured = Capture(context, tracked=self._tracked, max_building=self.max_building)
            interrupted = step.previous is not None and step.previous.state is MigrationState.RUNNING
            indexes = partial(captured.records_after, entry.indexes, interrupted=interrupted)
            work: Callable[[], Awaitable[None]]
            if isinstance(step.loaded, str):
                # What others do on the run's own client meanwhile is not the script's, so nobody listens to that.
                run = partial(self._run_plain, script, step.loaded, captured, store, entry.checkpoint)
                work = lambda: interruption.run(self._limited(run))  # noqa: E731  # a coroutine only where it is called
                with under_way(captured, self.db.name):
                    await self._attempt(interruption, entry, work, indexes, script)
                return
            with capturing(self.db, captured), kept_open(self.db, lambda: current.get() is not None):
                function = partial(call_watched, getattr(step.loaded, direction), self.db)
                if script.transactional:
                    deadline = self._deadline()
                    limited = lambda session: self._limited(partial(function, session), deadline)  # noqa: E731
                    seal = partial(self._seal, entry, indexes, time.monotonic())
                    work = partial(transaction.in_transaction, self.db, interruption, limited, seal)
                else:
                    work = lambda: interruption.run(self._limited(function))  # noqa: E731
                await self._attempt(interruption, entry, work, indexes, script)

    async def _run_plain(
        self, script: Script, source: str, captured: Capture, store: Store, places: Mapping[str, Any] | None
    ) -> None:
        assert self.plain is not None  # as there is a plain script
        if self.workers is not None:
            store = self._telling_of_one_lane(script, store)
        await self.plain.run(script, source, captured, store=store, tracked=self._tracked(), places=places)

    def _telling_of_one_lane(self, script: Script, store: Store) -> Store:
        """Say once that workers have no part in a walk of a plain script: with the first place that is kept of one."""
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

    def _deadline(self) -> float:
        return math.inf if self.script_timeout is None else anyio.current_time() + self.script_timeout

    async def _limited(self, work: Callable[[], Awaitable[None]], deadline: float | None = None) -> None:
        """
        Do a script's work, and cancel it when its time is up.

        :param deadline: where the time has begun before
        :raises TimedOut: where it was cancelled because of that
        """
        limit = self._deadline() if deadline is None else deadline
        with anyio.CancelScope(deadline=limit) as scope:
            try:
                await work()
            except Exception as error:
                if scope.cancel_called and self.script_timeout is not None:
                    raise TimedOut(self.script_timeout) from error
                raise
        if scope.cancelled_caught and self.script_timeout is not None:
            raise TimedOut(self.script_timeout)

    def _tracked(self) -> tuple[TrackedIndex, ...]:
        """What each index should be by the steps before the present one."""
        written = {entry.version for entry in self.done}
        now = [entry for entry in self.done if entry.state is not MigrationState.PENDING]
        return tracked([*(entry for entry in self.entries if entry.version not in written), *now])

    def _opening(self, step: Step, direction: str) -> Entry:
        script = step.script
        return opening(
            self.ledger.stamp,
            at=self.ledger.now(),
            version=step.version,
            name=script.name,
            script=script.file_name,
            checksum=script.checksum,
            previous=step.previous,
            direction=direction,
        )

    async def _start(self, interruption: Interruption, entry: Entry, previous: Entry | None) -> Entry:
        if self.begun is None:
            # Not cancelled: Motor would send the record even if nobody waited for its answer any more.
            start = self.ledger.start(entry, previous)
            await interruption.finish(start, f"the record that {entry.name} starts")
        else:
            self.ledger.lease.check()
            entry, self.begun = self.begun, None
        self.done.append(entry)
        emit(
            self.sink,
            StepStarted(version=entry.version, name=entry.name, script=entry.script, direction=entry.direction),
        )
        return entry

    async def _attempt(
        self,
        interruption: Interruption,
        entry: Entry,
        work: Callable[[], Awaitable[None]],
        indexes: Indexes,
        script: Script | None = None,
    ) -> None:
        """Do the work of a started step and record how it ended, also when it is cancelled."""
        started = time.monotonic()
        error: Exception | asyncio.CancelledError | None = None
        try:
            interruption.check()
            await work()
        except (Exception, asyncio.CancelledError) as raised:  # noqa: BLE001  # raised below, once it is recorded
            error = raised
        if isinstance(error, asyncio.CancelledError) and (interruption.from_within or not interruption.requested):
            error = load.ScriptExit(error)
        await self._end(interruption, entry, started=started, error=error, indexes=indexes())
        if error is None or (self.sealed is not None and self.done[-1].state is not MigrationState.FAILED):
            return
        if script is not None and isinstance(error, Exception):
            raise self._failure(script, error) from error
        raise error

    async def _end(
        self,
        interruption: Interruption,
        entry: Entry,
        *,
        started: float,
        error: BaseException | None,
        indexes: tuple[TrackedIndex, ...],
    ) -> None:
        ended = self.sealed if error is None else None
        if ended is None:
            ended = self._ended(entry, started, error, indexes)
        finish = self._finish(ended, goes_on=error is None and not interruption.requested)
        await interruption.finish(finish, f"the record that {entry.name} has ended")

    def _ended(
        self, entry: Entry, started: float, error: BaseException | None, indexes: tuple[TrackedIndex, ...]
    ) -> Entry:
        captured = current.get()
        return replace(
            entry,
            aliases=entry.aliases if captured is None else captured.aliases_after(entry.aliases),
            state=MigrationState.APPLIED if error is None else MigrationState.FAILED,
            finished_at=self.ledger.now(),
            seconds=round(time.monotonic() - started, 3),
            error=None if error is None else self._stored(error),
            indexes=indexes,
        )

    async def _seal(self, entry: Entry, indexes: Indexes, started: float, session: Any) -> None:
        """Record the success of a script in the transaction that it ran in."""
        self.sealed = self._ended(entry, started, None, indexes())
        self.sealed = await self._record(self.sealed, session)

    async def _finish(self, entry: Entry, *, goes_on: bool) -> None:
        """:param goes_on: nothing keeps the next step from its start"""
        if entry is not self.sealed:
            try:
                if goes_on and self.following is not None and _is_new(self.following):
                    self.begun = self._opening(self.following, "up")
                    stored, self.begun = await self.ledger.finish_and_start(entry, self.begun)
                    entry = self._as_stored(entry, stored)
                else:
                    entry = await self._record(entry)
            except (LeaseLost, LedgerChanged):
                self.begun = None
                # A commit without an answer went through after all: then its record stands, and not the failure.
                if self.sealed is None or not await self.ledger.has_ended(self.sealed):
                    raise
                entry = self.sealed
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

    async def _record(self, entry: Entry, session: Any = None) -> Entry:
        if not _is_taken_back(entry):
            return self._as_stored(entry, await self.ledger.finish(entry, session))
        # Out of the ledger with the entry, and its indexes off the tracked list.
        dropped = [record for record in entry.indexes if record.action is IndexAction.DROPPED]
        await self.ledger.untrack(self.staying, dropped, session)
        await self.ledger.log(entry, direction="down", session=session)
        await self.ledger.remove(replace(entry, state=MigrationState.RUNNING), session)
        return entry

    def _as_stored(self, entry: Entry, stored: Entry) -> Entry:
        """Say so where an entry had to be stored without its definitions."""
        if stored is not entry:
            message = (
                f"the entry of {entry.version} is too large to be stored and stands without the definitions of its "
                "indexes: `check` and `wait` cannot compare them with the live ones"
            )
            emit(self.sink, Warned(message=message))
        return stored

    async def _forget_begun(self) -> None:
        """Take back the record of a step that something kept from its start."""
        begun, self.begun = self.begun, None
        if begun is None:
            return
        try:
            forget = self.ledger.remove(begun)
            await to_the_end(forget, f"taking back the record of {begun.name}", limit=limits().release)
        except (PyMongoError, LeaseLost, ServerUnreachable) as error:
            self.done.append(begun)
            logger.warning("%s did not run and may show as interrupted: %r", begun.script, error)

    def _stored(self, error: BaseException) -> StoredError:
        if isinstance(error, asyncio.CancelledError):
            return StoredError(type="Cancelled", message="the run was interrupted")
        if isinstance(error, PlainFailed):
            return StoredError(type=error.kind, message=self._clean(error.text))
        cause = load.cause_of(error)
        return StoredError(type=type(cause).__name__, message=self._text_of(cause))

    def _text_of(self, cause: BaseException) -> str:
        return self._clean(server_errors.text_of(cause) if isinstance(cause, PyMongoError) else load.text_of(cause))

    def _clean(self, text: str) -> str:
        # A file's name may have put half of a surrogate pair into it, which neither a stream nor BSON takes.
        text = text.encode("utf-8", "backslashreplace").decode()
        return without_secrets(self.db, text)[:MESSAGE_LENGTH]

    def _failure(self, script: Script, error: Exception) -> Exception:
        if isinstance(error, LeaseLost):
            return error
        if isinstance(error, PlainFailed):
            kind, text, named = error.kind, self._clean(error.text), error.named
            line, exit_code, advice = error.line, error.exit_code, error.advice
        else:
            cause = load.cause_of(error)
            kind, text, named = type(cause).__name__, self._text_of(cause), not isinstance(cause, SystemExit)
            line, exit_code, advice = (
                load.line_in(script.path, error),
                server_errors.exit_code_of(cause),
                load.advice_on(cause),
            )
        where = "" if line is None else f", line {line}"
        problem = (f"{kind}: {text}".rstrip(": ") if named else text) + advice
        by_hand = None if script.idempotent else script.version
        failure = MigrationFailed(script.file_name, where, problem, by_hand=by_hand)
        failure.exit_code, failure.path, failure.line = exit_code, script.path, line
        return failure


def _is_taken_back(entry: Entry) -> bool:
    return entry.direction == "down" and entry.state is MigrationState.APPLIED


def _is_new(step: Step) -> bool:
    """Whether a step may be recorded ahead: no earlier attempt is to be kept, and nobody has to settle it by hand."""
    return step.previous is None and step.script.idempotent


def _can_meet_lightodm(step: Step) -> bool:
    """Whether an async script may ask lightodm for its database: one that names it, or any once it is there."""
    is_async = step.script.kind is ScriptKind.ASYNC
    return is_async and (step.script.names_lightodm or "lightodm" in sys.modules)


@asynccontextmanager
async def _lightodm_bound(db: Database, step: Step) -> AsyncIterator[None]:
    if not _can_meet_lightodm(step):
        yield
        return
    from mydocs.migrations.scripts.binding import lightodm_bound_to  # costs a third of a second where nobody needs it

    with ExitStack() as stack:  # entered and left in a thread: where a client is made for it, that blocks
        sync = await anyio.to_thread.run_sync(stack.enter_context, sync_database(db))
        try:
            with lightodm_bound_to(sync):
                yield
        finally:
            # Without a limit a client says goodbye to a server that may not answer.
            with anyio.move_on_after(limits().release):
                await anyio.to_thread.run_sync(stack.close, abandon_on_cancel=True)
