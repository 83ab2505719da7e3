"""Prepare the steps of a plan before the first one starts. I/O: imports scripts, may start a process."""

import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from types import ModuleType
from typing import TypeAlias

import anyio
import anyio.to_thread

from mydocs.migrations.driver import listeners
from mydocs.migrations.driver.client import Database, sync_database
from mydocs.migrations.errors import NotPossible
from mydocs.migrations.execution import transaction
from mydocs.migrations.indexes.standard_list import IndexModels, standard_checksum
from mydocs.migrations.ledger.plan import Standing
from mydocs.migrations.limits import limits
from mydocs.migrations.model import STANDARD_VERSION, Entry, Script, ScriptKind
from mydocs.migrations.scripts import load
from mydocs.migrations.values import value

Work: TypeAlias = ModuleType | str | IndexModels
"""The module of an async script, the text of a plain one, or the models of the standard indexes."""


@value
class Step:
    """
    The work between two records in the ledger.

    :param version: as in the ledger, if the ledger knows the script: the file name may have more digits since
    :param script: ``None`` for the standard indexes
    :param previous: the entry of the previous attempt
    """

    version: str
    name: str
    checksum: str
    work: Work
    script: Script | None = None
    previous: Entry | None = None
    direction: str = "up"

    @property
    def may_begin_early(self) -> bool:
        """
        Return whether its start may be recorded together with the end of the previous step.

        Not if an earlier attempt must be logged first. Not if an operator would have to mark it by hand although it has
        not begun.
        """
        return self.previous is None and (self.script is None or self.script.idempotent)


def standard_step(models: IndexModels, entries: Sequence[Entry]) -> Step:
    """Return the step that creates the standard indexes."""
    return Step(
        version=STANDARD_VERSION,
        name="standard indexes",
        checksum=standard_checksum(models),
        work=models,
        previous=next((entry for entry in entries if entry.version == STANDARD_VERSION), None),
    )


@asynccontextmanager
async def prepared(db: Database, standings: Sequence[Standing], *, direction: str) -> AsyncIterator[list[Step]]:
    """
    Check and load all scripts, and keep what they need until the block ends.

    :raises ScriptsInvalid: if one of them cannot be imported
    :raises NotPossible: if one needs what mydocs or the deployment cannot do
    """
    listeners.check_driver(db)
    scripts = [standing.script for standing in standings if standing.script is not None]
    folders = [script.path.parent for script in scripts if script.kind is ScriptKind.ASYNC]
    async with AsyncExitStack() as stack:
        await anyio.to_thread.run_sync(stack.enter_context, load.importable(folders))
        steps = await anyio.to_thread.run_sync(_loaded, standings, direction)
        await _check_transactions(db, scripts)
        if any(map(_can_meet_lightodm, scripts)):
            await stack.enter_async_context(_lightodm_bound(db))
        yield steps


def _loaded(standings: Sequence[Standing], direction: str) -> list[Step]:
    """Load every script before the first one runs. Imports them, and blocks."""
    return [
        Step(
            version=standing.entry.version if standing.entry else script.version,
            name=script.name,
            checksum=script.checksum,
            work=load.load_async(script) if script.kind is ScriptKind.ASYNC else load.load_plain(script),
            script=script,
            previous=standing.entry,
            direction=direction,
        )
        for standing in standings
        if (script := standing.script) is not None
    ]


async def _check_transactions(db: Database, scripts: Sequence[Script]) -> None:
    names = [script.file_name for script in scripts if script.transactional]
    if names and not await transaction.is_possible(db):
        raise NotPossible(
            f"{', '.join(names)}: TRANSACTIONAL = True needs transactions, which a single server does not have; "
            "make it a replica set (one member will do), or take the line out and write the script so that it can "
            "run twice"
        )


def _can_meet_lightodm(script: Script) -> bool:
    """Return whether an async script may use lightodm. All scripts, and what they import at the top, are loaded now."""
    return script.kind is ScriptKind.ASYNC and (script.may_use_lightodm or "lightodm" in sys.modules)


@asynccontextmanager
async def _lightodm_bound(db: Database) -> AsyncIterator[None]:
    with ExitStack() as stack:
        # In a thread: the import takes a third of a second, and a client that is made for it blocks.
        await anyio.to_thread.run_sync(stack.enter_context, _lightodm_bound_to(db))
        try:
            yield
        finally:
            # Without a limit the client's close would wait for a server that may not answer.
            with anyio.move_on_after(limits().release):
                await anyio.to_thread.run_sync(stack.close, abandon_on_cancel=True)


@contextmanager
def _lightodm_bound_to(db: Database) -> Iterator[None]:
    from mydocs.migrations.scripts.binding import lightodm_bound_to

    with sync_database(db) as database, lightodm_bound_to(database):
        yield
