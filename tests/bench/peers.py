"""The tools that are measured, each in an environment of its own, and a folder of migrations for each. I/O."""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).parents[2]
WORKERS = Path(__file__).parent / "workers"
BARE = "bare program"  # `workers/bare.py`, which does the least that the work needs
MYDOCS = "mydocs"
BEFORE = "mydocs before"
PYMONGO_MIGRATE = "pymongo-migrate"
MONGODB_MIGRATIONS = "mongodb-migrations"
MIGRATE_MONGO = "migrate-mongo"
SEARCH_UTILS = "pymongo-search-utils"
PYTHON_PEERS = (PYMONGO_MIGRATE, MONGODB_MIGRATIONS, SEARCH_UTILS)
PYTHON_RUNNERS = (MYDOCS, BEFORE, PYMONGO_MIGRATE, MONGODB_MIGRATIONS)
OURS = (MYDOCS, BEFORE)
RUN = {
    **dict.fromkeys(OURS, ("migrate", "run", "--output", "quiet")),
    PYMONGO_MIGRATE: ("migrate",),
    MONGODB_MIGRATIONS: (),
    MIGRATE_MONGO: ("up",),
}
STATUS = {**dict.fromkeys(OURS, ("migrate", "status")), PYMONGO_MIGRATE: ("show",), MIGRATE_MONGO: ("status",)}
# It wants the address from a file; ours takes it from the environment, so that one file is enough.
MIGRATE_MONGO_SETTINGS = """\
module.exports = {
  mongodb: { url: process.env.BENCH_URL, databaseName: process.env.BENCH_DATABASE },
  migrationsDir: __dirname + "/scripts",
  changelogCollectionName: "changelog",
  migrationFileExtension: ".js",
};
"""


@dataclass(frozen=True, slots=True)
class Tools:
    """
    What is measured.

    :param programs: the folder of each tool's programs; tools that are not installed have none
    :param versions: what is compared with what
    """

    programs: dict[str, Path]
    versions: dict[str, str]

    @property
    def ours(self) -> tuple[str, ...]:
        """Today's version, and the earlier one where there is one."""
        return tuple(tool for tool in OURS if tool in self.programs)

    @property
    def python_runners(self) -> tuple[str, ...]:
        return tuple(tool for tool in PYTHON_RUNNERS if tool in self.programs)

    @property
    def runners(self) -> tuple[str, ...]:
        """Whatever runs migrations."""
        return (*self.python_runners, *(tool for tool in (MIGRATE_MONGO,) if tool in self.programs))

    def program(self, tool: str, name: str = "") -> str:
        """Give the path of a tool's program; most are named like the tool."""
        return str(
            self.programs[tool] / (name or {BEFORE: MYDOCS, MONGODB_MIGRATIONS: "mongodb-migrate"}.get(tool, tool))
        )

    def run_command(self, tool: str, url: str, database: str, folder: Path) -> list[str]:
        """Give the command line that runs all pending migrations."""
        return self._command(tool, RUN[tool], url, database, folder)

    def status_command(self, tool: str, url: str, database: str, folder: Path) -> list[str]:
        """Give the command line that shows what is pending."""
        return self._command(tool, STATUS[tool], url, database, folder)

    def _command(self, tool: str, verbs: Sequence[str], url: str, database: str, folder: Path) -> list[str]:
        command = [self.program(tool), *verbs]
        if tool in OURS:
            return [*command, "--url", url, "--db", database, "--dir", str(folder)]
        if tool == PYMONGO_MIGRATE:
            return [*command, "-u", url, "-d", database, "-m", str(folder)]
        if tool == MIGRATE_MONGO:
            settings = ["env", f"BENCH_URL={url}", f"BENCH_DATABASE={database}"]
            return [*settings, *command, "-f", str(folder / "settings.js")]
        # It takes the database from the URL's path.
        address, _, options = url.partition("/?")
        return [*command, "--url", f"{address}/{database}?{options}", "--migrations", str(folder)]

    def worker(self, tool: str, script: str, *arguments: object) -> list[str]:
        """Give the command line of one of the bench's own workers in a tool's environment."""
        return [self.program(tool, "python"), str(WORKERS / f"{script}.py"), *map(str, arguments)]


