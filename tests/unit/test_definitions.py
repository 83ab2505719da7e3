"""Two definitions of a search index: what makes a difference, and what a server only filled in."""

import random
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mydocs.migrations.indexes.definitions import Change, change, differences, kind_of
from mydocs.migrations.model import IndexType

SEARCH, VECTOR = IndexType.SEARCH, IndexType.VECTOR


def search(fields: Mapping[str, Any], **options: Any) -> dict[str, Any]:
    return {"mappings": {"dynamic": False, "fields": fields}, **options}


def vector(**options: Any) -> dict[str, Any]:
    field = {"type": "vector", "path": "emb", "numDimensions": 3072, "similarity": "dotProduct"}
    return {"fields": [field | options, {"type": "filter", "path": "document_id"}]}


def embedding(**options: Any) -> dict[str, Any]:
    return {"fields": [{"type": "autoEmbed", "path": "text", "model": "voyage-4", "modality": "text"} | options]}


@pytest.mark.parametrize(
    ("definition", "expected"),
    [
        pytest.param({"mappings": {"dynamic": True}}, SEARCH, id="mappings"),
        pytest.param(vector(), VECTOR, id="list of fields"),
        pytest.param({"mappings": {}, "fields": []}, SEARCH, id="mappings win"),
        pytest.param({"fields": {"a": {"type": "string"}}}, SEARCH, id="fields that are not a list"),
        pytest.param({}, SEARCH, id="nothing, as the server takes it"),
    ],
)
def test_type_is_told_from_the_definition(definition: dict[str, Any], expected: IndexType) -> None:
    assert kind_of(None, definition) is expected


TITLE = {"title": {"type": "string"}}
SET = {"name": "words", "types": [{"type": "string"}, {"type": "token"}]}


