"""
A Starlette application that starts only when its migrations are applied and every search index can be queried.

Run it with `MONGO_URL=… MONGO_USER=… MONGO_PASSWORD=… MONGO_DB_NAME=… uvicorn starlette_app:app`. Until it is ready
it does not listen, so a probe cannot connect. Give the start-up probe the time that an index build takes. It uses
PyMongo's own asynchronous driver.
"""

import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from pymongo import AsyncMongoClient
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from mydocs.migrations import connect, migrate, status, work_left

MIGRATIONS = os.environ.get("MYDOCS_MIGRATIONS_DIR", "migrations")

# uvicorn configures only its own loggers: without this line a migration logs nothing.
logging.basicConfig(level=logging.INFO, format="%(levelname)s:     %(message)s")


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    """Await the migrations: one of many replicas does the work, and the others wait for it."""
    async with connect(client=AsyncMongoClient) as db:
        app.state.db = db
        await migrate(db, directory=MIGRATIONS, wait=True, timeout=1800.0)
        yield


async def readyz(request: Request) -> JSONResponse:
    """Read only the ledger, in one command: a newer application may have left work that this one knows of."""
    missing = work_left(await status(request.app.state.db, directory=MIGRATIONS, indexes=False))
    return JSONResponse({"ready": not missing, "missing": missing}, status_code=503 if missing else 200)


app = Starlette(routes=[Route("/readyz", readyz)], lifespan=lifespan)
