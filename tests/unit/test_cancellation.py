"""Work that comes to its end although its caller is cancelled, by asyncio or by anyio."""

import asyncio
import traceback
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import ContextVar
from typing import Any

import anyio
import pytest

from mydocs.migrations.driver.cancellation import Interruption, run_to_the_end, to_the_end
from mydocs.migrations.errors import ServerUnreachable
from mydocs.migrations.limits import Limits, limited_to

pytestmark = pytest.mark.anyio

Work = Coroutine[Any, Any, Any]


class Gate:
    """Something to wait for, that says when it is waited for."""

    def __init__(self) -> None:
        self.reached, self.opened, self.passed = asyncio.Event(), asyncio.Event(), False

    async def wait(self) -> str:
        self.reached.set()
        await self.opened.wait()
        self.passed = True
        return "done"


async def by_task(work: Work, gate: Gate, then: Callable[[], None]) -> BaseException:
    task = asyncio.ensure_future(work)
    await gate.reached.wait()
    task.cancel()
    await asyncio.sleep(0)
    then()
    with pytest.raises(asyncio.CancelledError) as raised:
        await task
    return raised.value


async def by_scope(work: Work, gate: Gate, then: Callable[[], None]) -> BaseException:
    raised: list[BaseException] = []

    async def cancel() -> None:
        await gate.reached.wait()
        scope.cancel()
        await asyncio.sleep(0)
        then()

    async with anyio.create_task_group() as group:
        with anyio.CancelScope() as scope:
            group.start_soon(cancel)
            try:
                await work
            except asyncio.CancelledError as error:
                raised.append(error)
                raise
    assert scope.cancelled_caught
    return raised[0]


async def by_timeout(work: Work, gate: Gate, then: Callable[[], None]) -> BaseException:
    loop = asyncio.get_running_loop()

    async def expire() -> None:
        await gate.reached.wait()
        timeout.reschedule(loop.time())
        loop.call_later(0.01, then)  # the time limit is a timer of the loop: it has to get its turn

    async with asyncio.TaskGroup() as group:
        group.create_task(expire())
        try:
            async with asyncio.timeout(None) as timeout:
                await work
        except TimeoutError as error:
            return error
    raise AssertionError("the time limit was swallowed")


Cancel = Callable[[Work, Gate, Callable[[], None]], Awaitable[BaseException]]
every_cancellation = pytest.mark.parametrize("cancel", [by_task, by_scope, by_timeout])


async def test_the_result_comes_back_where_nobody_cancels() -> None:
    async def seven() -> int:
        return 7

    assert await to_the_end(seven(), "it") == 7


@every_cancellation
async def test_a_cancellation_is_passed_on_after_the_work(cancel: Cancel) -> None:
    gate = Gate()
    await cancel(to_the_end(gate.wait(), "it"), gate, gate.opened.set)
    assert gate.passed


@every_cancellation
async def test_a_cancellation_is_passed_on_with_what_the_work_has_raised(cancel: Cancel) -> None:
    gate = Gate()

    async def fail() -> None:
        await gate.wait()
        raise ValueError("failed")

    error = await cancel(to_the_end(fail(), "it"), gate, gate.opened.set)
    assert "ValueError: failed" in "".join(traceback.format_exception(error))


@every_cancellation
async def test_a_cancellation_is_passed_on_where_the_work_does_not_end(cancel: Cancel) -> None:
    gate = Gate()
    with limited_to(Limits(grace=0.05)):
        await cancel(to_the_end(gate.wait(), "it"), gate, lambda: None)
    assert not gate.passed


async def test_work_that_takes_too_long_is_an_error_of_ours_that_names_it() -> None:
    with pytest.raises(ServerUnreachable, match="the record of 001 did not end within 0 s"):
        await to_the_end(Gate().wait(), "the record of 001", limit=0.01)


async def test_an_error_that_comes_after_the_limit_is_no_complaint_of_the_event_loop(
    caplog: pytest.LogCaptureFixture,
) -> None:
    gone = asyncio.Event()

    async def stubborn() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            gone.set()
            raise ValueError("late")

    with pytest.raises(ServerUnreachable):
        await to_the_end(stubborn(), "it", limit=0.01)
    await gone.wait()
    await asyncio.sleep(0)
    assert caplog.text == ""


