"""Ask the operator before something is changed for good. I/O."""

import sys

import typer

from mydocs.cli.streams import Streams
from mydocs.migrations.errors import MigrationError


def consent(streams: Streams, what: str, question: str) -> None:
    """
    Return if the operator agrees.

    :raises MigrationError: where he does not, or where nobody can be asked
    """
    streams.line(what)
    if sys.stdin is None or not sys.stdin.isatty():
        raise MigrationError("nobody to ask, as stdin is no terminal; nothing was changed, agree with --yes")
    if not typer.confirm(question, err=True):
        raise MigrationError("not agreed; nothing was changed")
