"""Curves: equal to lifelines, and told in stretches that no small group can be read from."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lifelines import KaplanMeierFitter

from isthmus.horizontal.request import Curve
from isthmus.horizontal.survival import grid_counts, product_limit, steps_of, stretches, told_curves

CURVE = Curve("survival", "time", "death", until=120.0)


def made(rows: int, seed: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    generator = np.random.default_rng(seed)
    times = np.ceil(generator.exponential(60, rows)).clip(1, 400)
    return times, generator.integers(0, 2, rows).astype(np.float64)


def test_a_curve_worked_by_hand() -> None:
    counts = np.array([[1.0, 0.0, 2.0], [0.0, 1.0, 0.0]])  # four patients: one dies, one leaves, two die
    survival, low, high = product_limit(counts)
    assert survival.tolist() == [0.75, 0.75, 0.0]
    assert low[0] == pytest.approx(0.1279, abs=1e-4)  # exp(-exp(log(-log .75) + 1.96 √(1/12) / -log .75))
    assert high[0] == pytest.approx(0.9605, abs=1e-4)


@pytest.mark.parametrize("seed", range(5))
def test_a_curve_equals_lifelines(seed: int) -> None:
    times, events = made(300, seed)
    fitter = KaplanMeierFitter().fit(times, events)
    interval = fitter.confidence_interval_survival_function_
    survival, low, high = product_limit(grid_counts(times, events, CURVE))
    for place in range(CURVE.times):
        time = place + 1.0
        row = interval.loc[:time].iloc[-1]
        assert survival[place] == pytest.approx(fitter.predict(time), abs=1e-12)
        assert (low[place], high[place]) == pytest.approx(tuple(row), abs=1e-12)


def test_times_between_the_grids_count_at_the_next_one_and_late_ones_are_censored() -> None:
    curve = Curve("survival", "time", "death", until=6.0, unit=2.0)
    times, events = np.array([0.1, 2.0, 2.1, 6.0, 6.1, 900.0]), np.array([1.0, 1.0, 0.0, 1.0, 1.0, 0.0])
    assert grid_counts(times, events, curve).tolist() == [[2.0, 0.0, 1.0], [0.0, 1.0, 2.0]]


def test_with_a_floor_of_1_every_time_of_an_event_is_told() -> None:
    counts = grid_counts(*made(100, 1), CURVE)
    ends = np.flatnonzero(counts[0]).tolist()
    steps = steps_of(counts, ends, CURVE.unit)
    assert [step.time for step in steps] == [end + 1.0 for end in ends]
    assert told_curves(counts, {"a": counts}, ["a"], ends, 1, CURVE.unit) == {"a": steps}


@settings(deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 12), st.integers(20, 400))
def test_no_stretch_tells_of_fewer_than_the_floor(seed: int, floor: int, rows: int) -> None:
    counts = grid_counts(*made(rows, seed), CURVE)
    ends = stretches([counts], range(CURVE.times), floor)
    steps = steps_of(counts, ends, CURVE.unit)
    estimate = product_limit(counts)
    left = rows
    for step, end in zip(steps, ends, strict=True):
        assert step.events >= floor and (step.censored == 0 or step.censored >= floor)
        assert step.at_risk == left and step.survival == estimate.survival[end]
        left -= step.events + step.censored
    assert not steps or left == 0 or left >= floor


@settings(deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 8), st.integers(60, 600), st.integers(0, 4))
def test_no_difference_of_curves_tells_of_fewer_than_the_floor(seed: int, floor: int, rows: int, hidden: int) -> None:
    """What is told of all, less what is told of the strata, over any stretch that both know."""
    times, events = made(rows, seed)
    stratum = np.random.default_rng(seed).choice(5, rows, p=[0.4, 0.3, 0.15, 0.1, 0.05])
    everyone = grid_counts(times, events, CURVE)
    strata = {str(one): grid_counts(times[stratum == one], events[stratum == one], CURVE) for one in range(5)}
    ends = stretches([everyone], range(CURVE.times), floor)
    visible = [name for place, name in enumerate(strata) if place < 5 - hidden]
    told = told_curves(everyone, strata, visible, ends, floor, CURVE.unit)
    of_all = steps_of(everyone, ends, CURVE.unit)
    longest = max(told.values(), key=len)
    start = 0.0
    for index, step in enumerate(longest):
        assert step.time in [one.time for one in of_all]
        for what in ("events", "censored"):
            overall = sum(getattr(one, what) for one in of_all if start < one.time <= step.time)
            shown = sum(getattr(steps[index], what) for steps in told.values() if index < len(steps))
            assert overall - shown == 0 or overall - shown >= floor
        start = step.time


def test_a_stratum_that_has_ended_does_not_hold_the_others_up() -> None:
    long, short = np.zeros((2, 12)), np.zeros((2, 12))
    long[0, ::2], short[0, :4] = 6, 5
    assert stretches([long, short], range(12), 5) == [0, 2, 4, 6, 8, 10]  # short: 5, then 10, then 5 at the fourth time
