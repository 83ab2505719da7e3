"""What comes from outside is shown and takes no effect; stdout holds the result alone, whatever is printed when."""

import base64
import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pymongo
import pytest

from mydocs.localserver import LocalServer

pytestmark = pytest.mark.seconds(180)  # each starts several processes

Program = Callable[..., Any]

HOSTILE = "\x1b]0;owned\x07\x1b[31mred \x9b32m \x7f \u202e::x \r::stop-commands::t ##[stop-commands]u \n ::add-mask::v"
SCRIPT = f"""
import os, subprocess, sys
from pymongo.operations import SearchIndexModel
from mydocs.migrations import ensure_search_indexes
HOSTILE = {HOSTILE!r}
async def up(db):
    model = SearchIndexModel(name="ft" + HOSTILE, definition={{"mappings": {{"dynamic": True}}}})
    await ensure_search_indexes(db.documents, [model])
    print(HOSTILE)
    print(HOSTILE, file=sys.stderr)
    sys.stdout.buffer.write(HOSTILE.encode() + b"\\n")
    os.write(1, HOSTILE.encode() + b"\\n")
    os.write(2, HOSTILE.encode() + b"\\n")
    subprocess.run([sys.executable, "-c", f"print({{HOSTILE!r}})"], check=True)
    raise ValueError(HOSTILE)
"""
LATE = """
import atexit, os, sys, threading, time
def talk(what):
    print(what)
    os.write(1, what.encode() + b"\\n")
    sys.__stdout__.write(what + "\\n")
    sys.__stdout__.flush()
def run():
    while True:
        talk("from a thread")
        time.sleep(0.001)
atexit.register(talk, "from an exit handler")
async def up(db):
    threading.Thread(target=run, daemon=True).start()
"""
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
PASSWORD = "hunter2\\\"'/ö secret"


def is_harmless(text: str) -> bool:
    ours = "::error title=mydocs"
    commands = [line for line in text.splitlines() if line.lstrip().startswith("::") and not line.startswith(ours)]
    return not CONTROL.search(text) and "##[" not in text and not commands


