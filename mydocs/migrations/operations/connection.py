"""Make a client from settings, for a process that has none. I/O: DNS for `mongodb+srv` URLs, no command."""

import atexit
import os
import sys
import threading
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from types import FrameType
from typing import Any, TypeAlias

import anyio
import anyio.to_thread
from pymongo.errors import ConfigurationError, PyMongoError
from pymongo.synchronous import monitor
from pymongo.uri_parser import parse_uri

with warnings.catch_warnings():
    # Motor warns at import that it has reached its end of life. An operator cannot change that.
    warnings.simplefilter("ignore", DeprecationWarning)
    from motor.frameworks import asyncio as asyncio_of_motor
    from motor.motor_asyncio import AsyncIOMotorClient, AsyncIOMotorDatabase

from mydocs.migrations.driver.server_errors import as_migration_error as as_migration_error
from mydocs.migrations.errors import ServerUnreachable, SettingsInvalid
from mydocs.migrations.reporting.redaction import redact
from mydocs.migrations.settings import Flags, Settings, load_settings

Client: TypeAlias = AsyncIOMotorClient[dict[str, Any]]
Database: TypeAlias = AsyncIOMotorDatabase[dict[str, Any]]

ANYIO_WORKER = "AnyIO worker thread"  # the name of each of its threads
CLOSE_SECONDS = 2.0  # limit for ending the sessions on a server that may be gone


def check_url(url: str, secrets: tuple[str, ...]) -> None:
    """
    Let the driver parse a connection string, and look up the hosts of an SRV one.

    Unknown or invalid options are errors. The driver would only warn and ignore them, but a mistyped `tls` must not be
    ignored.

    :param secrets: texts that no message may show
    :raises SettingsInvalid: if the URL cannot be used
    :raises ServerUnreachable: if the name service does not know the host
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        try:
            parse_uri(url)
        except ConfigurationError as error:
            cause = error.__cause__ or error.__context__
            if type(error) is ConfigurationError and type(cause).__module__.startswith("dns"):
                raise ServerUnreachable(redact(str(error).rstrip("."), secrets)) from error
            raise _unusable(error, secrets) from error
        except (PyMongoError, ValueError, TypeError, OSError, UserWarning) as error:
            raise _unusable(error, secrets) from error


@asynccontextmanager
async def connect(
    *,
    url: str | None = None,
    database: str | None = None,
    env_file: str | None = None,
    client: Callable[..., Any] = AsyncIOMotorClient,
    environ: Mapping[str, str] = os.environ,
    **options: Any,
) -> AsyncIterator[Database]:
    """
    Yield the database that the command line would use.

    ``MONGO_URL``, ``MONGO_USER``, ``MONGO_PASSWORD`` and ``MONGO_DB_NAME`` mean the same to both. Nothing is sent
    before the first command. The client is closed at the end.

    :param url: replaces ``MONGO_URL``; likewise ``database`` replaces ``MONGO_DB_NAME``
    :param env_file: a file of NAME=value lines, for variables that the environment does not set
    :param client: the class of the client: Motor's, or PyMongo's ``AsyncMongoClient``
    :param options: passed on to the client, such as ``maxPoolSize``
    :raises SettingsInvalid: names the setting that is missing or cannot be used
    :raises ServerUnreachable: if the name service does not know the host of an SRV URL
    """
    flags = Flags(url=url, db=database, env_file=env_file)
    settings = await anyio.to_thread.run_sync(load_settings, flags, environ)  # it reads files
    assert settings.url is not None  # only --local has none
    await anyio.to_thread.run_sync(check_url, settings.url, settings.secrets)
    opened = make_client(settings, settings.url, client, **options)
    try:
        yield opened[settings.database]
    finally:
        if isinstance(opened, AsyncIOMotorClient):
            await close(opened)
        else:
            with anyio.CancelScope(shield=True), anyio.move_on_after(CLOSE_SECONDS):
                closing = opened.close()
                if isinstance(closing, Awaitable):
                    await closing


def make_client(settings: Settings, url: str, client: Callable[..., Any] = AsyncIOMotorClient, **more: Any) -> Any:
    """
    Make a client. Nothing is sent before the first command.

    :raises SettingsInvalid: if the driver refuses the URL, the user or the password
    """
    options: dict[str, Any] = {"tz_aware": True, "appname": "mydocs"} | more
    if settings.user is not None:
        options["username"] = settings.user
    if settings.password is not None:
        options["password"] = settings.password
    try:
        return client(url, **options)
    except (PyMongoError, ValueError, TypeError, OSError) as error:
        raise _unusable(error, settings.secrets) from error


async def close(client: Client) -> None:
    """Close a client within 2 s, even if the server no longer answers."""
    with anyio.CancelScope(shield=True), anyio.move_on_after(CLOSE_SECONDS):
        # In a thread, since closing sends a command to the server.
        await anyio.to_thread.run_sync(client.close, abandon_on_cancel=True)


def leave(client: Client) -> None:
    """
    Close a client of a process that ends now, without waiting.

    Closing sends a command whose answer changes nothing. A server that does not receive it expires the sessions by
    itself.
    """
    threading.Thread(target=client.close, name="mydocs-goodbye", daemon=True).start()


def silent_servers(client: Client) -> str | None:
    """Return the servers that have not answered yet, with the driver's reason if known; ``None`` if one has."""
    topology = client.delegate.topology_description
    if topology.has_known_servers:
        return None
    servers = topology.server_descriptions()
    hosts = ", ".join(f"{host}:{port}" if port else str(host) for host, port in servers) or "that the URL names"
    reasons = {str(server.error).partition(" (configured timeouts")[0] for server in servers.values() if server.error}
    return hosts + (f" ({'; '.join(sorted(reasons))})" if reasons else "")


def is_waiting_for_the_server() -> bool:
    """
    Return whether a worker thread still waits in the driver, although every client is closed.

    A thread that a script has started does not count, and runs to its end.
    """
    frames = sys._current_frames()  # noqa: SLF001  # documented; there is no public name
    motors = getattr(getattr(asyncio_of_motor, "_EXECUTOR", None), "_threads", ())
    workers = [thread for thread in threading.enumerate() if thread in motors or thread.name == ANYIO_WORKER]
    return any(_is_in_the_driver(frames.get(thread.ident or 0)) for thread in workers)


def leave_quickly() -> None:
    """
    Remove PyMongo's exit hook, which joins threads that sleep for half a second.

    Every client is closed by then. The threads are daemons and have nothing left to do.
    """
    hook = getattr(monitor, "_shutdown_resources", None)
    if hook is not None:
        atexit.unregister(hook)


def _unusable(error: Exception, secrets: tuple[str, ...]) -> SettingsInvalid:
    problem = redact(" ".join(str(error).split()).rstrip("."), secrets)
    return SettingsInvalid(f"the URL cannot be used: {problem}; check --url or MONGO_URL")


def _is_in_the_driver(frame: FrameType | None) -> bool:
    while frame is not None:
        if str(frame.f_globals.get("__name__")).startswith("pymongo."):
            return True
        frame = frame.f_back
    return False
