"""How the program ends whose scripts do odd things to the event loop."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pymongo
import pytest

pytestmark = pytest.mark.seconds(60)


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
