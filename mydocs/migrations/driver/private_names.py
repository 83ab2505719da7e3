"""
Get private names of other libraries that are needed to run scripts, or report that a version lacks one. No I/O.

`pyproject.toml` says, beside the dependencies, up to which versions they were seen to exist.
"""

import sys
from typing import Any

from mydocs.migrations.errors import NotPossible


def private(owner: object, name: str, library: str, purpose: str) -> Any:
    """
    Return a private attribute of a library.

    :param purpose: what it is needed for; the message puts it after "to"
    :raises NotPossible: if the installed version does not have it
    """
    try:
        return getattr(owner, name)
    except AttributeError as error:
        version = getattr(sys.modules.get(library), "__version__", "of this version")
        raise NotPossible(
            f"{library} {version} has no `{name}`, which mydocs needs to {purpose}; install the newest mydocs, or "
            f"an older {library}"
        ) from error
