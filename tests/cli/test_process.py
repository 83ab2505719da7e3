"""The program as a process against a local server: streams, exit codes, signals, secrets."""

import json
import os
import pty
import re
import signal
import subprocess
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, Any

import pymongo
import pytest

from mydocs.localserver import LocalServer
from mydocs.localserver.controls import Recorded

CLEANS_UP = (
    "import asyncio\nasync def up(db):\n    try:\n        print('begun', flush=True)\n        await asyncio.sleep(60)\n"
    "    finally:\n        await db.cleaned.insert_one({})\n        print('cleaned', flush=True)\n%s"
)
QUIET_SCRIPT = "async def up(db):\n    await db.things.insert_one({'a': 1})\n"
SLOW = "import asyncio\nasync def up(db):\n    print('begun', flush=True)\n    await asyncio.sleep(60)\n"
SLOW_PLAIN = (
    "import pathlib, signal, time\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nprint('begun')\n"
    "while not pathlib.Path('go').exists(): time.sleep(0.01)\n"
)
NOISY = """
import os, subprocess, sys
async def up(db):
    print("printed")
    os.write(1, b"written\\n")
    subprocess.run([sys.executable, "-c", "print('from a child')"], check=True)
"""
SEARCH = """
from pymongo.operations import SearchIndexModel
from mydocs.migrations import ensure_search_indexes
async def up(db):
    model = SearchIndexModel(name="ft", definition={"mappings": {"dynamic": True}})
    await ensure_search_indexes(db.documents, [model])
"""

pytestmark = pytest.mark.seconds(180)  # each starts several processes

Program = Callable[..., Any]
Start = Callable[..., "subprocess.Popen[str]"]


def _until(stream: IO[str] | None, text: str) -> None:
    assert stream is not None
    for line in stream:
        if text in line:
            return
    raise AssertionError(f"no {text!r} on stderr")


def test_stdout_holds_the_json_alone_whatever_scripts_print(program: Program, folder: Path, local_url: str) -> None:
    (folder / "001_noisy.py").write_text(NOISY)
    (folder / "002_plain.py").write_text("import os\nprint('printed')\nos.system('echo from a shell')\n")
    ended = program("migrate", "run", "--url", local_url, "--db", "x", "-o", "json")
    assert ended.code == 0, ended.err
    assert [(m["version"], m["state"]) for m in ended.json["migrations"]] == [("001", "applied"), ("002", "applied")]
    assert [text for text in ("printed", "written", "from a child", "from a shell") if text not in ended.err] == []


def test_a_command_ends_although_the_server_never_answers_its_goodbye(
    program: Program, folder: Path, local_url: str, local_server: LocalServer
) -> None:
    local_server.controls.delay(threading.Event(), command="endSessions", times=None)
    ended = program("migrate", "status", "--url", local_url, "--db", "x", "-o", "json")
    assert (ended.code, ended.json["outcome"]) == (0, "ok")


def test_lightodm_gives_an_async_script_the_database_of_the_run(program: Program, folder: Path, local_url: str) -> None:
    """Also one that imports it while it runs: else it would get the database that the environment names."""
    text = "async def up(db):\n    import lightodm\n    print(lightodm.get_database().name, db.name)\n"
    (folder / "001_imports.py").write_text(text)
    ended = program("migrate", "run", "--url", local_url, "--db", "ours")
    assert "ours ours" in ended.err


def test_table_ends_with_a_sentence(program: Program, folder: Path, local_url: str, local_server: LocalServer) -> None:
    (folder / "001_search.py").write_text(SEARCH)
    ended = program("migrate", "run", "--wait", "--url", local_url, "--db", "x")
    assert ended.code == 0, ended.err
    assert re.search(r"^documents\.ft +search +ready", ended.out, re.MULTILINE)
    assert re.fullmatch(r"1 migration applied, 8 indexes ready in .* s", ended.out.splitlines()[-1])
    assert "index documents.ft (search): ready" in ended.err
    again = program("migrate", "run", "--url", local_url, "--db", "x")
    assert again.out == "nothing to do\n"


