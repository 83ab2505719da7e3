"""Scripts that leave in odd ways, close what is not theirs, or are begun twice."""

import asyncio
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
from motor.motor_asyncio import AsyncIOMotorClient

from mydocs.localserver import LocalServer
from mydocs.localserver.clock import ManualClock
from mydocs.migrations import MigrationFailed, NotReady, migrate
from mydocs.migrations.driver.client import Database
from mydocs.migrations.errors import ChangedScripts, NeedsDecision
from mydocs.migrations.ledger import documents
from mydocs.migrations.ledger import entries as ledger
from mydocs.migrations.ledger import lease as leases
from mydocs.migrations.limits import Limits, limited_to
from mydocs.migrations.model import Entry, MigrationState
from mydocs.migrations.reporting.events import Event, LeaseWaiting

Write = Callable[[str, str], Path]

pytestmark = pytest.mark.anyio

CREATE_IF_NOT_LISTED = """
    from lightodm import get_database
    from pymongo.operations import SearchIndexModel
    db = get_database()
    if "pages" not in db.list_collection_names():
        db.create_collection("pages")
    if not list(db["pages"].list_search_indexes("ft")):
        db["pages"].create_search_index(SearchIndexModel({"mappings": {}}, name="ft"))
    db["tries"].insert_one({})
    if db["tries"].count_documents({}) == 1:
        raise ValueError("the first try fails")
"""


STUBBORN = """
import asyncio
async def up(db):
    try:
        await db["runs"].insert_one({})
        await asyncio.sleep(9)
    except asyncio.CancelledError:
        for _ in range(3):
            await db["cleaned"].insert_one({})
"""
CLOSES = """
    import inspect
    async def up(db):
        closed = db.client.close()
        if inspect.isawaitable(closed):
            await closed
"""


async def entry_of(db: Database, version: str) -> Entry:
    return next(entry for entry in (await ledger.read(db)).entries if entry.version == version)


@pytest.mark.parametrize(
    ("text", "line", "kind", "message"),
    [
        pytest.param("class Boom(BaseException): ...\nraise Boom('x')", 2, "Boom", "Boom: x", id="plain BaseException"),
        pytest.param("raise GeneratorExit", 1, "GeneratorExit", "GeneratorExit", id="plain GeneratorExit"),
        pytest.param("raise KeyboardInterrupt", 1, "KeyboardInterrupt", "KeyboardInterrupt", id="plain interrupt"),
        pytest.param("raise SystemExit(3)", 1, "SystemExit", "exited with status 3", id="plain exit"),
        pytest.param("async def up(db):\n    raise SystemExit('no')", 2, "SystemExit", "no", id="async exit"),
        pytest.param(
            "async def up(db):\n    raise KeyboardInterrupt", 2, "KeyboardInterrupt", "Keyboard", id="async interrupt"
        ),
        pytest.param(
            "import asyncio\nasync def up(db):\n    t = asyncio.create_task(asyncio.sleep(9))\n"
            "    await asyncio.sleep(0)\n    t.cancel()\n    await t",
            6,
            "CancelledError",
            "was cancelled",
            id="a cancellation of its own",
        ),
        pytest.param(
            "import asyncio\nasync def up(db):\n    asyncio.current_task().cancel()\n    await asyncio.sleep(9)",
            4,
            "CancelledError",
            "was cancelled",
            id="its own cancellation",
        ),
        pytest.param(
            "import asyncio\nasync def up(db):\n    asyncio.get_running_loop().stop()\n",
            3,
            "NotPossible",
            "cannot stop the event loop",
            id="an end of the event loop",
        ),
        pytest.param(
            "raise ValueError('no title in caf\\udce9.txt')",
            1,
            "ValueError",
            r"no title in caf\\udce9\.txt",
            id="a file name that is not a text",
        ),
        pytest.param(
            "class Odd(Exception):\n    def __str__(self): return self\nraise Odd()",
            3,
            "Odd",
            "its text cannot be shown",
            id="no text",
        ),
        pytest.param(
            "class Odd(Exception):\n    def __str__(self): raise SystemExit(0)\nasync def up(db):\n    raise Odd()",
            4,
            "Odd",
            "its text cannot be shown",
            id="a text that exits",
        ),
        pytest.param(
            "import pymongo.errors\nclass Odd(pymongo.errors.PyMongoError):\n    def __str__(self): raise ValueError\n"
            "async def up(db):\n    raise Odd()",
            5,
            "Odd",
            "its text cannot be shown",
            id="a driver's error without text",
        ),
        pytest.param(
            "import asyncio\nasync def bad():\n    raise ValueError('inner')\nasync def up(db):\n"
            "    async with asyncio.TaskGroup() as g:\n        g.create_task(bad())",
            3,
            "ValueError",
            "ValueError: inner",
            id="alone in a group",
        ),
    ],
)
async def test_whatever_a_script_raises_is_a_failure_with_its_line(
    text: str, line: int, kind: str, message: str, db: Database, folder: Path, write: Write
) -> None:
    write("001_odd.py", text)
    with pytest.raises(MigrationFailed, match=f"001_odd.py failed, line {line}: .*{message}"):
        await migrate(db, directory=folder)
    entry = await entry_of(db, "001")
    assert entry.state is MigrationState.FAILED
    assert entry.error is not None
    assert entry.error.type == kind


