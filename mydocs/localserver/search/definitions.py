"""Check, complete and compare definitions of search and vector indexes, as mongot d38b926 does. Pure."""

from collections.abc import Iterator, Mapping
from typing import Any

from mydocs.localserver.errors import CommandError
from mydocs.localserver.search.analyzers import ANALYZERS, STOCK
from mydocs.localserver.search.forms import (
    Form,
    Malformed,
    document,
    field_path,
    flag,
    listing,
    mapping,
    one_of,
    refuse,
    repeated,
    text,
    typed,
    whole,
)
from mydocs.localserver.search.settings import Dialect

SEARCH = "search"
VECTOR = "vectorSearch"
EMBEDDING_TYPES = frozenset({"text", "autoEmbed"})  # the first name is from the preview version
PARTITIONS = (1, 2, 4, 8, 16, 32, 64)  # UserIndexDefinition.java
MAX_DIMENSIONS = 8192  # numDimensions, in the documentation of vector search

# The defaults that mongot adds to the fields of a definition.
FIELD_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "string": {"indexOptions": "offsets", "store": True, "norms": "include"},
    "number": {"representation": "double", "indexIntegers": True, "indexDoubles": True},
}
HNSW_DEFAULTS = {"maxEdges": 16, "numEdgeCandidates": 100}
VECTOR_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "vector": {"quantization": "none", "indexingMethod": "hnsw"},
    "autoEmbed": {"numDimensions": 1024, "quantization": "scalar"},
}

# -- fields of a search index (FieldTypeDefinition.java and its classes)

SIMILARITY = document({"type": one_of("bm25", "stableTfl", "boolean")})
STRING_OPTIONS: Mapping[str, Form] = {
    "analyzer": text(),
    "searchAnalyzer": text(),
    "similarity": SIMILARITY,
    "ignoreAbove": whole(1),
    "indexOptions": one_of("docs", "freqs", "positions", "offsets"),
    "store": flag,
    "norms": one_of("include", "omit"),
}


def _grams(path: str, value: Mapping[str, Any]) -> None:
    if (value.get("minGrams") or 2) > (value.get("maxGrams") or 15):  # the defaults of both
        refuse(f"{path}.minGrams", "cannot be greater than maxGrams")


def _numbers(path: str, value: Mapping[str, Any]) -> None:
    if value.get("indexDoubles") is False and value.get("indexIntegers") is False:
        refuse(path, "is not indexed: indexDoubles and indexIntegers may not both be false")


def _multi(path: str, value: Any) -> None:
    mapping(typed({"string": document({}, STRING_OPTIONS)}))(path, value)
    if any("." in name for name in value):
        refuse(path, 'is not a name of "multi": it cannot contain "."')


def _algorithm(path: str, value: Mapping[str, Any]) -> None:
    if value.get("indexingMethod") == "flat" and value.get("hnswOptions") is not None:
        refuse(f"{path}.hnswOptions", 'is only supported with "indexingMethod: hnsw"')
    dimensions = value.get("numDimensions") or 8
    if value.get("quantization") in ("binary", "binaryNoRescore") and dimensions % 8:
        refuse(f"{path}.numDimensions", f"{dimensions} must be a multiple of 8 for binary quantization")


DIMENSIONS = whole(1, MAX_DIMENSIONS)
VECTOR_SIMILARITY = one_of("euclidean", "cosine", "dotProduct")
ALGORITHM: Mapping[str, Form] = {
    "indexingMethod": one_of("hnsw", "flat"),
    "hnswOptions": document({}, {"maxEdges": whole(16, 64), "numEdgeCandidates": whole(100, 3200)}),
    "engine": one_of("lucene", "custom"),
}
VECTOR_FIELD: Mapping[str, Form] = {"numDimensions": DIMENSIONS, "similarity": VECTOR_SIMILARITY}
VECTOR_OPTIONS: Mapping[str, Form] = {"quantization": one_of("none", "scalar", "binary"), **ALGORITHM}


def _modality(path: str, value: Any) -> None:
    if not isinstance(value, str) or value.lower() != "text":
        refuse(path, "must be 'text'")


EMBEDDING: Mapping[str, Form] = {"model": text(), "modality": _modality}
NUMBER = document(
    {},
    {"representation": one_of("int64", "double"), "indexDoubles": flag, "indexIntegers": flag},
    also=_numbers,
)
NOTHING = document({})
AUTOCOMPLETE = document(
    {},
    {
        "minGrams": whole(1),
        "maxGrams": whole(1),
        "foldDiacritics": flag,
        "tokenization": one_of("edgeGram", "nGram", "rightEdgeGram"),
        "analyzer": text(),
        "similarity": SIMILARITY,
    },
    also=_grams,
)


