"""Status and check: everything is shown as it is, and nothing is written."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pymongo import IndexModel

from mydocs.localserver import LocalServer
from mydocs.localserver.clock import ManualClock
from mydocs.migrations import MigrationError, MigrationFailed, migrate
from mydocs.migrations.driver import commands
from mydocs.migrations.driver.client import Database
from mydocs.migrations.errors import LedgerInvalid, WorkLeft
from mydocs.migrations.indexes import definitions, readiness
from mydocs.migrations.ledger.lease import LEASE_SECONDS, Owner, acquire
from mydocs.migrations.operations.check import check
from mydocs.migrations.operations.status import DRIFT, REPAIR, RUN, WAIT, status, work_left
from mydocs.migrations.reporting.events import Event, Warned
from mydocs.migrations.reporting.report import RunReport

Write = Callable[[str, str], Path]
STANDARD = {"pages": [IndexModel("number")]}

pytestmark = pytest.mark.anyio

UP = "async def up(db): pass\n"
SEARCH = """
    from pymongo.operations import SearchIndexModel
    from mydocs.migrations import ensure_search_indexes
    DEFINITION = {"mappings": {"dynamic": False, "fields": {"content": {"type": "string"}}}}
    async def up(db):
        await ensure_search_indexes(db["pages"], [SearchIndexModel(name="ft", definition=DEFINITION)])
