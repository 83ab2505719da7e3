"""Scripts that say TRANSACTIONAL = True: the script and its record in the ledger happen together or not at all."""

import asyncio
import contextlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from pymongo.asynchronous.database import AsyncDatabase

from mydocs.localserver import LocalServer
from mydocs.migrations import MigrationFailed, migrate
from mydocs.migrations.driver import commands
from mydocs.migrations.driver.client import Database
from mydocs.migrations.errors import LeaseLost, NotPossible
from mydocs.migrations.execution import transaction
from mydocs.migrations.model import MigrationState
from mydocs.migrations.operations.rollback import rollback
from mydocs.migrations.reporting.events import Event, StepFinished, Warned

Write = Callable[[str, str], Path]

pytestmark = pytest.mark.anyio

SCRIPT = """
    TRANSACTIONAL = True

    async def up(db, session):
        await db.things.insert_one({"_id": 1}, session=session)
        await db.things.insert_one({"_id": 2}, session=session)

    async def down(db, session):
        await db.things.delete_many({}, session=session)
"""
BROKEN = SCRIPT.replace('insert_one({"_id": 2}', 'insert_one({"_id": 1}')
TRANSIENT = ("TransientTransactionError",)


async def ids(db: Database) -> list[Any]:
    return [document["_id"] async for document in db["things"].find().sort("_id", 1)]


async def entry(db: Database) -> dict[str, Any]:
    found = await db["_migrations"].find_one({"_id": "001"})
    assert found is not None
    return found


async def test_the_script_and_its_record_are_one_transaction(
    any_db: Database, local_server: LocalServer, folder: Path, write: Write
) -> None:
    write("001_things.py", SCRIPT)
    await migrate(any_db, directory=folder, standard_indexes={})
    assert await ids(any_db) == [1, 2]
    assert ((await entry(any_db))["state"], (await entry(any_db))["seconds"] >= 0) == ("applied", True)
    inside = [r for r in local_server.controls.counted() if r.body.get("autocommit") is False]
    assert [r.name for r in inside] == ["insert", "insert", "update", "commitTransaction"]
    assert len({(r.body["lsid"]["id"], r.body["txnNumber"]) for r in inside}) == 1
    assert inside[-1].body["writeConcern"] == {"w": "majority"}


async def test_a_script_that_fails_leaves_nothing_but_its_failure(
    any_db: Database, local_server: LocalServer, folder: Path, write: Write
) -> None:
    write("001_things.py", BROKEN)
    with pytest.raises(MigrationFailed, match=r"001_things\.py failed, line 6: DuplicateKeyError"):
        await migrate(any_db, directory=folder, standard_indexes={})
    assert await ids(any_db) == []
    assert ((await entry(any_db))["state"], (await entry(any_db))["error"]["type"]) == ("failed", "DuplicateKeyError")
    write("001_things.py", SCRIPT)
    await migrate(any_db, directory=folder, standard_indexes={})
    assert await ids(any_db) == [1, 2]
    assert ((await entry(any_db))["state"], (await entry(any_db))["attempts"]) == ("applied", 2)


@pytest.mark.parametrize(
    ("command", "inserts"),
    [
        pytest.param("insert", 3 + 2, id="in the script"),
        pytest.param("update", 3 * 2 + 2, id="at the record"),
        pytest.param("commitTransaction", 3 * 2 + 2, id="at the commit"),
    ],
)
async def test_a_transient_error_runs_all_of_it_again(
    any_db: Database, local_server: LocalServer, folder: Path, write: Write, command: str, inserts: int
) -> None:
    write("001_things.py", SCRIPT)
    local_server.controls.error(
        112,
        "write conflict",
        TRANSIENT,
        when=lambda r: r.name == command and r.body.get("autocommit") is False,
        times=3,
    )
    await migrate(any_db, directory=folder, standard_indexes={})
    assert await ids(any_db) == [1, 2]
    assert ((await entry(any_db))["state"], (await entry(any_db))["attempts"]) == ("applied", 1)
    assert local_server.controls.counts()["insert"] == inserts


@pytest.mark.limits(transaction=1.0)
async def test_transient_errors_without_end_are_a_failure_once_the_time_is_up(
    db: Database, local_server: LocalServer, folder: Path, write: Write
) -> None:
    write("001_things.py", SCRIPT)
    local_server.controls.error(112, "write conflict", TRANSIENT, command="insert", times=None)
    with pytest.raises(MigrationFailed, match="write conflict"):
        await migrate(db, directory=folder, standard_indexes={})
    assert local_server.controls.counts()["insert"] > 1
    assert (await entry(db))["state"] == "failed"


