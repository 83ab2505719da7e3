"""What is not a database that can be awaited is refused in a sentence that says what to pass."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pymongo
import pytest
from motor.motor_asyncio import AsyncIOMotorClient

from mydocs.migrations import (
    MigrationError,
    UsageError,
    check,
    drop_search_indexes,
    mark,
    migrate,
    repair,
    rollback,
    status,
    unlock,
    wait_for_indexes,
    wait_until_current,
    wait_until_ready,
)

pytestmark = pytest.mark.anyio

CALLS: list[Callable[[Any], Awaitable[Any]]] = [
    migrate,
    status,
    check,
    rollback,
    repair,
    unlock,
    wait_for_indexes,
    wait_until_current,
    lambda db: mark(db, "001", applied=True),
]


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.__name__)
async def test_each_operation_says_what_to_pass(
    call: Callable[[Any], Awaitable[Any]], folder: Path, local_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    motor: Any = AsyncIOMotorClient(local_url)
    modern: Any = pymongo.AsyncMongoClient(local_url)
    with pymongo.MongoClient[dict[str, Any]](local_url) as sync:
        for wrong, said in (
            (None, "was given None; pass an AsyncIOMotorDatabase"),
            ("mongodb://h/x", "builtins's str; pass an AsyncIOMotorDatabase"),
            (sync["x"], "pymongo's Database; pass an AsyncIOMotorDatabase of Motor or an AsyncDatabase"),
            (sync, "pymongo's MongoClient; pass an AsyncIOMotorDatabase"),
            (motor, 'motor\'s AsyncIOMotorClient; pass one of its databases, such as client["app"]'),
            (modern, "pymongo's AsyncMongoClient; pass one of its databases"),
            (motor["x"]["y"], "motor's AsyncIOMotorCollection; pass its database"),
            (modern["x"]["y"], "pymongo's AsyncCollection; pass its database"),
        ):
            with pytest.raises(MigrationError) as caught:
                await call(wrong)
            assert said in str(caught.value)
            assert caught.value.exit_code == 2
    motor.close()
    await modern.close()


@pytest.mark.parametrize("helper", [drop_search_indexes, wait_until_ready])
async def test_names_are_passed_one_by_one(helper: Any, any_db: Any) -> None:
    with pytest.raises(UsageError, match=r"\['ft', 'vec'\] is not the name of an index; pass each by itself"):
        await helper(any_db["pages"], ["ft", "vec"])


async def test_a_version_is_a_text(any_db: Any, folder: Path) -> None:
    folder.joinpath("001_a.py").write_text("async def up(db): ...\n")
    with pytest.raises(UsageError, match="a version is a text such as '005', not 1"):
        await migrate(any_db, directory=folder, target=1)  # type: ignore[arg-type]
