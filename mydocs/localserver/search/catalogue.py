"""Execute the four search-index commands on a catalogue. No I/O except the given `save`; any thread."""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from bson import ObjectId

from mydocs.localserver.control.clock import Clock
from mydocs.localserver.errors import CommandError
from mydocs.localserver.search.arguments import (
    GENERIC,
    Spec,
    read_create,
    read_selector,
    refuse_unknown,
    require_collection,
    require_present,
)
from mydocs.localserver.search.definitions import (
    SEARCH,
    VECTOR,
    are_equivalent,
    check_definition,
    check_update,
    kind_of,
)
from mydocs.localserver.search.dialects import document
from mydocs.localserver.search.life import (
    Build,
    Index,
    delete_seconds,
    is_gone,
    ready_time,
    starts,
    updated,
    view,
)
from mydocs.localserver.search.settings import Dialect, Generation, IndexOutcome, SearchSettings

TOO_MANY = "The maximum number of FTS indexes has been reached for this instance size."
NO_SEARCH = (
    "Using Atlas Search Database Commands and the $listSearchIndexes aggregation stage requires additional "
    "configuration. Please connect to Atlas or an AtlasCLI local deployment to enable."
)
CONNECTING = "Error connecting to Search Index Management service."


class SearchCatalogue:
    """
    All search and vector indexes of a server.

    ``settings`` may be replaced at any time.

    :param load: the saved documents, by key
    :param save: stores a document by key, or removes the key for ``None``; called only within the four commands
    """

    def __init__(
        self,
        clock: Clock,
        settings: SearchSettings | None = None,
        load: Mapping[str, Mapping[str, Any]] | None = None,
        save: Callable[[str, Mapping[str, Any] | None], object] = lambda key, document: None,
    ) -> None:
        self.settings = settings or SearchSettings()
        self._clock = clock
        self._save = save
        self._lock = threading.RLock()
        self._indexes = {key: Index.from_document(stored) for key, stored in (load or {}).items()}
        self._unsaved: set[str] = set()
        self._outcomes: dict[str | tuple[str, str], IndexOutcome] = {}
        self._unreachable_until = self._now() + self.settings.starting_seconds

    # -- for tests

    def outcome(self, name: str, *, collection: str | None = None, **changes: Any) -> IndexOutcome:
        """
        Change how the builds of an index go, at any time. What has happened by now stays.

        :param collection: needed if several collections have an index of that name
        :param changes: fields of `IndexOutcome`; the other fields keep their values
        """
        with self._lock:
            self._settle()
            key = name if collection is None else (collection, name)
            before = self._outcomes.get(key) or self.settings.outcomes.get(key) or IndexOutcome()
            self._outcomes[key] = replace(before, **changes)
            return self._outcomes[key]

    def unreachable(self, seconds: float) -> None:
        """Answer 125 for this time, as mongod does while the search process restarts. 0 ends it."""
        self._unreachable_until = self._now() + seconds

    # -- the commands

    def create(self, db: str, collection: str, uuid: Any, command: Mapping[str, Any]) -> dict[str, Any]:
        """Execute `createSearchIndexes`. ``uuid`` is the collection's, or ``None`` if it does not exist."""
        self._require_search("createSearchIndexes")
        specs = read_create(command)
        require_collection(db, collection, uuid)
        with self._lock:
            self._require_reachable()
            at = self._settle()
            for _, kind, definition in specs:
                check_definition(kind, definition, dialect=self.settings.dialect)
            fresh = self._without_duplicates(str(uuid), specs)
            existing = sum(index.deleted_at is None for index in self._indexes.values())
            if self.settings.quota is not None and existing + len(fresh) > self.settings.quota:
                raise CommandError(20, TOO_MANY)  # what a full free cluster answers
            ids = [str(ObjectId()) for _ in specs]  # a new id for each, even if nothing is created
            for spec, key in zip(specs, ids, strict=True):
                if spec not in fresh:
                    continue
                name, kind, definition = spec
                index = Index(
                    id=key,
                    db=db,
                    collection=collection,
                    uuid=str(uuid),
                    name=name,
                    type=kind,
                    created_at=at,
                    main=Build(version=0, created_at=at, definition=definition),
                )
                self._put(index)
            self._flush()
            return {"indexesCreated": [{"id": key, "name": spec[0]} for spec, key in zip(specs, ids, strict=True)]}

    def update(self, db: str, collection: str, uuid: Any, command: Mapping[str, Any]) -> dict[str, Any]:
        """Execute `updateSearchIndex`."""
        name = "updateSearchIndex"
        self._require_search(name)
        known = {"name", "id", "definition", "type"} if self.settings.vector_updates else {"name", "id", "definition"}
        refuse_unknown(name, command.keys() - GENERIC - known - {name})
        selector = read_selector(name, command, required=True)
        require_present(name, "definition", command)
        require_collection(db, collection, uuid)
        with self._lock:
            self._require_reachable()
            at = self._settle()
            index = self._find(db, collection, str(uuid), selector)
            if index.deleted_at is not None:
                raise _no_such_index(db, collection, selector)
            definition = command["definition"]
            self._check_change(index, command.get("type"), definition)
            unchanged = definition == index.latest.definition
            if self.settings.dialect is Dialect.SELF_MANAGED or not unchanged:
                self._put(self._with_version(index, definition, at))
            self._flush()
            return {}

    def drop(self, db: str, collection: str, uuid: Any, command: Mapping[str, Any]) -> dict[str, Any]:
        """Execute `dropSearchIndex`."""
        name = "dropSearchIndex"
        self._require_search(name)
        refuse_unknown(name, command.keys() - GENERIC - {"name", "id", name})
        selector = read_selector(name, command, required=True)
        require_collection(db, collection, uuid)
        with self._lock:
            self._require_reachable()
            at = self._settle()
            index = self._find(db, collection, str(uuid), selector)
            if index.deleted_at is not None:
                raise CommandError(125, "Index already requested to be deleted")
            if self.settings.dialect is Dialect.ATLAS and delete_seconds(self._outcome_of(index), self.settings) > 0:
                self._put(replace(index, deleted_at=at))
            else:
                self._remove(index.id)
            self._flush()
            return {}

    def list(self, db: str, collection: str, uuid: Any, selector: Any) -> list[dict[str, Any]]:
        """Execute the stage `$listSearchIndexes`, whose value is ``selector``."""
        if not self._require_search("$listSearchIndexes"):
            return []
        if not isinstance(selector, Mapping):
            raise CommandError(14, "the stage $listSearchIndexes has to be an object")
        refuse_unknown("$listSearchIndexes", selector.keys() - {"name", "id"})
        wanted = read_selector("$listSearchIndexes", selector, required=False)
        if uuid is None:
            return []
        with self._lock:
            self._require_reachable()
            if self.settings.listing_too_large and not wanted:
                raise CommandError(396, "The requested indexes are too large. Try narrowing your filter.")
            at = self._settle()
            begun = self._starts()
            listed = []
            for index in list(self._indexes.values()):
                if index.uuid != str(uuid) or not _is_wanted(index, wanted):
                    continue
                shown = view(index, begun, self._outcome_of(index), self.settings, at)
                if shown is not None:
                    listed.append(
                        document(shown, dialect=self.settings.dialect, fill_defaults=self.settings.fill_defaults)
                    )
                    self._indexes[index.id] = replace(index, looks_left=max(0, index.looks_left - 1))
            self._flush()
            return listed

    def drop_collection(self, uuid: Any) -> None:
        """Forget the indexes of a dropped collection. A new collection of that name has another uuid."""
        with self._lock:
            self._settle()
            for index in [index for index in self._indexes.values() if index.uuid == str(uuid)]:
                self._remove(index.id)
            self._flush()

    # -- inside

    def _now(self) -> float:
        return self._clock.now().timestamp()

    def _outcome_of(self, index: Index) -> IndexOutcome:
        for key in ((index.collection, index.name), index.name):
            found = self._outcomes.get(key) or self.settings.outcomes.get(key)
            if found is not None:
                return found
        return IndexOutcome()

    def _starts(self) -> dict[tuple[str, int], float]:
        return starts(self._indexes.values(), self._outcome_of, self.settings)

    def _settle(self) -> float:
        """
        Store what has happened by now, and return the time.

        Later changes of the queue or the outcomes then affect the future, not the past.
        """
        at = self._now()
        begun = self._starts()
        for index in list(self._indexes.values()):
            outcome = self._outcome_of(index)
            if is_gone(index, outcome, self.settings, at):
                self._remove(index.id)
            elif index.deleted_at is None:  # an index that is being deleted is not built any further
                main = self._settled(index.main, begun[index.id, index.main.version], outcome, at)
                staged = index.staged
                if staged is not None:
                    staged = self._settled(staged, begun[index.id, staged.version], outcome, at)
                if (main, staged) != (index.main, index.staged):
                    self._put(replace(index, main=main, staged=staged))
        return at

    def _settled(self, build: Build, start: float, outcome: IndexOutcome, at: float) -> Build:
        if start > at:
            # A place in the queue that becomes free now must not be used in the past.
            queued = self.settings.max_building is not None
            return replace(build, not_before=at) if queued else build
        ready = ready_time(build, start, outcome, self.settings)
        return replace(build, started_at=start, ready_at=ready if ready <= at else None)

    def _with_version(self, index: Index, definition: Mapping[str, Any], at: float) -> Index:
        outcome = self._outcome_of(index)
        build = Build(version=index.latest.version + 1, created_at=at, definition=definition)
        never = float("inf")
        staged_at = index.staged.ready_at if index.staged is not None else None
        changed = updated(
            index,
            build,
            main_ready_at=never if index.main.ready_at is None else index.main.ready_at,
            staged_ready_at=never if staged_at is None else staged_at,
        )
        return replace(changed, looks_left=outcome.old_looks)

    def _check_change(self, index: Index, kind: Any, definition: Any) -> None:
        if isinstance(definition, Mapping):
            wrong = {SEARCH: VECTOR, VECTOR: SEARCH}[index.type]
            if index.type == VECTOR and not self.settings.vector_updates:
                raise CommandError(125, '"mappings" is required')
            if kind == wrong or kind_of(definition) == wrong:
                raise CommandError(197, "An index's type cannot be changed")
        check_definition(index.type, definition, dialect=self.settings.dialect)
        check_update(index.type, index.latest.definition, definition, dialect=self.settings.dialect)

    def _without_duplicates(self, uuid: str, specs: Sequence[Spec]) -> Sequence[Spec]:
        """Leave out indexes that a self-managed server treats as present, and refuse duplicates."""
        managed = self.settings.dialect is Dialect.SELF_MANAGED
        existing = {index.name: index for index in self._indexes.values() if index.uuid == uuid}
        fresh = []
        for spec in specs:
            name, kind, definition = spec
            index = existing.get(name)
            if index is None:
                fresh.append(spec)
            elif not managed:
                raise CommandError(68, "Duplicate Index")
            elif index.type != kind or not are_equivalent(kind, index.latest.definition, definition):
                message = f"Index {name} already exists with a different definition. Drop it first if needed."
                raise CommandError(68, message)
        names = [name for name, _, _ in fresh]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None and managed:
            raise CommandError(125, f"duplicate index names for the same collection: {twice}")
        if twice is not None:
            raise CommandError(68, "Duplicate Index")
        return fresh

    def _find(self, db: str, collection: str, uuid: str, selector: Mapping[str, str]) -> Index:
        for index in self._indexes.values():
            if index.uuid == uuid and _is_wanted(index, selector):
                return index
        raise _no_such_index(db, collection, selector)

    def _put(self, index: Index) -> None:
        self._indexes[index.id] = index
        self._unsaved.add(index.id)

    def _remove(self, key: str) -> None:
        del self._indexes[key]
        self._unsaved.add(key)

    def _flush(self) -> None:
        """Save the changes. Not in `outcome`, since the thread of a command locks the server's storage."""
        for key in sorted(self._unsaved):
            index = self._indexes.get(key)
            self._save(key, None if index is None else index.to_document())
        self._unsaved.clear()

    def _require_reachable(self) -> None:
        if self._now() < self._unreachable_until:
            raise CommandError(125, CONNECTING)

    def _require_search(self, name: str) -> bool:
        """Refuse as a server without search does, before the command is read."""
        generation, listing = self.settings.generation, name == "$listSearchIndexes"
        if self.settings.enabled:
            return True
        if generation is Generation.CURRENT:
            raise CommandError(31082, NO_SEARCH)
        if generation is Generation.UNKNOWN:
            if listing:
                raise CommandError(40324, f"Unrecognized pipeline stage name: '{name}'")
            raise CommandError(59, f"no such command: '{name}'")
        if not listing:
            raise CommandError(115, "Search index commands are only supported with Atlas.")
        if generation is Generation.COMMAND_115:
            raise CommandError(6047401, "$listSearchIndexes stage is only allowed on MongoDB Atlas")
        return False


def _is_wanted(index: Index, selector: Mapping[str, str]) -> bool:
    return selector.get("name", index.name) == index.name and selector.get("id", index.id) == index.id


def _no_such_index(db: str, collection: str, selector: Mapping[str, str]) -> CommandError:
    key, value = next(iter(selector.items()))
    return CommandError(27, f"No index with {key} {value} exists in namespace {db}.{collection}")