async def test_a_commit_whose_reply_is_lost_is_sent_again_and_counts_once(
    any_db: Database, local_server: LocalServer, folder: Path, write: Write
) -> None:
    write("001_things.py", SCRIPT)
    local_server.controls.cut_after(command="commitTransaction", times=3)
    await migrate(any_db, directory=folder, standard_indexes={})
    assert await ids(any_db) == [1, 2]
    assert (await entry(any_db))["state"] == "applied"
    assert local_server.controls.counts()["insert"] == 2


@pytest.mark.parametrize("reverse", [False, True], ids=["up", "down"])
@pytest.mark.parametrize("happened", [True, False], ids=["it had happened", "it had not"])
@pytest.mark.limits(commit=0.0)
async def test_where_the_commit_stays_unanswered_the_ledger_says_what_happened(
    db: Database,
    local_server: LocalServer,
    folder: Path,
    write: Write,
    happened: bool,
    reverse: bool,
) -> None:
    write("001_things.py", SCRIPT)
    if reverse:
        await migrate(db, directory=folder, standard_indexes={})
    fault = local_server.controls.cut_after if happened else local_server.controls.cut_before
    fault(command="commitTransaction", times=None)
    events: list[Event] = []
    if reverse:
        run = rollback(db, directory=folder, on_event=events.append)
    else:
        run = migrate(db, directory=folder, standard_indexes={}, on_event=events.append)
    with contextlib.nullcontext() if happened else pytest.raises(MigrationFailed):
        await run
    (finished,) = [event for event in events if isinstance(event, StepFinished)]
    assert finished.state is (
        MigrationState.FAILED if not happened else MigrationState.PENDING if reverse else MigrationState.APPLIED
    )
    assert await ids(db) == ([1, 2] if happened is not reverse else [])
    if happened and reverse:
        assert await db["_migrations"].count_documents({}) == 0
        assert (await db["_migrations_log"].find_one({"direction": "down"}) or {})["outcome"] == "applied"
    else:
        assert (await entry(db))["state"] == ("applied" if happened else "failed")


async def test_a_rollback_is_one_transaction_too(
    any_db: Database, local_server: LocalServer, folder: Path, write: Write
) -> None:
    write("001_things.py", SCRIPT)
    await migrate(any_db, directory=folder, standard_indexes={})
    local_server.controls.error(112, "write conflict", TRANSIENT, command="commitTransaction")
    await rollback(any_db, directory=folder)
    assert await ids(any_db) == []
    assert await any_db["_migrations"].count_documents({}) == 0
    assert await any_db["_migrations_log"].count_documents({"direction": "down", "outcome": "applied"}) == 1


async def test_a_run_that_lost_its_entry_commits_nothing(
    db: Database, local_server: LocalServer, folder: Path, write: Write
) -> None:
    witness = ModuleType("witness")
    write(
        "001_things.py",
        """
        import witness
        TRANSACTIONAL = True
        async def up(db, session):
            await witness.take_over(db)
            await db.things.insert_one({"_id": 1}, session=session)
        """,
    )

    async def take_over(db: Database) -> None:
        await db["_migrations"].update_one({"_id": "001"}, {"$set": {"run.id": "successor"}})

    witness.__dict__["take_over"] = take_over
    sys.modules["witness"] = witness
    try:
        with pytest.raises(LeaseLost):
            await migrate(db, directory=folder, standard_indexes={})
    finally:
        del sys.modules["witness"]
    assert await ids(db) == []
    assert ((await entry(db))["state"], (await entry(db))["run"]["id"]) == ("running", "successor")


@pytest.mark.parametrize(
    ("command", "state", "written"),
    [
        pytest.param("insert", "failed", [], id="in the script: nothing of it stays"),
        pytest.param("commitTransaction", "applied", [1, 2], id="at the commit: it is carried out"),
    ],
)
async def test_a_cancelled_run_leaves_all_or_nothing(
    any_db: Database,
    local_server: LocalServer,
    folder: Path,
    write: Write,
    command: str,
    state: str,
    written: list[int],
) -> None:
    write("001_things.py", SCRIPT)
    arrived, loop = asyncio.Event(), asyncio.get_running_loop()
    task = asyncio.ensure_future(migrate(any_db, directory=folder, standard_indexes={}))
    local_server.controls.call(lambda _: loop.call_soon_threadsafe(task.cancel), command=command)
    local_server.controls.call(lambda _: loop.call_soon_threadsafe(arrived.set), command=command)
    await arrived.wait()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await ids(any_db) == written
    assert (await entry(any_db))["state"] == state