@pytest.mark.parametrize(
    ("kind", "asked", "listed"),
    [
        pytest.param(SEARCH, {"mappings": {"fields": TITLE}}, search(TITLE), id="not dynamic"),
        pytest.param(
            SEARCH,
            search(TITLE),
            search(
                TITLE,
                analyzer="lucene.standard",
                searchAnalyzer="lucene.standard",
                analyzers=[],
                synonyms=[],
                storedSource=False,
                numPartitions=1,
                typeSets=None,
            ),
            id="every option of the index at its default",
        ),
        pytest.param(SEARCH, search(TITLE), search({"title": [{"type": "string"}]}), id="list of one type"),
        pytest.param(
            SEARCH,
            search({"a": [{"type": "string"}, {"type": "autocomplete"}]}),
            search({"a": [{"type": "autocomplete", "minGrams": 2.0}, {"type": "string"}]}),
            id="order of types",
        ),
        pytest.param(
            SEARCH,
            search(TITLE, analyzer="lucene.english"),
            search({"title": {"type": "string", "analyzer": "lucene.english"}}, analyzer="lucene.english"),
            id="analyzer of the index written out",
        ),
        pytest.param(
            SEARCH,
            search({"a": {"type": "string", "multi": {"en": {"type": "string", "analyzer": "lucene.english"}}}}),
            search(
                {
                    "a": {
                        "type": "string",
                        "multi": {"en": {"type": "string", "analyzer": "lucene.english", "norms": "include"}},
                    }
                }
            ),
            id="second analyzer of a string",
        ),
        pytest.param(
            SEARCH,
            search({"a": {"type": "embeddedDocuments", "fields": {"b": {"type": "token"}}}}),
            search(
                {
                    "a": {
                        "type": "embeddedDocuments",
                        "dynamic": False,
                        "storedSource": False,
                        "fields": {"b": {"type": "token", "normalizer": "none"}},
                    }
                }
            ),
            id="embedded documents",
        ),
        pytest.param(
            SEARCH,
            search(TITLE, storedSource={"include": ["a", "b"]}, analyzers=[{"name": "x", "tokenizer": {"type": "k"}}]),
            search(
                TITLE,
                storedSource={"include": ["b", "a"]},
                analyzers=[{"tokenizer": {"type": "k"}, "name": "x", "charFilters": [], "tokenFilters": []}],
            ),
            id="stored source and analyzers",
        ),
        pytest.param(
            SEARCH,
            {"mappings": {"dynamic": {"typeSet": "words"}}, "typeSets": [SET]},
            {
                "mappings": {"dynamic": {"typeSet": "words"}},
                "typeSets": [{"types": SET["types"][::-1], "name": "words"}],
            },
            id="type sets",
        ),
        pytest.param(SEARCH, search(TITLE, typeSets=[SET]), search(TITLE), id="type set that nobody names"),
        pytest.param(
            SEARCH,
            search({"a": {"type": "document", "dynamic": {"typeSet": "words"}}}, typeSets=[SET, SET | {"name": "b"}]),
            search({"a": {"type": "document", "dynamic": {"typeSet": "words"}}}, typeSets=[SET]),
            id="type set that nobody names beside one that a field names",
        ),
        pytest.param(
            SEARCH,
            search(TITLE, sort={"a": 1, "b": -1}),
            search(TITLE, sort={"a": {"order": 1, "noData": "lowest"}, "b": {"order": -1}}),
            id="short form of a sort",
        ),
        pytest.param(SEARCH, search(TITLE, storedSource=True), search(TITLE, storedSource={"exclude": []}), id="all"),
        pytest.param(
            SEARCH,
            search(TITLE, storedSource={"include": ["a"]}),
            search(TITLE, storedSource={"include": ["_id", "a"]}),
            id="_id is stored with whatever else is",
        ),
        pytest.param(SEARCH, search(TITLE), search(TITLE, indexFeatureVersion=4), id="key that nobody knows, top"),
        pytest.param(
            SEARCH, search(TITLE), search({"title": {"type": "string", "new": 1}}), id="key that nobody knows, field"
        ),
        pytest.param(
            SEARCH, search({"a": {"type": "new"}}), search({"a": {"type": "new", "x": 1}}), id="type that nobody knows"
        ),
        pytest.param(
            VECTOR,
            vector(),
            {
                "fields": vector(
                    quantization="none",
                    indexingMethod="hnsw",
                    hnswOptions={"maxEdges": 16, "numEdgeCandidates": 100},
                    numDimensions=3072.0,
                )["fields"][::-1],
                "storedSource": False,
            },
            id="vector with everything written out, other order",
        ),
        pytest.param(
            VECTOR, vector(hnswOptions={"maxEdges": 16}), vector(hnswOptions={"numEdgeCandidates": 100}), id="hnsw"
        ),
        pytest.param(
            VECTOR,
            vector(indexingMethod="flat", hnswOptions={"maxEdges": 32}),
            vector(indexingMethod="flat"),
            id="graph options of an index without a graph",
        ),
        pytest.param(
            VECTOR,
            embedding(model="Voyage-4"),
            embedding(numDimensions=1024, quantization="scalar", similarity="dotProduct"),
            id="what the embedding model decides",
        ),
    ],
)
def test_what_a_server_fills_in_is_no_difference(
    kind: IndexType, asked: dict[str, Any], listed: dict[str, Any]
) -> None:
    assert differences(kind, asked, listed) == ()
    assert change(kind, asked, kind, listed) is Change.NOTHING


