"""One local server for a whole bench, with its record by database, and processes measured against it. I/O."""

import asyncio
import itertools
import json
import os
import subprocess
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

from pymongo import MongoClient

from mydocs.localserver import LocalServer
from mydocs.localserver.controls import Controls, Recorded

from .peers import BARE, OURS, Tools, environment
from .table import Row

K = TypeVar("K")
T = TypeVar("T")
U = TypeVar("U")

KEEP = 1_000  # records; what is counted is counted as it arrives, and a million documents need not be held
PROCESS_SECONDS = 600.0


@dataclass(slots=True)
class Seen:
    """What has arrived for one database."""

    commands: Counter[str] = field(default_factory=Counter)
    inserts: Counter[str] = field(default_factory=Counter)  # by collection
    created: dict[str, float] = field(default_factory=dict)  # search index → epoch seconds of its command
    looks: Counter[str] = field(default_factory=Counter)  # listings, by collection

    @property
    def total(self) -> int:
        return self.commands.total()


@dataclass(frozen=True, slots=True)
class Ran:
    """
    A process that has ended.

    :param processor: seconds, of it and the processes that it has waited for
    :param commands: that have arrived for its database meanwhile
    :param told: the JSON object that a worker prints
    """

    seconds: float
    processor: float
    commands: int
    told: dict[str, Any]


class Lab:
    """The server, its record, and a way to be some milliseconds away from it."""

    def __init__(self, tools: Tools, *, quick: bool, million: bool) -> None:
        self.tools = tools
        self.quick = quick
        self.million = million
        self.server = LocalServer()
        self.server.controls = Controls(keep=KEEP)
        self.seen: defaultdict[str, Seen] = defaultdict(Seen)
        self._guard = threading.Lock()
        self._numbers = itertools.count(1)

    @property
    def url(self) -> str:
        return self.server.url

    def database(self) -> str:
        """Give a database that nobody has used."""
        return f"bench{next(self._numbers)}"

    def drop(self, database: str) -> None:
        """Forget a database that is done with: the search indexes of all are looked through at each listing."""
        with MongoClient[dict[str, Any]](self.url) as client:
            client.drop_database(database)

    def run(self, argv: Sequence[str], database: str = "", *, timeout: float = PROCESS_SECONDS) -> Ran:
        """
        Run a process to its end.

        :param database: whose commands are counted
        :raises RuntimeError: where it fails, since a failed run is no measurement
        """
        seen = self.seen[database]
        before = seen.total
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
            began = time.perf_counter()
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=errors,
                env=environment(),
                cwd=tempfile.gettempdir(),
            )
            watchdog = threading.Timer(timeout, process.kill)
            watchdog.start()
            _, status, usage = os.wait4(process.pid, 0)  # tells what processor time it took
            seconds = time.perf_counter() - began
            watchdog.cancel()
            process.returncode = code = os.waitstatus_to_exitcode(status)
            out.seek(0)
            errors.seek(0)
            said, complained = out.read(), errors.read()
        if code:
            raise RuntimeError(f"{' '.join(argv)} ended with {code}: {complained[-2000:]}")
        return Ran(seconds, usage.ru_utime + usage.ru_stime, seen.total - before, told(said))

    def in_turn(self, rounds: int, commands: Mapping[K, tuple[Sequence[str], str]]) -> dict[K, list[Ran]]:
        """Run each command on its database in turn, round for round, so that a noisy moment meets all of them."""
        found: dict[K, list[Ran]] = {key: [] for key in commands}
        for _ in range(rounds):
            for key, (argv, database) in commands.items():
                found[key].append(self.run(argv, database))
        return found

    def _record(self, recorded: Recorded) -> None:
        body = recorded.body
        if recorded.name == "dropDatabase":
            return  # the bench's own
        with self._guard:
            seen = self.seen[recorded.database]
            seen.commands[recorded.name] += 1
            if recorded.name == "insert":
                seen.inserts[body["insert"]] += 1
            elif recorded.name == "createSearchIndexes":
                now = time.time()
                seen.created.update((index["name"], now) for index in body["indexes"])
            elif recorded.name == "aggregate" and body["pipeline"] and "$listSearchIndexes" in body["pipeline"][0]:
                seen.looks[body["aggregate"]] += 1

    @contextmanager
    def open(self) -> Iterator["Lab"]:
        with self.server:
            self.server.controls.call(self._record, times=None)
            yield self

    @contextmanager
    def counted(self, round_trip: float) -> Iterator[tuple[str, "Proxy"]]:
        """Yield a URL of the same server from so many seconds away, and what counts the bytes that go through it."""
        proxy = Proxy(self.server.port, round_trip)
        proxy.start()
        try:
            yield f"mongodb://127.0.0.1:{proxy.port}/?directConnection=true", proxy
        finally:
            proxy.stop()

    @contextmanager
    def at_distance(self, round_trip: float) -> Iterator[str]:
        """Yield a URL of the same server from so many seconds away, there and back; 0 is the server itself."""
        if not round_trip:
            yield self.url
            return
        proxy = Proxy(self.server.port, round_trip)
        proxy.start()
        try:
            yield f"mongodb://127.0.0.1:{proxy.port}/?directConnection=true"
        finally:
            proxy.stop()


