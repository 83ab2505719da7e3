"""No credential in any stream, at any log level, in any report, error or ledger entry, whatever shape its URL has."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pymongo
import pytest
from bson import json_util
from typer.testing import Result

from mydocs.localserver import LocalServer

USER, PASSWORD = "me", "hunter2@pa ss/w:ö"
FORMS = {
    "as the standard library encodes it": "hunter2%40pa%20ss%2Fw%3A%C3%B6",
    "with a plus sign and small letters": "hunter2%40pa+ss%2fw%3a%c3%b6",
    "with more encoded than must be": "%68unter2%40pa%20ss%2Fw%3A%C3%B6",
}
LEAKY = """
import logging, os
from mydocs.migrations.reporting import events
LEAKS = {leaks!r}
async def up(db):
    logging.getLogger("mydocs.migrations").debug("connected with %s", LEAKS)
    logging.getLogger("mydocs.migrations").warning("connected with %s", LEAKS)
    raise ValueError(f"no luck with {{LEAKS}}")
"""
STREAMS = [(), ("--verbose",), ("--log-format", "json", "--verbose"), ("-o", "json"), ("-o", "quiet")]


@pytest.fixture(scope="module")
def guarded() -> Iterator[LocalServer]:
    """A server that asks for a login."""
    with LocalServer(user=USER, password=PASSWORD) as server:
        yield server


@pytest.fixture
def workflow(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Be a step of a workflow; return the file of its summary."""
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    return tmp_path / "summary.md"


@pytest.mark.parametrize("where", ["url", "environment"])
@pytest.mark.parametrize("form", list(FORMS.values()), ids=list(FORMS))
def test_a_password_is_nowhere_however_it_is_written(
    cli: Callable[..., Result],
    folder: Path,
    guarded: LocalServer,
    workflow: Path,
    monkeypatch: pytest.MonkeyPatch,
    form: str,
    where: str,
) -> None:
    bare = f"mongodb://127.0.0.1:{guarded.port}/"
    leaks = [PASSWORD, *FORMS.values(), f"mongodb://{USER}:{form}@127.0.0.1/"]
    (folder / "001_leaky.py").write_text(LEAKY.format(leaks=leaks), encoding="utf-8")
    if where == "url":
        monkeypatch.setenv("MONGO_URL", f"mongodb://{USER}:{form}@127.0.0.1:{guarded.port}/?authSource=admin")
    else:
        for name, value in (("URL", bare), ("USER", USER), ("PASSWORD", PASSWORD)):
            monkeypatch.setenv(f"MONGO_{name}", value)
    said = []
    for options, ending in zip(STREAMS, itertools.cycle(("html", "xml")), strict=False):
        ended = cli("migrate", "run", "--db", "x", *options, "--report", f"report.{ending}")
        assert ended.exit_code == 1, ended.output
        said += [ended.stdout, ended.stderr]
    said.append(cli("migrate", "status", "--db", "x", "--history", "-v").output)
    said += [path.read_text("utf-8") for path in (workflow, Path("report.html"), Path("report.xml"))]
    with pymongo.MongoClient[dict[str, Any]](bare, username=USER, password=PASSWORD) as client:
        stored = [list(client["x"][name].find()) for name in ("_migrations", "_migrations_log", "_migrations_lock")]
        client.drop_database("x")
    said.append(json_util.dumps(stored, ensure_ascii=False))
    assert all("no luck" in text for text in (said[1], said[-1], said[-2], said[-3], said[-4]))
    assert [text for text in said if "hunter2" in text.lower() or "%68unter2" in text.lower()] == []


@pytest.mark.parametrize("password", ["hunter2\n-secret", "hunter2\x07-secret", "hunter2\u200e-secret"])
@pytest.mark.parametrize("where", ["url", "environment"])
def test_a_password_that_no_login_takes_is_told_apart(
    cli: Callable[..., Result],
    folder: Path,
    guarded: LocalServer,
    monkeypatch: pytest.MonkeyPatch,
    password: str,
    where: str,
) -> None:
    if where == "url":
        monkeypatch.setenv("MONGO_URL", f"mongodb://{USER}:{quote(password)}@127.0.0.1:{guarded.port}/x")
    else:
        monkeypatch.setenv("MONGO_URL", f"mongodb://127.0.0.1:{guarded.port}/x")
        monkeypatch.setenv("MONGO_USER", USER)
        monkeypatch.setenv("MONGO_PASSWORD", password)
    ended = cli("migrate", "run")
    assert ended.exit_code == 2
    assert "the password has a character that no login takes, such as a control character" in ended.stderr
    assert "SASL" not in ended.stderr
    assert "hunter2" not in ended.output


@pytest.mark.parametrize("options", STREAMS, ids=" ".join)
@pytest.mark.parametrize(
    "url",
    [
        pytest.param("mongodb://me:hunter2%40x@127.0.0.1:1/x?{fast}", id="nobody listens"),
        pytest.param("mongodb://me:hunter2%2@127.0.0.1:1/x?{fast}", id="bad escape"),
        pytest.param("mongodb://me:hunter2@b:c@127.0.0.1:1/x", id="unescaped @ and :"),
        pytest.param("mongodb://me:hunter2/b?c@127.0.0.1:1/x", id="unescaped / and ?"),
        pytest.param("mongodb+srv://me:hunter2@127.0.0.1/x", id="SRV with an address"),
        pytest.param("mongodb+srv://me:hunter2@a.b.c:99/x", id="SRV with a port"),
        pytest.param("mongodb+srv://me:hunter2@one/x", id="SRV with one word"),
        pytest.param("http://me:hunter2@127.0.0.1/x", id="other scheme"),
        pytest.param("mongodb://me:hunter2@127.0.0.1:1/x?nonsense=1", id="unknown option"),
        pytest.param("mongodb://me:hunter2@127.0.0.1:port/x", id="no port"),
        pytest.param("mongodb://me:hunter2@127.0.0.1:1/x?authMechanism=PLAIN-hunter2", id="in an option"),
        pytest.param(
            "mongodb://A:k@127.0.0.1:1/x?authMechanism=MONGODB-AWS&authMechanismProperties=AWS_SESSION_TOKEN:hunter2&{fast}",
            id="token in the query",
        ),
        pytest.param(
            "mongodb://A:k@127.0.0.1:1/x?authMechanism=MONGODB-AWS&authMechanismProperties=hunter2&{fast}",
            id="token without a name",
        ),
        pytest.param(
            "mongodb://127.0.0.1:1/x?tls=true&tlsCertificateKeyFile=none.pem&tlsCertificateKeyFilePassword=hunter2",
            id="password of a key file",
        ),
    ],
)
def test_a_url_that_cannot_be_used_is_not_quoted(
    cli: Callable[..., Result], folder: Path, workflow: Path, url: str, options: tuple[str, ...]
) -> None:
    folder.joinpath("001_first.py").write_text("async def up(db): ...\n")
    url = url.format(fast="serverSelectionTimeoutMS=20")
    ended = cli("migrate", "run", "--url", url, "--report", "report.html", *options)
    assert ended.exit_code in (2, 3), ended.output
    assert ended.stderr
    assert "hunter2" not in ended.output + workflow.read_text("utf-8") + Path("report.html").read_text("utf-8")
