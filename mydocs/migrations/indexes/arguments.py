"""Read and check the arguments of the index helpers. A message says what to pass instead. Pure."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from pymongo.operations import SearchIndexModel

from mydocs.migrations.errors import IndexConflict, UsageError
from mydocs.migrations.indexes import definitions
from mydocs.migrations.model import Definition, IndexType
from mydocs.migrations.values import value

NO_INDEXES = "a transaction builds and drops no indexes; do it in a migration of its own"

SearchModel: TypeAlias = SearchIndexModel | Mapping[str, Any]
"""A search index: PyMongo's model, or a mapping of ``definition``, ``name`` and ``type``."""

_MODEL_KEYS = ("definition", "name", "type")
WHAT_TO_PASS = (
    "pass a list of SearchIndexModel, or of mappings such as {'name': 'ft', 'type': 'search', 'definition': {…}}"
)


@value
class AskedIndex:
    name: str
    type: IndexType
    definition: Definition
    replacing: bool = False  # an index of that name was dropped for it

    @classmethod
    def of(cls, model: object) -> "AskedIndex":
        """
        Read a model of a search index.

        :raises UsageError: if it is not one
        """
        document = model.document if isinstance(model, SearchIndexModel) else model
        if not isinstance(document, Mapping):
            raise UsageError(f"a {type(model).__name__} is not a search index; {WHAT_TO_PASS}")
        unknown = sorted(str(key) for key in document if key not in _MODEL_KEYS)
        definition, name, kind = (document.get(key) for key in _MODEL_KEYS)
        if not isinstance(model, SearchIndexModel) and unknown:
            raise UsageError(f"a search index has no {', '.join(unknown)}; {WHAT_TO_PASS}")
        if not isinstance(definition, Mapping):
            raise UsageError(f"the definition of a search index is a mapping, not {definition!r}; {WHAT_TO_PASS}")
        if not isinstance(name, str | None) or kind not in (None, *definitions.SEARCH_KINDS):
            kinds = " or ".join(definitions.SEARCH_KINDS)
            raise UsageError(f"the name of a search index is a text, its type {kinds}; {WHAT_TO_PASS}")
        return cls(
            name=name or "default",
            type=IndexType(kind) if kind else definitions.kind_of(None, definition),
            definition=definition,
        )

    @property
    def document(self) -> dict[str, Any]:
        return {"name": self.name, "type": self.type.value, "definition": self.definition}


def asked_indexes(models: object) -> list[AskedIndex]:
    if isinstance(models, SearchIndexModel | Mapping):
        raise UsageError(f"one {type(models).__name__} is not a list of search indexes; {WHAT_TO_PASS}")
    if isinstance(models, str | bytes) or not isinstance(models, Iterable):
        raise UsageError(f"a {type(models).__name__} is not a list of search indexes; {WHAT_TO_PASS}")
    return [AskedIndex.of(model) for model in models]


def by_collection(collection: Any, models: Any, what_to_pass: str) -> Sequence[tuple[Any, Any]]:
    """
    Return the arguments of a helper as pairs of a collection and its models.

    :raises UsageError: if they have neither of the two forms
    """
    if not isinstance(collection, Mapping):
        return [(collection, models)]
    if models is not None:
        raise UsageError(f"a mapping of collections has the models in it, and more were given; {what_to_pass}")
    return list(collection.items())


def refuse_twice(where: str, names: Sequence[str]) -> None:
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        raise IndexConflict(where, f"{', '.join(twice)} is asked for twice in one call; give each index its own name")


def check_index_names(helper: str, names: Iterable[object]) -> None:
    """
    Refuse arguments that are not names of indexes, for instance a list, with a message that says what to pass.

    :raises UsageError: before anything is sent
    """
    for name in names:
        if not isinstance(name, str):
            raise UsageError(f"{name!r} is not the name of an index; pass each by itself: {helper}(db.pages, 'a', 'b')")
