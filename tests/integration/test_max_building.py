"""At most so many search indexes are building at a time: `migrate(max_building=…)`, `run --max-building`."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mydocs.localserver import LocalServer
from mydocs.localserver.control.clock import ManualClock
from mydocs.migrations import UsageError, migrate
from mydocs.migrations.driver.client import Database

# What the helpers wait for is the clock of the server, which a test moves.
pytestmark = [pytest.mark.anyio, pytest.mark.limits(look_gap=0.01)]

Write = Callable[[str, str], Path]

START = """
from pymongo.operations import SearchIndexModel
from mydocs.migrations import ensure_search_indexes

def model(name, dynamic=False):
    return SearchIndexModel(name=name, definition={"mappings": {"dynamic": dynamic}})

async def up(db):
"""
FIVE_AT_ONCE = START + "    await ensure_search_indexes(db['pages'], [model(f'i{n}') for n in range(5)])\n"
FIVE_IN_A_ROW = (
    START
    + """
    for n in range(5):
        await ensure_search_indexes(db[f"c{n % 2}"], [model(f"i{n}")])
"""
)
FIVE_ON_COLLECTIONS = START + "    await ensure_search_indexes({db[f'c{n}']: [model(f'i{n}')] for n in range(5)})\n"
UPDATES = (
    START
    + """
    await ensure_search_indexes(db["pages"], [model(f"i{n}") for n in range(3)])
    await ensure_search_indexes(db["pages"], [model(f"i{n}", dynamic=True) for n in range(3)])
"""
)
PLAIN = """
import asyncio
import lightodm
from pymongo.operations import SearchIndexModel
from mydocs.migrations import ensure_search_indexes

async def main():
    db = await lightodm.get_async_database()
    models = [SearchIndexModel(name=f"i{n}", definition={"mappings": {}}) for n in range(3)]
    await ensure_search_indexes(db["pages"], models)

asyncio.run(main())
"""


@pytest.fixture
def busiest(local_server: LocalServer, local_clock: ManualClock) -> Callable[[], int]:
    """How many indexes were under way after a create or an update; each look lets the oldest of them become ready."""
    most = 0
    local_server.search.settings = replace(local_server.search.settings, pending_seconds=1.0, build_seconds=9.0)

    def count(_: Any) -> None:
        nonlocal most
        at = local_clock.now().timestamp()
        building = [
            index
            for index in local_server.search._indexes.values()  # noqa: SLF001  # a listing would be a command more
            if index.latest.ready_at is None and index.latest.created_at + 10.0 > at
        ]
        most = max(most, len(building))

    for command in ("createSearchIndexes", "updateSearchIndex"):
        local_server.controls.call(count, command=command, times=None, after=True)
    local_server.controls.call(lambda _: local_clock.advance(4.0), command="aggregate", times=None)
    return lambda: most


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(FIVE_AT_ONCE, id="in one call"),
        pytest.param(FIVE_IN_A_ROW, id="in several calls"),
        pytest.param(FIVE_ON_COLLECTIONS, id="on several collections at the same time"),
        pytest.param(UPDATES, id="updates"),
        pytest.param(PLAIN, id="by a plain script"),
    ],
)
@pytest.mark.parametrize("limit", [1, 2])
async def test_no_more_than_the_limit_are_building_at_a_time(
    any_db: Database, tmp_path: Path, busiest: Callable[[], int], text: str, limit: int
) -> None:
    (tmp_path / "001_a.py").write_text(text)
    report = await migrate(any_db, directory=tmp_path, standard_indexes={}, max_building=limit)
    assert busiest() == limit
    assert len(report.indexes) in (3, 5)


async def test_without_a_limit_all_are_submitted_at_once(
    any_db: Database, tmp_path: Path, busiest: Callable[[], int]
) -> None:
    (tmp_path / "001_a.py").write_text(FIVE_AT_ONCE)
    await migrate(any_db, directory=tmp_path, standard_indexes={})
    assert busiest() == 5


async def test_an_index_that_fails_gives_its_place_to_the_next(
    any_db: Database, local_server: LocalServer, tmp_path: Path, busiest: Callable[[], int]
) -> None:
    local_server.search.outcome("i0", fails="out of space")
    (tmp_path / "001_a.py").write_text(FIVE_AT_ONCE)
    await migrate(any_db, directory=tmp_path, standard_indexes={}, max_building=1)
    assert busiest() == 1


async def test_builds_of_an_earlier_script_count(any_db: Database, tmp_path: Path, busiest: Callable[[], int]) -> None:
    (tmp_path / "001_a.py").write_text(START + "    await ensure_search_indexes(db['a'], [model('x')])\n")
    (tmp_path / "002_b.py").write_text(START + "    await ensure_search_indexes(db['b'], [model('y'), model('z')])\n")
    await migrate(any_db, directory=tmp_path, standard_indexes={}, max_building=1)
    assert busiest() == 1


@pytest.mark.parametrize("limit", [0, -1])
async def test_a_limit_below_one_is_an_error_before_anything(
    db: Database, local_server: LocalServer, tmp_path: Path, limit: int
) -> None:
    with pytest.raises(UsageError, match="give 1 or more"):
        await migrate(db, directory=tmp_path, max_building=limit)
    assert not local_server.controls.counted()