@pytest.mark.parametrize("options", [(), ("-v",), ("-o", "json"), ("--log-format", "json", "-v")], ids=" ".join)
def test_nothing_from_outside_takes_effect(
    program: Program, folder: Path, local_url: str, tmp_path: Path, options: tuple[str, ...]
) -> None:
    (folder / "001_hostile.py").write_text(SCRIPT, encoding="utf-8")
    (tmp_path / "summary.md").touch()
    environ = {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md")}
    server = ("--url", local_url, "--db", "x")
    said = ""
    for command in (("run", "--report", "r.html"), ("run", "--report", "r.xml"), ("status", "--history"), ("check",)):
        ended = program("migrate", *command, *server, *options, environ=environ)
        assert ended.code in (0, 1, 8), ended.err
        assert "owned" in ended.out + ended.err
        assert is_harmless(ended.out), ended.out
        assert is_harmless(ended.err), ended.err
        said += ended.err
    if "json" not in options:
        assert said.count("\\x1b]0;owned\\x07") >= 6
    for name in ("r.html", "r.xml", "summary.md"):
        text = (tmp_path / name).read_text("utf-8")
        assert "owned" in text
        assert not CONTROL.search(text)


@pytest.mark.parametrize("output", ["json", "table"])
def test_nothing_follows_the_result(program: Program, folder: Path, local_url: str, output: str) -> None:
    (folder / "001_late.py").write_text(LATE)
    ended = program("migrate", "run", "--url", local_url, "--db", "x", "-o", output)
    assert ended.code == 0, ended.err
    assert "from a thread" in ended.err
    assert "from an exit handler" in ended.err
    assert "from a" not in ended.out
    if output == "json":
        assert ended.json["outcome"] == "ok"
        assert ended.out.count("\n") == 1


@pytest.mark.parametrize("command", [("run", "-v"), ("run", "--wait", "--timeout", "1ms"), ("status",), ("rn",)])
def test_each_line_of_a_json_log_has_time_level_event_and_message(
    program: Program, folder: Path, local_url: str, command: tuple[str, ...]
) -> None:
    (folder / "001_search.py").write_text(SCRIPT, encoding="utf-8")
    ended = program("migrate", *command, "--url", local_url, "--db", "x", "--log-format", "json")
    lines = [json.loads(line) for line in ended.err.splitlines()]
    assert [line for line in lines if list(line)[:4] != ["time", "level", "event", "message"]] == []
    assert {line["level"] for line in lines} <= {"debug", "info", "warning", "error"}
    assert [line for line in lines if not isinstance(line["message"], str)] == []
    if command[0] == "run":
        assert {"Planned", "StepStarted", "output", "error"} <= {line["event"] for line in lines}
        assert [line["level"] for line in lines if line["event"] == "error"] == ["error"]


def test_what_a_script_prints_holds_no_secret(program: Program, folder: Path, local_server: LocalServer) -> None:
    forms = [PASSWORD, repr(PASSWORD), json.dumps(PASSWORD), base64.b64encode(f"me:{PASSWORD}".encode()).decode()]
    (folder / "001_leaky.py").write_text(
        "import os, subprocess, sys\n"
        f"FORMS = {forms!r}\n"
        "async def up(db):\n"
        "    for form in FORMS:\n"
        "        print('printed', form)\n"
        "        sys.stderr.write('in ' + form[:5]); sys.stderr.write(form[5:] + ' pieces\\n')\n"
        "        os.write(1, f'written {form}\\n'.encode())\n"
        "        subprocess.run([sys.executable, '-c', f'print(\"from a child\", {form!r})'], check=True)\n",
        encoding="utf-8",
    )
    with LocalServer(user="me", password=PASSWORD) as server:
        environ = {"MONGO_USER": "me", "MONGO_PASSWORD": PASSWORD}
        url = f"mongodb://127.0.0.1:{server.port}/x"
        ended = program("migrate", "run", "--url", url, environ=environ)
    assert ended.code == 0, ended.err
    assert [ended.err.count(word) for word in ("printed", "pieces", "written", "from a child")] == [len(forms)] * 4
    assert "hunter2" not in ended.out + ended.err
    assert ended.err.count("***") == 4 * len(forms)
    assert forms[-1][8:] not in ended.err


def test_an_index_that_nobody_looked_at_is_unknown(program: Program, folder: Path, local_url: str) -> None:
    (folder / "001_search.py").write_text(
        "from pymongo.operations import SearchIndexModel\n"
        "from mydocs.migrations import ensure_search_indexes\n"
        "async def up(db):\n"
        "    model = SearchIndexModel(name='ft', definition={'mappings': {'dynamic': True}})\n"
        "    await ensure_search_indexes(db.documents, [model])\n"
    )
    ended = program("migrate", "run", "--url", local_url, "--db", "x", "-o", "json")
    (index,) = [index for index in ended.json["indexes"] if index["name"] == "ft"]
    assert (index["state"], index["queryable"], index["reason"]) == ("unknown", None, "not waited for")
    program("migrate", "mark", "001", "--pending", "--url", local_url, "--db", "x")
    with pymongo.MongoClient[dict[str, Any]](local_url) as client:
        client["x"]["documents"].drop_search_index("ft")
    table = program("migrate", "run", "--url", local_url, "--db", "x")
    assert "1 index not waited for in" in table.out
    assert "building" not in table.out


def test_a_malformed_url_is_not_looked_up(program: Program, folder: Path) -> None:
    (folder / "001_a.py").write_text("async def up(db): ...\n")
    for url in ("mongodb://u:p@ss/w0rd@host/db", "mongodb+srv://u:p@ss/w0rd@host.example/db"):
        ended = program("migrate", "run", "--url", url)
        assert (ended.code, ended.out) == (2, "")
        assert "percent-encoded" in ended.err
        assert "w0rd" not in ended.err.replace("password", "")


def test_a_program_that_a_script_leaves_behind_holds_nothing_up(
    start: Callable[..., "subprocess.Popen[str]"], folder: Path, local_url: str
) -> None:
    (folder / "001_daemon.py").write_text(
        "import pathlib, subprocess, sys\n"
        "async def up(db):\n"
        "    left = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "    pathlib.Path('pid').write_text(str(left.pid))\n"
    )
    with start("migrate", "run", "--url", local_url, "--db", "x", "-o", "json") as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["outcome"] == "ok"
        assert process.wait(90) == 0
        os.kill(int((folder.parent / "pid").read_text()), 9)
