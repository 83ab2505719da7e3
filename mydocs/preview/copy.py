"""Make the copy: a local server in memory, filled from the source, that shows what a step has changed. Blocking I/O."""

import secrets
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from pymongo import MongoClient
from pymongo.database import Database
from pymongo.errors import OperationFailure, PyMongoError

from mydocs.localserver import LocalServer
from mydocs.localserver.control.controls import Controls
from mydocs.localserver.control.faults import Recorded
from mydocs.localserver.search import SearchSettings
from mydocs.localserver.search.settings import Dialect
from mydocs.migrations.indexes import definitions
from mydocs.preview.catalogue import Catalogue, CollectionState, SearchIndex
from mydocs.preview.record import NOT_IMPLEMENTED, OWN, Sent
from mydocs.preview.source import Source, SourceCollection

USER = "plan"
_NOT_COPIED = frozenset({"v", "ns", "background"})  # keys of an index for which the copy has its own values


class Recorder(Controls):
    """Record each command with its answer."""

    def __init__(self) -> None:
        super().__init__(keep=1_000)
        self._taking = threading.Lock()
        self._sent: list[Sent] = []

    def after(self, recorded: Recorded, reply: Mapping[str, Any]) -> None:
        super().after(recorded, reply)
        if recorded.number:
            sent = Sent(name=recorded.name, database=recorded.database, body=recorded.body, reply=reply)
            with self._taking:
                self._sent.append(sent)

    def take(self) -> list[Sent]:
        """Return what was recorded since the last call."""
        with self._taking:
            taken, self._sent = self._sent, []
        return taken


@dataclass(slots=True)
class LocalCopy:
    """
    The copy of one database.

    :param notes: what could not be copied
    """

    server: LocalServer
    database: Database[dict[str, Any]]
    recorder: Recorder
    password: str
    notes: list[str] = field(default_factory=list)

    def sent(self) -> list[Sent]:
        """Return the commands of other clients since the last call."""
        return self.recorder.take()

    def catalogue(self) -> Catalogue:
        """Read everything except the documents."""
        collections = {}
        for listed in self.database.list_collections():
            name = listed["name"]
            if name not in OWN and not name.startswith("system."):
                collections[name] = self._state(name, listed)
        found = self.database["_search_aliases"].find()
        aliases = {str(alias["_id"]): (str(alias.get("collection")), str(alias.get("index"))) for alias in found}
        self.recorder.take()  # these commands are our own
        return Catalogue(collections=collections, aliases=aliases)

    def documents(self, collection: str, query: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Read some documents of the copy."""
        found = list(self.database[collection].find(query))
        self.recorder.take()
        return found

    def _state(self, name: str, listed: Mapping[str, Any]) -> CollectionState:
        standard: dict[str, Any] = {}
        if listed.get("type") != "view":
            standard = {index["name"]: index for index in self.database[name].list_indexes()}
        search = {}
        for index in self.database[name].aggregate([{"$listSearchIndexes": {}}]):
            definition = index.get("latestDefinition") or {}
            search[index["name"]] = SearchIndex(
                id=str(index.get("id")), type=definitions.kind_of(index.get("type"), definition), definition=definition
            )
        return CollectionState(options=dict(listed.get("options") or {}), standard=standard, search=search)

    def fill(self, source: Source) -> None:
        """Fill the copy from the source."""
        for name, documents in source.own.items():
            self._insert(name, documents)
        views = [collection for collection in source.collections if collection.kind == "view"]
        for collection in source.collections:
            if collection.kind != "view":
                self._fill(collection)
        for view in views:
            self._create(view)
            self._search(view)
        self.recorder.take()

    def _fill(self, collection: SourceCollection) -> None:
        self._create(collection)
        for index in collection.indexes:
            if index.get("name") != "_id_" and not index.get("clustered"):
                spec = {key: value for key, value in index.items() if key not in _NOT_COPIED}
                what = f"the index {collection.name}.{index.get('name')}"
                self._try({"createIndexes": collection.name, "indexes": [spec]}, what)
        self._insert(collection.name, collection.documents)
        self._search(collection)

    def _create(self, collection: SourceCollection) -> None:
        name, options = collection.name, dict(collection.options)
        if not self._try({"create": name, **options}, f"the options of {name}") and collection.kind != "view":
            self._try({"create": name}, name)

    def _search(self, collection: SourceCollection) -> None:
        for index in collection.search:
            definition = index.get("latestDefinition") or {}
            kind = definitions.kind_of(index.get("type"), definition)
            spec = {"name": index.get("name"), "type": kind.value, "definition": definition}
            what = f"the search index {collection.name}.{index.get('name')}"
            self._try({"createSearchIndexes": collection.name, "indexes": [spec]}, what)

    def _insert(self, name: str, documents: Any) -> None:
        for document in documents:  # one by one, so that a refused document does not prevent the others
            command = {"insert": name, "documents": [document], "bypassDocumentValidation": True}
            self._try(command, f"a document of {name}")

    def _try(self, command: dict[str, Any], what: str) -> bool:
        try:
            reply = self.database.command(command)
            for problem in reply.get("writeErrors", ()):
                raise OperationFailure(problem.get("errmsg", ""), problem.get("code"))
        except PyMongoError as error:
            code = getattr(error, "code", None)
            why = str(error).partition(", full error")[0]
            hint = "the copy cannot hold" if code == NOT_IMPLEMENTED else "the copy did not take"
            note = f"{hint} {what}: {why}"
            if note not in self.notes:
                self.notes.append(note)
            return False
        return True


@contextmanager
def local_copy(database: str, source: Source) -> Iterator[LocalCopy]:
    """Run a server in memory, with a secret login, until the block ends."""
    settings = SearchSettings(dialect=_dialect(source), pending_seconds=0.0, build_seconds=0.0, delete_seconds=0.0)
    password = secrets.token_urlsafe(16)
    server = LocalServer(user=USER, password=password, search=settings)
    recorder = Recorder()
    server.controls = recorder
    with server:
        client: MongoClient[dict[str, Any]] = MongoClient(server.url, appname="mydocs-plan-copy", tz_aware=True)
        try:
            copy = LocalCopy(server, client[database], recorder, password)
            copy.fill(source)
            yield copy
        finally:
            client.close()


def _dialect(source: Source) -> Dialect:
    """Return the dialect of the source by its listing of search indexes."""
    listed = [index for collection in source.collections for index in collection.search]
    if any("latestVersion" in index for index in listed):
        return Dialect.ATLAS_LOCAL
    return Dialect.SELF_MANAGED if any("type" not in index for index in listed) else Dialect.ATLAS
