"""
Find the search index behind an alias, for the application that queries it. I/O: reads `_search_aliases`.

MongoDB has no aliases for search indexes, so the application asks for the name and puts it into its query. A migration
switches the alias (`mydocs.migrations.switch_search_alias`), and the application follows within ``ttl`` seconds.
This module imports nothing of the migration runner.
"""

import asyncio
import logging
import time
from collections.abc import Mapping
from contextlib import nullcontext
from contextvars import Context
from typing import Any

logger = logging.getLogger(__name__)

COLLECTION = "_search_aliases"
TTL_SECONDS = 10.0
PATIENCE_SECONDS = 1.0  # for a new answer if an old one is known; after that the server counts as away
PAUSE_SECONDS = 1.0  # between a read that failed or is late and the next one
# A connection may become silent without an error. This limit, the time to live and the pause together are less than the
# 15 seconds for which a migration does not drop an index after a switch.
READ_SECONDS = 3.0
FIRST_READ_SECONDS = 30.0  # if there is no older answer; an election takes up to 12


class SearchAliases:
    """
    The aliases of one database. Keep one object for the life of the application, since it is the cache.

    :param db: a Motor or a PyMongo Async database
    :param ttl: seconds for which an answer is used before the server is asked again
    """

    def __init__(self, db: Any, *, ttl: float = TTL_SECONDS) -> None:
        self._db = db
        self._ttl = ttl
        self._names: Mapping[str, str] = {}
        self._fresh_until = -1.0  # by the clock of `_now`
        self._quiet_until = -1.0
        self._reading: asyncio.Task[BaseException | None] | None = None

    async def index(self, alias: str) -> str:
        """
        Return the name of the search index behind an alias.

        All tasks that ask at the same time share one read. While the server is away, the result is the last known name.

        :raises KeyError: if the alias does not exist
        :raises pymongo.errors.PyMongoError: if the server cannot be reached and no answer is known
        """
        if alias in self._names and _now() < max(self._fresh_until, self._quiet_until):
            return self._names[alias]
        error = await self._read(alias in self._names)
        if alias in self._names:
            return self._names[alias]
        if error is not None:
            raise error
        raise KeyError(
            f"{alias}: no such search alias in database {self._db.name}; a migration makes it with switch_search_alias"
        )

    async def _read(self, has_answer: bool) -> BaseException | None:
        """Wait for a read that all tasks share, but not for long if an older answer is known."""
        if self._reading is None or self._reading.done():
            # In a context of its own: the first task's time limit or transaction must not apply to the others.
            self._reading = asyncio.create_task(self._ask(), context=Context())
        reading = self._reading
        # Not cancelled with the waiting task, since others wait for the same read.
        done, _ = await asyncio.wait({reading}, timeout=PATIENCE_SECONDS if has_answer else None)
        error = reading.result() if done else None
        if not done or error is not None:
            self._quiet_until = _now() + PAUSE_SECONDS
        return error

    async def _ask(self) -> BaseException | None:
        import pymongo
        from bson.codec_options import DEFAULT_CODEC_OPTIONS
        from pymongo import ReadPreference
        from pymongo.errors import NetworkTimeout, PyMongoError

        # From the primary: a secondary may still show an index that has been dropped.
        aliases = self._db.get_collection(
            COLLECTION, codec_options=DEFAULT_CODEC_OPTIONS, read_preference=ReadPreference.PRIMARY
        )
        asked = _now()
        try:
            # This limit of the driver also ends the thread of Motor. But it also limits the selection of a server. If
            # no answer is known yet, the client's own settings decide about that.
            with pymongo.timeout(READ_SECONDS) if self._names else nullcontext():
                async with asyncio.timeout(FIRST_READ_SECONDS):
                    found = await aliases.find({}, {"index": 1}).to_list(None)
        except TimeoutError:
            return NetworkTimeout(f"{COLLECTION}: no answer within {FIRST_READ_SECONDS:g} s")
        except PyMongoError as error:
            logger.warning("the search aliases of %s cannot be read: %s", self._db.name, error)
            return error
        self._names = {document["_id"]: document["index"] for document in found if "index" in document}
        self._fresh_until = asked + self._ttl
        return None


def _now() -> float:
    # The monotonic clock stands still while the machine is suspended, but the cached answers get older.
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)
