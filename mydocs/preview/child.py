"""
Run one pending script on the copy, in a process that can reach no other address. I/O.

It receives its task as a line of JSON on its standard input, and writes its answer to a file. The runner itself runs
the script, with the copy's ledger. So helpers, plain scripts and transactions work as in a run.
"""

import asyncio
import json
import sys
import warnings
from pathlib import Path
from typing import Any


def main() -> None:
    """Run the script. This is the main function of the process."""
    job: dict[str, Any] = json.loads(sys.stdin.readline())
    sys.path[:] = job["path"]
    answer = asyncio.run(_run(job))
    part = Path(job["answer"] + ".part")
    part.write_text(json.dumps(answer), "utf-8")
    part.rename(job["answer"])


async def _run(job: dict[str, Any]) -> dict[str, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Motor warns of its end of life
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