async def test_a_text_without_end_is_cut_wherever_it_is_shown(db: Database, folder: Path, write: Write) -> None:
    write("001_long.py", "raise ValueError('x' * 100_000)\n")
    with pytest.raises(MigrationFailed) as caught:
        await migrate(db, directory=folder)
    assert len(str(caught.value)) < 2_100


@pytest.mark.parametrize(
    ("line", "says"),
    [
        pytest.param("await transform(db['x'], {}, lambda d: None)", "OperationFailure: not allowed$", id="raw reply"),
        pytest.param("await db['y'].insert_many([{'_id': 1}, {'_id': 1}])", "BulkWriteError: E11000", id="bulk write"),
    ],
)
async def test_a_driver_s_error_is_the_server_s_sentence_and_no_dump(
    line: str, says: str, db: Database, local_server: LocalServer, folder: Path, write: Write
) -> None:
    write("001_asks.py", f"from mydocs.migrations import transform\nasync def up(db):\n    {line}\n")
    local_server.controls.error(2, "not allowed", when=lambda recorded: recorded.body.get("find") == "x")
    with pytest.raises(MigrationFailed, match=says) as caught:
        await migrate(db, directory=folder)
    assert not any(dump in str(caught.value) for dump in ("full error", "RawBSON", "'op'"))


async def test_a_group_of_errors_is_told_whole(db: Database, folder: Path, write: Write) -> None:
    write("001_two.py", "async def up(db):\n    raise ExceptionGroup('g', [ValueError('a'), KeyError('b')])\n")
    with pytest.raises(MigrationFailed, match="ValueError: a; KeyError: 'b'"):
        await migrate(db, directory=folder)


@pytest.mark.parametrize(
    "text",
    [
        "import io, sys\nsys.stdout = io.TextIOWrapper(sys.stdout.buffer, encoding='utf-8')\nprint('x')\n",
        "import sys\nprint('x')\nsys.stdout.close()\n",
        "import sys\nsys.stderr = None\n",
        "import sys\nsys.stderr.close()\n",
        "import subprocess, sys\nsubprocess.run([sys.executable, '-c', 'print(1)'], stdout=sys.stdout, check=True)\n",
    ],
    ids=["wrapped", "closed", "errors taken away", "errors closed", "given to a process"],
)
async def test_a_plain_script_may_do_what_it_likes_with_its_output(
    text: str, db: Database, folder: Path, write: Write, capfd: pytest.CaptureFixture[str]
) -> None:
    write("001_output.py", text)
    write("002_next.py", "print('still here')\n")
    await migrate(db, directory=folder)
    out, err = capfd.readouterr()
    assert out == ""
    assert "still here" in err


@pytest.mark.parametrize(
    "text",
    [
        "import lightodm\nlightodm.get_database().client.close()\n",
        CLOSES,
    ],
    ids=["plain", "async"],
)
async def test_a_script_that_closes_its_client_closes_nothing(
    text: str, any_db: Database, folder: Path, write: Write
) -> None:
    write("001_closes.py", text)
    write("002_next.py", "async def up(db):\n    await db['x'].insert_one({})\n")
    report = await migrate(any_db, directory=folder)
    assert [migration.state for migration in report.migrations] == [MigrationState.APPLIED] * 2
    assert "close" not in vars(getattr(any_db.client, "delegate", any_db.client))


