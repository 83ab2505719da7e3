"""How large the next batch is: smaller while the server is slower than usual, and never for a far connection."""

from hypothesis import given
from hypothesis import strategies as st

from mydocs.migrations.data.batch_size import SMALLEST, Pace

NOISE = 0.02


def sizes(whole: int, *seconds: float) -> list[int]:
    pace = Pace(whole=whole, size=whole, noise=NOISE)
    found = []
    for each in seconds:
        pace = pace.after(each)
        found.append(pace.size)
    return found


def test_a_batch_is_halved_for_each_slow_answer_and_grows_again_with_fast_ones() -> None:
    assert sizes(1000, 0.1, 0.1, 0.5, 0.5, 0.5, 0.1, 0.1, 0.1) == [1000, 1000, 500, 250, 125, 250, 500, 1000]


def test_a_batch_stays_as_it_is_between_usual_and_slow() -> None:
    assert sizes(1000, 0.1, 0.5, 0.25, 0.25) == [1000, 500, 500, 500]


def test_a_connection_that_is_always_far_away_or_trembles_makes_no_batch_smaller() -> None:
    assert sizes(1000, *[0.5] * 5) == [1000] * 5
    assert sizes(1000, 0.001, 0.015, 0.02, 0.001) == [1000] * 4


def test_a_slow_beginning_is_forgotten() -> None:
    assert sizes(1000, 5.0, *[0.1] * 20, 1.0)[-1] == 500


@given(st.integers(1, 10_000), st.lists(st.floats(0, 100)))
def test_a_batch_is_never_empty_nor_larger_than_the_script_has_it(whole: int, seconds: list[float]) -> None:
    for size in sizes(whole, *seconds):
        assert max(1, whole // SMALLEST) <= size <= whole


@given(st.floats(0, 10), st.lists(st.floats(0, 1), min_size=1))
def test_answers_that_stay_within_the_allowance_of_the_first_change_nothing(first: float, shares: list[float]) -> None:
    lowest = max(0.0, first - NOISE / 2)
    seconds = [first, *(lowest + share * (first - lowest) for share in shares)]
    assert set(sizes(100, *seconds)) == {100}
