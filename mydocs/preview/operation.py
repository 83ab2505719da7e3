"""
Show what a run would do to a database, without changing it: run the pending scripts on a copy and compare. I/O.

files and ledger → plan → read the source within limits → fill the copy → each step in a process of its own → compare.
"""

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
from bson import json_util
from motor.motor_asyncio import AsyncIOMotorDatabase
from pymongo import AsyncMongoClient

from mydocs.indexes import STANDARD_INDEXES
from mydocs.migrations.driver import commands
from mydocs.migrations.driver.cancellation import to_the_end
from mydocs.migrations.driver.client import Database
from mydocs.migrations.driver.session import Session
from mydocs.migrations.errors import UsageError
from mydocs.migrations.indexes.standard import create_standard_indexes
from mydocs.migrations.indexes.standard_list import IndexModels, standard_checksum
from mydocs.migrations.ledger import entries as ledger
from mydocs.migrations.ledger.plan import Options, Standing, make_plan
from mydocs.migrations.model import STANDARD_VERSION, StoredError
from mydocs.migrations.operations.arguments import check_seconds, check_standard_indexes
from mydocs.migrations.operations.reported import discovered, reported
from mydocs.migrations.reporting.events import Foreseeing, Sink
from mydocs.migrations.reporting.plan_report import Effect, EffectKind, PlannedStep, PlanReport
from mydocs.preview.catalogue import Catalogue, catalogue_effects
from mydocs.preview.copy import USER, LocalCopy, local_copy
from mydocs.preview.process import Copy, run_step
from mydocs.preview.record import OWN, Record, WriteKind, Writes, read_record
from mydocs.preview.source import Source, count, read_source

TEXT_LENGTH = 200  # characters of a filter on a line
MOST_FILTERS = 5  # for one kind of write to one collection; more are reported as one effect
_KINDS = {
    WriteKind.INSERT: EffectKind.INSERT,
    WriteKind.UPDATE: EffectKind.UPDATE,
    WriteKind.DELETE: EffectKind.DELETE,
}


async def plan(
    db: Database,
    *,
    directory: str | Path = "migrations",
    target: str | None = None,
    allow_changed: bool = False,
    allow_out_of_order: bool = False,
    standard_indexes: IndexModels = STANDARD_INDEXES,
    sample: int = 100,
    show: int = 0,
    script_timeout: float | None = 60.0,
    on_event: Sink | None = None,
) -> PlanReport:
    """
    Foresee what :func:`mydocs.migrations.migrate` would do, by running the pending scripts on a copy in memory.

    The database is only read: its catalogue, the ledger, and for each collection at most ``sample`` documents, 16 MB
    and 30 s. Each script runs in a process that can reach only the copy. The plan ends at the first script that fails.

    :param sample: number of documents of each collection
    :param show: number of documents to show before and after each effect on documents
    :param script_timeout: seconds for one script, ``None`` for no limit
    :raises PlanError: if :func:`mydocs.migrations.migrate` would refuse the files or the plan
    """
    started = time.monotonic()
    if sample < 0 or show < 0:
        raise UsageError("--sample and --show are numbers of documents, 0 or more")
    options = Options(target=target, allow_changed=allow_changed, allow_out_of_order=allow_out_of_order)
    async with reported(db, on_event) as (session, report):
        check_standard_indexes(standard_indexes)
        check_seconds(script_timeout=script_timeout)
        found = await discovered(session, report, directory)
        snapshot = report.snapshot = await ledger.read(db)
        checksum = standard_checksum(standard_indexes) if standard_indexes else None
        made = make_plan(found.scripts, snapshot.entries, snapshot.lease, options, standard_checksum=checksum)
        for warning in report.unsaid(made.warnings):
            session.warn(warning)
        if made.is_empty:
            return PlanReport(database=db.name, seconds=time.monotonic() - started)
        session.emit(Foreseeing(what=f"reading the catalogue, and at most {sample} documents of each collection"))
        source = await read_source(db, sample)
        with ExitStack() as stack:
            try:
                copy = await anyio.to_thread.run_sync(stack.enter_context, local_copy(db.name, source))
                trial = _Trial(session, source, copy, Path(directory), show, script_timeout)
                steps = await trial.run(made.steps, standard_indexes if made.standard else None)
            finally:
                await to_the_end(anyio.to_thread.run_sync(stack.close), "the end of the copy")
    return PlanReport(database=db.name, steps=tuple(steps), seconds=time.monotonic() - started)


