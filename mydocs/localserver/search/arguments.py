"""Read and check the arguments of the search-index commands, as a server does. Pure."""

from collections.abc import Iterable, Mapping
from typing import Any

from mydocs.localserver.errors import CommandError
from mydocs.localserver.search.definitions import SEARCH

# Fields that any command may have: generic arguments of the server's IDL, and names that begin with a "$".
GENERIC = frozenset({"lsid", "txnNumber", "comment", "maxTimeMS", "apiVersion", "apiStrict", "apiDeprecationErrors"})

Spec = tuple[str, str, Any]
"""Name, type and definition of an index to create."""


def read_create(command: Mapping[str, Any]) -> list[Spec]:
    """Read `createSearchIndexes`. The definitions are not checked here."""
    name = "createSearchIndexes"
    refuse_unknown(name, command.keys() - GENERIC - {"indexes", name})
    require_present(name, "indexes", command)
    if not isinstance(command["indexes"], list):
        raise CommandError(14, f"BSON field '{name}.indexes' is the wrong type, expected type 'array'")
    specs = []
    for one in command["indexes"]:
        if not isinstance(one, Mapping):
            raise CommandError(14, f"BSON field '{name}.indexes' is the wrong type, expected type 'object'")
        refuse_unknown(f"{name}.indexes", one.keys() - {"name", "type", "definition"})
        require_present(f"{name}.indexes", "definition", one)
        for key in ("name", "type"):
            _require_string(f"{name}.indexes", key, one)
        specs.append((one.get("name", "default"), one.get("type", SEARCH), one["definition"]))
    return specs


def read_selector(command: str, given: Mapping[str, Any], *, required: bool) -> dict[str, str]:
    """Read the selector of an index: by name, by id, or, where allowed, by neither."""
    selector = {key: given[key] for key in ("name", "id") if key in given}
    for key in selector:
        _require_string(command, key, selector)
    if len(selector) == 2:
        raise CommandError(72, "Cannot set both 'name' and 'id'.")
    if required and not selector:
        raise CommandError(72, "Must set either 'name' or 'id'.")
    return selector


def refuse_unknown(command: str, keys: Iterable[str]) -> None:
    """Refuse the first key that the command does not have."""
    for key in sorted(keys):
        if key in {"readConcern", "writeConcern"}:
            raise CommandError(72, f"Command {command} does not support {key}")
        if not key.startswith("$") or command.startswith("$"):
            raise CommandError(40415, f"BSON field '{command}.{key}' is an unknown field.")


def require_present(command: str, key: str, given: Mapping[str, Any]) -> None:
    """Refuse a command that lacks a key."""
    if key not in given:
        raise CommandError(40414, f"BSON field '{command}.{key}' is missing but a required field")


def _require_string(command: str, key: str, given: Mapping[str, Any]) -> None:
    if key in given and not isinstance(given[key], str):
        raise CommandError(14, f"BSON field '{command}.{key}' is the wrong type, expected type 'string'")


def require_collection(db: str, collection: str, uuid: Any) -> None:
    """Refuse a collection that does not exist: these commands never create one."""
    if uuid is None:
        raise CommandError(26, f"Collection '{db}.{collection}' does not exist.")
