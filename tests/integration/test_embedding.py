"""A new embedding model in one migration: killed, edited meanwhile, and search goes on with vectors of one model."""

import hashlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from typer.testing import CliRunner

from mydocs.cli.app import app
from mydocs.localserver import LocalServer
from mydocs.localserver.clock import ManualClock
from mydocs.migrations import (
    MigrationError,
    check,
    ensure_search_indexes,
    fingerprint_field,
    migrate,
    new_embedding,
    rollback,
    stale_embeddings,
    switch_search_alias,
    transform,
)
from mydocs.migrations.driver.client import Database
from mydocs.search_aliases import SearchAliases

pytestmark = pytest.mark.anyio

EMBEDDING: dict[str, Any] = {"field": "e.v2", "text": "e.text", "model": "model-2", "dimensions": 2}
OLD_FIELD = {"type": "vector", "path": "embedding_1", "numDimensions": 2, "similarity": "cosine"}
OLD = {"name": "vec_pages_1", "type": "vectorSearch", "definition": {"fields": [OLD_FIELD]}}
BATCH = 50  # texts of a call


def vector(text: str, model: int = 2) -> list[float]:
    """What a model makes of a text: its number, and something that tells texts apart."""
    return [float(model), hashlib.sha256(f"{model} {text}".encode()).digest()[0] / 255]


async def stale(db: Database, **other: Any) -> list[Any]:
    found = db["pages"].find(stale_embeddings(**EMBEDDING | other), {"_id": 1}).sort("_id", 1)
    return [document["_id"] async for document in found]


async def embed(pages: list[Any]) -> list[Any]:
    return [new_embedding(vector(page["e"]["text"]), **EMBEDDING) for page in pages]


async def test_what_is_stale_is_found_on_the_server(any_db: Database) -> None:
    texts = ["one", "two", "three", "", None, 4]
    await any_db["pages"].insert_many([{"_id": at, "e": {"text": text}} for at, text in enumerate(texts)])
    await any_db["pages"].insert_one({"_id": 9})
    assert await stale(any_db) == [0, 1, 2]
    assert await transform(any_db["pages"], stale_embeddings(**EMBEDDING), embed, batch=True, fields=("e.text",)) == 3
    assert await stale(any_db) == []
    await any_db["pages"].update_one({"_id": 1}, {"$set": {"e.text": "TWO"}})  # of the same length
    assert await stale(any_db) == [1]
    assert await stale(any_db, model="model-3") == [0, 1, 2]
    assert await stale(any_db, dimensions=3) == [0, 1, 2]
    await any_db["pages"].update_one({"_id": 0}, {"$unset": {"e.v2": ""}})
    assert await stale(any_db) == [0, 1]
    await transform(any_db["pages"], stale_embeddings(**EMBEDDING), embed, batch=True, fields=("e.text",))
    document = await any_db["pages"].find_one({"_id": 1})
    assert document is not None
    assert document["e"]["v2"] == vector("TWO")
    assert list(document["e"][fingerprint_field("v2")]) == ["model", "dimensions", "text"]


def test_a_vector_of_another_length_is_not_written() -> None:
    with pytest.raises(ValueError, match=r"model-2 gave a vector of 3 dimensions for e\.v2, which has 2"):
        new_embedding([1.0, 2.0, 3.0], **EMBEDDING)


# The migration of `new --kind embedding`


async def new(folder: Path) -> list[str]:
    arguments = ["migrate", "new", "another model", "--kind", "embedding", "--dir", str(folder)]
    ended = await anyio.to_thread.run_sync(lambda: CliRunner().invoke(app, arguments))
    assert ended.exit_code == 0, ended.output
    return [Path(line).name for line in ended.stdout.splitlines()]


def written(text: str) -> str:
    """Take out the line that says that nothing was filled in."""
    text, lines = re.subn(r"    raise NotImplementedError\(.*take this line out.*\n", "", text)
    assert lines == 1
    return text


