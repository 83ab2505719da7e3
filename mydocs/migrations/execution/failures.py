"""Describe how a script has failed, for the ledger and for the operator. No I/O."""

import asyncio

from pymongo.errors import PyMongoError

from mydocs.migrations.driver import server_errors
from mydocs.migrations.driver.client import Database, without_secrets
from mydocs.migrations.errors import LeaseLost, MigrationFailed
from mydocs.migrations.model import Script, StoredError
from mydocs.migrations.scripts import load

MESSAGE_LENGTH = 2_000  # characters of an error's text that are stored and shown


class PlainFailed(Exception):
    """
    A plain script raised, or its process ended in another way.

    :param kind: the type of the error for the ledger
    :param line: of the script, if the error passed through it
    :param named: whether the message contains the type
    :param advice: what to do next, as the end of the message
    """

    def __init__(
        self,
        kind: str,
        text: str,
        *,
        line: int | None = None,
        named: bool = True,
        exit_code: int = 1,
        advice: str = "",
    ) -> None:
        self.kind, self.text, self.line, self.named = kind, text, line, named
        self.exit_code, self.advice = exit_code, advice
        super().__init__(f"{kind}: {text}".rstrip(": ") if named else text)


def stored_error(db: Database, error: BaseException) -> StoredError:
    """Return an error for the ledger, without the secrets of the database's client."""
    if isinstance(error, asyncio.CancelledError):
        return StoredError(type="Cancelled", message="the run was interrupted")
    if isinstance(error, PlainFailed):
        return StoredError(type=error.kind, message=storable(db, error.text))
    cause = load.cause_of(error)
    return StoredError(type=type(cause).__name__, message=_text_of(db, cause))


def failure_of(db: Database, script: Script, error: Exception) -> Exception:
    """Return what a run raises for the error of a script. A lost lease is not a failure of the script."""
    if isinstance(error, LeaseLost):
        return error
    if isinstance(error, PlainFailed):
        kind, text, named = error.kind, storable(db, error.text), error.named
        line, exit_code, advice = error.line, error.exit_code, error.advice
    else:
        cause = load.cause_of(error)
        kind, text, named = type(cause).__name__, _text_of(db, cause), not isinstance(cause, SystemExit)
        line, exit_code, advice = (
            load.line_in(script.path, error),
            server_errors.exit_code_of(cause),
            load.advice_on(cause),
        )
    where = "" if line is None else f", line {line}"
    problem = (f"{kind}: {text}".rstrip(": ") if named else text) + advice
    failure = MigrationFailed(script.file_name, where, problem, by_hand=None if script.idempotent else script.version)
    failure.exit_code, failure.path, failure.line = exit_code, script.path, line
    return failure


def storable(db: Database, text: str) -> str:
    """Cut a text, and remove what must not or cannot be stored."""
    # The name of a file may put half of a surrogate pair into it, which neither a stream nor BSON accepts.
    text = text.encode("utf-8", "backslashreplace").decode()
    return without_secrets(db, text)[:MESSAGE_LENGTH]


def _text_of(db: Database, cause: BaseException) -> str:
    return storable(db, server_errors.text_of(cause) if isinstance(cause, PyMongoError) else load.text_of(cause))
