"""A script that blocks the event loop. Not a coroutine itself, since those fail where something blocks."""

import asyncio
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from motor.motor_asyncio import AsyncIOMotorClient

from mydocs.localserver import LocalServer
from mydocs.migrations import migrate
from mydocs.migrations.limits import Limits, limited_to
from mydocs.migrations.model import MigrationState
from mydocs.migrations.reporting.report import RunReport

SCRIPT = """
    import sys
    async def up(db):
        controls = sys.mydocs_test_controls
        renewals = lambda: sum(1 for r in controls.counted() if r.body.get("update") == "_migrations_lock")
        controls.wait_for(lambda _: renewals() >= 3, 15)
"""


def test_a_script_that_blocks_the_event_loop_does_not_starve_the_lease(
    local_server: LocalServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It blocks until the server has seen three renewals, and fails where they do not come."""
    monkeypatch.setattr(sys, "mydocs_test_controls", local_server.controls, raising=False)
    (tmp_path / "001_blocks.py").write_text(textwrap.dedent(SCRIPT))

    async def run() -> RunReport:
        client: AsyncIOMotorClient[dict[str, Any]] = AsyncIOMotorClient(local_server.url)
        try:
            with limited_to(Limits(renew_every=0.05)):
                return await migrate(client["test"], directory=tmp_path)
        finally:
            client.close()

    assert asyncio.run(run()).migrations[0].state is MigrationState.APPLIED
