"""Several things at the same time end in one error."""

import anyio
import pytest

from mydocs.migrations.driver.task_groups import one_error_group

pytestmark = pytest.mark.anyio


async def fail() -> None:
    raise ValueError("no such luck")


async def test_the_first_failure_ends_the_others_and_leaves_alone() -> None:
    ended: list[str] = []

    async def wait() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            ended.append("wait")

    async def both() -> None:
        async with one_error_group() as group:
            group.start_soon(wait)
            group.start_soon(fail)

    with pytest.raises(ValueError, match="no such luck"):
        await both()
    assert ended == ["wait"]


async def test_groups_inside_one_another_leave_one_error() -> None:
    async def inside() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(fail)

    async def outside() -> None:
        async with one_error_group() as group:
            group.start_soon(inside)

    with pytest.raises(ValueError, match="no such luck"):
        await outside()


async def test_a_cancellation_passes_as_one() -> None:
    with anyio.move_on_after(0) as scope:
        async with one_error_group() as group:
            group.start_soon(anyio.sleep_forever)
    assert scope.cancelled_caught
