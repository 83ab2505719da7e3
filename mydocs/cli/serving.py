"""Run the local server in the foreground. I/O."""

from pathlib import Path

from mydocs.cli.connect import local_launcher
from mydocs.cli.streams import Streams
from mydocs.migrations.errors import MigrationError


def serve(streams: Streams, directory: Path, port: int, user: str | None) -> None:
    """
    Serve until SIGINT or SIGTERM; its address goes to stdout, all else to stderr.

    :raises MigrationError: where it cannot start
    """
    launch = local_launcher()

    def announce(line: str) -> None:
        if line.startswith("mongodb://"):
            streams.result(line)
        else:
            streams.line(line)

    try:
        launch.serve(directory, port, user, announce)
    except (launch.ServerError, OSError) as error:
        raise MigrationError(f"the local server cannot start: {error}") from error
