"""Send an idempotent command again after a transient error. I/O is the call's own."""

import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TypeVar

from pymongo.errors import ServerSelectionTimeoutError

from mydocs.migrations.driver.server_errors import is_transient
from mydocs.migrations.limits import limited_to, limits

T = TypeVar("T")


def is_worth_another_try(error: BaseException) -> bool:
    """
    Return whether to send a command again at once.

    Not if the driver found no server at all: it has then waited for ``serverSelectionTimeoutMS`` (30 s by default), the
    time that the operator allows for a server to be away.
    """
    return is_transient(error) and not isinstance(error, ServerSelectionTimeoutError)


async def again(call: Callable[[], Awaitable[T]], *, seconds: float | None = None) -> T:
    """
    Await ``call()``, and again after each transient error. Only for idempotent calls.

    :param seconds: time from the first try to the start of the last; ``Limits.retries`` by default
    """
    until = time.monotonic() + (limits().retries if seconds is None else seconds)
    try:
        return await call()
    except Exception as error:
        if not is_worth_another_try(error):
            raise
        failure = error
    from mydocs.migrations.driver import backoff

    return await backoff.soon(call, failure, is_worth_another_try, seconds=until - time.monotonic())


async def again_patiently(call: Callable[[], Awaitable[T]]) -> T:
    """Await ``call()`` as a waiting task does: again after each transient error, for ``Limits.patience`` in all."""
    until = time.monotonic() + limits().patience

    async def attempt() -> T:
        with limited_to(replace(limits(), until=min(limits().until, until))):
            return await call()

    try:
        return await attempt()
    except Exception as error:
        if not is_transient(error):
            raise
        failure = error
    from mydocs.migrations.driver import backoff

    return await backoff.patiently(attempt, failure, is_transient, seconds=until - time.monotonic())
