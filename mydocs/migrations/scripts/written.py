"""Write a script that creates given indexes, in the style of a person. Pure: values in, text out."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import groupby
from typing import Any, TypeAlias

from mydocs.migrations.model import TrackedIndex
from mydocs.migrations.values import value

# Black's limit, which most projects have or exceed. Broken lines end in a comma, so that a formatter with a wider limit
# leaves them as they are.
WIDTH = 88
STEP = "    "
_OF_BSON = {"Binary", "Decimal128", "MaxKey", "MinKey", "ObjectId", "Regex", "Timestamp"}
_DIRECTIONS = {1: "ASCENDING", -1: "DESCENDING"}


@value
class _Group:
    """A bracketed expression: a call, list, tuple or dict. Each item comes with the text before it."""

    opening: str
    items: tuple[tuple[str, "_Node"], ...]
    closing: str


_Node: TypeAlias = str | _Group


def write_indexes(title: str, indexes: Iterable[TrackedIndex]) -> str:
    """
    Write a script with one ``ensure`` call for each collection and kind of index.

    :param title: the module's docstring
    :param indexes: each with its definition, as the ledger keeps it
    """
    used: set[str] = set()
    lines: list[str] = []
    for (collection, is_search), group in groupby(sorted(indexes, key=_order), key=lambda i: _order(i)[:2]):
        helper = "ensure_search_indexes" if is_search else "ensure_indexes"
        used.add(helper)
        models = [_search_model(index, used) if is_search else _model(index, used) for index in group]
        call = _call(f"await {helper}", [f"db[{_text(collection)}]", _list(models)], {})
        lines.append(STEP + _laid_out(call, STEP, WIDTH - len(STEP)))
    blocks = [
        ["from datetime import UTC, datetime"] * ("datetime" in used) + ["from typing import Any"],
        [
            *_import("bson", used & _OF_BSON),
            *_import("pymongo", used & {"ASCENDING", "DESCENDING", "IndexModel"}),
            *_import("pymongo.operations", used & {"SearchIndexModel"}),
        ],
        list(_import("mydocs.migrations", used & {"ensure_indexes", "ensure_search_indexes"})),
    ]
    head = "\n\n".join("\n".join(block) for block in blocks if block)
    docstring = title.replace("\\", "/").replace('"', "'")
    return f'"""{docstring}"""\n\n{head}\n\n\nasync def up(db: Any) -> None:\n' + "\n".join(lines) + "\n"


def _order(index: TrackedIndex) -> tuple[str, bool, str]:
    return index.collection, index.type.is_search, index.name


def _import(module: str, names: set[str]) -> list[str]:
    # In the order of an import sorter: constants before classes.
    ordered = sorted(names, key=lambda name: (not name.isupper(), name))
    return [f"from {module} import {', '.join(ordered)}"] if names else []


def _model(index: TrackedIndex, used: set[str]) -> _Node:
    definition = index.definition or {}
    keys = dict(definition.get("key") or {})
    options = dict(definition.get("options") or {})
    if "_fts" in keys:  # the server lists a text index with `_fts` in place of its fields
        weights = options.pop("weights", None) or {}
        keys = _with_texts(keys, weights)
        if any(weight != 1 for weight in weights.values()):
            options["weights"] = weights
    name = "_".join(f"{field}_{kind}" for field, kind in keys.items())
    used.add("IndexModel")
    pairs = [_tuple([_text(field), _direction(kind, used)]) for field, kind in keys.items()]
    given = {} if index.name == name else {"name": index.name}
    return _call(
        "IndexModel", [_list(pairs)], {key: _value(value, used) for key, value in {**given, **options}.items()}
    )


def _with_texts(keys: Mapping[str, Any], weights: Mapping[str, Any]) -> dict[str, Any]:
    asked: dict[str, Any] = {}
    for field, kind in keys.items():
        if field == "_fts":
            asked |= dict.fromkeys(weights, "text")
        elif field != "_ftsx":
            asked[field] = kind
    return asked


def _direction(kind: object, used: set[str]) -> _Node:
    word = _DIRECTIONS.get(kind) if isinstance(kind, int) and not isinstance(kind, bool) else None
    if word is None:
        return _value(kind, used)
    used.add(word)
    return word


def _search_model(index: TrackedIndex, used: set[str]) -> _Node:
    used.add("SearchIndexModel")
    options: dict[str, _Node] = {"name": _text(index.name)}
    if index.type.value != "search":
        options["type"] = _text(index.type.value)
    options["definition"] = _value(index.definition or {}, used)
    return _call("SearchIndexModel", [], options)


def _value(value: Any, used: set[str]) -> _Node:
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, Mapping):
        return _Group(
            opening="{",
            items=tuple((f"{_text(str(key))}: ", _value(item, used)) for key, item in value.items()),
            closing="}",
        )
    if isinstance(value, list | tuple):
        return _list([_value(item, used) for item in value])
    if isinstance(value, datetime):
        used.add("datetime")
        at = value.astimezone(UTC) if value.tzinfo else value
        parts = [at.year, at.month, at.day, at.hour, at.minute, at.second, at.microsecond]
        while len(parts) > 3 and not parts[-1]:
            parts.pop()
        return _call("datetime", [str(part) for part in parts], {"tzinfo": "UTC"})
    name = type(value).__name__
    if name in ("ObjectId", "Decimal128"):
        used.add(name)
        return f"{name}({_text(str(value))})"
    if name == "Regex":
        used.add(name)
        return _call(name, [_text(value.pattern), str(value.flags)], {})
    shown = repr(value)
    if type(value).__module__.startswith("bson.") and shown.startswith(f"{name}("):
        used.add(name)
    return shown


def _text(value: str) -> str:
    shown = repr(value)
    if shown.startswith("'") and '"' not in value:
        shown = '"' + shown[1:-1].replace("\\'", "'") + '"'
    return shown


def _list(items: Sequence[_Node]) -> _Node:
    return _Group(opening="[", items=tuple(("", item) for item in items), closing="]")


def _tuple(items: Sequence[_Node]) -> _Node:
    return _Group(opening="(", items=tuple(("", item) for item in items), closing=")")


def _call(function: str, arguments: Sequence[_Node], options: Mapping[str, _Node]) -> _Node:
    items = [*(("", item) for item in arguments), *((f"{name}=", item) for name, item in options.items())]
    return _Group(opening=f"{function}(", items=tuple(items), closing=")")


def _flat(node: _Node) -> str:
    if isinstance(node, str):
        return node
    return node.opening + ", ".join(before + _flat(item) for before, item in node.items) + node.closing


def _laid_out(node: _Node, indent: str, room: int) -> str:
    """
    Write a node on one line if it fits, else each of its items on a line of its own.

    :param room: characters that are left on its first line
    """
    flat = _flat(node)
    if isinstance(node, str) or len(flat) <= room or not node.items:
        return flat
    inner = indent + STEP
    lines = [
        f"{inner}{before}{_laid_out(item, inner, WIDTH - len(inner) - len(before) - 1)},\n"
        for before, item in node.items
    ]
    return f"{node.opening}\n{''.join(lines)}{indent}{node.closing}"