def _stored_source(path: str, value: Any) -> None:
    if isinstance(value, bool):
        return
    if not isinstance(value, Mapping):
        refuse(path, "must be a boolean or a document")
    paths = listing(text(), filled=True)
    document({}, {"include": paths, "exclude": paths})(path, value)
    given = [value[name] for name in ("include", "exclude") if value.get(name) is not None]
    if len(given) != 1:
        refuse(path, "must have exactly one of [include, exclude]")
    for one in given[0]:
        if any(other.startswith(f"{one}.") for other in given[0]):
            refuse(path, "has a path collision, which is not allowed")


def _dynamic(path: str, value: Any) -> None:
    if not isinstance(value, bool):
        if not isinstance(value, Mapping):
            refuse(path, "must be a boolean or a document")
        document({"typeSet": text()})(path, value)


def _field(path: str, value: Any) -> None:
    """Check a field's definition, or several of different types."""
    if value is None:
        refuse(path, "cannot be null")
    definitions = value if isinstance(value, list) else [value]
    for one in definitions:
        FIELD_TYPE(path, one)
    types = [one["type"] for one in definitions]
    twice = repeated(types)
    if twice is not None:
        refuse(path, f'contained multiple "{twice}" type definitions')
    for alternatives in ALTERNATIVES:
        if len(alternatives.intersection(types)) > 1:
            refuse(path, f"can only define one of {sorted(alternatives)}")


SORTABLE = frozenset({"sortableDateBetaV1", "sortableNumberBetaV1", "sortableStringBetaV1"})
ALTERNATIVES = (
    SORTABLE,
    frozenset({"knnVector", "vector", "autoEmbedVector"}),
    frozenset({"sortableStringBetaV1", "token"}),
)
NOT_EMBEDDED = SORTABLE | {"knnVector"}  # EmbeddedDocumentsFieldDefinition.ILLEGAL_SUBFIELD_TYPES


def _no_illegal_types(path: str, value: Mapping[str, Any]) -> None:
    for name, definitions in (value.get("fields") or {}).items():
        for one in definitions if isinstance(definitions, list) else [definitions]:
            if one["type"] in NOT_EMBEDDED:
                refuse(f"{path}.fields.{name}", f"cannot have the type {one['type']} within embeddedDocuments")
            if one["type"] == "document":
                _no_illegal_types(f"{path}.fields.{name}", one)


HIERARCHY: Mapping[str, Form] = {"dynamic": _dynamic, "fields": mapping(_field)}
TYPES: dict[str, Form] = {
    **dict.fromkeys(("boolean", "date", "dateFacet", "objectId", "stringFacet", "uuid", *sorted(SORTABLE)), NOTHING),
    "autocomplete": AUTOCOMPLETE,
    "autoEmbedVector": document({**EMBEDDING, "sourceField": field_path}),
    "document": document({}, HIERARCHY),
    "embeddedDocuments": document({}, {**HIERARCHY, "storedSource": _stored_source}, also=_no_illegal_types),
    "geo": document({}, {"indexShapes": flag}),
    "knnVector": document({"dimensions": DIMENSIONS, "similarity": VECTOR_SIMILARITY}),
    "number": NUMBER,
    "numberFacet": NUMBER,
    "string": document({}, {**STRING_OPTIONS, "multi": _multi}),
    "token": document({}, {"normalizer": one_of("none", "lowercase")}),
    "vector": document(VECTOR_FIELD, VECTOR_OPTIONS, also=_algorithm),
}
FIELD_TYPE = typed(TYPES)
# The types that TypeSetDefinition.getInvalidFieldTypes leaves.
IN_TYPE_SETS = ("autocomplete", "boolean", "date", "geo", "number", "objectId", "string", "token", "uuid")
TYPE_SET = document(
    {
        "name": text(),
        "types": listing(typed({name: TYPES[name] for name in IN_TYPE_SETS}), filled=True, unique="type"),
    }
)
SYNONYMS = listing(
    document({"name": text(), "source": document({"collection": text()}), "analyzer": text()}), unique="name"
)