def edit_template(folder: Path, body: str) -> None:
    """Make the template one for the model of these tests, which is called as ``body`` says."""
    path = folder / "001_another_model.py"
    text = path.read_text().replace('"dimensions": 1024', '"dimensions": 2')
    text = text.replace("batch_size=100", f"batch_size={BATCH}")
    call = '    raise NotImplementedError("call the model of EMBEDDING here")\n'
    assert call in text
    text = written(text)
    text = text.replace("from typing", "import hashlib\nfrom typing")
    path.write_text(text.replace(call, textwrap.indent(textwrap.dedent(body), "    ")))


async def test_the_template_and_the_one_for_later_fail_until_they_are_edited(db: Database, folder: Path) -> None:
    await db["pages"].insert_one({"_id": 1, "content": "text"})
    assert await new(folder) == ["001_another_model.py", "later_another_model.py"]
    with pytest.raises(MigrationError, match="it is not written yet"):
        await migrate(db, directory=folder, standard_indexes={})
    (folder / "later_another_model.py").rename(folder / "001_another_model.py")
    with pytest.raises(MigrationError, match="it is not written yet"):
        await migrate(db, directory=folder, standard_indexes={})
    assert await db["pages"].find_one() == {"_id": 1, "content": "text"}
    assert "_search_aliases" not in await db.list_collection_names()


ANSWER = 'return [[2.0, hashlib.sha256(f"2 {text}".encode()).digest()[0] / 255] for text in texts]\n'
COUNTED = f"""
import json
import os
import signal

with open(os.environ["CALLS"], "a+") as file:  # noqa: ASYNC230
    file.write(json.dumps(texts) + "\\n")  # before anybody has the answer
    file.seek(0)
    if len(file.readlines()) == int(os.environ["KILLED_AT"]):
        os.kill(os.getpid(), signal.SIGKILL)
{ANSWER}"""


async def old_search(db: Database, count: int) -> None:
    """Fill pages with texts and vectors of the old model, with an index and an alias on them."""
    await ensure_search_indexes(db["pages"], [OLD])
    for start in range(0, count, 1000):
        texts = {at: f"text {at}" for at in range(start, min(count, start + 1000))}
        pages = [{"_id": at, "content": text, "embedding_1": vector(text, 1)} for at, text in texts.items()]
        await db["pages"].insert_many(pages)
    await switch_search_alias(db["pages"], "vec_pages", to="vec_pages_1")


def calls(file: Path) -> list[list[str]]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


class Change:
    """A change of the model, with all that goes on beside it."""

    def __init__(self, db: Database, folder: Path, server: LocalServer, clock: ManualClock, count: int) -> None:
        self.db, self.clock, self.count = db, clock, count
        self.calls = folder / "calls.txt"
        self.chance = random.Random(7)
        self.edits = 0
        self.command = [sys.executable, "-m", "mydocs", "migrate", "run", "--wait", "--indexes", "none"]
        self.command += ["--dir", str(folder), "--url", server.url, "--db", "app"]

    async def edit(self) -> None:
        """Write new texts, as an application does that knows nothing of the new field."""
        while True:
            self.edits += 1
            at = self.chance.randrange(self.count)
            await self.db["pages"].update_one({"_id": at}, {"$set": {"content": f"edit {self.edits} of {at}"}})
            await anyio.sleep(0.05)

    async def search(self) -> None:
        """Ask as an application does for each query: a name, and vectors of the one model that it stands for."""
        names = SearchAliases(self.db, ttl=0.05)
        fields = {"vec_pages_1": ("embedding_1", 1.0), "vec_pages_2": ("embedding_2", 2.0)}
        while True:
            name = await names.index("vec_pages")
            field, model = fields[name]
            listed = {index["name"]: index for index in await listing(self.db)}
            assert listed[name]["queryable"]
            other = {field: {"$exists": True}, f"{field}.0": {"$ne": model}}
            assert await self.db["pages"].count_documents(other) == 0
            assert await self.db["pages"].count_documents({field: {"$exists": False}}) == 0
            await anyio.sleep(0.3)

    async def run_until_killed(self, batches: int) -> None:
        """Run until the model was called so many times more, and is killed there."""
        ended = await self.run(killed_at=len(calls(self.calls)) + batches)
        assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()
        self.clock.advance(31)  # its lease runs out

    async def run(self, *, killed_at: int = 0) -> subprocess.CompletedProcess[bytes]:
        environment = {**os.environ, "CALLS": str(self.calls), "KILLED_AT": str(killed_at)}
        return await anyio.run_process(self.command, env=environment, check=False)


