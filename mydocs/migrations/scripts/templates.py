"""Write the text of a new script, for you to fill in. Pure: strings in, text out."""

import re
from enum import StrEnum

from mydocs.migrations.values import value

DATA = '''"""{title}."""

from typing import Any

from mydocs.migrations import transform, unset_field


def change(document: dict[str, Any]) -> dict[str, Any]:
    return {{"$set": {{"example": 0}}}}


async def up(db: Any) -> None:
    raise NotImplementedError("say which documents change and how, and take this line out")
    # In batches, and safe to run twice: a document that is done no longer matches the filter.
    await transform(db.{names.documents}, {{"example": {{"$exists": False}}}}, change)


async def down(db: Any) -> None:
    await unset_field(db.{names.documents}, "example")
'''

SEARCH = '''"""{title}."""

from typing import Any

from pymongo.operations import SearchIndexModel

from mydocs.migrations import drop_search_indexes, ensure_search_indexes

INDEX = SearchIndexModel(
    name="ft_example",
    definition={{
        "mappings": {{
            "dynamic": False,
            "fields": {{"content": {{"type": "string", "analyzer": "lucene.standard"}}}},
        }}
    }},
)


async def up(db: Any) -> None:
    raise NotImplementedError("say which index on which collection, and take this line out")
    await ensure_search_indexes(db.{names.documents}, [INDEX])


async def down(db: Any) -> None:
    await drop_search_indexes(db.{names.documents}, "ft_example")
'''

VECTOR = '''"""{title}."""

from typing import Any

from pymongo.operations import SearchIndexModel

from mydocs.migrations import drop_search_indexes, ensure_search_indexes

INDEX = SearchIndexModel(
    name="vec_example",
    type="vectorSearch",
    definition={{
        "fields": [
            {{"type": "vector", "path": "embedding", "numDimensions": 1536, "similarity": "cosine"}},
            {{"type": "filter", "path": "document_id"}},
        ]
    }},
)


async def up(db: Any) -> None:
    raise NotImplementedError("say which index on which collection, and take this line out")
    await ensure_search_indexes(db.{names.pages}, [INDEX])


async def down(db: Any) -> None:
    await drop_search_indexes(db.{names.pages}, "vec_example")
'''

INDEX = '''"""{title}."""

from typing import Any

from pymongo import ASCENDING, IndexModel

from mydocs.migrations import ensure_indexes


async def up(db: Any) -> None:
    raise NotImplementedError("say which index on which collection, and take this line out")
    await ensure_indexes(db.{names.documents}, [IndexModel([("example", ASCENDING)])])


async def down(db: Any) -> None:
    # Only this index, and only if it exists.
    if "example_1" in await db.{names.documents}.index_information():
        await db.{names.documents}.drop_index("example_1")
'''


EMBEDDING = '''"""
{title}: new vectors beside the old ones, an index on them, then the alias.

Search answers all the time, and never with vectors of two models. Edit the names, and write `vectors_of`; see
docs/embedding-model.md.
"""

from typing import Any

from mydocs.migrations import (
    check_vectors,
    drop_search_indexes,
    ensure_search_indexes,
    fingerprint_field,
    new_embedding,
    stale_embeddings,
    switch_search_alias,
    transform,
    unset_field,
    wait_until_ready,
)

COLLECTION = "{names.pages}"
ALIAS = "vec_{names.pages}"  # the name that the application passes to SearchAliases
OLD_INDEX, NEW_INDEX = "vec_{names.pages}_1", "vec_{names.pages}_2"
# The field of the new vectors, the field of the text, and the model.
EMBEDDING: dict[str, Any] = {{"field": "embedding_2", "text": "content", "model": "model-2", "dimensions": 1024}}
VECTOR = {{"path": EMBEDDING["field"], "numDimensions": EMBEDDING["dimensions"], "similarity": "cosine"}}
INDEX = {{"name": NEW_INDEX, "type": "vectorSearch", "definition": {{"fields": [{{"type": "vector", **VECTOR}}]}}}}


async def vectors_of(texts: list[str]) -> list[list[float]]:
    """Embed texts with one call of the model; raise RetryLater to be called again later."""
    raise NotImplementedError("call the model of EMBEDDING here")


async def embed(documents: list[dict[str, Any]]) -> list[Any]:
    vectors = await vectors_of([document[EMBEDDING["text"]] for document in documents])
    return [new_embedding(vector, **EMBEDDING) for vector in vectors]


async def embed_what_is_stale(collection: Any) -> None:
    # Repeat for documents that were edited meanwhile, until there are none.
    stale, fields = stale_embeddings(**EMBEDDING), (EMBEDDING["text"],)
    while await transform(collection, stale, embed, batch=True, batch_size=100, concurrency=4, fields=fields):
        pass


async def up(db: Any) -> None:
    raise NotImplementedError("name index, fields and model, write `vectors_of`, and take this line out")
    collection = db[COLLECTION]
    await embed_what_is_stale(collection)
    await ensure_search_indexes(collection, [INDEX])
    await wait_until_ready(collection, NEW_INDEX)
    await embed_what_is_stale(collection)  # a build may take hours
    await check_vectors(collection, NEW_INDEX)
    await switch_search_alias(collection, ALIAS, to=NEW_INDEX)


async def down(db: Any) -> None:
    collection = db[COLLECTION]
    await switch_search_alias(collection, ALIAS, to=OLD_INDEX)
    await drop_search_indexes(collection, NEW_INDEX)
    for field in (EMBEDDING["field"], fingerprint_field(EMBEDDING["field"])):
        await unset_field(collection, field)


async def verify(db: Any) -> None:
    # For example: a query that must still find the same documents.
    alias = await db["_search_aliases"].find_one({{"_id": ALIAS}})
    assert alias and alias["index"] != OLD_INDEX, f"{{ALIAS}} does not name the new index"
'''

