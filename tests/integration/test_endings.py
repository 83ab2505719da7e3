"""How a call ends that is cancelled, or whose own commands have no answer."""

import asyncio
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from motor.motor_asyncio import AsyncIOMotorClient
from pymongo import IndexModel

from mydocs.localserver import LocalServer
from mydocs.localserver.controls import CommandOutcome, Recorded
from mydocs.migrations import MigrationFailed, migrate, wait_for_indexes, wait_until_current
from mydocs.migrations.driver import commands, server_errors
from mydocs.migrations.driver.client import Database
from mydocs.migrations.errors import LeaseLost, LedgerInvalid, NotPossible, ServerUnreachable
from mydocs.migrations.ledger import lease as leases
from mydocs.migrations.limits import Limits, limited_to
from mydocs.migrations.model import MigrationState

Write = Callable[[str, str], Path]

pytestmark = pytest.mark.anyio

SEARCH = """
    from pymongo.operations import SearchIndexModel
    from mydocs.migrations import ensure_search_indexes
    async def up(db):
        await ensure_search_indexes(db.pages, [SearchIndexModel(name="ft", definition={"mappings": {"dynamic": True}})])
"""
TRIVIAL = """
    async def up(db):
        await db["runs"].insert_one({})
"""


# Long beside what a healthy command takes on a busy machine: only the one that hangs is to have no answer.
QUICK = Limits(answer=1.5, retries=0.0, patience=4.5, release=1.0, grace=1.0)


def is_release(recorded: Recorded) -> bool:
    return recorded.body.get("update") == leases.COLLECTION and "owner" in str(recorded.body["updates"][0]["u"])


def is_record(recorded: Recorded, state: str) -> bool:
    return recorded.body.get("update") == "_migrations" and f"'{state}'" in str(recorded.body["updates"][0]["u"])


async def states(db: Database) -> dict[str, str]:
    return {entry["_id"]: entry["state"] async for entry in db["_migrations"].find()}


@pytest.mark.parametrize("fault", ["a release that takes long", "a release without an answer"])
async def test_a_time_limit_of_the_caller_that_comes_in_the_release_is_the_caller_s(
    any_db: Database, local_server: LocalServer, folder: Path, write: Write, fault: str
) -> None:
    write("001_a.py", TRIVIAL)
    gate, loop = threading.Event(), asyncio.get_running_loop()

    def expire() -> None:
        timeout.reschedule(loop.time())
        if fault == "a release that takes long":
            loop.call_later(0.02, gate.set)

    local_server.controls.call(lambda _: loop.call_soon_threadsafe(expire), when=is_release)
    local_server.controls.delay(gate, when=is_release)
    with limited_to(Limits(release=0.1)), pytest.raises(TimeoutError):
        async with asyncio.timeout(None) as timeout:
            await migrate(any_db, directory=folder, standard_indexes={})
    assert await states(any_db) == {"001": "applied"}


@pytest.mark.parametrize(
    ("state", "shown"),
    [
        pytest.param("running", [MigrationState.PENDING], id="start"),
        pytest.param("applied", [MigrationState.INTERRUPTED], id="end"),
    ],
)
async def test_a_record_without_an_answer_is_an_error_of_ours_with_a_report(
    any_db: Database,
    local_server: LocalServer,
    folder: Path,
    write: Write,
    state: str,
    shown: list[MigrationState],
) -> None:
    write("001_a.py", TRIVIAL)
    local_server.controls.hang(when=lambda recorded: is_record(recorded, state), times=None)
    with limited_to(QUICK), pytest.raises(ServerUnreachable, match="update on _migrations has no answer") as raised:
        await migrate(any_db, directory=folder, standard_indexes={})
    assert raised.value.exit_code == 3
    report: Any = raised.value.report
    assert [m.state for m in report.migrations] == shown
    assert (await leases_view(any_db))["owner"] is None


async def leases_view(db: Database) -> dict[str, Any]:
    found = await db[leases.COLLECTION].find_one({"_id": "lease"})
    assert found is not None
    return found


async def test_a_call_that_is_cancelled_while_a_record_has_no_answer_ends_soon(
    any_db: Database, local_server: LocalServer, folder: Path, write: Write
) -> None:
    write("001_a.py", TRIVIAL)
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(migrate_within(any_db, folder, Limits(grace=0.1, release=0.1)))
    local_server.controls.call(lambda _: loop.call_soon_threadsafe(task.cancel), when=lambda r: is_record(r, "applied"))
    local_server.controls.hang(when=lambda recorded: is_record(recorded, "applied"))
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await states(any_db) == {"001": "running"}


