"""
Run work in one transaction of MongoDB, and commit all of it or nothing. I/O through a session.

The rules are those of the drivers' ``with_transaction`` (transactions-convenient-api.md). Motor and PyMongo Async have
it in two forms, and neither can continue a commit while its caller is cancelled.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import anyio
from pymongo import ReadPreference, WriteConcern
from pymongo.errors import OperationFailure, PyMongoError

from mydocs.migrations.driver import commands, listeners, server_errors
from mydocs.migrations.driver.cancellation import Interruption
from mydocs.migrations.driver.client import Database, session_of, without_secrets
from mydocs.migrations.errors import NotPossible
from mydocs.migrations.limits import limits
from mydocs.migrations.reporting.events import Warned
from mydocs.migrations.scripts.script_context import context

ABORT_SECONDS = 5.0  # without an abort the server aborts by itself, a minute later
FIRST_PAUSE = 0.005  # seconds; 1.5 times longer after each try, up to the longest; the drivers' own values
LONGEST_PAUSE = 0.5

WRITES = frozenset({"insert", "update", "delete", "findAndModify", "bulkWrite"})

TRANSIENT = "TransientTransactionError"
UNKNOWN = "UnknownTransactionCommitResult"
NO_SUCH_TRANSACTION = 251
NOT_IN_TRANSACTION = 263  # OperationNotSupportedInTransaction

ENDED_BY_SCRIPT = (
    "the script ended its transaction itself; leave commit and abort to mydocs, which records its success in the same "
    "transaction (a commit of its own stays, so look at what the script has written)"
)
ENDED_BY_SERVER = (
    "the script caught an error that had ended its transaction (let it raise, or look before the write), or it took "
    "longer than the server lets a transaction last (a minute by default; change less in it)"
)

Work = Callable[[Any], Coroutine[Any, Any, None]]
"""Takes the session."""

Seal = Callable[[Any], Coroutine[Any, Any, None]]


async def is_possible(db: Database) -> bool:
    """Return whether the deployment has transactions: a replica set or a sharded cluster, not a single server."""
    reply = await commands.command_again(db, {"hello": 1})
    return "setName" in reply or reply.get("msg") == "isdbgrid"


async def in_transaction(db: Database, interruption: Interruption, work: Work, seal: Seal) -> None:
    """
    Await ``work(session)``, then ``seal(session)``, and commit. After a transient error repeat all of it.

    The interruption cancels ``work`` and nothing after it: sealed work is also committed.

    Each repetition is emitted as a warning in the present step, with its reason.

    :raises NotPossible: if ``work`` ends the transaction, or needs what no transaction can do
    :raises PyMongoError: labelled ``UnknownTransactionCommitResult`` if it is unknown whether it is committed
    """
    started, pause, ended_early = time.monotonic(), FIRST_PAUSE, 0
    async with session_of(db) as session:
        while True:
            await _begin(session)
            try:
                await interruption.run(partial(_inside, db, session, work))
                if not session.in_transaction:
                    raise NotPossible(ENDED_BY_SCRIPT)
                await interruption.finish(_end(db, session, seal), "the commit")
            except (Exception, asyncio.CancelledError) as error:
                # After a try to commit the driver regards the transaction as ended, although it existed until then.
                gone = session.in_transaction and _code(error) == NO_SUCH_TRANSACTION
                ended_early = ended_early + 1 if gone else 0
                await _abort(session)
                if _code(error) == NOT_IN_TRANSACTION:
                    problem = (
                        f"{server_errors.text_of(error)}; do it in a migration of its own, without TRANSACTIONAL = True"
                    )
                    raise NotPossible(problem).with_traceback(error.__traceback__) from error
                if ended_early == 2:  # the first time it may have been an election
                    raise NotPossible(ENDED_BY_SERVER).with_traceback(error.__traceback__) from error
                late = time.monotonic() - started >= limits().transaction
                if late or interruption.requested or not _has_label(error, TRANSIENT):
                    raise
                reason = without_secrets(db, server_errors.text_of(error))
                context().emit(Warned(message=f"the transaction came to nothing and is run again: {reason}"))
            else:
                return
            await anyio.sleep(pause * random.random())
            pause = min(pause * 1.5, LONGEST_PAUSE)


async def _inside(db: Database, session: Any, work: Work) -> None:
    """Do the work with the session in all of its calls, if the driver supports that; else warn of calls outside."""
    bind = getattr(session, "bind", None)  # in PyMongo since 4.17
    if bind is None:
        with _told_of_writes_outside(db):
            await work(session)
        return
    async with bind(end_session=False):
        await work(session)


@contextmanager
def _told_of_writes_outside(db: Database) -> Iterator[None]:
    script, told = context(), set[tuple[str, str]]()

    def started(event: Any) -> None:
        name = event.command_name
        is_outside = event.database_name == db.name and name in WRITES and "autocommit" not in event.command
        # Writes of the application itself on the same client have another context.
        if not is_outside or context() is not script:
            return
        what = (name, str(event.command[name]))
        if what not in told:
            told.add(what)
            outside = f"{name} on {what[1]} is not a part of the script's transaction and stays if that fails"
            script.emit(Warned(message=f"{outside}; pass session=session"))

    with listeners.tapped(db, listeners.CommandTap(started, lambda _: None)):
        yield


async def _begin(session: Any) -> None:
    # Majority even if the application's client uses less, since the ledger's record is part of it.
    options = {"write_concern": WriteConcern("majority"), "read_preference": ReadPreference.PRIMARY}
    begun = session.start_transaction(**options)
    if isinstance(begun, Awaitable):  # PyMongo Async; Motor returns at once
        await begun


async def _end(db: Database, session: Any, seal: Seal) -> None:
    await seal(session)
    started, pause = time.monotonic(), FIRST_PAUSE
    while True:
        try:
            await commands.answered(db, session.commit_transaction(), "commitTransaction")
        except PyMongoError as error:
            unknown = isinstance(error, server_errors.NoAnswer) or _has_label(error, UNKNOWN)
            if not unknown or time.monotonic() - started >= limits().commit:
                raise
        else:
            return
        await anyio.sleep(pause)
        pause = min(pause * 1.5, LONGEST_PAUSE)


async def _abort(session: Any) -> None:
    if session.in_transaction:
        with anyio.CancelScope(shield=True), anyio.move_on_after(ABORT_SECONDS):
            await session.abort_transaction()


def _code(error: BaseException) -> int | None:
    return error.code if isinstance(error, OperationFailure) else None


def _has_label(error: BaseException, label: str) -> bool:
    return isinstance(error, PyMongoError) and error.has_error_label(label)
