"""What is checked before a change is shown to anybody: `nox` lints and tests on the Python that it runs on."""

import os
import re
import tempfile
from pathlib import Path

import nox

nox.needs_version = ">=2024.10.9"
nox.options.reuse_venv = "yes"
# The standard library's venv: the README's command has used it already, and it needs no other tool.
nox.options.default_venv_backend = "venv"

PROJECT = nox.project.load_toml("pyproject.toml")
PYTHONS = nox.project.python_versions(PROJECT)

# These modules only decide, so a test reaches each of their branches by a plain call.
PURE = (
    *("ledger/plan", "ledger/documents", "ledger/foreign"),
    *("indexes/readiness", "indexes/definitions", "indexes/standard_definitions"),
    *("reporting/events", "reporting/report", "reporting/redaction", "reporting/durations"),
    *("errors", "model"),
)

# The tests start `mydocs` hundreds of times. Without its bytecode each start takes half as long again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


@nox.session
def checks(session: nox.Session) -> None:
    """Do what `lint` and `tests` do, in one environment: a second one takes a minute to install."""
    session.install("--editable", ".[dev]")
    _lint(session)
    _tests(session)


@nox.session(default=False)
def lint(session: nox.Session) -> None:
    """Check style, types, and that imports go one way."""
    session.install("--editable", ".[dev]")
    _lint(session)


def _lint(session: nox.Session) -> None:
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy")
    session.run("lint-imports")


@nox.session(default=False)
def tests(session: nox.Session) -> None:
    """Run all the tests and hold the coverage of the pure modules at 100 %."""
    session.install("--editable", ".[dev]")
    _tests(session)


@nox.session(python=PYTHONS, default=False)
def pythons(session: nox.Session) -> None:
    """Run all the tests on each Python that the classifiers name, as far as it is installed."""
    session.install("--editable", ".[dev]")
    _tests(session)


def _tests(session: nox.Session) -> None:
    if session.posargs:
        session.run("pytest", *session.posargs)
        return
    # Only unit tests are traced: the measured modules are pure, and tracing slows the other tests down by half.
    session.run("coverage", "erase")
    session.run("coverage", "run", "-m", "pytest", "tests/unit", "--numprocesses=2")
    session.run("coverage", "combine", "--quiet")
    pure = ",".join(f"mydocs/migrations/{name}.py" for name in PURE)
    session.run("coverage", "report", "--fail-under=100", "--show-missing", f"--include={pure}")
    # They wait for sockets and processes more than they compute.
    session.run("pytest", "--ignore=tests/unit", "--numprocesses=4")


@nox.session(default=False)
def contract(session: nox.Session) -> None:
    """Run the tests that hold on every server against the one of MYDOCS_TEST_URL."""
    if not os.environ.get("MYDOCS_TEST_URL"):
        session.error("set MYDOCS_TEST_URL to a server that holds nothing of value: the tests write to it")
    session.install("--editable", ".[dev]")
    session.run("pytest", "-m", "contract", *session.posargs)


@nox.session(name="driver-suite", default=False)
def driver_suite(session: nox.Session) -> None:
    """Run PyMongo's own tests, from its source distribution, against the local server; names run single files."""
    session.install("--editable", ".[dev]")
    version = session.run("python", "-c", "import pymongo; print(pymongo.version)", silent=True)
    with tempfile.TemporaryDirectory() as folder:
        source = ("--no-deps", "--no-binary", "pymongo", f"pymongo=={str(version).strip()}")
        session.run("python", "-m", "pip", "download", "--quiet", "--dest", folder, *source)
        session.run("python", "-m", "tests.driver", folder, *session.posargs)


@nox.session(default=False)
def heavy(session: nox.Session) -> None:
    """Run the tests that take minutes or ask package registries."""
    session.install("--editable", ".[dev]")
    session.run("pytest", "-m", "heavy", *session.posargs)


@nox.session(default=False)
def minimums(session: nox.Session) -> None:
    """Run all the tests with the lowest version of each dependency that pyproject.toml allows."""
    lowest = [_lowest(requirement) for requirement in PROJECT["project"]["dependencies"]]
    with tempfile.TemporaryDirectory() as folder:
        constraints = Path(folder, "constraints.txt")
        constraints.write_text("\n".join(lowest) + "\n")
        session.install("--editable", ".[dev]", "--constraint", str(constraints))
    session.run("pytest", *session.posargs)


def _lowest(requirement: str) -> str:
    found = re.fullmatch(r"([A-Za-z0-9._-]+)>=([0-9.]+)", requirement)
    if found is None:
        raise ValueError(f"pyproject.toml: `{requirement}` has to read name>=version")
    return f"{found[1]}=={found[2]}"


@nox.session(default=False)
def audit(session: nox.Session) -> None:
    """Look the installed dependencies up among the known vulnerabilities; asks a public service."""
    session.install(".", "pip-audit")
    session.run("pip-audit", "--skip-editable", *session.posargs)


@nox.session(default=False)
def build(session: nox.Session) -> None:
    """Build sdist and wheel, and use the wheel in an environment that holds nothing else."""
    session.install("build")
    with tempfile.TemporaryDirectory() as folder:
        # Not in `dist/`, which may contain the wheel of another version.
        session.run("python", "-m", "build", "--outdir", folder)
        (wheel,) = Path(folder).glob("*.whl")
        session.run("python", "-m", "venv", f"{folder}/fresh")
        programs = Path(folder, "fresh", "Scripts" if os.name == "nt" else "bin")
        session.run(str(programs / "pip"), "install", "--quiet", str(wheel), external=True)
        session.run(str(programs / "mydocs"), "--help", external=True)
        session.run(str(programs / "mydocs"), "migrate", "list", external=True)
        scripts = str(Path("migrations").resolve())
        with session.chdir(folder):  # a folder without the sources and without data of an earlier run
            find = "import mydocs, pathlib; assert pathlib.Path(mydocs.__file__).with_name('py.typed').is_file()"
            session.run(str(programs / "python"), "-c", find, external=True)
            session.run(
                str(programs / "mydocs"), "migrate", "run", "--wait", "--local", "--dir", scripts, external=True
            )


@nox.session(default=False)
def bench(session: nox.Session) -> None:
    """Count commands and measure times beside other tools, which the bench puts into environments of their own."""
    session.install("--editable", ".[dev]")
    session.run("python", "-m", "tests.bench", *session.posargs)
