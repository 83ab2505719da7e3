"""
Walk one range of a data change in another process or on another machine. I/O.

This is the worker's part of a walk that :mod:`mydocs.migrations.data.workers` has cut into ranges. The worker has its
own event loop and client, and reports only its place, in the ledger entry.
"""

import asyncio
import contextlib
import importlib
import pickle
import sys
import threading
import types
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Any

import anyio
import bson
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument
from pymongo import AsyncMongoClient

from mydocs.migrations.data.function_calls import Function, Gate
from mydocs.migrations.data.job import Job
from mydocs.migrations.data.statements import RAW
from mydocs.migrations.data.walk import Place
from mydocs.migrations.driver import commands
from mydocs.migrations.driver.client import Database
from mydocs.migrations.driver.task_groups import one_error_group
from mydocs.migrations.ledger.documents import COLLECTION
from mydocs.migrations.scripts.script_context import Checkpoint, StoredPlace
from mydocs.migrations.values import value

BEAT_SECONDS = 2.0  # between two signs of life of a worker; each also reads the others' pauses


class RangeFailed(Exception):
    """A worker's error that cannot be pickled."""


class _Superseded(Exception):
    """The range now belongs to another worker."""


@value
class Connection:
    """The connection of a worker to the server. It may contain a password, so it never shows itself."""

    arguments: Mapping[str, Any]

    def __repr__(self) -> str:
        return "Connection(…)"


@value
class FunctionAt:
    """
    The place where a worker finds a function.

    :param source: the text of its script, or ``None`` if it is imported from a module
    :param folder: of the script, for its imports
    """

    module: str
    name: str
    path: str
    folder: str
    source: str | None = field(default=None, repr=False)


@value
class RangeTask:
    """One range of a walk, with everything that another process or machine needs. It can be pickled."""

    connection: Connection
    database: str
    collection: str
    wanted: bytes
    options: CodecOptions[Any] = field(repr=False)
    function: FunctionAt
    batch_size: int
    batch: bool
    concurrency: int
    fields: tuple[str, ...] | None
    pause: float
    shard_key: tuple[str, ...]
    max_lag: float | None
    key: str
    number: str
    token: int
    fence: bytes = field(repr=False)
    place: Mapping[str, Any]


@value
class RangeDone:
    """
    The end of a range.

    :param superseded: it was given to another worker, or the run has a successor
    :param error: the function's error, pickled, and as text
    """

    number: str
    token: int
    superseded: bool = False
    error: tuple[bytes, str] | None = None


def run_range(task: RangeTask) -> RangeDone:
    """
    Walk one range to its end. Blocks. Any process or thread can do it that imports this package and reaches the server.

    Write the place to the run's ledger entry after each batch, and stop if the range belongs to another worker.

    :return: also if the function raised, so that no engine repeats it
    """
    try:
        asyncio.run(_walk_range(task, _load(task.function)))
    except _Superseded:
        return RangeDone(number=task.number, token=task.token, superseded=True)
    except Exception as error:  # noqa: BLE001  # raised by the run
        return RangeDone(number=task.number, token=task.token, error=_packed(error))
    return RangeDone(number=task.number, token=task.token)


async def _walk_range(task: RangeTask, function: Function) -> None:
    async with AsyncMongoClient[dict[str, Any]](**task.connection.arguments) as client:
        db = client[task.database]
        kept = Kept(db, task)
        place = Place.of(task.place)
        job = Job(
            name=task.collection,
            wanted=RawBSONDocument(task.wanted, RAW),
            function=function,
            options=task.options,
            batch_size=task.batch_size,
            batch=task.batch,
            concurrency=task.concurrency,
            fields=task.fields,
            pause=task.pause,
            shard_key=task.shard_key,
            max_lag=task.max_lag,
        )
        await kept.write({})
        async with one_error_group() as group:
            group.start_soon(kept.beat)
            source = job.source(db, task.place["low"], task.place["high"])
            await job.run(source, Checkpoint(key=task.key, store=kept.save), place, gate=kept.gate, counted=False)
            group.cancel_scope.cancel()
        await kept.write({"over": True})


class Kept:
    """The place of a range, written by its worker."""

    def __init__(self, db: Database, task: RangeTask) -> None:
        self._db = db
        self._at, self._later = f"checkpoint.{task.key}.ranges.{task.number}", f"checkpoint.{task.key}.later"
        self._query = {**bson.decode(task.fence), f"{self._at}.token": task.token}
        self._asked = 0.0
        self._has_news = anyio.Event()
        self.gate = Gate(task.collection, self._close)

    def _close(self, seconds: float) -> None:
        self._asked = max(self._asked, seconds)
        self._has_news.set()

    async def beat(self) -> None:
        """Write signs of life and read the others' pauses, until the group ends."""
        while True:
            with anyio.move_on_after(BEAT_SECONDS):
                await self._has_news.wait()
            self._has_news = anyio.Event()
            await self.write({})

    async def save(self, _key: str, place: StoredPlace) -> None:
        await self.write(place)

    async def write(self, place: Mapping[str, Any]) -> None:
        """
        Write the place.

        :raises _Superseded: if the range no longer belongs to this worker
        """
        fields: dict[str, Any] = {f"{self._at}.{name}": {"$literal": value} for name, value in place.items()}
        fields[f"{self._at}.beat"] = "$$NOW"
        if asked := self._asked:
            fields[self._later] = {"$max": [f"${self._later}", {"$add": ["$$NOW", round(asked * 1000)]}]}
        body = {
            "findAndModify": COLLECTION,
            "query": self._query,
            "update": [{"$set": fields}],
            "new": True,
            "fields": {f"{self._at}.beat": 1, self._later: 1},
            "writeConcern": commands.MAJORITY,
        }
        found = (await commands.command_again(self._db, body))["value"]
        if found is None:
            raise _Superseded
        if self._asked == asked:
            self._asked = 0.0
        later, now = _at(found, self._later), _at(found, f"{self._at}.beat")
        if later is not None:
            self.gate.hold((later - now).total_seconds())


def _at(document: Any, path: str) -> Any:
    for name in path.split("."):
        document = document.get(name) if isinstance(document, Mapping) else None
    return document


def _packed(error: BaseException) -> tuple[bytes, str]:
    text = f"{type(error).__name__}: {error}".rstrip(": ")
    with contextlib.suppress(Exception):
        packed = pickle.dumps(error)
        pickle.loads(packed)
        return packed, text
    return b"", text


_modules: dict[tuple[str, str], types.ModuleType] = {}
_loading = threading.Lock()


def _load(where: FunctionAt) -> Function:
    with _loading:
        if where.folder not in sys.path and Path(where.folder).is_dir():
            sys.path.append(where.folder)
        if where.source is None:
            module = importlib.import_module(where.module)
        else:
            key = (where.path, where.source)
            if key not in _modules:
                module = types.ModuleType(where.module)
                module.__file__ = where.path
                sys.modules.setdefault(where.module, module)  # dataclasses and pickle look up a class's module
                exec(compile(where.source, where.path, "exec", dont_inherit=True), module.__dict__)
                _modules[key] = module
            module = _modules[key]
    function: Function = getattr(module, where.name)
    return function
