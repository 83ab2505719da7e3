"""Ask the operator before a permanent change. I/O."""

import sys

from mydocs.cli.streams import Streams
from mydocs.migrations.errors import MigrationError


def consent(streams: Streams, what: str, question: str) -> None:
    """
    Return if the operator agrees.

    :raises MigrationError: if they do not, or if stdin is not a terminal
    """
    streams.line(what)
    if sys.stdin is None or not sys.stdin.isatty() or streams.err is None:
        raise MigrationError("stdin is not a terminal, so nobody can be asked; nothing was changed; agree with --yes")
    streams.err.write(f"{question} [y/N]: ")
    streams.err.flush()
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        raise MigrationError("not agreed; nothing was changed")
