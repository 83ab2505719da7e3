"""Plain scripts are what `python script.py` is, and never outlive the run that they belong to. Real processes."""

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from motor.motor_asyncio import AsyncIOMotorDatabase

from mydocs.localserver import LocalServer
from mydocs.localserver.controls import Recorded
from mydocs.migrations import MigrationFailed, migrate
from mydocs.migrations.errors import LeaseLost, SettingsInvalid
from mydocs.migrations.ledger.lease import COLLECTION as LEASE
from mydocs.migrations.limits import Limits, limited_to

Database = AsyncIOMotorDatabase[dict[str, Any]]
Run = Callable[..., "subprocess.CompletedProcess[str]"]

pytestmark = [pytest.mark.anyio, pytest.mark.seconds(180)]  # each starts several processes

POOL = """
    import multiprocessing
    def square(number):
        return number * number
    if __name__ == "__main__":
        with multiprocessing.get_context({!r}).Pool(2) as pool:
            print(pool.map(square, [1, 2, 3]))
"""
WRITER = """
    import lightodm, os, signal, time
    {ignore}
    db = lightodm.get_database()
    db["began"].insert_one({{"pid": os.getpid()}})
    while True:
        db["written"].insert_one({{}})
        time.sleep(0.01)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "migrations"
    path.mkdir()
    return path


@pytest.fixture
def write(folder: Path) -> Callable[[str, str], Path]:
    def put(name: str, text: str) -> Path:
        path = folder / name
        path.write_text(textwrap.dedent(text))
        return path

    return put


@pytest.fixture
def start(local_server: LocalServer, tmp_path: Path) -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """Start `mydocs migrate run` on the test's server, in the folder above the scripts; none outlives the test."""
    started: list[subprocess.Popen[str]] = []

    def go(*arguments: str) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "mydocs", "migrate", "run", "--url", local_server.url, "--db", "test"]
        process = subprocess.Popen(
            [*command, *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield go
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def run(start: Callable[..., "subprocess.Popen[str]"]) -> Callable[..., Any]:
    """Run it to its end: exit code, stderr."""

    async def go(*arguments: str) -> tuple[int, str]:
        process = start(*arguments)
        _, errors = await anyio.to_thread.run_sync(process.communicate)
        return process.returncode, errors

    return go


async def seen(server: LocalServer, predicate: Callable[[Recorded], bool]) -> None:
    await anyio.to_thread.run_sync(server.controls.wait_for, predicate, 30.0)


def on(collection: str) -> Callable[[Recorded], bool]:
    return lambda recorded: recorded.body.get("insert") == collection


async def error_of(db: Database, version: str = "001") -> dict[str, Any] | None:
    entry = await db["_migrations"].find_one({"_id": version})
    assert entry is not None
    error: dict[str, Any] | None = entry["error"]
    return error


# What `python script.py` does


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param(POOL.format("fork"), "[1, 4, 9]", id="fork pool"),
        pytest.param(POOL.format("spawn"), "[1, 4, 9]", id="spawn pool"),
        pytest.param(
            """
            import asyncio
            async def main():
                print("done")
            asyncio.get_event_loop().run_until_complete(main())
            """,
            "done",
            id="get_event_loop",
        ),
        pytest.param(
            """
            import signal, os
            signal.signal(signal.SIGTERM, lambda *_: print("taken"))
            os.kill(os.getpid(), signal.SIGTERM)
            """,
            "taken",
            id="signals",
        ),
        pytest.param("import threading\nassert threading.current_thread() is threading.main_thread()\n", "", id="main"),
        pytest.param("import subprocess\nsubprocess.run(['echo', 'grandchild'])\n", "grandchild", id="a program"),
        pytest.param("import ctypes\nctypes.CDLL(None).puts(b'from C')\n", "from C", id="C"),
        pytest.param("print('caf\\u00e9 \\udce9')\n", "café \\udce9", id="text that is not a text"),
        pytest.param("print('no end', end='')\n", "no end", id="a line without an end"),
        pytest.param("raise SystemExit(0)\n", "", id="exit 0"),
        pytest.param("import sys\nsys.excepthook = lambda *_: None\nprint('hook')\n", "hook", id="hook"),
    ],
)
async def test_a_plain_script_is_run_as_python_runs_it(
    text: str, says: str, run: Any, write: Callable[[str, str], Path], local_db: Database
) -> None:
    write("001_script.py", text)
    code, errors = await run()
    assert code == 0, errors
    assert says in errors
    assert await error_of(local_db) is None