def test_failed_script_is_named_with_its_line(program: Program, folder: Path, local_url: str) -> None:
    (folder / "001_first.py").write_text(QUIET_SCRIPT)
    (folder / "002_bad.py").write_text("async def up(db):\n    raise ValueError('too few')\n")
    ended = program("migrate", "run", "--url", local_url, "--db", "x", "-o", "json")
    assert ended.code == 1
    assert ended.json["outcome"] == "failed"
    assert [m["state"] for m in ended.json["migrations"]] == ["applied", "failed"]
    assert "mydocs: error: 002_bad.py failed, line 2: ValueError: too few\n" in ended.err
    assert "Traceback" not in ended.err
    assert "Traceback" in program("migrate", "run", "--url", local_url, "--db", "x", "--verbose").err


def test_status_and_check_answer_8_while_work_is_left(inside: Program, folder: Path, local_url: str) -> None:
    (folder / "001_first.py").write_text(QUIET_SCRIPT)
    server = ("--url", local_url, "--db", "x")
    assert inside("migrate", "status", *server).code == 0
    for command in (["status", "--exit-code"], ["check"]):
        before = inside("migrate", *command, *server, "-o", "json")
        assert (before.code, before.json["error"]["type"]) == (8, "WorkLeft")
        assert before.json["migrations"][0]["state"] == "pending"
    assert inside("migrate", "run", *server).code == 0
    assert inside("migrate", "status", "--exit-code", *server).code == 0
    assert inside("migrate", "check", *server).code == 0


def test_dry_run_is_planned_and_changes_nothing(program: Program, folder: Path, local_url: str) -> None:
    (folder / "001_first.py").write_text(QUIET_SCRIPT)
    ended = program("migrate", "run", "--dry-run", "--url", local_url, "--db", "x", "-o", "json")
    assert (ended.code, ended.json["outcome"]) == (0, "planned")
    with pymongo.MongoClient[dict[str, Any]](local_url) as client:
        assert client["x"].list_collection_names() == []


def test_wait_says_what_others_applied_meanwhile(start: Start, program: Program, folder: Path, local_url: str) -> None:
    here = ("--url", local_url, "--db", "x", "--indexes", "none")
    for version in ("001", "002", "003"):
        (folder / f"{version}_a.py").write_text(QUIET_SCRIPT)
    assert program("migrate", "run", "--to", "001", *here).code == 0
    with start("migrate", "wait", "--timeout", "1m", *here) as waiting:
        _until(waiting.stderr, "002 is pending")
        assert program("migrate", "run", *here).code == 0
        out, _ = waiting.communicate()
    assert waiting.returncode == 0
    states = [re.split(r"  +", line)[2] for line in out.splitlines() if line[:1] == "0"]
    assert states == ["applied", "applied by others", "applied by others"]
    said = "1 migration applied before, 2 migrations applied by others meanwhile in "
    assert out.splitlines()[-1].startswith(said)
    again = program("migrate", "wait", *here).out.splitlines()[-1]
    assert again.startswith("3 migrations applied before in ")


def test_wait_that_is_too_short_answers_5(
    program: Program, folder: Path, local_url: str, local_server: LocalServer
) -> None:
    local_server.search.outcome("ft", build_seconds=3600)
    (folder / "001_search.py").write_text(SEARCH)
    ended = program("migrate", "run", "--wait", "--timeout", "300ms", "--url", local_url, "--db", "x", "-o", "json")
    assert (ended.code, ended.json["outcome"]) == (5, "not_ready")
    assert program("migrate", "wait", "--timeout", "300ms", "--url", local_url, "--db", "x").code == 5


