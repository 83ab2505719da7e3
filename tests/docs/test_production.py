"""The complete files under docs/examples: each is parsed, and the commands in them do what the files want of them."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]  # it ships no types
import pytest
import yaml
from typer.testing import CliRunner

from mydocs.cli.app import app
from mydocs.cli.errors import EXIT_CODES

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "docs" / "examples"
VARIABLES = {"MONGO_URL", "MONGO_DB_NAME", "MONGO_USER", "MONGO_PASSWORD"}


def documents(name: str) -> list[dict[str, Any]]:
    """Parse a file; Helm's placeholders get the values of its chart."""
    text = (EXAMPLES / name).read_text("utf-8")
    if "{{" in text and name.startswith("helm/"):
        values = {"Values": documents("helm/values.yaml")[0], "Release": {"Name": "mydocs"}}
        values["Chart"] = {"AppVersion": documents("helm/Chart.yaml")[0]["appVersion"]}

        def value(match: re.Match[str]) -> str:
            found: Any = values
            for key in match[1].split(".")[1:]:
                found = found[key]
            return str(found)

        text = re.sub(r"\{\{ ([\w.]+) \}\}", value, text)
    return list(yaml.safe_load_all(text))


def containers(name: str) -> Iterator[dict[str, Any]]:
    """Give every container of a file's Pods, those that run to their end first."""
    for document in sorted(documents(name), key=lambda document: document["kind"] != "Job"):
        pod = document.get("spec", {}).get("template", {}).get("spec", {})
        yield from pod.get("initContainers", [])
        yield from pod.get("containers", [])


def commands(name: str) -> list[list[str]]:
    """Return the arguments of each call of `mydocs` in the file, in the order in which they would run."""
    if name == "compose.yaml":
        services = documents(name)[0]["services"].values()
        return [service["command"] for service in services if "command" in service]
    if name == "github-actions.yaml":
        jobs = documents(name)[0]["jobs"].values()
        lines = [step["run"].split() for job in jobs for step in job["steps"] if "run" in step]
        return [words[1:] for words in lines if words[0] == "mydocs"]
    return [container["args"] for container in containers(name) if container["command"] == ["mydocs"]]


@pytest.mark.seconds(180)
@pytest.mark.parametrize(
    ("name", "called"),
    [
        pytest.param("kubernetes.yaml", ["run", "wait"], id="Kubernetes"),
        pytest.param("helm/templates/migrate-job.yaml", ["run"], id="Helm"),
        pytest.param("compose.yaml", ["run"], id="Compose"),
        pytest.param(
            "github-actions.yaml", ["list", "run", "check", "rollback", "run", "run", "run"], id="GitHub Actions"
        ),
    ],
)
def test_commands_of_an_example_run(
    name: str, called: list[str], local_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(ROOT / "migrations", tmp_path / "migrations", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MONGO_URL", local_url)
    monkeypatch.setenv("MONGO_DB_NAME", "mydocs")
    found = commands(name)
    assert [arguments[:2] for arguments in found] == [["migrate", command] for command in called]
    for arguments in found:
        ended = CliRunner().invoke(app, arguments, prog_name="mydocs")
        assert ended.exit_code == 0, f"{arguments}\n{ended.output}"


@pytest.mark.parametrize("name", ["kubernetes.yaml", "helm/templates/migrate-job.yaml"])
def test_a_job_gives_up_on_what_would_end_the_same_way(name: str) -> None:
    (job,) = [document for document in documents(name) if document["kind"] == "Job"]
    (rule,) = job["spec"]["podFailurePolicy"]["rules"]
    pod = job["spec"]["template"]["spec"]
    assert pod["restartPolicy"] == "Never"  # podFailurePolicy is refused with any other
    assert rule["onExitCodes"]["containerName"] in [container["name"] for container in pod["containers"]]
    assert set(rule["onExitCodes"]["values"]) == {1, 2, 6, 9} <= EXIT_CODES.keys()


def test_secrets_hold_the_variables_that_the_program_reads() -> None:
    secrets = {d["metadata"]["name"]: d["stringData"] for d in documents("kubernetes.yaml") if d["kind"] == "Secret"}
    assert [set(values) for values in secrets.values()] == [VARIABLES, VARIABLES]
    named = [source["secretRef"]["name"] for c in containers("kubernetes.yaml") for source in c["envFrom"]]
    assert set(named) == set(secrets)
    workflow = documents("github-actions.yaml")[0]["jobs"]["deploy"]["env"]
    assert set(workflow) == VARIABLES


def test_manifests_are_what_kubernetes_takes() -> None:
    found = [
        document for name in ("kubernetes.yaml", "helm/templates/migrate-job.yaml") for document in documents(name)
    ]
    assert [document["kind"] for document in found] == ["Secret", "Secret", "Job", "Deployment", "Job"]
    for document in found:
        kubernetes_validate.validate(document, "1.30", strict=True)


@pytest.mark.parametrize(
    ("name", "schema"), [("compose.yaml", "compose-spec"), ("github-actions.yaml", "github-workflows")]
)
def test_files_for_other_programs_are_what_they_take(name: str, schema: str) -> None:
    command = ["check-jsonschema", "--builtin-schema", f"vendor.{schema}", str(EXAMPLES / name)]
    checked = subprocess.run(
        [str(Path(sys.executable).with_name(command[0])), *command[1:]], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout


def test_probes_ask_what_the_application_answers() -> None:
    (deployment,) = [document for document in documents("kubernetes.yaml") if document["kind"] == "Deployment"]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    asked = {container[probe]["httpGet"]["path"] for probe in ("livenessProbe", "readinessProbe")}
    served = set(re.findall(r'@app\.get\("([^"]+)"\)', (EXAMPLES / "fastapi_app.py").read_text("utf-8")))
    assert asked == served
    assert container["args"][0] == "application:app"


def test_the_image_is_made_of_what_is_there() -> None:
    lines = (EXAMPLES / "Dockerfile").read_text("utf-8").splitlines()
    copied = [source for line in lines if line.startswith("COPY ") for source in line.split()[1:-1]]
    assert [source for source in copied if not (ROOT / source).exists()] == []
    (entry,) = [json.loads(line.removeprefix("ENTRYPOINT ")) for line in lines if line.startswith("ENTRYPOINT ")]
    assert entry == ["mydocs"]
    installed = next(line for line in lines if "pip install" in line)
    assert all(package in installed for package in ("fastapi", "uvicorn"))
    assert any(line.endswith("/fastapi_app.py ./application.py") for line in lines)


def test_every_example_is_named_by_a_page() -> None:
    pages = "".join(page.read_text("utf-8") for page in (ROOT / "docs").rglob("*.md"))
    files = [path for path in EXAMPLES.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    assert len(files) > 5
    assert [path.name for path in files if path.name not in pages] == []
