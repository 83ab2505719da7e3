"""One lane, fast: only what is looked at travels, and reading, asking and writing go on at the same time."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import anyio
import bson
import pymongo
import pytest

from mydocs.localserver import LocalServer
from mydocs.localserver.controls import Recorded
from mydocs.migrations import MigrationFailed, RetryLater, migrate, transform
from mydocs.migrations.data import function_calls, walk
from mydocs.migrations.data.statements import Guard, encoded
from mydocs.migrations.driver.client import Database
from mydocs.migrations.errors import ChangeInvalid, NotPossible
from mydocs.migrations.reporting.events import BatchDone, Event, Warned
from mydocs.migrations.scripts.script_context import Checkpoint, ScriptContext, current

Write = Callable[[str, str], Path]
WANTED = {"m": {"$exists": False}}

pytestmark = pytest.mark.anyio


async def numbered(db: Database, count: int) -> None:
    await db["things"].insert_many([{"_id": n, "n": n} for n in range(count)])


async def documents(db: Database) -> list[dict[str, Any]]:
    return await db["things"].find().sort("_id", 1).to_list(None)


def is_update(recorded: Recorded) -> bool:
    return recorded.name == "update" and bool(recorded.body["update"] == "things")


def is_find(recorded: Recorded) -> bool:
    return recorded.name == "find" and bool(recorded.body["find"] == "things")


def written(server: LocalServer) -> list[list[int]]:
    """The `_id`s of each update command."""
    commands = [r.body["updates"] for r in server.controls.counted() if is_update(r)]
    return [[statement["q"]["_id"] for statement in statements] for statements in commands]


def add_one(document: dict[str, Any]) -> dict[str, Any]:
    return {"$set": {"m": document["n"] + 1}}


# -- fields


async def test_only_the_fields_that_the_function_looks_at_travel(any_db: Database, local_server: LocalServer) -> None:
    await any_db["things"].insert_many([{"_id": n, "n": n, "text": "x" * 40_000} for n in range(50)])
    seen: list[Any] = []

    def change(document: dict[str, Any]) -> dict[str, Any]:
        seen.append(document)
        return add_one(document)

    local_server.controls.clear()
    assert await transform(any_db["things"], WANTED, change, fields=("n",)) == 50
    assert seen == [{"_id": n, "n": n} for n in range(50)]
    sent = sum(len(bson.encode(recorded.body)) for recorded in local_server.controls.counted())
    assert sent < 0.02 * 50 * 40_000
    assert [(await any_db["things"].find_one({"_id": n}))["m"] for n in (0, 49)] == [1, 50]  # type: ignore[index]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        pytest.param(("meta.lang",), {"_id": 1, "meta": {"lang": "en"}}, id="path"),
        pytest.param(
            ("meta.lang", "meta"), {"_id": 1, "meta": {"lang": "en", "x": None}}, id="a path and what holds it"
        ),
        pytest.param(("list", "_id"), {"_id": 1, "list": [{"a": 1}, 2]}, id="array"),
        pytest.param(("absent", "n.x", "meta.lang.x", "meta.y.z"), {"_id": 1, "meta": {}}, id="not there"),
        pytest.param(("meta.x",), {"_id": 1, "meta": {"x": None}}, id="null"),
        pytest.param(("f", "d"), {"_id": 1, "f": 1.5, "d": bson.Decimal128("1.50")}, id="numbers"),
        pytest.param((), {"_id": 1}, id="none"),
    ],
)
async def test_fields_of_any_kind_are_read_and_compared(db: Database, fields: Any, expected: Any) -> None:
    document = {"_id": 1, "n": 1, "meta": {"lang": "en", "x": None}, "list": [{"a": 1}, 2], "f": 1.5}
    await db["things"].insert_one({**document, "d": bson.Decimal128("1.50")})
    seen: list[Any] = []

    def change(found: dict[str, Any]) -> dict[str, Any]:
        seen.append(found)
        return {"$set": {"m": 1}}

    assert await transform(db["things"], WANTED, change, fields=fields) == 1
    assert seen == [expected]


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        pytest.param("text", r"the text 'text' and must be a sequence of names, such as \('text',\)", id="text"),
        pytest.param(("$a",), "not a name of a field", id="operator"),
        pytest.param(("a..b",), "not a name of a field", id="empty part"),
        pytest.param(("list.a",), "list is an array, .*; name 'list' in place of 'list.a'", id="array on the way"),
        pytest.param(("meta.list.a.b",), "meta.list is an array", id="array further on the way"),
    ],
)
async def test_fields_that_cannot_be_compared_are_refused(db: Database, fields: Any, problem: str) -> None:
    await db["things"].insert_one({"_id": 1, "list": [{"a": 1}], "meta": {"list": [{"a": {"b": 1}}]}})
    with pytest.raises(NotPossible, match=problem):
        await transform(db["things"], WANTED, lambda d: {"$set": {"m": 1}}, fields=fields)
    assert await db["things"].count_documents(WANTED) == 1


async def test_a_field_that_was_looked_at_and_changed_meanwhile_is_looked_at_again(
    any_db: Database, local_server: LocalServer
) -> None:
    await numbered(any_db, 4)

    def interfere(_: Recorded) -> None:
        with pymongo.MongoClient[Any](local_server.url) as client:
            things = client["app"]["things"]
            things.find_one_and_update({"_id": 0}, {"$set": {"n": 100}})
            things.find_one_and_update({"_id": 1}, {"$set": {"other": 1}})  # looked at by nobody
            things.find_one_and_update({"_id": 2}, {"$set": {"m": "new form"}})  # it does not match any more

    local_server.controls.call(interfere, when=is_update)
    assert await transform(any_db["things"], WANTED, add_one, fields=["n"]) == 3
    assert await documents(any_db) == [
        {"_id": 0, "n": 100, "m": 101},
        {"_id": 1, "n": 1, "other": 1, "m": 2},
        {"_id": 2, "n": 2, "m": "new form"},
        {"_id": 3, "n": 3, "m": 4},
    ]
    assert [len(batch) for batch in written(local_server)] == [4, 1]


# -- reading ahead, pauses, smaller batches


async def test_the_next_batch_is_read_while_the_present_one_is_written(
    any_db: Database, local_server: LocalServer
) -> None:
    await numbered(any_db, 30)
    go_on = threading.Event()
    local_server.controls.delay(go_on, when=is_update)

    def is_second_read(recorded: Recorded) -> bool:
        return is_find(recorded) and recorded.body.get("min", {}).get("_id") == 9

    async def release() -> None:
        await anyio.to_thread.run_sync(local_server.controls.wait_for, is_second_read)
        go_on.set()

    async with anyio.create_task_group() as group:
        group.start_soon(release)
        assert await _transformed(any_db, batch_size=10) == 30


async def test_what_still_matches_is_counted_while_the_last_place_is_stored(
    any_db: Database, local_server: LocalServer, folder: Path, write: Write
) -> None:
    await numbered(any_db, 3)
    write("001_things.py", FAILING.replace("CONCURRENCY", "1"))
    go_on = threading.Event()
    local_server.controls.delay(go_on, when=lambda recorded: "checkpoint.transform" in str(recorded.body))
    counts: set[int] = set()

    def is_second_count(recorded: Recorded) -> bool:
        counts.update([recorded.number] if recorded.name == "count" else [])
        return len(counts) == 2

    async def release() -> None:
        await anyio.to_thread.run_sync(local_server.controls.wait_for, is_second_count)
        go_on.set()

    async with anyio.create_task_group() as group:
        group.start_soon(release)
        await migrate(any_db, directory=folder, standard_indexes={})


async def _transformed(db: Database, **options: Any) -> int:
    return await transform(db["things"], WANTED, add_one, **options)


async def test_a_pause_lies_between_batches_and_not_after_the_last(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await numbered(db, 25)
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr("mydocs.migrations.data.walk.anyio", SimpleNamespace(**(vars(anyio) | {"sleep": sleep})))
    assert await _transformed(db, batch_size=10, pause=1.5) == 25
    assert slept == [1.5, 1.5]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        pytest.param({"pause": -1.0}, "pause is -1.0", id="pause"),
        pytest.param({"pause": float("nan")}, "pause is nan", id="no pause"),
        pytest.param({"pause": float("inf")}, "pause is inf", id="for ever"),
        pytest.param({"batch_size": 0}, "batch_size is 0", id="batch_size"),
        pytest.param({"concurrency": 0}, "concurrency is 0", id="concurrency"),
    ],
)
async def test_an_option_that_makes_no_sense_is_refused(db: Database, options: Any, problem: str) -> None:
    await numbered(db, 1)
    with pytest.raises(NotPossible, match=problem):
        await transform(db["things"], WANTED, add_one, **options)


@pytest.mark.limits(noise=0.02)
async def test_batches_shrink_while_the_server_is_slow_and_grow_again(db: Database) -> None:
    await numbered(db, 1_500)
    now, sizes = [0.0], cast(list[int], [])

    async def ask(batch: list[Any]) -> walk.Asked:
        return walk.Asked(batch, len(batch))

    async def write(batch: list[Any], statements: list[Any]) -> int:
        sizes.append(len(batch))
        now[0] += 1.0 if len(sizes) in (3, 4) else 0.1
        return len(statements)

    source = walk.Source(db=db, name="things", wanted=encoded({}))
    work = walk.Work(ask=ask, write=write, clock=lambda: now[0])
    await walk.walk(source, work, Checkpoint(key="k", store=_forget), walk.Place(), batch_size=100, pause=0.0)
    assert sizes[:4] == [100] * 4  # what is read ahead of a slow answer has its size
    assert min(sizes[:-1]) < 100
    assert max(sizes[-4:-1]) == 100
    assert sum(sizes) == 1_500


async def _forget(_: str, __: Any) -> None:
    await anyio.lowlevel.checkpoint()


async def test_the_time_that_a_function_computes_is_none_of_the_servers(db: Database) -> None:
    def compute(document: dict[str, Any]) -> None:
        until = time.monotonic() + 0.05
        while time.monotonic() < until:
            pass

    guard, options, gate = Guard(), db["things"].codec_options, function_calls.Gate("things")
    asker = function_calls.Asker(name="things", function=compute, guard=guard, options=options, gate=gate)
    began, clock = time.monotonic(), asker.clock()
    await asker.ask([encoded({"_id": number}) for number in range(4)])
    assert asker.clock() - clock <= time.monotonic() - began - 4 * 0.05


# -- functions that call out


async def test_a_function_may_be_given_a_whole_batch(any_db: Database, local_server: LocalServer) -> None:
    await numbered(any_db, 25)
    given: list[int] = []

    async def embed(batch: list[dict[str, Any]]) -> list[Any]:
        given.append(len(batch))
        return [None if document["n"] == 3 else add_one(document) for document in batch]

    assert await transform(any_db["things"], WANTED, embed, batch=True, batch_size=10, fields=("n",)) == 24
    assert given == [10, 10, 5]
    assert [d.get("m") for d in await documents(any_db)] == [None if n == 3 else n + 1 for n in range(25)]
    assert [len(batch) for batch in written(local_server)] == [9, 10, 5]


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        pytest.param([{"$set": {"m": 1}}], "given this and 2 more documents and returned 1 changes", id="too few"),
        pytest.param(None, "returned NoneType; with batch=True", id="nothing"),
        pytest.param("abc", "returned str", id="text"),
        pytest.param([{"$set": {"m": 1}}, {}, None], "with _id 1: the function returned an empty document", id="wrong"),
    ],
)
async def test_a_batch_that_is_answered_wrongly_is_an_error(db: Database, answer: Any, problem: str) -> None:
    await numbered(db, 3)
    with pytest.raises(ChangeInvalid, match=problem):
        await transform(db["things"], WANTED, lambda batch: answer, batch=True)


class Calls:
    """An async function whose calls end when the test says so, and that knows how many are under way."""

    def __init__(self, at_once: int) -> None:
        self.at_once = at_once
        self.are_many = anyio.Event()
        self.under_way: dict[int, anyio.Event] = {}
        self.most = 0
        self.came: list[int] = []

    async def __call__(self, document: Any) -> Any:
        number = document[0]["n"] if isinstance(document, list) else document["n"]
        self.came.append(number)
        self.under_way[number] = anyio.Event()
        self.most = max(self.most, len(self.under_way))
        if self.most == self.at_once:
            self.are_many.set()
        await self.under_way[number].wait()
        del self.under_way[number]
        return [add_one(each) for each in document] if isinstance(document, list) else add_one(document)

    async def end_last_first(self, total: int) -> None:
        """End the latest call, as soon as no further one comes; at first once there are as many as there may be."""
        await self.are_many.wait()
        while len(self.came) < total or self.under_way:
            before = len(self.came)
            await anyio.wait_all_tasks_blocked()
            if self.under_way and before == len(self.came):
                self.under_way[max(self.under_way)].set()


@pytest.mark.parametrize("batch", [False, True], ids=["one by one", "batches"])
async def test_calls_end_in_any_order_and_are_written_in_theirs(
    db: Database, local_server: LocalServer, batch: bool
) -> None:
    await numbered(db, 40)
    calls, events = Calls(4), cast(list[Event], [])
    token = current.set(ScriptContext(events.append))
    async with anyio.create_task_group() as group:
        group.start_soon(calls.end_last_first, 8 if batch else 40)
        await transform(db["things"], WANTED, calls, batch=batch, batch_size=5, concurrency=4)
    current.reset(token)
    assert calls.most == 4
    batches = written(local_server)
    assert [identity for batch in batches for identity in batch] == list(range(40))
    assert [event.done for event in events if isinstance(event, BatchDone)] == [each[-1] + 1 for each in batches]
    assert [document["m"] for document in await documents(db)] == list(range(1, 41))


FAILING = """
    from mydocs.migrations import transform

    async def up(db):
        broken = await db.broken.find_one()

        async def change(document):
            if broken and document["n"] == 25:
                raise ValueError("broken")
            return {"$set": {"m": document["n"] + 1}}

        await transform(db.things, {"m": {"$exists": False}}, change, batch_size=10, concurrency=CONCURRENCY)
