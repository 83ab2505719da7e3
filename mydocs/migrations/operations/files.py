"""List the scripts, and write the next one: what needs the folder and no database. I/O on files, no driver."""

from pathlib import Path

from mydocs.migrations.errors import DirectoryMissing, MigrationError, SettingsInvalid
from mydocs.migrations.scripts.discover import Discovery, discover
from mydocs.migrations.scripts.templates import (
    APPLICATION,
    OWN_PROJECT,
    contract_file_name,
    file_name,
    render,
    render_contract,
)
from mydocs.migrations.scripts.templates import TemplateKind as TemplateKind

# Two branches that each add the next number merge without a conflict, since their files have different names. To get a
# conflict there, a team creates this file, empty: both branches then append a line to it.
ORDER_FILE = ".order"
LONGEST_NAME = 255  # characters of a file name, on all common file systems


def scripts_of(directory: Path) -> Discovery:
    """
    List the scripts of a folder in their order, without running them.

    :raises DirectoryMissing: if the folder does not exist
    :raises ScriptsInvalid: if it contains files that cannot be migrations
    """
    return discover(directory)


def write_script(
    directory: Path, description: str, kind: TemplateKind, *, own_project: bool = False
) -> tuple[Path, ...]:
    """
    Write the next script from a template and return its path; for an embedding, also the script for a later release.

    :param own_project: do not name the application's collections
    :raises MigrationError: as :func:`write_text`
    """
    names = OWN_PROJECT if own_project else APPLICATION
    path = write_text(directory, description, render(kind, description, names))
    if kind is not TemplateKind.EMBEDDING:
        return (path,)
    later = path.with_name(contract_file_name(path.name))
    try:
        with later.open("x", encoding="utf-8") as file:
            file.write(render_contract(description, later.name, names))
    except OSError as error:
        problem = f"{path} is written, and {later} cannot be: {error.strerror}"
        raise MigrationError(f"{problem}; give another description, or remove that file") from error
    return path, later


def write_text(directory: Path, description: str, text: str) -> Path:
    """
    Write a text as the script with the next free number and return its path. Create the folder if it is absent.

    :raises ScriptsInvalid: if the folder contains files that cannot be numbered
    :raises SettingsInvalid: if the description gives no file name
    :raises MigrationError: if the file cannot be written
    """
    try:
        scripts = discover(directory).scripts if directory.is_dir() else ()
    except OSError as error:
        raise DirectoryMissing(directory, error.strerror) from error
    try:
        name = file_name(1 + max((script.number for script in scripts), default=0), description)
    except ValueError:
        raise SettingsInvalid(
            f'"{description}" makes no file name; describe the change in a few words of A-Z, a-z, 0-9'
        ) from None
    if len(name) > LONGEST_NAME:
        raise SettingsInvalid(
            f"the description is too long: its file name would have {len(name)} characters, the limit is "
            f"{LONGEST_NAME}; describe the change in a few words"
        )
    path = directory / name
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:  # "x": never overwrite a file that was written meanwhile
            file.write(text)
        order = directory / ORDER_FILE
        if order.is_file():
            with order.open("a+", encoding="utf-8") as file:
                file.seek(0)
                before = file.read()
                joint = (
                    "\n" if before and not before.endswith("\n") else ""
                )  # an editor may have removed the last line end
                file.write(f"{joint}{name}\n")
    except FileExistsError as error:
        raise MigrationError(f"{path} is there already; run it again for the next number") from error
    except OSError as error:
        raise MigrationError(f"{path} cannot be written: {error.strerror}; check the folder's permissions") from error
    return path
