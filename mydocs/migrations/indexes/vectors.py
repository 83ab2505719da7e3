"""
Check whether the vectors of a collection are what a vector index takes. I/O: one aggregation.

READY says that an index is built, but nothing about its contents: mongot silently leaves out a vector of another
length. The server sorts each document into one kind. Only the counts and one `_id` of each kind travel.

Vectors may be arrays of numbers or BSON binaries of subtype 9. Of a binary an expression sees the size, the header, and
whether all bytes are zero, but no single value. Such vectors are counted as unseen.
"""

from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any

from bson.binary import Binary

from mydocs.migrations.driver import commands, retry
from mydocs.migrations.driver.client import Collection, Database, database_of
from mydocs.migrations.errors import IndexConflict, NotPossible, UsageError, VectorsUnfit
from mydocs.migrations.indexes import capture, readiness
from mydocs.migrations.model import Definition, IndexType
from mydocs.migrations.scripts.script_context import context
from mydocs.migrations.values import value

NORM_TOLERANCE = 0.01  # allowed distance of a norm from 1 under dotProduct
VECTOR_SUBTYPE = 9  # specifications/source/bson-binary-vector
FLOAT32, INT8, PACKED_BIT = 0x27, 0x03, 0x10  # the first byte of such a binary; the second is its padding
HEADER_BYTES = 2
IN_TRANSACTION = (
    "it reads a whole collection, which takes longer than a transaction may; do it in a migration of its own"
)


class VectorKind(StrEnum):
    """The finding about a document and one path of an index. The first kind that applies counts."""

    MISSING = "missing"  # no vector, which an index allows: only reported
    TYPE = "type"
    LENGTH = "length"
    NOT_FINITE = "not finite"
    ZERO = "zero"
    NORM = "norm"
    FILTER = "filter"  # no document has this path; has no example
    UNSEEN = "unseen"  # a binary, whose values an expression cannot see: only reported


SAID = {
    VectorKind.MISSING: "have no vector",
    VectorKind.TYPE: "have something that is not a vector of numbers",
    VectorKind.LENGTH: "have another length than the index",
    VectorKind.NOT_FINITE: "have a value that is not a finite number",
    VectorKind.ZERO: "have a vector of zeros",
    VectorKind.NORM: "have a norm that is not 1, which dotProduct asks for",
    VectorKind.FILTER: "is a filter of the index and in no document",
    VectorKind.UNSEEN: "have a binary vector whose values the server does not see",
}
_FIT = "fit"
_ONLY_REPORTED = (VectorKind.MISSING, VectorKind.UNSEEN)


@value
class VectorFinding:
    """
    A finding about some documents.

    :param path: of the vector or the filter
    :param example: the `_id` of one of them
    """

    kind: VectorKind
    path: str
    count: int
    example: object = None

    def __str__(self) -> str:
        if self.kind is VectorKind.FILTER:
            return f"{self.path} {SAID[self.kind]}"
        return f"{self.count} {SAID[self.kind]} in {self.path} (such as _id {self.example!r})"


@value
class VectorReport:
    """
    The result of a check of an index's vectors.

    :param documents: how many were read
    :param sampled: they were a sample
    """

    collection: str
    index: str
    documents: int
    sampled: bool = False
    findings: tuple[VectorFinding, ...] = ()

    @property
    def misfits(self) -> tuple[VectorFinding, ...]:
        """Return the findings that an index does not take, or takes but cannot find."""
        return tuple(finding for finding in self.findings if finding.kind not in _ONLY_REPORTED)

    @property
    def missing(self) -> int:
        """Return the number of missing vectors; in an index of several vectors each path counts."""
        return sum(finding.count for finding in self.findings if finding.kind is VectorKind.MISSING)

    def sentence(self, findings: Sequence[VectorFinding]) -> str:
        """Return some of the findings on one line."""
        of = f"a sample of {self.documents}" if self.sampled else str(self.documents)
        return f"{self.collection}.{self.index}: of {of} documents " + "; ".join(map(str, findings))


