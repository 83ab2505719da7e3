"""Write the document of `$listSearchIndexes` as each kind of server does. Pure."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from mydocs.localserver.search.definitions import with_defaults
from mydocs.localserver.search.life import Build, HostView, IndexView, PartView
from mydocs.localserver.search.settings import Dialect


def document(view: IndexView, *, dialect: Dialect, fill_defaults: bool) -> dict[str, Any]:
    """
    Return the listed document of one index, with its keys in the server's order.

    A self-managed server lists no type. A local Atlas lists a plain version and no details of hosts.
    """
    kind = view.index.type
    listed: dict[str, Any] = {"id": view.index.id, "name": view.index.name}
    if dialect is not Dialect.SELF_MANAGED:
        listed["type"] = kind
    listed |= {"status": view.status.value, "queryable": view.queryable}
    if dialect is Dialect.ATLAS_LOCAL:
        listed["latestVersion"] = view.latest.version
    else:
        listed["latestDefinitionVersion"] = _version(view.latest)
    listed["latestDefinition"] = _definition(kind, view.latest, fill_defaults)
    if dialect is not Dialect.ATLAS_LOCAL:
        listed["statusDetail"] = [_host(kind, host, fill_defaults) for host in view.hosts]
    return listed


def _host(kind: str, host: HostView, fill_defaults: bool) -> dict[str, Any]:
    detail: dict[str, Any] = {"hostname": host.hostname, "status": host.status.value, "queryable": host.queryable}
    detail["mainIndex"] = _part(kind, host.main, fill_defaults)
    if host.staged is not None:
        detail["stagedIndex"] = _part(kind, host.staged, fill_defaults)
    return detail


def _part(kind: str, part: PartView, fill_defaults: bool) -> dict[str, Any]:
    detail: dict[str, Any] = {
        "status": part.status.value,
        "queryable": part.queryable,
        "definitionVersion": _version(part.build),
        "definition": _definition(kind, part.build, fill_defaults),
    }
    if part.message is not None:
        detail["message"] = part.message
    return detail


def _version(build: Build) -> dict[str, Any]:
    return {"version": build.version, "createdAt": datetime.fromtimestamp(build.created_at, UTC)}


def _definition(kind: str, build: Build, fill_defaults: bool) -> Mapping[str, Any]:
    return with_defaults(kind, build.definition) if fill_defaults else build.definition
