"""The store without sockets: order, ranges, and transactions that lie over it."""

from pathlib import Path
from typing import Any

import pytest
from bson import ObjectId
from hypothesis import given, settings
from hypothesis import strategies as st

from mydocs.localserver.catalogue.storage import Store, connect
from mydocs.localserver.catalogue.transactions import Transactions
from mydocs.localserver.commands.reads import bounds
from mydocs.localserver.control.clock import ManualClock
from mydocs.localserver.errors import CommandError
from mydocs.localserver.query.match import compile_filter
from mydocs.localserver.query.values import encode_key

SESSION = b"session"

identities = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 300), st.floats(-2, 2), st.text("ab", max_size=2),
    st.builds(lambda n: ObjectId(bytes([n]) * 12), st.integers(0, 3)),
    st.dictionaries(st.sampled_from("ab"), st.integers(0, 2), max_size=2),
)  # fmt: skip
steps = st.lists(st.tuples(st.sampled_from(["put", "delete"]), st.integers(0, 40), st.integers(0, 5)), max_size=40)


def opened(path: Path | None = None) -> tuple[Store, Transactions]:
    transactions = Transactions(path, ManualClock(), lambda transaction: None)
    return Store(connect(path), transactions.noted), transactions


def play(store: Store, model: dict[int, int], moves: list[tuple[str, int, int]]) -> None:
    """Do the same to a store and to a dictionary."""
    collection = store.collection("d", "c") or store.create("d", "c")
    for what, identity, value in moves:
        old = store.get(collection, identity)
        assert (old is None) == (identity not in model)
        if what == "put" and old is None:
            store.insert(collection, {"_id": identity, "v": value})
        elif what == "put" and old is not None:
            store.replace(collection, old, {"_id": identity, "v": value})
        elif old is not None:
            store.delete(collection, old)
        if what == "put":
            model[identity] = value
        else:
            model.pop(identity, None)


def contents(store: Store, **options: Any) -> list[tuple[int, int]]:
    collection = store.collection("d", "c")
    return [] if collection is None else [(one["_id"], one["v"]) for one in store.scan(collection, **options)]


@given(st.lists(identities, max_size=20))
def test_a_scan_goes_in_the_order_of_the_id_both_ways(given_identities: list[Any]) -> None:
    store, _ = opened()
    collection = store.create("d", "c")
    distinct = {encode_key(identity): identity for identity in given_identities}
    for identity in distinct.values():
        store.insert(collection, {"_id": identity})
    expected = [distinct[key] for key in sorted(distinct)]
    assert [one["_id"] for one in store.scan(collection)] == expected
    assert [one["_id"] for one in store.scan(collection, backwards=True)] == expected[::-1]
    store.connection.close()


@pytest.mark.parametrize("backwards", [False, True], ids=["forwards", "backwards"])
def test_a_scan_keeps_to_its_range_over_many_chunks(backwards: bool) -> None:
    store, _ = opened()
    play(store, {}, [("put", number, 0) for number in range(1000)])
    found = contents(store, low=encode_key(100), high=encode_key(900), backwards=backwards)
    assert [identity for identity, _ in found] == sorted(range(100, 901), reverse=backwards)
    store.connection.close()


@settings(max_examples=60)
@given(before=steps, inside=steps, outside=steps)
def test_a_transaction_sees_its_snapshot_and_its_writes_and_nothing_else(
    before: list[tuple[str, int, int]], inside: list[tuple[str, int, int]], outside: list[tuple[str, int, int]]
) -> None:
    main, transactions = opened()
    model: dict[int, int] = {}
    main.create("d", "c")
    play(main, model, before)
    main.commit()
    transaction = transactions.start(SESSION, 1, main)
    assert transaction.store is not None
    seen = dict(model)
    # Numbers that the transaction leaves alone, so that the two do not meet.
    apart = [(what, identity + 1000, value) for what, identity, value in outside]
    half = len(inside) // 2
    play(transaction.store, seen, inside[:half])
    play(main, model, apart)
    main.commit()
    play(transaction.store, seen, inside[half:])
    assert contents(transaction.store) == sorted(seen.items())
    assert contents(transaction.store, backwards=True) == sorted(seen.items(), reverse=True)
    assert contents(main) == sorted(model.items())
    transactions.commit(SESSION, 1, main)
    main.commit()
    assert contents(main) == sorted((seen | {key: value for key, value in model.items() if key >= 1000}).items())
    main.connection.close()


