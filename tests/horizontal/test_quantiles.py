"""Ranges, bins and quantiles of pooled numbers: right to a stated bin, and never one patient's own value."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.horizontal.counting import MAGNITUDES, Range
from isthmus.horizontal.findings import HistogramBin
from isthmus.horizontal.quantiles import NOTHING, bounds, coarser, merged, quantiles, range_of, told_bins

Values = np.ndarray[Any, np.dtype[np.float64]]


def magnitudes(values: Values) -> Values:
    places = np.searchsorted(MAGNITUDES, values, side="right")
    return np.bincount(places, minlength=len(MAGNITUDES) + 1).astype(np.float64)


def histogram(
    values: Values, one: Range, floor: int, edges: tuple[float, ...] = (), bins: int = 64
) -> list[HistogramBin]:
    cuts = one.cuts(bins, edges)
    fine = np.bincount(np.searchsorted(cuts, values, side="right"), minlength=len(cuts) + 1).astype(np.float64)
    groups = merged(fine, cuts, edges, floor)
    return told_bins(groups, cuts, one, [int(fine[start:end].sum()) for start, end in groups])


numbers = st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=120).map(np.array)


@pytest.mark.parametrize(
    ("values", "low", "high"),
    [([1.0, 1.1, 7.9], 1.0, 8.0), ([-3.0, 5.0], -3.0, 6.0), ([0.0], 0.0, 2.0**-40), ([-0.3, -0.3], -0.3125, -0.25)],
)
def test_without_a_floor_the_range_holds_all_values(values: list[float], low: float, high: float) -> None:
    assert range_of(magnitudes(np.array(values)), 1) == Range(low, high)


def test_nothing_is_asked_of_a_column_known_of_too_few() -> None:
    assert range_of(magnitudes(np.array([1.0, 2.0, 3.0])), 4) == NOTHING
    assert not NOTHING.asked and len(NOTHING.cuts(512)) == 0


@given(numbers, st.integers(1, 20))
def test_fewer_than_the_floor_lie_beyond_either_end_of_the_range(values: Values, floor: int) -> None:
    one = range_of(magnitudes(values), floor)
    assert one.asked == (len(values) >= floor)
    if len(values) >= 2 * floor:
        assert (values < one.low).sum() < floor and (values >= one.high).sum() < floor


def test_an_outlier_does_not_move_the_range() -> None:
    values = np.append(np.linspace(10, 20, 200), 1e6)
    assert range_of(magnitudes(values), 5).high < 30


@given(numbers, st.integers(2, 15), st.lists(st.floats(-1e6, 1e6), max_size=3, unique=True).map(sorted))
def test_every_bin_holds_the_floor_or_is_a_whole_band(values: Values, floor: int, edges: list[float]) -> None:
    one = range_of(magnitudes(values), floor)
    if not one.asked:
        return
    bins = histogram(values, one, floor, tuple(edges))
    assert sum(item.count or 0 for item in bins) == len(values)
    told_edges = [item.high for item in bins[:-1]]
    assert set(edges) <= set(told_edges)
    whole = {(low, high) for low, high in zip([None, *edges], [*edges, None], strict=True)}
    for place, item in enumerate(bins):
        low = None if place == 0 else item.low
        high = None if place == len(bins) - 1 else item.high
        assert item.count >= floor or (low, high) in whole


@settings(deadline=None)
@given(numbers, st.integers(1, 10))
def test_quantiles_of_the_pooled_values_lie_in_their_bins(values: Values, floor: int) -> None:
    one = range_of(magnitudes(values), floor)
    if not one.asked:
        return
    bins = histogram(values, one, floor)
    known = (len(values), len(values))
    for found in quantiles(bins, (0.01, 0.25, 0.5, 0.75, 0.99), known, None, floor):
        wanted = pd.Series(values).quantile(found.probability)
        if found.low is None:
            assert floor > 1
            continue
        slack = 1e-9 * max(1.0, abs(wanted))
        assert found.low - slack <= wanted <= found.high + slack
        assert found.low <= found.value <= found.high


@settings(deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 10), st.integers(0, 9))
def test_quantiles_hold_however_many_values_are_missing(seed: int, floor: int, missing: int) -> None:
    """The few missing values are counted in one bin: the stated bins allow for any number of them."""
    missing = min(missing, floor - 1)
    values = np.random.default_rng(seed).normal(50, 10, 200)
    bins = histogram(values, range_of(magnitudes(values), floor), floor)
    folded = len(bins) // 2
    middle = bins[folded]
    bins[folded] = HistogramBin(middle.low, middle.high, middle.count + missing)
    everyone = 200 + missing
    for found in quantiles(bins, (0.2, 0.5, 0.8), (everyone - floor + 1, everyone), folded, floor):
        assert found.low <= np.quantile(values, found.probability) <= found.high


def test_quantiles_allow_for_bins_that_are_not_told() -> None:
    bins = [HistogramBin(float(low), low + 1.0, count) for low, count in enumerate([10, None, 10, None, 10])]
    (found,) = quantiles(bins, (0.5,), (40, 40), None, 5)
    assert (found.low, found.high) == (1.0, 4.0)  # 10 values are in the second or in the fourth bin


def test_a_quantile_with_too_few_patients_beyond_it_is_not_told() -> None:
    values = np.arange(100.0)
    bins = histogram(values, range_of(magnitudes(values), 5), 5)
    lowest, highest = quantiles(bins, (0.03, 0.99), (100, 100), None, 5)
    assert lowest.value is None and highest.value is None


@given(numbers, st.integers(2, 10))
def test_least_and_greatest_value_are_edges_with_the_floor_at_or_beyond_them(values: Values, floor: int) -> None:
    one = range_of(magnitudes(values), floor)
    if not one.asked:
        return
    low, high = bounds(histogram(values, one, floor), floor)
    assert low is None or (values <= low).sum() >= floor
    assert high is None or (values >= high).sum() >= floor


def test_coarser_bins_never_cross_an_edge() -> None:
    groups = [(0, 1), (1, 2), (2, 4), (4, 5), (5, 6)]
    cuts = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    assert coarser(groups, 2, cuts, ()) == [(0, 2), (2, 5), (5, 6)]
    assert coarser(groups, 2, cuts, (1.0,)) == [(0, 1), (1, 4), (4, 6)]
    assert coarser(groups, 9, cuts, (2.0,)) == [(0, 2), (2, 6)]
