"""Give the present index an alias. Then deploy the application that uses the alias."""

from typing import Any

from mydocs.migrations import switch_search_alias


async def up(db: Any) -> None:
    await switch_search_alias(db.pages, "vec_pages", to="vec_pages_large_dot")


async def down(db: Any) -> None:
    await db["_search_aliases"].delete_one({"_id": "vec_pages"})
