"""
Decide whether two search index definitions mean the same, and which change leads from one to the other. Pure.

A definition is converted to a canonical form, in which every option that we know is present, with its default if the
definition does not set it. So an option of the listing that the canonical form of the request does not contain is
unknown to us and was not asked for: a newer server added it, and it does not count. Three things are never taken for
such an option: the name of a field, anything inside a value that users structure themselves (custom analyzers,
synonyms, stored source), and every option in the tables below. There, more in the listing is a change.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any, Final

from mydocs.migrations.model import Definition, IndexType
from mydocs.migrations.values import value


class Change(StrEnum):
    """The action that gives a search index the requested definition."""

    CREATE = "create"  # the index does not exist
    NOTHING = "nothing"
    UPDATE = "update"  # the old definition answers until the new one is built
    REPLACE = "replace"  # drop and create: no server changes the type of an index

    @property
    def answers_meanwhile(self) -> bool:
        """Return whether queries on the index are answered while the change is built."""
        return self is not Change.REPLACE


class Options(dict[str, Any]):
    """A level of a definition. A key that only the listing has does not count."""


class Types(dict[str, Options]):
    """The settings of one field, by type: a field may be a string and an autocomplete field at the same time."""


_ABSENT: Final = object()

# The server's own default: mongot, SearchIndexDefinition.DEFAULT_FALLBACK_ANALYZER.
_ANALYZER = "lucene.standard"

_SEARCH: Final[Mapping[str, Any]] = {
    "analyzer": None,
    "searchAnalyzer": None,
    "analyzers": [],
    "mappings": {},
    "numPartitions": 1,
    "sort": None,
    "storedSource": False,
    "synonyms": [],
    "typeSets": [],
}
_VECTOR: Final[Mapping[str, Any]] = {"fields": [], "nestedRoot": None, "numPartitions": 1, "storedSource": False}

_BM25 = {"type": "bm25"}
_NUMBER = {"representation": "double", "indexIntegers": True, "indexDoubles": True}
_HNSW = {"maxEdges": 16, "numEdgeCandidates": 100}
# numDimensions, quantization and similarity of an embedding field are missing on purpose: their defaults come from the
# embedding model's entry in the server's catalogue. A wrong guess here would rebuild, and pay for, the whole index at
# every run.
_EMBEDDING = {"model": None, "modality": "text", "indexingMethod": "hnsw", "hnswOptions": None, "engine": "lucene"}

# The value that the server uses, and may list, for an option that a field's definition leaves out: the `withDefault`
# values of mongot's *FieldDefinition classes. None: there is no default, but we know the option.
_FIELD: Final[Mapping[str, Mapping[str, Any]]] = {
    "autocomplete": {
        "analyzer": _ANALYZER,
        "foldDiacritics": True,
        "maxGrams": 15,
        "minGrams": 2,
        "similarity": _BM25,
        "tokenization": "edgeGram",
    },
    "autoEmbed": _EMBEDDING,
    "document": {"dynamic": False, "fields": {}},
    "embeddedDocuments": {"dynamic": False, "fields": {}, "storedSource": False},
    "geo": {"indexShapes": False},
    "knnVector": {"dimensions": None, "similarity": None},
    "number": _NUMBER,
    "numberFacet": _NUMBER,
    "string": {
        "analyzer": None,
        "ignoreAbove": None,
        "indexOptions": "offsets",
        "multi": {},
        "norms": "include",
        "searchAnalyzer": None,
        "similarity": _BM25,
        "store": True,
    },
    "text": _EMBEDDING,  # the name of autoEmbed in its first preview version
    "token": {"normalizer": "none"},
    "vector": {
        "engine": "lucene",
        "hnswOptions": None,
        "indexingMethod": "hnsw",
        "numDimensions": None,
        "quantization": "none",
        "similarity": None,
    },
}
_EMBEDDING_TYPES = ("autoEmbed", "text")
_SORT = {"order": 1, "noData": "lowest"}  # for a field in `sort`: mongot, UserFieldSortOptions


@value
class SearchKind:
    """
    A kind of index that the search process builds.

    :param tells: tells whether a definition is of this kind
    :param canonical: converts a definition to the form in which two of them can be compared
    """

    tells: Callable[[Definition], bool]
    canonical: Callable[[Definition], "Options"]


def kind_of(word: object, definition: Definition) -> IndexType:
    """Return the type of an index from the server's word or, on self-managed servers, from the definition."""
    for kind in SEARCH_KINDS:
        if word == kind.value:
            return kind
    return next((kind for kind, row in SEARCH_KINDS.items() if row.tells(definition)), IndexType.SEARCH)


def normalise(index_type: IndexType, definition: Definition) -> Options:
    """Convert the definition of a search or vector index to the form in which two of them can be compared."""
    return SEARCH_KINDS[index_type].canonical(definition)


