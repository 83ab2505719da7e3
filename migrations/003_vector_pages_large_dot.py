"""Vector search over pages, by the 3,072 dimensions of text-embedding-3-large and their dot product."""

from typing import Any

from motor.motor_asyncio import AsyncIOMotorDatabase
from pymongo.operations import SearchIndexModel

from mydocs.migrations import drop_search_indexes, ensure_search_indexes

INDEX = SearchIndexModel(
    name="vec_pages_large_dot",
    type="vectorSearch",
    definition={
        "fields": [
            {
                "type": "vector",
                "path": "emb_content_markdown_text_embedding_3_large",
                "numDimensions": 3072,
                "similarity": "dotProduct",
            },
            {"type": "filter", "path": "document_id"},
        ]
    },
)


async def up(db: AsyncIOMotorDatabase[dict[str, Any]]) -> None:
    await ensure_search_indexes(db["pages"], [INDEX])


async def down(db: AsyncIOMotorDatabase[dict[str, Any]]) -> None:
    await drop_search_indexes(db["pages"], "vec_pages_large_dot")
