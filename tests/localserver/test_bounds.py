"""The bounds `min` and `max` of find, by which a reader goes on where it was whatever the types of `_id`."""

from collections.abc import Callable
from typing import Any

import pytest
from bson import ObjectId
from pymongo.database import Database
from pymongo.errors import OperationFailure

from mydocs.localserver.wire import messages

Db = Database[dict[str, Any]]

MIXED = [1, 2.5, "a", "b", {"a": 1}, ObjectId("65f000000000000000000001"), True]


@pytest.mark.contract
@pytest.mark.parametrize(
    ("bounds", "found"),
    [
        pytest.param({"min": {"_id": "b"}}, MIXED[3:], id="min is inside"),
        pytest.param({"max": {"_id": "b"}}, MIXED[:3], id="max is outside"),
        pytest.param({"min": {"_id": 2}, "max": {"_id": {"a": 2}}}, MIXED[1:5], id="both, of other types"),
        pytest.param({"min": {"_id": "b"}, "sort": {"_id": -1}}, MIXED[:2:-1], id="backwards"),
        pytest.param({"min": {"_id": 1}, "filter": {"_id": {"$ne": 1}}}, MIXED[1:], id="with a filter"),
    ],
)
def test_bounds_are_of_the_index_and_know_no_types(db: Db, bounds: dict[str, Any], found: list[Any]) -> None:
    db.things.insert_many([{"_id": identity} for identity in MIXED])
    reply = db.command({"find": "things", "hint": {"_id": 1}, **bounds})
    assert [document["_id"] for document in reply["cursor"]["firstBatch"]] == found


@pytest.mark.contract
def test_bounds_without_a_hint_are_refused(db: Db) -> None:
    with pytest.raises(OperationFailure) as refused:
        db.command({"find": "things", "min": {"_id": 1}})
    assert refused.value.code == 51173


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"hint": {"a": 1}, "min": {"a": 1}}, id="another index"),
        pytest.param({"hint": "_id_", "max": {"a": 1}}, id="another field than the index has"),
    ],
)
def test_bounds_of_another_index_are_refused_by_name(db: Db, options: dict[str, Any]) -> None:
    with pytest.raises(OperationFailure, match="min and max of find on another index") as refused:
        db.command({"find": "things", **options})
    assert refused.value.code == 238


def test_a_bound_is_a_seek_and_no_scan(db: Db, monkeypatch: pytest.MonkeyPatch) -> None:
    db.things.insert_many([{"_id": n} for n in range(2_000)])
    decoded = 0
    decode: Callable[[bytes], dict[str, Any]] = messages.decode

    def counting(data: bytes) -> dict[str, Any]:
        nonlocal decoded
        decoded += 1
        return decode(data)

    monkeypatch.setattr(messages, "decode", counting)
    reply = db.command({"find": "things", "hint": {"_id": 1}, "min": {"_id": 1_900}, "limit": 1})
    assert reply["cursor"]["firstBatch"] == [{"_id": 1_900}]
    assert decoded < 20


@pytest.mark.contract
def test_a_limit_within_the_batch_leaves_no_cursor_unless_the_reply_was_cut(db: Db) -> None:
    db.things.insert_many([{"_id": n, "text": "x" * 6_000_000} for n in range(4)])
    cut = db.command({"find": "things", "limit": 3, "batchSize": 10})["cursor"]
    whole = db.command({"find": "things", "limit": 2, "batchSize": 10})["cursor"]
    assert (len(cut["firstBatch"]), cut["id"] != 0) == (2, True)
    assert (len(whole["firstBatch"]), whole["id"]) == (2, 0)
    rest = db.command({"getMore": cut["id"], "collection": "things"})["cursor"]
    assert (len(rest["nextBatch"]), rest["id"]) == (1, 0)
