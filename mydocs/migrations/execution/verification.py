"""Call the ``verify`` of scripts to check their results. I/O: only that of the scripts."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial

import anyio
import anyio.to_thread

from mydocs.migrations.driver.cancellation import Interruption, run_to_the_end
from mydocs.migrations.driver.client import Database
from mydocs.migrations.driver.session import Session
from mydocs.migrations.errors import VerifyFailed
from mydocs.migrations.execution.failures import storable, stored_error
from mydocs.migrations.execution.left_tasks import call_watched
from mydocs.migrations.model import Problem, Script, StoredError
from mydocs.migrations.reporting.events import Verified
from mydocs.migrations.scripts import load
from mydocs.migrations.values import value


@value
class Verification:
    """
    The result of the ``verify`` of one script.

    :param error: what it raised, or ``None`` if it passed
    """

    version: str
    script: Script
    error: StoredError | None = None
    line: int | None = None

    @property
    def problem(self) -> str | None:
        """Return what is wrong, with file and line, or ``None``."""
        line = f", line {self.line}" if self.line is not None else ""
        return None if self.error is None else f"{self.script.file_name}{line}: verify failed: {self.error}"


async def verify(
    session: Session, scripts: Sequence[tuple[str, Script]], *, timeout: float | None = None
) -> tuple[Verification, ...]:
    """
    Run the ``verify`` of scripts, one after the other, even if one of them raises.

    Each script is imported again, since it may have been applied long ago.

    :param scripts: with their versions in the ledger; one without a ``verify`` is skipped
    :param timeout: seconds for each, or ``None`` for no limit
    :raises ScriptsInvalid: if a script cannot be imported
    """
    asked = [(version, script) for version, script in scripts if script.verifies]
    with ExitStack() as stack:
        folders = [script.path.parent for _, script in asked]
        await anyio.to_thread.run_sync(stack.enter_context, load.importable(folders))
        return tuple([await _verify(session, version, script, timeout) for version, script in asked])


def raise_unverified(verifications: Sequence[Verification], others: Sequence[str] = ()) -> None:
    """
    Raise an error for the failed verifications.

    :param others: further problems of the same kind
    :raises VerifyFailed: if there is a problem
    """
    failed = [each for each in verifications if each.error is not None]
    problems = [Problem(text=str(each.problem), path=each.script.path, line=each.line) for each in failed]
    if problems or others:
        raise VerifyFailed([*problems, *others])


async def _verify(session: Session, version: str, script: Script, timeout: float | None) -> Verification:
    module = await anyio.to_thread.run_sync(load.load_async, script)
    started = time.monotonic()
    error: StoredError | None = None
    line: int | None = None
    try:
        with anyio.move_on_after(timeout) as limit:
            await run_to_the_end(lambda interruption: _call(interruption, module.verify, session.db))
        if limit.cancelled_caught:
            raise TimeoutError(f"it takes longer than {timeout:g} s")
    except Exception as raised:  # noqa: BLE001  # reported with those of the other scripts
        line = load.line_in(script.path, raised)
        error = await anyio.to_thread.run_sync(_stored, session.db, script, raised, line)
    session.emit(
        Verified(
            version=version,
            name=script.name,
            script=script.file_name,
            seconds=time.monotonic() - started,
            error=error,
        )
    )
    return Verification(version=version, script=script, error=error, line=line)


async def _call(interruption: Interruption, function: load.Step, db: Database) -> None:
    try:
        await interruption.run(partial(call_watched, function, db))
    except asyncio.CancelledError as error:
        if interruption.requested and not interruption.from_within:
            raise
        raise load.ScriptExit(error) from error


def _stored(db: Database, script: Script, raised: BaseException, line: int | None) -> StoredError:
    stored = stored_error(db, raised)
    if stored.message or line is None:
        return stored
    # An assert without a message: show its expression.
    return replace(stored, message=storable(db, script.source.splitlines()[line - 1].strip()))
