"""Kaplan-Meier curves from counts of events and censorings by time, and which of their steps may be told.

The product-limit estimate (Kaplan and Meier 1958) with Greenwood's variance and the log-log interval (Kalbfleisch and
Prentice 1980, "exponential Greenwood"), as lifelines computes them. Censorings at a time count as after its events.

**What is told**: not every time, but stretches of at least `floor` events each, with no or at least `floor` censorings,
after which no or at least `floor` patients are left. Survival at a stretch's end is the exact product over all times in
it. So it also holds how events and censorings followed one another within the stretch, though not when. Curves of
strata have stretches in common, each made of whole ones of the curve of all patients, and what strata that are not told
add up to has to pass the same rule: then no difference of curves tells of fewer. A floor of 1 tells every time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from .findings import CurveStep
from .request import Curve

Floats = NDArray[np.float64]
_Z = float(ndtri(0.975))


class Estimate(NamedTuple):
    """A curve at every time of its grid, each ``(times,)``: survival just after it, with its 95 % interval."""

    survival: Floats
    low: Floats
    high: Floats


def grid_counts(durations: NDArray[Any], events: NDArray[Any], curve: Curve) -> Floats:
    """Events and censorings at each time of the grid, ``(2, times)``."""
    steps = np.asarray(durations, dtype=np.float64) / curve.unit
    place = np.ceil(steps - 1e-9 * np.maximum(1.0, np.abs(steps))).astype(np.int64) - 1
    within = place < curve.times
    happened = (np.asarray(events) > 0.5) & within
    place = np.clip(place, 0, curve.times - 1)
    found = [np.bincount(place[which], minlength=curve.times) for which in (happened, ~happened)]
    return np.stack(found).astype(np.float64)


def product_limit(counts: Floats) -> Estimate:
    """The estimate from events and censorings, ``(2, times)``."""
    events, censored = counts
    left = counts.sum() - np.cumsum(events + censored)
    at_risk = left + events + censored
    survived = np.divide(at_risk - events, at_risk, out=np.ones_like(at_risk), where=at_risk > 0)
    survival: Floats = np.cumprod(survived)
    product = at_risk * (at_risk - events)
    variance = np.cumsum(np.divide(events, product, out=np.zeros_like(product), where=product > 0))
    inner = (survival > 0) & (survival < 1)
    log = np.log(survival, out=np.full_like(survival, -1.0), where=inner)
    bounds = [np.exp(-np.exp(np.log(-log) + sign * _Z * np.sqrt(variance) / log)) for sign in (1, -1)]
    low, high = (np.where(inner, bound, survival) for bound in bounds)
    return Estimate(survival, np.minimum(low, high), np.maximum(low, high))


def stretches(curves: Sequence[Floats], ends: Sequence[int], floor: int) -> list[int]:
    """The ends, among `ends`, of the stretches that all curves ``(2, times)`` may be told in.

    A curve of which nobody is left does not hold the others up.
    """
    chosen: list[int] = []
    start = 0
    cumulative = [np.concatenate([np.zeros((2, 1)), np.cumsum(counts, axis=1)], axis=1) for counts in curves]
    total = [float(counts.sum()) for counts in curves]
    for end in ends:
        during = [one[:, end + 1] - one[:, start] for one in cumulative]
        left = [everyone - one[:, start].sum() for one, everyone in zip(cumulative, total, strict=True)]
        open_ones = [counts for counts, rest in zip(during, left, strict=True) if rest > 0]
        if open_ones and all(events >= floor and _told(censored, floor) for events, censored in open_ones):
            chosen.append(end)
            start = end + 1
    while chosen:
        left = [everyone - one[:, chosen[-1] + 1].sum() for one, everyone in zip(cumulative, total, strict=True)]
        if all(_told(rest, floor) for rest in left):
            break
        chosen.pop()
    return chosen


def steps_of(counts: Floats, ends: Sequence[int], unit: float) -> tuple[CurveStep, ...]:
    """The curve told at these ends."""
    estimate = product_limit(counts)
    steps, start, at_risk = [], 0, int(counts.sum())
    for end in ends:
        events, censored = (int(value) for value in counts[:, start : end + 1].sum(axis=1))
        if at_risk == 0:
            break
        shown = (float(one[end]) for one in estimate)
        steps.append(CurveStep((end + 1) * unit, at_risk, events, censored, *shown))
        at_risk -= events + censored
        start = end + 1
    return tuple(steps)


def told_curves(
    everyone: Floats, strata: Mapping[str, Floats], visible: Sequence[str], ends: Sequence[int], floor: int, unit: float
) -> dict[str, tuple[CurveStep, ...]]:
    """The steps of the visible strata of one column; `ends` are those that the curve of all is told at."""
    shown = {name: strata[name] for name in visible}
    if floor <= 1:
        return {name: steps_of(counts, np.flatnonzero(counts[0]).tolist(), unit) for name, counts in shown.items()}
    hidden = everyone - sum(shown.values(), np.zeros_like(everyone))
    together = [*shown.values(), *([hidden] if hidden.any() else [])]
    common = stretches(together, ends, floor) if shown else []
    return {name: steps_of(counts, common, unit) for name, counts in shown.items()}


def _told(count: float, floor: int) -> bool:
    return count == 0 or count >= floor