def row_of(
    section: str, work: str, tool: str, runs: Sequence[Ran], limit: str, *, size: int | None = None, note: str = ""
) -> Row:
    """
    Say how long whole processes took.

    :param limit: of our own rows
    """
    return Row(
        section=section,
        work=work,
        tool=tool,
        size=size,
        seconds=tuple(run.seconds for run in runs),
        processor=tuple(run.processor for run in runs),
        commands=median(run.commands for run in runs) or None,
        bare=tool == BARE,
        limit=limit if tool in OURS else "",
        note=note,
    )


def told(output: str) -> dict[str, Any]:
    """Read a worker's last line; other programs say nothing to the bench."""
    last = output.strip().rpartition("\n")[2]
    found: object = json.loads(last) if last.startswith("{") else {}
    return found if isinstance(found, dict) else {}


def side_by_side(act: Callable[[T], U], items: Sequence[T], at_once: int) -> list[U]:
    """Act on all items, so many at one time; for work that mostly waits."""
    with ThreadPoolExecutor(at_once) as pool:
        return list(pool.map(act, items))


def scratch() -> tempfile.TemporaryDirectory[str]:
    """Give a folder for the migrations of the bench."""
    return tempfile.TemporaryDirectory(prefix="mydocs-bench-")


class Proxy:
    """
    Passes bytes on, each half a round trip later.

    One loop in a thread of its own serves all connections: a byte waits for its time and never for another connection.
    """

    def __init__(self, target: int, round_trip: float) -> None:
        self._target = target
        self._half = round_trip / 2
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="bench-proxy", daemon=True)
        self.port = 0
        self.sent = self.received = 0  # bytes, as the client sees it

    def start(self) -> None:
        self._thread.start()
        self.port = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(10)

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop)
        self._thread.join(10)

    async def _listen(self) -> int:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=512)
        port: int = server.sockets[0].getsockname()[1]
        return port

    async def _end(self) -> None:
        """Let the connections that are left end, and the loop after them."""
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        self._loop.stop()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(2 * self._half)  # what TCP itself needs to connect
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.close()
            return
        with suppress(asyncio.CancelledError):
            await asyncio.gather(self._pass(reader, back, sent=True), self._pass(there, writer, sent=False))

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, sent: bool) -> None:
        try:
            while data := await reader.read(1 << 16):
                if sent:
                    self.sent += len(data)
                else:
                    self.received += len(data)
                self._loop.call_later(self._half, writer.write, data)
        except OSError:
            pass  # either side may leave as it likes
        self._loop.call_later(self._half, writer.close)


def folder_of(base: str, *parts: object) -> Path:
    """Name a folder for one tool and one size."""
    return Path(base, "-".join(map(str, parts)))
