"""Projections, stages and accumulators."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from bson import Int64
from hypothesis import given
from hypothesis import strategies as st

from mydocs.localserver.aggregation.pipeline import run_pipeline
from mydocs.localserver.errors import CommandError, NotKnown
from mydocs.localserver.query.match import compile_filter
from mydocs.localserver.query.projection import compile_projection
from mydocs.localserver.query.values import equal

NOW = datetime(2024, 1, 31, 12, tzinfo=UTC)


class Held:
    """Collections that are lists."""

    def __init__(self, **held: list[dict[str, Any]]) -> None:
        self.held: dict[Any, list[dict[str, Any]]] = {**held}

    def scan(self, name: Any) -> Iterable[dict[str, Any]]:
        return list(self.held.get(name, []))

    def find(self, name: Any, filter_: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
        return list(filter(compile_filter(filter_, now=NOW), self.scan(name)))

    def put(self, name: Any, document: dict[str, Any], *, insert: bool) -> None:
        rows = self.held.setdefault(name, [])
        at = next((at for at, row in enumerate(rows) if equal(row["_id"], document["_id"])), None)
        if at is None:
            rows.append(document)
        elif insert:
            raise CommandError(11000, "E11000 duplicate key error")
        else:
            rows[at] = document

    def stats(self) -> dict[str, Any]:
        return {"ns": "d.c", "count": 0}

    def has_unique(self, name: Any, paths: tuple[str, ...]) -> bool:
        return False

    def replace_all(self, name: Any, documents: Iterable[dict[str, Any]]) -> None:
        self.held[name] = list(documents)


def run(pipeline: Any, documents: Iterable[Any] = (), collections: Held | None = None, **variables: Any) -> list[Any]:
    return list(run_pipeline(pipeline, documents, collections=collections or Held(), now=NOW, variables=variables))


ROWS = [{"_id": 1, "g": "a", "n": 1}, {"_id": 2, "g": "b", "n": 5}, {"_id": 3, "g": "a", "n": 3}, {"_id": 4}]


@pytest.mark.parametrize(
    ("projection", "expected"),
    [
        pytest.param({}, {"_id": 1, "a": 2, "b": [{"c": 1, "d": 2}, 5]}, id="nothing asked"),
        pytest.param({"a": 1}, {"_id": 1, "a": 2}, id="inclusion with _id"),
        pytest.param({"a": 1, "_id": 0}, {"a": 2}, id="without _id"),
        pytest.param({"_id": 0}, {"a": 2, "b": [{"c": 1, "d": 2}, 5]}, id="only without _id"),
        pytest.param({"_id": 1}, {"_id": 1}, id="only _id"),
        pytest.param({"b": 0}, {"_id": 1, "a": 2}, id="exclusion"),
        pytest.param({"b.c": 1}, {"_id": 1, "b": [{"c": 1}]}, id="inside an array, scalars go"),
        pytest.param({"b.c": 0}, {"_id": 1, "a": 2, "b": [{"d": 2}, 5]}, id="exclusion inside an array, scalars stay"),
        pytest.param({"b": {"d": 1}}, {"_id": 1, "b": [{"d": 2}]}, id="nested"),
        pytest.param({"a.x": 1}, {"_id": 1}, id="inside a scalar"),
        pytest.param({"b": {"$slice": 1}}, {"_id": 1, "a": 2, "b": [{"c": 1, "d": 2}]}, id="slice keeps the rest"),
        pytest.param({"a": 1, "b": {"$slice": [1, 1]}}, {"_id": 1, "a": 2, "b": [5]}, id="slice beside inclusion"),
        pytest.param({"b": {"$elemMatch": {"c": 1}}}, {"_id": 1, "b": [{"c": 1, "d": 2}]}, id="elemMatch"),
        pytest.param({"b": {"$elemMatch": {"c": 9}}}, {"_id": 1}, id="elemMatch of nothing"),
        pytest.param({"b.$": 1}, {"_id": 1, "b": [{"c": 1, "d": 2}]}, id="positional"),
        pytest.param({"s": {"$add": ["$a", 1]}}, {"_id": 1, "s": 3}, id="computed"),
        pytest.param({"b.c": "$a"}, {"_id": 1, "b": [{"c": 2}, {"c": 2}]}, id="computed inside an array"),
        pytest.param({"b.d": 1, "b.c": "$a"}, {"_id": 1, "b": [{"d": 2, "c": 2}, {"c": 2}]}, id="and beside inclusion"),
        pytest.param({"a": 1, "x.y": "$a"}, {"_id": 1, "a": 2, "x": {"y": 2}}, id="computed and nested"),
    ],
)
def test_projections_yield_what_the_server_does(projection: Any, expected: Any) -> None:
    document = {"_id": 1, "a": 2, "b": [{"c": 1, "d": 2}, 5]}
    found = compile_projection(projection, now=NOW, filter={"b.c": 1})(document)
    assert equal(found, expected), found


@pytest.mark.parametrize(
    ("projection", "code"),
    [
        pytest.param({"a": 1, "b": 0}, 31254, id="exclusion in inclusion"),
        pytest.param({"a": 0, "b": 1}, 31253, id="inclusion in exclusion"),
        pytest.param({"a": 1, "a.b": 1}, 31249, id="collision"),
        pytest.param({"a.b": 1, "a": 1}, 31250, id="collision the other way"),
        pytest.param({"a": {"$meta": "textScore"}}, 238, id="meta"),
        pytest.param({"a.$": 1, "b.$": 1}, 31276, id="two positional ones"),
    ],
)
def test_projections_are_refused_with_the_servers_codes(projection: Any, code: int) -> None:
    with pytest.raises(CommandError) as caught:
        compile_projection(projection, now=NOW)
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("stage", "expected"),
    [
        pytest.param({"$match": {"n": {"$gt": 2}}}, [2, 3], id="match"),
        pytest.param({"$sort": {"n": -1}}, [2, 3, 1, 4], id="sort"),
        pytest.param({"$limit": 2}, [1, 2], id="limit"),
        pytest.param({"$skip": 3}, [4], id="skip"),
        pytest.param({"$unionWith": "other"}, [1, 2, 3, 4, 9], id="unionWith"),
        pytest.param(
            {"$unionWith": {"coll": "other", "pipeline": [{"$match": {"_id": 0}}]}}, [1, 2, 3, 4], id="with pipeline"
        ),
    ],
)
def test_stages_pass_on_what_the_server_does(stage: Any, expected: list[int]) -> None:
    assert [row["_id"] for row in run([stage], ROWS, Held(other=[{"_id": 9}]))] == expected


@pytest.mark.parametrize(
    ("accumulator", "expected"),
    [
        pytest.param({"$sum": "$n"}, [4, 5, 0], id="sum"),
        pytest.param({"$avg": "$n"}, [2.0, 5.0, None], id="avg"),
        pytest.param({"$min": "$n"}, [1, 5, None], id="min"),
        pytest.param({"$first": "$n"}, [1, 5, None], id="first"),
        pytest.param({"$last": "$n"}, [3, 5, None], id="last"),
        pytest.param({"$push": "$n"}, [[1, 3], [5], []], id="push leaves missing out"),
        pytest.param({"$addToSet": {"$literal": 1}}, [[1], [1], [1]], id="addToSet"),
        pytest.param({"$count": {}}, [2, 1, 1], id="count"),
        pytest.param({"$mergeObjects": {"n": "$n"}}, [{"n": 3}, {"n": 5}, {}], id="mergeObjects"),
    ],
)
def test_accumulators(accumulator: Any, expected: list[Any]) -> None:
    found = run([{"$group": {"_id": "$g", "x": accumulator}}], ROWS)
    assert [row["_id"] for row in found] == ["a", "b", None]
    assert equal([row["x"] for row in found], expected)


def test_numbers_of_other_kinds_are_one_group() -> None:
    assert run([{"$group": {"_id": "$v", "c": {"$sum": 1}}}], [{"v": 1}, {"v": 1.0}, {"v": True}]) == [
        {"_id": 1, "c": 2},
        {"_id": True, "c": 1},
    ]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        pytest.param({}, [{"i": 1, "a": 1}, {"i": 1, "a": 2}, {"i": 3, "a": 5}], id="plain"),
        pytest.param(
            {"preserveNullAndEmptyArrays": True, "includeArrayIndex": "at"},
            [
                {"i": 1, "a": 1, "at": 0},
                {"i": 1, "a": 2, "at": 1},
                {"i": 2, "at": None},
                {"i": 3, "a": 5, "at": None},
                {"i": 4, "at": None},
            ],
            id="preserving",
        ),
    ],
)
def test_unwind(options: Any, expected: Any) -> None:
    rows = [{"i": 1, "a": [1, 2]}, {"i": 2, "a": []}, {"i": 3, "a": 5}, {"i": 4}]
    assert run([{"$unwind": {"path": "$a", **options}}], rows) == expected


def test_lookup_joins_by_equality_elements_and_null() -> None:
    held = Held(other=[{"_id": 1, "k": 1}, {"_id": 2, "k": 2}, {"_id": 3}])
    stage = {"$lookup": {"from": "other", "localField": "l", "foreignField": "k", "as": "j"}}
    found = run([stage, {"$set": {"j": "$j._id"}}], [{"l": 1.0}, {"l": [1, 2]}, {}, {"l": 9}], held)
    assert [row["j"] for row in found] == [[1], [1, 2], [3], []]


def test_lookup_runs_a_pipeline_with_variables() -> None:
    held = Held(other=[{"_id": n, "k": n} for n in range(4)])
    pipeline = [{"$match": {"$expr": {"$gt": ["$k", "$$low"]}}}, {"$project": {"_id": 1}}]
    stage = {"$lookup": {"from": "other", "let": {"low": "$l"}, "pipeline": pipeline, "as": "j"}}
    assert run([stage], [{"l": 1}], held) == [{"l": 1, "j": [{"_id": 2}, {"_id": 3}]}]


def test_facet_count_and_sort_by_count() -> None:
    found = run([{"$facet": {"c": [{"$count": "n"}], "s": [{"$sortByCount": "$g"}, {"$limit": 1}]}}], ROWS)
    assert found == [{"c": [{"n": 4}], "s": [{"_id": "a", "count": 2}]}]
    assert run([{"$count": "n"}]) == []


def test_documents_and_replace_with() -> None:
    assert run([{"$documents": [{"a": {"b": 1}}]}, {"$replaceWith": "$a"}]) == [{"b": 1}]


def test_limit_reads_no_more_than_it_passes_on() -> None:
    def endless() -> Iterator[dict[str, Any]]:
        yield {"a": 1}
        raise AssertionError("read too much")

    assert run([{"$match": {}}, {"$project": {"a": 1}}, {"$limit": 1}], endless()) == [{"a": 1}]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        pytest.param({}, [{"_id": 1, "old": 1, "n": 1}, {"_id": 2, "n": 2}], id="merge"),
        pytest.param({"whenMatched": "replace"}, [{"_id": 1, "n": 1}, {"_id": 2, "n": 2}], id="replace"),
        pytest.param({"whenMatched": "keepExisting"}, [{"_id": 1, "old": 1}, {"_id": 2, "n": 2}], id="keepExisting"),
        pytest.param({"whenNotMatched": "discard"}, [{"_id": 1, "old": 1, "n": 1}], id="discard"),
        pytest.param(
            {"whenMatched": [{"$set": {"old": {"$add": ["$old", "$$new.n"]}}}]},
            [{"_id": 1, "old": 2}, {"_id": 2, "n": 2}],
            id="pipeline",
        ),
    ],
)
def test_merge(options: Any, expected: Any) -> None:
    held = Held(target=[{"_id": 1, "old": 1}])
    assert run([{"$merge": {"into": "target", **options}}], [{"_id": 1, "n": 1}, {"_id": 2, "n": 2}], held) == []
    assert held.held["target"] == expected


def test_out_replaces_what_was_there_even_in_another_database() -> None:
    held = Held(t=[{"_id": 0}])
    run([{"$out": "t"}], [{"_id": 1}], held)
    run([{"$out": {"db": "d", "coll": "t"}}], [{"_id": 2}], held)
    assert held.held == {"t": [{"_id": 1}], ("d", "t"): [{"_id": 2}]}


GRAPH = {"from": "t", "startWith": "$boss", "connectFromField": "boss", "connectToField": "_id", "as": "chain"}
STAFF: list[dict[str, Any]] = [
    {"_id": "a"},
    {"_id": "b", "boss": "a"},
    {"_id": "c", "boss": ["b"]},
    {"_id": "d", "boss": "d"},
]


@pytest.mark.parametrize(
    ("options", "start", "expected"),
    [
        pytest.param({}, "c", [{"_id": "b", "boss": "a"}, {"_id": "a"}], id="to the end"),
        pytest.param({}, "a", [], id="from nowhere"),
        pytest.param({}, "d", [{"_id": "d", "boss": "d"}], id="in a circle"),
        pytest.param({"maxDepth": 0}, "c", [{"_id": "b", "boss": "a"}], id="one level"),
        pytest.param(
            {"depthField": "at"},
            "c",
            [{"_id": "b", "boss": "a", "at": Int64(0)}, {"_id": "a", "at": Int64(1)}],
            id="depth",
        ),
        pytest.param({"restrictSearchWithMatch": {"_id": {"$ne": "b"}}}, "c", [], id="restricted"),
    ],
)
def test_a_graph_is_followed(options: Any, start: str, expected: Any) -> None:
    found = run([{"$match": {"_id": start}}, {"$graphLookup": GRAPH | options}], STAFF, Held(t=STAFF))
    assert equal(found[0]["chain"], expected), found


def test_documents_fall_into_buckets() -> None:
    documents = [{"_id": n, "n": n} for n in (0, 1, 2, 5, 9, 10)] + [{"_id": 11, "n": "x"}, {"_id": 12}]
    spec = {"groupBy": "$n", "boundaries": [0, 2, 5, 10], "default": "other", "output": {"all": {"$push": "$n"}}}
    assert run([{"$bucket": spec}], documents) == [
        {"_id": 0, "all": [0, 1]}, {"_id": 2, "all": [2]}, {"_id": 5, "all": [5, 9]}, {"_id": "other", "all": [10, "x"]}
    ]  # fmt: skip
    counted = run([{"$bucket": {"groupBy": "$n", "boundaries": [0, 100]}}], documents[:6])
    assert counted == [{"_id": 0, "count": 6}]
    with pytest.raises(CommandError) as refused:
        run([{"$bucket": {"groupBy": "$n", "boundaries": [0, 1]}}], documents)
    assert refused.value.code == 40066


@pytest.mark.parametrize(
    ("pipeline", "code"),
    [
        pytest.param([{"$foo": 1}], 238, id="unknown stage"),
        pytest.param([{"$limit": 1, "$skip": 1}], 40323, id="two stages in one"),
        pytest.param([{"$limit": 0}], 15958, id="limit of nothing"),
        pytest.param([{"$out": "x"}, {"$limit": 1}], 40601, id="out in the middle"),
        pytest.param([{"$group": {"_id": 1, "x": {"$foo": 1}}}], 238, id="unknown accumulator"),
        pytest.param([{"$group": {}}], 15955, id="group without _id"),
        pytest.param([{"$match": {"$foo": 1}}], 238, id="unknown filter"),
        pytest.param([{"$setWindowFields": {}}], 238, id="a stage that is left out"),
        pytest.param([{"$graphLookup": {}}], 40105, id="graphLookup of nothing"),
        pytest.param([{"$graphLookup": GRAPH | {"maxDepth": -1}}], 40101, id="graphLookup to a negative depth"),
        pytest.param([{"$graphLookup": GRAPH | {"x": 1}}], 40104, id="graphLookup with more"),
        pytest.param([{"$graphLookup": GRAPH | {"restrictSearchWithMatch": {"a": {"$x": 1}}}}], 238, id="restriction"),
        pytest.param([{"$bucket": {"groupBy": "$n"}}], 40198, id="bucket without boundaries"),
        pytest.param([{"$bucket": {"groupBy": 1, "boundaries": [1, 2]}}], 40202, id="bucket by a constant"),
        pytest.param([{"$bucket": {"groupBy": "$n", "boundaries": [1]}}], 40192, id="bucket of one boundary"),
        pytest.param([{"$bucket": {"groupBy": "$n", "boundaries": [2, 1]}}], 40194, id="bucket out of order"),
        pytest.param([{"$bucket": {"groupBy": "$n", "boundaries": [1, "a"]}}], 40193, id="bucket of two types"),
        pytest.param(
            [{"$bucket": {"groupBy": "$n", "boundaries": ["$a", 2]}}], 40191, id="bucket of what is not a constant"
        ),
        pytest.param([{"$bucket": {"groupBy": "$n", "boundaries": [1, 3], "default": 2}}], 40199, id="default inside"),
        pytest.param([{"$match": {}}, {"$collStats": {}}], 40602, id="collStats later"),
        pytest.param([{"$collStats": {"latencyStats": {}}}], 238, id="collStats of what nobody counts"),
        pytest.param([{"$merge": {"into": "x", "on": "k"}}], 51183, id="merge on fields without a unique index"),
    ],
)
def test_pipelines_are_refused_before_any_document_is_read(pipeline: Any, code: int) -> None:
    with pytest.raises(CommandError) as caught:
        run_pipeline(pipeline, [], collections=Held(), now=NOW)
    assert caught.value.code == code


@pytest.mark.parametrize("stage", ["$search", "$searchMeta", "$vectorSearch"])
def test_searching_is_refused_with_a_sentence(stage: str) -> None:
    with pytest.raises(NotKnown, match="catalogue entries and do not search"):
        run_pipeline([{stage: {}}], [], collections=Held(), now=NOW)


@given(st.lists(st.fixed_dictionaries({"g": st.integers(0, 2), "n": st.integers(-5, 5)}), max_size=8))
def test_groups_hold_every_document_once(rows: list[Any]) -> None:
    found = run([{"$group": {"_id": "$g", "c": {"$sum": 1}, "s": {"$sum": "$n"}}}], rows)
    assert sum(row["c"] for row in found) == len(rows)
    assert sum(row["s"] for row in found) == sum(row["n"] for row in rows)
