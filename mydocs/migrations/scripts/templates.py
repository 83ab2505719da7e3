"""What a new script looks like before somebody fills it in. Pure: strings in, text out."""

import re
from enum import StrEnum

DATA = '''"""{title}."""

from typing import Any

from mydocs.migrations import transform, unset_field


def change(document: dict[str, Any]) -> dict[str, Any]:
    return {{"$set": {{"example": 0}}}}


async def up(db: Any) -> None:
    raise NotImplementedError("say what is to change in which documents, and take this line out")
    # In batches, and safe to run twice: what is done no longer matches the filter.
    await transform(db.documents, {{"example": {{"$exists": False}}}}, change)


async def down(db: Any) -> None:
    await unset_field(db.documents, "example")
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
    await ensure_search_indexes(db.documents, [INDEX])


async def down(db: Any) -> None:
    await drop_search_indexes(db.documents, "ft_example")
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
    await ensure_search_indexes(db.pages, [INDEX])


async def down(db: Any) -> None:
    await drop_search_indexes(db.pages, "vec_example")
'''

INDEX = '''"""{title}."""

from typing import Any

from pymongo import ASCENDING, IndexModel

from mydocs.migrations import ensure_indexes


async def up(db: Any) -> None:
    raise NotImplementedError("say which index on which collection, and take this line out")
    await ensure_indexes(db.documents, [IndexModel([("example", ASCENDING)])])


async def down(db: Any) -> None:
    # Only this index, and only if it is there.
    if "example_1" in await db.documents.index_information():
        await db.documents.drop_index("example_1")
'''


class TemplateKind(StrEnum):
    """What a new migration is going to change."""

    DATA = "data"
    SEARCH = "search"
    VECTOR = "vector"
    INDEX = "index"


TEMPLATES = {
    TemplateKind.DATA: DATA,
    TemplateKind.SEARCH: SEARCH,
    TemplateKind.VECTOR: VECTOR,
    TemplateKind.INDEX: INDEX,
}


def file_name(number: int, description: str) -> str:
    """
    Return the name of a script's file.

    :raises ValueError: where the description has no letter or digit of ASCII
    """
    slug = re.sub(r"[^A-Za-z0-9_-]+", "_", description).strip("_-")
    if not slug:
        raise ValueError(description)
    return f"{number:03}_{slug.lower()}.py"


def render(kind: TemplateKind, description: str) -> str:
    """Return the text of a new script."""
    title = " ".join(description.split()).replace("\\", "/").replace('"', "'").rstrip(".")
    return TEMPLATES[kind].format(title=title[:1].upper() + title[1:])