class _Trial:
    """The steps of a plan, run on one copy one after the other."""

    def __init__(
        self, session: Session, source: Source, copy: LocalCopy, directory: Path, show: int, timeout: float | None
    ) -> None:
        db = session.db
        self._session, self._db, self._copy = session, db, copy
        self._directory, self._show, self._timeout = directory, show, timeout
        self._target = Copy(
            url=copy.server.url,
            user=USER,
            password=copy.password,
            database=db.name,
            motor=isinstance(db, AsyncIOMotorDatabase),
            tz_aware=bool(db.codec_options.tz_aware),
        )
        # The source of each collection of the copy. One that a step has created has no source and is complete.
        self._sources = {collection.name: collection for collection in source.collections}
        self._notes = [*(c.note for c in source.collections if c.note), *copy.notes]

    async def run(self, standings: tuple[Standing, ...], models: IndexModels | None) -> list[PlannedStep]:
        steps: list[PlannedStep] = []
        before = await anyio.to_thread.run_sync(self._copy.catalogue)
        if models is not None:
            self._session.emit(Foreseeing(what="standard indexes: created on the copy"))
            error = await self._create_standard(models)
            step = PlannedStep(version=STANDARD_VERSION, name="standard indexes", error=error)
            before = await self._finish(steps, step, before)
        for standing in standings:
            failed = next((step for step in steps if step.error is not None), None)
            step = PlannedStep(version=standing.version, name=standing.name)
            if failed is not None:
                steps.append(replace(step, unknown=(f"it was not tried, since {failed.version} fails before it",)))
                continue
            self._session.emit(Foreseeing(what=f"migration {standing.version} {standing.name}: tried on the copy"))
            texts = await self._texts()
            error = await run_step(self._target, self._directory, standing.version, self._timeout)
            before = await self._finish(steps, replace(step, error=error), before, texts)
        if self._notes and steps:
            steps[0] = replace(steps[0], unknown=(*self._notes, *steps[0].unknown))
        return steps

    async def _create_standard(self, models: IndexModels) -> StoredError | None:
        async with AsyncMongoClient[dict[str, Any]](self._copy.server.url, tz_aware=True) as client:
            try:
                await create_standard_indexes(client[self._db.name], models)
            except Exception as error:  # noqa: BLE001  # the plan reports it
                return StoredError(type=type(error).__name__, message=str(error))
        return None

    async def _finish(
        self, steps: list[PlannedStep], step: PlannedStep, before: Catalogue, texts: Mapping[str, Any] | None = None
    ) -> Catalogue:
        """Add the effects of a step to the steps. Return the catalogue after it."""
        record = read_record(self._db.name, self._copy.sent())
        after = await anyio.to_thread.run_sync(self._copy.catalogue)
        effects = [await self._with_documents(effect) for effect in catalogue_effects(before, after, record)]
        unknown = [*record.refused]
        there = after.collections.keys() | {source for source, _ in record.renamed}
        for writes in _merged(record.writes):
            if writes.collection not in there:  # dropped in the same step, with all that was written to it
                continue
            effect, doubt = await self._effect(writes, record)
            effects += [effect] if effect is not None else []
            unknown += [doubt] if doubt else []
        unknown += await self._missed(record)
        unknown += [
            f"it writes to the database {name}, and the copy contains only {self._db.name}"
            for name in sorted(record.other_databases)
        ]
        if self._show and texts is not None:
            effects = list(_shown(effects, texts, await self._texts(), self._show))
        for source, target in record.renamed:
            if source in self._sources:
                self._sources[target] = self._sources.pop(source)
        for effect in effects:
            if effect.kind is EffectKind.DROP_COLLECTION:
                self._sources.pop(effect.collection, None)
        steps.append(replace(step, effects=tuple(effects), unknown=tuple(dict.fromkeys(unknown))))
        return after

    def _is_whole(self, collection: str) -> bool:
        source = self._sources.get(collection)
        return source is None or source.complete

    async def _with_documents(self, effect: Effect) -> Effect:
        source = self._sources.get(effect.collection)
        if effect.kind is not EffectKind.DROP_COLLECTION or source is None or source.kind == "view":
            return effect
        reply = await commands.command_again(self._db, {"count": source.name})
        return replace(effect, documents=int(reply["n"]))

    async def _effect(self, writes: Writes, record: Record) -> tuple[Effect | None, str | None]:
        """Return the effect of some writes, and a sentence about what is unknown."""
        name, doubt, documents = writes.collection, None, writes.done
        if writes.pipelines:
            origin, pipeline = writes.pipelines[0]
            counted = None
            if origin in self._sources:
                counted = await count(self._db, self._sources[origin].name, pipeline)
            return self._written(writes, counted), None
        sampled = sorted(each for each in record.read if not self._is_whole(each))
        if writes.kind is WriteKind.INSERT:
            if sampled:
                doubt = (
                    f"how many documents it inserts into {name}: it reads {', '.join(sampled)}, of which it saw a part"
                )
            return (self._written(writes, documents) if documents else None), doubt
        if self._is_whole(name):
            return (self._written(writes, documents) if documents else None), None
        if writes.filter is None:
            doubt = f"how many documents of {name} it changes: it names them by _id, and the copy has a sample"
            return self._written(writes, None), doubt
        source = self._sources[name]
        counted = await count(self._db, source.name, [{"$match": writes.filter}])
        if counted is not None and writes.single is not None:
            counted = min(counted, writes.single)
        if counted is None or (counted == 0 and documents):
            why = "counting them takes too long" if counted is None else "an earlier step makes them what they are then"
            return self._written(writes, None), f"how many documents of {name} it changes: {why}"
        return (self._written(writes, counted) if counted else None), None

    def _written(self, writes: Writes, documents: int | None) -> Effect:
        detail = writes.detail
        if detail is None and writes.kind is not WriteKind.INSERT:
            detail = "all documents" if writes.filter == {} else None
            if writes.filter:
                detail = f"where {_text(writes.filter)}"
        return Effect(kind=_KINDS[writes.kind], collection=writes.collection, detail=detail, documents=documents)

    async def _missed(self, record: Record) -> list[str]:
        """Return a sentence for each filter whose documents are not in the sample."""
        missed = []
        for read in record.empty_reads:
            if not self._is_whole(read.collection):
                counted = await count(self._db, self._sources[read.collection].name, [{"$match": read.filter}])
                if counted:
                    missed.append(
                        f"what it does with the {counted} documents of {read.collection} where {_text(read.filter)}: "
                        "none of them is in the sample"
                    )
        return missed

    async def _texts(self) -> dict[str, dict[str, str]]:
        """Return the documents of the copy as texts, if they are to be shown."""
        return await anyio.to_thread.run_sync(partial(_documents_of, self._copy)) if self._show else {}


