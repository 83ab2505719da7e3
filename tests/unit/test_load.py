"""Scripts are run as their authors expect: whole, once, off the event loop, on the run's own database."""

import asyncio
import os
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightodm
import lightodm.connection
import pytest
from motor.motor_asyncio import AsyncIOMotorClient, AsyncIOMotorDatabase
from pymongo import AsyncMongoClient

from mydocs.localserver import LocalServer
from mydocs.migrations import migrate
from mydocs.migrations.errors import MigrationFailed, ScriptsInvalid
from mydocs.migrations.scripts import load
from mydocs.migrations.scripts.discover import discover

Db = AsyncIOMotorDatabase[dict[str, Any]]
Write = Callable[[str], Path]

GUARDED = """
    from lightodm import get_database
    from pymongo.operations import SearchIndexModel

    def run():
        db = get_database()
        db["pages"].insert_one({"page": 1})
        db["pages"].create_search_index(
            model=SearchIndexModel(name="ft_pages", definition={"mappings": {"dynamic": False}})
        )
        print("Created index ft_pages")

    if __name__ == "__main__":
        run()
"""
TOP_LEVEL = """
    from lightodm import get_database
    from pymongo.operations import SearchIndexModel

    db = get_database()
    db["pages"].insert_one({"page": 1})
    db["pages"].create_search_index(
        model=SearchIndexModel(name="ft_pages", definition={"mappings": {"dynamic": False}})
    )
    print("Created index ft_pages")
"""
FACTS = """
    import asyncio, os, sys, threading
    from lightodm import get_database
    try:
        asyncio.get_running_loop()
        loop = True
    except RuntimeError:
        loop = False
    import __main__
    get_database()["facts"].insert_one({
        "pid": os.getpid(),
        "name": __name__, "main": __main__.__dict__ is globals(), "thread": threading.current_thread().name,
        "loop": loop, "argv": sys.argv, "file": __file__, "path": sys.path[0], "doc": __doc__,
    })
"""


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def put(text: str) -> Path:
        path = tmp_path / "001_script.py"
        path.write_text(textwrap.dedent(text))
        return path

    return put


async def run(db: Any, path: Path) -> None:
    await migrate(db, directory=path.parent, standard_indexes={})


@pytest.mark.parametrize("become", [None, "# coding: none\n", "up = None\n"], ids=["gone", "unreadable", "edited"])
def test_a_script_is_what_was_planned_whatever_becomes_of_its_file(write: Write, become: str | None) -> None:
    path = write("PLANNED = True\nasync def up(db): pass\n")
    (script,) = discover(path.parent).scripts
    path.unlink()
    if become is not None:
        path.write_text(become)
    assert load.load_async(script).PLANNED
    assert load.load_plain(script).startswith("PLANNED")


@pytest.mark.parametrize("text", [pytest.param(GUARDED, id="main guard"), pytest.param(TOP_LEVEL, id="top level")])
@pytest.mark.anyio
async def test_the_application_s_own_scripts_run_once_and_unchanged(
    local_db: Db, write: Write, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(text)
    await run(local_db, path)
    await run(local_db, path)
    assert await local_db["pages"].count_documents({}) == 1
    listing = await local_db["pages"].aggregate([{"$listSearchIndexes": {}}]).to_list(None)
    assert [index["name"] for index in listing] == ["ft_pages"]
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "Created index ft_pages\n")


@pytest.mark.anyio
async def test_a_plain_script_is_the_main_module_of_a_process_of_its_own(local_db: Db, write: Write) -> None:
    path = write(FACTS)
    before = (sys.argv, sys.path[:], sys.modules["__main__"], sys.stdout)
    await run(local_db, path)
    facts = await local_db["facts"].find_one({}, {"_id": 0})
    assert facts is not None
    assert facts.pop("pid") != os.getpid()
    assert facts == {
        "thread": "MainThread",
        "name": "__main__",
        "main": True,
        "loop": False,
        "argv": [str(path)],
        "file": str(path),
        "path": str(path.parent),
        "doc": None,
    }
    assert (sys.argv, sys.path, sys.modules["__main__"], sys.stdout) == before


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param("import sys; sys.exit(1)", "failed, line 1: exited with status 1", id="status 1"),
        pytest.param("raise SystemExit('no way')", "failed, line 1: no way", id="status as a text"),
        pytest.param("x = 1\n\nraise ValueError('bad')", "failed, line 3: ValueError: bad", id="exception"),
        pytest.param(
            "def f():\n    return 1 / 0\n\nf()",
            "failed, line 2: ZeroDivisionError",
            id="the innermost line of the script",
        ),
        pytest.param("import json\njson.loads('{')", "failed, line 2: JSONDecodeError", id="raised elsewhere"),
        pytest.param("raise KeyError()", r"failed, line 1: KeyError$", id="without a message"),
        pytest.param(
            "async def up(db):\n    raise SystemExit(2)", "exited with status 2", id="exit of an async script"
        ),
    ],
)
@pytest.mark.anyio
async def test_a_failure_names_file_line_and_reason(local_db: Db, write: Write, text: str, says: str) -> None:
    with pytest.raises(MigrationFailed, match=says):
        await run(local_db, write(text))


@pytest.mark.parametrize(
    "text",
    ["raise SystemExit", "raise SystemExit(0)", "exit()", "async def up(db):\n    raise SystemExit(0)"],
)
@pytest.mark.anyio
async def test_leaving_with_status_0_is_success(local_db: Db, write: Write, text: str) -> None:
    await run(local_db, write(text))
    entry = await local_db["_migrations"].find_one({"_id": "001"})
    assert entry is not None
    assert entry["state"] == "applied"


