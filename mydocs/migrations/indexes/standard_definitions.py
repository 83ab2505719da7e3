"""Decide what a standard index needs, from its document and the result of `listIndexes`. Pure: no I/O, no driver."""

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Any, Final

from mydocs.migrations.indexes.definitions import Options, compare, filled, plain
from mydocs.migrations.model import Definition
from mydocs.migrations.values import value

Keys = str | Mapping[str, Any] | Sequence[str | tuple[str, Any]]
"""The key of a standard index in any form that a driver accepts; a name alone means ascending."""


class StandardAction(StrEnum):
    """The action that gives a standard index the requested definition."""

    CREATE = "create"
    PRESENT = "present"  # perhaps under another name
    MODIFY = "modify"  # in place, with collMod
    CONFLICT = "conflict"  # an index is in the way, and is never dropped automatically


@value
class StandardChange:
    """
    The change that one standard index needs.

    :param name: of the index that exists, or that will be created
    :param coll_mod: the value of `index` in a `collMod`
    :param sentence: for a conflict: what happened, which index, and what to do
    """

    action: StandardAction
    name: str
    coll_mod: Mapping[str, Any] | None = None
    sentence: str | None = None


# Added by the server or without effect; and the name, which is not part of the definition.
_IGNORED = frozenset({"v", "ns", "name", "background", "dropDups", "textIndexVersion", "2dsphereIndexVersion"})
_NOT_KEPT = frozenset({"key", "name", "v", "ns", "background"})
_FLAGS = ("unique", "sparse", "hidden")
_DEFAULTS: Final[Mapping[str, Any]] = {
    "key": None,
    "unique": False,
    "sparse": False,
    "hidden": False,
    "expireAfterSeconds": None,
    "partialFilterExpression": None,
    "collation": None,
    "wildcardProjection": None,
    "weights": None,
}
_TEXT: Final[dict[str, Any]] = {
    "default_language": "english",
    "language_override": "language",
}  # db.collection.createIndex, text options
_2D: Final[dict[str, Any]] = {"bits": 26, "min": -180, "max": 180}  # db.collection.createIndex, 2d options
# What the server lists for a collation that was given by its locale alone; it also adds the `version` of its tables.
_COLLATION = {
    "locale": None,
    "caseLevel": False,
    "caseFirst": "off",
    "strength": 3,
    "numericOrdering": False,
    "alternate": "non-ignorable",
    "maxVariable": "punct",
    "normalization": False,
    "backwards": False,
}


def standard_definition(document: Definition) -> Definition:
    """Return the part of a requested index document that the ledger keeps: its key and its options."""
    return {
        "key": dict(_pairs(document["key"])),
        "options": {name: plain(value) for name, value in document.items() if name not in _NOT_KEPT},
    }


def index_document(name: str, definition: Definition) -> Definition:
    """Return the index document of a stored definition."""
    return {"name": name, "key": definition.get("key") or {}, **(definition.get("options") or {})}


def standard_name(keys: Keys) -> str:
    """Return the name that the drivers give an index without one."""
    return "_".join(f"{field}_{direction}" for field, direction in _pairs(keys))


def standard_document(document: Definition) -> Options:
    """Convert an index document, requested or listed, to a form in which two of them can be compared."""
    given = {key: value for key, value in document.items() if key not in _IGNORED}
    pairs = _pairs(document.get("key", {}))
    kinds = {kind for _, kind in pairs if isinstance(kind, str)}
    special = (_TEXT if "text" in kinds else {}) | (_2D if "2d" in kinds else {})
    options = filled({**_DEFAULTS, **special}, given)
    options |= {flag: bool(options[flag]) for flag in _FLAGS}
    if "text" in kinds:
        texts = [field for field, kind in pairs if kind == "text" and field != "_fts"]
        options["weights"] = {**dict.fromkeys(texts, 1), **(options["weights"] or {})}
        pairs = _as_listed(pairs)
    options["key"] = [list(pair) for pair in pairs]
    options["collation"] = _collation(options["collation"])
    if isinstance(options["wildcardProjection"], dict):
        options["wildcardProjection"] = {key: bool(value) for key, value in options["wildcardProjection"].items()}
    return options


