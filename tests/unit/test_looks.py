"""Tasks that wait for the same thing look at it together, and none is misled by another's look."""

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from pymongo.errors import AutoReconnect, OperationFailure

from mydocs.migrations.driver.shared_looks import Looks

pytestmark = pytest.mark.anyio


class Source:
    """What is looked at: answers with how often it was asked, once it is let."""

    def __init__(self, *errors: Exception | None) -> None:
        self.asked = 0
        self.began, self.go = anyio.Event(), anyio.Event()
        self._errors = list(errors)

    async def ask(self) -> int:
        self.asked += 1
        number = self.asked
        self.began.set()
        await self.go.wait()
        error = self._errors.pop(0) if self._errors else None
        if error is not None:
            raise error
        return number


async def outcomes(count: int, look: Callable[[], Awaitable[int]], begin: Callable[[], Awaitable[Any]]) -> list[object]:
    """Look from many tasks, and return what each got or was told."""
    found: list[object] = []

    async def one() -> None:
        try:
            found.append(await look())
        except Exception as error:  # noqa: BLE001  # what was raised is what the test is about
            found.append(error)

    async with anyio.create_task_group() as group:
        for _ in range(count):
            group.start_soon(one)
        await begin()
    return found


async def test_one_look_serves_all_who_have_asked_by_then() -> None:
    source, looks = Source(), Looks[int]()

    async def begin() -> None:
        await source.began.wait()
        source.go.set()

    # All of them ask before the first one's task runs on, but after it began: they share the one that follows.
    assert sorted(await outcomes(50, lambda: looks.next(source.ask, within=0), begin), key=str) == [1, *[2] * 49]
    assert source.asked == 2


async def test_an_answer_that_was_asked_for_earlier_is_no_news() -> None:
    source, looks = Source(), Looks[int]()
    source.go.set()
    assert await looks.next(source.ask, within=0) == 1
    assert await looks.next(source.ask, within=0) == 2


async def test_the_most_eager_looks_and_the_patient_profit() -> None:
    source, looks = Source(), Looks[int]()
    source.go.set()
    patience = iter([3600.0, 3600.0, 0.0])
    found = await outcomes(3, lambda: looks.next(source.ask, within=next(patience)), anyio.lowlevel.checkpoint)
    assert found == [1, 1, 1]


async def test_when_the_one_that_looks_is_cancelled_another_one_looks() -> None:
    source, looks = Source(), Looks[int]()
    found: list[int] = []

    async def patient() -> None:
        found.append(await looks.next(source.ask, within=0))

    async with anyio.create_task_group() as group:
        with anyio.CancelScope() as scope:
            group.start_soon(patient)

            async def cancel() -> None:
                await source.began.wait()
                scope.cancel()
                source.go.set()

            group.start_soon(cancel)
            await looks.next(source.ask, within=0)
    assert scope.cancelled_caught
    assert found == [2]


async def test_a_server_that_is_away_is_away_for_all() -> None:
    away = AutoReconnect("away")
    source, looks = Source(None, away), Looks[int]()
    found = await outcomes(20, lambda: looks.next(source.ask, within=0), lambda: _let(source))
    assert source.asked == 2
    assert (found.count(1), found.count(away)) == (1, 19)


async def test_a_refusal_is_only_for_the_one_who_has_asked() -> None:
    refused = OperationFailure("not authorised", 13)
    source, looks = Source(None, refused), Looks[int]()
    found = await outcomes(20, lambda: looks.next(source.ask, within=0), lambda: _let(source))
    assert (found.count(1), found.count(refused), found.count(3)) == (1, 1, 18)


async def _let(source: Source) -> None:
    source.go.set()
