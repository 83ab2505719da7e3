"""
Manage the open transactions: each reads its snapshot and keeps its writes until the commit. I/O through the store.

Nothing ever waits for a transaction. If two transactions write one entry, the second is refused at once. If a write
outside of transactions conflicts with a transaction, the transaction fails, at the latest at its commit. (In MongoDB
the write outside waits.) In both cases the error is a write conflict, which drivers know how to retry.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from mydocs.localserver.catalogue.collection import Collection
from mydocs.localserver.catalogue.storage import CATALOGUE, Store, connect, overlay
from mydocs.localserver.control.clock import Clock
from mydocs.localserver.errors import CommandError

LIFETIME_SECONDS = 60.0  # `transactionLifetimeLimitSeconds` of a MongoDB server
TRANSIENT = "TransientTransactionError"  # drivers repeat a transaction if its error has this label

Entry = tuple[int, bytes]


class State(StrEnum):
    """The outcome of the latest transaction of a session."""

    OPEN = "open"
    COMMITTED = "committed"
    ABORTED = "aborted"


@dataclass(eq=False)
class Transaction:
    """
    One transaction.

    :param began: the number of the last change in its snapshot
    :param base: the collections at that time
    """

    session: bytes
    number: int
    began: int
    ends_at: float
    base: dict[tuple[str, str], Collection] = field(default_factory=dict)
    store: Store | None = None
    written: set[Entry] = field(default_factory=set)
    state: State = State.OPEN


class Transactions:
    """
    The latest transaction of each session. The caller holds the server's lock.

    :param ended: called with each transaction that is over, however it ended
    """

    def __init__(self, path: Path | None, clock: Clock, ended: Callable[[Transaction], None]) -> None:
        self._path = path
        self._clock = clock
        self._ended = ended
        self._latest: dict[bytes, Transaction] = {}
        self._open: set[Transaction] = set()
        self._changes = 0
        self._changed: dict[Entry, int] = {}  # the latest change of each entry, kept while transactions are open

    def noted(self, space: int, key: bytes) -> None:
        """Record a write outside of transactions."""
        if self._open:
            self._changes += 1
            self._changed[space, key] = self._changes

    def start(self, session: bytes, number: int, main: Store) -> Transaction:
        """
        Begin a transaction. Abort an open one of the same session.

        :raises CommandError: code 225 for a number that has passed, 117 for one that is in use
        """
        self.expire()
        latest = self._latest.get(session)
        if latest is not None and latest.number >= number:
            raise CommandError(
                225 if latest.number > number else 117,
                f"Cannot start transaction {number} on session: transaction {latest.number} has already started.",
            )
        self.abandon(session)
        opened = Transaction(session, number, self._changes, self._clock.monotonic() + LIFETIME_SECONDS)
        opened.base = dict(main.collections)
        connection = connect(self._path)
        if self._path is None:
            main.connection.backup(connection)
        overlay(connection)
        opened.store = Store(connection, lambda space, key: self._claim(opened, (space, key)), main.spaces)
        self._latest[session] = opened
        self._open.add(opened)
        return opened

    def current(self, session: bytes, number: int) -> Transaction:
        """
        Return the open transaction with a number.

        :raises CommandError: code 251 if there is none (any more), 256 if it is committed
        """
        self.expire()
        latest = self._latest.get(session)
        if latest is None or latest.number != number:
            raise CommandError(
                251,
                f"Given transaction number {number} does not match any in-progress transactions. "
                f"The active transaction number is {-1 if latest is None else latest.number}",
                labels=(TRANSIENT,),
            )
        if latest.state is State.COMMITTED:
            raise CommandError(256, f"Transaction with {{ txnNumber: {number} }} has been committed.")
        if latest.state is not State.OPEN:
            raise CommandError(
                251, f"Transaction with {{ txnNumber: {number} }} has been {latest.state}.", labels=(TRANSIENT,)
            )
        return latest

    def commit(self, session: bytes, number: int, main: Store) -> None:
        """Store the transaction's writes. A second call is allowed, since drivers repeat a commit without an answer."""
        latest = self._latest.get(session)
        if latest is not None and latest.number == number and latest.state is State.COMMITTED:
            return
        current = self.current(session, number)
        try:
            self._apply(current, main)
        except CommandError:
            self._finish(current, State.ABORTED)
            raise
        self._finish(current, State.COMMITTED)

    def abort(self, session: bytes, number: int) -> None:
        """Discard the transaction's writes."""
        self._finish(self.current(session, number), State.ABORTED)

    def abandon(self, session: bytes, *, below: int | None = None) -> None:
        """Abort a session's open transaction, since the session has ended or uses a higher number."""
        latest = self._latest.get(session)
        if latest is not None and latest.state is State.OPEN and (below is None or latest.number < below):
            self._finish(latest, State.ABORTED)

    def end_session(self, session: bytes) -> None:
        self.abandon(session)
        self._latest.pop(session, None)

    def failed(self, transaction: Transaction) -> None:
        """Abort a transaction after one of its statements was refused, as a server does."""
        if transaction.state is State.OPEN:
            self._finish(transaction, State.ABORTED)

    def expire(self) -> None:
        """Abort transactions that have been open for too long."""
        now = self._clock.monotonic()
        for transaction in list(self._open):
            if transaction.ends_at < now:
                self._finish(transaction, State.ABORTED)

    def close(self) -> None:
        for transaction in list(self._open):
            self._finish(transaction, State.ABORTED)

    def _claim(self, transaction: Transaction, entry: Entry) -> None:
        others = (other for other in self._open if other is not transaction)
        if self._changed.get(entry, 0) > transaction.began or any(entry in other.written for other in others):
            raise _conflict()
        transaction.written.add(entry)

    def _apply(self, transaction: Transaction, main: Store) -> None:
        assert transaction.store is not None
        if any(self._changed.get(entry, 0) > transaction.began for entry in transaction.written):
            raise _conflict()
        spaces = {space for space, _ in transaction.written}
        names = {
            name
            for collections in (transaction.base, transaction.store.collections)
            for name, found in collections.items()
            if spaces.intersection(found.spaces)
            or transaction.base.get(name) != transaction.store.collections.get(name)
        }
        # Dropped, created or given another index meanwhile: the checks against the old state are no longer valid.
        if any(main.collections.get(name) != transaction.base.get(name) for name in names):
            raise _conflict()
        main.take_over(transaction.store, catalogue=CATALOGUE in spaces)

    def _finish(self, transaction: Transaction, state: State) -> None:
        transaction.state = state
        self._open.discard(transaction)
        self._ended(transaction)
        if transaction.store is not None:
            transaction.store.connection.close()
            transaction.store = None
        if not self._open:
            self._changed.clear()


def _conflict() -> CommandError:
    return CommandError(
        112,
        "Caused by :: Write conflict during plan execution and yielding is disabled. :: "
        "Please retry your operation or multi-document transaction.",
        labels=(TRANSIENT,),
    )
