"""Check the arguments of an operation before it starts. Pure."""

import math
import os
from collections.abc import Mapping, Sequence

from pymongo import IndexModel

from mydocs.migrations.errors import UsageError

WHAT_TO_PASS = 'pass a mapping such as {"pages": [IndexModel("status")]}, or an empty one for none'


def check_seconds(**limits: object) -> None:
    """
    Check time limits.

    :raises UsageError: if one is neither a number of seconds, 0 or more, nor ``None``
    """
    for name, given in limits.items():
        if given is None:
            continue
        is_number = isinstance(given, int | float) and not isinstance(given, bool)
        if not is_number or math.isnan(given) or given < 0:  # type: ignore[arg-type,operator]  # it is a number
            raise UsageError(f"{name} is a number of seconds, 0 or more, or None for no limit; {given!r} is neither")


def check_directory(given: object) -> None:
    """
    Check the folder of the scripts.

    :raises UsageError: if it is not a path
    """
    if not isinstance(given, str | os.PathLike):
        raise UsageError(f"directory is the path of the folder of the scripts, and {given!r} is not one")


def check_standard_indexes(given: object) -> None:
    """
    Check the list of standard indexes.

    :raises UsageError: if it is not a mapping of collections to lists of models
    """
    if given is None:
        return
    if not isinstance(given, Mapping):
        raise UsageError(f"standard_indexes is no mapping, but a {type(given).__name__}; {WHAT_TO_PASS}")
    for collection, models in given.items():
        if not isinstance(collection, str):
            raise UsageError(f"standard_indexes names a collection by {collection!r}; {WHAT_TO_PASS}")
        if isinstance(models, str | bytes | Mapping) or not isinstance(models, Sequence):
            raise UsageError(f"standard_indexes of {collection} are a {type(models).__name__}; {WHAT_TO_PASS}")
        wrong = next((model for model in models if not isinstance(model, IndexModel)), None)
        if wrong is not None:
            raise UsageError(f"standard_indexes of {collection} hold a {type(wrong).__name__}; {WHAT_TO_PASS}")
