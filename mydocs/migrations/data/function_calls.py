"""
Call a script's function for documents: one at a time, several at once, or with a batch in one call. I/O only by the
function itself.
"""

import asyncio
import inspect
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import anyio
import anyio.lowlevel
import bson
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument

from mydocs.migrations.data.statements import (
    MESSAGE_BYTES,
    Batch,
    Guard,
    decoded_all,
    encoded_all,
    place_of,
    shown,
)
from mydocs.migrations.data.walk import Asked
from mydocs.migrations.errors import ChangeInvalid, NotPossible
from mydocs.migrations.reporting.events import Warned
from mydocs.migrations.scripts.script_context import context

Change: TypeAlias = Mapping[str, Any] | Sequence[Mapping[str, Any]] | None
"""An update document, a pipeline, a replacement, or ``None`` to leave the document as it is."""
Function: TypeAlias = Callable[[Any], Any]
"""From a document to its change, or from a list of documents to a list of changes; async or not."""

TRIES = 100  # of one call that raises RetryLater
SHORTEST_PAUSE = 0.05  # seconds, even if a function asks for less
_CHANGES = (dict, list, type(None))  # the usual results, which need no check for an awaitable
AT_ONCE = 64  # documents that are decoded with one call, and their statements encoded with one
SLICE_SECONDS = 0.002  # the longest time that a function without `await` may block reads, writes and signals


class RetryLater(Exception):
    """
    Raise this in the function of :func:`transform` to be called again with the same document after some seconds.

    It is for a provider that says how long to wait. All calls of the walk wait. Calls that are already running are not
    cancelled.
    """

    def __init__(self, seconds: float) -> None:
        """
        Set the pause.

        :param seconds: a finite number, 0 or more
        """
        if not 0 <= seconds < math.inf:
            raise ValueError(f"RetryLater({seconds}): a finite number of seconds is needed, 0 or more")
        self.seconds = seconds
        super().__init__(f"call again in {seconds:g} s")


class Gate:
    """All calls of a walk pass through it, and wait here after one of them raised RetryLater."""

    def __init__(self, name: str, closed: Callable[[float], None] = lambda seconds: None) -> None:
        """
        Start open.

        :param closed: called with the number of seconds when a function closes it
        """
        self._name = name
        self._closed = closed
        self._opens = 0.0  # monotonic

    @property
    def is_closed(self) -> bool:
        return self._opens > 0 and self._opens > time.monotonic()

    async def passed(self) -> None:
        while self.is_closed:  # noqa: ASYNC110  # another call may have closed it for longer
            await anyio.sleep(max(0.0, self._opens - time.monotonic()))

    def close(self, seconds: float) -> None:
        """Close it for a function whose provider asks for a pause."""
        if not self.is_closed:
            message = f"{self._name}: the function asked to be called later, all its calls wait for {seconds:g} s"
            context().emit(Warned(message=message))
        self._closed(seconds)
        self.hold(max(SHORTEST_PAUSE, seconds))

    def hold(self, seconds: float) -> None:
        """Let no call pass for so many seconds from now on."""
        self._opens = max(self._opens, time.monotonic() + seconds)