def _sort(path: str, value: Any) -> None:
    if not isinstance(value, Mapping) or not value:
        refuse(path, "must be a document and cannot be empty")
    for name, order in value.items():
        where = f"{path}.{name}"
        if isinstance(order, Mapping):
            if "$meta" in order:
                refuse(where, "cannot sort on score")
            document({"order": one_of(1, -1)}, {"noData": one_of("lowest", "highest")})(where, order)
        else:
            one_of(1, -1)(where, order)


SEARCH_INDEX = document(
    {"mappings": document({}, HIERARCHY)},
    {
        "analyzer": text(),
        "searchAnalyzer": text(),
        "analyzers": ANALYZERS,
        "storedSource": _stored_source,
        "typeSets": listing(TYPE_SET, filled=True, unique="name"),
        "sort": _sort,
        "synonyms": SYNONYMS,
        "numPartitions": one_of(*PARTITIONS),
    },
)

# -- fields of a vector index (VectorIndexFieldDefinition.java)

PATH: Mapping[str, Form] = {"path": field_path}


def _vector_field(path: str, value: Any) -> None:
    VECTOR_FIELD_TYPE(path, value)


VECTOR_FIELD_TYPE = typed(
    {
        "vector": document({**PATH, **VECTOR_FIELD}, VECTOR_OPTIONS, also=_algorithm),
        "filter": document(PATH),
        "text": document(
            PATH,
            {"model": text(), "similarity": VECTOR_SIMILARITY, "quantization": one_of("none", "scalar", "binary")},
        ),
        "autoEmbed": document(
            {**PATH, **EMBEDDING},
            {
                "numDimensions": DIMENSIONS,
                "similarity": VECTOR_SIMILARITY,
                "quantization": one_of("none", "float", "scalar", "binary", "binaryNoRescore"),
                **ALGORITHM,
            },
            also=_algorithm,
        ),
        "embeddedDocuments": document(PATH, {"fields": mapping(_vector_field)}),
    }
)


def _vector_source(path: str, value: Any) -> None:
    _stored_source(path, value)
    if value is True:
        refuse(path, "true is not allowed for vector indexes")


VECTOR_INDEX = document(
    {"fields": listing(VECTOR_FIELD_TYPE, filled=True)},
    {"storedSource": _vector_source, "nestedRoot": field_path, "numPartitions": one_of(*PARTITIONS)},
)


def check_definition(kind: str, definition: Any, *, dialect: Dialect) -> None:
    """
    Refuse a definition that a server refuses at once.

    :raises CommandError: 2 on Atlas; 125 on a self-managed server, which parses the definition in another process
    """
    code = 125 if dialect is Dialect.SELF_MANAGED else 2
    if kind not in (SEARCH, VECTOR):
        raise CommandError(code, f'"type" must be one of [search, vectorSearch], not "{kind}"')
    if not isinstance(definition, Mapping):
        raise CommandError(code, '"definition" must be a document')
    if kind == SEARCH and "mappings" not in definition and dialect is not Dialect.SELF_MANAGED:
        raise CommandError(code, "Attribute mappings missing.")
    try:
        if kind == SEARCH:
            SEARCH_INDEX("", definition)
            _check_references(definition)
            _check_sort(definition)
        else:
            VECTOR_INDEX("", definition)
            _check_paths(definition["fields"])
    except Malformed as error:
        raise CommandError(code, str(error)) from error
    if kind == VECTOR:
        _check_embedding(definition["fields"])


def _check_references(definition: Mapping[str, Any]) -> None:
    """Refuse names of analyzers and type sets that the definition does not contain."""
    custom = {one["name"] for one in definition.get("analyzers") or ()}
    holders = [
        definition,
        *_fields(definition["mappings"]),
        *(one for types in definition.get("typeSets") or () for one in types["types"]),
        *(definition.get("synonyms") or ()),
    ]
    named = {holder.get(name) for holder in holders for name in ("analyzer", "searchAnalyzer")} - {None}
    if unknown := sorted(named - STOCK - custom):
        refuse("analyzer", f"references undefined analyzers: {', '.join(unknown)}")
    sets = {one["name"] for one in definition.get("typeSets") or ()}
    dynamic = [holder.get("dynamic") for holder in (definition["mappings"], *_fields(definition["mappings"]))]
    asked = {one["typeSet"] for one in dynamic if isinstance(one, Mapping)}
    if unknown := sorted(asked - sets):
        refuse("typeSets", f"does not define {', '.join(unknown)}")