async def check_vectors(collection: Collection, index_name: str, *, sample: int | None = None) -> VectorReport:
    """
    Count the documents whose vectors a vector index does not take, on the server, in one aggregation.

    It reads every document once, or a sample. No document travels. On an empty collection nothing is found.

    :param sample: number of documents to read, chosen at random; ``None`` for all
    :raises VectorsUnfit: with the counts and one `_id` of each kind; documents without the vector are only reported
    :raises IndexConflict: if the index does not exist
    :raises NotPossible: if the index has no vectors that can be checked
    """
    context().refuse_in_transaction("check_vectors", IN_TRANSACTION)
    wanted: object = sample
    if wanted is not None and (isinstance(wanted, bool) or not isinstance(wanted, int) or wanted < 1):
        raise UsageError(f"sample is a number of documents, not {sample!r}; pass 1 or more, or None for all of them")
    db, where = database_of(collection), collection.name
    report = await look(db, where, index_name, await _definition(db, where, index_name), sample=sample)
    if report.misfits:
        raise VectorsUnfit(report, report.sentence(report.misfits))
    return report


async def look(
    db: Database, where: str, name: str, definition: Definition, *, sample: int | None = None
) -> VectorReport:
    """
    Count, and raise nothing for what is found.

    :raises NotPossible: if the definition has no vectors that can be checked
    """
    stages = pipeline(where, name, definition, sample=sample)
    found = await commands.documents_again(db, {"aggregate": where, "pipeline": stages, "cursor": {}})
    return summarise(where, name, definition, found, sampled=sample is not None)


def has_vectors(definition: Definition) -> bool:
    """Return whether a definition has vectors that can be checked: not embedded by the server, not inside arrays."""
    return bool(_fields(definition, "vector")) and "nestedRoot" not in definition


def pipeline(where: str, name: str, definition: Definition, *, sample: int | None = None) -> list[dict[str, Any]]:
    """
    Return the stages that sort documents into kinds, and then check each filter.

    :raises NotPossible: if the definition has no vectors that can be checked
    """
    if not has_vectors(definition):
        raise NotPossible(
            f"{where}.{name} has no vectors that can be checked: the server embeds by itself, or they are in arrays"
        )
    pairs = [{"path": {"$literal": field["path"]}, "kind": _kind(field)} for field in _fields(definition, "vector")]
    stages: list[dict[str, Any]] = [] if sample is None else [{"$sample": {"size": sample}}]
    stages += [
        {"$project": {"found": pairs}},
        {"$unwind": "$found"},
        {"$group": {"_id": "$found", "count": {"$sum": 1}, "example": {"$first": "$_id"}}},
    ]
    for field in _fields(definition, "filter"):
        # In the whole collection even if the vectors are a sample, since a sample may miss a rare field.
        identity = {"path": {"$literal": field["path"]}, "kind": {"$literal": VectorKind.FILTER.value}}
        has_path = [{"$match": {field["path"]: {"$exists": True}}}, {"$limit": 1}, {"$replaceWith": {"_id": identity}}]
        stages.append({"$unionWith": {"coll": where, "pipeline": has_path}})
    return stages


def summarise(
    where: str, name: str, definition: Definition, found: Sequence[Mapping[str, Any]], *, sampled: bool
) -> VectorReport:
    """Convert the result of the stages of :func:`pipeline` to a report."""
    kinds = {(row["_id"]["path"], row["_id"]["kind"]): row for row in found}
    paths = [field["path"] for field in _fields(definition, "vector")]
    documents = sum(int(row["count"]) for (path, _), row in kinds.items() if path == paths[0] and "count" in row)

    def findings() -> Iterator[VectorFinding]:
        for path in paths:
            for kind in VectorKind:
                row = kinds.get((path, kind.value))
                if row is not None and "count" in row:
                    yield VectorFinding(kind=kind, path=path, count=int(row["count"]), example=row["example"])
        for field in _fields(definition, "filter"):
            if documents and (field["path"], VectorKind.FILTER.value) not in kinds:
                yield VectorFinding(kind=VectorKind.FILTER, path=field["path"], count=documents)

    return VectorReport(collection=where, index=name, documents=documents, sampled=sampled, findings=tuple(findings()))


async def _definition(db: Database, where: str, name: str) -> Definition:
    """Return the definition from the script or the ledger if it is known, else the listed one."""
    captured = capture.of_database(db.name)
    known = None if captured is None else captured.record_of(where, name)
    kind, definition = (None, None) if known is None else (known.type, known.definition)
    if definition is None:
        documents = await retry.again(lambda: commands.search_listing(db, where, [name]))
        listed = next((index for index in map(readiness.parse, documents) if index.name == name), None)
        kind, definition = (None, None) if listed is None else (listed.type, listed.definition)
    if definition is None:
        raise IndexConflict(where, f"there is no search index {name}; create it first (`ensure_search_indexes`)")
    if kind is not IndexType.VECTOR:
        raise NotPossible(f"{where}.{name} is not a vector index; name one of type vectorSearch")
    return definition