def _merged(found: list[Writes]) -> Iterator[Writes]:
    """Merge writes of one kind to one collection if they have too many filters for a line each."""
    groups: dict[tuple[WriteKind, str], list[Writes]] = {}
    for writes in found:
        groups.setdefault((writes.kind, writes.collection), []).append(writes)
    for (kind, collection), group in groups.items():
        if len(group) <= MOST_FILTERS:
            yield from group
        else:
            done = sum(writes.done for writes in group)
            yield Writes(kind, collection, None, done, None, detail=f"with {len(group)} filters")


def _documents_of(copy: LocalCopy) -> dict[str, dict[str, str]]:
    found = {}
    for name in copy.database.list_collection_names(filter={"type": "collection"}):
        if name not in OWN and not name.startswith("system."):
            documents = copy.documents(name, {})
            found[name] = {_text(document["_id"]): json_util.dumps(document) for document in documents}
    copy.sent()
    return found


def _shown(
    effects: list[Effect],
    before: Mapping[str, Mapping[str, str]],
    after: Mapping[str, Mapping[str, str]],
    most: int,
) -> Iterator[Effect]:
    for effect in effects:
        old, new = before.get(effect.collection, {}), after.get(effect.collection, {})
        match effect.kind:
            case EffectKind.INSERT:
                keys = [key for key in new if key not in old]
            case EffectKind.DELETE | EffectKind.DROP_COLLECTION:
                keys = [key for key in old if key not in new]
            case EffectKind.UPDATE:
                keys = [key for key in old if key in new and old[key] != new[key]]
            case _:
                keys = []
        chosen = keys[:most]
        yield replace(
            effect,
            before=tuple(old[key] for key in chosen if key in old),
            after=tuple(new[key] for key in chosen if key in new),
        )


def _text(value: Any) -> str:
    text = json_util.dumps(value) if not isinstance(value, str) else json.dumps(value)
    return text if len(text) <= TEXT_LENGTH else text[:TEXT_LENGTH] + "…"
