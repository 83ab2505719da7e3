"""Full-text search over the pages of a document."""

from typing import Any

from motor.motor_asyncio import AsyncIOMotorDatabase
from pymongo.operations import SearchIndexModel

from mydocs.migrations import drop_search_indexes, ensure_search_indexes

INDEX = SearchIndexModel(
    name="ft_pages",
    type="search",
    definition={
        "mappings": {
            "dynamic": False,
            "fields": {
                "content": {"type": "string", "analyzer": "lucene.standard"},
                "document_id": {"type": "string", "analyzer": "lucene.keyword"},
            },
        }
    },
)


async def up(db: AsyncIOMotorDatabase[dict[str, Any]]) -> None:
    await ensure_search_indexes(db["pages"], [INDEX])


async def down(db: AsyncIOMotorDatabase[dict[str, Any]]) -> None:
    await drop_search_indexes(db["pages"], "ft_pages")