def tools(cache: Path, before: str | None) -> Tools:
    """
    Make environments where they are missing; the first time this asks PyPI, and npm where there is one.

    :param before: a revision of this repository that is to be compared with the files as they are now
    """
    programs = {MYDOCS: Path(sys.executable).parent}
    versions = {"python": sys.version.split()[0], **_versions(programs[MYDOCS], MYDOCS, "motor", "typer")}
    if before:
        asked = ["git", "-C", str(PROJECT), "rev-parse", "--verify", f"{before}^{{commit}}"]
        commit = subprocess.run(asked, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
        programs[BEFORE] = _environment(cache / f"mydocs-{commit}", f"git+{PROJECT.as_uri()}@{commit}")
        versions |= _versions(programs[BEFORE], BEFORE, "motor", "typer") | {BEFORE: commit[:12]}
    for peer in PYTHON_PEERS:
        programs[peer] = _environment(cache / peer, peer)
        versions |= _versions(programs[peer], peer, peer)
    if shutil.which("npm"):
        home = cache / MIGRATE_MONGO
        if not (home / "installed").exists():
            home.mkdir(parents=True, exist_ok=True)
            subprocess.run(["npm", "install", "--silent", "--prefix", str(home), MIGRATE_MONGO, "mongodb"], check=True)
            (home / "installed").touch()
        programs[MIGRATE_MONGO] = home / "node_modules" / ".bin"
        asked = [str(programs[MIGRATE_MONGO] / MIGRATE_MONGO), "--version"]
        versions[MIGRATE_MONGO] = subprocess.run(asked, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
    return Tools(programs, versions)


def _environment(home: Path, requirement: str) -> Path:
    """Install into an environment, let the workers find their modules there, and return the folder of its programs."""
    done = home / "installed"  # written last, so that an installation that broke off is made again
    if not done.exists():
        print(f"installing {requirement} in {home}", file=sys.stderr, flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(home)], check=True)
        subprocess.run([str(home / "bin" / "python"), "-m", "pip", "install", "--quiet", requirement], check=True)
        done.touch()
    # This comes after what is installed, so that an earlier version of mydocs is not hidden by today's.
    (packages,) = home.glob("lib/python*/site-packages")
    (packages / "bench.pth").write_text(f"{PROJECT}\n")
    return home / "bin"


def _versions(programs: Path, tool: str, *packages: str) -> dict[str, str]:
    asked = "import sys; from importlib.metadata import version; print(*map(version, sys.argv[1:]))"
    found = subprocess.run(
        [str(programs / "python"), "-c", asked, *packages, "pymongo"], stdout=subprocess.PIPE, text=True, check=True
    )
    names = [package if package == tool else f"{tool}: {package}" for package in (*packages, "pymongo")]
    return dict(zip(names, found.stdout.split(), strict=True))


def environment() -> dict[str, str]:
    """Give what a measured process inherits: no settings of whoever runs the bench."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("MONGO_", "MYDOCS_", "PYTHON"))}


def write_migrations(folder: Path, tool: str, count: int) -> Path:
    """Write migrations that each insert one document into `runs`, as short as the tool allows."""
    scripts = folder / "scripts" if tool == MIGRATE_MONGO else folder
    scripts.mkdir(parents=True)
    if tool == MIGRATE_MONGO:
        (folder / "settings.js").write_text(MIGRATE_MONGO_SETTINGS)
    for number in range(1, count + 1):
        name = f"{number:04}_step"
        document = f'{{"script": "{number:04}"}}'
        if tool in OURS:
            text = f'async def up(db):\n    await db["runs"].insert_one({document})\n'
        elif tool == PYMONGO_MIGRATE:
            # All after the first and not each after the one before: it walks them recursively, which ends at 1,000.
            needs = [] if number == 1 else ["0001_step"]
            text = f'name = "{name}"\ndependencies = {needs!r}\n\n\n'
            text += f'def upgrade(db):\n    db["runs"].insert_one({document})\n\n\ndef downgrade(db):\n    pass\n'
        elif tool == MIGRATE_MONGO:
            text = f'module.exports = {{ async up(db) {{ await db.collection("runs").insertOne({document}); }} }};\n'
        else:
            text = "from mongodb_migrations.base import BaseMigration\n\n\nclass Migration(BaseMigration):\n"
            text += f'    def upgrade(self):\n        self.db["runs"].insert_one({document})\n'
        (scripts / f"{name}.{'js' if tool == MIGRATE_MONGO else 'py'}").write_text(text)
    return folder
