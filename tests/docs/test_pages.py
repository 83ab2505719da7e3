"""
Every code block of README, CONTRIBUTING and docs is run, or checked as far as it can be.

The language of a block says how:

- ``sh``: bash parses it, and each call of ``mydocs`` has options that exist. Lines that begin with ``mydocs migrate``
  are run in this process, those of one section in their order, on an empty database and a copy of ``migrations/``. A
  line ends with exit code 0, or with that of its comment: ``# exit 8``. Those of getting-started.md are run by
  test_walk.py, as one.
- ``python``: a script of migrations is run by ``migrate()``, tests by pytest, anything else as it stands.
- ``json``, ``yaml``, ``toml``: parsed. ``text``: files that it names exist.
"""

import ast
import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import pymongo
import pytest
import typer.main
import yaml
from motor.motor_asyncio import AsyncIOMotorDatabase
from typer.testing import CliRunner

from mydocs.cli.app import app
from mydocs.migrations import errors, migrate
from mydocs.migrations.errors import Interrupted, MigrationError
from mydocs.migrations.model import MigrationState
from mydocs.migrations.reporting.report import Outcome, RunReport, to_json

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md")))
LANGUAGES = {"sh", "python", "json", "yaml", "toml", "text"}
WIDTH = 120  # columns, as in the code

# What a section begins with, where it is about a database that is not empty.
SEEDS: dict[str, tuple[str, list[dict[str, object]]]] = {
    "In four steps": (
        "pymongo_migrate",
        [
            {"name": name, "applied": datetime(2026, 1, 31, tzinfo=UTC)}
            for name in ("001_fulltext_documents", "002_fulltext_pages", "003_vector_pages_large_dot")
        ],
    ),
    "The application's earlier runner": (
        "_migrations",
        [
            {"file_name": "001_fulltext_documents.py", "run_at": "2026-01-31T12:00:00"},
            {"file_name": "002_fulltext_pages.py", "run_at": "2026-01-31T12:00:01"},
        ],
    ),
}


@dataclass(frozen=True)
class Block:
    """A code block, with the page and section where it stands."""

    page: str
    section: str
    line: int
    language: str
    lines: list[str] = field(default_factory=list)

    @property
    def code(self) -> str:
        return "\n".join(self.lines) + "\n"

    @property
    def id(self) -> str:
        return f"{self.page} line {self.line}"


@cache
def blocks() -> tuple[Block, ...]:
    """Read the blocks of all pages."""
    found: list[Block] = []
    for page in PAGES:
        section, inside = "", False
        for number, line in enumerate(page.read_text("utf-8").splitlines(), start=1):
            if line.startswith("```"):
                inside = not inside
                if inside:
                    found.append(Block(page.name, section, number, line[3:].strip()))
            elif inside:
                found[-1].lines.append(line)
            elif line.startswith("## "):
                section = line[3:]
    return tuple(found)


def of(*languages: str) -> list[Any]:
    """Make a parameter of each block in one of these languages."""
    return [pytest.param(block, id=block.id) for block in blocks() if block.language in languages]


def calls(line: str) -> list[str]:
    """Split a line of shell into words, without its comment."""
    return shlex.split(line, comments=True)


def sections() -> Iterator[Any]:
    """Make a parameter of each section that has lines to run."""
    lines: dict[tuple[str, str], list[str]] = {}
    for block in blocks():
        if block.language == "sh" and block.page != "getting-started.md":
            found = [
                line
                for line in block.code.replace("\\\n", " ").splitlines()
                if line.startswith(("mydocs migrate", "perl"))
            ]
            lines.setdefault((block.page, block.section), []).extend(found)
    for (page, section), found in lines.items():
        if found:
            yield pytest.param(section, found, id=f"{page}: {section or 'top'}")


def command_lines() -> Iterator[Any]:
    """Make a parameter of each call of `mydocs` in shell blocks and inline code."""
    shell = {part.strip() for block in blocks() if block.language == "sh" for part in re.split(r"\n|&&", block.code)}
    texts = [page.read_text("utf-8") for page in PAGES]
    inline = {line for text in texts for line in re.findall(r"`(mydocs [^`…]+)`", text)}
    for line in sorted(shell | inline):
        program, *arguments = calls(line) or [""]
        if program.rpartition("/")[2] == "mydocs":
            yield pytest.param(arguments, id=line)


