"""
Run the tests of PyMongo itself against a local server, and count: `nox -s driver-suite`.

They come from PyMongo's source distribution and carry its licence, so they are unpacked, used and never kept. A test
that meets something which the server refuses by name counts as refused; whatever else goes wrong is a failure.
"""

import os
import re
import subprocess
import sys
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.etree import ElementTree

from mydocs.localserver import LocalServer

# Those that talk to a server and are about commands, as against pools, certificates or the driver's own inside.
FILES = (
    "bulk", "causal_consistency", "collation", "collection", "collection_management", "command_monitoring", "comment",
    "crud_unified", "cursor", "custom_types", "database", "decimal128", "examples", "grid_file", "gridfs",
    "gridfs_bucket", "index_management", "raw_bson", "read_concern", "read_write_concern_spec", "retryable_reads",
    "retryable_writes", "run_command", "session", "sessions_unified", "transactions", "transactions_unified",
    "versioned_api_integration",
)  # fmt: skip
REFUSAL = "the local server of mydocs does not implement "
# Tests that meet a refusal, or what else cannot be otherwise, and do not show it.
EXPLAINED = {
    "TestCursor.test_to_list_csot_applied": "$where in a filter",
    "TestDatabaseAggregation.test_database_aggregation_fake_cursor": "the stage $listLocalSessions",
    "TestCollection.test_exhaust": "streams of batches: an exhaust cursor is served batch by batch",
}
NO_SECONDARY = ("No replica set members match selector", "reads from a secondary: it is the only member")
INI = "[pytest]\nmarkers =\n    default\n    default_async\n    search_index\n"


def unpacked(folder: Path) -> Path:
    """Unpack the one archive in a folder."""
    (archive,) = folder.glob("pymongo-*.tar.gz")
    with tarfile.open(archive) as content:
        content.extractall(folder, filter="data")
    (folder / "own.ini").write_text(INI)  # the project's own asks for plugins that only its asynchronous tests need
    return folder / archive.name.removesuffix(".tar.gz")


def run(source: Path, files: Sequence[str]) -> Path:
    """Run test files against a server of their own; return the report."""
    report = source.parent / "report.xml"
    present = [f"test/test_{name}.py" for name in files if (source / f"test/test_{name}.py").is_file()]
    with LocalServer() as server:
        command = [sys.executable, "-m", "pytest", "-q", "-m", "default", "-p", "no:cacheprovider"]
        command += ["-c", str(source.parent / "own.ini"), "--rootdir", str(source), f"--junitxml={report}"]
        environment = {**os.environ, "DB_IP": "127.0.0.1", "DB_PORT": str(server.port)}
        # In its folder Python finds its sources before the installed package, so both are of one version.
        subprocess.run([*command, *present], cwd=source, env=environment, check=False, stdout=subprocess.DEVNULL)
    return report


def results(report: Path) -> Iterator[tuple[str, str, str]]:
    """Yield outcome, name and reason of each test."""
    for case in ElementTree.parse(report).getroot().iter("testcase"):  # written by our own pytest
        name = f"{case.get('classname', '').rpartition('.')[2]}.{case.get('name')}"
        bad = next((part for part in case if part.tag in ("failure", "error")), None)
        if bad is None:
            yield ("skipped" if case.find("skipped") is not None else "passed"), name, ""
            continue
        text = f"{bad.get('message', '')}\n{bad.text or ''}"
        if REFUSAL in text:
            reason = re.split(r"', '|, full error|[\n\"]", text.split(REFUSAL, 1)[1])[0]
            yield "refused", name, reason.strip("'")
        elif name in EXPLAINED or NO_SECONDARY[0].lower() in text.lower():
            yield "refused", name, EXPLAINED.get(name, NO_SECONDARY[1])
        else:
            yield "failed", name, bad.get("message", "").partition("\n")[0]


def main(folder: Path, files: Sequence[str]) -> int:
    """Print the counts, what was refused, and each failure; return 1 if there is one."""
    found = list(results(run(unpacked(folder), files or FILES)))
    counts = Counter(outcome for outcome, _, _ in found)
    print(", ".join(f"{counts[outcome]} {outcome}" for outcome in ("passed", "refused", "failed", "skipped")))
    for reason, count in Counter(reason for outcome, _, reason in found if outcome == "refused").most_common():
        print(f"  refused {count:4} times: {reason}")
    for outcome, name, reason in found:
        if outcome == "failed":
            print(f"  failed: {name}: {reason}")
    return int(counts["failed"] > 0)
