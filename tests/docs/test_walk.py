"""docs/getting-started.md, typed to the letter: every command in its order, as a reader does who has a free cluster."""

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pymongo
import pytest
from typer.testing import CliRunner

from mydocs.cli.app import app
from mydocs.localserver import LocalServer, SearchSettings

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "getting-started.md"
FREE_CLUSTER = SearchSettings(quota=3, pending_seconds=0.0, build_seconds=0.0)  # search and vector indexes together


@pytest.fixture
def cluster() -> Iterator[LocalServer]:
    # The login is that of the page.
    with LocalServer(search=FREE_CLUSTER, user="migrator", password="secret") as server:
        yield server


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The part of a clone that the page is about, as the working directory."""
    shutil.copytree(ROOT / "migrations", tmp_path / "migrations", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def steps() -> list[tuple[str, str]]:
    """Return ``("sh", line)`` for each line to type, and ``("python", code)`` for each text to put into a script."""
    found: list[tuple[str, str]] = []
    for language, code in re.findall(r"^```(\w+)\n(.*?)^```", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL):
        if language == "sh":
            found += [("sh", line) for line in code.splitlines()]
        elif language == "python":
            found.append(("python", code))
    return found


@pytest.mark.seconds(180)
@pytest.mark.parametrize("all_on_the_cluster", [False, True], ids=["as it stands", "all of it on the cluster"])
def test_the_first_five_minutes_fit_into_a_free_cluster(
    all_on_the_cluster: bool, clone: Path, cluster: LocalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def export(line: str) -> None:
        for assignment in shlex.split(line)[1:]:
            name, _, value = assignment.partition("=")
            monkeypatch.setenv(name, f"mongodb://127.0.0.1:{cluster.port}" if name == "MONGO_URL" else value)

    script = Path()
    if all_on_the_cluster:
        for kind, line in steps():
            if kind == "sh" and line.startswith("export "):
                export(line)
    for kind, step in steps():
        if kind == "python":
            script.write_text(step, "utf-8")
        elif step.startswith("export "):
            export(step)
        elif step.startswith("mydocs "):
            arguments = shlex.split(step, comments=True)[1:]
            if all_on_the_cluster:
                arguments = [word for word in arguments if word != "--local"]
            expected = re.search(r"# exit (\d+)", step)
            ended = CliRunner().invoke(app, arguments, prog_name="mydocs")
            assert ended.exit_code == int(expected[1] if expected else 0), f"{step}\n{ended.output}"
            if arguments[:2] == ["migrate", "new"]:
                script = Path(ended.stdout.strip())
        elif "venv" not in step:  # this environment is one that has it installed
            subprocess.run(step, shell=True, check=True)
    assert not script.exists()
    with pymongo.MongoClient[dict[str, Any]](cluster.url) as client:
        database = client["mydocs"]
        listed = {
            index["name"] for name in database.list_collection_names() for index in database[name].list_search_indexes()
        }
        entries = {entry["_id"] for entry in database["_migrations"].find()}
    assert listed == {"ft_documents", "ft_pages", "vec_pages_large_dot"}
    assert entries == {"standard", "001", "002", "003"}


def test_the_page_names_the_files_that_the_command_writes(clone: Path) -> None:
    page = (ROOT / "docs" / "embedding-model.md").read_text("utf-8")
    (arguments,) = re.findall(r"`mydocs (migrate new .*?)` writes it", page)
    ended = CliRunner().invoke(app, shlex.split(arguments))
    migration, later = (Path(line).name for line in ended.stdout.splitlines())
    assert migration == "004_voyage-3-large.py"
    assert f"`{later}` lies beside the migration" in page
