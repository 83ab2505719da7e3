"""What applications and scripts may rely on: names, signatures and defaults."""

import inspect
import subprocess
import sys

import pytest

import mydocs.migrations as public
from mydocs.indexes import STANDARD_INDEXES

PROMISED = {
    *("migrate", "status", "wait_for_indexes", "wait_until_current", "rollback"),
    *("ensure_indexes", "ensure_search_indexes", "drop_search_indexes", "wait_until_ready"),
    *("rename_field", "unset_field", "update_in_batches", "transform"),
    *("MigrationError", "MigrationFailed", "IndexFailed", "NotReady", "LeaseHeld", "LeaseLost", "PlanError"),
    *("ScriptsInvalid", "UsageError", "ServerError", "RunReport", "MigrationReport", "IndexReport", "Event"),
}


def test_every_promised_name_is_public() -> None:
    assert set(public.__all__) >= PROMISED


def test_what_is_public_is_what_is_listed() -> None:
    assert dir(public) == public.__all__ == sorted(public.__all__)
    with pytest.raises(AttributeError, match="no_such_name"):
        public.__getattr__("no_such_name")


def test_migrate_takes_what_was_promised_with_the_promised_defaults() -> None:
    parameters = inspect.signature(public.migrate).parameters
    assert next(iter(parameters)) == "db"
    assert {name: p.default for name, p in parameters.items() if p.kind is p.KEYWORD_ONLY} == {
        "directory": "migrations",
        "wait": False,
        "timeout": 3600.0,
        "target": None,
        "lock_timeout": 600.0,
        "allow_changed": False,
        "allow_out_of_order": False,
        "standard_indexes": STANDARD_INDEXES,
        "script_timeout": None,
        "max_building": None,
        "executor": None,
        "max_lag": None,
        "on_event": None,
    }


@pytest.mark.parametrize("name", sorted(name for name in PROMISED if name.islower()))
def test_every_function_is_a_coroutine_function_with_a_docstring(name: str) -> None:
    function = getattr(public, name)
    assert inspect.iscoroutinefunction(function)
    assert inspect.getdoc(function)


def test_importing_the_package_imports_no_driver() -> None:
    code = "import sys, mydocs.migrations; print([m for m in ('motor', 'pymongo', 'lightodm') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
