"""Whether a lease's holder has ended is known on its own machine only, and guessed nowhere."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from mydocs.migrations.ledger import holder_process
from mydocs.migrations.ledger.holder_process import document_of, has_ended, own_process, parse
from mydocs.migrations.model import HolderProcess


@pytest.fixture
def other() -> Iterator[subprocess.Popen[bytes]]:
    """Another process of this machine, which ends with the test."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


def of(process: subprocess.Popen[bytes]) -> HolderProcess:
    own = own_process()
    assert own is not None
    told = holder_process._told_of(process.pid)  # noqa: SLF001  # what another process would have said of itself
    assert told is not None
    return replace(own, pid=process.pid, started=told[1])


def test_a_holder_that_lives_has_not_ended_and_one_that_was_killed_has(other: subprocess.Popen[bytes]) -> None:
    own, holder = own_process(), of(other)
    assert not has_ended(holder, own)
    other.kill()
    os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)  # dead, and not yet waited for by its parent
    assert has_ended(holder, own)
    other.wait()
    assert has_ended(holder, own)


def test_a_later_process_of_the_same_id_is_another(other: subprocess.Popen[bytes]) -> None:
    holder = of(other)
    assert has_ended(replace(holder, started=holder.started - 1), own_process())


@pytest.mark.parametrize(
    "elsewhere",
    [{"boot": "another"}, {"namespace": "pid:[1]"}, {"host": "another"}],
    ids=["another start of the machine", "another container", "another host"],
)
def test_nobody_guesses_about_a_holder_that_may_be_elsewhere(
    other: subprocess.Popen[bytes], elsewhere: dict[str, str]
) -> None:
    holder = of(other)
    other.kill()
    other.wait()
    assert has_ended(holder, own_process())
    assert not has_ended(replace(holder, **elsewhere), own_process())  # type: ignore[arg-type]  # all are texts


def test_nobody_guesses_where_the_machine_does_not_tell(other: subprocess.Popen[bytes]) -> None:
    holder = of(other)
    other.kill()
    other.wait()
    assert not has_ended(holder, None)
    assert not has_ended(None, own_process())


def test_a_run_of_the_same_process_has_not_ended() -> None:
    own = own_process()
    assert own is not None
    assert not has_ended(replace(own, started=own.started - 1), own)


def test_it_is_stored_and_read() -> None:
    own = own_process()
    assert own is not None
    assert parse({"host": own.host, "pid": own.pid, "id": "x", "process": document_of(own)}) == own


@pytest.mark.parametrize(
    "owner",
    [
        {},
        {"process": None},
        {"host": "h", "pid": 1, "process": {"boot": "b", "namespace": "n"}},
        {"host": "h", "pid": "1", "process": {"boot": "b", "namespace": "n", "started": 1}},
        {"host": "h", "pid": -1, "process": {"boot": "b", "namespace": "n", "started": 1}},
        {"host": None, "pid": 1, "process": {"boot": "b", "namespace": "n", "started": 1}},
    ],
    ids=str,
)
def test_a_document_that_says_too_little_names_no_process(owner: dict[str, Any]) -> None:
    assert parse(owner) is None
