"""Definitions: what is refused at once, what defaults mean, what a server takes for equal."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mydocs.localserver.errors import CommandError
from mydocs.localserver.search.definitions import are_equivalent, check_definition, check_update, with_defaults
from mydocs.localserver.search.settings import Dialect

VECTOR = {"type": "vector", "path": "v", "numDimensions": 3072, "similarity": "dotProduct"}
FILTER = {"type": "filter", "path": "document_id"}
EMBED = {"type": "autoEmbed", "path": "text", "model": "voyage-4", "modality": "text"}


def vector(**changes: Any) -> dict[str, Any]:
    return {"fields": [{**VECTOR, **changes}]}


def mappings(**fields: Any) -> dict[str, Any]:
    return {"mappings": {"dynamic": False, "fields": fields}}


@pytest.mark.parametrize(
    ("kind", "definition"),
    [
        pytest.param("search", {"mappings": {"dynamic": True}}, id="dynamic"),
        pytest.param("search", mappings(a={"type": "string", "analyzer": "lucene.keyword"}), id="one field"),
        pytest.param("search", mappings(a=[{"type": "string"}, {"type": "autocomplete"}]), id="a field with two types"),
        pytest.param("search", mappings(a={"type": "document", "fields": {"b": {"type": "token"}}}), id="nested"),
        pytest.param("search", {"mappings": {}, "analyzer": "lucene.english", "synonyms": []}, id="options"),
        pytest.param("vectorSearch", {"fields": [VECTOR, FILTER]}, id="vector and filter"),
        pytest.param("vectorSearch", vector(numDimensions=8192.0), id="most dimensions, as a double"),
        pytest.param("vectorSearch", {"fields": [EMBED]}, id="embedding"),
    ],
)
def test_a_good_definition_is_accepted(kind: str, definition: dict[str, Any]) -> None:
    for dialect in Dialect:
        check_definition(kind, definition, dialect=dialect)


@pytest.mark.parametrize(
    ("kind", "definition", "message"),
    [
        pytest.param("search", vector(), "Attribute mappings missing.", id="vector definition without a type"),
        pytest.param("search", [], "must be a document", id="no document"),
        pytest.param("search", {"mappings": True}, "must be a document", id="mappings is not a document"),
        pytest.param("search", {"mappings": {"dynamic": "yes"}}, "boolean", id="dynamic is text"),
        pytest.param("search", mappings(a={"type": "text"}), "mappings.fields.a.type", id="no such field type"),
        pytest.param("search", mappings(a={}), "mappings.fields.a.type", id="a field without a type"),
        pytest.param("search", mappings(a=[{"type": "string"}, 1]), "mappings.fields.a", id="a field that is a number"),
        pytest.param("search", mappings(a={"type": "document", "fields": {"b": {}}}), "fields.a.fields.b", id="nested"),
        pytest.param("search", {"mappings": {}, "fields": []}, "unrecognized", id="unknown key"),
        pytest.param("vectorSearch", {"mappings": {}}, '"fields" is required', id="search definition"),
        pytest.param("vectorSearch", {"fields": []}, "cannot be empty", id="no fields"),
        pytest.param("vectorSearch", vector(type="knnVector"), "fields[0].type", id="no such vector type"),
        pytest.param("vectorSearch", vector(path=""), "fields[0].path", id="no path"),
        pytest.param("vectorSearch", vector(numDimensions=0), "numDimensions", id="no dimensions"),
        pytest.param("vectorSearch", vector(numDimensions=8193), "numDimensions", id="too many dimensions"),
        pytest.param("vectorSearch", vector(numDimensions=2.5), "numDimensions", id="half a dimension"),
        pytest.param("vectorSearch", vector(numDimensions="3"), "numDimensions", id="dimensions as text"),
        pytest.param("vectorSearch", vector(similarity="dot"), "similarity", id="no such similarity"),
        pytest.param("vectorSearch", vector(quantization="int8"), "quantization", id="no such quantization"),
        pytest.param("vectorSearch", {"fields": [VECTOR, VECTOR]}, "distinct paths", id="a path twice"),
        pytest.param("vectorSearch", {"fields": [EMBED, VECTOR]}, "mixed", id="vector and embedding"),
        pytest.param("vectorSearch", {"fields": [{**EMBED, "model": 1}]}, "model", id="embedding without a model"),
        pytest.param("geo", {}, "type", id="no such type"),
    ],
)
def test_a_bad_definition_is_refused_with_what_is_wrong(kind: str, definition: Any, message: str) -> None:
    with pytest.raises(CommandError) as refused:
        check_definition(kind, definition, dialect=Dialect.ATLAS)
    assert refused.value.code == 2
    assert message in refused.value.message


def analyzer(tokenizer: Any = None, *filters: Any, name: str = "mine", **more: Any) -> dict[str, Any]:
    made = {"name": name, "tokenizer": tokenizer or {"type": "standard"}, **more}
    return {"mappings": {}, "analyzers": [{**made, "tokenFilters": list(filters)} if filters else made]}


def types(*names: str, **more: Any) -> dict[str, Any]:
    mapped = {"mappings": {"dynamic": {"typeSet": "mine"}}}
    return {**mapped, "typeSets": [{"name": "mine", "types": [{"type": name} for name in names]}], **more}


def embedded(**fields: Any) -> dict[str, Any]:
    return mappings(a={"type": "embeddedDocuments", "fields": fields})


HNSW = {"maxEdges": 16, "numEdgeCandidates": 100}
TAKEN: list[tuple[str, Any]] = [
    ("search", mappings(a={"type": "autocomplete", "minGrams": 3, "maxGrams": 3, "tokenization": "nGram"})),
    ("search", mappings(a={"type": "string", "multi": {"b": {"type": "string", "analyzer": "lucene.keyword"}}})),
    ("search", mappings(a={"type": "string", "similarity": {"type": "stableTfl"}, "ignoreAbove": 5})),
    ("search", mappings(a={"type": "number", "representation": "int64", "indexDoubles": False})),
    ("search", mappings(a={"type": "token", "normalizer": "lowercase"})),
    ("search", mappings(a={"type": "geo", "indexShapes": True})),
    ("search", mappings(a={"type": "knnVector", "dimensions": 3, "similarity": "cosine"})),
    ("search", mappings(a={"type": "vector", "numDimensions": 8, "similarity": "cosine", "quantization": "binary"})),
    ("search", mappings(v={"type": "autoEmbedVector", "model": "m", "modality": "text", "sourceField": "t"})),
    ("search", mappings(a={"type": "embeddedDocuments", "dynamic": True, "storedSource": {"include": ["b"]}})),
    ("search", mappings(a=[{"type": "document"}, {"type": "embeddedDocuments"}])),
    ("search", mappings(a={"type": "string", "analyzer": None})),
    ("search", {"mappings": {"dynamic": True}, "storedSource": {"exclude": ["a", "b.c"]}, "numPartitions": 4}),
    ("search", {"mappings": {}, "storedSource": True}),
    ("search", types("string", "token")),
    ("search", {**mappings(a={"type": "token"}), "sort": {"a": -1}}),
    ("search", {**mappings(a={"type": "date"}), "sort": {"a": {"order": 1, "noData": "highest"}}}),
    (
        "search",
        {"mappings": {}, "synonyms": [{"name": "s", "source": {"collection": "c"}, "analyzer": "lucene.english"}]},
    ),
    ("search", {**analyzer(), "analyzer": "mine"}),
    ("search", analyzer({"type": "nGram", "minGram": 1, "maxGram": 2}, {"type": "lowercase"}, {"type": "stempel"})),
    ("search", analyzer({"type": "regexCaptureGroup", "pattern": r"^(?<first>\p{L}+)-(\d++)$", "group": 2})),
    ("search", analyzer({"type": "regexSplit", "pattern": "[a-z&&[^bc]]+"})),
    ("search", analyzer(None, {"type": "stopword", "tokens": ["a"]}, charFilters=[{"type": "htmlStrip"}])),
    ("search", analyzer(None, charFilters=[{"type": "mapping", "mappings": {"-": ""}}, {"type": "persian"}])),
    ("search", analyzer(None, {"type": "wordDelimiterGraph", "delimiterOptions": {"concatenateAll": True}})),
    ("vectorSearch", {"fields": [VECTOR, {"type": "embeddedDocuments", "path": "sections", "fields": {}}]}),
    ("vectorSearch", {"fields": [{"type": "text", "path": "t"}]}),
    ("vectorSearch", vector(indexingMethod="flat")),
    ("vectorSearch", vector(indexingMethod="hnsw", hnswOptions={"maxEdges": 64, "numEdgeCandidates": 3200})),
    ("vectorSearch", {"fields": [{**EMBED, "quantization": "binaryNoRescore", "numDimensions": 512}]}),
    ("vectorSearch", {**vector(), "storedSource": {"include": ["a"]}, "numPartitions": 2, "nestedRoot": "s"}),
]


@pytest.mark.parametrize(("kind", "definition"), [pytest.param(*row, id=str(row[1])[:60]) for row in TAKEN])
@pytest.mark.parametrize("dialect", Dialect)
def test_what_mongot_parses_is_taken(kind: str, definition: Any, dialect: Dialect) -> None:
    check_definition(kind, definition, dialect=dialect)
    with_defaults(kind, definition)


STRING = {"type": "string"}
WHOLE: list[dict[str, Any]] = [
    {"numPartitions": 3}, {"numPartitions": 0}, {"numPartitions": "2"}, {"analyzer": ""}, {"analyzer": 1},
    {"analyzer": "lucene.nothing"}, {"searchAnalyzer": []}, {"foo": 1}, {"storedSource": "all"},
    {"storedSource": {}}, {"storedSource": {"include": ["a"], "exclude": ["b"]}}, {"storedSource": {"include": []}},
    {"storedSource": {"include": ["a", "a.b"]}}, {"storedSource": {"include": [" "]}}, {"storedSource": {"x": 1}},
    {"synonyms": {}}, {"synonyms": [{"name": "s"}]}, {"typeSets": []}, {"typeSets": [{"name": "x", "types": []}]},
    {"synonyms": [{"name": "s", "source": {"collection": "c"}, "analyzer": "lucene.english"}] * 2},
    {"synonyms": [{"name": "s", "source": {"collection": ""}, "analyzer": "lucene.english"}]},
    {"synonyms": [{"name": "s", "source": {"collection": "c"}, "analyzer": "mine"}]},
    {"sort": {}}, {"sort": {"a": 1}}, {"sort": [1]},
]  # fmt: skip
NO_VECTORS: list[dict[str, Any]] = [
    {},
    {"similarity": "cosine"},
    {"dimensions": 3},
    {"dimensions": 9000, "similarity": "cosine"},
    {"numDimensions": 3, "similarity": "cosine"},
]
REFUSED: list[tuple[str, Any]] = [
    # options that a type does not have, and values that an option does not take
    *(("search", mappings(a={**STRING, name: value})) for name, value in (
        ("foo", 1), ("minGrams", 2), ("analyzer", ""), ("analyzer", 1), ("store", "yes"), ("norms", "keep"),
        ("indexOptions", "all"), ("ignoreAbove", 0), ("ignoreAbove", "9"), ("similarity", "bm25"),
        ("similarity", {"type": "BM25"}), ("similarity", {}), ("multi", {"a.b": STRING}), ("multi", {"a": {}}),
        ("multi", {"a": {"type": "token"}}), ("multi", {"a": {**STRING, "multi": {}}}), ("analyzer", "lucene.klingon"),
        ("searchAnalyzer", "nobodys"),
    )),
    *(("search", mappings(a={"type": "autocomplete", **options})) for options in (
        {"minGrams": 5, "maxGrams": 3}, {"minGrams": 16}, {"maxGrams": 1}, {"minGrams": 0}, {"minGrams": 1.5},
        {"tokenization": "edge"}, {"foldDiacritics": 1}, {"searchAnalyzer": "lucene.simple"}, {"analyzer": "x"},
    )),
    *(("search", mappings(a={"type": "number", **options})) for options in (
        {"indexDoubles": False, "indexIntegers": False}, {"representation": "int32"}, {"store": True},
    )),
    *(("search", mappings(a={"type": kind, "x": 1})) for kind in (
        "boolean", "date", "dateFacet", "document", "embeddedDocuments", "geo", "numberFacet", "objectId",
        "stringFacet", "token", "uuid",
    )),
    ("search", mappings(a={"type": "token", "normalizer": "upper"})),
    ("search", mappings(a={"type": "geo", "indexShapes": "no"})),
    *(("search", mappings(a={"type": "knnVector", **options})) for options in NO_VECTORS),
    ("search", mappings(a={"type": "vector", "numDimensions": 4, "similarity": "cosine", "quantization": "binary"})),
    ("search", mappings(a={"type": "autoEmbedVector", "model": "m", "modality": "text"})),
    ("search", mappings(a={"type": "autoEmbedVector", "model": "m", "modality": "image", "sourceField": "t"})),
    # several types of one field
    ("search", mappings(a=[STRING, STRING])),
    ("search", mappings(a=[{"type": "sortableDateBetaV1"}, {"type": "sortableNumberBetaV1"}])),
    ("search", mappings(a=[{"type": "sortableStringBetaV1"}, {"type": "token"}])),
    (
        "search",
        mappings(a=[{"type": "knnVector", "dimensions": 3, "similarity": "cosine"},
                    {"type": "vector", "numDimensions": 3, "similarity": "cosine"}]),
    ),
    ("search", mappings(a=None)),
    ("search", embedded(b={"type": "sortableNumberBetaV1"})),
    ("search", embedded(b={"type": "document", "fields": {"c": {"type": "sortableStringBetaV1"}}})),
    ("search", embedded(b={"type": "knnVector", "dimensions": 3, "similarity": "cosine"})),
    # the whole
    *(("search", {"mappings": {}, **options}) for options in WHOLE),
    ("search", {"mappings": {"type": "document"}}),
    ("search", {"mappings": {"dynamic": {"typeSet": "mine"}}}),
    ("search", {"mappings": {"dynamic": {"type": "mine"}}}),
    ("search", types("document")),
    ("search", types("string", "string")),
    ("search", types("knnVector")),
    ("search", {**mappings(a=STRING), "sort": {"a": 1}}),
    ("search", {**mappings(a={"type": "token"}), "sort": {"a": 2}}),
    ("search", {**mappings(a=[{"type": "token"}, STRING]), "sort": {"a": 1}}),
    ("search", {**mappings(a={"type": "token"}), "sort": {"a": {"$meta": "searchScore"}}}),
    # analyzers
    ("search", {"mappings": {}, "analyzers": [{"name": "a"}]}),
    ("search", {"mappings": {}, "analyzers": [{"tokenizer": {"type": "standard"}}]}),
    ("search", {"mappings": {}, "analyzers": [{"name": "a", "tokenizer": {"type": "standard"}}] * 2}),
    ("search", analyzer(name="lucene.mine")),
    ("search", analyzer(foo=1)),
    *(("search", analyzer(tokenizer)) for tokenizer in (
        {"type": "words"}, {"type": "standard", "maxTokenLength": 0}, {"type": "keyword", "x": 1},
        {"type": "edgeGram", "minGram": 3, "maxGram": 2}, {"type": "nGram"}, {"type": "regexSplit"},
        {"type": "regexSplit", "pattern": "("}, {"type": "regexCaptureGroup", "pattern": "(a)", "group": 2},
    )),
    *(("search", analyzer(None, token_filter)) for token_filter in (
        {"type": "shout"}, {"type": "lowercase", "x": 1}, {"type": "length", "min": 300},
        {"type": "length", "min": 3, "max": 2}, {"type": "regex", "pattern": "a", "replacement": "b"},
        {"type": "regex", "pattern": "[a", "replacement": "b", "matches": "all"},
        {"type": "shingle", "minShingleSize": 1, "maxShingleSize": 2},
        {"type": "shingle", "minShingleSize": 3, "maxShingleSize": 2},
        {"type": "snowballStemming", "stemmerName": "klingon"}, {"type": "stopword", "tokens": []},
        {"type": "icuNormalizer", "normalizationForm": "nfx"}, {"type": "asciiFolding", "originalTokens": "keep"},
        {"type": "edgeGram", "minGram": 1, "maxGram": 2, "termNotInBounds": "drop"},
        {"type": "wordDelimiterGraph", "delimiterOptions": {"x": True}},
        {"type": "wordDelimiterGraph", "protectedWords": {}},
    )),
    *(("search", analyzer(None, charFilters=[char_filter])) for char_filter in (
        {"type": "strip"}, {"type": "mapping"}, {"type": "mapping", "mappings": {}},
        {"type": "htmlStrip", "ignoredTags": ["a", "a"]},
    )),
    # vector indexes
    *(("vectorSearch", vector(**options)) for options in (
        {"foo": 1}, {"path": None}, {"indexingMethod": "ivf"}, {"hnswOptions": {"maxEdges": 15}},
        {"hnswOptions": {"maxEdges": 65}}, {"hnswOptions": {"numEdgeCandidates": 99}}, {"hnswOptions": {"m": 16}},
        {"indexingMethod": "flat", "hnswOptions": HNSW}, {"numDimensions": 12, "quantization": "binary"},
        {"numDimensions": None}, {"similarity": None}, {"quantization": "float"}, {"engine": "faiss"},
    )),
    *(("vectorSearch", {**vector(), **options}) for options in (
        {"numPartitions": 3}, {"storedSource": True}, {"storedSource": {"include": ["a"], "exclude": ["b"]}}, {"x": 1},
    )),
    ("vectorSearch", {"fields": [{**FILTER, "numDimensions": 3}]}),
    ("vectorSearch", {"fields": [{"type": "filter"}]}),
    ("vectorSearch", {"fields": [{**EMBED, "modality": "image"}]}),
    ("vectorSearch", {"fields": [{**EMBED, "quantization": "int8"}]}),
    ("vectorSearch", {"fields": [{**EMBED, "indexingMethod": "flat", "hnswOptions": HNSW}]}),
    ("vectorSearch", {"fields": [{"type": "autoEmbed", "path": "t", "model": "m"}]}),
    ("vectorSearch", {"fields": [{"type": "autoEmbed", "path": "t", "modality": "text"}]}),
    ("vectorSearch", {"fields": [EMBED, {**EMBED, "path": "b", "model": "other"}]}),
    ("vectorSearch", {"fields": [VECTOR, {"type": "embeddedDocuments", "path": "s", "fields": {"a": {}}}]}),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "definition"), [pytest.param(*row, id=str(row[1])[:90]) for row in REFUSED])
def test_what_mongot_would_not_take_is_refused(kind: str, definition: Any) -> None:
    for dialect in Dialect:
        with pytest.raises(CommandError) as refused:
            check_definition(kind, definition, dialect=dialect)
        assert refused.value.code in (2, 125)


def test_a_flat_index_is_listed_without_options_of_another_method() -> None:
    assert "hnswOptions" not in with_defaults("vectorSearch", vector(indexingMethod="flat"))["fields"][0]
    filled = with_defaults("vectorSearch", vector(hnswOptions={"maxEdges": 32}))["fields"][0]
    assert filled["hnswOptions"] == {"maxEdges": 32, "numEdgeCandidates": 100}
    check_definition("vectorSearch", {"fields": [filled]}, dialect=Dialect.SELF_MANAGED)


def test_a_self_managed_server_refuses_with_its_own_code() -> None:
    with pytest.raises(CommandError) as refused:
        check_definition("search", vector(), dialect=Dialect.SELF_MANAGED)
    assert (refused.value.code, refused.value.message) == (125, '"mappings" is required')


@pytest.mark.parametrize(
    ("kind", "one", "other", "expected"),
    [
        pytest.param(
            "search",
            mappings(a={"type": "string"}),
            {"mappings": {"fields": {"a": {"norms": "include", "type": "string", "store": True}}}},
            True,
            id="defaults and key order do not count",
        ),
        pytest.param(
            "search",
            mappings(a=[{"type": "number"}]),
            mappings(a={"type": "number"}),
            False,
            id="a list is another form",
        ),
        pytest.param("search", {"mappings": {}}, {"mappings": {}, "sort": {"a": 1}}, True, id="sort is left out"),
        pytest.param("search", {"mappings": {}}, {"mappings": {"dynamic": True}}, False, id="dynamic counts"),
        pytest.param("vectorSearch", vector(), vector(quantization="none"), True, id="default of a vector"),
        pytest.param("vectorSearch", vector(), {**vector(), "storedSource": {}}, True, id="storedSource is left out"),
        pytest.param("vectorSearch", vector(), vector(similarity="cosine"), False, id="similarity counts"),
        pytest.param("vectorSearch", vector(), {**vector(), "numPartitions": 2}, False, id="partitions count"),
    ],
)
def test_equivalence_is_mongots(kind: str, one: dict[str, Any], other: dict[str, Any], expected: bool) -> None:
    assert are_equivalent(kind, one, other) is expected
    assert are_equivalent(kind, other, one) is expected


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        pytest.param(EMBED, {**EMBED, "model": "voyage-5"}, "cannot update type:autoEmbed", id="another model"),
        pytest.param(EMBED, {**EMBED, "path": "t"}, "cannot update type:autoEmbed", id="another path"),
        pytest.param(EMBED, {**EMBED, "similarity": "cosine"}, "cannot update type:autoEmbed", id="another similarity"),
        pytest.param(EMBED, {**EMBED, "indexingMethod": "flat"}, "cannot update type:autoEmbed", id="another method"),
        pytest.param(EMBED, VECTOR, "cannot convert", id="no longer by itself"),
    ],
)
def test_what_embeds_by_itself_cannot_be_updated(before: dict[str, Any], after: dict[str, Any], message: str) -> None:
    with pytest.raises(CommandError, match=message) as refused:
        check_update("vectorSearch", {"fields": [before]}, {"fields": [after]}, dialect=Dialect.SELF_MANAGED)
    assert refused.value.code == 125
    check_update("vectorSearch", {"fields": [before]}, {"fields": [after]}, dialect=Dialect.ATLAS)


@pytest.mark.parametrize("dialect", Dialect)
@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param([EMBED], [FILTER, EMBED], id="a filter more"),
        pytest.param([EMBED], [{**EMBED, "numDimensions": 1024}], id="what is the default"),
        pytest.param([VECTOR], [EMBED], id="by itself from now on"),
        pytest.param([VECTOR], [{**VECTOR, "similarity": "cosine"}], id="no embedding at all"),
    ],
)
def test_an_update_that_every_server_takes(before: Any, after: Any, dialect: Dialect) -> None:
    check_update("vectorSearch", {"fields": before}, {"fields": after}, dialect=dialect)


field = st.recursive(
    st.fixed_dictionaries({"type": st.just("string")}, optional={"store": st.booleans()})
    | st.fixed_dictionaries({"type": st.sampled_from(["number", "token"])}),
    lambda inner: st.fixed_dictionaries(
        {"type": st.just("document")}, optional={"fields": st.dictionaries(st.text(max_size=3), inner, max_size=2)}
    ),
    max_leaves=4,
)


@given(st.dictionaries(st.text(max_size=3), field | st.lists(field, min_size=1, max_size=1), max_size=3))
def test_filling_in_defaults_is_done_once_and_changes_no_meaning(fields: dict[str, Any]) -> None:
    definition = {"mappings": {"fields": fields}}
    filled = with_defaults("search", definition)
    assert with_defaults("search", filled) == filled
    assert are_equivalent("search", definition, filled)
    check_definition("search", filled, dialect=Dialect.ATLAS)
