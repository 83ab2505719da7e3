"""The vectors of a collection are looked at on the server, each kind of misfit is found, and no document travels."""

import math
import resource
import struct
from typing import Any

import pytest
from bson import encode
from bson.binary import Binary
from bson.decimal128 import Decimal128
from bson.int64 import Int64

from mydocs.localserver import LocalServer
from mydocs.migrations import (
    IndexConflict,
    MigrationFailed,
    NotPossible,
    UsageError,
    VectorKind,
    VectorsUnfit,
    VerifyFailed,
    WorkLeft,
    check,
    check_vectors,
    ensure_search_indexes,
    migrate,
)
from mydocs.migrations.driver.client import Database
from mydocs.migrations.indexes import vectors
from mydocs.migrations.reporting.events import Event, Warned
from mydocs.migrations.reporting.report import Outcome
from mydocs.migrations.scripts.script_context import ScriptContext, current

pytestmark = pytest.mark.anyio

FIT = [0.6, 0.8, 0.0]
NAN, INFINITY = math.nan, math.inf


def index(similarity: str = "dotProduct", *filters: str, name: str = "vec", size: int = 3) -> dict[str, Any]:
    vector = {"type": "vector", "path": "v", "numDimensions": size, "similarity": similarity}
    fields = [vector, *({"type": "filter", "path": path} for path in filters)]
    return {"name": name, "type": "vectorSearch", "definition": {"fields": fields}}


def binary(dtype: int, body: bytes, *, padding: int = 0, subtype: int = 9) -> Binary:
    return Binary(bytes([dtype, padding]) + body, subtype)


def floats(*values: float) -> bytes:
    return struct.pack(f"<{len(values)}f", *values)


async def filled(db: Database, similarity: str, *values: Any, filters: tuple[str, ...] = ()) -> None:
    """Make the index, and a document for each value; ``...`` is for no value."""
    await ensure_search_indexes(db["pages"], [index(similarity, *filters)])
    documents = [{"_id": at} | ({} if value is ... else {"v": value}) for at, value in enumerate(values)]
    await db["pages"].insert_many(documents)


def found(report: Any) -> dict[str, tuple[int, Any]]:
    return {finding.kind.value: (finding.count, finding.example) for finding in report.findings}


MISFITS = [
    pytest.param("cosine", "text", "type", id="a text"),
    pytest.param("cosine", {"a": 1}, "type", id="a document"),
    pytest.param("cosine", 3.0, "type", id="a number"),
    pytest.param("cosine", [Decimal128("1"), 0.0, 0.0], "type", id="decimals"),
    pytest.param("cosine", [1.0, 2.0], "length", id="too short"),
    pytest.param("cosine", [1.0, 2.0, 3.0, 4.0], "length", id="too long"),
    pytest.param("cosine", [], "length", id="empty"),
    pytest.param("cosine", [1.0, NAN, 0.0], "not finite", id="not a number"),
    pytest.param("cosine", [1.0, INFINITY, 0.0], "not finite", id="infinite"),
    pytest.param("cosine", [1.0, -INFINITY, INFINITY], "not finite", id="infinite both ways"),
    pytest.param("cosine", [1.0, None, 0.0], "not finite", id="a null inside"),
    pytest.param("cosine", [1.0, "2", 0.0], "not finite", id="a text inside"),
    pytest.param("cosine", [[1.0], [2.0], [3.0]], "not finite", id="arrays inside"),
    pytest.param("cosine", [0.0, -0.0, 0], "zero", id="zeros"),
    pytest.param("euclidean", [0.0, 0.0, 0.0], "zero", id="zeros where length counts"),
    pytest.param("dotProduct", [0.0, 0.0, 0.0], "zero", id="zeros where the norm counts"),
    pytest.param("dotProduct", [0.6, 0.8, 0.2], "norm", id="too long for dotProduct"),
    pytest.param("dotProduct", [0.98, 0.0, 0.0], "norm", id="too short for dotProduct"),
    pytest.param("cosine", binary(0x27, floats(1.0, 0.0)), "length", id="binary too short"),
    pytest.param("cosine", binary(0x27, floats(1.0, 0.0, 0.0), subtype=0), "type", id="binary of no vector"),
    pytest.param("cosine", binary(0x99, floats(1.0, 0.0, 0.0)), "type", id="binary of an unknown form"),
    pytest.param("cosine", binary(0x10, b"\xa0", padding=5), "length", id="bits where only floats can be"),
    pytest.param("cosine", binary(0x27, floats(0.0, 0.0, 0.0)), "zero", id="binary of zeros"),
    pytest.param("euclidean", binary(0x10, b"\0", padding=5), "zero", id="bits that are all zero"),
]

FITS = [
    pytest.param("cosine", [1, 2, 3], id="whole numbers"),
    pytest.param("cosine", [Int64(1), 2.5, 3], id="numbers of several types"),
    pytest.param("cosine", [1e30, 1e30, 1e30], id="large"),
    pytest.param("euclidean", [5.0, 5.0, 5.0], id="a norm that nobody asks for"),
    pytest.param("dotProduct", [1.009, 0.0, 0.0], id="a norm a bit above 1"),
    pytest.param("dotProduct", [0.991, 0.0, 0.0], id="a norm a bit below 1"),
]