CONTRACT = '''"""
{title}: remove the old index and the old vectors. For a later release.

Rename this file to the next number (`mv {file} NNN_{name}.py`) once every running process finds the index by its alias
and you no longer want to switch back. Edit the names; see docs/embedding-model.md.
"""

from typing import Any

from mydocs.migrations import drop_search_indexes, unset_field

COLLECTION = "{names.pages}"
OLD_INDEX = "vec_{names.pages}_1"
OLD_FIELDS = ("embedding_1", "embedding_1_fingerprint")


async def up(db: Any) -> None:
    raise NotImplementedError("name the index and the fields to remove, and take this line out")
    # Refused while an alias names the index, and until the applications' caches have expired.
    await drop_search_indexes(db[COLLECTION], OLD_INDEX)
    for field in OLD_FIELDS:
        await unset_field(db[COLLECTION], field)
'''


class TemplateKind(StrEnum):
    """The subject of a new migration."""

    DATA = "data"
    SEARCH = "search"
    VECTOR = "vector"
    INDEX = "index"
    EMBEDDING = "embedding"


@value
class Names:
    """The collections that the templates name."""

    documents: str
    pages: str


APPLICATION = Names(documents="documents", pages="pages")
OWN_PROJECT = Names(documents="example", pages="example")  # a project other than the application has other collections

TEMPLATES = {
    TemplateKind.DATA: DATA,
    TemplateKind.SEARCH: SEARCH,
    TemplateKind.VECTOR: VECTOR,
    TemplateKind.INDEX: INDEX,
    TemplateKind.EMBEDDING: EMBEDDING,
}


def file_name(number: int, description: str) -> str:
    """
    Return the name of a script's file.

    :raises ValueError: if the description has no ASCII letter or digit
    """
    slug = re.sub(r"[^A-Za-z0-9_-]+", "_", description).strip("_-")
    if not slug:
        raise ValueError(description)
    return f"{number:03}_{slug.lower()}.py"


def contract_file_name(script: str) -> str:
    """Return the file name of the script for a later release. It has no number, so that no run executes it."""
    return f"later_{script.partition('_')[2]}"


def render(kind: TemplateKind, description: str, names: Names = APPLICATION) -> str:
    """Return the text of a new script."""
    return TEMPLATES[kind].format(title=_title(description), names=names)


def render_contract(description: str, file: str, names: Names = APPLICATION) -> str:
    """Return the text of the script for a later release, which removes what an embedding migration leaves behind."""
    name = file.removeprefix("later_").removesuffix(".py") + "_contract"
    return CONTRACT.format(title=_title(description), file=file, name=name, names=names)


def _title(description: str) -> str:
    title = " ".join(description.split()).replace("\\", "/").replace('"', "'").rstrip(".")
    return title[:1].upper() + title[1:]
