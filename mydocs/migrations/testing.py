"""
Check a project's own migrations on an empty database: the numbers, the rollbacks, and a second run of each. I/O.

The checks need no test framework and no particular server. One ``AssertionError`` lists all problems, one a line.
If a migration cannot run at all, they raise the ``MigrationError`` that a run would raise.
"""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import anyio.to_thread

from mydocs import search_aliases
from mydocs.indexes import STANDARD_INDEXES
from mydocs.migrations.driver import commands, retry, server_errors
from mydocs.migrations.driver.client import Database, Document
from mydocs.migrations.errors import MigrationFailed, NotPossible
from mydocs.migrations.indexes import definitions
from mydocs.migrations.indexes.standard import create_standard_indexes
from mydocs.migrations.indexes.standard_list import IndexModels
from mydocs.migrations.ledger import documents, lease
from mydocs.migrations.ledger import entries as ledger
from mydocs.migrations.model import IndexAction, Script
from mydocs.migrations.operations.migrate import migrate
from mydocs.migrations.operations.rollback import rollback
from mydocs.migrations.operations.settle import mark
from mydocs.migrations.scripts.discover import discover
from mydocs.migrations.values import value

Seed = Callable[[Any], Awaitable[object]]

OWN = frozenset({documents.COLLECTION, documents.LOG_COLLECTION, lease.COLLECTION, search_aliases.COLLECTION})


async def assert_migrations_ok(
    db: Database,
    directory: str | Path = "migrations",
    *,
    seed: Seed | None = None,
    reversible: bool = False,
    gaps: bool = True,
    ignore: Collection[str] = (),
    standard_indexes: IndexModels = STANDARD_INDEXES,
    timeout: float | None = 600.0,
) -> None:
    """
    Run each migration of a folder up, up again and, if it has a ``down``, down and up, and compare the results.

    After the second ``up``, and after down and up, documents and indexes must be as after the first one. After
    ``down`` the indexes must be as before. A second ``up`` must not rebuild a search index. A script with
    ``IDEMPOTENT = False`` does not run twice.

    :param db: an empty database of any server; it contains the result afterwards
    :param seed: awaited with ``db`` before the first migration, to insert documents for the data changes
    :param reversible: whether each migration must have a ``down``
    :param gaps: whether numbers may be left out
    :param ignore: top-level fields of documents that may differ from run to run, such as ``updated_at``
    :param timeout: seconds for the index builds of each step
    :raises AssertionError: with every problem, one a line, once all migrations were tried
    :raises NotPossible: if ``db`` is not empty; nothing was changed
    :raises MigrationError: if a run would raise it
    """
    __tracebackhide__ = True  # pytest then shows the line of the test instead of this function
    found = await anyio.to_thread.run_sync(discover, Path(directory))
    problems = _problems_of_the_files(found.scripts, reversible=reversible, gaps=gaps)
    if await commands.documents_again(db, {"listCollections": 1, "cursor": {}}):
        raise NotPossible(f"database {db.name} is not empty; these checks write to it, so give them an empty one")
    # Created here, so that the standard indexes do not count as the first migration's. The run finds them present.
    await create_standard_indexes(db, standard_indexes)
    if seed is not None:
        await seed(db)
    run = _Run(db=db, directory=directory, models=standard_indexes, timeout=timeout)
    for script in found.scripts:
        problems += await _problems_of(script, run, ignore)
    if problems:
        raise AssertionError("\n- ".join((f"the migrations in {directory} have problems:", *problems)))


@value
class _Run:
    """Run one migration in three ways: up, up again, and down."""

    db: Database
    directory: str | Path
    models: IndexModels
    timeout: float | None

    async def up(self, script: Script) -> None:
        await migrate(
            self.db,
            directory=self.directory,
            target=script.version,
            standard_indexes=self.models,
            wait=True,
            timeout=self.timeout,
        )

    async def up_again(self, script: Script) -> tuple[IndexAction, ...]:
        """Run it as after a crash before its end was recorded. Return what it did to search indexes."""
        await mark(self.db, script.version, applied=False, directory=self.directory)
        try:
            await self.up(script)
        except MigrationFailed:
            await mark(self.db, script.version, applied=True, directory=self.directory)  # the state after its first run
            raise
        entries = (await ledger.read(self.db)).entries
        indexes = [index for entry in entries if entry.version == script.version for index in entry.indexes]
        return tuple(index.action for index in indexes if index.type.is_search)

    async def down(self) -> None:
        await rollback(self.db, directory=self.directory, wait=True, timeout=self.timeout)


