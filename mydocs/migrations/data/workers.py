"""
Share a walk among workers: cut it into ranges, give these to an executor, and store the place of each. I/O.

The run keeps the lease. Each range has a *token*, which is stored beside its place in the script's ledger entry. The
worker of a range writes its place there, filtered by the token and by the run. If the range was given to another
worker, or the run has a successor, the write finds nothing, and the worker stops. Its last writes are guarded like all
writes of a data change.

An executor gets :func:`mydocs.migrations.run_range` and one task, and never a document.
"""

import asyncio
import contextlib
import os
import pickle
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future
from dataclasses import replace
from typing import Any

import anyio
import anyio.to_thread
import bson
from bson.raw_bson import RawBSONDocument

from mydocs.migrations.data import ranges
from mydocs.migrations.data.function_calls import Function
from mydocs.migrations.data.job import Job
from mydocs.migrations.data.range_worker import Connection, FunctionAt, RangeDone, RangeFailed, RangeTask, run_range
from mydocs.migrations.data.statements import RAW
from mydocs.migrations.data.walk import Place, say_end
from mydocs.migrations.driver import commands
from mydocs.migrations.driver.client import Database, arguments_of
from mydocs.migrations.errors import LeaseLost, NotPossible
from mydocs.migrations.ledger.documents import COLLECTION
from mydocs.migrations.model import Lanes, Script
from mydocs.migrations.reporting.events import BatchDone, Warned
from mydocs.migrations.scripts.script_context import Checkpoint, StoredPlace, context

POLL_SECONDS = 1.0  # between two looks at the places
STALE_SECONDS = 120.0  # without a sign of life, before a range is given to another worker
TRIES = 5  # workers that a range is given to, one after the other
GRACE_SECONDS = 10.0  # for workers that cannot be ended, to notice that they must stop
LEFT_OUT = frozenset({"event_listeners", "document_class", "type_registry", "tz_aware", "connect"})


def lanes_of(executor: Executor, fence: Mapping[str, Any], script: Script) -> Lanes:
    """Return what the helpers of a script need to know about an executor."""
    # The standard library's two executors, and those modelled on them, store their number of workers there.
    known = getattr(executor, "count", None) or getattr(executor, "_max_workers", None)
    count = known if isinstance(known, int) and known > 0 else os.cpu_count() or 1
    return Lanes(executor=executor, count=count, fence=fence, script=script)


async def run_job(db: Database, job: Job, checkpoint: Checkpoint) -> int:
    """
    Make the change of a job: in one lane, or shared among the run's workers.

    :return: number of changed documents, including those of earlier attempts
    """
    stored, lanes = checkpoint.place or {}, context().lanes
    task, reason = None, None
    if lanes is not None:
        task, reason = await anyio.to_thread.run_sync(_template, db, job, checkpoint, lanes)  # it reads the script
        if reason is not None:
            context().emit(Warned(message=f"{job.name}: {reason}, so the change is made in one lane"))
    if task is None and not isinstance(stored.get("ranges"), Mapping):
        place = Place.of(stored)
        matching = await job.run(job.source(db), checkpoint, place)
        await say_end(job.source(db), matching, place.changed, place.left, place.after)
        return place.changed
    spread = _Spread(db, job, checkpoint, lanes if task is not None else None, task)
    await spread.plan(stored)
    await spread.run()
    ended = [Place.of(each) for each in spread.ranges.values()]
    after = next((place.after for place in ended if place.changed), None)
    matching = await job.source(db).count()
    await say_end(job.source(db), matching, spread.changed, sum(place.left for place in ended), after)
    return spread.changed


