"""Compare the copy's collections, indexes and aliases before and after a step. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import field
from typing import Any

from mydocs.migrations.indexes import definitions
from mydocs.migrations.indexes.definitions import Change
from mydocs.migrations.indexes.standard_definitions import standard_differences, standard_document
from mydocs.migrations.model import Definition, IndexType
from mydocs.migrations.reporting.plan_report import Effect, EffectKind
from mydocs.migrations.values import value
from mydocs.preview.record import Record


@value
class SearchIndex:
    """A search index. Its ``id`` changes if it is dropped and created."""

    id: str
    type: IndexType
    definition: Definition


@value
class CollectionState:
    """A collection: ``options`` as in `listCollections`, and indexes by name."""

    options: Mapping[str, Any] = field(default_factory=dict)
    standard: Mapping[str, Definition] = field(default_factory=dict)
    search: Mapping[str, SearchIndex] = field(default_factory=dict)


@value
class Catalogue:
    """The collections of a database by name, and for each alias its collection and its index."""

    collections: Mapping[str, CollectionState] = field(default_factory=dict)
    aliases: Mapping[str, tuple[str, str]] = field(default_factory=dict)


def catalogue_effects(before: Catalogue, after: Catalogue, record: Record) -> Iterator[Effect]:
    """Yield what has changed, the most important first: collections, indexes, aliases."""
    old = dict(before.collections)
    for source, target in record.renamed:
        if source in old and target not in before.collections:
            old[target] = old.pop(source)
            yield Effect(kind=EffectKind.RENAME_COLLECTION, collection=source, name=target)
    for name in sorted(old.keys() | after.collections.keys()):
        if name not in after.collections:
            yield _dropped(name, old[name])
            continue
        now = after.collections[name]
        was = old.get(name)
        if was is None:
            yield Effect(kind=EffectKind.CREATE_COLLECTION, collection=name, detail=_options(now.options))
            was = CollectionState(standard={key: value for key, value in now.standard.items() if key == "_id_"})
        yield from _standard(name, was, now, record)
        yield from _search(name, was, now)
    for alias in sorted(before.aliases.keys() | after.aliases.keys()):
        if before.aliases.get(alias) != after.aliases.get(alias):
            yield _alias(alias, before.aliases.get(alias), after.aliases.get(alias))


def _dropped(name: str, state: CollectionState) -> Effect:
    indexes = sorted({*state.standard, *state.search} - {"_id_"})
    detail = f"with its indexes {', '.join(indexes)}" if indexes else None
    return Effect(kind=EffectKind.DROP_COLLECTION, collection=name, detail=detail, answers_meanwhile=False)


def _standard(collection: str, was: CollectionState, now: CollectionState, record: Record) -> Iterator[Effect]:
    for name in sorted(was.standard.keys() | now.standard.keys()):
        old, new = was.standard.get(name), now.standard.get(name)
        kind: EffectKind | None = None
        detail = None if new is None else _keys(new)
        if new is None:
            kind, detail = EffectKind.DROP_INDEX, None if old is None else _keys(old)
        elif old is None:
            kind = EffectKind.CREATE_INDEX
        else:
            lines = standard_differences(new, old)
            again = (collection, name) in record.dropped_indexes or (collection, "*") in record.dropped_indexes
            if again or _is_another_key(new, old):
                kind = EffectKind.REPLACE_INDEX
            elif lines:
                kind = EffectKind.UPDATE_INDEX
            detail = "; ".join(lines) or detail
        if kind is not None and name != "_id_":
            answers = kind not in (EffectKind.DROP_INDEX, EffectKind.REPLACE_INDEX)
            yield Effect(
                kind=kind,
                collection=collection,
                name=name,
                type=IndexType.STANDARD,
                detail=detail,
                answers_meanwhile=answers,
            )


_KINDS = {
    Change.CREATE: EffectKind.CREATE_INDEX,
    Change.UPDATE: EffectKind.UPDATE_INDEX,
    Change.REPLACE: EffectKind.REPLACE_INDEX,
}


def _search(collection: str, was: CollectionState, now: CollectionState) -> Iterator[Effect]:
    for name in sorted(was.search.keys() | now.search.keys()):
        old, new = was.search.get(name), now.search.get(name)
        if new is None:
            assert old is not None  # the key is in one of the two
            yield Effect(
                kind=EffectKind.DROP_INDEX, collection=collection, name=name, type=old.type, answers_meanwhile=False
            )
            continue
        change, detail = Change.CREATE, None
        if old is not None:
            change = definitions.change(new.type, new.definition, old.type, old.definition)
            if old.id != new.id:
                change = Change.REPLACE
            if old.type is new.type:
                detail = "; ".join(definitions.differences(new.type, new.definition, old.definition)) or None
        if change is not Change.NOTHING:
            yield Effect(
                kind=_KINDS[change],
                collection=collection,
                name=name,
                type=new.type,
                detail=detail,
                answers_meanwhile=change.answers_meanwhile,
            )


def _alias(alias: str, old: tuple[str, str] | None, new: tuple[str, str] | None) -> Effect:
    collection, index = new or old or ("", "")
    detail = f"names {index}" if new else "is removed"
    if old and new:
        detail = f"names {index} instead of {old[1]}"
    return Effect(kind=EffectKind.ALIAS, collection=collection, name=alias, detail=detail)


def _options(options: Mapping[str, Any]) -> str | None:
    return f"with {', '.join(sorted(options))}" if options else None


def _keys(document: Definition) -> str:
    return "{" + ", ".join(f"{field}: {kind}" for field, kind in standard_document(document)["key"]) + "}"


def _is_another_key(new: Definition, old: Definition) -> bool:
    return bool(standard_document(new)["key"] != standard_document(old)["key"])
