"""Execute commands: find them in the table, check them, give them their store, remember retryable writes. I/O."""

import logging
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bson import Int64, Timestamp

from mydocs.localserver.catalogue.expiry import PASS_SECONDS, delete_expired
from mydocs.localserver.catalogue.storage import Store, connect
from mydocs.localserver.catalogue.transactions import Transaction, Transactions
from mydocs.localserver.commands.context import Context
from mydocs.localserver.commands.handshake import Greeting, session_id
from mydocs.localserver.commands.table import Command, Plain, command_named
from mydocs.localserver.control.clock import Clock
from mydocs.localserver.control.controls import Controls
from mydocs.localserver.errors import CommandError, NotKnown
from mydocs.localserver.query.values import is_number, to_int
from mydocs.localserver.search import SearchSettings
from mydocs.localserver.search.catalogue import SearchCatalogue
from mydocs.localserver.wire import scram
from mydocs.localserver.wire.cursors import Cursors

Document = dict[str, Any]
log = logging.getLogger(__name__)

SEARCH_PREFIX = "search/"
CLOSE_SECONDS = 1.0  # for the running command; a server stops within two seconds in all


class Engine:
    """
    The part of the server behind the sockets. Safe for threads: one command at a time has the lock, the handshake needs
    none.

    :param path: the database file, or ``None`` to keep everything in memory
    """

    def __init__(
        self,
        path: Path | None,
        clock: Clock,
        search: SearchSettings | None,
        credentials: scram.Credentials | None,
        controls: Controls,
    ) -> None:
        self.clock = clock
        self.credentials = credentials
        self.controls = controls
        self.persistent = path is not None
        self.started_at = clock.monotonic()
        self.address = ""
        self.lock = threading.RLock()
        self.cursors = Cursors(clock)
        self.transactions = Transactions(path, clock, self.cursors.end_transaction)
        self.store = Store(connect(path), self.transactions.noted)
        stored = {name.removeprefix(SEARCH_PREFIX): value for name, value in self.store.scan_meta(SEARCH_PREFIX)}
        self.search = SearchCatalogue(clock, search, stored, self._save_search)
        self._ticks = 1
        self._operation_time = Timestamp(int(clock.now().timestamp()), 1)
        self._next_pass = clock.monotonic() + PASS_SECONDS
        self._replies: dict[bytes, tuple[int, dict[Any, Document]]] = {}

    def close(self) -> None:
        """Close the database. A command that takes too long loses it, and its uncommitted writes."""
        in_peace = self.lock.acquire(timeout=CLOSE_SECONDS)
        try:
            self.transactions.close()
            self.store.connection.close()
        finally:
            if in_peace:
                self.lock.release()

    def run(self, name: str, database: str, body: Document, greeting: Greeting) -> Document:
        """
        Execute a command and return its reply. An error is a reply, too.

        All its writes are committed when this returns.
        """
        try:
            command = command_named(name)
            open_to_all = isinstance(command, Plain) and command.public
            if self.credentials is not None and greeting.login.user is None and not open_to_all:
                raise CommandError(13, f"Command {name} requires authentication")
            _check_api(name, command, body)
            if isinstance(command, Plain):
                return {**command.run(greeting, body), "ok": 1.0}
            given = command.checked(name, body)
            _check_concerns(name, given)
            _check_limit(given)
        except CommandError as error:
            return error_reply(error)
        try:
            with self.lock:
                reply = {**self._execute(name, command, database, given), "ok": 1.0}
        except CommandError as error:
            reply = error_reply(error)
        return {**reply, **_unmet(given)}

    def timed(self, reply: Document) -> Document:
        """Add the times that each member of a replica set reports, from which drivers continue to read."""
        at = self._operation_time
        signature = {"hash": bytes(20), "keyId": Int64(0)}
        return {**reply, "operationTime": at, "$clusterTime": {"clusterTime": at, "signature": signature}}

    def timestamp(self) -> Timestamp:
        """Return a time later than any before. It is the time of the latest operation from now on."""
        self._ticks += 1
        # A clock that is set back must not reverse the order of operations.
        seconds = max(self._operation_time.time, int(self.clock.now().timestamp()))
        self._operation_time = Timestamp(seconds, self._ticks)
        return self._operation_time

    def end_session(self, session: bytes) -> None:
        """Forget the state of a session."""
        with self.lock:
            self.transactions.end_session(session)
            self.cursors.end_session(session)
            self._replies.pop(session, None)

    def _execute(self, name: str, command: Command, database: str, body: Document) -> Document:
        session = _session(body)
        if session is not None and body.get("autocommit") is False:
            return self._in_transaction(name, command, database, body, session)
        if session is None or "txnNumber" not in body:
            return self._outside(command, self._context(database, body, self.store, session), body)
        number, statement = body["txnNumber"], _statement(body)
        self.transactions.abandon(session, below=number)
        latest, replies = self._replies.get(session, (-1, {}))
        if latest > number:
            raise CommandError(
                225, f"Retryable write with txnNumber {number} is prohibited on session because a newer one "
                f"with txnNumber {latest} has already started on this session."
            )  # fmt: skip
        if latest == number and statement in replies:
            return replies[statement]
        reply = self._outside(command, self._context(database, body, self.store, session), body)
        # In memory only: after a restart, the last write is executed again if a driver repeats it.
        self._replies[session] = (number, {**(replies if latest == number else {}), statement: reply})
        return reply

    def _outside(self, command: Command, context: Context, body: Document) -> Document:
        self.transactions.expire()
        try:
            if self.clock.monotonic() >= self._next_pass:
                self._next_pass = self.clock.monotonic() + PASS_SECONDS
                delete_expired(self.store, context.now)
            reply = command.run(context, body)
        except CommandError:
            # Writes before the error stay: an ordered insert keeps the documents before the wrong one.
            self._commit()
            raise
        except BaseException:
            self.store.rollback()
            raise
        self._commit()
        return reply

    def _commit(self) -> None:
        if self.store.commit():
            self.timestamp()

    def _in_transaction(self, name: str, command: Command, database: str, body: Document, session: bytes) -> Document:
        number, starts = body["txnNumber"], bool(body.get("startTransaction"))
        ends = name in ("commitTransaction", "abortTransaction")
        _check_transactional(name, database, body, starts=starts, ends=ends)
        if starts:
            transaction = self.transactions.start(session, number, self.store)
        elif ends:
            if database != "admin":
                raise CommandError(13, f"{name} may only be run against the admin database.")
            if name == "commitTransaction":
                try:
                    self.transactions.commit(session, number, self.store)
                except BaseException:
                    self.store.rollback()
                    raise
                self._commit()
            else:
                self.transactions.abort(session, number)
            return {}
        else:
            transaction = self.transactions.current(session, number)
        assert transaction.store is not None
        try:
            if not command.transactional:
                raise CommandError(263, f"Cannot run '{name}' in a multi-document transaction.")
            return command.run(self._context(database, body, transaction.store, session, transaction), body)
        except BaseException:
            self.transactions.failed(transaction)
            raise

    def _context(
        self,
        database: str,
        body: Mapping[str, Any],
        store: Store,
        session: bytes | None,
        transaction: Transaction | None = None,
    ) -> Context:
        return Context(
            engine=self,
            store=store,
            database=database,
            now=self.clock.now(),
            bypass=bool(body.get("bypassDocumentValidation")),
            session=session,
            transaction=transaction,
        )

    def _save_search(self, name: str, document: Mapping[str, Any] | None) -> None:
        if document is None:
            self.store.delete_meta(SEARCH_PREFIX + name)
        else:
            self.store.put_meta(SEARCH_PREFIX + name, dict(document))