def test_mark_rollback_repair_and_unlock(inside: Program, folder: Path, local_url: str) -> None:
    server = ("--url", local_url, "--db", "x")
    (folder / "001_first.py").write_text(QUIET_SCRIPT + "async def down(db):\n    await db.things.drop()\n")
    assert inside("migrate", "mark", "1", "--applied", *server).code == 0
    assert inside("migrate", "rollback", *server, "-o", "json").json["migrations"][0]["state"] == "pending"
    assert inside("migrate", "run", *server).code == 0
    (folder / "001_first.py").write_text(QUIET_SCRIPT)
    assert inside("migrate", "run", *server).code == 1
    asked = inside("migrate", "repair", *server)
    assert asked.code == 1
    assert "001" in asked.err
    assert "--yes" in asked.err
    assert inside("migrate", "run", *server).code == 1
    assert inside("migrate", "repair", "--yes", *server).code == 0
    assert inside("migrate", "run", *server).out == "nothing to do\n"
    assert inside("migrate", "unlock", *server).out == "no lease is held\n"


def test_mark_all_as_pending_asks_first(inside: Program, start: Start, folder: Path, local_url: str) -> None:
    (folder / "001_first.py").write_text(QUIET_SCRIPT)
    server = ("--url", local_url, "--db", "x")
    assert inside("migrate", "run", *server).code == 0
    mark = ("migrate", "mark", "--all", "--pending", *server)
    refused = inside(*mark)
    assert (refused.code, refused.out) == (1, "")
    assert "each runs again" in refused.err
    assert "agree with --yes" in refused.err
    for answer, code in (("n", 1), ("y", 0)):
        ours, theirs = pty.openpty()
        with start(*mark, stdin=theirs) as process:
            os.close(theirs)
            os.write(ours, f"{answer}\n".encode())
            process.communicate()
        os.close(ours)
        assert process.returncode == code
    assert inside("migrate", "status", "--pending", *server).out.splitlines()[-1] == "1 pending"
    assert inside("migrate", "run", *server).code == 0
    assert inside(*mark, "--yes").code == 0


def test_status_of_what_is_left(inside: Program, folder: Path, local_url: str) -> None:
    server = ("--url", local_url, "--db", "x")
    (folder / "001_first.py").write_text(QUIET_SCRIPT)
    inside("migrate", "run", *server)
    assert inside("migrate", "status", "--pending", *server).out == "nothing to do\n"
    assert inside("migrate", "status", *server).out.splitlines()[-1] == "1 applied; 7 indexes ready"
    (folder / "002_next.py").write_text(QUIET_SCRIPT)
    left = inside("migrate", "status", "--pending", *server)
    assert left.out.splitlines()[1:] == ["002      next  pending", "", "1 pending"]
    listed = inside("migrate", "status", "--pending", *server, "-o", "json").json
    assert ([m["version"] for m in listed["migrations"]], listed["indexes"]) == (["002"], [])


def test_unlock_says_what_it_has_done(inside: Program, local_url: str) -> None:
    server = ["--url", local_url, "--db", "x"]
    with pymongo.MongoClient[dict[str, Any]](local_url, tz_aware=True) as client:
        locks = client["x"]["_migrations_lock"]
        now = datetime.now(UTC)
        lease = {"_id": "lease", "owner": {"host": "web-1", "pid": 7, "id": "a"}, "term": 3, "acquired_at": now}
        locks.insert_one({**lease, "expires_at": now - timedelta(hours=1)})
        assert inside("migrate", "unlock", *server).out == (
            "no lease is held; the last was of web-1 (pid 7), term 3, expired\n"
        )
        locks.update_one({}, {"$set": {"expires_at": now + timedelta(hours=1)}})
    forced = inside("migrate", "unlock", "--force", *server, "-o", "json")
    assert forced.json["lease"]["acquired_at"].endswith("+00:00")
    with pymongo.MongoClient[dict[str, Any]](local_url, tz_aware=True) as client:
        client["x"]["_migrations_lock"].replace_one({}, {**lease, "expires_at": now + timedelta(hours=1)})
    refused = inside("migrate", "unlock", *server)
    assert refused.code == 7
    assert "`mydocs migrate unlock --force`" in refused.err
    forced = inside("migrate", "unlock", "--force", *server)
    assert forced.code == 0
    assert forced.out.startswith("removed the lease of web-1 (pid 7), term 3, ")
    assert inside("migrate", "unlock", *server).out == "no lease is held\n"


