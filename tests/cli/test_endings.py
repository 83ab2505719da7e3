"""How the program ends whose scripts do odd things to the event loop."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pymongo
import pytest

pytestmark = pytest.mark.seconds(180)


def test_a_script_that_cancels_all_tasks_has_failed(program: Callable[..., Any], folder: Path, local_url: str) -> None:
    (folder / "001_cancels.py").write_text(
        "import asyncio\nasync def up(db):\n    for task in asyncio.all_tasks():\n        task.cancel()\n"
        "    await asyncio.sleep(60)\n"
    )
    ended = program("migrate", "run", "--url", local_url, "--db", "x", "-o", "json")
    assert ended.code == 1, ended.err
    assert "a task was cancelled, and not by the run" in ended.json["error"]["message"]
    assert [m["state"] for m in ended.json["migrations"]] == ["failed"]
    with pymongo.MongoClient[dict[str, Any]](local_url) as client:
        lease = client["x"]["_migrations_lock"].find_one()
    assert lease is not None
    assert lease["owner"] is None


def test_a_way_back_that_takes_too_long_is_cancelled_and_recorded(
    program: Callable[..., Any], folder: Path, local_url: str
) -> None:
    (folder / "001_slow.py").write_text(
        "import asyncio\nasync def up(db):\n    pass\nasync def down(db):\n    await asyncio.sleep(60)\n"
    )
    where = ("--url", local_url, "--db", "x")
    assert program("migrate", "run", *where).code == 0
    ended = program("migrate", "rollback", "--script-timeout", "300ms", *where, "-o", "json")
    assert ended.code == 1, ended.err
    (migration,) = ended.json["migrations"]
    assert (migration["state"], migration["error"]["type"]) == ("failed", "TimedOut")
    assert "longer than 0.3 s" in ended.json["error"]["message"]
    with pymongo.MongoClient[dict[str, Any]](local_url) as client:
        entry = client["x"]["_migrations"].find_one({"_id": "001"})
        lease = client["x"]["_migrations_lock"].find_one()
    assert entry is not None
    assert (entry["state"], entry["direction"], entry["error"]["type"]) == ("failed", "down", "TimedOut")
    assert lease is not None
    assert lease["owner"] is None