def error_reply(error: CommandError) -> Document:
    """Return the reply for an error."""
    labels = {"errorLabels": list(error.labels)} if error.labels else {}
    return {
        "ok": 0.0, "errmsg": error.message, "code": error.code, "codeName": error.code_name, **error.extra, **labels
    }  # fmt: skip


def _session(body: Mapping[str, Any]) -> bytes | None:
    """Return the id of a command's session."""
    return session_id(body["lsid"]) if "lsid" in body else None


def _statement(body: Mapping[str, Any]) -> Any:
    """Return the numbers that identify one statement of a retryable command; the first is 0."""
    return tuple(body["stmtIds"]) if "stmtIds" in body else body.get("stmtId", 0)


def _check_limit(body: Mapping[str, Any]) -> None:
    limit = body.get("maxTimeMS", 0)
    if not is_number(limit):
        raise CommandError(2, "maxTimeMS must be a number")
    whole = to_int(limit)
    if whole is None:
        raise CommandError(9, "maxTimeMS has non-integral value")
    if not 0 <= whole < 2**31:
        raise CommandError(2, f"{whole} value for maxTimeMS is out of range [0, {2**31 - 1}]")


def _check_transactional(name: str, database: str, body: Mapping[str, Any], *, starts: bool, ends: bool) -> None:
    """Refuse options that no command of a transaction may have."""
    if not ends and database in ("admin", "config", "local"):
        raise CommandError(263, f"Cannot run command against the '{database}' database in a transaction.")
    if not ends and "writeConcern" in body:
        raise CommandError(72, "writeConcern is not allowed within a multi-statement transaction")
    if "readConcern" in body:
        if not starts:
            raise CommandError(72, "Only the first command in a transaction may specify a readConcern")
        if body["readConcern"].get("level", "local") not in ("local", "majority", "snapshot"):
            raise CommandError(
                72,
                "The readConcern level must be either 'local' (default), 'majority' or 'snapshot' in order to run in "
                "a transaction",
            )