def _template(db: Database, job: Job, checkpoint: Checkpoint, lanes: Lanes) -> tuple[RangeTask | None, str | None]:
    """Return the part of a task that all ranges share, or the reason why there is none."""
    where = function_at(job.function, lanes.script)
    if isinstance(where, str):
        return None, f"workers cannot be given the function: {where}"
    arguments = arguments_of(db)
    if arguments is None:
        return None, "this PyMongo does not tell how its client was made, so workers cannot make one"
    task = RangeTask(
        connection=Connection(arguments={name: value for name, value in arguments.items() if name not in LEFT_OUT}),
        database=db.name,
        collection=job.name,
        wanted=bytes(job.wanted.raw),
        options=job.options,
        function=where,
        batch_size=job.batch_size,
        batch=job.batch,
        concurrency=job.concurrency,
        fields=job.fields,
        pause=job.pause,
        shard_key=job.shard_key,
        max_lag=job.max_lag,
        key=checkpoint.key,
        number="",
        token=0,
        fence=bson.encode(lanes.fence),
        place={},
    )
    try:
        pickle.dumps(task)
    except Exception as error:  # noqa: BLE001  # an option of the application's client may raise anything
        return None, f"the client or its codec cannot be passed to another process ({error})"
    return task, None


class _Spread:
    """One walk in ranges: their state in the ledger, the worker of each, and the events for all together."""

    def __init__(
        self,
        db: Database,
        job: Job,
        checkpoint: Checkpoint,
        lanes: Lanes | None,
        task: RangeTask | None,
    ) -> None:
        self.db, self.job, self.checkpoint, self.lanes, self.task = db, job, checkpoint, lanes, task
        self.total = 0
        self.ranges: dict[str, dict[str, Any]] = {}
        self.futures: dict[str, Future[RangeDone]] = {}
        self.tries: dict[str, int] = {}
        self.seen: dict[str, tuple[Any, float]] = {}  # the last sign of life, and when it was seen
        self.news = asyncio.Event()
        self.started = time.monotonic()
        self.told = -1

    @property
    def changed(self) -> int:
        return sum(each["changed"] for each in self.ranges.values())

    @property
    def left(self) -> list[str]:
        return [number for number, each in self.ranges.items() if not each.get("over")]

    async def plan(self, stored: Mapping[str, Any]) -> None:
        """Use the ranges of an earlier attempt, or cut the walk into new ones."""
        if isinstance(stored.get("ranges"), Mapping):
            self.ranges = {number: dict(each) for number, each in stored["ranges"].items()}
            self.total = int(stored.get("total") or 0)
        else:
            before = Place.of(stored)  # from an attempt in one lane
            source = self.job.source(self.db)
            self.total = before.total if before.total is not None else await source.count()
            count = ranges.number_of_ranges(self.lanes.count if self.lanes is not None else 1, self.total - before.done)
            found = await self._cut(count)
            for number, bounds in enumerate(found):
                place = Place() if number else before
                self.ranges[str(number)] = {**place.stored(), "low": bounds.low, "high": bounds.high}
        for each in self.ranges.values():
            each["token"] = int(each.get("token") or 0) + 1
        await self.checkpoint.save({"total": self.total, "ranges": self.ranges})

    async def _cut(self, count: int) -> tuple[ranges.Range, ...]:
        name = self.job.name
        firsts: list[Any] = []
        low: bytes | None = None
        while True:
            body: dict[str, Any] = {"find": name, "projection": {"_id": 1}, "sort": {"_id": 1}, "limit": 1}
            if low is not None:
                body |= {"min": RawBSONDocument(low, RAW), "hint": {"_id": 1}}
            found = await commands.documents_again(self.db, body, codec_options=RAW)
            if not found:
                break
            firsts.append(found[0]["_id"])
            low = ranges.next_group(firsts[-1])
            if low is None:
                break
        size = count * ranges.SAMPLES_A_RANGE
        pipeline = [{"$sample": {"size": size}}, {"$project": {"_id": 1}}, {"$sort": {"_id": 1}}]
        sampling = {"aggregate": name, "pipeline": pipeline, "cursor": {"batchSize": size}}
        sample = await commands.documents_again(self.db, sampling, codec_options=RAW)
        return ranges.cut([each["_id"] for each in sample], firsts, count)

    async def run(self) -> None:
        """Walk every range."""
        try:
            if self.lanes is not None:
                await self._share(self.lanes.executor)
            for number in self.left:
                await self._walk_here(number)
        finally:
            if any(not future.done() for future in self.futures.values()):
                with anyio.CancelScope(shield=True):
                    await self._stop()

    async def _share(self, executor: Executor) -> None:
        for number in self.left:
            if not await self._submit(executor, number):
                return
        quiet_since = time.monotonic()
        while self.left:
            with anyio.move_on_after(POLL_SECONDS):
                await self.news.wait()
            self.news.clear()
            context().check_lease()
            # Tested before the look, so that the last event shows where the last range has ended.
            ended = [(number, future) for number, future in self.futures.items() if future.done()]
            got_on = await self._look() or bool(ended)
            for number, future in ended:
                del self.futures[number]
                if not self._settle(number, future) and not await self._again(executor, number):
                    return
            now = time.monotonic()
            quiet_since = now if got_on else quiet_since
            for number, (_, since) in list(self.seen.items()):
                if number in self.futures and now - since > STALE_SECONDS:
                    message = f"{self.job.name}: a worker is silent, its range is given to another"
                    context().emit(Warned(message=message))
                    _kill(executor, self.futures.pop(number))
                    if not await self._again(executor, number):
                        return
            if now - quiet_since > 2 * STALE_SECONDS:
                raise NotPossible(
                    f"{self.job.name}: no worker has taken a range for {now - quiet_since:.0f} s; see that the engine "
                    "has workers and that they reach the server"
                )

    async def _submit(self, executor: Executor, number: str) -> bool:
        """
        Give a range to the executor.

        :return: whether the executor has accepted it
        """
        assert self.task is not None  # the run has lanes
        each = self.ranges[number]
        task = replace(self.task, number=number, token=each["token"], place=dict(each))
        self.tries[number] = self.tries.get(number, 0) + 1
        self.seen.pop(number, None)
        loop = asyncio.get_running_loop()
        try:
            future = await anyio.to_thread.run_sync(executor.submit, run_range, task)  # it may start a process
        except (BrokenExecutor, RuntimeError) as error:
            message = f"{self.job.name}: the workers cannot be used any more ({error}), the rest is done in one lane"
            context().emit(Warned(message=message))
            return False
        future.add_done_callback(lambda _: _tell(loop, self.news))
        self.futures[number] = future
        return True

    async def _again(self, executor: Executor, number: str) -> bool:
        if self.tries[number] >= TRIES:
            raise NotPossible(
                f"{self.job.name}: {TRIES} workers one after the other did not finish one range; see what the engine "
                "reports about them (memory, most often), and run again"
            )
        self.ranges[number]["token"] += 1
        key = f"{self.checkpoint.key}.ranges.{number}.token"
        await replace(self.checkpoint, key=key).save(self.ranges[number]["token"])
        return await self._submit(executor, number)

    def _settle(self, number: str, future: Future[RangeDone]) -> bool:
        """
        Handle the end of a range.

        :return: ``False`` if its worker died, so that it must be done again
        """
        try:
            done = future.result()
        except (Exception, CancelledError) as error:  # noqa: BLE001  # errors of the engine; those of the range are in the result
            if self.ranges[number].get("over"):
                return True
            message = f"{self.job.name}: a worker was lost ({error!r}), its range is given to another"
            context().emit(Warned(message=message))
            return False
        if done.error is not None:
            raise _unpacked(done.error)
        if done.superseded:
            return False
        self.ranges[number]["over"] = True
        return True

    async def _look(self) -> bool:
        """Read the places, and emit the progress of all lanes together. Return whether any has advanced."""
        assert self.lanes is not None
        key = self.checkpoint.key
        body = {"find": COLLECTION, "filter": self.lanes.fence, "projection": {f"checkpoint.{key}": 1}, "limit": 1}
        found = await commands.documents_again(self.db, body)
        if not found:
            raise LeaseLost(int(self.lanes.fence["run.term"]))
        stored, now, got_on = found[0].get("checkpoint", {}).get(key, {}), time.monotonic(), False
        for number, each in (stored.get("ranges") or {}).items():
            ours = self.ranges[number]
            beat = (each.get("token"), each.get("beat"))
            if "beat" in each and each.get("token") == ours["token"] and self.seen.get(number, (None,))[0] != beat:
                self.seen[number] = (beat, now)
                got_on = True
            token = ours["token"]
            ours.update({name: value for name, value in each.items() if name != "beat"})
            ours["token"] = max(token, each.get("token") or 0)
        self._say()
        return got_on

    def _say(self) -> None:
        done = sum(each["done"] for each in self.ranges.values())
        if done == self.told:
            return
        self.told, self.total = done, max(self.total, done)
        seconds = time.monotonic() - self.started
        context().emit(BatchDone(collection=self.job.name, done=done, total=self.total, seconds=seconds))

    async def _walk_here(self, number: str) -> None:
        """Walk a range in this process."""
        each = self.ranges[number]
        each["token"] += 1  # a worker that still has it notices this
        place = Place.of(each)
        facts = {name: each[name] for name in ("low", "high", "token")}
        kept = replace(self.checkpoint, key=f"{self.checkpoint.key}.ranges.{number}")
        await kept.save({**place.stored(), **facts})

        async def save(_: str, stored: StoredPlace) -> None:
            await kept.save({**stored, **facts})

        def tell(place: Place) -> None:
            each.update(place.stored())
            self._say()

        source = self.job.source(self.db, each["low"], each["high"])
        await self.job.run(source, Checkpoint(key=kept.key, store=save), place, counted=False, tell=tell)
        each.update(place.stored(), over=True)
        await kept.save({**place.stored(), **facts, "over": True})

    async def _stop(self) -> None:
        """Take every range from its worker, and wait until the workers end."""
        for each in self.ranges.values():
            each["token"] += 1
        with contextlib.suppress(Exception), anyio.move_on_after(GRACE_SECONDS):
            tokens = {f"checkpoint.{self.checkpoint.key}.ranges.{n}.token": r["token"] for n, r in self.ranges.items()}
            assert self.lanes is not None
            fenced = {"q": self.lanes.fence, "u": {"$set": tokens}}
            await commands.command_again(self.db, {"update": COLLECTION, "updates": [fenced]})
        running = [future for future in self.futures.values() if not future.cancel()]
        if self.lanes is not None:
            for future in running:
                _kill(self.lanes.executor, future)
        with anyio.move_on_after(GRACE_SECONDS):
            while not all(future.done() for future in running):
                self.news.clear()
                await self.news.wait()


