"""Full-text search over documents: their content and file names, filtered by tags, status and type."""

from typing import Any

from motor.motor_asyncio import AsyncIOMotorDatabase
from pymongo.operations import SearchIndexModel

from mydocs.migrations import drop_search_indexes, ensure_search_indexes

TEXT = {"type": "string", "analyzer": "lucene.standard"}
KEYWORD = {"type": "string", "analyzer": "lucene.keyword"}

INDEX = SearchIndexModel(
    name="ft_documents",
    type="search",
    definition={
        "mappings": {
            "dynamic": False,
            "fields": {
                "content": TEXT,
                "file_name": TEXT,
                "tags": KEYWORD,
                "status": KEYWORD,
                "document_type": KEYWORD,
            },
        }
    },
)


async def up(db: AsyncIOMotorDatabase[dict[str, Any]]) -> None:
    await ensure_search_indexes(db["documents"], [INDEX])


async def down(db: AsyncIOMotorDatabase[dict[str, Any]]) -> None:
    await drop_search_indexes(db["documents"], "ft_documents")