@pytest.mark.parametrize("outside", ["put", "delete"])
@pytest.mark.parametrize("first", ["inside", "outside"])
def test_a_document_that_both_change_is_a_conflict(tmp_path: Path, outside: str, first: str) -> None:
    main, transactions = opened(tmp_path / "data")
    model: dict[int, int] = {}
    play(main, model, [("put", 1, 1)])
    main.commit()
    transaction = transactions.start(SESSION, 1, main)
    assert transaction.store is not None

    def collide() -> None:
        assert transaction.store is not None
        for who in ("inside", "outside") if first == "inside" else ("outside", "inside"):
            if who == "inside":
                play(transaction.store, {1: 1}, [("put", 1, 2)])
            else:
                play(main, model, [(outside, 1, 3)])
                main.commit()
        transactions.commit(SESSION, 1, main)

    with pytest.raises(CommandError) as refused:
        collide()
    assert (refused.value.code, refused.value.labels) == (112, ("TransientTransactionError",))
    assert contents(main) == list(model.items())
    transactions.close()
    main.connection.close()


def test_what_was_not_committed_is_undone_and_what_was_is_there_again(tmp_path: Path) -> None:
    main, _ = opened(tmp_path / "data")
    play(main, {}, [("put", 1, 1)])
    main.commit()
    play(main, {1: 1}, [("put", 2, 2)])
    main.create("d", "other")
    main.rollback()
    assert contents(main) == [(1, 1)]
    assert main.collection("d", "other") is None
    main.put_meta("a/1", {"x": 1})
    main.put_meta("b/1", {"x": 2})
    main.commit()
    main.connection.close()
    again, _ = opened(tmp_path / "data")
    assert contents(again) == [(1, 1)]
    assert list(again.scan_meta("a/")) == [("a/1", {"x": 1})]
    again.delete_meta("a/1")
    assert "a/1" not in dict(again.scan_meta("a/"))
    again.connection.close()


def test_a_space_is_not_given_out_twice(tmp_path: Path) -> None:
    main, _ = opened(tmp_path / "data")
    spaces = [main.create("d", name).space for name in "abc"]
    main.commit()
    main.connection.close()
    again, _ = opened(tmp_path / "data")
    spaces += [again.create("d", name).space for name in "xyz"]
    assert len(set(spaces)) == 6
    again.connection.close()


conditions = st.recursive(
    st.one_of(
        st.builds(lambda value: {"_id": value}, identities),
        st.builds(
            lambda operator, value: {"_id": {operator: value}},
            st.sampled_from(["$eq", "$gt", "$gte", "$lt", "$lte", "$ne"]),
            identities,
        ),
        st.builds(lambda values: {"_id": {"$in": values}}, st.lists(identities, max_size=3)),
    ),
    lambda inner: st.builds(
        lambda name, parts: {name: parts}, st.sampled_from(["$and", "$or"]), st.lists(inner, min_size=1, max_size=3)
    ),
    max_leaves=5,
)


@given(condition=conditions, identity=identities)
def test_the_range_of_a_filter_holds_all_that_can_match(condition: dict[str, Any], identity: Any) -> None:
    matches = compile_filter(condition, now=ManualClock().now())({"_id": identity})
    low, high = bounds(condition)
    key = encode_key(identity)
    assert not matches or (low <= key and (high is None or key <= high))
