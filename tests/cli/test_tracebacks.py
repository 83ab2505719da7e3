"""With --verbose: the frames of a script, without those of what calls it."""

import asyncio
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from typer.testing import Result

import mydocs
from mydocs.cli.tracebacks import traceback_text
from mydocs.migrations.errors import MigrationFailed
from tests.cli.conftest import Ended

pytestmark = pytest.mark.seconds(180)  # each starts a process or several

ASYNC = """async def helper(db):
    await db.notes.insert_one({"_id": 1})
    await db.notes.insert_one({"_id": 1})


async def up(db):
    await helper(db)
"""
PLAIN = """def work():
    raise ValueError("no")


work()
"""


def frames(text: str) -> list[str]:
    return re.findall(r'^ *File "(.*)", line \d+', text, re.MULTILINE)


@pytest.mark.parametrize(
    ("script", "ending", "count"),
    [
        pytest.param(ASYNC, "pymongo.errors.DuplicateKeyError: ", 2, id="async"),
        pytest.param(PLAIN, "ValueError: no", 2, id="plain"),
    ],
)
def test_a_failed_script_shows_its_own_frames_and_no_others(
    program: Callable[..., Ended], folder: Path, local_url: str, script: str, ending: str, count: int
) -> None:
    (folder / "001_bad.py").write_text(script)
    ended = program("migrate", "run", "--url", local_url, "--db", "x", "--verbose")
    assert frames(ended.err) == [str(folder / "001_bad.py")] * count
    traceback = ended.err[ended.err.index("Traceback (most recent call last):") :].splitlines()
    assert any(line.startswith(ending) for line in traceback[2 : 2 + 3 * count])
    assert "direct cause" not in ended.err


def test_an_error_of_this_program_shows_where_it_arose(cli: Callable[..., Result]) -> None:
    ended = cli("migrate", "list", "--verbose")
    files = frames(ended.stderr)
    assert files[-1].endswith("discover.py")
    assert [file for file in files if "typer" in file] == []
    assert "\nmydocs.migrations.errors.DirectoryMissing: " in ended.stderr


def test_an_error_of_a_helper_shows_the_line_of_the_script_alone(
    program: Callable[..., Ended], folder: Path, local_url: str
) -> None:
    (folder / "001_bad.py").write_text(
        "from mydocs.migrations import ensure_indexes\nasync def up(db):\n    await ensure_indexes(db.notes, ['a'])\n"
    )
    ended = program("migrate", "run", "--url", local_url, "--db", "x", "--verbose")
    assert frames(ended.err) == [str(folder / "001_bad.py")]


def test_a_mistake_of_this_program_keeps_its_frames_whatever_it_called() -> None:
    source = "import json\ndef ours():\n    json.loads('{')\n"
    names: dict[str, Any] = {}
    exec(compile(source, str(Path(mydocs.__file__).parent / "mistake.py"), "exec"), names)  # a module of ours
    with pytest.raises(ValueError, match="Expecting") as caught:
        names["ours"]()
    # Without the frame of this test, which would pass for a script's.
    text = traceback_text(caught.value.with_traceback(caught.tb.tb_next))
    assert [Path(file).name for file in frames(text)][:2] == ["mistake.py", "__init__.py"]


def test_frames_of_frameworks_are_left_out_between_those_of_a_script() -> None:
    async def work() -> None:
        await anyio.to_thread.run_sync(fail)

    def fail() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no") as caught:
        asyncio.run(work())
    assert set(frames(traceback_text(caught.value))) == {__file__}


def test_every_error_of_a_group_is_trimmed() -> None:
    def raised(error: Exception) -> Exception:
        try:
            anyio.run(_raise, error)
        except Exception as caught:  # noqa: BLE001  # what it is for
            return caught
        raise AssertionError

    text = traceback_text(ExceptionGroup("two", [raised(ValueError("a")), raised(KeyError("b"))]))
    assert set(frames(text.replace("|", " "))) == {__file__}


def test_what_failed_is_shown_in_place_of_the_failure() -> None:
    failed = MigrationFailed("001_a.py", ", line 1", "ValueError: no")
    failed.__cause__ = ValueError("no")
    assert traceback_text(failed) == "ValueError: no"


async def _raise(error: Exception) -> None:
    raise error
