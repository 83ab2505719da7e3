"""What is not a database that can be awaited is refused in a sentence that says what to pass."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pymongo
import pytest
from motor.motor_asyncio import AsyncIOMotorClient
from pymongo import IndexModel

from mydocs.migrations import (
    MigrationError,
    UsageError,
    check,
    drop_search_indexes,
    mark,
    migrate,
    plan,
    pull,
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


NO_SECONDS = ["5s", float("nan"), -1, -0.5, True, [1]]
NO_MODELS = [
    ([1], "standard_indexes is no mapping, but a list"),
    ("status", "standard_indexes is no mapping, but a str"),
    ({"pages": IndexModel("a")}, "standard_indexes of pages are a IndexModel"),
    ({"pages": ["a"]}, "standard_indexes of pages hold a str"),
    ({1: []}, "standard_indexes names a collection by 1"),
]
WITH_SECONDS: list[tuple[Any, tuple[str, ...]]] = [
    (migrate, ("timeout", "lock_timeout", "script_timeout", "max_lag")),
    (rollback, ("timeout", "lock_timeout", "script_timeout")),
    (repair, ("lock_timeout",)),
    (wait_for_indexes, ("timeout",)),
    (wait_until_current, ("timeout",)),
    (plan, ("script_timeout",)),
]
WITH_MODELS: list[Any] = [migrate, status, check, wait_until_current, plan, pull]


@pytest.mark.parametrize(
    ("call", "name"),
    [(call, name) for call, names in WITH_SECONDS for name in names],
    ids=lambda it: getattr(it, "__name__", it),
)
async def test_a_limit_is_a_number_of_seconds(call: Any, name: str, any_db: Any, folder: Path) -> None:
    more = {} if call is wait_for_indexes else {"directory": folder}
    for wrong in NO_SECONDS:
        with pytest.raises(UsageError, match=f"^{name} is a number of seconds, 0 or more, or None") as caught:
            await call(any_db, **{name: wrong}, **more)
        assert repr(wrong) in str(caught.value)


@pytest.mark.parametrize("call", WITH_MODELS, ids=lambda call: call.__name__)
async def test_standard_indexes_are_models_by_their_collections(call: Any, any_db: Any, folder: Path) -> None:
    for wrong, said in NO_MODELS:
        with pytest.raises(UsageError) as caught:
            await call(any_db, directory=folder, standard_indexes=wrong)
        assert str(caught.value).startswith(said)
        assert '{"pages": [IndexModel("status")]}' in str(caught.value)


@pytest.mark.parametrize("call", [*WITH_MODELS, rollback, repair], ids=lambda call: call.__name__)
async def test_a_directory_is_a_path(call: Any, any_db: Any) -> None:
    for wrong in (None, 7, b"migrations"):
        with pytest.raises(UsageError, match="directory is the path of the folder of the scripts, and ") as caught:
            await call(any_db, directory=wrong)
        assert repr(wrong) in str(caught.value)


@pytest.mark.parametrize("helper", [drop_search_indexes, wait_until_ready])
async def test_names_are_passed_one_by_one(helper: Any, any_db: Any) -> None:
    with pytest.raises(UsageError, match=r"\['ft', 'vec'\] is not the name of an index; pass each by itself"):
        await helper(any_db["pages"], ["ft", "vec"])


async def test_a_version_is_a_text(any_db: Any, folder: Path) -> None:
    folder.joinpath("001_a.py").write_text("async def up(db): ...\n")
    with pytest.raises(UsageError, match="a version is a text such as '005', not 1"):
        await migrate(any_db, directory=folder, target=1)  # type: ignore[arg-type]
