"""Over real sockets: what this server refuses by name though a MongoDB server answers it."""

from typing import Any

import pytest
from pymongo.database import Database
from pymongo.errors import OperationFailure

Db = Database[dict[str, Any]]


@pytest.mark.parametrize(
    "options",
    [{"sparse": True}, {"partialFilterExpression": {"a": 1}}, {"name": "twice", "unique": True}],
    ids=["sparse", "partial", "two indexes on one key"],
)
def test_a_hint_that_may_change_what_is_found_is_refused_by_name(db: Db, options: dict[str, Any]) -> None:
    db.things.create_index("a", **options)
    if "name" in options:
        db.things.create_index("a")
    with pytest.raises(OperationFailure, match="hint") as refused:
        db.things.find_one({}, hint={"a": 1})
    assert refused.value.code == 238