@pytest.mark.parametrize("text", ["import os\nos.chdir('/')\n", "import os\nasync def up(db):\n    os.chdir('/')\n"])
async def test_a_script_that_changes_the_working_directory_does_so_for_itself(
    text: str, db: Database, folder: Path, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    write("001_leaves.py", text)
    write("002_reads.py", "import pathlib\nassert '002' in pathlib.Path(__file__).read_text()\n")
    report = await migrate(db, directory=folder.name)
    assert [migration.state for migration in report.migrations] == [MigrationState.APPLIED] * 2


async def test_a_working_directory_that_is_gone_is_no_script_s_failure(
    db: Database, folder: Path, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = folder / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    write("001_plain.py", "print('done')\n")
    report = await migrate(db, directory=folder)
    assert report.migrations[0].state is MigrationState.APPLIED


async def test_a_plain_script_may_print_where_there_is_no_standard_error(
    db: Database, folder: Path, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", None)  # as `2>&-` leaves it
    write("001_plain.py", "import sys\nprint('a')\nprint('b', file=sys.stderr)\n")
    await migrate(db, directory=folder)


async def test_what_runs_and_is_recorded_is_what_was_checked(db: Database, folder: Path, write: Write) -> None:
    """A script, or a checkout, may write to the folder while the run is under way."""
    second = write(
        "002_second.py", "import lightodm\nlightodm.get_database()['runs'].insert_one({'_id': 'as checked'})\n"
    )
    write("001_first.py", f"import pathlib\npathlib.Path({str(second)!r}).write_text('raise ValueError')\n")
    await migrate(db, directory=folder)
    assert [document["_id"] async for document in db["runs"].find()] == ["as checked"]
    with pytest.raises(ChangedScripts, match="002_second"):
        await migrate(db, directory=folder)


async def test_a_script_that_is_edited_while_the_lease_is_waited_for_runs_as_it_is_then(
    db: Database, folder: Path, write: Write
) -> None:
    path = write("001_first.py", "async def up(db):\n    await db['runs'].insert_one({'_id': 'before'})\n")
    holder = await leases.acquire(db, leases.Owner())
    assert holder is not None
    waiting = asyncio.Event()

    def sink(event: Event) -> None:
        if isinstance(event, LeaseWaiting):
            waiting.set()

    async with anyio.create_task_group() as group:
        group.start_soon(partial(migrate, db, directory=folder, on_event=sink))
        await waiting.wait()
        path.write_text("async def up(db):\n    await db['runs'].insert_one({'_id': 'after'})\n")
        await leases.release(db, holder)
    assert [document["_id"] async for document in db["runs"].find()] == ["after"]
    assert (await migrate(db, directory=folder)).migrations == ()


async def cancelled_in_its_script(db: Database, local_server: LocalServer, folder: Path) -> None:
    """Cancel a run, once, when its script has begun to write."""
    run = asyncio.create_task(migrate(db, directory=folder))
    begun = lambda recorded: recorded.body.get("insert") == "runs"  # noqa: E731
    await anyio.to_thread.run_sync(local_server.controls.wait_for, begun, 10.0)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run


async def test_a_script_s_clean_up_is_not_broken_off_by_a_cancellation_that_came_once(
    any_db: Database, local_server: LocalServer, folder: Path, write: Write
) -> None:
    write("001_cleans.py", STUBBORN + "        raise\n")
    await cancelled_in_its_script(any_db, local_server, folder)
    assert await any_db["cleaned"].count_documents({}) == 3
    failed = await entry_of(any_db, "001")
    assert (failed.state, failed.error and failed.error.type) == ("failed", "Cancelled")


@pytest.mark.parametrize("broken", ["commitTransaction", "cleaned"], ids=["at its commit", "by its clean-up"])
async def test_a_cancellation_is_not_lost_where_the_transaction_is_to_be_run_again(
    any_db: Database, local_server: LocalServer, folder: Path, write: Write, broken: str
) -> None:
    write("001_stubborn.py", "TRANSACTIONAL = True" + STUBBORN.replace("up(db)", "up(db, session)"))
    write("002_next.py", "async def up(db):\n    raise ValueError\n")
    is_it = lambda recorded: broken in (recorded.name, recorded.body.get("insert"))  # noqa: E731
    local_server.controls.error(251, "gone", ["TransientTransactionError"], when=is_it)
    await cancelled_in_its_script(any_db, local_server, folder)
    assert [entry.version for entry in (await ledger.read(any_db)).entries if entry.script] == ["001"]


@pytest.mark.parametrize(
    "text",
    [STUBBORN, "TRANSACTIONAL = True" + STUBBORN.replace("up(db)", "up(db, session)")],
    ids=["async", "transactional"],
)
async def test_a_script_that_goes_on_although_it_was_cancelled_is_applied_and_the_last(
    text: str, any_db: Database, local_server: LocalServer, folder: Path, write: Write
) -> None:
    write("001_stubborn.py", text)
    write("002_next.py", "async def up(db):\n    raise ValueError\n")
    await cancelled_in_its_script(any_db, local_server, folder)
    assert {e.version: e.state for e in (await ledger.read(any_db)).entries if e.script} == {"001": "applied"}


async def test_an_index_of_a_failed_attempt_is_waited_for_after_the_next(
    db: Database, local_server: LocalServer, folder: Path, write: Write
) -> None:
    local_server.search.outcome("ft", build_seconds=3600)
    write("001_search.py", CREATE_IF_NOT_LISTED)
    with pytest.raises(MigrationFailed):
        await migrate(db, directory=folder)
    with pytest.raises(NotReady, match=r"pages\.ft"):
        await migrate(db, directory=folder, wait=True, timeout=0.2)


async def test_an_index_of_a_killed_attempt_is_waited_for_after_the_next(
    db: Database, local_server: LocalServer, local_clock: ManualClock, folder: Path, write: Write
) -> None:
    """A kill leaves the entry running and without indexes; here it is put back to that."""
    local_server.search.outcome("ft", build_seconds=3600)
    write("001_search.py", CREATE_IF_NOT_LISTED)
    with pytest.raises(MigrationFailed):
        await migrate(db, directory=folder)
    await db[documents.COLLECTION].update_one({"_id": "001"}, {"$set": {"state": "running", "indexes": []}})
    local_clock.advance(leases.LEASE_SECONDS)
    with pytest.raises(NotReady, match=r"pages\.ft"):
        await migrate(db, directory=folder, wait=True, timeout=0.2)


@pytest.mark.parametrize("change", [{"attempts": 2.0}, {"attempts": None}, {"run.id": None}], ids=str)
async def test_an_entry_that_somebody_edited_can_be_run_again(
    change: dict[str, object], db: Database, folder: Path, write: Write
) -> None:
    write("001_fails.py", "async def up(db):\n    raise ValueError\n")
    with pytest.raises(MigrationFailed):
        await migrate(db, directory=folder)
    fields = {key: value for key, value in change.items() if value is not None}
    gone = {key: "" for key, value in change.items() if value is None}
    update = ({"$set": fields} if fields else {}) | ({"$unset": gone} if gone else {})
    await db[documents.COLLECTION].update_one({"_id": "001"}, update)
    write("001_fails.py", "async def up(db):\n    pass\n")
    await migrate(db, directory=folder)
    assert (await entry_of(db, "001")).state is MigrationState.APPLIED


async def test_a_script_that_must_not_run_twice_does_not_even_after_the_lease_document_was_removed(
    db: Database, folder: Path, write: Write
) -> None:
    write("001_once.py", "IDEMPOTENT = False\nasync def up(db):\n    await db['runs'].insert_one({})\n")
    await migrate(db, directory=folder)
    await db[documents.COLLECTION].update_one({"_id": "001"}, {"$set": {"state": "running", "run.term": 5}})
    await db[leases.COLLECTION].delete_many({})
    lease = await leases.acquire(db, leases.Owner())  # somebody else's command, in between
    assert lease is not None
    await leases.release(db, lease)
    with pytest.raises(NeedsDecision):
        await migrate(db, directory=folder)
    assert await db["runs"].count_documents({}) == 1


async def test_a_script_that_takes_every_connection_does_not_starve_the_lease(
    local_server: LocalServer, folder: Path, write: Write
) -> None:
    """Its only connection is held up until three renewals have come, which need one of their own."""
    write("001_holds.py", "async def up(db):\n    await db['held'].insert_one({})\n")
    gate = threading.Event()
    controls = local_server.controls
    controls.delay(gate, when=lambda recorded: recorded.body.get("insert") == "held")
    renewed = 0

    def count(_: object) -> None:
        nonlocal renewed
        renewed += 1
        if renewed == 3:
            gate.set()

    controls.call(count, when=lambda recorded: recorded.body.get("update") == leases.COLLECTION, times=None)
    client: AsyncIOMotorClient[dict[str, object]] = AsyncIOMotorClient(local_server.url, maxPoolSize=1)
    try:
        with limited_to(Limits(renew_every=0.05)):
            await asyncio.wait_for(migrate(client["app"], directory=folder), 15)
    finally:
        client.close()
    assert renewed >= 3
