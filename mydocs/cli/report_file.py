"""Write the report of a call to the file that `--report` names. I/O."""

import os
from dataclasses import field
from pathlib import Path

from mydocs.cli.streams import Streams
from mydocs.cli.timeline import Recorder
from mydocs.migrations.errors import SettingsInvalid
from mydocs.migrations.reporting.report import RunReport
from mydocs.migrations.values import value

ENDINGS = (".xml", ".html")


@value
class ReportFile:
    """The file for the report of a command, in the format of its ending. ``recorder`` receives the call's events."""

    path: Path
    command: str
    recorder: Recorder = field(default_factory=Recorder)

    def write(self, streams: Streams, report: RunReport) -> None:
        """Write the file. If that fails, warn: the result of the command stays as it is."""
        self.recorder.finish()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            _write(self.path, self._text(streams, report))
        except OSError as error:
            streams.note(f"the report cannot be written to {self.path}: {error.strerror}", "warning")

    def _text(self, streams: Streams, report: RunReport) -> str:
        if self.path.suffix.lower() == ".xml":
            from mydocs.cli import junit

            return junit.document(
                report, command=self.command, started_at=self.recorder.started_at, clean=streams.readable
            )
        from mydocs.cli import html_report

        return html_report.document(report, self.recorder, command=self.command, clean=streams.readable)


def _write(path: Path, text: str) -> None:
    """Write a whole file or none: if the disk is full, the previous file stays."""
    if path.exists() and not path.is_file():  # a pipe, for example of `--report >(…)`
        path.write_text(text, encoding="utf-8", errors="backslashreplace")
        return
    new = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        new.write_text(text, encoding="utf-8", errors="backslashreplace")
        new.replace(path)
    except OSError:
        new.unlink(missing_ok=True)
        raise


def report_file(name: str | None, command: str) -> ReportFile | None:
    """
    Read the value of `--report`.

    :raises SettingsInvalid: if the ending is not that of a kind of report
    """
    if name is None:
        return None
    path = Path(name)
    if path.suffix.lower() not in ENDINGS:
        raise SettingsInvalid(f"--report: {name} names no kind of report; end it in .xml (JUnit) or .html (a page)")
    return ReportFile(path=path, command=command)
