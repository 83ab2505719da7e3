"""The tools that are measured, each in an environment of its own, and a folder of migrations for each. I/O."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).parents[2]
WORKERS = Path(__file__).parent / "workers"
MYDOCS = "mydocs"
PYMONGO_MIGRATE = "pymongo-migrate"
MONGODB_MIGRATIONS = "mongodb-migrations"
SEARCH_UTILS = "pymongo-search-utils"
PEERS = (PYMONGO_MIGRATE, MONGODB_MIGRATIONS, SEARCH_UTILS)
RUNNERS = (MYDOCS, PYMONGO_MIGRATE, MONGODB_MIGRATIONS)


@dataclass(frozen=True, slots=True)
class Tools:
    """An interpreter for each tool."""

    pythons: dict[str, str]

    def run_command(self, tool: str, url: str, database: str, folder: Path) -> list[str]:
        """Give the command line that runs all pending migrations."""
        python = self.pythons[tool]
        if tool == MYDOCS:
            where = ["--url", url, "--db", database, "--dir", str(folder), "--output", "quiet"]
            return [python, "-m", "mydocs", "migrate", "run", *where]
        programs = Path(python).parent
        if tool == PYMONGO_MIGRATE:
            return [str(programs / tool), "migrate", "-u", url, "-d", database, "-m", str(folder)]
        # It takes the database from the URL's path.
        address, _, options = url.partition("/?")
        return [
            str(programs / "mongodb-migrate"),
            "--url",
            f"{address}/{database}?{options}",
            "--migrations",
            str(folder),
        ]

    def worker(self, tool: str, script: str, *arguments: object) -> list[str]:
        """Give the command line of one of the bench's own workers in a tool's environment."""
        return [self.pythons[tool], str(WORKERS / f"{script}.py"), *map(str, arguments)]

    @property
    def versions(self) -> dict[str, str]:
        """Give what is compared with what."""
        versions = {"python": sys.version.split()[0]}
        for tool in (MYDOCS, *PEERS):
            packages = (tool, "pymongo") if tool in PEERS else ("pymongo", "motor", "typer")
            for package in packages:
                asked = f"from importlib.metadata import version; print(version({package!r}))"
                found = subprocess.run([self.pythons[tool], "-c", asked], capture_output=True, text=True, check=True)
                versions[package if package == tool else f"{tool}: {package}"] = found.stdout.strip()
        return versions


def tools(cache: Path) -> Tools:
    """Make the peers' environments where they are missing; the first time this asks PyPI."""
    pythons = {MYDOCS: sys.executable}
    for peer in PEERS:
        home = cache / peer
        python = home / "bin" / "python"
        done = home / "installed"  # written last, so that an installation that broke off is made again
        if not done.exists():
            print(f"installing {peer} in {home}", file=sys.stderr, flush=True)
            subprocess.run([sys.executable, "-m", "venv", "--clear", str(home)], check=True)
            subprocess.run([str(python), "-m", "pip", "install", "--quiet", peer], check=True)
            done.touch()
        pythons[peer] = str(python)
    return Tools(pythons)


def environment() -> dict[str, str]:
    """Give what a measured process inherits: the project to import, and no settings of whoever runs the bench."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MONGO_", "MYDOCS_", "PYTHON"))}
    return {**kept, "PYTHONPATH": str(PROJECT)}


def write_migrations(folder: Path, tool: str, count: int) -> Path:
    """Write migrations that each insert one document into `runs`, as short as the tool allows."""
    folder.mkdir(parents=True)
    for number in range(1, count + 1):
        name = f"{number:04}_step"
        document = f'{{"script": "{number:04}"}}'
        if tool == MYDOCS:
            text = f'async def up(db):\n    await db["runs"].insert_one({document})\n'
        elif tool == PYMONGO_MIGRATE:
            # All after the first and not each after the one before: it walks them recursively, which ends at 1,000.
            needs = [] if number == 1 else ["0001_step"]
            text = f'name = "{name}"\ndependencies = {needs!r}\n\n\n'
            text += f'def upgrade(db):\n    db["runs"].insert_one({document})\n\n\ndef downgrade(db):\n    pass\n'
        else:
            text = "from mongodb_migrations.base import BaseMigration\n\n\nclass Migration(BaseMigration):\n"
            text += f'    def upgrade(self):\n        self.db["runs"].insert_one({document})\n'
        (folder / f"{name}.py").write_text(text)
    return folder