@pytest.mark.parametrize(
    ("text", "written"),
    [
        pytest.param(
            """
            import threading, time, lightodm
            db = lightodm.get_database()
            def later():
                time.sleep(0.5)
                db["written"].insert_one({})
            threading.Thread(target=later).start()
            """,
            1,
            id="thread",
        ),
        pytest.param(
            """
            import atexit, lightodm
            db = lightodm.get_database()
            atexit.register(lambda: db["written"].insert_one({}))
            """,
            1,
            id="atexit",
        ),
    ],
)
async def test_what_a_script_does_at_its_end_is_done_before_it_counts_as_applied(
    text: str, written: int, run: Any, write: Callable[[str, str], Path], local_db: Database, local_server: LocalServer
) -> None:
    write("001_script.py", text)
    code, errors = await run()
    assert code == 0, errors
    assert await local_db["written"].count_documents({}) == written
    commands = [str(recorded.body) for recorded in local_server.controls.counted()]
    last = max(place for place, body in enumerate(commands) if "'applied'" in body and "'001'" in body)
    assert any("written" in body for body in commands[:last])


@pytest.mark.parametrize(
    ("text", "kind", "says"),
    [
        pytest.param("import os\nos._exit(0)\n", "ProcessEnded", "before the script came to its end", id="os._exit(0)"),
        pytest.param("import os\nos._exit(3)\n", "ProcessEnded", "exited with status 3", id="os._exit(3)"),
        pytest.param("import sys\nsys.exit(3)\n", "SystemExit", "exited with status 3", id="exit 3"),
        pytest.param(
            "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n", "ProcessEnded", "SIGKILL", id="killed"
        ),
        pytest.param(
            "import atexit, os\natexit.register(os._exit, 0)\n", "ProcessEnded", "came to its end", id="at its exit"
        ),
        pytest.param("x = 1\n\n1 / 0\n", "ZeroDivisionError", "line 3", id="an error"),
        pytest.param("import nowhere.at_all\nprint(1)\n", "ModuleNotFoundError", "working directory", id="no module"),
    ],
)
async def test_a_plain_script_that_does_not_come_to_its_end_has_failed(
    text: str, kind: str, says: str, run: Any, write: Callable[[str, str], Path], local_db: Database
) -> None:
    write("001_script.py", text)
    write("002_next.py", "async def up(db):\n    await db['next'].insert_one({})\n")
    code, errors = await run()
    assert code == 1
    assert "001_script.py failed" in errors
    assert says in errors
    assert "Traceback" not in errors
    error = await error_of(local_db)
    assert error is not None
    assert error["type"] == kind
    assert await local_db["next"].count_documents({}) == 0