def _is_vector(definition: Definition) -> bool:
    return isinstance(definition.get("fields"), list | tuple) and "mappings" not in definition


def _vector(definition: Definition) -> Options:
    options = filled(_VECTOR, definition)
    options["fields"] = _vector_fields(options["fields"])
    options["storedSource"] = _stored_source(options["storedSource"])
    return options


def _search(definition: Definition) -> Options:
    options = filled(_SEARCH, definition)
    analyzer = options["analyzer"] or _ANALYZER
    inherited = (analyzer, options["searchAnalyzer"] or analyzer)
    options["analyzer"], options["searchAnalyzer"] = analyzer, _other_than(analyzer, inherited[1])
    options["analyzers"] = _by_name(options["analyzers"], _custom_analyzer)
    options["synonyms"] = _by_name(options["synonyms"], dict)
    # Atlas does not list a type set that no `dynamic` names. It has no effect (Terraform provider, search_index).
    named = set(_named_type_sets(options["mappings"]))
    options["typeSets"] = _by_name(options["typeSets"], lambda item: _type_set(item, inherited))
    if isinstance(options["typeSets"], dict):
        options["typeSets"] = {name: item for name, item in options["typeSets"].items() if name in named}
    options["storedSource"] = _stored_source(options["storedSource"])
    if isinstance(options["mappings"], dict):
        options["mappings"] = _field({**options["mappings"], "type": "document"}, inherited)
    if isinstance(options["sort"], dict):  # the only place where the order of keys has a meaning
        options["sort"] = [[key, _sort_field(value)] for key, value in options["sort"].items()]
    return options


def differences(index_type: IndexType, asked: Definition, listed: Definition) -> tuple[str, ...]:
    """Return one line for each key path that differs."""
    return tuple(compare(normalise(index_type, asked), normalise(index_type, listed)))


def change(asked_type: IndexType, asked: Definition, listed_type: IndexType, listed: Definition) -> Change:
    """
    Decide what gives the listed index the requested definition. The answer is never an update that changes nothing.

    Some servers refuse some updates (self-managed ones those of auto-embedding fields). This cannot be known here.
    """
    if asked_type is not listed_type:
        return Change.REPLACE
    return (
        Change.UPDATE if any(compare(normalise(asked_type, asked), normalise(listed_type, listed))) else Change.NOTHING
    )


def compare(asked: Any, listed: Any, path: str = "") -> Iterator[str]:
    """Yield the differences of two values in canonical form, one line for each key path."""
    if isinstance(asked, Types) and isinstance(listed, Types):
        yield from _compare_types(asked, listed, path)
    elif isinstance(asked, Options) and isinstance(listed, Options):
        for key, value in asked.items():
            yield from compare(_or_absent(value), _or_absent(listed.get(key)), _join(path, key))
    elif type(asked) is dict and type(listed) is dict:
        for key in asked | listed:
            yield from compare(asked.get(key, _ABSENT), listed.get(key, _ABSENT), _join(path, key))
    elif isinstance(asked, list) and isinstance(listed, list) and len(asked) == len(listed):
        if any(line for pair in zip(asked, listed, strict=True) for line in compare(*pair, "item")):
            yield _line(path, asked, listed)
    elif not _same(asked, listed):
        yield _line(path, asked, listed)


def filled(defaults: Mapping[str, Any], given: Mapping[str, Any]) -> Options:
    """Return the defaults overlaid with the given values. A null counts as not given."""
    return Options({**defaults, **{key: plain(value) for key, value in given.items() if value is not None}})


