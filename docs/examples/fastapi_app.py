"""
A FastAPI application that serves from the start and migrates at the same time.

Run it with `MONGO_URL=… MONGO_USER=… MONGO_PASSWORD=… MONGO_DB_NAME=… uvicorn fastapi_app:app`. `/healthz` answers from
the start, for a liveness probe: a long migration must not cause the end of its replica. `/readyz` answers 503 with what
is still missing until everything can be queried. After that it answers 200 without a command to the database.
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

# uvicorn configures only its own loggers: without this line a migration logs nothing.
logging.basicConfig(level=logging.INFO, format="%(levelname)s:     %(message)s")
logger = logging.getLogger(__name__)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Serve at once, and migrate at the same time. At shutdown a running migration is cancelled and recorded."""
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
                return  # the replica stays unready until you correct the cause
            await anyio.sleep(PAUSE_SECONDS)


app = FastAPI(lifespan=lifespan)


@app.get("/healthz")
async def healthz() -> dict[str, bool]:
    """Answer that the process is alive."""
    return {"alive": True}


@app.get("/readyz")
async def readyz(request: Request, response: Response) -> dict[str, Any]:
    """Answer whether every index can be queried, and what is missing."""
    state = request.app.state
    if state.ready:
        return {"ready": True, "missing": []}
    response.status_code = 503
    try:
        missing = work_left(await status(state.db, directory=MIGRATIONS))
    except MigrationError as error:  # for example, no server
        missing = (str(error),)
    return {"ready": False, "missing": missing, "problem": state.problem}
