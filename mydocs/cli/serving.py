"""Run the local server in the foreground. I/O."""

from pathlib import Path

from mydocs.cli.connect import local_launcher
from mydocs.cli.streams import Streams
from mydocs.migrations.errors import SettingsInvalid


def serve(streams: Streams, directory: Path, port: int, user: str | None, build_seconds: float | None) -> None:
    """
    Serve until SIGINT or SIGTERM. The address goes to stdout, everything else to stderr.

    :param build_seconds: how long the build of each search index takes; ``None`` for the server's default
    :raises SettingsInvalid: if it cannot start
    """
    launch = local_launcher()
    search = None if build_seconds is None else launch.SearchSettings(build_seconds=build_seconds)

    def announce(line: str) -> None:
        if line.startswith("mongodb://"):
            streams.result(line)
        else:
            streams.line(line)

    try:
        launch.serve(directory, port, user, announce, search=search)
    except launch.PasswordMissing as error:
        raise SettingsInvalid(str(error)) from error
    except (launch.ServerError, OSError) as error:
        raise SettingsInvalid(f"the local server cannot start: {error}") from error