async def test_what_a_plain_script_prints_holds_no_password_and_moves_no_cursor(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from motor.motor_asyncio import AsyncIOMotorClient

    (folder / "001_script.py").write_text("print('s3cret-word \\x1b[2J mongodb://bob:s3cret-word@host/')\n")
    with LocalServer(user="bob", password="s3cret-word") as server:
        client: AsyncIOMotorClient[dict[str, Any]] = AsyncIOMotorClient(server.url)
        await migrate(client["app"], directory=folder, standard_indexes={})
        client.close()
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "s3cret" not in printed.err
    assert "\x1b" not in printed.err
    assert r"\x1b[2J" in printed.err


async def test_credentials_are_neither_in_the_arguments_nor_in_the_environment_of_the_process(folder: Path) -> None:
    from motor.motor_asyncio import AsyncIOMotorClient

    (folder / "001_script.py").write_text(
        "import lightodm, os, sys\nfacts = [*sys.orig_argv, *map(str, os.environ.items())]\n"
        "lightodm.get_database()['facts'].insert_one({'facts': facts})\n"
    )
    with LocalServer(user="bob", password="s3cret-word") as server:
        client: AsyncIOMotorClient[dict[str, Any]] = AsyncIOMotorClient(server.url)
        await migrate(client["app"], directory=folder, standard_indexes={})
        found = await client["app"]["facts"].find_one({})
        client.close()
    assert "s3cret" not in str(found)


async def test_indexes_are_seen_on_every_client_that_the_script_makes(
    local_db: Database, local_server: LocalServer, folder: Path
) -> None:
    (folder / "001_script.py").write_text(
        textwrap.dedent(f"""
        import asyncio, threading
        import pymongo
        from motor.motor_asyncio import AsyncIOMotorClient
        from pymongo.operations import SearchIndexModel
        from mydocs.migrations import ensure_search_indexes
        def index(name):
            return SearchIndexModel({{"mappings": {{"dynamic": True}}}}, name=name)
        own = pymongo.MongoClient({local_server.url!r})["test"]
        own.create_collection("pages")
        own["pages"].create_index("a")
        thread = threading.Thread(target=own["pages"].create_search_index, args=(index("threaded"),))
        thread.start()
        async def main():
            db = AsyncIOMotorClient({local_server.url!r})["test"]
            await db["pages"].create_search_index(index("async"))
            await ensure_search_indexes(db["pages"], [index("helper")])
        thread.join()
        asyncio.run(main())
        """)
    )
    await migrate(local_db, directory=folder, standard_indexes={})
    entry = await local_db["_migrations"].find_one({"_id": "001"})
    assert entry is not None
    found = {(index["name"], index["type"], index["action"]) for index in entry["indexes"]}
    assert found == {
        ("a_1", "standard", "created"),
        *((name, "search", "created") for name in ("threaded", "async", "helper")),
    }


async def test_a_data_change_of_a_plain_script_goes_on_after_its_last_batch(local_db: Database, folder: Path) -> None:
    await local_db["pages"].insert_many([{"_id": number} for number in range(12)])
    script = folder / "001_script.py"
    script.write_text(
        textwrap.dedent("""
        import asyncio, os, pathlib, lightodm
        from mydocs.migrations import transform
        marker = pathlib.Path(__file__).with_name("was_killed")
        def change(document):
            if document["_id"] == 10 and not marker.exists():
                marker.touch()
                os._exit(1)
            return {"$set": {"seen": document.get("seen", 0) + 1}}
        async def main():
            db = await lightodm.get_async_database()
            await transform(db.pages, {}, change, batch_size=2)
        asyncio.run(main())
        """)
    )
    with pytest.raises(MigrationFailed):
        await migrate(local_db, directory=folder, standard_indexes={})
    await migrate(local_db, directory=folder, standard_indexes={})
    # The batches before the kill may be done again: their places are kept while the next ones are worked on.
    assert [document["seen"] async for document in local_db["pages"].find().sort("_id", 1)][:2] == [1, 1]


# How it ends that is not let finish


async def test_a_script_that_ignores_the_interruption_is_killed_after_the_grace(
    local_db: Database,
    local_server: LocalServer,
    write: Callable[[str, str], Path],
    folder: Path,
) -> None:
    write("001_script.py", WRITER.format(ignore="signal.signal(signal.SIGINT, signal.SIG_IGN)"))
    with limited_to(Limits(script_grace=0.2)), anyio.CancelScope() as scope:
        async with anyio.create_task_group() as group:

            async def cancel() -> None:
                await seen(local_server, on("began"))
                scope.cancel()

            group.start_soon(cancel)
            await migrate(local_db, directory=folder, standard_indexes={})
    written = await local_db["written"].count_documents({})
    error = await error_of(local_db)
    assert error is not None
    assert error["type"] == "Cancelled"
    assert await local_db["written"].count_documents({}) == written


async def test_a_script_that_takes_too_long_is_interrupted_and_says_so(
    run: Any, write: Callable[[str, str], Path], local_db: Database
) -> None:
    write("001_script.py", "import time\ntime.sleep(60)\n")
    code, errors = await run("--script-timeout", "300ms")
    assert code == 1
    assert "TimedOut" in errors
    error = await error_of(local_db)
    assert error is not None
    assert error["type"] == "TimedOut"


async def test_an_async_script_that_takes_too_long_is_cancelled_and_says_so(
    local_db: Database, write: Callable[[str, str], Path], folder: Path
) -> None:
    write("001_script.py", "import asyncio\nasync def up(db):\n    await asyncio.sleep(60)\n")
    with pytest.raises(MigrationFailed, match=r"TimedOut: it ran longer than 0\.2 s") as caught:
        await migrate(local_db, directory=folder, standard_indexes={}, script_timeout=0.2)
    assert caught.value.exit_code == 1
    error = await error_of(local_db)
    assert error is not None
    assert error["type"] == "TimedOut"


@pytest.mark.parametrize("how", ["killed", "stopped"])
async def test_no_script_outlives_its_run(
    how: str,
    start: Callable[..., "subprocess.Popen[str]"],
    write: Callable[[str, str], Path],
    local_server: LocalServer,
    local_db: Database,
    ended: Callable[[int], Awaitable[None]],
) -> None:
    """Killed: the host sees the pipe end. Stopped, as by a debugger: the deadline passes by the clock."""
    write("001_script.py", WRITER.format(ignore="signal.signal(signal.SIGINT, signal.SIG_IGN)"))
    process = start("--lock-timeout", "0")
    await seen(local_server, on("written"))
    if how == "killed":
        process.kill()
    else:
        process.send_signal(signal.SIGSTOP)
    began = await local_db["began"].find_one()
    assert began is not None
    await ended(began["pid"])


async def test_no_script_writes_beside_its_successor(
    start: Callable[..., "subprocess.Popen[str]"],
    write: Callable[[str, str], Path],
    local_server: LocalServer,
    local_db: Database,
) -> None:
    """The holder is stopped in the middle; whoever takes the lease over runs the same script, now corrected."""
    write("001_script.py", WRITER.format(ignore="signal.signal(signal.SIGINT, signal.SIG_IGN)"))
    holder = start("--lock-timeout", "0")
    await seen(local_server, on("written"))
    holder.send_signal(signal.SIGSTOP)
    write("001_script.py", "import lightodm\nlightodm.get_database()['succeeded'].insert_one({})\n")
    successor = start()
    _, errors = await anyio.to_thread.run_sync(successor.communicate)
    assert successor.returncode == 0, errors
    taken = await local_db[LEASE].find_one({"_id": "lease"})
    assert taken is not None
    assert taken["term"] == 2
    holder.send_signal(signal.SIGCONT)
    _, errors = await anyio.to_thread.run_sync(holder.communicate)
    assert holder.returncode == 7, errors
    written = [r.body["insert"] for r in local_server.controls.records() if r.name == "insert"]
    first = written.index("succeeded")
    assert "written" in written[:first]
    assert "written" not in written[first:]
    entry = await local_db["_migrations"].find_one({"_id": "001"})
    assert entry is not None
    assert (entry["state"], entry["run"]["term"]) == ("applied", 2)


async def test_a_lost_lease_kills_the_script_and_all_that_it_has_started(
    local_db: Database, local_server: LocalServer, write: Callable[[str, str], Path], folder: Path
) -> None:
    write(
        "001_script.py",
        """
        import multiprocessing, time
        import lightodm
        def work():
            db = lightodm.get_database()
            while True:
                db["written"].insert_one({})
                time.sleep(0.01)
        worker = multiprocessing.get_context("fork").Process(target=work)
        worker.start()
        work()
        """,
    )

    async def steal() -> None:
        await seen(local_server, lambda r: on("written")(r) and local_server.controls.counts()["insert"] > 20)
        await local_db[LEASE].update_one({"_id": "lease"}, {"$set": {"owner.id": "thief"}, "$inc": {"term": 1}})

    with pytest.raises(LeaseLost):  # noqa: PT012
        async with anyio.create_task_group() as group:
            group.start_soon(steal)
            try:
                await migrate(local_db, directory=folder, standard_indexes={})
            except LeaseLost as error:
                lost = error
            else:
                raise AssertionError("the lease was not lost")
        raise lost
    written = await local_db["written"].count_documents({})
    entry = await local_db["_migrations"].find_one({"_id": "001"})
    assert entry is not None
    assert entry["state"] == "running"
    assert await local_db["written"].count_documents({}) == written


async def test_a_client_with_a_callback_is_refused_before_anything_runs(
    local_server: LocalServer, write: Callable[[str, str], Path], folder: Path
) -> None:
    from pymongo import AsyncMongoClient

    write("001_first.py", "async def up(db):\n    await db['ran'].insert_one({})\n")
    write("002_plain.py", "print('x')\n")
    async with AsyncMongoClient[dict[str, Any]](local_server.url, server_selector=lambda servers: servers) as client:
        with pytest.raises(SettingsInvalid, match="server_selector") as caught:
            await migrate(client["app"], directory=folder, standard_indexes={})
        assert "async script" in str(caught.value)
        assert await client["app"]["ran"].count_documents({}) == 0


# Modules of async scripts


async def test_a_module_beside_the_scripts_can_be_imported_inside_up(
    run: Any, write: Callable[[str, str], Path], local_db: Database
) -> None:
    write("helpers.py", "def slug(text):\n    return text.lower()\n")
    write(
        "001_lazy.py",
        "async def up(db):\n    from helpers import slug\n    await db.x.insert_one({'_id': slug('A')})\n",
    )
    code, errors = await run()
    assert code == 0, errors
    assert await local_db["x"].find_one({}) == {"_id": "a"}


async def test_annotations_are_resolved_and_objects_pickled_inside_up(
    local_db: Database, write: Callable[[str, str], Path], folder: Path
) -> None:
    write(
        "001_models.py",
        """
        from __future__ import annotations
        import pickle, typing
        from pydantic import BaseModel
        class Order(BaseModel):
            lines: list[Line]
        class Line(BaseModel):
            number: int
        async def up(db):
            order = Order.model_validate({"lines": [{"number": 1}]})
            assert pickle.loads(pickle.dumps(order)) == order
            assert typing.get_type_hints(Order)["lines"] == list[Line]
            await db.orders.insert_one(order.model_dump())
        """,
    )
    before = set(sys.modules)  # a script of another test may still be there
    await migrate(local_db, directory=folder, standard_indexes={})
    assert await local_db["orders"].count_documents({"lines.number": 1}) == 1
    assert [name for name in set(sys.modules) - before if name.startswith("mydocs_migration_")] == []


async def test_the_scripts_of_two_folders_each_get_their_own_helper(
    local_server: LocalServer, local_db: Database, tmp_path: Path
) -> None:
    for name in ("red", "blue"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "helpers.py").write_text(f"NAME = {name!r}\n")
        (tmp_path / name / "001_a.py").write_text(
            "async def up(db):\n    from helpers import NAME\n    await db.x.insert_one({'by': NAME})\n"
        )
    client = local_db.client
    for name in ("red", "blue"):
        await migrate(client[name], directory=tmp_path / name, standard_indexes={})
        assert [document["by"] async for document in client[name]["x"].find()] == [name]
    errors: list[Exception] = []

    async def one(name: str) -> None:
        try:
            await migrate(client[f"{name}-2"], directory=tmp_path / name, standard_indexes={})
        except Exception as error:  # noqa: BLE001  # looked at below
            errors.append(error)

    gate = threading.Event()
    in_red = lambda recorded: on("x")(recorded) and recorded.body["$db"] == "red-2"  # noqa: E731
    local_server.controls.delay(gate, when=in_red)
    async with anyio.create_task_group() as group:
        group.start_soon(one, "red")
        await seen(local_server, in_red)
        await one("blue")
        gate.set()
    assert [document["by"] async for document in client["red-2"]["x"].find()] == ["red"]
    (error,) = errors
    assert str(tmp_path / "red") in str(error)
    assert str(tmp_path / "blue") in str(error)


async def test_the_command_line_searches_the_working_directory(
    run: Any, write: Callable[[str, str], Path], tmp_path: Path, local_db: Database
) -> None:
    (tmp_path / "the_application.py").write_text("NAME = 'here'\n")
    for name, text in {
        "001_async.py": "import the_application\nasync def up(db):\n    assert the_application.NAME == 'here'\n",
        "002_plain.py": "import the_application\nassert the_application.NAME == 'here'\n",
    }.items():
        write(name, text)
    code, errors = await run()
    assert code == 0, errors


async def test_a_helper_that_up_imports_late_uses_the_database_of_the_run(
    run: Any, write: Callable[[str, str], Path], tmp_path: Path, local_db: Database
) -> None:
    (tmp_path / "the_models.py").write_text(
        "import lightodm\ndef put():\n    lightodm.get_collection('put').insert_one({'_id': 1})\n"
    )
    write(
        "001_late.py",
        "import asyncio\nasync def up(db):\n    from the_models import put\n    await asyncio.to_thread(put)\n",
    )
    code, errors = await run()
    assert code == 0, errors
    assert await local_db["put"].count_documents({}) == 1


# What would be left undone without a word


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param(
            "async def upgrade(db):\n    await db.x.create_index('a')\n", "line 1: does nothing", id="upgrade"
        ),
        pytest.param("async def up(db):\n    db.things.insert_one({})\n", "line 2: `db.things.insert_one", id="await"),
        pytest.param("async def up(db):\n    yield\n", "line 2: `up` yields", id="generator"),
    ],
)
async def test_a_script_that_would_do_nothing_is_refused_before_the_first_one_runs(
    text: str, says: str, run: Any, write: Callable[[str, str], Path], local_db: Database
) -> None:
    write("001_first.py", "async def up(db):\n    await db['ran'].insert_one({})\n")
    write("002_bad.py", text)
    code, errors = await run()
    assert code == 1
    assert f"002_bad.py, {says}" in errors
    assert await local_db["ran"].count_documents({}) == 0


