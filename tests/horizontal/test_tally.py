from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.horizontal.fixed_point import FLOAT32
from isthmus.horizontal.tally import BASE, DIGITS, TALLY_SIZE, Tally, gathered, spread


def test_means_are_a_row() -> None:
    tally = Tally(4, 8.0, 2, 1.0, 0, 0.0) + Tally(6, 2.0, 2, 5.0, 0, 0.0)
    assert tally == (10, 10, 4, 6, 0, 0)
    assert tally.means() == (1.0, 1.5, None)


@pytest.mark.parametrize(
    "wrong",
    [
        None,
        [],
        [1.0] * 5,
        [1.0] * 7,
        ["1"] * 6,
        [True] * 6,
        [-1.0, 0, 0, 0, 0, 0],
        [1, 0, 0, 0, -2, 0],
        [1, 1e300, 0, 0, 0, 0],
        [1e300, 0, 0, 0, 0, 0],
        [1, 0, 1e-300, 1, 0, 0],
        [1, 0, 0.5, 0, 0, 0],
        [1, 0, 0, 0, 1, -1e101],
    ],
)
def test_what_is_no_tally_is_not_taken_for_one(wrong: object) -> None:
    assert Tally.of(wrong) is None


def test_a_tally_may_hold_whole_numbers_and_losses_below_zero() -> None:
    assert Tally.of([3, -1.5, 2, -4, 1, 0.5]) == (3, -1.5, 2, -4, 1, 0.5)


@given(
    st.lists(st.lists(st.floats(-1e9, 1e9), min_size=6, max_size=6), min_size=1, max_size=70),
)
def test_figures_come_through_a_masked_sum(figures: list[list[float]]) -> None:
    count = len(figures)
    words = np.zeros(TALLY_SIZE, "<u4")
    for values in figures:
        words += FLOAT32.encode(spread(values, count), "north")
    found = gathered(FLOAT32.decode(words, TALLY_SIZE), count)
    np.testing.assert_allclose(found, np.sum(figures, axis=0), rtol=1e-12, atol=2.0**-25 * count * 2 * count)


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=64))
def test_counts_come_through_exactly(counts: list[int]) -> None:
    words = np.zeros(DIGITS, "<u4")
    for value in counts:
        words += FLOAT32.encode(spread([value], len(counts)), "north")
    assert gathered(FLOAT32.decode(words, DIGITS), len(counts)) == [sum(counts)]


def test_what_is_too_large_is_told_as_the_largest() -> None:
    assert gathered(spread([1e300], 1), 1)[0] == pytest.approx(BASE**DIGITS)
    assert np.abs(spread([-1e300], 5)).max() < 64