def test_a_served_user_needs_a_password(program: Program) -> None:
    ended = program("local", "serve", "--port", "0", "--user", "me")
    assert ended.code == 2
    assert "MYDOCS_LOCAL_PASSWORD" in ended.err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_signal_cancels_and_records_an_async_script(
    start: Start, program: Program, folder: Path, local_url: str, number: signal.Signals
) -> None:
    (folder / "001_slow.py").write_text(SLOW)
    (folder / "002_next.py").write_text(QUIET_SCRIPT)
    with start("migrate", "run", "--url", local_url, "--db", "x", "-o", "json") as process:
        _until(process.stderr, "begun")
        process.send_signal(number)
        out, _ = process.communicate()
    document = json.loads(out)
    assert process.returncode == 128 + number
    assert (document["outcome"], document["error"]["exit_code"]) == ("interrupted", 128 + number)
    assert [(m["state"], (m["error"] or {}).get("type")) for m in document["migrations"]] == [
        ("failed", "Cancelled"),
        ("pending", None),
    ]
    assert program("migrate", "unlock", "--url", local_url, "--db", "x").out == "no lease is held\n"


def test_what_an_async_script_does_to_clean_up_may_await(start: Start, folder: Path, local_url: str) -> None:
    (folder / "001_slow.py").write_text(CLEANS_UP % "")
    with start("migrate", "run", "--url", local_url, "--db", "x", "-o", "json") as process:
        _until(process.stderr, "begun")
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate()
    assert process.returncode == 143
    assert [m["error"]["type"] for m in json.loads(out)["migrations"]] == ["Cancelled"]
    with pymongo.MongoClient[dict[str, Any]](local_url) as client:
        assert client["x"]["cleaned"].count_documents({}) == 1


def test_second_signal_leaves_a_script_that_cleans_up_without_end(start: Start, folder: Path, local_url: str) -> None:
    (folder / "001_slow.py").write_text(CLEANS_UP % "        await asyncio.sleep(60)\n")
    with start("migrate", "run", "--url", local_url, "--db", "x") as process:
        _until(process.stderr, "begun")
        process.send_signal(signal.SIGINT)
        _until(process.stderr, "cleaned")
        threading.Event().wait(0.1)  # as below
        process.send_signal(signal.SIGINT)
        process.communicate()
    assert process.returncode == 130
    with pymongo.MongoClient[dict[str, Any]](local_url) as client:
        assert client["x"]["_migrations"].find_one({"_id": "001"})["state"] == "running"  # type: ignore[index]  # is there


@pytest.mark.seconds(180)
def test_a_script_that_cleans_up_without_end_is_cancelled_again(start: Start, folder: Path, local_url: str) -> None:
    (folder / "001_slow.py").write_text(CLEANS_UP % "        await asyncio.sleep(3600)\n")
    with start("migrate", "run", "--url", local_url, "--db", "x", "-o", "json") as process:
        _until(process.stderr, "begun")
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate()
    assert process.returncode == 143
    assert [m["error"]["type"] for m in json.loads(out)["migrations"]] == ["Cancelled"]


def test_a_plain_script_that_ends_although_it_was_interrupted_is_applied_and_the_last(
    start: Start, folder: Path, local_url: str, tmp_path: Path
) -> None:
    (folder / "001_slow.py").write_text(SLOW_PLAIN)
    (folder / "002_next.py").write_text(QUIET_SCRIPT)
    with start("migrate", "run", "--url", local_url, "--db", "x", "-o", "json") as process:
        _until(process.stderr, "begun")
        process.send_signal(signal.SIGTERM)
        _until(process.stderr, "interrupted")
        (tmp_path / "go").touch()
        out, _ = process.communicate()
    assert process.returncode == 143
    assert [m["state"] for m in json.loads(out)["migrations"]] == ["applied", "pending"]