def plain(value: Any) -> Any:
    """Copy a value from or for a driver into plain dicts and lists."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


def _compare_types(asked: Types, listed: Types, path: str) -> Iterator[str]:
    if len(asked) == len(listed) == 1:
        ((asked_type, asked_options),), ((listed_type, listed_options),) = asked.items(), listed.items()
        if asked_type == listed_type:
            yield from compare(asked_options, listed_options, path)
        else:
            yield _line(_join(path, "type"), asked_type, listed_type)
        return
    for name in asked | listed:
        yield from compare(asked.get(name, _ABSENT), listed.get(name, _ABSENT), f"{path}[{name}]")


def _same(asked: Any, listed: Any) -> bool:
    # In Python True == 1, but no server lists one for the other. It does list 1 for 1.0.
    if isinstance(asked, bool) or isinstance(listed, bool):
        return asked is listed
    return bool(asked == listed)


def _or_absent(value: Any) -> Any:
    return _ABSENT if value is None else value


def _join(path: str, key: object) -> str:
    return f"{path}.{key}" if path else str(key)


def _line(path: str, asked: Any, listed: Any) -> str:
    return f"{path}: asked {_show(asked)}, live {_show(listed)}"


def _show(value: Any) -> str:
    if value is _ABSENT:
        return "nothing"
    return " and ".join(value) if isinstance(value, Types) else repr(value)


def _field(item: Mapping[str, Any], inherited: tuple[Any, Any]) -> Options:
    kind = item["type"]
    options = filled(_FIELD.get(kind, {}), item)
    if kind in ("document", "embeddedDocuments"):
        options["fields"] = _fields(options["fields"], inherited)
    if kind == "embeddedDocuments":
        options["storedSource"] = _stored_source(options["storedSource"])
    if kind == "string":
        # Compare the effective analyzer: the field's own search analyzer, its analyzer, the index's search analyzer.
        own = options["analyzer"]
        searches = options["searchAnalyzer"] or own or inherited[1]
        options["analyzer"] = own or inherited[0]
        options["searchAnalyzer"] = _other_than(options["analyzer"], searches)
        options["multi"] = _fields(options["multi"], inherited)
    if kind == "vector" or kind in _EMBEDDING_TYPES:
        given = options["hnswOptions"] or {}
        if options["indexingMethod"] == "flat":
            options["hnswOptions"] = None  # has no effect, and is never listed
        elif options["indexingMethod"] == "hnsw" and isinstance(given, dict):
            options["hnswOptions"] = filled(_HNSW, given)
    if kind in _EMBEDDING_TYPES:
        # mongot stores these two in lower case.
        options |= {key: options[key].lower() for key in ("model", "modality") if isinstance(options[key], str)}
    return options


def _other_than(analyzer: Any, search_analyzer: Any) -> Any:
    """Leave out a search analyzer that equals the analyzer, so that one change is one line."""
    return None if search_analyzer == analyzer else search_analyzer


def _fields(value: Any, inherited: tuple[Any, Any]) -> Any:
    return {name: _types(item, inherited) for name, item in value.items()} if isinstance(value, dict) else value


def _types(value: Any, inherited: tuple[Any, Any]) -> Any:
    items = value if isinstance(value, list) else [value]
    names = [item["type"] for item in items if isinstance(item, dict) and isinstance(item.get("type"), str)]
    if not items or len(set(names)) != len(items):
        return value  # not a field definition: compare it as it is
    return Types({item["type"]: _field(item, inherited) for item in items})


def _vector_fields(value: Any) -> Any:
    if not isinstance(value, list):
        return value
    grouped: dict[str, list[Any]] = {}
    for item in value:
        if not isinstance(item, dict) or not isinstance(item.get("path"), str):
            return value
        grouped.setdefault(item["path"], []).append(item)
    return {path: _types(items, (_ANALYZER, _ANALYZER)) for path, items in grouped.items()}


def _by_name(value: Any, convert: Callable[[Mapping[str, Any]], Any]) -> Any:
    names = [item["name"] for item in _items(value) if isinstance(item, dict) and isinstance(item.get("name"), str)]
    if not isinstance(value, list) or len(set(names)) != len(value):
        return value
    return {item["name"]: convert(item) for item in value}


def _items(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else ()


def _custom_analyzer(item: Mapping[str, Any]) -> Options:
    return filled({"charFilters": [], "tokenizer": None, "tokenFilters": []}, item)


def _type_set(item: Mapping[str, Any], inherited: tuple[Any, Any]) -> dict[str, Any]:
    return {**item, "types": _types(item.get("types"), inherited)}


def _named_type_sets(value: Any) -> Iterator[str]:
    """Yield the names of the type sets that a `dynamic` names, at any depth of the mappings."""
    if isinstance(value, dict):
        dynamic = value.get("dynamic")
        if isinstance(dynamic, dict) and isinstance(dynamic.get("typeSet"), str):
            yield dynamic["typeSet"]
        for item in value.values():
            yield from _named_type_sets(item)
    elif isinstance(value, list):
        for item in value:
            yield from _named_type_sets(item)


def _sort_field(value: Any) -> Any:
    """Return the short form of a field's sort, its order alone, if the long form adds nothing."""
    options = {**_SORT, **value} if isinstance(value, dict) else None
    return options["order"] if options is not None and options == {**_SORT, "order": options["order"]} else value


def _stored_source(value: Any) -> Any:
    """Remove what has no effect: "all except nothing" is all, and `_id` is stored with any field (mongot)."""
    if value == {"exclude": []}:
        return True
    if value == {"include": []}:
        return False
    if not isinstance(value, dict):
        return value
    return {key: _stored_paths(key, paths) if _all_text(paths) else paths for key, paths in value.items()}


def _stored_paths(key: str, paths: list[str]) -> list[str]:
    unique = set(paths)
    return sorted(unique - {"_id"} if key == "include" and len(unique) > 1 else unique)


def _all_text(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


SEARCH_KINDS: Final[dict[IndexType, SearchKind]] = {
    IndexType.SEARCH: SearchKind(tells=lambda definition: "mappings" in definition, canonical=_search),
    IndexType.VECTOR: SearchKind(tells=_is_vector, canonical=_vector),
}
"""One row for each kind of search index; every comparison reads this table."""
