"""What `[tool.mydocs]` says, where it is looked for, and what stands against it."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pymongo import IndexModel

from mydocs.indexes import STANDARD_INDEXES
from mydocs.migrations.errors import SettingsInvalid
from mydocs.migrations.project import Project, find_project, standard_indexes
from mydocs.migrations.settings import Flags, load_directory

MODELS = 'from pymongo import IndexModel\nINDEXES = {"orders": [IndexModel([("status", 1)])], "empty": []}\n'


@pytest.fixture(autouse=True)
def no_module_stays(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Take back what an import has left in the process."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith("shop"):
            del sys.modules[name]


def project(folder: Path, table: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "pyproject.toml"
    path.write_text(table, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("table", "directory", "indexes"),
    [
        pytest.param("[tool.mydocs]\n", None, None, id="empty"),
        pytest.param('[tool.mydocs]\ndir = "db/steps"\n', "db/steps", None, id="dir"),
        pytest.param("[tool.mydocs]\nstandard_indexes = false\n", None, False, id="none"),
        pytest.param('[tool]\nmydocs = {standard_indexes = "a.b:C"}\n', None, "a.b:C", id="inline"),
    ],
)
def test_the_table_is_read(tmp_path: Path, table: str, directory: str | None, indexes: str | bool | None) -> None:
    file = project(tmp_path, table)
    found = find_project(tmp_path)
    assert found == Project(
        file=file, directory=None if directory is None else tmp_path / directory, standard_indexes=indexes
    )


def test_the_nearest_file_with_a_table_counts(tmp_path: Path) -> None:
    outer = project(tmp_path, '[tool.mydocs]\ndir = "outer"\n')
    project(tmp_path / "a", '[project]\nname = "a"\ndependencies = ["mydocs"]\n')
    inner = tmp_path / "a" / "b"
    inner.mkdir()
    assert find_project(inner).file == outer
    assert find_project(inner).directory == tmp_path / "outer"
    project(inner, '[tool.mydocs]\ndir = "inner"\n')
    assert find_project(inner).directory == inner / "inner"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("[tool.mydocs\n", "cannot be read as TOML", id="no TOML"),
        pytest.param("[tool]\nmydocs = 1\n", "is not a table", id="no table"),
        pytest.param('[tool.mydocs]\ndirectory = "x"\n', "no key 'directory'; it takes 'dir'", id="unknown key"),
        pytest.param("[tool.mydocs]\ndir = 1\n", "dir is 1; name the folder", id="dir is a number"),
        pytest.param('[tool.mydocs]\ndir = ""\n', "dir is ''; name the folder", id="dir is empty"),
        pytest.param("[tool.mydocs]\nstandard_indexes = true\n", 'is true; write "package.module:NAME"', id="true"),
        pytest.param("[tool.mydocs]\nstandard_indexes = 3\n", "is 3; write", id="indexes are a number"),
    ],
)
def test_a_table_that_makes_no_sense_is_refused_by_file_and_key(tmp_path: Path, text: str, said: str) -> None:
    file = project(tmp_path, text)
    with pytest.raises(SettingsInvalid) as caught:
        find_project(tmp_path)
    assert str(file) in str(caught.value)
    assert said in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_file_that_does_not_name_us_is_not_even_parsed(tmp_path: Path) -> None:
    project(tmp_path, "[broken\n")
    assert find_project(tmp_path) == Project()


def test_the_folder_is_the_flags_then_the_environments_then_the_files_then_the_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_directory(Flags(), {}) == Path("migrations")
    project(tmp_path, '[tool.mydocs]\ndir = "table"\n')
    assert load_directory(Flags(), {}) == tmp_path / "table"
    (tmp_path / "env").write_text("MYDOCS_MIGRATIONS_DIR=file\n")
    assert load_directory(Flags(env_file="env"), {}) == Path("file")
    environ = {"MYDOCS_MIGRATIONS_DIR": "environment"}
    assert load_directory(Flags(env_file="env"), environ) == Path("environment")
    assert load_directory(Flags(env_file="env", dir="flag"), environ) == Path("flag")


def test_a_flag_keeps_the_file_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    project(tmp_path, "[tool.mydocs\n")
    assert load_directory(Flags(dir="flag"), {}) == Path("flag")
    assert standard_indexes("none", tmp_path) == {}


def test_nothing_said_means_the_applications_indexes(tmp_path: Path) -> None:
    project(tmp_path, '[tool.mydocs]\ndir = "steps"\n')
    assert standard_indexes(None, tmp_path) is STANDARD_INDEXES


def test_a_projects_own_indexes_are_imported_from_beside_its_file(tmp_path: Path) -> None:
    project(tmp_path, '[tool.mydocs]\nstandard_indexes = "shop_a.models:INDEXES"\n')
    (tmp_path / "shop_a").mkdir()
    (tmp_path / "shop_a" / "models.py").write_text(MODELS)
    below = tmp_path / "deep" / "er"
    below.mkdir(parents=True)
    found = standard_indexes(None, below)
    assert {name: [model.document["name"] for model in of] for name, of in found.items()} == {"orders": ["status_1"]}
    assert standard_indexes("none", below) == {}


@pytest.mark.parametrize(
    ("module", "named", "said"),
    [
        pytest.param("", "shop_b", "names no value of a module", id="no colon"),
        pytest.param("", "shop_b:", "names no value of a module", id="no name"),
        pytest.param("", "", "names no value of a module", id="empty"),
        pytest.param("", "../shop_b:INDEXES", "names no value of a module", id="a path"),
        pytest.param("", "shop_none:INDEXES", "cannot be imported (ModuleNotFoundError", id="no module"),
        pytest.param("1 / 0", "shop_b:INDEXES", "cannot be imported (ZeroDivisionError", id="module raises"),
        pytest.param("raise SystemExit(3)", "shop_b:INDEXES", "cannot be imported (SystemExit: 3)", id="module exits"),
        pytest.param("A = 1", "shop_b:INDEXES", "has no INDEXES", id="no such name"),
        pytest.param("A = []", "shop_b:A", "is a list, and no mapping of index models", id="a list"),
        pytest.param("A = {1: []}", "shop_b:A", "the key 1", id="key is not a text"),
        pytest.param('A = {"x": {"status": 1}}', "shop_b:A", "no list of index models for 'x'", id="no list"),
        pytest.param('A = {"x": [{"status": 1}]}', "shop_b:A", "no list of index models for 'x'", id="no models"),
    ],
)
def test_what_cannot_be_a_list_of_indexes_is_refused(tmp_path: Path, module: str, named: str, said: str) -> None:
    (tmp_path / "shop_b.py").write_text(module)
    with pytest.raises(SettingsInvalid) as flagged:
        standard_indexes(named, tmp_path)
    assert said in str(flagged.value)
    assert "--indexes" in str(flagged.value)
    sys.modules.pop("shop_b", None)
    file = project(tmp_path, f'[tool.mydocs]\nstandard_indexes = "{named}"\n')
    with pytest.raises(SettingsInvalid) as tabled:
        standard_indexes(None, tmp_path)
    assert said in str(tabled.value)
    assert str(file) in str(tabled.value)


def test_models_are_kept_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "shop_c.py").write_text(MODELS)
    (model,) = standard_indexes("shop_c:INDEXES", tmp_path)["orders"]
    assert isinstance(model, IndexModel)