def test_second_signal_leaves_at_once(start: Start, program: Program, folder: Path, local_url: str) -> None:
    (folder / "001_slow.py").write_text(SLOW_PLAIN)
    with start("migrate", "run", "--url", local_url, "--db", "x", "-o", "json") as process:
        _until(process.stderr, "begun")
        process.send_signal(signal.SIGINT)
        _until(process.stderr, "interrupted")
        # More than the time within which two signals count as one wish; there is no event to wait for.
        threading.Event().wait(0.1)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate()
    assert process.returncode == 130
    said = json.loads(out)
    assert (said["outcome"], said["database"], said["error"]["exit_code"]) == ("interrupted", "x", 130)
    with pymongo.MongoClient[dict[str, Any]](local_url) as client:
        assert client["x"]["_migrations"].find_one({"_id": "001"})["state"] == "running"  # type: ignore[index]  # is there


def test_second_signal_leaves_at_once_though_nobody_reads(start: Start, folder: Path, local_url: str) -> None:
    (folder / "001_slow.py").write_text(SLOW_PLAIN)
    with start("migrate", "run", "--url", local_url, "--db", "x", "-o", "json") as process:
        assert process.stdout is not None
        process.stdout.close()
        _until(process.stderr, "begun")
        process.send_signal(signal.SIGINT)
        _until(process.stderr, "interrupted")
        threading.Event().wait(0.1)
        process.send_signal(signal.SIGINT)
        assert process.wait() == 130


def test_a_log_that_cannot_be_written_changes_nothing_about_the_run(start: Start, folder: Path, local_url: str) -> None:
    (folder / "001_first.py").write_text(QUIET_SCRIPT)
    with (
        Path("/dev/full").open("w") as full,
        start("migrate", "run", "--url", local_url, "--db", "x", "-o", "json", stderr=full) as process,
    ):
        out, _ = process.communicate()
    assert process.returncode == 0
    assert [migration["state"] for migration in json.loads(out)["migrations"]] == ["applied"]


def test_a_local_server_that_cannot_start_is_a_mistake_of_the_call(program: Program, folder: Path) -> None:
    with LocalServer(folder.parent / ".mydocs", user="me", password="secret"):
        ended = program("migrate", "status", "--local", "-o", "json")
    assert (ended.code, ended.json["error"]["type"]) == (2, "SettingsInvalid")
    assert "MYDOCS_LOCAL_PASSWORD" in ended.json["error"]["message"]


def test_login_that_fails_is_3(program: Program, folder: Path) -> None:
    (folder / "001_first.py").write_text(QUIET_SCRIPT)
    with LocalServer(user="me", password="right-one") as server:
        url = server.url.replace("right-one", "hunter2-secret")
        ended = program("migrate", "status", "--url", url, "--db", "x", "-o", "json", "--verbose")
    assert (ended.code, ended.json["error"]["type"]) == (3, "NotAuthorised")
    assert "hunter2" not in ended.out + ended.err


def test_silent_server_is_named_while_waiting_and_a_signal_ends_it(start: Start, folder: Path) -> None:
    (folder / "001_first.py").write_text(QUIET_SCRIPT)
    with start("migrate", "status", "--url", "mongodb://me:hunter2-secret@127.0.0.1:1/x") as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        process.send_signal(signal.SIGTERM)
        process.communicate()
    assert "waiting for the server 127.0.0.1:1" in line
    assert "hunter2" not in line
    assert process.returncode == 143


@pytest.mark.parametrize("output", ["table", "json"])
def test_no_stream_shows_a_credential(program: Program, folder: Path, local_url: str, output: str) -> None:
    url = local_url.replace("mongodb://", "mongodb://me:s%40same-open@")
    (folder / "001_leak.py").write_text(f"async def up(db):\n    raise ValueError({url!r} + ' s@same-open')\n")
    environ = {"MONGO_URL": url, "MONGO_DB_NAME": "x", "MONGO_USER": "me", "MONGO_PASSWORD": "s@same-open"}
    ended = program("migrate", "run", "-o", output, "--verbose", environ=environ)
    assert ended.code != 0
    assert "same-open" not in ended.out + ended.err


