"""Compare live and requested indexes: those that no migration asked for, and the differences. Pure."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mydocs.migrations.indexes import definitions, readiness
from mydocs.migrations.indexes.standard_definitions import (
    StandardAction,
    index_document,
    standard_change,
    standard_definition,
    standard_differences,
    standard_equivalent,
)
from mydocs.migrations.model import Definition, IndexType, TrackedIndex
from mydocs.migrations.values import value

LARGEST_TIDIED = 200  # keys; each is tried with a comparison of the whole definition


@value
class LiveIndexes:
    """The indexes of a collection: index documents as listed, and search indexes."""

    standard: tuple[Definition, ...]
    search: tuple[readiness.Listed, ...] = ()


@value
class Compared:
    """
    The result of a comparison.

    :param unaccounted: live indexes that no migration asked for, with the definition to ask for
    :param differences: a line for each index or key that differs
    """

    unaccounted: tuple[TrackedIndex, ...]
    differences: tuple[str, ...]


def compare_live(
    live: Mapping[str, LiveIndexes], asked: Sequence[TrackedIndex], documents_of: Mapping[str, Sequence[Definition]]
) -> Compared:
    """
    Compare the live indexes of some collections with the requested ones.

    :param asked: by migrations
    :param documents_of: collection → the index documents of the project's own list
    """
    unaccounted: list[TrackedIndex] = []
    lines: list[str] = []
    for collection, has in live.items():
        known = {"_id_"}
        documents = list(documents_of.get(collection, ()))
        of = [index for index in asked if index.collection == collection]
        documents += [
            index_document(index.name, index.definition)
            for index in of
            if not index.type.is_search and index.definition
        ]
        known |= {index.name for index in of if not index.type.is_search and not index.definition}
        for document in documents:
            change = standard_change(document, has.standard)
            where = f"{collection}.{change.name}"
            known.add(change.name)
            if change.action is StandardAction.CREATE:
                lines.append(f"{where}: asked for, and not live")
            elif change.action is not StandardAction.PRESENT:
                listed = next(listed for listed in has.standard if listed.get("name") == change.name)
                lines += [f"{where}: {line}" for line in standard_differences(document, listed)]
        unaccounted += [
            _standard(collection, document)
            for document in has.standard
            if document.get("name") not in known and not document.get("clustered")
        ]
        searched = {index.name: index for index in of if index.type.is_search}
        listed_names = set()
        for item in has.search:
            if item.name is None:  # no present server sends such a document
                continue
            listed_names.add(item.name)
            index = searched.get(item.name)
            if index is None:
                unaccounted += [_search(collection, item.name, item)] if item.definition else []
            elif index.definition is not None and item.definition is not None:
                where = f"{collection}.{item.name}"
                lines += [
                    f"{where}: {line}"
                    for line in definitions.differences(index.type, index.definition, item.definition)
                ]
        lines += [f"{collection}.{name}: asked for, and not live" for name in searched if name not in listed_names]
    lines += [f"{index}: live, and no migration asked for it" for index in unaccounted]
    return Compared(unaccounted=tuple(unaccounted), differences=tuple(sorted(lines)))


def _standard(collection: str, document: Definition) -> TrackedIndex:
    kept = {name: value for name, value in document.items() if name not in ("key", "name")}
    options = without_defaults(kept, lambda some: standard_equivalent({"key": document["key"], **some}, document))
    definition = standard_definition({"key": document["key"], **options})
    return TrackedIndex(
        collection=collection, name=str(document.get("name")), type=IndexType.STANDARD, definition=definition
    )


def _search(collection: str, name: str, listed: readiness.Listed) -> TrackedIndex:
    whole: Definition = listed.definition or {}
    kind = listed.type or definitions.kind_of(None, whole)

    def is_same(some: Definition) -> bool:
        return not definitions.differences(kind, some, whole) and not definitions.differences(kind, whole, some)

    definition = without_defaults(whole, is_same)
    return TrackedIndex(collection=collection, name=name, type=kind, definition=definition)


def without_defaults(definition: Definition, is_same: Callable[[Definition], bool]) -> Definition:
    """
    Remove the options that a server has added, as far as this does not change the meaning.

    :param is_same: tells whether a form of the definition means the same as the whole
    """
    if _size(definition) > LARGEST_TIDIED:
        return definition
    tidied: Definition = _tidied(definition, is_same)
    return tidied


def _size(value: Any) -> int:
    if isinstance(value, Mapping):
        return sum(1 + _size(item) for item in value.values())
    return sum(map(_size, value)) if isinstance(value, list | tuple) else 0


def _tidied(value: Any, fits: Callable[[Any], bool]) -> Any:
    """
    Remove such options from one value.

    :param fits: tells whether a form of this value can replace it
    """
    if isinstance(value, Mapping):
        kept = dict(value)
        for key in value:
            rest = {name: item for name, item in kept.items() if name != key}
            if key != "dynamic" and fits(rest):  # a default that people write explicitly
                kept = rest
            else:
                kept[key] = _tidied(kept[key], lambda item, key=key, rest=dict(kept): fits({**rest, key: item}))  # type: ignore[misc]  # mypy ignores a lambda's defaults
        return kept
    if isinstance(value, list):
        items = list(value)
        for place, item in enumerate(value):
            before, after = items[:place], items[place + 1 :]
            items[place] = _tidied(item, lambda new, before=before, after=after: fits([*before, new, *after]))  # type: ignore[misc]  # as above
        return items
    return value
