"""The command line as it is used: as a process against a local server, or in this process where no server is needed."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from mydocs.cli.app import app

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, kw_only=True)
class Ended:
    """A process that has ended, or a command in this one."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """What stdout holds, which must be one JSON object and nothing else."""
        document: dict[str, Any] = json.loads(self.out)
        return document


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty folder of scripts, called `migrations`."""
    path = tmp_path / "migrations"
    path.mkdir()
    return path


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Run the command line in this process and in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(app, list(arguments), prog_name="mydocs", catch_exceptions=False)


@pytest.fixture
def inside(cli: Callable[..., Result]) -> Callable[..., Ended]:
    """Run the command line in this process, as ``program`` does in one of its own: for a row of commands, for speed."""

    def go(*arguments: str) -> Ended:
        ended = cli(*arguments)
        return Ended(code=ended.exit_code, out=ended.stdout, err=ended.stderr)

    return go


@pytest.fixture
def start(tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """Start the program as a process of its own, in an empty folder."""

    def go(*arguments: str, environ: dict[str, str] | None = None, **options: Any) -> subprocess.Popen[str]:
        options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        return subprocess.Popen(
            [sys.executable, "-m", "mydocs", *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1", **(environ or {})},
            text=True,
            encoding="utf-8",
            **options,
        )

    return go


@pytest.fixture
def program(start: Callable[..., subprocess.Popen[str]]) -> Callable[..., Ended]:
    """Run the program as a process of its own, to its end."""

    def go(*arguments: str, **options: Any) -> Ended:
        with start(*arguments, **options) as process:
            out, err = process.communicate()
        return Ended(code=process.returncode, out=out or "", err=err or "")

    return go
