"""
Walk over the documents of a collection in the order of `_id`, batch by batch, and store the place after each. I/O.

One ``find`` reads a batch. It starts where the last one ended and leaves no cursor open. So the work on a batch may
take any time, and a new run continues after the last batch that a killed run has finished. The bound is an index bound
(``min``) instead of a condition on `_id`, since a condition would see only values of one type.

Four things happen at the same time: the next batch is read, the present one is processed, the previous one is written,
and the place of the one before that is stored. Batches are written in their order, and a place is stored only when all
before it is written. So a run that has lost its lease learns it after one more batch, which is guarded like all others.
"""

import hashlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias

import anyio
import anyio.abc
import anyio.lowlevel
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from bson.raw_bson import RawBSONDocument

from mydocs.migrations.data import order
from mydocs.migrations.data.batch_size import Pace
from mydocs.migrations.data.statements import RAW, Batch, place_of, shown
from mydocs.migrations.driver import commands, retry
from mydocs.migrations.driver.client import Database
from mydocs.migrations.errors import NotPossible
from mydocs.migrations.limits import limits
from mydocs.migrations.reporting.events import BatchDone, DataChanged, Warned
from mydocs.migrations.scripts.script_context import Checkpoint, StoredPlace, context
from mydocs.migrations.values import value


@value
class Source:
    """
    The documents of a walk.

    :param wanted: the script's filter
    :param projection: the fields to read; ``None`` for all
    :param low: the first possible ``{_id: …}``, as BSON; ``None`` for no bound
    :param high: the first one after the range
    """

    db: Database
    name: str
    wanted: RawBSONDocument
    projection: dict[str, int] | None = None
    low: bytes | None = None
    high: bytes | None = None

    async def count(self) -> int:
        return int((await commands.command_again(self.db, {"count": self.name, "query": self.wanted}))["n"])

    async def still_matches(self, place: bytes) -> bool:
        """Return whether the document at a place matches the filter."""
        query = {"$and": [RawBSONDocument(place, RAW), self.wanted]}
        return bool((await commands.command_again(self.db, {"count": self.name, "query": query}))["n"])

    async def read(self, after: bytes | None, size: int) -> tuple[Batch, bool]:
        """Read the next batch, and return whether it is the last. A reply is limited to 16 MB."""
        body: dict[str, Any] = {"find": self.name, "filter": self.wanted, "sort": {"_id": 1}}
        body |= {"limit": size, "batchSize": size + 1}
        if self.projection is not None:
            body["projection"] = self.projection
        if after is not None:
            bound = RawBSONDocument(after, RAW)
            # The bound itself is inside its range, so this condition excludes it.
            body["filter"] = {"$and": [self.wanted, {"_id": {"$ne": bound["_id"]}}]}
            body["min"] = bound
        elif self.low is not None:
            body["min"] = RawBSONDocument(self.low, RAW)
        if self.high is not None:
            body["max"] = RawBSONDocument(self.high, RAW)
        if "min" in body or "max" in body:
            body["hint"] = {"_id": 1}
        cursor = (await retry.again(lambda: commands.command(self.db, body, codec_options=RAW)))["cursor"]
        batch: Batch = list(cursor["firstBatch"])
        if cursor["id"]:  # cut at 16 MB; the next find continues from there
            await commands.command_again(self.db, {"killCursors": self.name, "cursors": [cursor["id"]]})
            return batch, False
        return batch, len(batch) < size


@dataclass(slots=True)
class Place:
    """
    The progress of a walk.

    :param after: a BSON document, so that `_id` keeps its type in the ledger; ``refused`` likewise
    :param left: number of documents that the function left as they are
    :param refused: a document that must be corrected before more is done
    """

    after: bytes | None = None
    done: int = 0
    changed: int = 0
    left: int = 0
    total: int | None = None
    refused: bytes | None = None

    @classmethod
    def of(cls, stored: StoredPlace | None) -> "Place":
        place = cls(**{key: value for key, value in (stored or {}).items() if key in cls.__slots__})
        numbers = (place.done, place.changed, place.left, place.total)
        whole = all(isinstance(bound, bytes | None) for bound in (place.after, place.refused))
        return place if whole and all(isinstance(number, int) for number in numbers) else cls()

    def stored(self) -> StoredPlace:
        return {key: getattr(self, key) for key in self.__slots__}


@dataclass(slots=True)
class Asked:
    """
    The statements for a batch.

    :param statements: of an update command
    :param left: number of documents that the function left as they are
    :param covered: number of documents from the batch's beginning with a result; fewer than all if ``error`` is set
    """

    statements: Batch = field(default_factory=list)
    covered: int = 0
    left: int = 0
    error: BaseException | None = None


@dataclass(slots=True)
class _Lot:
    batch: Batch
    is_last: bool
    seconds: float
    asked: Asked = field(default_factory=Asked)
    ready: anyio.Event = field(default_factory=anyio.Event)


