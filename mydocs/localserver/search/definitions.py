"""Check, complete and compare definitions of search and vector indexes. Pure."""

from collections.abc import Callable, Mapping
from typing import Any

from mydocs.localserver.errors import CommandError
from mydocs.localserver.search.settings import Dialect

SEARCH = "search"
VECTOR = "vectorSearch"

SEARCH_KEYS = frozenset(
    {"mappings", "analyzer", "searchAnalyzer", "analyzers", "synonyms", "storedSource", "typeSets", "sort"}
    | {"numPartitions"}
)
VECTOR_KEYS = frozenset({"fields", "storedSource", "nestedRoot", "numPartitions"})
# Tuples, as what is looked for in them may be a value that no set takes.
SEARCH_TYPES = (
    "string", "token", "number", "date", "boolean", "objectId", "uuid", "autocomplete", "document",
    "embeddedDocuments", "geo", "dateFacet", "numberFacet", "stringFacet", "knnVector", "vector",
    "sortableDateBetaV1", "sortableNumberBetaV1", "sortableStringBetaV1",
)  # fmt: skip
VECTOR_TYPES = ("vector", "filter", "text", "autoEmbed")
EMBEDDING_TYPES = frozenset({"text", "autoEmbed"})  # the first name is that of the preview
SIMILARITIES = ("euclidean", "cosine", "dotProduct")
QUANTIZATIONS = ("none", "scalar", "binary")
MAX_DIMENSIONS = 8192  # numDimensions, in the documentation of vector search
# What cannot be updated in a field that embeds by itself: AutoEmbeddingIndexValidator.java
FIXED_IN_EMBEDDING = ("path", "model", "modality", "numDimensions", "quantization")

# The defaults that mongot writes into the fields of a definition.
FIELD_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "string": {"indexOptions": "offsets", "store": True, "norms": "include"},
    "number": {"representation": "double", "indexIntegers": True, "indexDoubles": True},
}
VECTOR_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "vector": {
        "quantization": "none",
        "indexingMethod": "hnsw",
        "hnswOptions": {"maxEdges": 16, "numEdgeCandidates": 100},
    },
    "autoEmbed": {"numDimensions": 1024, "quantization": "scalar"},
}


def check_definition(kind: str, definition: Any, *, dialect: Dialect) -> None:
    """
    Refuse what a server refuses at once.

    :raises CommandError: 2 on Atlas; 125 on a self-managed server, which parses the definition in another process
    """
    code = 125 if dialect is Dialect.SELF_MANAGED else 2

    def require(condition: object, message: str) -> None:
        if not condition:
            raise CommandError(code, message)

    require(isinstance(definition, Mapping), '"definition" must be a document')
    if kind == SEARCH:
        _check_search(definition, require, dialect)
    elif kind == VECTOR:
        _check_vector(definition, require)
    else:
        raise CommandError(code, f'"type" must be one of [search, vectorSearch], not "{kind}"')


def _check_search(definition: Mapping[str, Any], require: Callable[[object, str], None], dialect: Dialect) -> None:
    missing = '"mappings" is required' if dialect is Dialect.SELF_MANAGED else "Attribute mappings missing."
    require("mappings" in definition, missing)
    unknown = sorted(definition.keys() - SEARCH_KEYS)
    require(not unknown, f"unrecognized field {unknown[:1]}")
    _check_mappings("mappings", definition["mappings"], require)


def _check_mappings(path: str, mappings: Any, require: Callable[[object, str], None]) -> None:
    require(isinstance(mappings, Mapping), f'"{path}" must be a document')
    require(isinstance(mappings.get("dynamic", False), bool | Mapping), f'"{path}.dynamic" must be a boolean')
    fields = mappings.get("fields", {})
    require(isinstance(fields, Mapping), f'"{path}.fields" must be a document')
    for name, definitions in fields.items():
        where = f"{path}.fields.{name}"
        for one in definitions if isinstance(definitions, list) else [definitions]:
            require(isinstance(one, Mapping), f'"{where}" must be a document')
            kind = one.get("type")
            require(kind in SEARCH_TYPES, f'"{where}.type" must be one of {sorted(SEARCH_TYPES)}, not {kind!r}')
            if kind in {"document", "embeddedDocuments"}:
                _check_mappings(where, one, require)


