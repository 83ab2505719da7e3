"""Read from the commands what a script did on the copy: writes, reads that found nothing, and refusals. Pure."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from mydocs.migrations.values import value

# The runner's own collections. What a script does to aliases is seen in the alias documents.
OWN = ("_migrations", "_migrations_lock", "_migrations_log", "_search_aliases")
NOT_IMPLEMENTED = 238


@value
class Sent:
    """One command and its answer."""

    name: str
    database: str
    body: Mapping[str, Any]
    reply: Mapping[str, Any]

    @property
    def collection(self) -> str:
        value = self.body.get(self.name)
        return value if isinstance(value, str) else ""


class WriteKind(StrEnum):
    """The effect of a statement on documents."""

    INSERT = "insert"
    UPDATE = "update"
    DELETE = "delete"


@dataclass(slots=True)
class Writes:
    """
    The writes of one kind to one collection with one filter.

    :param filter: selects the documents; ``None`` for inserts, and if only ``_id`` selects them
    :param done: number of documents that they changed on the copy
    :param single: number of statements, if each changes at most one document; else ``None``
    """

    kind: WriteKind
    collection: str
    filter: Mapping[str, Any] | None = None
    done: int = 0
    single: int | None = 0
    detail: str | None = None
    pipelines: list[Any] = field(default_factory=list)


@value
class Read:
    """A filter that found nothing on the copy."""

    collection: str
    filter: Mapping[str, Any]


@dataclass(slots=True)
class Record:
    """The effects of one step, according to its commands."""

    writes: list[Writes] = field(default_factory=list)
    empty_reads: list[Read] = field(default_factory=list)
    read: set[str] = field(default_factory=set)  # collections
    refused: list[str] = field(default_factory=list)
    dropped_indexes: set[tuple[str, str]] = field(default_factory=set)
    renamed: list[tuple[str, str]] = field(default_factory=list)
    other_databases: set[str] = field(default_factory=set)


def read_record(database: str, commands: Iterable[Sent]) -> Record:
    """Return what a script did, from the commands that arrived while it ran."""
    record = Record()
    latest: dict[str, Mapping[str, Any]] = {}  # the last filter with which a collection was read
    found: list[Read] = []
    for sent in commands:
        if not sent.reply.get("ok"):
            _take_refusal(record, sent)
            continue
        if sent.database != database and sent.name != "renameCollection":
            if sent.database not in ("admin", "config", "local") and any(_writes(sent)):
                record.other_databases.add(sent.database)
            continue
        if sent.collection in OWN:
            continue
        match sent.name:
            case "find" | "aggregate" | "count" | "distinct":
                _take_read(record, sent, latest, found)
            case "dropIndexes":
                for name in _names(sent.body.get("index")):
                    record.dropped_indexes.add((sent.collection, name))
            case "renameCollection":
                old, new = (str(sent.body[key]).partition(".")[2] for key in ("renameCollection", "to"))
                record.renamed.append((old, new))
            case _:
                for writes in _writes(sent):
                    _add(record, writes, latest)
    # A walk ends with a read that finds nothing more.
    record.empty_reads = [read for read in record.empty_reads if read not in found]
    return record


def _take_refusal(record: Record, sent: Sent) -> None:
    if sent.reply.get("code") == NOT_IMPLEMENTED:
        message = f"the copy cannot do this: {sent.reply.get('errmsg', sent.name)}"
        if message not in record.refused:
            record.refused.append(message)


def _take_read(record: Record, sent: Sent, latest: dict[str, Mapping[str, Any]], found: list[Read]) -> None:
    pipeline = sent.body.get("pipeline") or []
    if sent.name == "aggregate":
        if pipeline and next(iter(pipeline[0]), "") in ("$listSearchIndexes", "$indexStats", "$collStats"):
            return
        if pipeline and next(iter(pipeline[-1]), "") in ("$out", "$merge"):
            _add(record, _piped(sent.collection, pipeline), latest)
        matched = pipeline[0].get("$match") if pipeline else None
    else:
        matched = sent.body.get("filter", sent.body.get("query"))
    asked = without_id(matched or {})
    record.read.add(sent.collection)
    if asked is not None:
        latest[sent.collection] = asked
    batch = (sent.reply.get("cursor") or {}).get("firstBatch")
    if batch is not None and asked:
        read, into = Read(collection=sent.collection, filter=asked), found if batch else record.empty_reads
        if read not in into:
            into.append(read)


def _piped(source: str, pipeline: list[Any]) -> Writes:
    stage = pipeline[-1]
    into = stage.get("$out", stage.get("$merge"))
    if "$merge" in stage and isinstance(into, Mapping):
        into = into.get("into")
    target = into.get("coll", source) if isinstance(into, Mapping) else str(into)
    how = "replaced as a whole by $out" if "$out" in stage else "merged by $merge"
    writes = Writes(WriteKind.UPDATE, target, None, detail=f"{how} from {source}", single=None)
    writes.pipelines.append((source, pipeline[:-1]))
    return writes


def _writes(sent: Sent) -> Iterator[Writes]:
    body, reply = sent.body, sent.reply
    match sent.name:
        case "insert":
            yield Writes(WriteKind.INSERT, sent.collection, done=_count(reply.get("n")), single=None)
        case "update":
            statements = body.get("updates") or []
            upserted = len(reply.get("upserted") or ())
            if upserted:
                yield Writes(WriteKind.INSERT, sent.collection, done=upserted, single=None)
            rest = _count(reply.get("n")) - upserted
            for statement, done in zip(statements, _shared(rest, len(statements)), strict=True):
                one = 0 if statement.get("multi") else 1
                if rest or not upserted:
                    yield Writes(WriteKind.UPDATE, sent.collection, statement.get("q") or {}, done, one or None)
        case "delete":
            statements = body.get("deletes") or []
            for statement, done in zip(statements, _shared(_count(reply.get("n")), len(statements)), strict=True):
                one = 1 if statement.get("limit") else 0
                yield Writes(WriteKind.DELETE, sent.collection, statement.get("q") or {}, done, one or None)
        case "findAndModify" | "findandmodify":
            last = reply.get("lastErrorObject") or {}
            if last.get("upserted") is not None:
                yield Writes(WriteKind.INSERT, sent.collection, done=1, single=None)
            else:
                kind = WriteKind.DELETE if body.get("remove") else WriteKind.UPDATE
                yield Writes(kind, sent.collection, body.get("query") or {}, _count(last.get("n")), 1)
        case _:
            return


def _shared(total: int, parts: int) -> list[int]:
    """Assign all documents of a command to its first statement: usually the statements make one effect together."""
    return [total, *[0] * (parts - 1)] if parts else []


def _add(record: Record, new: Writes, latest: Mapping[str, Mapping[str, Any]]) -> None:
    if new.filter is not None:
        stripped = without_id(new.filter)
        if stripped is None:  # only `_id`: the filter of the last read selects the documents
            stripped = latest.get(new.collection)
            new.single = None
        elif stripped != new.filter:
            new.single = None
        if stripped is not None and _is_guard(new.filter, stripped, latest.get(new.collection)):
            stripped = latest[new.collection]
        new.filter = stripped
    for writes in record.writes:
        if (writes.kind, writes.collection, writes.filter, writes.detail) == (
            new.kind,
            new.collection,
            new.filter,
            new.detail,
        ):
            writes.done += new.done
            writes.single = None if writes.single is None or new.single is None else writes.single + new.single
            return
    record.writes.append(new)


def _is_guard(whole: Mapping[str, Any], stripped: Mapping[str, Any], read: Mapping[str, Any] | None) -> bool:
    """Return whether a write selects one document by ``_id`` and uses its other fields only to check for changes."""
    return read is not None and stripped != read and _pins_id(whole)


def _pins_id(query: Mapping[str, Any]) -> bool:
    value = query.get("_id")
    if value is not None and not (isinstance(value, Mapping) and any(str(key).startswith("$") for key in value)):
        return True
    if isinstance(value, Mapping) and set(value) <= {"$eq", "$in"}:
        return True
    return any(_pins_id(part) for part in query.get("$and") or () if isinstance(part, Mapping))


def without_id(query: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """
    Remove the conditions on ``_id`` from a filter, since batches and loops walk by them.

    :return: ``None`` if no other condition is left
    """
    rest: dict[str, Any] = {}
    for key, wanted in query.items():
        if key == "_id":
            continue
        if key == "$and" and isinstance(wanted, list | tuple):
            parts = [without_id(part) if isinstance(part, Mapping) else part for part in wanted]
            kept = [part for part in parts if part]
            if len(kept) == 1 and not rest and set(query) <= {"$and", "_id"}:
                return dict(kept[0])
            if kept:
                rest[key] = kept
            continue
        rest[key] = wanted
    return rest if rest or not query else None


def _names(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    return [str(item) for item in value] if isinstance(value, list | tuple) else []


def _count(value: Any) -> int:
    return int(value) if isinstance(value, int | float) else 0