UNSEEN = [
    pytest.param("dotProduct", binary(0x27, floats(9.0, 9.0, 9.0)), id="floats"),
    pytest.param("cosine", binary(0x03, bytes([1, 2, 255])), id="small integers"),
    pytest.param("euclidean", binary(0x10, b"\xa0", padding=5), id="bits"),
]


@pytest.mark.parametrize(("similarity", "value", "kind"), MISFITS)
async def test_each_kind_of_misfit_is_found(db: Database, similarity: str, value: Any, kind: str) -> None:
    await filled(db, similarity, FIT, value, FIT)
    with pytest.raises(VectorsUnfit, match=r"pages\.vec: of 3 documents 1 have .* in v \(such as _id 1\)") as raised:
        await check_vectors(db["pages"], "vec")
    assert found(raised.value.vectors) == {kind: (1, 1)}
    assert raised.value.exit_code == 9


@pytest.mark.parametrize(("similarity", "value"), FITS)
async def test_what_an_index_takes_is_no_misfit(any_db: Database, similarity: str, value: Any) -> None:
    await filled(any_db, similarity, FIT, value)
    report = await check_vectors(any_db["pages"], "vec")
    assert (report.documents, report.findings) == (2, ())


@pytest.mark.parametrize(("similarity", "value"), UNSEEN)
async def test_a_binary_whose_values_nobody_sees_is_reported_as_such(
    db: Database, similarity: str, value: Binary
) -> None:
    await filled(db, similarity, FIT, value)
    report = await check_vectors(db["pages"], "vec")
    assert found(report) == {"unseen": (1, 1)}
    assert report.misfits == ()


@pytest.mark.parametrize("value", [..., None], ids=["absent", "null"])
async def test_a_document_without_the_vector_is_only_reported(db: Database, value: Any) -> None:
    await filled(db, "cosine", FIT, value, value)
    report = await check_vectors(db["pages"], "vec")
    assert (report.missing, report.documents, found(report)) == (2, 3, {"missing": (2, 1)})


async def test_all_kinds_are_told_at_once_with_their_counts(db: Database) -> None:
    await filled(db, "dotProduct", FIT, [1.0], [2.0], "x", [0.0] * 3, [2.0] * 3, [NAN] * 3, ...)
    with pytest.raises(VectorsUnfit) as raised:
        await check_vectors(db["pages"], "vec")
    assert found(raised.value.vectors) == {
        "missing": (1, 7),
        "type": (1, 3),
        "length": (2, 1),
        "not finite": (1, 6),
        "zero": (1, 4),
        "norm": (1, 5),
    }
    assert "have no vector" not in str(raised.value)


async def test_a_filter_that_no_document_has_is_a_misfit(db: Database) -> None:
    await filled(db, "cosine", FIT, filters=("meta.lang", "tenant"))
    await db["pages"].insert_one({"_id": 9, "v": FIT, "meta": [{"lang": "de"}]})
    with pytest.raises(VectorsUnfit, match="tenant is a filter of the index and in no document"):
        await check_vectors(db["pages"], "vec")
    with pytest.raises(VectorsUnfit) as raised:
        await check_vectors(db["pages"], "vec", sample=1)
    assert [finding.path for finding in raised.value.vectors.misfits] == ["tenant"]


async def test_an_empty_collection_has_nothing_that_does_not_fit(any_db: Database) -> None:
    await ensure_search_indexes(any_db["pages"], [index("cosine", "tenant")])
    assert (await check_vectors(any_db["pages"], "vec")).findings == ()


async def test_each_vector_of_an_index_is_looked_at(db: Database) -> None:
    second = {"type": "vector", "path": "a.w", "numDimensions": 2, "similarity": "cosine"}
    both = index("cosine")
    both["definition"]["fields"].append(second)
    await ensure_search_indexes(db["pages"], [both])
    await db["pages"].insert_many(
        [{"_id": 1, "v": FIT, "a": {"w": [1.0]}}, {"_id": 2, "v": [1.0], "a": {"w": [1.0, 2.0]}}]
    )
    with pytest.raises(VectorsUnfit) as raised:
        await check_vectors(db["pages"], "vec")
    told = {(finding.path, finding.kind, finding.example) for finding in raised.value.vectors.findings}
    assert told == {("v", VectorKind.LENGTH, 2), ("a.w", VectorKind.LENGTH, 1)}
    assert raised.value.vectors.documents == 2


async def test_a_sample_looks_at_so_many_documents(db: Database) -> None:
    await filled(db, "cosine", *[FIT] * 50)
    report = await check_vectors(db["pages"], "vec", sample=10)
    assert (report.documents, report.sampled) == (10, True)


@pytest.mark.parametrize("sample", [0, -1, True, "10"])
async def test_a_sample_is_a_number(db: Database, sample: Any) -> None:
    with pytest.raises(UsageError, match="sample is a number of documents"):
        await check_vectors(db["pages"], "vec", sample=sample)