@pytest.mark.parametrize(
    ("text", "named"),
    [
        pytest.param("    asyncio.create_task(asyncio.sleep(60))\n", "sleep", id="still running"),
        pytest.param("    asyncio.create_task(bad(60))\n", r"bad \(line 2\)", id="still running, of the script"),
        pytest.param(
            "    asyncio.create_task(bad(0.05))\n    await asyncio.sleep(0)\n", r"bad \(line 2\)", id="fails later"
        ),
        pytest.param(
            "    t = asyncio.create_task(bad(0))\n    await asyncio.sleep(0.05)\n    del t\n",
            r"bad \(line 2\)",
            id="has failed",
        ),
    ],
)
async def test_a_task_that_a_script_leaves_fails_it(
    text: str, named: str, local_db: Database, write: Callable[[str, str], Path], folder: Path
) -> None:
    write(
        "001_tasks.py",
        "import asyncio\nasync def bad(seconds):\n    await asyncio.sleep(seconds)\n    raise ValueError('lost')\n"
        f"async def up(db):\n{text}",
    )
    with pytest.raises(MigrationFailed, match=f"the task {named} (was|has)"):
        await migrate(local_db, directory=folder, standard_indexes={})


async def test_tasks_that_a_script_awaits_or_cancels_are_its_own_affair(
    local_db: Database, write: Callable[[str, str], Path], folder: Path
) -> None:
    write(
        "001_tasks.py",
        """
        import asyncio
        async def up(db):
            task = asyncio.create_task(asyncio.sleep(60))
            async with asyncio.TaskGroup() as group:
                group.create_task(asyncio.sleep(0))
            await asyncio.gather(asyncio.sleep(0), asyncio.sleep(0))
            await db.x.insert_one({})
            task.cancel()
        """,
    )
    factory = asyncio.get_running_loop().get_task_factory()
    await migrate(local_db, directory=folder, standard_indexes={})
    assert asyncio.get_running_loop().get_task_factory() is factory
