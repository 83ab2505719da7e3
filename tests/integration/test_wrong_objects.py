"""What is not a database that can be awaited is refused in a sentence that says what to pass."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pymongo
import pytest
from motor.motor_asyncio import AsyncIOMotorClient

from mydocs.migrations import (
    MigrationError,
    check,
    mark,
    migrate,
    repair,
    rollback,
    status,
    unlock,
    wait_for_indexes,
    wait_until_current,
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
