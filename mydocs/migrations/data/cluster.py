"""Ask the deployment about a data change: a collection's shard key, and the lag of secondaries. I/O."""

import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import anyio
from pymongo.errors import OperationFailure

from mydocs.migrations.driver import commands, server_errors
from mydocs.migrations.driver.client import Database
from mydocs.migrations.errors import NotPossible
from mydocs.migrations.reporting.events import Warned
from mydocs.migrations.scripts.script_context import context

LOOK_SECONDS = 1.0  # between two looks at the lag
PATIENCE_SECONDS = 1800.0  # the longest wait for secondaries that do not catch up


async def shard_key(db: Database, name: str) -> tuple[str, ...]:
    """
    Return the paths of a collection's shard key, which let a write go to one shard instead of all.

    :return: empty if the collection is not sharded, or by `_id`, or if the user may not read `config.collections`
    """
    body = {"find": "collections", "filter": {"_id": f"{db.name}.{name}"}, "projection": {"key": 1}, "limit": 1}
    try:
        found = await commands.documents_again(db.client["config"], body)
    except OperationFailure:
        return ()
    key = found[0].get("key") if found else None
    return tuple(path for path in key if path != "_id") if isinstance(key, Mapping) else ()


def lag_of(status: Mapping[str, Any]) -> float:
    """Return how many seconds the slowest secondary is behind the primary, from the reply to `replSetGetStatus`."""
    members = [member for member in status.get("members", ()) if isinstance(member.get("optimeDate"), datetime)]
    primaries = [member["optimeDate"] for member in members if member.get("stateStr") == "PRIMARY"]
    behind = [member["optimeDate"] for member in members if member.get("stateStr") == "SECONDARY"]
    return max(0.0, (max(primaries) - min(behind)).total_seconds()) if primaries and behind else 0.0


class Lag:
    """Make a data change wait while secondaries are too far behind."""

    def __init__(self, db: Database, name: str, most: float | None) -> None:
        """
        Store the limit.

        :param most: seconds that secondaries may lag behind; ``None`` for no limit
        """
        self._db, self._name, self._most = db, name, most
        self._looked = -LOOK_SECONDS

    async def bearable(self) -> None:
        """
        Return once no secondary is further behind than the limit. Look at most once a second.

        :raises NotPossible: if they have not caught up after half an hour
        """
        began, told = time.monotonic(), False
        while self._most is not None and time.monotonic() - self._looked >= LOOK_SECONDS:
            try:
                status = await commands.command_again(self._db.client["admin"], {"replSetGetStatus": 1})
            except OperationFailure as error:
                self._most = None
                why = (
                    f"the lag of secondaries cannot be seen, so nothing waits for them ({server_errors.text_of(error)})"
                )
                context().emit(Warned(message=f"{self._name}: {why}"))
                return
            lag, self._looked = lag_of(status), time.monotonic()
            if lag <= self._most:
                return
            if not told:
                told = True
                message = f"a secondary is {lag:.0f} s behind, the change waits until it is {self._most:g} s at most"
                context().emit(Warned(message=f"{self._name}: {message}"))
            if time.monotonic() - began > PATIENCE_SECONDS:
                raise NotPossible(
                    f"{self._name}: a secondary is still {lag:.0f} s behind after {PATIENCE_SECONDS / 60:.0f} minutes; "
                    "see why it does not catch up, or raise --max-lag, and run again: it continues from here"
                )
            await anyio.sleep(LOOK_SECONDS)
