"""
Pause between the tries of a command, and limit their number. I/O is the call's own.

A module of its own, which `retry` imports after a first failure: the import of tenacity takes as long as several
commands.
"""

import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio
from tenacity import AsyncRetrying, before_sleep_log, retry_if_exception, stop_after_delay, stop_before_delay
from tenacity.wait import wait_random_exponential

logger = logging.getLogger(__name__)

T = TypeVar("T")
IsWorth = Callable[[BaseException], bool]

# For one idempotent command. A poll that waits for a state is a loop with a deadline, not a retry.
RETRY = AsyncRetrying(
    wait=wait_random_exponential(multiplier=0.2, max=2.0),
    sleep=anyio.sleep,
    before_sleep=before_sleep_log(logger, logging.INFO),
    reraise=True,
)
# For a look of a waiting task: it has time, and the run that it waits for may wait for the same server.
PATIENT = RETRY.copy(wait=wait_random_exponential(multiplier=0.2, max=10.0))


async def soon(call: Callable[[], Awaitable[T]], failure: Exception, is_worth: IsWorth, *, seconds: float) -> T:
    """
    Retry after a first failure.

    :param is_worth: tells whether another try may succeed
    :param seconds: time limit for the start of the last try
    """
    retry = RETRY.copy(retry=retry_if_exception(is_worth), stop=stop_after_delay(seconds))
    return await retry(_after(failure, call))


async def patiently(call: Callable[[], Awaitable[T]], failure: Exception, is_worth: IsWorth, *, seconds: float) -> T:
    """Retry after a first failure, with longer pauses. No pause ends later than ``seconds`` from now."""
    retry = PATIENT.copy(retry=retry_if_exception(is_worth), stop=stop_before_delay(seconds))
    return await retry(_after(failure, call))


def _after(failure: Exception, call: Callable[[], Awaitable[T]]) -> Callable[[], Awaitable[T]]:
    """Return a call that first raises the failure that has happened, so that tenacity pauses before the next try."""
    failed = [failure]

    async def attempt() -> T:  # tenacity awaits only coroutine functions, and a lambda is none
        if failed:
            raise failed.pop()
        return await call()

    return attempt
