"""Who does not use the local server pays nothing for it: none of its modules is loaded without being asked for."""

import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import mydocs
from mydocs.localserver import LocalServer

SAY = "import atexit, sys; atexit.register(lambda: print('loaded:', *(n for n in sys.modules if 'localserver' in n)));"
RUN = SAY + "from mydocs.cli.main import main; main()"
SCRIPT = "async def up(db):\n    await db.things.insert_one({})\n"


def loaded(code: str, *arguments: str, folder: Path) -> list[str]:
    """Return the modules of the local server that a process has loaded by its end."""
    process = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    said = process.stdout + process.stderr  # the command line keeps stdout for its result
    (line,) = (line for line in said.splitlines() if line.startswith("loaded:"))
    return line.split()[1:]


def test_importing_everything_else_loads_none_of_it(tmp_path: Path) -> None:
    names = [
        module.name
        for module in pkgutil.walk_packages(mydocs.__path__, "mydocs.")
        # A plan is made on a copy, which is a local server.
        if not module.name.startswith(("mydocs.localserver", "mydocs.preview")) and not module.name.endswith("__main__")
    ]
    assert {"mydocs.migrations", "mydocs.cli", "mydocs.cli.app"} <= set(names)
    assert loaded(SAY + f"import importlib; [importlib.import_module(name) for name in {names}]", folder=tmp_path) == []


@pytest.mark.seconds(90)
def test_commands_without_local_load_none_of_it(tmp_path: Path) -> None:
    (tmp_path / "migrations").mkdir()
    (tmp_path / "migrations" / "001_things.py").write_text(SCRIPT)
    with LocalServer() as server:
        for command in ("run", "status", "list", "check"):
            target = () if command == "list" else ("--url", server.url, "--db", "app")
            assert loaded(RUN, "migrate", command, *target, folder=tmp_path) == [], command
    assert "mydocs.localserver.launch" in loaded(RUN, "migrate", "status", "--local", folder=tmp_path)


def test_loading_the_plugin_starts_nothing(tmp_path: Path) -> None:
    assert "mydocs.localserver.server" not in loaded(SAY + "import mydocs.localserver.pytest", folder=tmp_path)
