"""Write a report as JUnit XML for pipelines: a case for each migration and each index. Pure."""

import math
import re
import xml.etree.ElementTree as ET  # writes only
from collections.abc import Callable
from datetime import datetime

from mydocs.migrations.model import IndexState, MigrationState
from mydocs.migrations.reporting.durations import seconds_text
from mydocs.migrations.reporting.escaping import visible
from mydocs.migrations.reporting.report import IndexReport, MigrationReport, Outcome, RunReport

# https://www.w3.org/TR/xml/#charsets: characters that no document may contain, not even as a reference.
FORBIDDEN = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def document(report: RunReport, *, command: str, started_at: datetime, clean: Callable[[str], str]) -> str:
    """
    Write a report as one test suite.

    A failed migration or index is a failure. One that was not reached is skipped. An error without a case gets a case
    of its own, so that a failed run is never a green suite.

    :param clean: removes credentials from a text
    """

    def text(value: str) -> str:
        return FORBIDDEN.sub("\ufffd", visible(clean(value)))

    suite = ET.Element("testsuite", name=f"mydocs migrate {command}", time=_time(report.seconds))
    suite.set("timestamp", started_at.isoformat(timespec="seconds"))
    if report.database is not None:
        suite.set("package", text(report.database))
    for migration in report.migrations:
        _migration(suite, migration, report, text)
    for index in report.indexes:
        _index(suite, index, report, text)
    if report.error is not None and not suite.findall("testcase/failure"):
        case = ET.SubElement(suite, "testcase", classname="run", name=command, time=_time(report.seconds))
        error = ET.SubElement(case, "error", type=report.error.type, message=text(report.error.message))
        error.text = text(f"exit code {report.error.exit_code}: {report.error.message}")
    counts = {
        "tests": len(suite.findall("testcase")),
        "failures": len(suite.findall("testcase/failure")),
        "errors": len(suite.findall("testcase/error")),
        "skipped": len(suite.findall("testcase/skipped")),
    }
    root = ET.Element("testsuites", name="mydocs")
    for element in (suite, root):
        for name, count in counts.items():
            element.set(name, str(count))
    root.append(suite)
    ET.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _migration(suite: ET.Element, migration: MigrationReport, report: RunReport, text: Callable[[str], str]) -> None:
    case = ET.SubElement(suite, "testcase", classname="migrations", name=text(f"{migration.version} {migration.name}"))
    case.set("time", _time(migration.seconds))
    if migration.script is not None:
        case.set("file", text(migration.script))
    if migration.error is not None or migration.state in (MigrationState.FAILED, MigrationState.INTERRUPTED):
        kind = migration.error.type if migration.error else migration.state.value
        message = migration.error.message if migration.error else "ended without a record of how"
        failure = ET.SubElement(case, "failure", type=text(kind), message=text(message))
        failure.text = text(f"{migration.script or migration.name}: {kind}: {message}")
    elif migration.state is MigrationState.PENDING and report.outcome is not Outcome.OK:
        why = "would run" if report.outcome is Outcome.PLANNED else "not run, as the run ended before it"
        ET.SubElement(case, "skipped", message=why)


def _index(suite: ET.Element, index: IndexReport, report: RunReport, text: Callable[[str], str]) -> None:
    name = text(f"{index.collection}.{index.name} ({index.type.value})")
    case = ET.SubElement(suite, "testcase", classname="indexes", name=name, time=_time(index.seconds))
    if index.state is IndexState.READY:
        return
    reason = text(f"{index.state.value}: {index.reason}" if index.reason else index.state.value)
    if index.state is IndexState.FAILED:
        ET.SubElement(case, "failure", type="IndexFailed", message=reason)
    elif report.outcome is Outcome.NOT_READY:
        ET.SubElement(case, "failure", type="NotReady", message=f"{reason} after {seconds_text(report.seconds)}")
    else:
        ET.SubElement(case, "skipped", message=reason)


def _time(seconds: float | None) -> str:
    return f"{seconds if seconds is not None and math.isfinite(seconds) else 0.0:.3f}"
