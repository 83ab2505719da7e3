"""What is said of a version of a library that lacks a private name which the runner relies on."""

import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import lightodm.connection
import pytest

from mydocs.migrations import migrate
from mydocs.migrations.driver import listeners
from mydocs.migrations.driver.client import Database, client_of
from mydocs.migrations.driver.listeners import check_driver
from mydocs.migrations.driver.private_names import private
from mydocs.migrations.errors import NotPossible

pytestmark = pytest.mark.anyio


def test_a_name_that_is_there_is_given() -> None:
    assert private(SimpleNamespace(_a=1), "_a", "pymongo", "test") == 1


async def test_the_installed_driver_has_what_is_needed(any_db: Database) -> None:
    check_driver(any_db)
    client = client_of(any_db)
    # Without these two, secrets would be shown and the heartbeat would share the scripts' connections.
    assert isinstance(client._init_kwargs, dict)  # noqa: SLF001
    assert hasattr(client.options.pool_options, "_credentials")
    assert isinstance(client.options._options, Mapping)  # noqa: SLF001


async def test_a_driver_without_it_is_named_before_the_first_script(
    any_db: Database, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "001_a.py").write_text("async def up(db):\n    await db.runs.insert_one({})\n")
    monkeypatch.setattr(listeners, "_LISTENING", "_EventListeners__renamed")
    says = r"pymongo \d.* has no `_EventListeners__renamed`, which mydocs needs to see what scripts do to indexes"
    with pytest.raises(NotPossible, match=says):
        await migrate(any_db, directory=folder, standard_indexes={})
    assert await any_db["_migrations"].count_documents({}) == 0
    assert await any_db["runs"].count_documents({}) == 0


async def test_a_lightodm_without_it_is_named_before_the_first_script(
    any_db: Database, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "001_a.py").write_text("import lightodm\nasync def up(db):\n    await db.runs.insert_one({})\n")
    monkeypatch.delattr(lightodm.connection, "_mongo_conn")
    monkeypatch.delitem(sys.modules, "mydocs.migrations.scripts.binding", raising=False)
    with pytest.raises(NotPossible, match=r"lightodm \d.* has no `_mongo_conn`"):
        await migrate(any_db, directory=folder, standard_indexes={})
    assert await any_db["_migrations"].count_documents({}) == 0