"""


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_an_error_in_one_call_ends_the_walk_with_what_was_done_recorded(
    any_db: Database, folder: Path, write: Write, concurrency: int
) -> None:
    await numbered(any_db, 40)
    await any_db["broken"].insert_one({})
    write("001_things.py", FAILING.replace("CONCURRENCY", str(concurrency)))
    with pytest.raises(MigrationFailed, match="ValueError: broken"):
        await migrate(any_db, directory=folder, standard_indexes={})
    done = [document["_id"] for document in await documents(any_db) if "m" in document]
    assert done == list(range(len(done)))
    assert 20 <= len(done) <= 25
    entry = await any_db["_migrations"].find_one({"_id": "001"})
    assert entry is not None
    (place,) = entry["checkpoint"].values()
    assert (bson.decode(place["after"]), place["done"]) == ({"_id": len(done) - 1}, len(done))
    await any_db["broken"].drop()
    await migrate(any_db, directory=folder, standard_indexes={})
    assert [document["m"] for document in await documents(any_db)] == list(range(1, 41))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        pytest.param({"$set": {"m": object()}}, "cannot encode object", id="cannot be encoded"),
        pytest.param({"m": 1, "$set": {}}, "with _id 70: .* a mixture", id="no change"),
        pytest.param({"$set": {"m": "x" * 2**24}}, "with _id 70: .* bytes together", id="too large"),
    ],
)
@pytest.mark.parametrize("options", [{}, {"batch": True}, {"concurrency": 3}], ids=lambda options: str(options))
async def test_what_comes_before_a_wrong_change_in_its_batch_is_written(
    db: Database, options: Any, change: Any, problem: str
) -> None:
    await numbered(db, 100)

    def one(document: dict[str, Any]) -> Any:
        return None if document["n"] == 3 else change if document["n"] == 70 else add_one(document)

    async def function(given: Any) -> Any:
        return [one(document) for document in given] if isinstance(given, list) else one(given)

    with pytest.raises((ChangeInvalid, bson.errors.InvalidDocument), match=problem):
        await transform(db["things"], WANTED, function, **options)
    assert [d["_id"] for d in await documents(db) if "m" in d] == [*range(3), *range(4, 70)]


async def test_concurrency_is_for_async_functions(db: Database) -> None:
    await numbered(db, 3)
    with pytest.raises(NotPossible, match=r"concurrency=4 is for an async function, .* --workers"):
        await transform(db["things"], WANTED, add_one, concurrency=4)


async def test_a_function_that_is_to_be_called_later_is_and_all_its_calls_wait(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await numbered(db, 12)
    clock, slept, refused = [0.0], cast(list[float], []), cast(set[int], set())

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        clock[0] += seconds

    module = "mydocs.migrations.data.function_calls"
    monkeypatch.setattr(f"{module}.anyio", SimpleNamespace(**(vars(anyio) | {"sleep": sleep})))
    monkeypatch.setattr(f"{module}.time", SimpleNamespace(monotonic=lambda: clock[0]))
    events: list[Event] = []
    token = current.set(ScriptContext(events.append))
    came: list[tuple[float, int]] = []

    async def change(document: dict[str, Any]) -> dict[str, Any]:
        came.append((clock[0], document["n"]))
        if document["n"] == 2 and 2 not in refused:
            refused.add(2)
            raise RetryLater(30)
        return add_one(document)

    await transform(db["things"], WANTED, change, concurrency=2)
    current.reset(token)
    assert [number for at, number in came if at < 30] == [0, 1, 2]
    assert sorted(number for at, number in came if at >= 30) == [2, *range(3, 12)]
    assert [event.message for event in events if isinstance(event, Warned)] == [
        "things: the function asked to be called later, all its calls wait for 30 s"
    ]
    assert len(await documents(db)) == await db["things"].count_documents({"m": {"$exists": True}})


async def test_a_function_that_always_wants_to_be_called_later_is_given_up(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await numbered(db, 3)
    monkeypatch.setattr(function_calls, "SHORTEST_PAUSE", 0.0)

    def change(document: dict[str, Any]) -> dict[str, Any]:
        raise RetryLater(0)

    with pytest.raises(NotPossible, match=f"called later {function_calls.TRIES} times for the document with _id 0"):
        await transform(db["things"], WANTED, change)


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf")])
def test_later_is_a_number_of_seconds(seconds: float) -> None:
    with pytest.raises(ValueError, match="a finite number of seconds"):
        RetryLater(seconds)