def test_every_block_says_what_it_is() -> None:
    assert [block.id for block in blocks() if block.language not in LANGUAGES] == []


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, local_url: str) -> Path:
    """A folder with the application's scripts, and the environment of somebody who works in it."""
    shutil.copytree(ROOT / "migrations", tmp_path / "migrations", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MONGO_URL", local_url)
    monkeypatch.setenv("MONGO_DB_NAME", "mydocs")
    return tmp_path


@pytest.mark.seconds(180)
@pytest.mark.parametrize(("section", "lines"), list(sections()))
def test_commands_of_a_section_run_one_after_the_other(
    section: str, lines: list[str], project: Path, local_url: str
) -> None:
    if section in SEEDS:
        with pymongo.MongoClient[dict[str, Any]](local_url) as client:
            collection, documents = SEEDS[section]
            client["mydocs"][collection].insert_many([dict(document) for document in documents])
    for line in lines:
        if not line.startswith("mydocs"):
            subprocess.run(line, shell=True, check=True)
            continue
        expected = re.search(r"#\s*exit (\d+)", line)
        ended = CliRunner().invoke(app, calls(line)[1:], prog_name="mydocs")
        assert ended.exit_code == int(expected[1] if expected else 0), f"{line}\n{ended.output}"


@pytest.mark.parametrize("block", of("sh"))
def test_shell_blocks_are_shell(block: Block) -> None:
    ended = subprocess.run(["bash", "-n"], input=block.code, text=True, capture_output=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.parametrize("arguments", list(command_lines()))
def test_commands_in_the_texts_exist_with_their_options(arguments: list[str]) -> None:
    command: Any = typer.main.get_command(app)
    accepted: set[str] = {"--help"}
    for argument in arguments:
        option, _, _ = argument.partition("=")
        accepted |= {name for param in command.params for name in (*param.opts, *param.secondary_opts)}
        if option.startswith("-"):
            assert option in accepted
        elif hasattr(command, "commands"):
            assert argument in command.commands
            command = command.commands[argument]


def kind(block: Block) -> str:
    """Say how a block of Python is run."""
    if re.search(r"^(async )?def test_|^pytest_plugins", block.code, re.MULTILINE):
        return "tests"
    return "script" if "async def up(" in block.code or "lightodm.get_database()" in block.code else "code"


def python(wanted: str) -> list[Any]:
    return [param for param in of("python") if kind(param.values[0]) == wanted]


@pytest.mark.anyio
@pytest.mark.parametrize("block", python("script"))
async def test_scripts_in_the_texts_run_twice(
    block: Block, tmp_path: Path, local_db: AsyncIOMotorDatabase[dict[str, Any]]
) -> None:
    if "switch_search_alias(" in block.code:  # to an index that the application has
        await migrate(local_db, directory=ROOT / "migrations", wait=True)
    for name in ("011_first.py", "012_again.py"):
        (tmp_path / name).write_text(block.code, "utf-8")
        report = await migrate(local_db, directory=tmp_path, wait=True)
        assert report.migrations[-1].state is MigrationState.APPLIED


@pytest.mark.seconds(180)
@pytest.mark.parametrize("block", python("tests"))
def test_tests_in_the_texts_pass(block: Block, project: Path) -> None:
    backend = "import pytest\n@pytest.fixture\ndef anyio_backend(): return 'asyncio'\n"
    plugin = "pytest_plugins = ['mydocs.localserver.pytest']\n"
    is_conftest = "def test_" not in block.code
    (project / "conftest.py").write_text(backend + (block.code if is_conftest else plugin), "utf-8")
    test = "def test_the_fixtures_are_there(local_db, local_server): pass\n" if is_conftest else block.code
    (project / "test_block.py").write_text(test, "utf-8")
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_block.py"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        text=True,
        capture_output=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.mark.parametrize("block", python("code"))
def test_other_python_runs(block: Block, project: Path) -> None:
    exec(compile(block.code, block.id, "exec"), {"__name__": "block"})


@pytest.mark.parametrize("block", of("json", "yaml", "toml"))
def test_documents_in_the_texts_can_be_parsed(block: Block) -> None:
    parsers: dict[str, Callable[[str], Any]] = {
        "json": json.loads,
        "yaml": lambda text: list(yaml.safe_load_all(text)),
        "toml": tomllib.loads,
    }
    document = parsers[block.language](block.code)
    if block.language == "json" and "outcome" in document:
        assert document.keys() == to_json(RunReport(outcome=Outcome.OK, database=None)).keys()


@pytest.mark.parametrize("block", of("text"))
def test_diagrams_fit_and_name_files_that_exist(block: Block) -> None:
    assert [line for line in block.lines if len(line) > WIDTH] == []
    known = {path.name for folder in ("mydocs", "migrations", "docs") for path in (ROOT / folder).rglob("*.py")}
    named = set(re.findall(r"(?<![\w{}])\w+\.py\b", block.code))
    assert {name for name in named if not name[0].isdigit()} - known == set()


def test_the_page_of_commands_is_that_of_the_command_line() -> None:
    spec = importlib.util.spec_from_file_location("generate_commands", DOCS / "generate_commands.py")
    assert spec is not None
    assert spec.loader is not None
    generator = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generator)
    text = (DOCS / "commands.md").read_text("utf-8")
    assert generator.page(text) == text, "run `python docs/generate_commands.py`"


def test_every_page_is_in_the_index() -> None:
    index = (DOCS / "index.md").read_text("utf-8")
    pages = [page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")]
    assert [page for page in pages if page != "index.md" and f"({page})" not in index] == []


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=lambda page: page.name)
def test_a_page_begins_with_who_it_is_for_and_ends_with_what_to_read_next(page: Path) -> None:
    paragraphs = page.read_text("utf-8").strip().split("\n\n")
    assert paragraphs[1].startswith("For ")
    if page.name != "index.md":  # all of it is what to read next
        heading, links = paragraphs[-2:]
        assert heading == "## Read next"
        assert all(re.match(r"- .*\[[^]]+\]\([^)]+\)", line) for line in links.splitlines() if line[0] != " ")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)", page.read_text("utf-8"))
    for path, anchor in links:
        target = (page.parent / path) if path else page
        assert target.exists(), path
        if anchor:
            headings = re.findall(r"^#+ (.+)$", target.read_text("utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_error_has_its_entry_under_its_exit_code() -> None:
    entries: dict[str, list[int]] = {}
    codes: list[int] = []
    for line in (DOCS / "troubleshooting.md").read_text("utf-8").splitlines():
        if line.startswith("## "):
            codes = [int(code) for code in re.findall(r"\d+", line)]
        elif line.startswith("### "):
            entries[line[4:].strip("`")] = codes
    known = {name: thing for name, thing in vars(errors).items() if isinstance(thing, type)}
    tree = {name: thing for name, thing in known.items() if issubclass(thing, MigrationError)}
    assert entries == {name: [130, 143] if thing is Interrupted else [thing.exit_code] for name, thing in tree.items()}


@cache
def texts_of_the_code() -> str:
    """All texts in the package's source, one a line, with a NUL for each value that is put in."""
    found: list[str] = []
    for path in (ROOT / "mydocs").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            parts = node.values if isinstance(node, ast.JoinedStr) else [node]
            texts = [str(part.value) if isinstance(part, ast.Constant) else "\0" for part in parts]
            found.append("".join(texts).replace("\n", " "))
    return "\n".join(found)


def quoted() -> list[str]:
    """The words in double quotes on the page of troubleshooting."""
    return sorted(set(re.findall(r'"([^"]+)"', " ".join((DOCS / "troubleshooting.md").read_text("utf-8").split()))))


@pytest.mark.parametrize("phrase", quoted())
def test_messages_that_troubleshooting_quotes_are_ours(phrase: str) -> None:
    assert phrase in texts_of_the_code()


@pytest.mark.parametrize(
    "name", sorted(set(re.findall(r"`(tests/[^`]+)`", (DOCS / "design" / "waiters.md").read_text("utf-8"))))
)
def test_tests_that_the_pages_name_exist(name: str) -> None:
    path, function, case = re.fullmatch(r"([\w/.]+)::(\w+)(?:\[(.+)\])?", name).groups()  # type: ignore[union-attr]  # else it fails
    text = (ROOT / path).read_text("utf-8")
    assert re.search(rf"^(async )?def {function}\(", text, re.MULTILINE)
    assert case is None or f'id="{case}"' in text
