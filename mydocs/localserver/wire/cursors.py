"""Return results in batches, and keep the rest for `getMore`. No I/O of its own."""

import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from bson import Int64
from bson.raw_bson import RawBSONDocument

from mydocs.localserver.control.clock import Clock
from mydocs.localserver.errors import CommandError
from mydocs.localserver.wire import messages

FIRST_BATCH = 101  # documents in a first batch without a requested size, as on every MongoDB server
IDLE_SECONDS = 600.0  # a cursor is removed after this time without a `getMore`; `cursorTimeoutMillis` of MongoDB
RAW = messages.CODEC.with_options(document_class=RawBSONDocument)


@dataclass
class Cursor:
    """A result that has not been read to its end."""

    identity: int
    namespace: str
    documents: Iterator[Any]
    session: bytes | None = None
    transaction: object | None = None
    expires: bool = True
    used_at: float = 0.0
    left_over: bytes | None = None
    exhausted: bool = False
    dropped: bool = False

    def batch(self, size: int | None) -> list[RawBSONDocument]:
        """Return the next documents: at most ``size``, and no more than one reply can hold."""
        taken: list[RawBSONDocument] = []
        total = 0
        while size is None or len(taken) < size:
            data = self._next()
            if data is None:
                self.exhausted = True
                break
            if taken and total + len(data) > messages.MAX_DOCUMENT:
                self.left_over = data
                break
            total += len(data)
            taken.append(RawBSONDocument(data, RAW))
        return taken

    def _next(self) -> bytes | None:
        if self.left_over is not None:
            data, self.left_over = self.left_over, None
            return data
        document = next(self.documents, None)
        if document is None:
            return None
        data = messages.encode(document)
        if len(data) > messages.MAX_DOCUMENT:
            raise CommandError(
                10334, f"BSONObj size: {len(data)} is invalid. Size must be between 0 and {messages.MAX_DOCUMENT}"
            )
        return data


@dataclass
class Cursors:
    """The cursors of a server."""

    clock: Clock
    _open: dict[int, Cursor] = field(default_factory=dict)

    def first(
        self,
        namespace: str,
        documents: Iterable[Any],
        size: int | None = None,
        *,
        single: bool = False,
        limit: int = 0,
        session: bytes | None = None,
        transaction: object | None = None,
        expires: bool = True,
    ) -> dict[str, Any]:
        """Return the reply with the first batch. Keep a cursor if more may follow, which ``limit`` may rule out."""
        cursor = Cursor(0, namespace, iter(documents), session, transaction, expires)
        batch = cursor.batch(FIRST_BATCH if size is None else size)
        if not (cursor.exhausted or single or 0 < limit <= len(batch)):
            # Positive and far below 2**63, since some drivers show it as a number.
            cursor.identity = secrets.randbits(62) | 1
            cursor.used_at = self.clock.monotonic()
            self._expire()
            self._open[cursor.identity] = cursor
        return {"cursor": {"firstBatch": batch, "id": Int64(cursor.identity), "ns": namespace}}

    def next(self, identity: int, namespace: str, size: int | None, transaction: object | None) -> dict[str, Any]:
        """
        Return the reply with another batch.

        :raises CommandError: code 43 if the cursor does not exist (any more), 175 if its collection was dropped
        """
        self._expire()
        cursor = self._open.get(identity)
        if cursor is None:
            raise CommandError(43, f"cursor id {identity} not found")
        if cursor.namespace != namespace:
            raise CommandError(
                13, f"Requested getMore on namespace '{namespace}', but cursor belongs to a different namespace "
                f"{cursor.namespace}"
            )  # fmt: skip
        if cursor.transaction is not transaction:
            raise CommandError(
                50738, "Cannot run getMore on a cursor in another transaction than the one in which it was opened"
            )
        try:
            if cursor.dropped:
                raise CommandError(175, f"collection dropped: {namespace}")
            batch = cursor.batch(size)
        except CommandError:
            del self._open[identity]
            raise
        if cursor.exhausted:
            del self._open[identity]
        cursor.used_at = self.clock.monotonic()
        return {"cursor": {"nextBatch": batch, "id": Int64(0 if cursor.exhausted else identity), "ns": namespace}}

    def kill(self, identity: Any) -> bool:
        """Remove a cursor, and return whether it existed."""
        return isinstance(identity, int) and self._open.pop(identity, None) is not None

    def drop_collection(self, namespace: str) -> None:
        """End all cursors on a dropped collection with an error. A transaction keeps its snapshot."""
        for cursor in self._open.values():
            if cursor.namespace == namespace and cursor.transaction is None:
                cursor.dropped = True

    def end_session(self, session: bytes) -> None:
        for cursor in [cursor for cursor in self._open.values() if cursor.session == session]:
            del self._open[cursor.identity]

    def end_transaction(self, transaction: object) -> None:
        for cursor in [cursor for cursor in self._open.values() if cursor.transaction is transaction]:
            del self._open[cursor.identity]

    def _expire(self) -> None:
        oldest = self.clock.monotonic() - IDLE_SECONDS
        for cursor in [cursor for cursor in self._open.values() if cursor.expires and cursor.used_at < oldest]:
            del self._open[cursor.identity]
