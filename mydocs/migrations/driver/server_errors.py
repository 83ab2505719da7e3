"""Interpret errors of the driver and the server, and write the operator's message. No I/O."""

import re
from collections.abc import Mapping

from pymongo.errors import (
    ConfigurationError,
    ConnectionFailure,
    DocumentTooLarge,
    ExecutionTimeout,
    InvalidName,
    InvalidURI,
    NetworkTimeout,
    OperationFailure,
    PyMongoError,
)

from mydocs.migrations.driver import dialects
from mydocs.migrations.driver.dialects import Meaning
from mydocs.migrations.errors import (
    CommandRefused,
    IndexFailed,
    MigrationError,
    NotAuthorised,
    NotReady,
    SearchUnavailable,
    ServerUnreachable,
    SettingsInvalid,
    Unverified,
)

# Codes after which the same command may succeed: the drivers' retryable reads and writes (retryable-reads.md,
# retryable-writes.md), then the lock and overload codes of src/mongo/base/error_codes.yml.
TRANSIENT_CODES = frozenset(
    {6, 7, 89, 91, 134, 189, 262, 9001, 10058, 10107, 11600, 11602, 13435, 13436}
    | {24, 43, 50, 112, 175, 202, 237, 290, 365, 384, 402, 407, 433, 449, 450, 453, 462, 473, 489, 91331}
)
TRANSIENT_LABELS = ("RetryableError", "SystemOverloadedError", "RetryableWriteError")
UNAUTHORISED_CODES = frozenset({13, 18, 334, 391})
ATLAS_CODE = 8000  # any of Atlas' own errors: "bad auth", "user is not allowed to do action", but also a quota
DUPLICATE_KEY = 11000
# BSONObjectTooLarge, and the code for a document that an update makes too large.
TOO_LARGE_CODES = frozenset({10334, 17419, 17420})
_DRIVER_DUMP = re.compile(r"(, Timeout: | \(configured timeouts: |, full error: ).*", re.DOTALL)


class NoAnswer(NetworkTimeout):
    """A command of the runner was not answered in time. It may have been executed."""


def words_of(error: BaseException) -> str:
    """Return the text of an error. A script's own error class may run any code for it."""
    try:
        return str(error)
    except BaseException:  # noqa: BLE001  # SystemExit too: the text of an error must not end the program
        return "<its text cannot be shown>"


def says(error: BaseException, meaning: Meaning) -> bool:
    """Return whether a server's error has this meaning, in the words of any kind of server."""
    return isinstance(error, OperationFailure) and dialects.says(error.code, text_of(error), meaning)


def is_search_starting(error: BaseException) -> bool:
    """Return whether the search process behind the server does not answer yet, or not at the moment."""
    return says(error, Meaning.STARTING)


def is_transient(error: BaseException) -> bool:
    """Return whether the same command may succeed if it is sent again."""
    if isinstance(error, ConnectionFailure | ExecutionTimeout):
        return not isinstance(error, ConfigurationError)
    if isinstance(error, OperationFailure):
        return (
            error.code in TRANSIENT_CODES
            or any(error.has_error_label(label) for label in TRANSIENT_LABELS)
            or is_search_starting(error)
        )
    return False


def is_no_search(error: BaseException, *, of_search_command: bool = False) -> bool:
    """
    Return whether the server says that it has no search indexes at all.

    :param of_search_command: the error came from a search command: then an unknown command counts as well
    """
    return says(error, Meaning.NO_SEARCH) or (of_search_command and says(error, Meaning.UNKNOWN))


def is_unauthorised(error: BaseException) -> bool:
    """Return whether the login failed, or the user has no permission for this command."""
    if not isinstance(error, OperationFailure):
        return False
    text = words_of(error).lower()
    return error.code in UNAUTHORISED_CODES or (
        error.code == ATLAS_CODE and ("auth" in text or "user is not allowed" in text)
    )


def is_too_large(error: BaseException) -> bool:
    """Return whether a document, or its message, is larger than the server accepts."""
    return isinstance(error, DocumentTooLarge) or (
        isinstance(error, OperationFailure) and error.code in TOO_LARGE_CODES
    )


def unique_index_of(error: OperationFailure) -> str | None:
    """Return the unique index that refused a write, or ``None`` if it is that of ``_id``."""
    found = re.search(r"\bindex: (\S+)", str((error.details or {}).get("errmsg", words_of(error))))
    return found[1] if found and found[1] != "_id_" else None


def as_migration_error(error: BaseException) -> MigrationError | None:
    """Convert a driver's error to an error with a message for the operator; ``None`` for other errors."""
    if isinstance(error, MigrationError):
        return error
    if isinstance(error, InvalidURI | ConfigurationError | InvalidName):
        return SettingsInvalid(f"the connection settings are not usable: {text_of(error)}; check --url and --db")
    if isinstance(error, OperationFailure):
        if is_unauthorised(error):
            return NotAuthorised(text_of(error))
        if error.code in {73, 300} or "Invalid namespace" in words_of(error):  # InvalidNamespace
            return SettingsInvalid(f"the database name is not allowed: {text_of(error)}; check --db")
        if is_no_search(error):
            return SearchUnavailable(text_of(error))
        if is_transient(error):
            return ServerUnreachable(text_of(error), search=is_search_starting(error))
        return CommandRefused(text_of(error), error.code)
    if isinstance(error, ValueError) and str(error).startswith("SASLprep:"):  # pymongo/saslprep.py
        return SettingsInvalid(
            "the password has a character that no login takes, such as a control character or a line end; remove it "
            "from MONGO_PASSWORD or the URL, or give the user another password"
        )
    if isinstance(error, PyMongoError):
        return ServerUnreachable(text_of(error))
    return None


def exit_code_of(error: BaseException) -> int:
    """Return the exit code of a script's error: 1, unless its cause is the server or an index."""
    known = as_migration_error(error)
    passed_on = ServerUnreachable | NotAuthorised | SearchUnavailable | NotReady | IndexFailed | Unverified
    return known.exit_code if isinstance(known, passed_on) else 1


def text_of(error: BaseException) -> str:
    """
    Return the server's message, without the driver's additions: the reply, its settings, its view of the topology.

    For a bulk write it is the first sentence, since the rest contains the document.
    """
    details = getattr(error, "details", None)
    if isinstance(details, Mapping) and details.get("writeErrors"):
        details = details["writeErrors"][0]
    if isinstance(details, Mapping) and isinstance(details.get("errmsg"), str):
        return str(details["errmsg"]).rstrip(".")
    return without_dump(words_of(error)).strip().rstrip(".")


def without_dump(text: str) -> str:
    """Cut off the driver's additions to an error's message: its settings, its view of the topology, the reply."""
    return _DRIVER_DUMP.sub("", text)