@dataclass(slots=True, kw_only=True)
class Asker:
    """
    Turn documents into statements.

    :param options: the application's codec options for its documents
    :param batch: the function takes a list of documents, and returns a list
    :param concurrency: number of calls at the same time
    """

    name: str
    function: Function
    guard: Guard
    options: CodecOptions[Any]
    batch: bool = False
    concurrency: int = 1
    gate: Gate
    _busy: float = field(init=False, default=0.0)  # seconds for which the function has blocked the event loop so far
    _slots: anyio.Semaphore = field(init=False)

    def __post_init__(self) -> None:
        self._slots = anyio.Semaphore(self.concurrency)

    def clock(self) -> float:
        """Return a clock that counts the time for the server's answers, without that of the function itself."""
        return time.monotonic() - self._busy

    async def ask(self, batch: Batch) -> Asked:
        """Return the changes of a batch. An error of the function is part of the result, with the changes before it."""
        if self.batch:
            return await self._ask_at_once(batch)
        if self.concurrency == 1:
            return await self._ask_in_turn(batch)
        return await self._ask_side_by_side(batch)

    async def _ask_in_turn(self, batch: Batch) -> Asked:
        asked, since = Asked(), time.monotonic()
        for start in range(0, len(batch), AT_ONCE):
            documents = batch[start : start + AT_ONCE]
            changes: list[Any] = []
            try:
                for document, argument in zip(documents, self._decoded(documents), strict=True):
                    changes.append(self._checked(document, await self._call(argument)))
                    if time.monotonic() - since > SLICE_SECONDS:
                        await anyio.lowlevel.checkpoint()
                        since = time.monotonic()
            except BaseException as error:  # noqa: BLE001  # raised once the changes before it are written
                asked.error = _of_the_script(error)
            self._take(asked, documents[: len(changes)], changes)
            if asked.error is not None:
                break
        return asked

    async def _ask_at_once(self, batch: Batch) -> Asked:
        asked = Asked()
        changes: list[Any] = []
        try:
            async with self._slots:
                answers = await self._call(list(self._decoded(batch)))
            if not isinstance(answers, Sequence) or isinstance(answers, str | bytes) or len(answers) != len(batch):
                got = f"{len(answers)} changes" if isinstance(answers, list | tuple) else type(answers).__name__
                problem = (
                    f"the function was given this and {len(batch) - 1} more documents and returned {got}; with "
                    "batch=True it returns a list with one change a document, None for one that is to stay as it is"
                )
                raise ChangeInvalid(self.name, shown(batch[0]["_id"]), problem)
            for document, answer in zip(batch, answers, strict=True):
                changes.append(self._checked(document, answer))
        except BaseException as error:  # noqa: BLE001  # raised once the changes before it are written
            asked.error = _of_the_script(error)
        self._take(asked, batch[: len(changes)], changes)
        return asked

    async def _ask_side_by_side(self, batch: Batch) -> Asked:
        answers: dict[int, Any] = {}
        failures: dict[int, BaseException] = {}
        numbers = iter(range(len(batch)))

        async def lane() -> None:
            for number in numbers:
                try:
                    async with self._slots:
                        answer = await self._call(bson.decode(batch[number].raw, self.options))
                    answers[number] = self._checked(batch[number], answer)
                except BaseException as error:  # noqa: BLE001  # raised once the changes before it are written
                    failures[number] = _of_the_script(error)
                    group.cancel_scope.cancel()

        async with anyio.create_task_group() as group:
            for _ in range(min(self.concurrency, len(batch))):
                group.start_soon(lane)
        asked = Asked(error=failures[min(failures)] if failures else None)
        answered = next(number for number in range(len(batch) + 1) if number not in answers)
        self._take(asked, batch[:answered], [answers[number] for number in range(answered)])
        return asked

    async def _call(self, argument: Any) -> Any:
        for _ in range(TRIES):
            if self.gate.is_closed:
                await self.gate.passed()
            try:
                began = time.monotonic()
                answer = self.function(argument)
                self._busy += time.monotonic() - began
                is_async = not isinstance(answer, _CHANGES) and inspect.isawaitable(answer)
                if not is_async and self.concurrency > 1:
                    raise NotPossible(
                        f"concurrency={self.concurrency} is for an async function, and this one is not; make it async, "
                        "or leave concurrency out and share the work among processes (`run --workers`)"
                    )
                return await answer if is_async else answer
            except RetryLater as later:
                self.gate.close(later.seconds)
        first = argument[0] if self.batch else argument
        raise NotPossible(
            f"{self.name}: the function asked to be called later {TRIES} times for the document with _id "
            f"{first.get('_id')!r}; run again when its provider answers, and it continues from here"
        )

    def _decoded(self, documents: Batch) -> Iterable[Any]:
        """Return documents as the application wants them. The error of one comes after those before it."""
        try:
            return decoded_all(documents, self.options)
        except Exception:  # noqa: BLE001  # a codec of the application's may raise anything
            return (bson.decode(document.raw, self.options) for document in documents)

    def _checked(self, document: RawBSONDocument, change: Any) -> Any:
        problem = None if change is None else problem_of(change, document, self.options)
        if problem is not None:
            raise ChangeInvalid(self.name, shown(document["_id"]), problem)
        return change

    def _take(self, asked: Asked, documents: Batch, changes: Sequence[Any]) -> None:
        """Add the statements for documents, or if one of them is wrong, those before it and its error."""
        try:
            self._add(asked, documents, changes)
        except Exception as error:  # noqa: BLE001  # raised once the changes before it are written
            asked.error = error

    def _add(self, asked: Asked, documents: Batch, changes: Sequence[Any]) -> None:
        try:
            made = self._statements(documents, changes)
        except Exception:
            if len(documents) == 1:
                raise
            for document, change in zip(documents, changes, strict=True):
                self._add(asked, [document], [change])
            return
        asked.statements += made
        asked.left += len(documents) - len(made)
        asked.covered += len(documents)

    def _statements(self, documents: Batch, changes: Sequence[Any]) -> Batch:
        """Return statements that change documents, each only if it is still as it was read."""
        changed = [number for number, change in enumerate(changes) if change is not None]
        queries = self.guard.queries([documents[number] for number in changed])
        made = encoded_all(
            [{"q": query, "u": changes[number]} for query, number in zip(queries, changed, strict=True)], self.options
        )
        for statement, number in zip(made, changed, strict=True):
            if len(statement.raw) > MESSAGE_BYTES:
                problem = (
                    f"the document and its change have {len(statement.raw)} bytes together, and one statement holds "
                    f"{MESSAGE_BYTES}; return an update document or a pipeline in place of a replacement, and name "
                    "what the function reads in `fields`"
                )
                raise ChangeInvalid(self.name, shown(documents[number]["_id"]), problem)
        return made