@pytest.mark.parametrize(
    "call",
    [
        'ensure_indexes(db.things, [IndexModel("a")])',
        "ensure_search_indexes(db.things, [SearchIndexModel({})])",
        'drop_search_indexes(db.things, "ft")',
        "transform(db.things, {}, lambda document: None)",
        'rename_field(db.things, "a", "b")',
        'unset_field(db.things, "a")',
    ],
)
async def test_a_helper_that_no_transaction_can_hold_is_refused_before_anything_is_sent(
    db: Database, local_server: LocalServer, folder: Path, write: Write, call: str
) -> None:
    name, arguments = call.rstrip(")").split("(", 1)
    write(
        "001_things.py",
        f"""
        from pymongo import IndexModel
        from pymongo.operations import SearchIndexModel
        import mydocs.migrations
        TRANSACTIONAL = True
        async def up(db, session):
            await getattr(mydocs.migrations, "{name}")({arguments})
        """,
    )
    with pytest.raises(MigrationFailed, match=rf"{name} cannot be used in a script that says TRANS"):
        await migrate(db, directory=folder, standard_indexes={})
    sent = [r.name for r in local_server.controls.counted() if r.body.get(r.name) == "things"]
    assert sent == []


@pytest.mark.parametrize(
    ("call", "written"),
    [
        pytest.param("abort", [], id="abort: nothing of it stays"),
        pytest.param("commit", [1], id="commit: it stays"),
    ],
)
async def test_a_script_that_ends_its_transaction_itself_has_failed(
    any_db: Database, folder: Path, write: Write, call: str, written: list[int]
) -> None:
    write(
        "001_things.py",
        f"""
        TRANSACTIONAL = True
        async def up(db, session):
            await db.things.insert_one({{"_id": 1}}, session=session)
            await session.{call}_transaction()
        """,
    )
    with pytest.raises(MigrationFailed, match=r"001_things\.py failed: NotPossible: .*a commit of its own stays"):
        await migrate(any_db, directory=folder, standard_indexes={})
    assert await ids(any_db) == written
    assert ((await entry(any_db))["state"], (await entry(any_db))["error"]["type"]) == ("failed", "NotPossible")


@pytest.mark.parametrize(
    ("after", "place", "inserts"),
    [
        pytest.param("", "", 4, id="and returns"),
        pytest.param('await db.things.insert_one({"_id": 3}, session=session)', ", line 11", 6, id="and goes on"),
    ],
)
async def test_a_script_that_catches_what_ended_its_transaction_runs_once_more_and_has_failed(
    any_db: Database, local_server: LocalServer, folder: Path, write: Write, after: str, place: str, inserts: int
) -> None:
    write(
        "001_things.py",
        f"""
        import contextlib
        from pymongo.errors import DuplicateKeyError

        TRANSACTIONAL = True

        async def up(db, session):
            await db.things.insert_one({{"_id": 1}}, session=session)
            with contextlib.suppress(DuplicateKeyError):
                await db.things.insert_one({{"_id": 1}}, session=session)
            {after}
        """,
    )
    warned: list[str] = []
    with pytest.raises(MigrationFailed, match=rf"failed{place}: NotPossible: .* caught an error that had ended its tr"):
        await migrate(
            any_db,
            directory=folder,
            standard_indexes={},
            on_event=lambda event: warned.append(event.message) if isinstance(event, Warned) else None,
        )
    assert local_server.controls.counts()["insert"] == inserts
    assert [message.split(": ")[0] for message in warned] == ["the transaction came to nothing and is run again"]
    assert await ids(any_db) == []


async def test_a_transaction_that_an_election_has_ended_is_run_again_and_says_why(
    db: Database, local_server: LocalServer, folder: Path, write: Write
) -> None:
    write("001_things.py", SCRIPT)
    warned: list[Event] = []
    for at, code in enumerate((251, 112, 251), start=1):  # no 251 right after another
        local_server.controls.error(code, f"reason {code}", TRANSIENT, command="insert", at=at)
    await migrate(db, directory=folder, standard_indexes={}, on_event=warned.append)
    assert await ids(db) == [1, 2]
    said = [event.message.rsplit(": ", 1)[1] for event in warned if isinstance(event, Warned)]
    assert said == ["reason 251", "reason 112", "reason 251"]


