"""
Make the statements that change documents, and the messages that contain them. Pure.

Documents stay the bytes that the server sent, so the comparison is exact to the last bit.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import field
from typing import Any, TypeAlias

import bson
from bson.code import Code
from bson.codec_options import CodecOptions, DatetimeConversion
from bson.dbref import DBRef
from bson.raw_bson import RawBSONDocument

from mydocs.migrations.errors import NotPossible
from mydocs.migrations.values import value

Batch: TypeAlias = list[RawBSONDocument]

STATEMENTS = 100_000  # the most of one update command; `maxWriteBatchSize` of every server
# The size of a command with all its statements. PyMongo sends no more than 16 KiB above that (command_runner.py,
# `_COMMAND_OVERHEAD`), although a message may have 48 MB. The rest is for the driver's additions.
MESSAGE_BYTES = 16 * 1024 * 1024
ELEMENT_BYTES = 16  # around a value in an array: its type, its index as text, and a reserve

# Dates before year 1 and after 9999, and UUIDs of any subtype, must be returned as they were read.
RAW: CodecOptions[RawBSONDocument] = CodecOptions(
    document_class=RawBSONDocument, datetime_conversion=DatetimeConversion.DATETIME_MS
)
_DECODED: CodecOptions[dict[str, Any]] = RAW.with_options(document_class=dict)
_HOLDERS = frozenset({dict, list, Code, DBRef})  # a decoded value of these types may differ from its bytes inside
_ABSENT = object()


def encoded(document: Mapping[str, Any], options: CodecOptions[Any] = RAW) -> RawBSONDocument:
    """Encode a document once, to be sent as it is."""
    return RawBSONDocument(bson.encode(document, codec_options=options), RAW)


def encoded_all(documents: Sequence[Mapping[str, Any]], options: CodecOptions[Any]) -> Batch:
    """Encode documents with one call, which takes half the time of a call for each."""
    return list(encoded({"": documents}, options)[""])


def decoded_all(documents: Batch, options: CodecOptions[Any]) -> list[Any]:
    """
    Decode documents with one call, which takes a third of the time of a call for each.

    :raises BSONError: if one of them cannot be decoded
    """
    return bson.decode_all(b"".join([document.raw for document in documents]), options)


def place_of(document: RawBSONDocument) -> bytes:
    """Return ``{_id: …}`` of a document as BSON: a place of a walk that keeps the type of `_id`."""
    return bson.encode({"_id": document["_id"]}, codec_options=RAW)


@value
class Guard:
    """
    The condition for a write: the document is still as it was read.

    :param fields: the paths that were read, see :func:`paths`; ``None`` for the whole document
    :param wanted: the filter, which is checked again unless the whole document is compared
    :param shard_key: paths whose values direct the write to one shard
    """

    fields: tuple[str, ...] | None = None
    wanted: RawBSONDocument | None = None
    shard_key: tuple[str, ...] = ()
    _also: dict[str, Any] = field(init=False, default_factory=dict)
    _own: list[tuple[str, str, bool]] = field(init=False, default_factory=list)  # path, its value, whether at the top

    def __post_init__(self) -> None:
        if self.wanted:
            self._also["$and"] = [self.wanted]
        self._own.extend((path, f"${path}", "." not in path) for path in self.fields or ())

    def queries(self, documents: Batch) -> list[dict[str, Any]]:
        """
        Return the conditions of the updates of documents.

        :raises NotPossible: if a path goes through an array
        """
        if self.fields is None:
            return [self.query(document) for document in documents]
        try:
            return list(map(self.query, documents, decoded_all(documents, _DECODED)))
        except bson.errors.BSONError:  # a value that only its bytes can show
            return [self.query(document) for document in documents]

    def query(self, document: RawBSONDocument, decoded: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """
        Return the condition of an update.

        :param decoded: the document with plain values at its top, if there is one
        :raises NotPossible: if a path goes through an array
        """
        values = document if decoded is None else decoded
        identity = values["_id"]
        query: dict[str, Any] = {"_id": document["_id"] if type(identity) in _HOLDERS else identity}
        for path in self.shard_key:
            value = _value_at(document, path)
            query[path] = {"$eq": None if value is _ABSENT else value}
        if self.fields is None:
            return query | {"$expr": {"$eq": ["$$ROOT", {"$literal": document}]}}
        compared: list[dict[str, Any]] = []
        for path, at_path, is_at_top in self._own:
            value = values.get(path, _ABSENT) if is_at_top else _value_at(document, path)
            if is_at_top and type(value) in _HOLDERS:
                value = document[path]
            is_absent = value is _ABSENT
            compared.append({"$eq": [{"$type": at_path}, "missing"] if is_absent else [at_path, {"$literal": value}]})
        query |= self._also
        if compared:
            query["$expr"] = compared[0] if len(compared) == 1 else {"$and": compared}
        return query


def _value_at(document: RawBSONDocument, path: str) -> Any:
    value: Any = document
    steps = path.split(".")
    for depth, step in enumerate(steps):
        if isinstance(value, list):
            array = ".".join(steps[:depth])
            raise NotPossible(
                f"fields: {array} is an array, and a field in its elements cannot be compared alone; name {array!r} in "
                f"place of {path!r}"
            )
        value = value.get(step, _ABSENT) if isinstance(value, RawBSONDocument) else _ABSENT
    return value


def paths(fields: Sequence[str] | None) -> tuple[str, ...] | None:
    """
    Check the paths of ``fields=``, and leave out paths inside another one, which a projection must not name.

    :raises NotPossible: if one is not a path
    """
    if fields is None:
        return None
    if isinstance(fields, str):
        raise NotPossible(f"fields is the text {fields!r} and must be a sequence of names, such as ({fields!r},)")
    for name in fields:
        check_name(name)
    names = [name for name in dict.fromkeys(fields) if name.partition(".")[0] != "_id"]
    return tuple(name for name in names if not any(name.startswith(f"{other}.") for other in names))


def check_name(name: str) -> None:
    """
    Check the name of a field.

    :raises NotPossible: if it is not a path of a field
    """
    parts = name.split(".")
    if not all(parts) or any(part.startswith("$") or "\0" in part for part in parts):
        raise NotPossible(f"{name!r} is not a name of a field")


def messages(statements: Iterable[RawBSONDocument]) -> Iterator[Batch]:
    """Divide statements into commands of a size that driver and server accept."""
    part: Batch = []
    size = 0
    for each in statements:
        if part and (len(part) == STATEMENTS or size + len(each.raw) > MESSAGE_BYTES):
            yield part
            part, size = [], 0
        part.append(each)
        size += len(each.raw)
    if part:
        yield part


def id_lists(documents: Iterable[RawBSONDocument]) -> Iterator[list[Any]]:
    """Yield the `_id` of documents in lists that fit into one condition. An `_id` may be as large as a document."""
    part: list[Any] = []
    size = 0
    for document in documents:
        length = len(place_of(document)) + ELEMENT_BYTES
        if part and size + length > MESSAGE_BYTES // 2:  # the rest is for the script's filter
            yield part
            part, size = [], 0
        part.append(document["_id"])
        size += length
    if part:
        yield part


def shown(value: object) -> object:
    """Return a value in a form that a person can read."""
    return bson.decode(value.raw) if isinstance(value, RawBSONDocument) else value