def problem_of(change: Any, document: RawBSONDocument, options: CodecOptions[Any]) -> str | None:
    """Return why a result is not a valid change of a document, or ``None`` if it is."""
    if type(change) is dict and len(change) == 1 and _sets_no_id(change.get("$set")):  # the usual result
        return None
    if isinstance(change, list | tuple):
        if change and all(isinstance(stage, Mapping) for stage in change):
            return None
        return "the function returned a list that is not a pipeline; return None to leave the document as it is"
    if not isinstance(change, Mapping):
        kind = type(change).__name__
        return f"the function returned {kind}; return an update document, a pipeline, a replacement or None"
    if not change:
        return "the function returned an empty document; return None to leave the document as it is"
    operators = [key for key in change if str(key).startswith("$")]
    if operators and len(operators) < len(change):
        field = next(key for key in change if key not in operators)
        return f"the function returned a mixture of operators ({operators[0]}) and fields ({field})"

    def is_same(value: object) -> bool:
        return bson.encode({"_id": value}, codec_options=options) == place_of(document)

    changed = False
    if not operators:
        changed = "_id" in change and not is_same(change["_id"])
    for operator in operators:
        fields = change[operator]
        for path in fields if isinstance(fields, Mapping) else ():
            if path == "_id":
                changed |= operator != "$set" or not is_same(fields[path])
            elif str(path).startswith("_id."):
                changed = True
    return "the function changed _id, which cannot be changed; insert a new document instead" if changed else None


def _sets_no_id(fields: object) -> bool:
    if type(fields) is not dict:
        return False
    for path in fields:  # noqa: SIM110  # runs for every result, and `all` takes twice as long
        if type(path) is not str or path[:3] == "_id":
            return False
    return True


def _of_the_script(error: BaseException) -> BaseException:
    """Return an error that the function has raised. The error of a walk that ends is passed on."""
    if isinstance(error, asyncio.CancelledError) and anyio.current_effective_deadline() == -math.inf:
        raise error
    return error