def _fields(mappings: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the definitions of all fields, at every depth."""
    for definitions in (mappings.get("fields") or {}).values():
        for one in definitions if isinstance(definitions, list) else [definitions]:
            yield one
            yield from _fields(one)
            yield from (one.get("multi") or {}).values()


# FieldDefinition.INDEXING_SORTABLE_TYPES
CAN_BE_SORTED = frozenset({"boolean", "date", "number", "objectId", "token", "uuid"})


def _check_sort(definition: Mapping[str, Any]) -> None:
    for path in definition.get("sort") or ():
        found: Any = definition["mappings"]
        for part in path.split("."):
            documents = found if isinstance(found, list) else [found]
            holder: Mapping[str, Any] = next(
                (one for one in documents if one.get("type", "document") == "document"), {}
            )
            found = (holder.get("fields") or {}).get(part)
            if found is None:
                refuse(f"sort.{path}", "is not statically defined")
        types = [one["type"] for one in (found if isinstance(found, list) else [found])]
        if len(types) != 1 or types[0] not in CAN_BE_SORTED:
            refuse(f"sort.{path}", f"must be of one type of {sorted(CAN_BE_SORTED)}, not {types}")


def _check_paths(fields: list[Mapping[str, Any]]) -> None:
    if repeated(field["path"] for field in fields) is not None:
        refuse("fields", "must be different: Vector and filter fields should have distinct paths")


def _check_embedding(fields: list[Mapping[str, Any]]) -> None:
    """Refuse as AutoEmbeddingIndexValidator.java does: with code 2, where all other checks have 125."""
    kinds = {field["type"] for field in fields}
    if "vector" in kinds and kinds & EMBEDDING_TYPES:
        raise CommandError(2, "vector and autoEmbed fields cannot be mixed in one index")
    models = {str(field.get("model", "")).lower() for field in fields if field["type"] in EMBEDDING_TYPES} - {""}
    if len(models) > 1:
        raise CommandError(2, f"Index can only use one embedding model. Found multiple models: {', '.join(models)}")


def kind_of(definition: Mapping[str, Any]) -> str | None:
    """Return the only possible type of a definition, or ``None`` if its keys do not tell."""
    if "mappings" in definition:
        return SEARCH
    return VECTOR if "fields" in definition else None


def check_update(kind: str, old: Mapping[str, Any], new: Mapping[str, Any], *, dialect: Dialect) -> None:
    """
    Refuse to change auto-embedding fields, as mongot does. Atlas embeds again while the old definition serves.

    :raises CommandError: 125, as `AicUpdateSearchIndexCommand.java` answers
    """
    if kind != VECTOR or dialect is Dialect.ATLAS:
        return
    before, after = _embedding_fields(old), _embedding_fields(new)
    if before and not after:
        raise CommandError(
            125,
            "cannot convert an autoEmbed index to a vector index, please delete the index and create a new one instead",
        )
    # The order counts too, since the lists are compared.
    if before and before != after:
        raise CommandError(
            125,
            "cannot update type:autoEmbed fields, please delete the index and create a new one instead",
        )


def _embedding_fields(definition: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    fields = with_defaults(VECTOR, definition)["fields"]
    return [one for one in fields if one["type"] in EMBEDDING_TYPES]


def with_defaults(kind: str, definition: Mapping[str, Any]) -> dict[str, Any]:
    """Return a definition with the defaults that a server adds."""
    if kind == VECTOR:
        return {**definition, "fields": [_vector_with_defaults(one) for one in definition["fields"]]}
    return {**definition, "mappings": _mappings_with_defaults(definition["mappings"])}


def _vector_with_defaults(field: Mapping[str, Any]) -> dict[str, Any]:
    filled = {**VECTOR_DEFAULTS.get(field["type"], {}), **field}
    if filled.get("indexingMethod") == "hnsw":
        filled["hnswOptions"] = {**HNSW_DEFAULTS, **(field.get("hnswOptions") or {})}
    return filled


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


SEARCH_COMPARED = frozenset(
    {"mappings", "analyzer", "searchAnalyzer", "analyzers", "synonyms", "storedSource", "typeSets", "numPartitions"}
)


def are_equivalent(kind: str, one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Compare as `IndexMapper.areEquivalent` does, which ignores some keys."""
    keys = {"fields", "numPartitions"} if kind == VECTOR else SEARCH_COMPARED
    return _compared(kind, one, keys) == _compared(kind, other, keys)


def _compared(kind: str, definition: Mapping[str, Any], keys: set[str] | frozenset[str]) -> dict[str, Any]:
    compared = {"numPartitions": 1, **{key: value for key, value in definition.items() if key in keys}}
    return with_defaults(kind, compared)