def _fields(definition: Definition, kind: str) -> list[Mapping[str, Any]]:
    fields = definition.get("fields")
    return [field for field in fields if field.get("type") == kind] if isinstance(fields, list | tuple) else []


def _kind(field: Mapping[str, Any]) -> dict[str, Any]:
    """Return the expression that computes the kind of a document's vector."""
    vector, size, similarity = f"${field['path']}", int(field["numDimensions"]), field.get("similarity")
    type_of = {"$type": vector}
    branches = [
        {"case": {"$in": [type_of, ["missing", "null", "undefined"]]}, "then": VectorKind.MISSING.value},
        {"case": {"$eq": [type_of, "array"]}, "then": _kind_of_array(vector, size, similarity)},
        {"case": {"$eq": [type_of, "binData"]}, "then": _kind_of_binary(vector, size, similarity)},
    ]
    return {"$switch": {"branches": branches, "default": VectorKind.TYPE.value}}


def _kind_of_array(vector: str, size: int, similarity: object) -> dict[str, Any]:
    # The sum of the squares decides everything: it is null if one value is not a number, a decimal if one is, not
    # finite if one is not, and 0 if all are 0. Null sorts before numbers, and NaN before all other numbers.
    square = {"$cond": [{"$isNumber": "$$this"}, {"$multiply": ["$$this", "$$this"]}, None]}
    squares = {"$reduce": {"input": vector, "initialValue": 0.0, "in": {"$add": ["$$value", square]}}}
    is_finite = {"$and": [{"$gte": ["$$squares", 0]}, {"$lt": ["$$squares", float("inf")]}]}
    branches: list[dict[str, Any]] = [
        # mongot leaves out a document whose vector contains a decimal (KnnVectorParser).
        {"case": {"$eq": [{"$type": "$$squares"}, "decimal"]}, "then": VectorKind.TYPE.value},
        {"case": {"$not": [is_finite]}, "then": VectorKind.NOT_FINITE.value},
        {"case": {"$eq": ["$$squares", 0]}, "then": VectorKind.ZERO.value},
    ]
    if similarity == "dotProduct":
        low, high = (1 - NORM_TOLERANCE) ** 2, (1 + NORM_TOLERANCE) ** 2
        off = {"$or": [{"$lt": ["$$squares", low]}, {"$gt": ["$$squares", high]}]}
        branches.append({"case": off, "then": VectorKind.NORM.value})
    by_values = {"$let": {"vars": {"squares": squares}, "in": {"$switch": {"branches": branches, "default": _FIT}}}}
    return {"$cond": [{"$ne": [{"$size": vector}, size]}, VectorKind.LENGTH.value, by_values]}


def _kind_of_binary(vector: str, size: int, similarity: object) -> dict[str, Any]:
    """
    Compare a binary with others of its size, which is all that an expression can do with one.

    Binaries of one size are ordered by subtype and then by their bytes. So those with one header lie between two
    bounds, and the lower bound is the vector of zeros.
    """
    forms = [(FLOAT32, 0, 4 * size), (INT8, 0, size)]
    if similarity == "euclidean":  # the only similarity for packed bits
        forms.append((PACKED_BIT, -size % 8, (size + 7) // 8))
    branches: list[dict[str, Any]] = []
    for dtype, padding, length in forms:
        zeros = Binary(bytes([dtype, padding]) + bytes(length), VECTOR_SUBTYPE)
        after = Binary(bytes([dtype, padding + 1]) + bytes(length), VECTOR_SUBTYPE)
        is_form = {"$and": [{"$gte": [vector, zeros]}, {"$lt": [vector, after]}]}
        branches += [
            {"case": {"$eq": [vector, zeros]}, "then": VectorKind.ZERO.value},
            {"case": is_form, "then": VectorKind.UNSEEN.value},
        ]
    sizes = [HEADER_BYTES + length for _, _, length in forms]
    other = {"$cond": [{"$in": [{"$binarySize": vector}, sizes]}, VectorKind.TYPE.value, VectorKind.LENGTH.value]}
    return {"$switch": {"branches": branches, "default": other}}
