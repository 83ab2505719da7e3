"""
Read what a project sets: `[tool.mydocs]` in its pyproject.toml, and the indexes that it names. I/O: reads files.

A command reads the file only for settings that neither a flag nor a variable gives, since it costs each start a little.
"""

import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mydocs.migrations.errors import SettingsInvalid
from mydocs.migrations.values import value

if TYPE_CHECKING:  # `list` and `new` read the file, too, and must not import a driver
    from pymongo import IndexModel

FILE = "pyproject.toml"
TABLE = "[tool.mydocs]"
KEYS = ("dir", "standard_indexes")
NONE = "none"  # the value of --indexes for `standard_indexes = false`
HOW_TO_NAME = 'write "package.module:NAME"'


@value
class Project:
    """
    The values of the table. Each may be absent.

    :param file: ``None`` if no pyproject.toml has the table
    :param directory: of the scripts; a relative one starts at the file's folder
    :param standard_indexes: ``package.module:NAME``, ``False`` for none, ``None`` if it is not set
    """

    file: Path | None = None
    directory: Path | None = None
    standard_indexes: str | bool | None = None


def find_project(start: Path) -> Project:
    """
    Read the table of the nearest pyproject.toml that has one, from a folder upwards.

    :raises SettingsInvalid: if the file or the table cannot be read; names the file and the key
    """
    for folder in (start, *start.parents):
        file = folder / FILE
        try:
            raw = file.read_bytes()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            continue
        except OSError as error:
            raise SettingsInvalid(f"{file} cannot be read: {error.strerror}; check its permissions") from error
        if b"mydocs" not in raw:  # the parser takes longer than all the rest here
            continue
        table = _table(file, raw)
        if table is not None:
            return _project(file, table)
    return Project()


def standard_indexes(flag: str | None, start: Path) -> "Mapping[str, Sequence[IndexModel]]":
    """
    Decide which standard indexes a run creates: the flag's, else the project's, else the application's.

    Import the named module. The working directory and the project's folder are searched.

    :param flag: the value of ``--indexes``
    :raises SettingsInvalid: if the module or value does not exist, or is not a mapping of collection to index models
    """
    project = Project() if flag is not None else find_project(start)
    named: str | bool | None = flag if flag is not None else project.standard_indexes
    source = "--indexes" if flag is not None else f"standard_indexes in {project.file}"
    if named is None:
        from mydocs.indexes import STANDARD_INDEXES

        return STANDARD_INDEXES
    if named is False or (flag is not None and named == NONE):
        return {}
    assert isinstance(named, str)  # the only true value that the table accepts
    folders = [start] if project.file is None else [start, project.file.parent]
    return _index_models(_imported(named, source, folders), f"{source}: {named}")


def _table(file: Path, raw: bytes) -> Mapping[str, Any] | None:
    import tomllib

    try:
        document = tomllib.loads(raw.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsInvalid(f"{file} cannot be read as TOML: {error}; correct it") from error
    tools = document.get("tool", {})
    table = tools.get("mydocs") if isinstance(tools, dict) else None
    if table is not None and not isinstance(table, dict):
        raise SettingsInvalid(f"{file}: tool.mydocs is not a table; write {TABLE} and its keys below it")
    return table


def _project(file: Path, table: Mapping[str, Any]) -> Project:
    unknown = sorted(table.keys() - set(KEYS))
    if unknown:
        raise SettingsInvalid(
            f"{file}: {TABLE} has no key {', '.join(map(repr, unknown))}; it takes {' and '.join(map(repr, KEYS))}"
        )
    directory, indexes = table.get("dir"), table.get("standard_indexes")
    if directory is not None and (not isinstance(directory, str) or not directory):
        raise SettingsInvalid(f"{file}: {TABLE} dir is {directory!r}; name the folder of the scripts, as a text")
    if indexes is not None and indexes is not False and not isinstance(indexes, str):
        raise SettingsInvalid(
            f"{file}: {TABLE} standard_indexes is {str(indexes).lower()}; {HOW_TO_NAME}, or false for none"
        )
    return Project(
        file=file,
        directory=None if directory is None else file.parent / directory,
        standard_indexes=indexes,
    )


def _imported(named: str, source: str, folders: Sequence[Path]) -> Any:
    module_name, colon, name = named.partition(":")
    parts = module_name.split(".")
    if not colon or not name.isidentifier() or not all(part.isidentifier() for part in parts):
        none = NONE if source == "--indexes" else "false"
        raise SettingsInvalid(f"{source}: {named!r} names no value of a module; {HOW_TO_NAME}, or {none} for none")
    for folder in map(str, folders):
        if folder not in sys.path:
            sys.path.insert(0, folder)
    try:
        module = import_module(module_name)
    except (Exception, SystemExit) as error:
        problem = f"{type(error).__name__}: {error}".rstrip(": ")
        raise SettingsInvalid(f"{source}: {module_name} cannot be imported ({problem}); check the name") from error
    try:
        return getattr(module, name)
    except AttributeError as error:
        raise SettingsInvalid(f"{source}: {module_name} has no {name}; check the name") from error


def _index_models(value: Any, source: str) -> "Mapping[str, Sequence[IndexModel]]":
    from pymongo import IndexModel

    expected = 'write {"collection": [IndexModel([("field", 1)])]}'
    if not isinstance(value, Mapping):
        raise SettingsInvalid(f"{source} is a {type(value).__name__}, and no mapping of index models; {expected}")
    for collection, models in value.items():
        if not isinstance(collection, str) or not collection:
            raise SettingsInvalid(f"{source} has the key {collection!r}, which names no collection; {expected}")
        if not isinstance(models, list | tuple) or not all(isinstance(model, IndexModel) for model in models):
            raise SettingsInvalid(f"{source} has no list of index models for {collection!r}; {expected}")
    return {collection: tuple(models) for collection, models in value.items() if models}