async def test_a_command_that_no_transaction_can_hold_fails_with_advice_and_its_line(
    any_db: Database, local_server: LocalServer, folder: Path, write: Write
) -> None:
    write(
        "001_things.py",
        """
        TRANSACTIONAL = True
        async def up(db, session):
            await db.things.insert_one({"_id": 1}, session=session)
            await db.command("dropIndexes", "things", index="*", session=session)
        """,
    )
    with pytest.raises(MigrationFailed, match=r"failed, line 5: NotPossible: .*; do it in a migration of its own"):
        await migrate(any_db, directory=folder, standard_indexes={})
    assert await ids(any_db) == []


@pytest.mark.parametrize("reverse", [False, True], ids=["run", "rollback"])
async def test_a_server_without_transactions_is_told_before_the_first_script(
    db: Database, folder: Path, write: Write, monkeypatch: pytest.MonkeyPatch, reverse: bool
) -> None:
    write("001_things.py", SCRIPT)
    write("002_plain.py", "async def up(db): await db.plain.insert_one({})\nasync def down(db): await db.plain.drop()")
    if reverse:
        await migrate(db, directory=folder, standard_indexes={})

    async def is_possible(db: Database) -> bool:
        return False

    monkeypatch.setattr(transaction, "is_possible", is_possible)
    run = rollback(db, directory=folder, steps=2) if reverse else migrate(db, directory=folder, standard_indexes={})
    with pytest.raises(NotPossible, match=r"^001_things.py: TRANSACTIONAL = True needs transactions"):
        await run
    assert await db["plain"].count_documents({}) == int(reverse)
    assert await db["_migrations"].count_documents({}) == (2 if reverse else 0)


async def test_only_a_plan_with_a_transactional_script_asks_for_transactions(
    db: Database, local_server: LocalServer, folder: Path, write: Write
) -> None:
    def asked() -> int:
        return sum(r.name == "hello" and r.database == db.name for r in local_server.controls.records())

    write("001_plain.py", "async def up(db): await db.plain.insert_one({})")
    await migrate(db, directory=folder, standard_indexes={})
    assert asked() == 0
    write("002_things.py", SCRIPT)
    await migrate(db, directory=folder, standard_indexes={})
    assert asked() == 1


@pytest.mark.parametrize(
    ("hello", "expected"),
    [
        pytest.param({"setName": "rs0"}, True, id="replica set"),
        pytest.param({"msg": "isdbgrid"}, True, id="sharded cluster"),
        pytest.param({"isWritablePrimary": True}, False, id="single server"),
    ],
)
async def test_transactions_need_a_replica_set_or_a_sharded_cluster(
    db: Database, monkeypatch: pytest.MonkeyPatch, hello: dict[str, Any], expected: bool
) -> None:
    async def command_again(db: Database, body: dict[str, Any]) -> dict[str, Any]:
        assert body == {"hello": 1}
        return hello

    monkeypatch.setattr(commands, "command_again", command_again)
    assert await transaction.is_possible(db) is expected


FORGETS = """
    TRANSACTIONAL = True
    async def up(db, session):
        await db.things.insert_one({"_id": 1})
        await db.things.insert_one({"_id": 2})
        await db.others.insert_one({"_id": 1}, session=session)
        raise ValueError("no")
"""


async def test_a_call_without_the_session_is_part_of_the_transaction_or_is_warned_of(
    any_db: Database, folder: Path, write: Write
) -> None:
    """PyMongo's session is bound to the script; Motor's cannot be, so the warning names what stays."""
    write("001_things.py", FORGETS)
    events: list[Event] = []
    with pytest.raises(MigrationFailed, match="ValueError: no"):
        await migrate(any_db, directory=folder, standard_indexes={}, on_event=events.append)
    warnings = [event.message for event in events if isinstance(event, Warned)]
    if isinstance(any_db, AsyncDatabase):
        assert await ids(any_db) == []
        assert warnings == []
    else:
        assert await ids(any_db) == [1, 2]
        (warning,) = warnings
        assert "insert on things" in warning
        assert "session=session" in warning
    assert await any_db["others"].count_documents({}) == 0
