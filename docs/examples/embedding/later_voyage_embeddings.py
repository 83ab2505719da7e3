"""
Remove the old index and the old vectors, in a later release.

Rename this file to the next number once every running process finds the index by its alias and you no longer want to
switch back.
"""

from typing import Any

from mydocs.migrations import drop_search_indexes, unset_field


async def up(db: Any) -> None:
    await drop_search_indexes(db.pages, "vec_pages_large_dot")
    await unset_field(db.pages, "emb_content_markdown_text_embedding_3_large")
