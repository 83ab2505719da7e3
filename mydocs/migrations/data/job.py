"""Change the documents of a walk, or of one range of it, with a function in Python. I/O."""

import math
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import anyio
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument

from mydocs.migrations.data.cluster import Lag
from mydocs.migrations.data.function_calls import Asker, Function, Gate
from mydocs.migrations.data.statements import RAW, Batch, Guard, encoded, id_lists, messages, paths, shown
from mydocs.migrations.data.walk import Place, Source, Work, walk
from mydocs.migrations.driver import commands
from mydocs.migrations.driver.client import Database, Document
from mydocs.migrations.errors import NotPossible
from mydocs.migrations.scripts.script_context import Checkpoint
from mydocs.migrations.values import value

ROUNDS = 10  # tries for a batch whose documents other clients change at the same time
PAUSE_SECONDS = 0.01  # before a changed batch is read again; it doubles each time, up to the next number
LONGEST_PAUSE_SECONDS = 0.2


@value
class Job:
    """
    The arguments of a call of `transform`.

    :param fields: from :func:`mydocs.migrations.data.statements.paths`
    :param shard_key: see :func:`mydocs.migrations.data.cluster.shard_key`
    :param max_lag: seconds, see :class:`mydocs.migrations.data.cluster.Lag`
    """

    name: str
    wanted: RawBSONDocument
    function: Function
    options: CodecOptions[Any]
    batch_size: int
    batch: bool
    concurrency: int
    fields: tuple[str, ...] | None
    pause: float
    shard_key: tuple[str, ...] = ()
    max_lag: float | None = None

    def source(self, db: Database, low: bytes | None = None, high: bytes | None = None) -> Source:
        read = None if self.fields is None else paths([*self.fields, *self.shard_key]) or ()
        projection = None if read is None else {"_id": 1, **dict.fromkeys(read, 1)}
        return Source(db=db, name=self.name, wanted=self.wanted, projection=projection, low=low, high=high)

    async def run(
        self,
        source: Source,
        checkpoint: Checkpoint,
        place: Place,
        *,
        gate: Gate | None = None,
        counted: bool = True,
        tell: Callable[[Place], None] | None = None,
    ) -> int:
        """
        Change the documents of a source, starting at a place.

        :param gate: all calls of the function pass through it; a range shares it with the others
        :param counted: see :func:`mydocs.migrations.data.walk.walk`; ``tell`` and the result likewise
        """
        asker = Asker(
            name=self.name,
            function=self.function,
            guard=Guard(
                fields=self.fields, wanted=None if self.fields is None else self.wanted, shard_key=self.shard_key
            ),
            options=self.options,
            batch=self.batch,
            concurrency=self.concurrency,
            gate=gate or Gate(self.name),
        )

        lag = Lag(source.db, self.name, self.max_lag)

        async def write(lot: Batch, statements: Batch) -> int:
            await lag.bearable()
            return await _write(source, asker, lot, statements)

        # One batch more than there are calls, so that the last calls of a batch leave no lane idle.
        calls = 1 if self.batch else max(1, self.batch_size)
        at_once = 1 if self.concurrency == 1 else 1 + math.ceil(self.concurrency / calls)
        work = Work(ask=asker.ask, write=write, at_once=at_once, clock=asker.clock)
        size, pause = self.batch_size, self.pause
        return await walk(source, work, checkpoint, place, batch_size=size, pause=pause, counted=counted, tell=tell)


async def _write(source: Source, asker: Asker, lot: Batch, statements: Batch) -> int:
    changed = 0
    for turn in range(ROUNDS):
        if turn:
            await anyio.sleep(min(LONGEST_PAUSE_SECONDS, PAUSE_SECONDS * 2**turn))
            asked = await asker.ask(lot)
            if asked.error is not None:
                raise asked.error
            statements = asked.statements
        matched, modified = await update_documents(source.db, source.name, statements)
        changed += modified
        if matched == len(statements):
            return changed
        lot = await _still_wanted(source, statements)
        if not lot:
            return changed
    raise NotPossible(
        f"{source.name}: others changed documents between their read and their write {ROUNDS} times, one of them that "
        f"with _id {shown(lot[0]['_id'])!r}; run again when fewer clients write"
    )


async def _still_wanted(source: Source, statements: Batch) -> Batch:
    """Read the documents of statements again, if they still match the filter."""
    found: Batch = []
    for asked in id_lists([statement["q"] for statement in statements]):
        body: dict[str, Any] = {"find": source.name, "filter": {"$and": [{"_id": {"$in": asked}}, source.wanted]}}
        if source.projection is not None:
            body["projection"] = source.projection
        found += [encoded(each) for each in await commands.documents_again(source.db, body, codec_options=RAW)]
    return found


Send: TypeAlias = Callable[[Database, dict[str, Any]], Awaitable[Document]]


async def update_documents(
    db: Database, name: str, statements: Batch, send: Send = commands.command_again
) -> tuple[int, int]:
    """
    Send statements in as few commands as possible.

    :param send: by default repeats after a lost reply
    :return: number of documents found, and number of them that are not as before
    """
    matched = modified = 0
    for part in messages(statements):
        body = {"update": name, "updates": part, "writeConcern": commands.MAJORITY}
        reply = await send(db, body)
        matched, modified = matched + int(reply["n"]), modified + int(reply["nModified"])
    return matched, modified