@pytest.mark.anyio
async def test_a_module_of_the_same_folder_can_be_imported(
    local_db: Db, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "beside_the_script.py").write_text("NAME = 'neighbour'\n")
    monkeypatch.setitem(sys.modules, "beside_the_script", None)
    del sys.modules["beside_the_script"]
    await run(
        local_db,
        write("import beside_the_script\nasync def up(db): await db[beside_the_script.NAME].insert_one({})"),
    )
    assert await local_db["neighbour"].count_documents({}) == 1


@pytest.mark.anyio
async def test_an_error_that_holds_the_password_is_told_without_it(tmp_path: Path, write: Write) -> None:
    path = write("raise ValueError('cannot reach mongodb://bob:s3cret-word@host/ with s3cret-word')")
    with LocalServer(user="bob", password="s3cret-word") as server:
        client: AsyncIOMotorClient[dict[str, Any]] = AsyncIOMotorClient(server.url)
        with pytest.raises(MigrationFailed) as caught:
            await run(client["app"], path)
        entry = await client["app"]["_migrations"].find_one({"_id": "001"})
        client.close()
    assert "s3cret" not in str(caught.value) + str(entry)


@pytest.mark.parametrize("user", [pytest.param(None, id="without login"), pytest.param("bob", id="with login")])
@pytest.mark.parametrize("driver", ["motor", "pymongo"])
@pytest.mark.anyio
async def test_lightodm_gives_the_database_of_the_run_whatever_the_connection(
    write: Write, user: str | None, driver: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MONGO_URL", "mongodb://127.0.0.1:1/")
    monkeypatch.setenv("MONGO_DB_NAME", "another")
    path = write("""
        import lightodm
        db = lightodm.get_database()
        lightodm.get_collection("seen").insert_one({"name": db.name})
        assert lightodm.get_client()[db.name]["seen"].count_documents({}) == 1
        lightodm.connection.MongoConnection().close_connection()
        db["seen"].insert_one({"name": "after the close"})
    """)
    with LocalServer(user=user, password="s3cret" if user else None) as server:
        client: Any
        client = AsyncIOMotorClient(server.url) if driver == "motor" else AsyncMongoClient(server.url)
        if driver == "pymongo":
            await client.aconnect()
        await run(client["app"], path)
        names = [document["name"] async for document in client["app"]["seen"].find().sort("name")]
        closing = client.close()
        if closing is not None:
            await closing
    assert names == ["after the close", "app"]


@pytest.mark.anyio
async def test_the_asynchronous_getters_of_lightodm_give_the_database_of_the_run(local_db: Db, write: Write) -> None:
    path = write("""
        import lightodm
        async def up(db):
            other = await lightodm.get_async_database()
            assert other.name == db.name
            await other["seen"].insert_one({})
            client = await lightodm.get_async_client()
            assert await client[db.name]["seen"].count_documents({}) == 1
    """)
    await run(local_db, path)


@pytest.mark.parametrize("text", ["print()", "raise ValueError"])
@pytest.mark.anyio
async def test_lightodm_is_left_as_it_was(local_db: Db, write: Write, text: str) -> None:
    connection = lightodm.connection
    before = (connection.MongoConnection._instance, connection._mongo_conn)  # noqa: SLF001  # what has to be restored
    try:
        await run(local_db, write(text))
    except MigrationFailed:
        assert text
    assert (connection.MongoConnection._instance, connection._mongo_conn) == before  # noqa: SLF001
    await local_db.command("ping")


@pytest.mark.anyio
async def test_two_runs_at_once_in_one_process_keep_to_their_own_databases(local_url: str, tmp_path: Path) -> None:
    client: AsyncIOMotorClient[dict[str, Any]] = AsyncIOMotorClient(local_url)
    folders = {name: tmp_path / name for name in ("red", "blue")}
    for name, folder in folders.items():
        folder.mkdir()
        for number in (1, 2, 3):
            text = f"from lightodm import get_database\nget_database()['seen'].insert_one({{'by': '{name}'}})\n"
            (folder / f"{number:03}_plain.py").write_text(text)
    async with asyncio.TaskGroup() as group:
        for name, folder in folders.items():
            group.create_task(migrate(client[name], directory=folder, standard_indexes={}))
    for name in folders:
        assert [document["by"] async for document in client[name]["seen"].find()] == [name] * 3
    client.close()


def test_an_async_script_is_checked_again_after_its_import(write: Write) -> None:
    path = write("async def up(db): pass\nup = None")
    (script,) = discover(path.parent).scripts
    with pytest.raises(ScriptsInvalid, match="there is no function `up` any more"):
        load.load_async(script)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param(
            "import nothing_such\nasync def up(db): pass", "line 1 cannot be loaded: ModuleNotFound", id="import"
        ),
        pytest.param("async def up(db): pass\nraise SystemExit(1)", "line 2 cannot be loaded: SystemExit", id="exit"),
        pytest.param("async def up(db): pass\nawait up", "line 2 cannot be loaded: SyntaxError", id="compiler's error"),
    ],
)
def test_a_script_that_cannot_be_imported_is_an_error_with_its_line(write: Write, text: str, says: str) -> None:
    (script,) = discover(write(text).parent).scripts
    with pytest.raises(ScriptsInvalid, match=says):
        load.load_async(script)


def test_a_dataclass_can_be_defined_in_a_script(write: Write) -> None:
    path = write("""
        from __future__ import annotations
        from dataclasses import dataclass
        @dataclass
        class Row:
            number: int = 1
        async def up(db): pass
    """)
    (script,) = discover(path.parent).scripts
    with load.importable([path.parent]):
        module = load.load_async(script)
        assert module.Row().number == 1
        assert sys.modules[module.__name__] is module
    assert module.__name__ not in sys.modules