async def migrate_within(db: Database, folder: Path, limits: Limits) -> None:
    with limited_to(limits):
        await migrate(db, directory=folder, standard_indexes={})


async def test_a_wait_bears_a_command_without_an_answer(
    any_db: Database, local_server: LocalServer, folder: Path, write: Write
) -> None:
    write("001_a.py", SEARCH)
    await migrate(any_db, directory=folder)
    fault = local_server.controls.hang(command="aggregate", at=2)
    with limited_to(Limits(answer=0.3)):
        report = await wait_until_current(any_db, directory=folder)
    assert fault.fired
    assert [index.state for index in report.indexes] == ["ready"]


@pytest.mark.parametrize("wait", [wait_for_indexes, wait_until_current])
async def test_the_time_limit_of_a_wait_bounds_its_first_look_too(
    any_db: Database, local_server: LocalServer, folder: Path, wait: Any
) -> None:
    local_server.controls.hang(command="aggregate", times=None)
    where = {"directory": folder} if wait is wait_until_current else {}
    with pytest.raises(ServerUnreachable, match=r"the ledger could not be read within 0\.2 s"):
        await wait(any_db, timeout=0.2, **where)


async def test_the_time_limit_of_a_wait_bounds_the_search_for_a_server(folder: Path) -> None:
    client: AsyncIOMotorClient[dict[str, Any]] = AsyncIOMotorClient("mongodb://127.0.0.1:1/")
    try:
        with pytest.raises(ServerUnreachable, match=r"127\.0\.0\.1:1"):
            await wait_until_current(client["app"], directory=folder, timeout=0.5)
    finally:
        client.close()


async def test_the_build_of_an_index_is_waited_for_without_a_limit_and_a_cancellation_ends_that(
    any_db: Database, local_server: LocalServer, folder: Path
) -> None:
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(migrate_standard(any_db, folder, Limits(answer=0.1)))

    def cancel_later(_: Recorded) -> None:  # after three times the limit of other commands
        loop.call_soon_threadsafe(lambda: loop.call_later(0.3, task.cancel))

    local_server.controls.call(cancel_later, command="createIndexes")
    local_server.controls.hang(command="createIndexes")
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await leases_view(any_db))["owner"] is None
    assert await states(any_db) == {"standard": "failed"}


async def migrate_standard(db: Database, folder: Path, limits: Limits) -> None:
    with limited_to(limits):
        await migrate(db, directory=folder, standard_indexes={"things": [IndexModel("a")]})


@pytest.mark.parametrize(("silent", "error"), [("renewals", LeaseLost), ("all", ServerUnreachable)])
async def test_a_lease_that_cannot_be_renewed_is_lost_for_the_reason_that_is_true(
    any_db: Database, local_server: LocalServer, silent: str, error: type[Exception]
) -> None:
    """The holder's deadline is moved: half a minute is too long for a test."""

    def is_hit(recorded: Recorded) -> bool:
        return recorded.body.get("update") == leases.COLLECTION or (silent == "all" and recorded.name == "ping")

    async def holding() -> None:
        lease = await leases.acquire(any_db, leases.Owner())
        assert lease is not None
        async with leases.held(any_db, lease):
            local_server.controls.hang(when=is_hit, times=None)
            lease.deadline = leases.clock() + 0.5
            await anyio.sleep_forever()

    with limited_to(Limits(renewal=0.1, renew_every=0.05, release=0.2, grace=0.2)), pytest.raises(error):
        await holding()


@pytest.mark.parametrize(("silent", "error"), [((), LeaseLost), (("ping",), ServerUnreachable)])
async def test_a_loss_that_the_block_sees_first_has_the_reason_that_is_true(
    any_db: Database, local_server: LocalServer, silent: tuple[str, ...], error: type[Exception]
) -> None:
    """A plain script's host acts at the deadline as well, and may be before the one who renews."""

    async def holding() -> None:
        lease = await leases.acquire(any_db, leases.Owner())
        assert lease is not None
        async with leases.held(any_db, lease):
            local_server.controls.hang(when=lambda r: r.name in ("update", *silent), times=None)
            lease.deadline = leases.clock()
            lease.check()

    with limited_to(Limits(release=0.2, grace=0.2)), pytest.raises(error) as caught:
        await holding()
    assert str(caught.value).count("check the URL") == len(silent)