@pytest.mark.parametrize(
    ("kind", "asked", "listed", "expected"),
    [
        pytest.param(
            SEARCH,
            search({"content": {"type": "string", "analyzer": "lucene.english"}}),
            search({"content": {"type": "string", "analyzer": "lucene.standard"}}),
            "mappings.fields.content.analyzer: asked 'lucene.english', live 'lucene.standard'",
            id="analyzer",
        ),
        pytest.param(
            SEARCH,
            search({}),
            search(TITLE),
            "mappings.fields.title: asked nothing, live string",
            id="field removed",
        ),
        pytest.param(
            SEARCH,
            search(TITLE | {"a": [{"type": "string"}, {"type": "token"}]}),
            search(TITLE),
            "mappings.fields.a: asked string and token, live nothing",
            id="field added",
        ),
        pytest.param(
            SEARCH,
            search({"title": {"type": "token"}}),
            search(TITLE),
            "mappings.fields.title.type: asked 'token', live 'string'",
            id="type of a field",
        ),
        pytest.param(
            SEARCH,
            search(TITLE),
            search({"title": [{"type": "string"}, {"type": "token", "normalizer": "none"}]}),
            "mappings.fields.title[token]: asked nothing, live {'normalizer': 'none', 'type': 'token'}",
            id="one type of a field removed",
        ),
        pytest.param(
            SEARCH,
            search({"title": {"type": "string", "store": 1}}),
            search(TITLE),
            "mappings.fields.title.store: asked 1, live True",
            id="1 is not true",
        ),
        pytest.param(
            SEARCH,
            search(TITLE),
            search(TITLE, storedSource={"include": ["a"]}),
            "storedSource: asked False, live {'include': ['a']}",
            id="stored source removed",
        ),
        pytest.param(
            SEARCH,
            search(TITLE, synonyms=[{"name": "s", "analyzer": "a", "source": {"collection": "new"}}]),
            search(TITLE, synonyms=[{"name": "s", "analyzer": "a", "source": {"collection": "old"}}]),
            "synonyms.s.source.collection: asked 'new', live 'old'",
            id="inside a synonym",
        ),
        pytest.param(
            SEARCH,
            search(TITLE, analyzers=[{"name": "x", "tokenizer": {"type": "standard"}}]),
            search(TITLE, analyzers=[{"name": "x", "tokenizer": {"type": "standard", "maxTokenLength": 9}}]),
            "analyzers.x.tokenizer.maxTokenLength: asked nothing, live 9",
            id="inside an analyzer nothing is ignored",
        ),
        pytest.param(
            SEARCH,
            search(TITLE, sort={"a": 1, "b": 1}),
            search(TITLE, sort={"b": 1, "a": 1}),
            "sort: asked [['a', 1], ['b', 1]], live [['b', 1], ['a', 1]]",
            id="order of a sort",
        ),
        pytest.param(
            SEARCH,
            search(TITLE, sort={"a": {"order": 1, "noData": "highest"}}),
            search(TITLE, sort={"a": 1}),
            "sort: asked [['a', {'order': 1, 'noData': 'highest'}]], live [['a', 1]]",
            id="where a sort puts what has no data",
        ),
        pytest.param(
            SEARCH,
            search(TITLE, storedSource={"include": ["_id"]}),
            search(TITLE),
            "storedSource: asked {'include': ['_id']}, live False",
            id="_id alone is stored source",
        ),
        pytest.param(
            SEARCH,
            {"mappings": {"dynamic": {"typeSet": "words"}}, "typeSets": [SET]},
            {"mappings": {"dynamic": {"typeSet": "words"}}, "typeSets": [{"name": "words", "types": SET["types"][:1]}]},
            "typeSets.words.types[token]: asked {'normalizer': 'none', 'type': 'token'}, live nothing",
            id="type set that is named",
        ),
        pytest.param(
            VECTOR,
            vector(),
            vector(quantization="scalar"),
            "fields.emb.quantization: asked 'none', live 'scalar'",
            id="quantization removed",
        ),
        pytest.param(
            VECTOR,
            {"fields": vector()["fields"][:1]},
            vector(),
            "fields.document_id: asked nothing, live filter",
            id="filter removed",
        ),
        pytest.param(
            VECTOR,
            vector(hnswOptions={"maxEdges": 32}),
            vector(),
            "fields.emb.hnswOptions.maxEdges: asked 32, live 16",
            id="hnsw",
        ),
    ],
)
def test_every_change_has_its_line_and_is_an_update(
    kind: IndexType, asked: dict[str, Any], listed: dict[str, Any], expected: str
) -> None:
    assert differences(kind, asked, listed) == (expected,)
    assert change(kind, asked, kind, listed) is Change.UPDATE


