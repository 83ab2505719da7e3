"""
From text-embedding-3-large to voyage-3-large: new vectors beside the old ones, an index on them, then the alias.

It needs VOYAGE_API_KEY. The application reads the new field once the alias names the new index.
"""

import os
from typing import Any

import httpx

from mydocs.migrations import (
    RetryLater,
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

URL = os.environ.get("VOYAGE_URL", "https://api.voyageai.com/v1/embeddings")
ALIAS, OLD_INDEX, NEW_INDEX = "vec_pages", "vec_pages_large_dot", "vec_pages_voyage_dot"
EMBEDDING: dict[str, Any] = {
    "field": "emb_content_markdown_voyage_3_large",
    "text": "content_markdown",
    "model": "voyage-3-large",
    "dimensions": 1024,
}
VECTOR = {"path": EMBEDDING["field"], "numDimensions": EMBEDDING["dimensions"], "similarity": "dotProduct"}
FIELDS = [{"type": "vector", **VECTOR}, {"type": "filter", "path": "document_id"}]
INDEX = {"name": NEW_INDEX, "type": "vectorSearch", "definition": {"fields": FIELDS}}


async def vectors_of(texts: list[str]) -> list[list[float]]:
    """Embed some texts with one call of the model."""
    asked = {"model": EMBEDDING["model"], "input": texts, "input_type": "document"}
    asked["output_dimension"] = EMBEDDING["dimensions"]
    headers = {"Authorization": f"Bearer {os.environ['VOYAGE_API_KEY']}"}
    async with httpx.AsyncClient(timeout=60.0) as client:
        answer = await client.post(URL, json=asked, headers=headers)
    if answer.status_code in (429, 503):
        raise RetryLater(float(answer.headers.get("retry-after", 1.0)))
    answer.raise_for_status()
    return [item["embedding"] for item in answer.json()["data"]]


async def embed(pages: list[dict[str, Any]]) -> list[Any]:
    vectors = await vectors_of([page[EMBEDDING["text"]] for page in pages])
    return [new_embedding(vector, **EMBEDDING) for vector in vectors]


async def embed_what_is_stale(pages: Any) -> None:
    # Repeat for documents that were edited meanwhile, until there are none.
    stale, fields = stale_embeddings(**EMBEDDING), (EMBEDDING["text"],)
    while await transform(pages, stale, embed, batch=True, batch_size=100, concurrency=4, fields=fields):
        pass


async def up(db: Any) -> None:
    await embed_what_is_stale(db.pages)
    await ensure_search_indexes(db.pages, [INDEX])
    await wait_until_ready(db.pages, NEW_INDEX)
    await embed_what_is_stale(db.pages)  # a build may take hours
    await check_vectors(db.pages, NEW_INDEX)
    await switch_search_alias(db.pages, ALIAS, to=NEW_INDEX)


async def down(db: Any) -> None:
    await switch_search_alias(db.pages, ALIAS, to=OLD_INDEX)
    await drop_search_indexes(db.pages, NEW_INDEX)
    for field in (EMBEDDING["field"], fingerprint_field(EMBEDDING["field"])):
        await unset_field(db.pages, field)
