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
        pytest.param("search", {"mappings": True}, "must be a document", id="mappings is no document"),
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
        pytest.param(EMBED, VECTOR, "cannot convert", id="no longer by itself"),
        pytest.param(VECTOR, EMBED, "cannot convert", id="by itself from now on"),
    ],
)
def test_what_embeds_by_itself_cannot_be_updated(before: dict[str, Any], after: dict[str, Any], message: str) -> None:
    with pytest.raises(CommandError, match=message) as refused:
        check_update("vectorSearch", {"fields": [before]}, {"fields": [after]})
    assert refused.value.code == 125


def test_a_filter_can_be_added_to_what_embeds_by_itself() -> None:
    check_update("vectorSearch", {"fields": [EMBED]}, {"fields": [EMBED, FILTER]})


field = st.recursive(
    st.fixed_dictionaries({"type": st.sampled_from(["string", "number", "token"])}, optional={"store": st.booleans()}),
    lambda inner: st.fixed_dictionaries(
        {"type": st.just("document")}, optional={"fields": st.dictionaries(st.text(max_size=3), inner, max_size=2)}
    ),
    max_leaves=4,
)


@given(st.dictionaries(st.text(max_size=3), field | st.lists(field, min_size=1, max_size=2), max_size=3))
def test_filling_in_defaults_is_done_once_and_changes_no_meaning(fields: dict[str, Any]) -> None:
    definition = {"mappings": {"fields": fields}}
    filled = with_defaults("search", definition)
    assert with_defaults("search", filled) == filled
    assert are_equivalent("search", definition, filled)
    check_definition("search", filled, dialect=Dialect.ATLAS)
