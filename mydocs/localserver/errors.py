"""Define the errors of commands (a code, its name, a message), and the errors of a server's start. Pure."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# The names of the codes that this server uses, from src/mongo/base/error_codes.yml.
CODE_NAMES = {
    1: "InternalError",
    2: "BadValue",
    5: "GraphContainsCycle",
    9: "FailedToParse",
    11: "UserNotFound",
    13: "Unauthorized",
    14: "TypeMismatch",
    15: "Overflow",
    16: "InvalidLength",
    17: "ProtocolError",
    18: "AuthenticationFailed",
    20: "IllegalOperation",
    26: "NamespaceNotFound",
    27: "IndexNotFound",
    28: "PathNotViable",
    40: "ConflictingUpdateOperators",
    43: "CursorNotFound",
    48: "NamespaceExists",
    50: "MaxTimeMSExpired",
    52: "DollarPrefixedFieldName",
    53: "InvalidIdField",
    54: "NotSingleValueField",
    59: "CommandNotFound",
    66: "ImmutableField",
    67: "CannotCreateIndex",
    68: "IndexAlreadyExists",
    72: "InvalidOptions",
    73: "InvalidNamespace",
    79: "UnknownReplWriteConcern",
    85: "IndexOptionsConflict",
    86: "IndexKeySpecsConflict",
    96: "OperationFailed",
    100: "UnsatisfiableWriteConcern",
    112: "WriteConflict",
    115: "CommandNotSupported",
    117: "ConflictingOperationInProgress",
    121: "DocumentValidationFailure",
    125: "CommandFailed",
    146: "ExceededMemoryLimit",
    165: "ViewDepthLimitExceeded",
    166: "CommandNotSupportedOnView",
    167: "OptionNotSupportedOnView",
    168: "InvalidPipelineOperator",
    171: "CannotIndexParallelArrays",
    175: "QueryPlanKilled",
    181: "AmbiguousIndexKeyPattern",
    197: "InvalidIndexSpecificationOption",
    225: "TransactionTooOld",
    238: "NotImplemented",
    251: "NoSuchTransaction",
    256: "TransactionCommitted",
    263: "OperationNotSupportedInTransaction",
    322: "APIVersionError",
    323: "APIStrictError",
    334: "MechanismUnavailable",
    359: "CannotConvertIndexToUnique",
    396: "IndexInformationTooLarge",
    10334: "BSONObjectTooLarge",
    11000: "DuplicateKey",
    13297: "DatabaseDifferCase",
    31082: "SearchNotEnabled",
}


class CommandError(Exception):
    """
    A command is refused.

    :param code: the server's number; ``CODE_NAMES`` has its name
    :param extra: further fields of the reply, such as ``keyPattern``
    :param labels: error labels of the reply, such as ``TransientTransactionError``
    """

    def __init__(
        self, code: int, message: str, *, extra: Mapping[str, Any] | None = None, labels: Sequence[str] = ()
    ) -> None:
        self.code = code
        self.code_name = CODE_NAMES.get(code, f"Location{code}")
        self.message = message
        self.extra = dict(extra or {})
        self.labels = tuple(labels)
        super().__init__(message)


class NotKnown(CommandError):
    """A MongoDB server may know this, but this server does not. It is refused by name, and never answered wrongly."""

    def __init__(self, what: str) -> None:
        super().__init__(238, f"the local server of mydocs does not implement {what}")


class ServerError(Exception):
    """The server cannot start. The message says why and what to do."""


class DirectoryInUse(ServerError):
    """Another server has the directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        super().__init__(
            f"another local server uses {directory}; connect to that one (--local does), or choose another directory"
        )