async def listing(db: Database) -> list[Any]:
    reply = await db.command({"aggregate": "pages", "pipeline": [{"$listSearchIndexes": {}}], "cursor": {}})
    found: list[Any] = reply["cursor"]["firstBatch"]
    return found


async def change_the_model(change: Change, folder: Path, kills: int) -> None:
    db = change.db
    await old_search(db, change.count)
    await new(folder)
    edit_template(folder, COUNTED)
    async with anyio.create_task_group() as searching:
        searching.start_soon(change.search)
        async with anyio.create_task_group() as editing:
            editing.start_soon(change.edit)
            most = change.count // BATCH // (kills + 2)
            for _ in range(kills):
                await change.run_until_killed(change.chance.randrange(most // 2, most))
            editing.cancel_scope.cancel()
        ended = await change.run()
        assert ended.returncode == 0, ended.stderr.decode()
        searching.cancel_scope.cancel()
    texts = [text for call in calls(change.calls) for text in call]
    assert len(set(texts)) <= change.count + change.edits
    # Embedded twice is only what was on its way at a kill: what four calls at once had, and two batches.
    assert len(texts) - len(set(texts)) <= kills * 6 * BATCH
    async for page in db["pages"].find():
        assert page["embedding_2"] == vector(page["content"])
    await check(db, directory=folder, standard_indexes={}, vectors=True)
    for name in ("vec_pages_1", "vec_pages_2"):  # back, and there again
        await switch_search_alias(db["pages"], "vec_pages", to=name)
        assert await SearchAliases(db).index("vec_pages") == name
    (folder / "002_contract.py").write_text(written((folder / "later_another_model.py").read_text()))
    await migrate(db, directory=folder, standard_indexes={}, wait=True)
    assert await db["pages"].find_one({"embedding_1": {"$exists": True}}) is None
    assert [index["name"] for index in await listing(db)] == ["vec_pages_2"]


@pytest.mark.seconds(120)
@pytest.mark.limits(alias_grace=0.2)
async def test_a_model_is_changed_while_texts_are_edited_and_the_run_is_killed(
    db: Database, folder: Path, local_server: LocalServer, local_clock: ManualClock
) -> None:
    await change_the_model(Change(db, folder, local_server, local_clock, 1_000), folder, kills=1)


@pytest.mark.heavy
@pytest.mark.seconds(3600)
@pytest.mark.limits(alias_grace=0.2)
async def test_twenty_thousand_pages_are_embedded_once_though_the_run_is_killed_ten_times(
    db: Database, folder: Path, local_server: LocalServer, local_clock: ManualClock
) -> None:
    await change_the_model(Change(db, folder, local_server, local_clock, 20_000), folder, kills=10)


@pytest.mark.limits(alias_grace=0.0)
async def test_the_change_is_taken_back(db: Database, folder: Path) -> None:
    await old_search(db, 20)
    await new(folder)
    edit_template(folder, ANSWER)
    await migrate(db, directory=folder, standard_indexes={}, wait=True)
    await rollback(db, directory=folder)
    assert await SearchAliases(db).index("vec_pages") == "vec_pages_1"
    page = await db["pages"].find_one({"_id": 3})
    assert page == {"_id": 3, "content": "text 3", "embedding_1": vector("text 3", 1)}
