"""
Keep a process that tries scripts, and every Python that it starts, from anything except the copy. No I/O.

Python imports a module of this name when it starts. It imports nothing of mydocs, so that it also works if mydocs
cannot be imported. Only a plan sets the variable; without it the module does nothing.
"""

import functools
import os
import sys
from typing import Any

ADDRESS = os.environ.get("MYDOCS_PLAN_COPY", "")
LOCAL = ("127.0.0.1", "localhost")


class OnlyTheCopy(PermissionError):
    """A script of a plan tried to reach something outside of the copy."""


def refuse(what: str) -> None:
    """Raise an error that names the request and says that it was not made."""
    raise OnlyTheCopy(f"a plan lets scripts reach its copy only, and this one asks for {what}; nothing was sent there")


def audit(event: str, arguments: tuple[Any, ...]) -> None:
    """Check an action of the interpreter before it happens."""
    if event == "socket.connect":
        address = arguments[1]
        if isinstance(address, tuple) and f"{address[0]}:{address[1]}" == ADDRESS:
            return
        shown = ":".join(map(str, address[:2])) if isinstance(address, tuple) else os.fsdecode(address)
        refuse(shown)
    elif event == "socket.sendto":
        address = arguments[1]
        refuse(":".join(map(str, address[:2])) if isinstance(address, tuple) else str(address))
    elif event == "socket.getaddrinfo":
        host = arguments[0].decode() if isinstance(arguments[0], bytes) else arguments[0]
        if host and host not in LOCAL:
            refuse(f"{host}:{arguments[1]}" if arguments[1] else str(host))
    elif event in ("subprocess.Popen", "os.exec", "os.posix_spawn"):
        program = os.path.basename(os.fsdecode(arguments[0] or arguments[1][0]))  # noqa: PTH119  # bytes as well
        if not program.startswith("python") and program != os.path.basename(sys.executable):  # noqa: PTH119
            refuse(f"the program {program}")
    elif event == "os.system":
        refuse(f"the command {os.fsdecode(arguments[0])!r}")


def check_hosts(host: Any, port: Any) -> None:
    """Refuse a client of another server before it connects, since a driver would retry for a long time."""
    from pymongo.uri_parser import parse_uri

    given = [host] if host is None or isinstance(host, str) else list(host)
    for entity in given:
        text = "localhost" if entity is None else str(entity)
        if text.startswith("mongodb+srv://"):
            refuse(text.rpartition("@")[2].removeprefix("mongodb+srv://").partition("/")[0])
        url = text if "://" in text else f"mongodb://{text}"
        for name, number in parse_uri(url, port or 27017, validate=False, warn=False)["nodelist"]:
            if f"{'127.0.0.1' if name in LOCAL else name}:{number}" != ADDRESS:
                refuse(f"{name}:{number}" if number else str(name))


def guarded(initialise: Any) -> Any:
    """Wrap the initialiser of a client class."""

    @functools.wraps(initialise)
    def checked(self: Any, host: Any = None, port: Any = None, *arguments: Any, **options: Any) -> None:
        check_hosts(host, port)
        initialise(self, host, port, *arguments, **options)

    return checked


if ADDRESS:
    sys.addaudithook(audit)
    try:
        import pymongo

        for kind in (pymongo.MongoClient, pymongo.AsyncMongoClient):
            kind.__init__ = guarded(kind.__init__)  # type: ignore[method-assign]  # every client is made by it
    except ImportError:
        pass