def test_search_analyzer_of_the_index_holds_only_where_the_field_names_no_analyzer() -> None:
    own = {"title": {"type": "string", "analyzer": "lucene.standard"}}
    listed = search(own, searchAnalyzer="lucene.english")
    assert differences(SEARCH, search(TITLE, searchAnalyzer="lucene.english"), listed) == (
        "mappings.fields.title.searchAnalyzer: asked 'lucene.english', live nothing",
    )


@pytest.mark.parametrize(
    ("asked", "listed"),
    [
        pytest.param(embedding(model="other"), embedding(), id="model"),
        pytest.param(embedding(numDimensions=256), embedding(numDimensions=1024), id="dimensions"),
        pytest.param(embedding(quantization="binary"), embedding(quantization="float"), id="bits"),
        pytest.param(embedding(path="body"), embedding(), id="path"),
        pytest.param(embedding(), vector(), id="vectors to embedding"),
        pytest.param(vector(), embedding(), id="embedding to vectors"),
        pytest.param(embedding(hnswOptions={"maxEdges": 32}), embedding(), id="graph"),
    ],
)
def test_a_field_that_embeds_by_itself_is_updated_as_any_other(asked: dict[str, Any], listed: dict[str, Any]) -> None:
    assert change(VECTOR, asked, VECTOR, listed) is Change.UPDATE


def test_search_answers_meanwhile_unless_the_index_is_dropped() -> None:
    assert [one for one in Change if not one.answers_meanwhile] == [Change.REPLACE]


def test_other_type_is_a_replacement() -> None:
    assert change(VECTOR, vector(), SEARCH, search(TITLE)) is Change.REPLACE


# The options of each type: what the server fills in, and a value that is something else.
DEFAULTS: dict[str, dict[str, tuple[Any, Any]]] = {
    "string": {
        "analyzer": ("lucene.standard", "lucene.english"),
        "indexOptions": ("offsets", "docs"),
        "store": (True, False),
        "norms": ("include", "omit"),
        "similarity": ({"type": "bm25"}, {"type": "boolean"}),
    },
    "autocomplete": {
        "analyzer": ("lucene.standard", "lucene.keyword"),
        "tokenization": ("edgeGram", "nGram"),
        "minGrams": (2, 3),
        "maxGrams": (15, 7),
        "foldDiacritics": (True, False),
    },
    "number": {"representation": ("double", "int64"), "indexIntegers": (True, False), "indexDoubles": (True, False)},
    "date": {},
    "token": {"normalizer": ("none", "lowercase")},
    "geo": {"indexShapes": (False, True)},
    "document": {"dynamic": (False, True)},
    "vector": {"quantization": ("none", "scalar"), "engine": ("lucene", "custom")},
}