def test_reader_that_goes_away_is_no_error(start: Start, folder: Path, local_url: str) -> None:
    (folder / "001_first.py").write_text(QUIET_SCRIPT)
    with start("migrate", "status", "--url", local_url, "--db", "x") as process:
        assert process.stdout is not None
        process.stdout.close()
        err = process.stderr.read() if process.stderr else ""
    assert (process.returncode, err) == (0, "")


def test_stdout_that_takes_nothing_is_an_error(start: Start, folder: Path, local_url: str) -> None:
    full = Path("/dev/full").open("w")  # noqa: SIM115  # closed with the process
    with full, start("migrate", "status", "--url", local_url, "--db", "x", stdout=full) as process:
        _, err = process.communicate()
    assert process.returncode == 1
    assert err.count("\n") == 1
    assert "cannot be written to stdout" in err


def test_json_stays_json_where_stdout_is_no_unicode(program: Program, folder: Path, local_url: str) -> None:
    (folder / "001_bad.py").write_text("async def up(db):\n    raise ValueError('für ☃')\n", encoding="utf-8")
    environ = {"PYTHONIOENCODING": "ascii"}
    ended = program("migrate", "run", "--url", local_url, "--db", "x", "-o", "json", environ=environ)
    assert "für ☃" in ended.json["error"]["message"]


def test_local_keeps_its_data_in_the_folder(program: Program, folder: Path, tmp_path: Path) -> None:
    (folder / "001_first.py").write_text(QUIET_SCRIPT)
    environ = {"MONGO_URL": "mongodb://127.0.0.1:1/never"}
    first = program("migrate", "run", "--local", "-o", "json", environ=environ)
    assert (first.code, first.json["database"]) == (0, "mydocs")
    assert "not MongoDB" in first.err
    assert (tmp_path / ".mydocs").is_dir()
    assert program("migrate", "run", "--local").out == "nothing to do\n"


def test_serve_prints_its_address_and_ends_with_a_signal(start: Start) -> None:
    with start("local", "serve", "--port", "0", "--dir", "data") as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        with pymongo.MongoClient[dict[str, Any]](url, serverSelectionTimeoutMS=5000) as client:
            assert client.admin.command("ping")["ok"] == 1
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate()
    assert process.returncode == 0
    assert "not MongoDB" in err


SHARED = """
import os
from mydocs.migrations import transform


def change(document):
    return {"$set": {"m": document["n"] + 1, "by": os.getpid()}, "$inc": {"times": 1}}


async def up(db):
    await transform(db.things, {"m": {"$exists": False}}, change, batch_size=10)
"""


@pytest.mark.seconds(180)
def test_data_changes_are_shared_among_processes(
    program: Callable[..., Any], local_server: LocalServer, tmp_path: Path
) -> None:
    folder = tmp_path / "shared"
    folder.mkdir()
    (folder / "001_things.py").write_text(SHARED)
    with pymongo.MongoClient[dict[str, Any]](local_server.url) as client:
        things = client["app"]["things"]
        things.insert_many([{"_id": n, "n": n} for n in range(400)])
        by: set[int] = set()
        both = threading.Event()  # no worker goes on before each has begun, so that neither finds all done

        def note(recorded: Recorded) -> None:
            by.add(recorded.body["updates"][0]["u"]["$set"]["by"])
            if len(by) == 2:
                both.set()

        def is_update(recorded: Recorded) -> bool:
            return recorded.name == "update" and bool(recorded.body["update"] == "things")

        local_server.controls.call(note, when=is_update, times=None)
        local_server.controls.delay(both, when=is_update, times=None)
        options = ("--url", local_server.url, "--db", "app", "--dir", str(folder), "--indexes", "none")
        ended = program("migrate", "run", *options, "--workers", "2")
        assert ended.code == 0, ended.err
        found = list(things.find())
        assert {(each["m"] - each["n"], each["times"]) for each in found} == {(1, 1)}
        assert len({each["by"] for each in found}) == 2


def test_workers_and_a_cluster_exclude_each_other(program: Callable[..., Any]) -> None:
    ended = program("migrate", "run", "--workers", "2", "--dask", "tcp://127.0.0.1:9")
    assert ended.code == 2
    assert "--workers and --dask exclude each other" in ended.err