@value
class Work:
    """
    The work on each batch.

    :param ask: returns the statements of a batch; an error of the script's own is part of them
    :param write: sends them, and returns how many documents are not as before
    :param at_once: number of batches for which ``ask`` runs at the same time
    :param clock: seconds that measure the server's answers
    """

    ask: Callable[[Batch], Awaitable[Asked]]
    write: Callable[[Batch, Batch], Awaitable[int]]
    at_once: int = 1
    clock: Callable[[], float] = time.monotonic


async def walk(
    source: Source,
    work: Work,
    checkpoint: Checkpoint,
    place: Place,
    *,
    batch_size: int,
    pause: float,
    counted: bool = True,
    tell: Callable[[Place], None] | None = None,
) -> int:
    """
    Do the work batch after batch.

    :param place: where to begin; it moves with each batch
    :param pause: seconds between two batches
    :param counted: count what matches before and after; what is in one of several ranges is counted with all others
    :param tell: called with the place after each batch; by default an event is emitted
    :return: number of documents that match in the end; 0 if they are not counted
    """
    pace = Pace(whole=batch_size, size=batch_size, noise=limits().noise)
    going = _Walk(source, work, checkpoint, pause, place, pace, counted, tell)
    failure: BaseException | None = None
    read: _Lots = anyio.create_memory_object_stream(0)
    asked: _Lots = anyio.create_memory_object_stream(max(0, work.at_once - 1))
    async with read[0], read[1], asked[0], asked[1], anyio.create_task_group() as group:
        try:
            group.start_soon(going.read_all, read[0], place.after)
            going.count_before(group)  # after the read, so that the function is called for its documents meanwhile
            group.start_soon(going.ask_all, read[1], asked[0])
            await going.write_all(asked[1], group)
        except Exception as error:  # noqa: BLE001  # raised below, alone instead of in a group
            failure = error
        except (SystemExit, KeyboardInterrupt, GeneratorExit) as error:  # from the script's function
            failure = error
        if failure is not None:
            group.cancel_scope.cancel()
    if failure is not None:
        raise failure
    return going.still_matching


_Send: TypeAlias = MemoryObjectSendStream[_Lot | BaseException]
_Receive: TypeAlias = MemoryObjectReceiveStream[_Lot | BaseException]
_Lots: TypeAlias = tuple[_Send, _Receive]


async def _received(lots: _Receive) -> _Lot | BaseException | None:
    """Return the next lot, at once if it is there, or ``None`` after the last one."""
    try:
        return lots.receive_nowait()
    except anyio.WouldBlock:
        return await anext(lots, None)
    except anyio.EndOfStream:
        return None


class _Beside:
    """A command that runs while other work continues."""

    def __init__(self) -> None:
        self.over = anyio.Event()
        self.error: Exception | None = None

    async def run(self, call: Callable[[], Awaitable[None]]) -> None:
        try:
            await call()
        except Exception as error:  # noqa: BLE001  # raised by the task that waits for it
            self.error = error
        self.over.set()

    async def ended(self) -> None:
        if not self.over.is_set():
            await self.over.wait()
        if self.error is not None:
            raise self.error