@st.composite
def fields_of(draw: st.DrawFn, kinds: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    fields = {}
    for name in draw(st.lists(st.sampled_from("abcdef"), unique=True, min_size=1)):
        kind = draw(st.sampled_from(kinds))
        options = draw(st.lists(st.sampled_from([*DEFAULTS[kind], None]), unique=True))
        fields[name] = {"type": kind} | {option: DEFAULTS[kind][option][1] for option in options if option is not None}
    return fields


def definition_of(kind: IndexType, fields: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    if kind is SEARCH:
        return search(fields)
    return {"fields": [{"path": name, "numDimensions": 8} | options for name, options in fields.items()]}


DEFINITIONS = st.one_of(
    st.tuples(st.just(SEARCH), fields_of(tuple(DEFAULTS))), st.tuples(st.just(VECTOR), fields_of(("vector",)))
)


def reordered(value: Any, dice: random.Random) -> Any:
    if isinstance(value, dict):
        items = [(key, reordered(item, dice)) for key, item in value.items()]
        return dict(dice.sample(items, len(items)))
    if isinstance(value, list):
        return dice.sample([reordered(item, dice) for item in value], len(value))
    return float(value) if isinstance(value, int) and not isinstance(value, bool) and dice.random() < 0.5 else value


@given(DEFINITIONS, st.randoms(use_true_random=False))
def test_order_and_filled_in_defaults_never_make_a_difference(
    definition: tuple[IndexType, dict[str, dict[str, Any]]], dice: random.Random
) -> None:
    kind, fields = definition
    listed = {
        name: {option: default for option, (default, _) in DEFAULTS[options["type"]].items()} | options
        for name, options in fields.items()
    }
    asked, live = definition_of(kind, fields), reordered(definition_of(kind, listed), dice)
    assert differences(kind, asked, live) == ()
    assert differences(kind, live, asked) == ()


@given(DEFINITIONS, st.data())
def test_every_single_change_makes_a_difference(
    definition: tuple[IndexType, dict[str, dict[str, Any]]], data: st.DataObject
) -> None:
    kind, fields = definition
    name = data.draw(st.sampled_from(sorted(fields)))
    before = fields[name]
    known = DEFAULTS[before["type"]]
    changed: list[dict[str, Any] | None] = [None, before | {"type": "uuid"}]
    for option, (_, other) in known.items():
        without = {key: value for key, value in before.items() if key != option}
        changed.append(without if option in before else before | {option: other})
    after = data.draw(st.sampled_from(changed))
    others = {key: value for key, value in fields.items() if key != name}
    asked = definition_of(kind, fields)
    live = definition_of(kind, others if after is None else others | {name: after})
    assert differences(kind, asked, live)
    assert differences(kind, live, asked)


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["fields", "mappings", "type", "path", "name", "analyzers", "storedSource", "types"]), inner
    ),
    max_leaves=12,
)  # fmt: skip
KEYS = st.sampled_from(
    ["fields", "mappings", "analyzers", "synonyms", "typeSets", "storedSource", "sort", "hnswOptions", "analyzer"]
)


@given(st.sampled_from([SEARCH, VECTOR]), st.dictionaries(KEYS, JUNK))
def test_a_listing_of_any_shape_equals_itself_and_never_raises(kind: IndexType, junk: dict[str, Any]) -> None:
    assert not differences(kind, junk, junk)
    assert change(kind, search(TITLE) if kind is SEARCH else vector(), kind, junk) in set(Change)


@pytest.mark.parametrize(
    ("kind", "junk"),
    [
        pytest.param(VECTOR, {"fields": 5}, id="fields"),
        pytest.param(VECTOR, {"fields": [5]}, id="field"),
        pytest.param(VECTOR, {"fields": [{"path": "a", "type": "autoEmbed", "model": 1, "hnswOptions": 5}]}, id="ai"),
        pytest.param(VECTOR, {"fields": [{"path": "a", "type": "string", "multi": [1]}]}, id="string"),
        pytest.param(VECTOR, {"fields": [{"path": "a", "type": 1}]}, id="type"),
        pytest.param(VECTOR, {"fields": [{"path": 1, "type": "vector"}]}, id="path"),
        pytest.param(SEARCH, {"mappings": {"type": []}, "analyzer": "a"}, id="type of the mappings"),
        pytest.param(SEARCH, {"mappings": 5, "analyzers": 5, "sort": 5, "storedSource": {"include": [5]}}, id="top"),
        pytest.param(SEARCH, {"mappings": {"fields": {"a": []}}, "synonyms": [5], "typeSets": [{"name": "a"}]}, id="x"),
    ],
)
def test_a_definition_of_any_shape_equals_itself_and_nothing_else(kind: IndexType, junk: dict[str, Any]) -> None:
    assert change(kind, junk, kind, dict(junk)) is Change.NOTHING
    assert change(kind, junk, kind, search(TITLE) if kind is SEARCH else vector()) is not Change.NOTHING
