"""In a workflow of GitHub Actions: errors as annotations, reports as a summary, stdout as everywhere."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import Result

from mydocs.cli import actions
from mydocs.migrations.model import MigrationState, Problem
from mydocs.migrations.reporting.report import ErrorReport, MigrationReport, Outcome, RunReport

FAILING = "import os\n\nasync def up(db):\n    raise ValueError('too few: 50%, says\\na | b')\n"


@pytest.fixture
def step_summary(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Be a step of a workflow whose checkout is the folder that the test runs in."""
    path = tmp_path / "summary.md"
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(path))
    monkeypatch.setenv("GITHUB_WORKSPACE", str(tmp_path))
    return path


def test_a_failed_script_is_marked_in_its_line_on_stderr(
    cli: Callable[..., Result], folder: Path, local_url: str, step_summary: Path
) -> None:
    (folder / "001_bad.py").write_text(FAILING)
    ended = cli("migrate", "run", "--url", local_url, "--db", "x", "-o", "json")
    (line,) = [line for line in ended.stderr.splitlines() if line.startswith("::")]
    assert line == (
        "::error title=mydocs,file=migrations/001_bad.py,line=4::"
        "001_bad.py failed, line 4: ValueError: too few: 50%25, says a | b"
    )
    assert json.loads(ended.stdout)["outcome"] == "failed"


@pytest.mark.parametrize("command", ["list", "run"])
def test_each_of_several_files_is_marked_in_its_line(
    cli: Callable[..., Result], folder: Path, local_url: str, step_summary: Path, command: str
) -> None:
    if command == "list":  # what the form of the files tells
        (folder / "001_a.py").write_text("\n\ndef up(db): ...\n")
        (folder / "002_b.py").write_text("def f(:\n")
        (folder / "2_c.py").write_text("")
    else:  # what is in the scripts that would run
        (folder / "001_a.py").write_text("async def up(db):\n    pass\n    db.x.insert_one({})\n")
        (folder / "002_b.py").write_text("def f(): ...\n")
    options = () if command == "list" else ("--url", local_url, "--db", "x")
    ended = cli("migrate", command, *options)
    marked = [line.split("::")[1] for line in ended.stderr.splitlines() if line.startswith("::error")]
    files = [("001_a.py", 3), ("002_b.py", 1)] + ([("2_c.py", None)] if command == "list" else [])
    assert marked == [
        f"error title=mydocs,file=migrations/{name}" + (f",line={line}" if line else "") for name, line in files
    ]


def test_each_verify_that_failed_is_marked(
    cli: Callable[..., Result], folder: Path, local_url: str, step_summary: Path
) -> None:
    for name in ("001_a.py", "002_b.py"):
        (folder / name).write_text("async def up(db): ...\nasync def verify(db):\n    assert 0, 'no'\n")
    ended = cli("migrate", "run", "--wait", "--url", local_url, "--db", "x")
    assert ended.exit_code == 9
    marked = [line.split("::")[1] for line in ended.stderr.splitlines() if line.startswith("::error")]
    assert marked == [f"error title=mydocs,file=migrations/{name},line=3" for name in ("001_a.py", "002_b.py")]


def test_an_error_without_a_file_is_an_annotation_too(
    cli: Callable[..., Result], folder: Path, step_summary: Path
) -> None:
    assert "::error title=mydocs::no database to work on" in cli("migrate", "run").stderr


@pytest.mark.parametrize("options", [(), ("--log-format", "json")], ids=["elsewhere", "JSON on stderr"])
def test_no_annotation_where_nobody_reads_one(
    cli: Callable[..., Result], folder: Path, options: tuple[str, ...], request: pytest.FixtureRequest
) -> None:
    if options:
        request.getfixturevalue("step_summary")
    assert "::error" not in cli("migrate", "run", *options).stderr


def test_every_report_is_appended_to_the_summary(
    cli: Callable[..., Result], folder: Path, local_url: str, step_summary: Path
) -> None:
    (folder / "001_good.py").write_text("async def up(db): ...\n")
    (folder / "002_bad.py").write_text(FAILING)
    server = ("--url", local_url, "--db", "x")
    for command in (("run", "--to", "1"), ("run",), ("check",)):
        cli("migrate", *command, *server)
    text = step_summary.read_text("utf-8")
    heads = re.findall(r"^### (.*)$", text, re.MULTILINE)
    assert heads == ["✅ mydocs migrate run on x: ok"] + [
        f"❌ mydocs migrate {command} on x: failed" for command in ("run", "check")
    ]
    assert re.search(r"^\| 001 \| good \| applied \| \d\.\d\d s \|  \|$", text, re.MULTILINE)
    assert "too few: 50%, says a \\| b |" in text


def test_a_summary_that_cannot_be_written_changes_no_exit_code(
    cli: Callable[..., Result], folder: Path, local_url: str, step_summary: Path
) -> None:
    step_summary.mkdir()
    ended = cli("migrate", "status", "--url", local_url, "--db", "x")
    assert ended.exit_code == 0
    assert "warning: the summary of the step cannot be written" in ended.stderr


def test_several_problems_are_a_list_in_the_summary() -> None:
    lines = ("these checks failed:", "  001_a.py: no", "  002_b.py: no")
    error = ErrorReport(type="VerifyFailed", message="; ".join(lines), exit_code=9, lines=lines)
    text = actions.summary(RunReport(outcome=Outcome.UNVERIFIED, database="x", error=error), "run")
    assert "**Exit code 9**: these checks failed:\n\n- 001\\_a.py: no\n- 002\\_b.py: no\n" in text


def test_a_long_summary_is_cut() -> None:
    one = MigrationReport(version="001", name="a", script=None, state=MigrationState.APPLIED)
    text = actions.summary(RunReport(outcome=Outcome.OK, database="x", migrations=(one,) * 250), "run")
    assert text.count("| 001 |") == actions.MOST_ROWS
    assert "and 50 more" in text


@given(st.text())
def test_no_text_leaves_its_cell_or_its_command(text: str) -> None:
    error = ErrorReport(type="E", message=text, exit_code=1)
    bad = MigrationReport(version="001", name=text, script=None, state=MigrationState.FAILED)
    report = RunReport(outcome=Outcome.FAILED, database="x", migrations=(bad,), error=error)
    (row,) = [line for line in actions.summary(report, "run").splitlines() if line.startswith("| 001")]
    assert len(re.findall(r"(?<!\\)(?:\\\\)*\|", row)) == 6
    assert "<" not in actions.summary(report, text)
    line = actions.annotation(text, Problem(text=text, path=Path("a,b:c%"), line=3), workspace=None)
    assert "\n" not in line
    assert "\r" not in line
    assert line.startswith("::error title=mydocs,file=a%2Cb%3Ac%25,line=3::")