async def test_one_aggregation_counts_and_no_document_travels(any_db: Database, local_server: LocalServer) -> None:
    await filled(any_db, "dotProduct", *[[float(at), 1.0, 0.0] for at in range(500)], filters=("tenant",))
    local_server.controls.clear()
    replies: list[int] = []
    with pytest.raises(VectorsUnfit):
        await check_vectors(any_db["pages"], "vec")
    names = [record.name for record in local_server.controls.counted()]
    assert names == ["aggregate", "aggregate"]  # the listing, and the count
    stages = local_server.controls.counted()[-1].body["pipeline"]
    reply = await any_db.command({"aggregate": "pages", "pipeline": stages, "cursor": {}})
    replies.append(len(encode(reply)))
    assert replies[0] < 1_000


async def test_a_script_that_made_the_index_costs_no_listing(
    db: Database, folder: Any, write: Any, local_server: LocalServer
) -> None:
    write(
        "001_vec.py",
        f"""
        from mydocs.migrations import check_vectors, ensure_search_indexes
        async def up(db):
            await ensure_search_indexes(db["pages"], [{index()!r}])
            await db["pages"].insert_one({{"_id": 1, "v": [1.0]}})
            await check_vectors(db["pages"], "vec")
        """,
    )
    with pytest.raises(MigrationFailed, match=r"1 have another length than the index in v \(such as _id 1\)") as raised:
        await migrate(db, directory=folder, standard_indexes={})
    assert raised.value.exit_code == 9
    entry = await db["_migrations"].find_one({"_id": "001"})
    assert (entry or {})["state"] == "failed"


async def test_what_is_no_vector_index_is_refused(db: Database) -> None:
    with pytest.raises(IndexConflict, match="there is no search index vec"):
        await check_vectors(db["pages"], "vec")
    search = {"name": "ft", "definition": {"mappings": {"dynamic": True}}}
    embeds = {"type": "autoEmbed", "path": "t", "model": "voyage-3-large", "modality": "text"}
    auto = {"name": "auto", "type": "vectorSearch", "definition": {"fields": [embeds]}}
    await ensure_search_indexes(db["pages"], [search, auto])
    with pytest.raises(NotPossible, match=r"pages\.ft is not a vector index"):
        await check_vectors(db["pages"], "ft")
    with pytest.raises(NotPossible, match=r"pages\.auto has no vectors that can be checked"):
        await check_vectors(db["pages"], "auto")


async def test_a_transaction_is_no_place_for_it(db: Database) -> None:
    token = current.set(ScriptContext(transactional=True))
    try:
        with pytest.raises(NotPossible, match="check_vectors cannot be used"):
            await check_vectors(db["pages"], "vec")
    finally:
        current.reset(token)


def test_a_vector_inside_of_arrays_is_not_looked_at() -> None:
    assert not vectors.has_vectors(index()["definition"] | {"nestedRoot": "chunks"})
    assert vectors.has_vectors(index()["definition"])


async def test_check_looks_at_the_vectors_where_it_is_asked_to(db: Database, folder: Any, write: Any) -> None:
    write(
        "001_vec.py",
        f"""
        from mydocs.migrations import ensure_search_indexes
        async def up(db):
            await ensure_search_indexes(db["pages"], [{index()!r}])
            await db["pages"].insert_many([{{"_id": 1, "v": [1.0]}}, {{"_id": 2}}])
        """,
    )
    await migrate(db, directory=folder, standard_indexes={}, wait=True)
    await check(db, directory=folder, standard_indexes={})
    events: list[Event] = []
    with pytest.raises(VerifyFailed, match=r"pages\.vec: of 2 documents 1 have another length") as raised:
        await check(db, directory=folder, standard_indexes={}, vectors=True, on_event=events.append)
    report = raised.value.report
    assert report is not None
    assert (raised.value.exit_code, report.outcome) == (9, Outcome.UNVERIFIED)
    assert [event.message for event in events if isinstance(event, Warned)] == [
        "pages.vec: of 2 documents 1 have no vector in v (such as _id 2)"
    ]
    write("002_more.py", "async def up(db):\n    pass\n")
    with pytest.raises(WorkLeft, match=r"002 is pending; pages\.vec: of 2 documents"):
        await check(db, directory=folder, standard_indexes={}, vectors=True)


@pytest.mark.heavy
@pytest.mark.seconds(3600)
async def test_a_million_documents_take_no_more_memory_than_a_thousand(db: Database, local_server: LocalServer) -> None:
    """The server counts in this very process, so what either of them holds shows."""
    await ensure_search_indexes(db["pages"], [index()])
    for start in range(0, 1_000_000, 10_000):
        await db["pages"].insert_many([{"_id": start + at, "v": FIT} for at in range(10_000)])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert (await check_vectors(db["pages"], "vec")).documents == 1_000_000
    await db["pages"].update_one({"_id": 777_777}, {"$set": {"v": [1.0]}})
    with pytest.raises(VectorsUnfit, match="1 have another length than the index in v"):
        await check_vectors(db["pages"], "vec")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 30_000  # KB
