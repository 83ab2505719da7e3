"""The example of each command's help is run as it stands there."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pymongo
import pytest
import typer.main
from typer.testing import Result

from mydocs.cli.app import app

pytestmark = pytest.mark.seconds(180)  # each starts a process or several

ROOT = Path(__file__).parents[2]
SCRIPT = "async def up(db):\n    await db.things.insert_one({})\nasync def down(db):\n    await db.things.drop()\n"


def examples() -> Iterator[Any]:
    """Make a parameter of the example of each command."""
    groups: Any = typer.main.get_command(app)
    for group in groups.commands.values():
        for name, command in group.commands.items():
            found = re.search(r"mydocs .*", command.epilog or "")
            yield pytest.param(found[0] if found else None, id=f"{group.name} {name}")


@pytest.fixture
def shell(tmp_path: Path, folder: Path, local_url: str) -> dict[str, Any]:
    """What a shell needs to know `mydocs`, five applied migrations, and a server in the environment."""
    for number in range(1, 6):
        (folder / f"00{number}_a.py").write_text(SCRIPT)
    program = tmp_path / "bin" / "mydocs"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m mydocs "$@"\n')
    program.chmod(0o755)
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "MONGO_URL": local_url, "MONGO_DB_NAME": "x"}
    environ["PATH"] = f"{program.parent}{os.pathsep}{environ['PATH']}"
    return {"shell": True, "cwd": tmp_path, "env": environ, "text": True}


@pytest.mark.parametrize("example", list(examples()))
def test_the_example_of_the_help_works(
    shell: dict[str, Any], cli: Callable[..., Result], example: str | None, tmp_path: Path
) -> None:
    assert example is not None
    if " local serve " in example:
        with subprocess.Popen(
            example.replace("27017", "0").replace("mydocs", "exec mydocs", 1), stdout=subprocess.PIPE, **shell
        ) as server:
            assert server.stdout is not None
            assert server.stdout.readline().startswith("mongodb://127.0.0.1:")
            server.terminate()
        assert server.returncode == 0
        return
    if " import " in example:
        with pymongo.MongoClient[dict[str, Any]](shell["env"]["MONGO_URL"]) as client:
            client["x"]["pymongo_migrate"].insert_one({"name": "001_a", "applied": datetime.now(UTC)})
    elif " run " not in example:
        assert cli("migrate", "run", "--url", shell["env"]["MONGO_URL"], "--db", "x").exit_code == 0
    ended = subprocess.run(example, capture_output=True, check=False, **shell)
    assert ended.returncode == 0, ended.stderr
    written = [tmp_path / name for name in re.findall(r"(?:--report|>) (\S+)", example)]
    assert [path.name for path in written if not path.stat().st_size] == []
