"""
Each example from its files alone: an environment of its own, a server that asks for a login, questions over HTTP.

The image is laid out as its Dockerfile says, and what runs in it are the commands of the Compose file and of the
manifests, in processes on this machine. Only addresses, ports and logins are those of the test.
"""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from mydocs.localserver import LocalServer

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "docs" / "examples"
USER, PASSWORD = "application", "p@ss/w:rd"
LIMIT_SECONDS = 60.0  # of one answer; a start takes a few

pytestmark = [pytest.mark.heavy, pytest.mark.seconds(600)]  # pip builds and installs


@dataclass(frozen=True)
class Image:
    """A folder and an environment as the Dockerfile makes them."""

    folder: Path
    programs: Path
    entrypoint: tuple[str, ...]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    """Do what the Dockerfile says: copy its files, and run its `pip install` in a fresh environment."""
    base = tmp_path_factory.mktemp("image")
    folder, programs = base / "app", base / "venv" / "bin"
    folder.mkdir()
    subprocess.run([sys.executable, "-m", "venv", base / "venv"], check=True)
    environ = {"PATH": f"{programs}:/usr/bin:/bin", "HOME": str(base)}
    environ |= {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
    entrypoint: tuple[str, ...] = ()
    for line in (EXAMPLES / "Dockerfile").read_text("utf-8").splitlines():
        instruction, _, rest = line.partition(" ")
        if instruction == "COPY":
            *sources, target = rest.split()
            for source in sources:
                _copy(ROOT / source, folder / target if len(sources) == 1 and target != "./" else folder / source)
        elif instruction == "RUN":
            subprocess.run(rest, shell=True, cwd=folder, env=environ, check=True)
        elif instruction == "ENTRYPOINT":
            entrypoint = tuple(yaml.safe_load(rest))
    return Image(folder=folder, programs=programs, entrypoint=entrypoint)


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy(source, target)


@pytest.fixture
def server() -> Iterator[LocalServer]:
    """A server that asks for a login, whose index builds take no time."""
    with LocalServer(user=USER, password=PASSWORD) as server:
        for name in ("ft_documents", "ft_pages", "vec_pages_large_dot"):
            server.search.outcome(name, pending_seconds=0.0, build_seconds=0.0)
        yield server


class Process:
    """A process of the image. Its lines are read to its end, so that it never waits for its reader."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process
        self.lines: list[str] = []
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._changed:
                self.lines.append(line.rstrip("\n"))
                self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()

    def line(self, pattern: str) -> re.Match[str]:
        """Return the first line that a pattern matches, as soon as there is one."""

        def found() -> re.Match[str] | None:
            return next(filter(None, (re.search(pattern, line) for line in self.lines)), None)

        with self._changed:
            self._changed.wait_for(lambda: found() or not self._reader.is_alive(), LIMIT_SECONDS)
            match = found()
        assert match is not None, "\n".join(self.lines)
        return match

    def end(self) -> int:
        """Wait for its end and for all that it has said."""
        code = self.process.wait(LIMIT_SECONDS)
        self._reader.join(LIMIT_SECONDS)
        if self.process.stdout is not None:
            self.process.stdout.close()
        return code

    @contextmanager
    def client(self) -> Iterator[httpx.Client]:
        """Ask it over HTTP, at the port that uvicorn names."""
        address = self.line(r"Uvicorn running on (http://\S+)")[1]
        with httpx.Client(base_url=address, timeout=LIMIT_SECONDS, trust_env=False) as client:
            yield client


Run = Callable[..., Process]


@pytest.fixture
def run(image: Image, server: LocalServer) -> Iterator[Run]:
    """Start a command in the image, with the settings that the test's server needs and no others of this process."""
    started: list[Process] = []

    def go(command: Sequence[str], names: Mapping[str, Any] | None = None) -> Process:
        settings = {"MONGO_URL": f"mongodb://127.0.0.1:{server.port}/", "MONGO_DB_NAME": "app"}
        settings |= {"MONGO_USER": USER, "MONGO_PASSWORD": PASSWORD}
        assert set(names or {}) <= set(settings), "what the file sets is what the program reads"
        environ = {"PATH": f"{image.programs}:/usr/bin:/bin", "PYTHONUNBUFFERED": "1", **settings}
        process = subprocess.Popen(
            _here(command), cwd=image.folder, env=environ, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        started.append(Process(process))
        return started[-1]

    yield go
    for each in started:
        each.process.terminate()
        try:
            assert each.process.wait(20) in (0, -signal.SIGTERM), "\n".join(each.lines)
        finally:
            each.process.kill()
            each.end()


def _here(command: Sequence[str]) -> list[str]:
    """Let a command of a container serve this machine alone, at a port that is free."""
    told = " ".join(map(shlex.quote, command))
    return shlex.split(told.replace("--host 0.0.0.0", "--host 127.0.0.1").replace("--port 8000", "--port 0"))


@contextmanager
def slow_script(server: LocalServer) -> Iterator[None]:
    """Keep the first script at work until the block has ended."""
    go_on = threading.Event()
    server.controls.call(lambda _: go_on.wait(LIMIT_SECONDS), command="createSearchIndexes", times=1)
    try:
        yield
    finally:
        go_on.set()


def until_ready(client: httpx.Client, path: str) -> Any:
    """Ask as a probe would, until it may take traffic."""
    while (answer := client.get(path)).status_code != 200:
        assert answer.status_code == 503, answer.text
        assert answer.json()["problem"] is None
    return answer.json()


def documents(name: str) -> list[dict[str, Any]]:
    return [each for each in yaml.safe_load_all((EXAMPLES / name).read_text("utf-8")) if each]


def test_the_manifests_migrate_wait_and_serve(run: Run, server: LocalServer) -> None:
    manifests = {(each["kind"], each["metadata"]["name"]): each for each in documents("kubernetes.yaml")}
    secrets = {name: each["stringData"] for (kind, name), each in manifests.items() if kind == "Secret"}
    (job,) = (each for (kind, _), each in manifests.items() if kind == "Job")
    pod = manifests["Deployment", "mydocs"]["spec"]["template"]["spec"]
    (migrate,), (init,), (application,) = (
        job["spec"]["template"]["spec"]["containers"],
        pod["initContainers"],
        pod["containers"],
    )

    def start(container: dict[str, Any]) -> Process:
        (source,) = container["envFrom"]
        names = secrets[source["secretRef"]["name"]]
        return run([*container["command"], *container["args"]], names)

    probes = [application[probe]["httpGet"]["path"] for probe in ("livenessProbe", "readinessProbe")]
    waiting = start(init)
    waiting.line("still waiting")
    with slow_script(server):
        working = start(migrate)
        server.controls.wait_for(lambda sent: sent.name == "createSearchIndexes", LIMIT_SECONDS)
        serving = start(application)
        with serving.client() as client:
            assert client.get(probes[0]).status_code == 200
            answer = client.get(probes[1])
            assert answer.status_code == 503
            assert "001 is running" in answer.json()["missing"]
        assert waiting.process.poll() is None
    assert (working.end(), waiting.end()) == (0, 0), "\n".join([*working.lines, *waiting.lines])
    with serving.client() as client:
        assert until_ready(client, probes[1]) == {"ready": True, "missing": []}


def test_the_services_of_compose_start_one_after_the_other(run: Run, image: Image) -> None:
    (compose,) = documents("compose.yaml")
    migrate, application = compose["services"]["migrate"], compose["services"]["application"]
    assert application["depends_on"] == {"migrate": {"condition": "service_completed_successfully"}}
    first = run([*image.entrypoint, *migrate["command"]], migrate["environment"])
    assert first.end() == 0, "\n".join(first.lines)
    serving = run(application["entrypoint"], application["environment"])
    with serving.client() as client:
        assert client.get("/healthz").json() == {"alive": True}
        assert until_ready(client, "/readyz") == {"ready": True, "missing": []}


def test_the_application_alone_serves_while_its_slow_script_runs(run: Run, server: LocalServer) -> None:
    (compose,) = documents("compose.yaml")
    with slow_script(server):
        serving = run(compose["services"]["application"]["entrypoint"])
        server.controls.wait_for(lambda sent: sent.name == "createSearchIndexes", LIMIT_SECONDS)
        with serving.client() as client:
            assert client.get("/healthz").json() == {"alive": True}
            assert client.get("/readyz").status_code == 503
    with serving.client() as client:
        until_ready(client, "/readyz")
    serving.line("migration 001 fulltext_documents: applied")


def test_the_starlette_example_listens_when_all_is_ready(run: Run, server: LocalServer, image: Image) -> None:
    _copy(EXAMPLES / "starlette_app.py", image.folder / "starlette_app.py")
    with slow_script(server):
        serving = run(["uvicorn", "starlette_app:app", "--port", "0"])
        server.controls.wait_for(lambda sent: sent.name == "createSearchIndexes", LIMIT_SECONDS)
        assert not any("Uvicorn running" in line for line in serving.lines)
    with serving.client() as client:
        assert client.get("/readyz").json() == {"ready": True, "missing": []}
