"""The fields of statements are checked alike, one by one and together."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mydocs.localserver.errors import CommandError
from mydocs.localserver.query.fields import checked, checked_alike, fields

KNOWN = fields("q:object! u:change! multi:bool hint:any")

values: st.SearchStrategy[Any] = st.one_of(
    st.none(), st.booleans(), st.integers(0, 1), st.just({}), st.just([]), st.just("text")
)
statements = st.lists(st.dictionaries(st.sampled_from(["q", "u", "multi", "hint", "other"]), values), max_size=4)
right: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {"q": st.just({}), "u": st.sampled_from([{}, []])}, optional={"multi": values}
)


@given(st.lists(right, max_size=4) | statements)
def test_statements_are_checked_together_as_one_by_one(documents: list[dict[str, Any]]) -> None:
    def outcome(alike: bool) -> Any:
        try:
            if alike:
                return list(checked_alike("update.updates", documents, KNOWN))
            return [checked("update.updates", document, KNOWN) for document in documents]
        except CommandError as error:
            return error.code, error.message

    assert outcome(True) == outcome(False)


def test_a_wrong_one_is_found_after_many_that_are_right() -> None:
    with pytest.raises(CommandError, match=r"^BSON field 'update.updates.u' is missing but a required field$"):
        list(checked_alike("update.updates", [*[{"q": {}, "u": {}}] * 3, {"q": {}}], KNOWN))
