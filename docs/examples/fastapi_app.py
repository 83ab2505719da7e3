"""
A FastAPI application that serves from the start, and takes its migrations up beside that.

Run it with `MONGO_URL=… MONGO_USER=… MONGO_PASSWORD=… MONGO_DB_NAME=… uvicorn fastapi_app:app`. `/healthz` answers from
the start, for a liveness probe: a long migration must not get the replica killed that runs it. `/readyz` answers 503
with what is still missing until everything can be queried. From then on it answers 200 without asking the database, so
that any number of probes costs it nothing.
"""

import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
from fastapi import FastAPI, Request, Response

from mydocs.migrations import MigrationError, connect, migrate, status, work_left

MIGRATIONS = os.environ.get("MYDOCS_MIGRATIONS_DIR", "migrations")
# Another try helps after these: no connection, not ready in time, lease held by another.
PASSING = (3, 5, 7)
PAUSE_SECONDS = 10.0

# uvicorn sets up its own loggers only: without this line nothing of a migration is seen.
logging.basicConfig(level=logging.INFO, format="%(levelname)s:     %(message)s")
logger = logging.getLogger(__name__)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Serve at once, and migrate beside it. At shutdown a migration that is under way is cancelled and recorded."""
    app.state.ready, app.state.problem = False, None
    async with connect() as db, anyio.create_task_group() as group:
        app.state.db = db
        group.start_soon(become_ready, app)
        yield
        group.cancel_scope.cancel()


async def become_ready(app: FastAPI) -> None:
    """Migrate, and wait until every index can be queried. In one of many replicas the work is done."""
    while not app.state.ready:
        try:
            await migrate(app.state.db, directory=MIGRATIONS, wait=True, timeout=None)
            app.state.ready, app.state.problem = True, None
        except MigrationError as error:
            app.state.problem = str(error)
            logger.error("not ready: %s", error)
            if error.exit_code not in PASSING:
                return  # the replica stays unready until somebody has changed something
            await anyio.sleep(PAUSE_SECONDS)


app = FastAPI(lifespan=lifespan)


@app.get("/healthz")
async def healthz() -> dict[str, bool]:
    """Say that the process lives."""
    return {"alive": True}


@app.get("/readyz")
async def readyz(request: Request, response: Response) -> dict[str, Any]:
    """Say whether every index can be queried, and what is missing."""
    state = request.app.state
    if state.ready:
        return {"ready": True, "missing": []}
    response.status_code = 503
    try:
        missing = work_left(await status(state.db, directory=MIGRATIONS))
    except MigrationError as error:  # no server, for one
        missing = (str(error),)
    return {"ready": False, "missing": missing, "problem": state.problem}