def _check_vector(definition: Mapping[str, Any], require: Callable[[object, str], None]) -> None:
    fields = definition.get("fields")
    require("fields" in definition, '"fields" is required')
    require(isinstance(fields, list) and fields, '"fields" must be an array and cannot be empty')
    unknown = sorted(definition.keys() - VECTOR_KEYS)
    require(not unknown, f"unrecognized field {unknown[:1]}")
    kinds, paths = set(), set()
    for number, one in enumerate(fields or ()):
        where = f"fields[{number}]"
        require(isinstance(one, Mapping), f'"{where}" must be a document')
        kind, path = one.get("type"), one.get("path")
        require(kind in VECTOR_TYPES, f'"{where}.type" must be one of {sorted(VECTOR_TYPES)}, not {kind!r}')
        require(isinstance(path, str) and path, f'"{where}.path" is required')
        require(path not in paths, "Vector and filter fields should have distinct paths")
        kinds.add(kind)
        paths.add(path)
        if kind == "vector":
            _check_vector_field(where, one, require)
        if kind in EMBEDDING_TYPES:
            require(isinstance(one.get("model"), str), f'"{where}.model" is required')
    if "vector" in kinds and kinds & EMBEDDING_TYPES:
        raise CommandError(2, "vector and autoEmbed fields cannot be mixed in one index")


def _check_vector_field(where: str, field: Mapping[str, Any], require: Callable[[object, str], None]) -> None:
    dimensions, similarity = field.get("numDimensions"), field.get("similarity")
    # A driver in a language without integers sends a double.
    whole = isinstance(dimensions, int | float) and not isinstance(dimensions, bool) and dimensions == dimensions // 1
    require(
        whole and 1 <= (dimensions or 0) <= MAX_DIMENSIONS,
        f'"{where}.numDimensions" must be a whole number from 1 to {MAX_DIMENSIONS}',
    )
    require(
        similarity in SIMILARITIES, f'"{where}.similarity" must be one of {sorted(SIMILARITIES)}, not {similarity!r}'
    )
    quantization = field.get("quantization", "none")
    require(
        quantization in QUANTIZATIONS,
        f'"{where}.quantization" must be one of {sorted(QUANTIZATIONS)}, not {quantization!r}',
    )


def kind_of(definition: Mapping[str, Any]) -> str | None:
    """Say which type a definition can only be of, or ``None`` where its keys do not tell."""
    if "mappings" in definition:
        return SEARCH
    return VECTOR if "fields" in definition else None


def check_update(kind: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Refuse to change what embeds by itself; 125, as `AicUpdateSearchIndexCommand.java` answers."""
    if kind != VECTOR:
        return
    before, after = _embedding_fields(old), _embedding_fields(new)
    if bool(before) != bool(after):
        raise CommandError(
            125,
            "cannot convert between a vector index and an autoEmbed index, "
            "please delete the index and create a new one instead",
        )
    if before != after:
        raise CommandError(
            125,
            "cannot update type:autoEmbed fields: model, path, numDimensions, quantization and modality are fixed, "
            "please delete the index and create a new one instead",
        )


def _embedding_fields(definition: Mapping[str, Any]) -> dict[str, tuple[Any, ...]]:
    fields = with_defaults(VECTOR, definition)["fields"]
    return {
        one["path"]: tuple(one.get(key) for key in FIXED_IN_EMBEDDING)
        for one in fields
        if one["type"] in EMBEDDING_TYPES
    }


def with_defaults(kind: str, definition: Mapping[str, Any]) -> dict[str, Any]:
    """Write out the defaults that a server fills in."""
    if kind == VECTOR:
        fields = [{**VECTOR_DEFAULTS.get(one["type"], {}), **one} for one in definition["fields"]]
        return {**definition, "fields": fields}
    return {**definition, "mappings": _mappings_with_defaults(definition["mappings"])}


def _mappings_with_defaults(mappings: Mapping[str, Any]) -> dict[str, Any]:
    filled: dict[str, Any] = {"dynamic": False, **mappings}
    if "fields" in mappings:
        filled["fields"] = {
            name: [_field_with_defaults(one) for one in field]
            if isinstance(field, list)
            else _field_with_defaults(field)
            for name, field in mappings["fields"].items()
        }
    return filled


def _field_with_defaults(field: Mapping[str, Any]) -> dict[str, Any]:
    if field["type"] in {"document", "embeddedDocuments"}:
        return _mappings_with_defaults(field)
    return {**FIELD_DEFAULTS.get(field["type"], {}), **field}


def are_equivalent(kind: str, one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Compare as `IndexMapper.areEquivalent` does, which looks at some keys and leaves others out of account."""
    keys = {"fields", "numPartitions"} if kind == VECTOR else SEARCH_KEYS - {"sort"}
    return _compared(kind, one, keys) == _compared(kind, other, keys)


def _compared(kind: str, definition: Mapping[str, Any], keys: set[str] | frozenset[str]) -> dict[str, Any]:
    compared = {"numPartitions": 1, **{key: value for key, value in definition.items() if key in keys}}
    return with_defaults(kind, compared)
