"""
A FastAPI application that migrates when it starts, and serves while search indexes are still being built.

Run it with `MONGO_URL=… MONGO_DB_NAME=… uvicorn fastapi_app:app`. `/healthz` answers from the start, for a liveness
probe. `/readyz` answers 503 with what is still missing until everything can be queried, and 200 from then on without
asking the database, so that any number of probes costs it nothing.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
from fastapi import FastAPI, Request, Response
from motor.motor_asyncio import AsyncIOMotorClient

from mydocs.migrations import MigrationError, migrate, status, wait_for_indexes, work_left

MIGRATIONS = os.environ.get("MYDOCS_MIGRATIONS_DIR", "migrations")


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Bring data and standard indexes up to date before the first request, and search indexes meanwhile."""
    client: AsyncIOMotorClient[dict[str, Any]] = AsyncIOMotorClient(os.environ["MONGO_URL"], tz_aware=True)
    app.state.db = client[os.environ["MONGO_DB_NAME"]]
    app.state.ready = False
    app.state.problem = None

    async def become_ready() -> None:
        try:
            await wait_for_indexes(app.state.db, timeout=None)
            app.state.ready = True
        except MigrationError as error:
            app.state.problem = str(error)

    try:
        # A failed migration raises here, and the server does not start.
        await migrate(app.state.db, directory=MIGRATIONS)
        async with anyio.create_task_group() as group:
            group.start_soon(become_ready)
            yield
            group.cancel_scope.cancel()
    finally:
        client.close()


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
