"""
The private names of other libraries that scripts cannot be run without, and what is said of a version that lacks one.

Up to which versions they were seen to hold stands beside the dependencies in `pyproject.toml`. No I/O.
"""

import sys
from typing import Any

from mydocs.migrations.errors import NotPossible


def private(owner: object, name: str, library: str, purpose: str) -> Any:
    """
    Return an attribute that is none of a library's public ones.

    :param purpose: what it is needed for, after "to"
    :raises NotPossible: where the installed version has none of this name
    """
    try:
        return getattr(owner, name)
    except AttributeError as error:
        version = getattr(sys.modules.get(library), "__version__", "of this version")
        raise NotPossible(
            f"{library} {version} has no `{name}`, which mydocs needs to {purpose}; install the newest mydocs, or "
            f"an older {library}"
        ) from error