MOST_MEMBERS = 50  # the largest replica set, and so the largest number in a write concern
# Commands with a read concern of the client's choice. All others accept only "local", except to begin a transaction.
READS = frozenset({"find", "aggregate", "count", "distinct"})
WRITES_NOTHING = READS - {"aggregate"} | {"getMore", "killCursors", "listIndexes", "listCollections", "listDatabases"}


def _check_api(name: str, command: Command | Plain, body: Mapping[str, Any]) -> None:
    version = body.get("apiVersion")
    if version is None:
        if "apiStrict" in body or "apiDeprecationErrors" in body:
            raise CommandError(322, "Provided apiStrict and/or apiDeprecationErrors without passing apiVersion")
    elif version != "1":
        raise CommandError(322, f"API version must be '1', not '{version}'")
    elif body.get("apiStrict") and isinstance(command, Command) and not command.stable:
        raise CommandError(323, f"Provided apiStrict:true, but the command {name} is not in API Version 1.")


def _unmet(body: Mapping[str, Any]) -> Document:
    """Return the error for a write concern that one member cannot meet. The writes are kept."""
    wanted = body.get("writeConcern", {}).get("w", 1)
    if isinstance(wanted, str):
        problem = (
            None
            if wanted == "majority"
            else CommandError(79, f"No write concern mode named '{wanted}' found in replica set configuration")
        )
    else:
        problem = CommandError(100, "Not enough data-bearing nodes") if (to_int(wanted) or 0) > 1 else None
    if problem is None:
        return {}
    reply = error_reply(problem)
    return {"writeConcernError": {name: reply[name] for name in ("code", "codeName", "errmsg")}}


def _check_concerns(name: str, body: Mapping[str, Any]) -> None:
    if name in WRITES_NOTHING and body.get("writeConcern"):
        raise CommandError(72, f"Command {name} does not support writeConcern")
    wanted = body.get("writeConcern", {}).get("w", 1)
    if not isinstance(wanted, str | Mapping):
        whole = to_int(wanted)
        if whole is None or not 0 <= whole <= MOST_MEMBERS:
            raise CommandError(
                9, f"w has to be a non-negative number and not greater than {MOST_MEMBERS}; found: {wanted}"
            )
    level = body.get("readConcern", {}).get("level", "local")
    if level not in ("local", "available", "majority", "linearizable", "snapshot"):
        raise CommandError(9, f"Enumeration value '{level}' for field 'readConcern.level' is not a valid value.")
    if name not in READS and level != "local" and "startTransaction" not in body:
        raise CommandError(72, f"Command {name} does not support the read concern level '{level}'")
    if level == "snapshot" and "startTransaction" not in body:
        raise NotKnown("the read concern 'snapshot' outside of transactions")
