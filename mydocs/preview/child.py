"""
Run one pending script on the copy, in a process of its own that knows no other address. I/O.

It is told what to do by a line of JSON on its standard input and leaves its answer in a file. What runs the script is
the runner itself, with the copy's ledger: so helpers, plain scripts and transactions are what they are in a run.
"""

import asyncio
import json
import sys
import warnings
from pathlib import Path
from typing import Any


def main() -> None:
    """Be the process."""
    job: dict[str, Any] = json.loads(sys.stdin.readline())
    sys.path[:] = job["path"]
    answer = asyncio.run(_run(job))
    part = Path(job["answer"] + ".part")
    part.write_text(json.dumps(answer), "utf-8")
    part.rename(job["answer"])


async def _run(job: dict[str, Any]) -> dict[str, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Motor's word on its end of life
        from motor.motor_asyncio import AsyncIOMotorClient
    from pymongo import AsyncMongoClient

    from mydocs.migrations import MigrationError, migrate

    options: dict[str, Any] = {"tz_aware": job["tz_aware"], "appname": "mydocs-plan"}
    kind: Any = AsyncIOMotorClient if job["motor"] else AsyncMongoClient
    client = kind(job["url"], **options)
    try:
        await migrate(
            client[job["database"]],
            directory=job["directory"],
            target=job["version"],
            allow_changed=True,
            allow_out_of_order=True,
            standard_indexes={},
            lock_timeout=0.0,
            on_event=lambda _: None,
        )
    except MigrationError as error:
        cause = error.__cause__ or error
        failed = error.report.migrations[-1].error if error.report and error.report.migrations else None
        code = getattr(cause, "code", None)
        return {"type": failed.type if failed else type(error).__name__, "message": str(error), "code": code}
    return {}


if __name__ == "__main__":
    main()
