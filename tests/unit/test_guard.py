"""The condition of a guarded write holds the bytes that were read, however many documents are decoded at once."""

from typing import Any

import bson
import pytest
from bson import Binary, Code, DBRef, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp
from bson.datetime_ms import DatetimeMS
from bson.raw_bson import RawBSONDocument
from hypothesis import given
from hypothesis import strategies as st

from mydocs.migrations.data.statements import RAW, Guard, encoded

scalars = st.sampled_from(
    [
        None, True, 1, Int64(1), 2**40, 1.0, -0.0, "", "é", b"a", Binary(b"a", 4), ObjectId("0" * 24), Regex("a", "im"),
        Decimal128("1.50"), DatetimeMS(10**15), Timestamp(1, 2), Code("f"), Code("f", {"a": Int64(1)}), MinKey(),
        MaxKey(), DBRef("c", 1), DBRef("c", 1, "d", x=2),
    ]
)  # fmt: skip
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "$id", "$ref"]), inner),
    max_leaves=6,
)
documents = st.fixed_dictionaries({"_id": scalars}, optional=dict.fromkeys(("n", "meta", "list"), values))
GUARDS = [
    pytest.param(Guard(), id="whole"),
    pytest.param(Guard(fields=()), id="no field"),
    pytest.param(Guard(fields=("n", "meta"), wanted=encoded({"m": 1})), id="fields"),
    pytest.param(Guard(fields=("n", "list"), shard_key=("n",)), id="shard key"),
]


@pytest.mark.parametrize("guard", GUARDS)
@given(found=st.lists(documents, max_size=4))
def test_the_conditions_of_many_documents_are_those_of_each(guard: Guard, found: list[Any]) -> None:
    read = [encoded(document) for document in found]
    assert list(map(bson.encode, guard.queries(read))) == [bson.encode(guard.query(each)) for each in read]


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(b"\x03n\0" + bson.encode({"$id": 1, "$ref": "c"}), id="a reference in another order"),
        pytest.param(b"\x03n\0\x13\0\0\0\x10a\0\1\0\0\0\x10a\0\2\0\0\0\0", id="two fields of one name"),
        pytest.param(b"\x03n\0\x08\0\0\0\x06u\0\0", id="a type of old servers"),
        pytest.param(b"\x03n\0\x0f\0\0\0\x02s\0\3\0\0\0\xff\xff\0\0", id="a text that is not UTF-8"),
    ],
)
def test_what_is_inside_a_value_stays_as_it_was_read(value: bytes) -> None:
    body = b"\x10_id\0\1\0\0\0" + value + b"\0"
    document = RawBSONDocument((len(body) + 4).to_bytes(4, "little") + body, RAW)
    (query,) = Guard(fields=("n",)).queries([document])
    assert value[3:] in bson.encode(query)
