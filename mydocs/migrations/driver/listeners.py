"""Observe the commands that a client sends, even if the application has made the client. No I/O."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pymongo
from pymongo.database import Database as SyncDatabase

from mydocs.migrations.driver.client import Database, Document, client_of
from mydocs.migrations.driver.private_names import private


class CommandTap(pymongo.monitoring.CommandListener):
    """A driver listener that passes on the starts and ends of commands while it is open; see :func:`tapped`."""

    def __init__(self, started: Callable[[Any], None], ended: Callable[[Any], None]) -> None:
        self._started, self._ended = started, ended
        self.is_open = True

    def started(self, event: pymongo.monitoring.CommandStartedEvent) -> None:
        if self.is_open:
            self._started(event)

    def succeeded(self, event: pymongo.monitoring.CommandSucceededEvent) -> None:
        self._ended(event)

    def failed(self, event: pymongo.monitoring.CommandFailedEvent) -> None:
        self._ended(event)


_tap_lock = threading.Lock()


_LISTENING = "_EventListeners__enabled_for_commands"


def check_driver(db: Database) -> None:
    """
    Check before the first script what every script needs.

    :raises NotPossible: if this version of PyMongo lacks what :func:`tapped` needs
    """
    _listeners(db)


def _listeners(db: Database | SyncDatabase[Document]) -> tuple[Any, list[Any], list[Any]]:
    """Return a client's event publisher, its command listeners, and the listeners of clients that are made later."""
    purpose = "see what scripts do to indexes"
    own = private(client_of(db).options.pool_options, "_event_listeners", "pymongo", purpose)
    private(own, _LISTENING, "pymongo", purpose)
    later = private(pymongo.monitoring, "_LISTENERS", "pymongo", purpose)  # register() has no counterpart
    return (
        own,
        private(own, "_EventListeners__command_listeners", "pymongo", purpose),
        private(later, "command_listeners", "pymongo", purpose),
    )


@contextmanager
def tapped(db: Database | SyncDatabase[Document], tap: CommandTap) -> Iterator[None]:
    """
    Let a listener observe all commands of an existing client, and of clients that are made meanwhile.

    Drivers accept listeners only when a client is made, and the application has made its own. So this adds the listener
    to the client's internal lists, and removes it at the end.

    :raises NotPossible: if this version of PyMongo has no such lists
    """
    own, of_own, of_later = _listeners(db)
    with _tap_lock:
        pymongo.monitoring.register(tap)
        of_own.append(tap)
        setattr(own, _LISTENING, True)
    try:
        yield
    finally:
        tap.is_open = False  # a client that was made meanwhile keeps the listener
        with _tap_lock:
            of_later.remove(tap)
            of_own.remove(tap)
            setattr(own, _LISTENING, bool(of_own))
