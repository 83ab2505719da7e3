"""With --verbose: the frames of a script, without those of what calls it."""

import asyncio
import re
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from mydocs.cli.tracebacks import traceback_text
from mydocs.migrations.errors import DirectoryMissing, MigrationFailed
from mydocs.migrations.scripts.discover import discover
from tests.cli.conftest import Ended

pytestmark = pytest.mark.seconds(60)  # each starts a process or several

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


def test_an_error_of_this_program_shows_where_it_arose(tmp_path: Path) -> None:
    with pytest.raises(DirectoryMissing) as caught:
        discover(tmp_path / "none")
    text = traceback_text(caught.value)
    assert frames(text)[-1].endswith("discover.py")
    assert text.splitlines()[-1].startswith("mydocs.migrations.errors.DirectoryMissing: ")


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
