"""The project's frame: what its texts promise is what the code does."""

import re
import tomllib
from pathlib import Path
from typing import Any

import typer.main

import mydocs.migrations
from mydocs.cli.app import app
from mydocs.cli.errors import EXIT_CODES

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
TEXTS = (README, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md")))
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CHECKED = ("mydocs", "migrations", "tests", "docs", ".ci", ".github")
# Folders in which people and programs keep a clone, so that none of them belongs in it.
PRIVATE_PATH = re.compile(r"(?<![\w.:/-])/(?:home|Users|root|work|opt|private|builds)/\w")


def test_ci_runs_exactly_the_test_command_of_the_readme() -> None:
    setup, tests = [code for found, code in FENCE.findall(README.read_text("utf-8")) if found == "sh"][:2]
    assert "mydocs migrate run --wait --local" in setup
    lines = (ROOT / ".ci" / "run").read_text("utf-8").splitlines()
    prepare, change_folder, *rest = [line for line in lines if not line.startswith("#")]
    assert prepare == "set -euo pipefail"
    assert change_folder.startswith("cd ")
    assert rest == tests.splitlines()


def test_the_workflow_runs_every_python_of_the_classifiers() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    versions = re.findall(r"Python :: (3\.\d+)", "\n".join(project["classifiers"]))
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text("utf-8")
    (matrix,) = re.findall(r"python: \[(.*)\]", workflow)
    assert matrix == ", ".join(f'"{version}"' for version in versions)
    assert project["requires-python"] == f">={versions[0]}"


def test_the_readme_explains_every_exit_code_and_no_other() -> None:
    codes = re.findall(r"^\| (\d+) \|", README.read_text("utf-8"), re.MULTILINE)
    assert [int(code) for code in codes] == list(EXIT_CODES)


def test_every_command_is_in_the_list_of_commands() -> None:
    group: Any = typer.main.get_command(app)
    text = (ROOT / "docs" / "commands.md").read_text("utf-8")
    assert [name for name in group.commands["migrate"].commands if f"| `{name}` |" not in text] == []


def test_links_in_the_texts_lead_somewhere() -> None:
    links = [(text, link) for text in TEXTS for link in re.findall(r"\]\(([^)#:]+)\)", text.read_text("utf-8"))]
    assert len(links) > len(TEXTS)
    assert [(text.name, link) for text, link in links if not (text.parent / link).exists()] == []


def test_the_public_names_are_sorted_and_can_be_imported() -> None:
    names = mydocs.migrations.__all__
    assert names == sorted(names)
    assert [name for name in names if not hasattr(mydocs.migrations, name)] == []


def test_no_module_has_the_name_of_a_public_name() -> None:
    modules = {path.stem for path in Path(str(mydocs.migrations.__file__)).parent.glob("*.py")}
    assert modules & set(mydocs.migrations.__all__) == set()


def test_no_file_names_a_private_folder() -> None:
    files = [path for path in ROOT.iterdir() if path.suffix in {".md", ".toml", ".py"}]
    files += [path for top in CHECKED for path in (ROOT / top).rglob("*") if path.is_file()]
    texts = [path for path in files if path.suffix not in {".pyc", ".png"}]
    found = [path.name for path in texts if PRIVATE_PATH.search(path.read_text("utf-8"))]
    assert len(texts) > len(CHECKED)
    assert found == []
