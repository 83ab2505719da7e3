"""A kind of search index is one row of one table: whoever tells, records, compares or waits for kinds reads it."""

from typing import Any

import pytest

from mydocs.migrations.indexes import definitions, readiness
from mydocs.migrations.indexes.capture import Capture
from mydocs.migrations.indexes.definitions import Change, Options, SearchKind
from mydocs.migrations.model import IndexState, IndexType, TrackedIndex
from mydocs.migrations.scripts.script_context import ScriptContext


@pytest.fixture
def graph(monkeypatch: pytest.MonkeyPatch) -> IndexType:
    """A third kind that a server might have."""
    kind = str.__new__(IndexType, "graphSearch")
    kind._name_, kind._value_ = "GRAPH", "graphSearch"
    monkeypatch.setitem(IndexType._value2member_map_, "graphSearch", kind)
    row = SearchKind(tells=lambda definition: "edges" in definition, canonical=lambda d: Options({"depth": 1, **d}))
    monkeypatch.setitem(definitions.SEARCH_KINDS, kind, row)
    return kind


ASKED: dict[str, Any] = {"edges": ["a"]}


@pytest.mark.parametrize("word", ["graphSearch", None])
def test_a_kind_that_is_added_to_the_table_is_told_recorded_compared_and_waited_for(
    graph: IndexType, word: str | None
) -> None:
    assert definitions.kind_of(word, ASKED) is graph
    assert graph.is_search
    captured = Capture(ScriptContext())
    document = {"name": "g", "definition": ASKED} | ({} if word is None else {"type": word})
    reply = {"ok": 1, "indexesCreated": [{"name": "g", "id": "1"}]}
    captured.seen("createSearchIndexes", {"createSearchIndexes": "pages", "indexes": [document]}, reply)
    (record,) = captured.records
    assert (record.type, record.definition) == (graph, ASKED)
    assert definitions.change(graph, ASKED, graph, {"edges": ["a"], "depth": 1}) is Change.NOTHING
    assert definitions.differences(graph, ASKED, {"edges": ["b"]}) == ("edges: asked ['a'], live ['b']",)
    listed = readiness.parse(
        {"name": "g", "status": "READY", "queryable": True, "latestDefinition": ASKED}
        | ({} if word is None else {"type": word})
    )
    assert listed.type is graph
    target = TrackedIndex(collection="pages", name="g", type=graph, definition=ASKED)
    assert readiness.judge(target, listed).state is IndexState.READY


def test_every_kind_that_the_search_process_builds_has_its_row() -> None:
    assert set(definitions.SEARCH_KINDS) == {kind for kind in IndexType if kind.is_search}
