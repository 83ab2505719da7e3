"""
The least that a command on the database can be: `bare.py URL DATABASE MODE [COUNT]`. I/O.

`read` reads the ledger once, as a run with nothing to do must. `loop` sends what a first run of COUNT scripts that each
insert one document sends, one command after the other: for each script its insert and one write to the ledger.
"""

import asyncio
import sys
import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    from motor.motor_asyncio import AsyncIOMotorClient


async def main(url: str, database: str, mode: str, count: int) -> None:
    client: AsyncIOMotorClient[dict[str, object]] = AsyncIOMotorClient(url)
    db = client[database]
    if mode == "read":
        await db["_migrations"].find(batch_size=100_000).to_list(None)  # all of it in one answer
    for number in range(count):
        await db["runs"].insert_one({"script": f"{number:04}"})
        entry = {"q": {"_id": f"{number:04}"}, "u": {"$set": {"state": "applied"}}, "upsert": True}
        await db.command({"update": "_bare", "updates": [entry], "writeConcern": {"w": "majority"}})
    client.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]) if len(sys.argv) > 4 else 0))