"""


def states(report: RunReport) -> dict[str, str]:
    return {migration.version: migration.state.value for migration in report.migrations}


def indexes(report: RunReport) -> dict[str, tuple[str, bool | None]]:
    return {index.name: (index.state.value, index.queryable) for index in report.indexes}


async def left(db: Database, folder: Path, **options: Any) -> tuple[str, ...]:
    """What a check finds to be done."""
    try:
        await check(db, directory=folder, **{"standard_indexes": STANDARD} | options)
    except WorkLeft as error:
        return error.what if error.exit_code == 8 and error.report is not None else ("no report",)
    return ()


async def test_every_state_of_a_migration_is_shown_and_nothing_is_written(
    any_db: Database, folder: Path, write: Write, local_server: LocalServer, local_clock: ManualClock
) -> None:
    for name in ("001_applied.py", "002_changed.py", "003_missing.py"):
        write(name, UP)
    write("004_failed.py", "async def up(db): raise ValueError('no')")
    with pytest.raises(MigrationFailed):
        await migrate(any_db, directory=folder, standard_indexes=STANDARD)
    write("002_changed.py", UP + "# edited")
    (folder / "003_missing.py").unlink()
    write("005_interrupted.py", UP)
    write("006_running.py", UP)
    write("007_pending.py", UP)
    gone = await acquire(any_db, Owner())
    local_clock.advance(LEASE_SECONDS + 1)
    alive = await acquire(any_db, Owner())
    assert gone is not None
    assert alive is not None
    for version, term in (("005", gone.term), ("006", alive.term)):
        await any_db["_migrations"].insert_one({"_id": version, "state": "running", "run": {"id": "x", "term": term}})
    local_server.controls.clear()
    report = await status(any_db, directory=folder, standard_indexes=STANDARD)
    assert states(report) == {
        "001": "applied",
        "002": "changed",
        "003": "missing",
        "004": "failed",
        "005": "interrupted",
        "006": "running",
        "007": "pending",
    }
    assert {m.version: m.error.message for m in report.migrations if m.error} == {"004": "no"}
    assert [m.version for m in report.migrations if m.applied_at] == ["001", "002", "003"]
    assert work_left(report) == tuple(
        f"{version} is {states(report)[version]}" for version in ("002", "004", "005", "006", "007")
    )
    assert local_server.controls.counts().keys() <= {"aggregate", "listIndexes"}


async def test_a_status_of_an_empty_database_creates_nothing(any_db: Database, folder: Path, write: Write) -> None:
    write("001_a.py", UP)
    report = await status(any_db, directory=folder, standard_indexes=STANDARD, history=True)
    assert states(report) == {"001": "pending"}
    assert indexes(report) == {"number_1": ("absent", False)}
    assert report.history == ()
    assert await any_db.list_collection_names() == []


async def test_an_index_is_shown_in_its_state(
    any_db: Database, folder: Path, write: Write, local_server: LocalServer
) -> None:
    write("001_search.py", SEARCH)
    await migrate(any_db, directory=folder, standard_indexes=STANDARD)
    local_server.search.outcome("ft", build_seconds=3600)
    await any_db.command({"updateSearchIndex": "pages", "name": "ft", "definition": {"mappings": {"dynamic": True}}})
    report = await status(any_db, directory=folder, standard_indexes=STANDARD)
    assert indexes(report) == {"ft": ("building", True), "number_1": ("ready", True)}


async def test_a_check_of_what_is_as_it_should_be_is_success(
    any_db: Database, folder: Path, write: Write, local_server: LocalServer
) -> None:
    write("001_search.py", SEARCH)
    await migrate(any_db, directory=folder, wait=True, standard_indexes=STANDARD)
    local_server.controls.clear()
    report = await check(any_db, directory=folder, standard_indexes=STANDARD)
    assert indexes(report) == {"ft": ("ready", True), "number_1": ("ready", True)}
    assert local_server.controls.counts() == {"aggregate": 2, "listIndexes": 1}


async def edit_script(db: Database, folder: Path) -> None:
    path = folder / "001_search.py"
    path.write_text(path.read_text() + "# edited\n")


async def remove_script(db: Database, folder: Path) -> None:
    (folder / "001_search.py").unlink()


async def add_script(db: Database, folder: Path) -> None:
    (folder / "002_new.py").write_text(UP)


async def lose_what_failed(db: Database, folder: Path) -> None:
    (folder / "002_fails.py").write_text("async def up(db):\n    raise ValueError\n")
    with pytest.raises(MigrationFailed):
        await migrate(db, directory=folder, standard_indexes=STANDARD)
    (folder / "002_fails.py").unlink()


async def drop_search_index(db: Database, folder: Path) -> None:
    await db.command({"dropSearchIndex": "pages", "name": "ft"})


async def update_search_index(db: Database, folder: Path) -> None:
    definition = {"mappings": {"dynamic": True, "fields": {"content": {"type": "string"}}}}
    await db.command({"updateSearchIndex": "pages", "name": "ft", "definition": definition})


async def replace_search_index(db: Database, folder: Path) -> None:
    await db.command({"dropSearchIndex": "pages", "name": "ft"})
    vector = {"fields": [{"type": "vector", "path": "v", "numDimensions": 3, "similarity": "cosine"}]}
    index = {"name": "ft", "type": "vectorSearch", "definition": vector}
    await db.command({"createSearchIndexes": "pages", "indexes": [index]})


async def build_search_index(db: Database, folder: Path) -> None:
    await drop_search_index(db, folder)
    definition = {"mappings": {"dynamic": False, "fields": {"content": {"type": "string"}}}}
    await db.command({"createSearchIndexes": "pages", "indexes": [{"name": "ft", "definition": definition}]})


async def drop_standard_index(db: Database, folder: Path) -> None:
    await db["pages"].drop_index("number_1")


async def change_standard_index(db: Database, folder: Path) -> None:
    await db["pages"].drop_index("number_1")
    await db["pages"].create_index("number", unique=True)


@pytest.mark.parametrize(
    ("happens", "says"),
    [
        pytest.param(edit_script, "001 is changed", id="edited script"),
        pytest.param(remove_script, "applied, but not in this directory: 001", id="missing script"),
        pytest.param(add_script, "002 is pending", id="new script"),
        pytest.param(drop_search_index, "index pages.ft is absent", id="search index gone"),
        pytest.param(
            update_search_index, "pages.ft: mappings.dynamic: asked False, live True", id="search index changed"
        ),
        pytest.param(replace_search_index, "pages.ft is a vectorSearch index", id="search index of another type"),
        pytest.param(
            drop_standard_index, "index pages.number_1 is absent (it was created and is gone)", id="standard index gone"
        ),
        pytest.param(change_standard_index, "index pages.number_1 is stale", id="standard index changed"),
        pytest.param(
            change_standard_index, "pages.number_1: unique: asked False, live True", id="how a standard index differs"
        ),
    ],
)
async def test_a_check_names_every_deviation_and_writes_nothing(
    any_db: Database,
    folder: Path,
    write: Write,
    local_server: LocalServer,
    happens: Callable[[Database, Path], Any],
    says: str,
) -> None:
    write("001_search.py", SEARCH)
    await migrate(any_db, directory=folder, standard_indexes=STANDARD)
    await happens(any_db, folder)
    local_server.controls.clear()
    found = await left(any_db, folder)
    assert any(says in line for line in found), found
    assert local_server.controls.counts().keys() <= {"aggregate", "listIndexes"}


@pytest.mark.parametrize(
    ("happens", "ways"),
    [
        pytest.param(edit_script, [REPAIR], id="edited script"),
        pytest.param(remove_script, [REPAIR], id="missing script"),
        pytest.param(add_script, [RUN], id="new script"),
        pytest.param(lose_what_failed, [REPAIR], id="failed script whose file is gone"),
        pytest.param(drop_search_index, [DRIFT], id="search index gone"),
        pytest.param(update_search_index, [DRIFT], id="search index changed"),
        pytest.param(replace_search_index, [DRIFT], id="search index of another type"),
        pytest.param(drop_standard_index, [DRIFT], id="standard index gone"),
        pytest.param(change_standard_index, [DRIFT], id="standard index changed"),
        pytest.param(build_search_index, [WAIT], id="search index under way"),
    ],
)
async def test_a_check_says_what_does_the_work_that_is_left(
    db: Database,
    folder: Path,
    write: Write,
    local_server: LocalServer,
    happens: Callable[[Database, Path], Any],
    ways: list[str],
) -> None:
    write("001_search.py", SEARCH)
    await migrate(db, directory=folder, standard_indexes=STANDARD)
    if happens is build_search_index:
        local_server.search.outcome("ft", build_seconds=3600)
    await happens(db, folder)
    with pytest.raises(WorkLeft) as caught:
        await check(db, directory=folder, standard_indexes=STANDARD)
    assert list(caught.value.ways_out) == ways
    assert all(way in str(caught.value) for way in ways)


async def test_a_check_does_not_mind_what_a_server_fills_in(
    any_db: Database, folder: Path, write: Write, local_server: LocalServer
) -> None:
    from dataclasses import replace

    write("001_search.py", SEARCH)
    await migrate(any_db, directory=folder, standard_indexes=STANDARD)
    local_server.search.settings = replace(local_server.search.settings, fill_defaults=True)
    assert await left(any_db, folder) == ()


async def test_an_index_that_nobody_asked_for_is_a_warning(any_db: Database, folder: Path, write: Write) -> None:
    write("001_search.py", SEARCH)
    await migrate(any_db, directory=folder, standard_indexes=STANDARD)
    index = {"name": "by_hand", "definition": {"mappings": {}}}
    await any_db.command({"createSearchIndexes": "pages", "indexes": [index]})
    seen: list[Event] = []
    await check(any_db, directory=folder, standard_indexes=STANDARD, on_event=seen.append)
    assert [event.message for event in seen if isinstance(event, Warned)] == [
        "search indexes that no migration asked for: pages.by_hand"
    ]


async def test_a_standard_index_beside_the_list_is_a_warning_and_one_under_another_name_is_not(
    any_db: Database, folder: Path
) -> None:
    await any_db["pages"].create_indexes([IndexModel("number", name="n"), IndexModel("by_hand")])
    await migrate(any_db, directory=folder, standard_indexes=STANDARD)
    seen: list[Event] = []
    await check(any_db, directory=folder, standard_indexes=STANDARD, on_event=seen.append)
    assert [event.message for event in seen if isinstance(event, Warned)] == [
        "standard indexes beside those of the application's list: pages.by_hand_1"
    ]


@pytest.mark.parametrize("look", [status, check])
async def test_a_ledger_that_is_not_ours_is_one_sentence(
    any_db: Database, folder: Path, look: Callable[..., Any]
) -> None:
    await any_db["_migrations"].insert_one({"_id": "about", "text": "notes"})
    with pytest.raises(LedgerInvalid, match="'about' in _migrations is not one of ours"):
        await look(any_db, directory=folder)


async def test_one_error_leaves_a_look_and_never_a_group(
    any_db: Database, folder: Path, write: Write, local_server: LocalServer
) -> None:
    write("001_search.py", SEARCH)
    await migrate(any_db, directory=folder, standard_indexes=STANDARD)
    local_server.controls.error(13, "not allowed", when=lambda r: r.body.get("aggregate") == "pages", times=None)
    local_server.controls.error(13, "not allowed", command="listIndexes", times=None)
    with pytest.raises(MigrationError, match="not allowed") as caught:
        await status(any_db, directory=folder, standard_indexes=STANDARD)
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("ask", [pytest.param(status, id="status"), pytest.param(check, id="check")])
async def test_the_work_grows_with_the_number_of_indexes_and_not_with_its_square(
    db: Database, folder: Path, monkeypatch: pytest.MonkeyPatch, ask: Any
) -> None:
    """Counted are the two steps that each index takes: its document is read, and its definition compared."""
    counts = {"parse": 0, "normalise": 0}

    def counted(module: Any, name: str) -> None:
        real = getattr(module, name)

        def count(*arguments: Any) -> Any:
            counts[name] += 1
            return real(*arguments)

        monkeypatch.setattr(module, name, count)

    many = 60
    (folder / "001_a.py").write_text(
        "from mydocs.migrations import ensure_search_indexes\n"
        "async def up(db):\n"
        f"    models = [{{'name': f'i{{n}}', 'definition': {{'mappings': {{}}}}}} for n in range({many})]\n"
        "    await ensure_search_indexes({db['a']: models, db['b']: models})\n"
    )
    await migrate(db, directory=folder, standard_indexes={}, wait=True)
    counted(readiness, "parse")
    counted(definitions, "normalise")
    await ask(db, directory=folder, standard_indexes={})
    assert counts["parse"] == 2 * many
    assert 2 * many <= counts["normalise"] <= 2 * 2 * 2 * many  # asked and live, for the state and for the difference


@pytest.mark.parametrize("ask", [pytest.param(status, id="status"), pytest.param(check, id="check")])
async def test_a_listed_index_without_a_name_is_passed_over_with_a_warning(
    any_db: Database, folder: Path, write: Write, monkeypatch: pytest.MonkeyPatch, ask: Any
) -> None:
    write("001_a.py", SEARCH)
    await migrate(any_db, directory=folder, standard_indexes={}, wait=True)
    real = commands.search_listing

    async def listing(*arguments: Any) -> list[dict[str, Any]]:
        return [{"id": "1", "status": "READY"}, {"name": ["ft"]}, *await real(*arguments)]

    monkeypatch.setattr(commands, "search_listing", listing)
    seen: list[Event] = []
    report = await ask(any_db, directory=folder, standard_indexes={}, on_event=seen.append)
    assert indexes(report) == {"ft": ("ready", True)}
    warnings = [event.message for event in seen if isinstance(event, Warned)]
    assert warnings == ["pages: 2 of the listed search indexes have no name and are passed over"]