async def _problems_of(script: Script, run: _Run, ignore: Collection[str]) -> list[str]:
    before = await _look(run.db, ignore)
    await run.up(script)
    after = await _look(run.db, ignore)
    problems: list[str] = []
    if script.idempotent:
        actions: tuple[IndexAction, ...] = ()
        try:
            actions = await run.up_again(script)
        except MigrationFailed as error:
            problems.append(f"{script.file_name} cannot run twice: {error}")
        if {IndexAction.UPDATED, IndexAction.REPLACED} & set(actions):
            problems.append(f"{script.file_name} rebuilds a search index when it runs twice")
        problems += _differences(f"{script.file_name} run twice", after, await _look(run.db, ignore))
    if script.reversible:
        await run.down()
        taken_back = await _look(run.db, ignore)
        problems += _differences(f"{script.file_name} rolled back", before, taken_back, documents=False)
        await run.up(script)
        problems += _differences(f"{script.file_name} down and up", after, await _look(run.db, ignore))
    return problems


def _problems_of_the_files(scripts: Sequence[Script], *, reversible: bool, gaps: bool) -> list[str]:
    problems = []
    if reversible:
        problems += [f"{script.file_name} has no `down`" for script in scripts if not script.reversible]
    if not gaps:
        numbers = {script.number for script in scripts}
        missing = sorted(set(range(min(numbers, default=1), max(numbers, default=0))) - numbers)
        problems += [f"no migration has the number {number:03}" for number in missing]
    return problems


@value
class _State:
    """The contents of a database without the runner's own collections, each part under the name used in a problem."""

    documents: Mapping[str, Any]
    indexes: Mapping[str, Any]


async def _look(db: Database, ignore: Collection[str]) -> _State:
    documents: dict[str, Any] = {}
    indexes: dict[str, Any] = {}
    listed = await commands.documents_again(db, {"listCollections": 1, "filter": {"type": "collection"}, "cursor": {}})
    for name in sorted(document["name"] for document in listed):
        if name in OWN or name.startswith("system."):
            continue
        for document in await commands.documents_again(db, {"find": name, "sort": {"_id": 1}}):
            kept = {key: value for key, value in document.items() if key not in ignore}
            documents[f"document {document['_id']!r} of {name}"] = kept
        for index in await commands.documents_again(db, {"listIndexes": name, "cursor": {}}):
            if index["name"] != "_id_":  # belongs to the collection, which a `down` need not drop
                indexes[f"index {name}.{index['name']}"] = index
        for index in await _search_listing(db, name):
            indexes[f"search index {name}.{index.get('name')}"] = _comparable(index)
    return _State(documents=documents, indexes=indexes)


async def _search_listing(db: Database, collection: str) -> list[Document]:
    try:
        return await retry.again(lambda: commands.search_listing(db, collection, ()))
    except Exception as error:
        if not server_errors.is_no_search(error):
            raise
        return []


def _comparable(index: Mapping[str, Any]) -> Any:
    definition = index.get("latestDefinition") or {}
    return definitions.kind_of(index.get("type"), definition), definition


def _differences(what: str, before: _State, after: _State, *, documents: bool = True) -> list[str]:
    pairs = [(before.indexes, after.indexes)]
    if documents:
        pairs.append((before.documents, after.documents))
    problems = []
    for old, new in pairs:
        for label in dict.fromkeys((*old, *new)):
            if label not in new:
                problems.append(f"{what}: {label} is gone")
            elif label not in old:
                problems.append(f"{what}: {label} is new")
            elif old[label] != new[label]:
                problems.append(f"{what}: {label} differs")
    return problems