def _kill(executor: Executor, future: Future[Any]) -> None:
    """End the process of a task, if the executor can do that."""
    kill: Callable[[Future[Any]], None] | None = getattr(executor, "kill", None)
    if not future.cancel() and kill is not None:
        kill(future)


def _tell(loop: asyncio.AbstractEventLoop, news: asyncio.Event) -> None:
    with contextlib.suppress(RuntimeError):  # the loop is closed
        loop.call_soon_threadsafe(news.set)


def function_at(function: Function, script: Script) -> FunctionAt | str:
    """Return where a worker finds a function, or why it cannot find it."""
    name = getattr(function, "__qualname__", None)
    module = getattr(function, "__module__", None)
    if name is None or module is None or "<" in name:
        return "it is not defined at the top of the script"
    path = getattr(function, "__globals__", {}).get("__file__") or ""
    found = getattr(function, "__globals__", {}).get(name)
    if found is not function:
        return "its name means something else at the top of the script"
    where = FunctionAt(module=module, name=name, path=path, folder=str(script.path.parent.absolute()))
    if path != str(script.path):
        return where if getattr(sys.modules.get(module), name, None) is function else "its module is not to be found"
    return replace(where, source=script.source)


def _unpacked(error: tuple[bytes, str]) -> Exception:
    with contextlib.suppress(Exception):  # the module may be absent here
        found = pickle.loads(error[0])
        if isinstance(found, Exception):
            return found
    return RangeFailed(error[1])
