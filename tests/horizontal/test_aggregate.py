from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.horizontal.aggregate import (
    Aggregator,
    aggregate,
    geometric_median,
    krum,
    krum_scores,
    median,
    multi_krum,
    trimmed_mean,
    weighted_mean,
)


def matrix(*rows: list[float]) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.array(rows, np.float32)


# Four honest updates near (1, 1), and a liar.
FIVE = matrix([1, 1], [1, 2], [2, 1], [2, 2], [-100, 50])


def test_the_weighted_mean_by_hand() -> None:
    # (1·1 + 3·5) / 4, (1·2 + 3·(-2)) / 4
    found = weighted_mean([(row, weight) for row, weight in zip(matrix([1, 2], [5, -2]), (1.0, 3.0), strict=True)])
    assert found.tolist() == [4.0, -1.0]


def test_a_mean_of_nobody_is_empty() -> None:
    assert weighted_mean([]).shape == (0,)


def test_the_mean_of_long_rows_goes_on_past_one_chunk() -> None:
    rows = np.random.default_rng(1).normal(size=(3, 150_001)).astype("f4")
    np.testing.assert_allclose(aggregate(Aggregator(), rows), rows.astype("f8").mean(axis=0), rtol=1e-12)


def test_the_coordinate_median_by_hand() -> None:
    assert median(FIVE).tolist() == [1.0, 2.0]
    assert median(FIVE[:4]).tolist() == [1.5, 1.5]  # of an even number: half way


def test_the_trimmed_mean_by_hand() -> None:
    # sorted: -100 1 1 2 2 and 1 1 2 2 50, without the ends
    assert trimmed_mean(FIVE, 1).tolist() == [pytest.approx(4 / 3), pytest.approx(5 / 3)]
    assert trimmed_mean(FIVE, 2).tolist() == [1.0, 2.0]


def test_krum_scores_by_hand() -> None:
    # n = 5, f = 1: each one's two nearest. From (1,1): 1 and 1; so it is for all four corners.
    # From (-100, 50): (101, 48) → 10201 + 2304 = 12505, and (101, 49) → 10201 + 2401 = 12602.
    assert krum_scores(FIVE, 1).tolist() == [2, 2, 2, 2, 12505 + 12602]


def test_krum_takes_the_first_of_the_best() -> None:
    assert krum(FIVE, 1).tolist() == [1.0, 1.0]
    # The middle one of three on a line and two strays: (0) 0+1... n = 5, f = 1: squares to the two nearest.
    line = matrix([0], [1], [2], [10], [-10])
    assert krum_scores(line, 1).tolist() == [1 + 4, 1 + 1, 1 + 4, 64 + 81, 100 + 121]
    assert krum(line, 1).tolist() == [1.0]


def test_multi_krum_averages_the_best() -> None:
    line = matrix([0], [1], [2], [10], [-10])
    assert multi_krum(line, 1, 1).tolist() == [1.0]
    assert multi_krum(line, 1, 2).tolist() == [0.5]  # 1, then 0: the first of two equals
    assert multi_krum(line, 1, 3).tolist() == [1.0]
    assert aggregate(Aggregator("multi_krum", byzantine=1), line).tolist() == [0.5]  # n - f - 2 = 2


def test_the_geometric_median_by_hand() -> None:
    # On a line it is the median.
    np.testing.assert_allclose(geometric_median(matrix([0, 0], [1, 0], [7, 0])), [1, 0], atol=1e-4)
    # Of a triangle whose angles are below 120° it is the Fermat point: here on the axis, 1/√3 above the base.
    triangle = matrix([-1, 0], [1, 0], [0, 3])
    np.testing.assert_allclose(geometric_median(triangle), [0, 1 / math.sqrt(3)], atol=1e-5)
    # Of a convex quadrilateral it is where the diagonals cross.
    np.testing.assert_allclose(geometric_median(matrix([0, 0], [4, 0], [4, 4], [0, 2])), [4 / 3, 4 / 3], atol=1e-4)


@pytest.mark.parametrize("size", [1e4, 1e8, 1e20, 3e38])
def test_one_liar_moves_the_mean_as_far_as_it_likes_and_the_others_not_at_all(size: float) -> None:
    honest = np.random.default_rng(2).normal(size=(6, 30)).astype("f4")
    lie = np.full((1, 30), size, "f4")
    both = np.concatenate([honest, lie])
    assert np.abs(aggregate(Aggregator(), both)).min() > 1000
    for robust in (
        Aggregator("median"),
        Aggregator("trimmed_mean", byzantine=1),
        Aggregator("krum", byzantine=1),
        Aggregator("multi_krum", byzantine=1, selected=3),
        Aggregator("geometric_median"),
    ):
        assert np.abs(aggregate(robust, both)).max() < 5, robust.kind


@given(
    st.integers(3, 8),
    st.integers(1, 6),
    st.integers(0, 2**32 - 1),
    st.sampled_from(["mean", "median", "trimmed_mean", "krum", "multi_krum", "geometric_median"]),
)
def test_what_all_say_alike_is_what_comes_out_and_it_moves_with_them(n: int, size: int, seed: int, kind: Any) -> None:
    generator = np.random.default_rng(seed)
    one, shift = generator.normal(size=(2, size)).astype("f4")
    chosen = Aggregator(kind)
    np.testing.assert_allclose(aggregate(chosen, np.tile(one, (n, 1))), one, rtol=1e-6, atol=1e-6)
    rows = generator.normal(size=(n, size)).astype("f4")
    moved = aggregate(chosen, rows + shift) - aggregate(chosen, rows)
    np.testing.assert_allclose(moved, shift, atol=2e-3)