def standard_equivalent(asked: Definition, listed: Definition) -> bool:
    """Return whether two index documents describe the same index, whatever their names."""
    return not standard_differences(asked, listed)


def standard_differences(asked: Definition, listed: Definition) -> tuple[str, ...]:
    """Return one line for each key path that differs."""
    return tuple(compare(standard_document(asked), standard_document(listed)))


def standard_change(asked: Definition, listed_all: Iterable[Definition]) -> StandardChange:
    """Decide what one requested index needs, given all that its collection has now."""
    listed_all = tuple(listed_all)
    wanted = standard_document(asked)
    name = str(asked.get("name") or standard_name(asked["key"]))
    # An index with this name comes first, since a change in place is meant for it.
    same_key = sorted(
        (listed for listed in listed_all if not any(compare(wanted["key"], standard_document(listed)["key"]))),
        key=lambda listed: listed.get("name") != name,
    )
    for listed in same_key:
        if standard_equivalent(asked, listed):
            return StandardChange(action=StandardAction.PRESENT, name=str(listed.get("name")))
    for listed in listed_all:
        if listed.get("name") == name and listed not in same_key:
            return _conflict(
                f"index {name} exists with the key {_text(standard_document(listed))} and {_text(wanted)} was asked "
                f"for; give the new index another name, or drop the old one first (mongosh: dropIndex({name!r}))",
                name,
            )
    if not same_key:
        return StandardChange(action=StandardAction.CREATE, name=name)
    present = same_key[0]
    existing = str(present.get("name"))
    in_place = _in_place(wanted, standard_document(present))
    if in_place:
        return StandardChange(action=StandardAction.MODIFY, name=existing, coll_mod={"name": existing, **in_place})
    others = "; ".join(compare(wanted, standard_document(present)))
    return _conflict(
        f"index {existing} on {_text(wanted)} exists with other options ({others}), which cannot be changed in place; "
        f"drop it first (mongosh: dropIndex({existing!r})), or ask for the options that it has",
        existing,
    )


def _conflict(sentence: str, name: str) -> StandardChange:
    return StandardChange(action=StandardAction.CONFLICT, name=name, sentence=sentence)


def _in_place(wanted: Options, present: Options) -> Mapping[str, Any]:
    """
    Return the options that make up for all of the differences, or none at all.

    An index is not made unique, although a server can: uniqueness is a promise about the data, which its owner makes.
    """
    changed = {line.partition(":")[0] for line in compare(wanted, present)}
    in_place: dict[str, Any] = {}
    # The server adds a time to live only to an index of one ordinary field, and never removes one.
    single = len(wanted["key"]) == 1 and not isinstance(wanted["key"][0][1], str)
    if "expireAfterSeconds" in changed and wanted["expireAfterSeconds"] is not None and single:
        in_place["expireAfterSeconds"] = wanted["expireAfterSeconds"]
    if "hidden" in changed:
        in_place["hidden"] = wanted["hidden"]
    return {} if changed - in_place.keys() else in_place


def _pairs(keys: Keys) -> list[tuple[str, Any]]:
    if isinstance(keys, str):
        return [(keys, 1)]
    items = keys.items() if isinstance(keys, Mapping) else keys
    pairs = [(item, 1) if isinstance(item, str) else item for item in items]
    return [(field, _number(kind)) for field, kind in pairs]


def _number(kind: Any) -> Any:
    """Return a whole number as an int. A shell sends 1.0 for 1, and names the index without the fraction."""
    return int(kind) if isinstance(kind, float) and kind.is_integer() else kind


def _as_listed(pairs: Sequence[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """Replace the text fields by the two keys that the server lists."""
    listed: list[tuple[str, Any]] = []
    for field, kind in pairs:
        if kind != "text":
            listed.append((field, kind))
        elif ("_fts", "text") not in listed:
            listed += [("_fts", "text")] if field == "_fts" else [("_fts", "text"), ("_ftsx", 1)]
    return listed


def _collation(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    # "simple" is the binary comparison of an index without a collation, for which the server lists none.
    if value.get("locale") == "simple":
        return None
    return filled(_COLLATION, {key: item for key, item in value.items() if key != "version"})


def _text(canonical: Options) -> str:
    return "{" + ", ".join(f"{field}: {kind}" for field, kind in canonical["key"]) + "}"