async def test_one_renewal_without_an_answer_does_not_cost_the_lease(
    any_db: Database, local_server: LocalServer
) -> None:
    def is_renewed(recorded: Recorded) -> bool:
        return recorded.name == "update" and recorded.outcome is CommandOutcome.ANSWERED

    lease = await leases.acquire(any_db, leases.Owner())
    assert lease is not None
    fault = local_server.controls.hang(command="update")
    with limited_to(Limits(renewal=0.2, renew_every=0.05)):
        async with leases.held(any_db, lease):
            await anyio.to_thread.run_sync(local_server.controls.wait_for, is_renewed)
    assert fault.fired
    assert (await leases_view(any_db))["owner"] is None


async def test_the_deadline_of_a_holder_ends_before_that_of_the_server(any_db: Database) -> None:
    sent = leases.clock()
    lease = await leases.acquire(any_db, leases.Owner())
    assert lease is not None
    assert lease.deadline - leases.clock() <= leases.LEASE_SECONDS - 1.0
    assert lease.deadline >= sent + leases.LEASE_SECONDS - 1.0


async def test_a_server_that_gives_no_document_back_gets_a_sentence(any_db: Database) -> None:
    class Odd:
        name, client = "app", any_db.client

        async def command(self, *arguments: Any, **options: Any) -> dict[str, Any]:
            return {"ok": 1.0, "value": None}

    odd: Any = Odd()
    with pytest.raises(NotPossible, match="findAndModify with `upsert` and `new` has returned no document"):
        await leases.acquire(odd, leases.Owner())


async def test_a_term_that_has_no_next_one_is_named_and_stays_as_it_is(any_db: Database) -> None:
    stored = {"_id": "lease", "owner": None, "term": 2**63 - 1, "expires_at": datetime(2026, 1, 1, tzinfo=UTC)}
    await any_db["_migrations_lock"].insert_one(dict(stored))
    with pytest.raises(LedgerInvalid, match="`term` is 9223372036854775807 and cannot grow"):
        await leases.acquire(any_db, leases.Owner())
    assert await any_db["_migrations_lock"].find_one({}) == stored


async def test_the_last_term_is_a_lease_like_any_other(any_db: Database) -> None:
    expired = datetime(2026, 1, 1, tzinfo=UTC)
    await any_db["_migrations_lock"].insert_one({"_id": "lease", "term": 2**63 - 2, "expires_at": expired})
    lease = await leases.acquire(any_db, leases.Owner())
    assert lease is not None
    assert lease.term == 2**63 - 1


async def test_a_cursor_that_gives_nothing_and_does_not_end_is_an_error(any_db: Database) -> None:
    sent: list[str] = []

    class Endless:
        name, client = "app", any_db.client

        async def command(self, body: dict[str, Any], **options: Any) -> dict[str, Any]:
            sent.append(next(iter(body)))
            cursor = {"id": 7, "ns": "app._migrations", "firstBatch": [{"_id": "001"}], "nextBatch": []}
            return {"ok": 1.0, "cursor": cursor}

    endless: Any = Endless()
    with pytest.raises(server_errors.NoAnswer, match="the cursor of find on _migrations does not end"):
        await commands.documents(endless, {"find": "_migrations"})
    assert len(sent) == 1 + commands.EMPTY_BATCHES


SLOW_TO_LEAVE = """
    import asyncio
    async def up(db):
        try:
            await asyncio.sleep(3600)
        finally:
            await db["cleaned"].insert_one({})
            await asyncio.sleep(SECONDS)
"""


@pytest.mark.parametrize("seconds", [0, 3600])
async def test_a_script_whose_time_is_up_may_await_its_cleanup_for_a_while(
    any_db: Database, folder: Path, write: Write, seconds: int
) -> None:
    write("001_slow.py", SLOW_TO_LEAVE.replace("SECONDS", str(seconds)))
    grace = 0.2 if seconds else 3600.0
    with limited_to(Limits(script_grace=grace)), pytest.raises(MigrationFailed, match="TimedOut"):
        await migrate(any_db, directory=folder, standard_indexes={}, script_timeout=0.1)
    entry = await any_db["_migrations"].find_one({"_id": "001"})
    assert entry is not None
    assert (entry["state"], entry["error"]["type"]) == ("failed", "TimedOut")
    if not seconds:
        assert await any_db["cleaned"].count_documents({}) == 1
