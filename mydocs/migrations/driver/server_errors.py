"""What an error of the driver or the server means, and what an operator is told. No I/O."""

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
# retryable-writes.md), then lock, cursor-free and overload codes of src/mongo/base/error_codes.yml.
TRANSIENT_CODES = frozenset(
    {6, 7, 89, 91, 134, 189, 262, 9001, 10058, 10107, 11600, 11602, 13435, 13436}
    | {24, 43, 50, 112, 175, 202, 237, 290, 365, 384, 402, 407, 433, 449, 450, 453, 462, 473, 489, 91331}
)
TRANSIENT_LABELS = ("RetryableError", "SystemOverloadedError", "RetryableWriteError")
UNAUTHORISED_CODES = frozenset({13, 18, 334, 391})
ATLAS_CODE = 8000  # any error of Atlas' own: "bad auth", "user is not allowed to do action", but also a quota
DUPLICATE_KEY = 11000
# BSONObjectTooLarge; and of a document that an update makes too large.
TOO_LARGE_CODES = frozenset({10334, 17419, 17420})
_DRIVER_DUMP = re.compile(r"(, Timeout: | \(configured timeouts: |, full error: ).*", re.DOTALL)


class NoAnswer(NetworkTimeout):
    """A command of the runner's own that was not answered in time: what it was for may have happened."""


def words_of(error: BaseException) -> str:
    """Give an error's own text; that of a script's error is the script's code, which may do anything."""
    try:
        return str(error)
    except BaseException:  # noqa: BLE001  # SystemExit too: the text of an error ends no program
        return "<its text cannot be shown>"


def says(error: BaseException, meaning: Meaning) -> bool:
    """Whether a server's error means this, in the words of whichever kind of server."""
    return isinstance(error, OperationFailure) and dialects.says(error.code, text_of(error), meaning)


def is_search_starting(error: BaseException) -> bool:
    """Whether the search process behind the server does not answer yet, or for the moment."""
    return says(error, Meaning.STARTING)


def is_transient(error: BaseException) -> bool:
    """Whether the same command may succeed if it is sent again."""
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
    Whether the server says that it has no search indexes at all.

    :param of_search_command: the command was one: then it counts, too, that the server does not know it
    """
    return says(error, Meaning.NO_SEARCH) or (of_search_command and says(error, Meaning.UNKNOWN))


def is_unauthorised(error: BaseException) -> bool:
    """Whether login has failed, or the user may not do this."""
    if not isinstance(error, OperationFailure):
        return False
    text = words_of(error).lower()
    return error.code in UNAUTHORISED_CODES or (
        error.code == ATLAS_CODE and ("auth" in text or "user is not allowed" in text)
    )


def is_too_large(error: BaseException) -> bool:
    """Whether a document, or the message that it is sent in, is larger than the server takes."""
    return isinstance(error, DocumentTooLarge) or (
        isinstance(error, OperationFailure) and error.code in TOO_LARGE_CODES
    )


def unique_index_of(error: OperationFailure) -> str | None:
    """Name the unique index that a write was refused by; ``None`` where it is that of ``_id``."""
    found = re.search(r"\bindex: (\S+)", str((error.details or {}).get("errmsg", words_of(error))))
    return found[1] if found and found[1] != "_id_" else None


def as_migration_error(error: BaseException) -> MigrationError | None:
    """Turn a driver's error into the sentence that an operator needs; ``None`` for errors of other making."""
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
    if isinstance(error, PyMongoError):
        return ServerUnreachable(text_of(error))
    return None


def exit_code_of(error: BaseException) -> int:
    """The exit code that a script's error stands for: 1, unless the server or an index let the script down."""
    known = as_migration_error(error)
    passed_on = ServerUnreachable | NotAuthorised | SearchUnavailable | NotReady | IndexFailed | Unverified
    return known.exit_code if isinstance(known, passed_on) else 1


def text_of(error: BaseException) -> str:
    """
    The server's sentence, without the driver's dumps of its reply, its settings and its view of the topology.

    Of a bulk write the first sentence: its dump holds the document.
    """
    details = getattr(error, "details", None)
    if isinstance(details, Mapping) and details.get("writeErrors"):
        details = details["writeErrors"][0]
    if isinstance(details, Mapping) and isinstance(details.get("errmsg"), str):
        return str(details["errmsg"]).rstrip(".")
    return without_dump(words_of(error)).strip().rstrip(".")


def without_dump(text: str) -> str:
    """Cut off what a driver adds to an error's sentence: its settings, its view of the topology, the whole reply."""
    return _DRIVER_DUMP.sub("", text)