class _Walk:
    def __init__(
        self,
        source: Source,
        work: Work,
        checkpoint: Checkpoint,
        pause: float,
        place: Place,
        pace: Pace,
        counted: bool,
        tell: Callable[[Place], None] | None,
    ) -> None:
        self.source, self.work, self.checkpoint, self.pause = source, work, checkpoint, pause
        self.place, self.pace, self.counted = place, pace, counted
        self.still_matching = 0
        self.tell = tell or self._say
        self.started = time.monotonic()
        self.counting: _Beside | None = None
        self.saving: _Beside | None = None

    def count_before(self, group: anyio.abc.TaskGroup) -> None:
        """Count the matching documents while the first batch is read: once it is written, they no longer match."""

        async def count() -> None:
            self.place.total = await self.source.count()

        if self.counted and self.place.total is None:
            self.counting = _Beside()
            group.start_soon(self.counting.run, count)

    def count_after(self, group: anyio.abc.TaskGroup) -> None:
        """Count the matching documents while the last place is stored."""

        async def count() -> None:
            self.still_matching = await self.source.count()

        if self.counted:
            self.counting = _Beside()
            group.start_soon(self.counting.run, count)

    async def write_all(self, lots: _Receive, group: anyio.abc.TaskGroup) -> None:
        """
        Write the statements in their order.

        Between the end of a write and the next one that is ready only the place is sent, since the server waits.
        """
        while (lot := await _received(lots)) is not None:
            if isinstance(lot, BaseException):
                await self._saved()
                raise lot
            if not lot.ready.is_set():
                await lot.ready.wait()
            await self._counted()
            await self._write(lot, group)
        await self._counted()
        self.count_after(group)
        await self._saved()
        await self._counted()

    async def _write(self, lot: _Lot, group: anyio.abc.TaskGroup) -> None:
        asked, place = lot.asked, self.place
        if asked.covered:
            began = self.work.clock()
            try:
                place.changed += await self.work.write(lot.batch[: asked.covered], asked.statements)
            except Exception:
                await self._saved()
                raise
            self.pace = self.pace.after(lot.seconds + self.work.clock() - began)
            place.after = place_of(lot.batch[asked.covered - 1])
            place.done += asked.covered
            place.left += asked.left
            place.total = max(place.total or 0, place.done)  # other clients may have added some
            await self._saved()
            self.saving = _Beside()
            group.start_soon(self.saving.run, partial(self.checkpoint.save, place.stored()))
            self.tell(place)
            await anyio.lowlevel.checkpoint()  # it is sent now
        if asked.error is not None:
            await self._saved()
            raise asked.error
        if self.pause and not lot.is_last:
            await anyio.sleep(self.pause)

    def _say(self, place: Place) -> None:
        seconds = time.monotonic() - self.started
        context().emit(BatchDone(collection=self.source.name, done=place.done, total=place.total or 0, seconds=seconds))

    async def _counted(self) -> None:
        """Wait until all is counted, if the count is running."""
        if self.counting is not None:
            await self.counting.ended()

    async def _saved(self) -> None:
        """Wait until the latest place is stored, if one is on its way."""
        if self.saving is not None:
            await self.saving.ended()

    async def read_all(self, lots: _Send, after: bytes | None) -> None:
        async with lots:
            try:
                await self._read_on(lots, after)
            except Exception as error:  # noqa: BLE001  # raised once everything that was read before it is written
                await lots.send(error)

    async def _read_on(self, lots: _Send, after: bytes | None) -> None:
        is_last, first = False, None
        while not is_last:
            began = self.work.clock()
            batch, is_last = await self.source.read(after, self.pace.size)
            seconds = self.work.clock() - began
            if not batch:
                continue
            await _check_order(self.source, after, batch[0]["_id"], first)
            first, after = batch[0]["_id"], place_of(batch[-1])
            await lots.send(_Lot(batch, is_last, seconds))

    async def ask_all(self, lots: _Receive, asked: _Send) -> None:
        slots = anyio.Semaphore(self.work.at_once)
        async with lots, asked, anyio.create_task_group() as group:
            async for lot in lots:
                if not isinstance(lot, BaseException):
                    await slots.acquire()
                    group.start_soon(self._ask, lot, slots)
                await asked.send(lot)

    async def _ask(self, lot: _Lot, slots: anyio.Semaphore) -> None:
        try:
            lot.asked = await self.work.ask(lot.batch)
        finally:
            slots.release()
        lot.ready.set()


async def say_end(source: Source, matching: int, changed: int, left: int, after: bytes | None) -> None:
    """
    Emit the result of a change, and how many documents still match.

    :param matching: number of documents that match in the end
    :param left: number of those that the function left as they are
    :param after: where the walk has ended
    """
    still = max(0, matching - left)
    finds_all = still >= changed > 0 and after is not None and await source.still_matches(after)
    said = None if finds_all else still
    context().emit(DataChanged(collection=source.name, changed=changed, still_matching=said))
    if said:
        message = (
            f"{source.name}: {said} documents still match the filter after the change; most often the application "
            "still writes the old form: release what writes the new one, then change the rest with another migration"
        )
        context().emit(Warned(message=message))


def call_key(helper: str, name: str, *facts: object) -> str:
    """Return a key for a call by its arguments, so that places stay right if a script omits a call the second time."""
    digest = hashlib.sha256(repr((name, (helper, *facts))).encode()).hexdigest()
    return f"{helper}-{name.replace('.', '_').replace('$', '_')}-{digest[:12]}"


async def _check_order(source: Source, after: bytes | None, found: object, first: object) -> None:
    """
    Check that a batch begins after the previous one. Otherwise the walk would never end.

    :param first: the first `_id` of the previous batch
    """
    if after is None:
        return
    last = RawBSONDocument(after, RAW)["_id"]
    is_after = order.sort_key(found) > order.sort_key(last)
    if not is_after and order.has_text(found) and found != first:
        # In the order of a collation, which only the server knows.
        listing = {"listCollections": 1, "filter": {"name": source.name}}
        listed = await commands.documents_again(source.db, listing)
        is_after = any("collation" in each.get("options", {}) for each in listed)
    if not is_after:
        raise NotPossible(
            f"{source.name}: after the batch that ended with _id {shown(last)!r} the server sent one that begins with "
            f"_id {shown(found)!r}; this server does not keep to `min` of find, without which a walk over a collection "
            "would never end, so nothing more is done; use update_many of the driver"
        )