@every_cancellation
async def test_what_may_be_cancelled_is_and_what_follows_it_is_not(cancel: Cancel) -> None:
    script, record = Gate(), Gate()
    record.opened.set()
    seen: list[bool] = []

    async def step(interruption: Interruption) -> None:
        try:
            await interruption.run(script.wait)
        except asyncio.CancelledError:
            seen.append(interruption.requested)
        await interruption.finish(record.wait(), "the record")

    await cancel(run_to_the_end(step), script, lambda: None)
    assert (script.passed, record.passed, seen) == (False, True, [True])


async def test_a_script_that_goes_on_has_its_result_and_the_cancellation_is_passed_on() -> None:
    gate = Gate()
    seen: list[str] = []

    async def stubborn() -> str:
        try:
            return await gate.wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0)  # asyncio's cancellation comes once
            return "went on"

    async def step(interruption: Interruption) -> None:
        seen.append(await interruption.run(stubborn))

    await by_task(run_to_the_end(step), gate, lambda: None)
    assert seen == ["went on"]


async def test_a_cancellation_of_anyio_is_raised_at_each_await_of_a_script() -> None:
    gate = Gate()
    seen: list[str] = []

    async def stubborn() -> str:
        try:
            return await gate.wait()
        except asyncio.CancelledError:
            await asyncio.sleep(60)
            return "went on"

    async def step(interruption: Interruption) -> None:
        seen.append(await interruption.run(stubborn))

    await by_scope(run_to_the_end(step), gate, lambda: None)
    assert seen == []


@every_cancellation
async def test_nothing_is_begun_after_a_cancellation(cancel: Cancel) -> None:
    record, script = Gate(), Gate()

    async def step(interruption: Interruption) -> None:
        await interruption.finish(record.wait(), "the record")
        await interruption.run(script.wait)

    await cancel(run_to_the_end(step), record, record.opened.set)
    assert record.passed
    assert not script.reached.is_set()


@pytest.mark.parametrize("repeated", [False, True])
async def test_a_script_is_not_called_where_the_cancellation_comes_before_its_task_has_begun(repeated: bool) -> None:
    interruption, script = Interruption(), Gate()
    running = asyncio.ensure_future(interruption.run(script.wait))
    await asyncio.sleep(0)  # it has made the script's task
    interruption.request(repeated=repeated)
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not script.reached.is_set()


async def test_a_script_has_a_context_of_its_own() -> None:
    variable: ContextVar[str] = ContextVar("variable", default="nothing")

    async def script() -> None:
        variable.set("something")

    await Interruption().run(script)
    assert variable.get() == "nothing"


async def test_a_script_that_ends_as_its_caller_s_task_is_cancelled_from_elsewhere_has_its_result() -> None:
    interruption, gate = Interruption(), Gate()
    running = asyncio.ensure_future(interruption.run(gate.wait))
    await gate.reached.wait()
    gate.opened.set()
    await asyncio.sleep(0)  # the script has ended, and the task that waits for it was not told yet
    running.cancel()
    assert await running == "done"
    assert interruption.from_within


async def test_what_ends_well_in_spite_of_its_limit_has_its_result() -> None:
    async def stubborn() -> str:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return "recorded"
        raise AssertionError("it was not cancelled")

    assert await to_the_end(stubborn(), "it", limit=0.01) == "recorded"


def test_a_script_that_cancels_all_tasks_is_told_from_a_caller_s_cancellation() -> None:
    seen: list[tuple[bool, bool]] = []

    async def script() -> None:
        for task in asyncio.all_tasks():
            task.cancel()
        await asyncio.sleep(60)

    async def step(interruption: Interruption) -> None:
        with pytest.raises(asyncio.CancelledError):
            await interruption.run(script)
        seen.append((interruption.requested, interruption.from_within))
        await asyncio.sleep(0)  # what follows is not cancelled any more
        raise ValueError("recorded")

    with pytest.raises(asyncio.CancelledError) as raised:
        asyncio.run(run_to_the_end(step))  # the test's own loop has tasks that are to go on
    assert seen == [(True, True)]
    assert "recorded" in str(raised.value.__cause__)


async def test_a_cleanup_without_end_is_cancelled_when_its_time_is_up() -> None:
    begun, cleaning = asyncio.Event(), asyncio.Event()

    async def script() -> None:
        try:
            begun.set()
            await asyncio.Event().wait()
        finally:
            cleaning.set()
            await asyncio.Event().wait()

    with limited_to(Limits(script_grace=0.01)):
        running = asyncio.ensure_future(run_to_the_end(lambda interruption: interruption.run(script)))
    await begun.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert cleaning.is_set()
