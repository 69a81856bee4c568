"""Mean and standard deviation of a pooled number column, as exactly as they may be told beside its histogram.

An exact mean can give away a count. The mean of a column of 0 and 1 is the share of ones; a mean like 0.39939… is
399/999 and nothing else, so that 1 of 1,000 values is missing; the scores 9 and 10, told as one bin, are told apart by
the mean. So here too linear programs judge what can be computed back, now with the mean and the standard deviation
among what is told. The attacker is thought to know which values occur at all (one for each bin of the full histogram).
The counts that have to stay uncertain by `floor` or more are those of values that fewer patients have, of bins that are
not told, and of missing values that are not told.

Where that fails, the mean is rounded: to the smallest step of 1, 2 or 5 times a power of ten that suffices. If the
number of known values is not told, it is rounded in any case, by so much that it does not have one denominator alone.
A mean that would have to be rounded to more than a standard deviation is not told; without a mean, no deviation is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from .disclosure import Programs

Floats = NDArray[np.float64]
_Below = list[tuple[Floats, float]]  # rows of inequalities: row · unknown ≤ limit


@dataclass(frozen=True)
class Told:
    """What is told of a number column beside its moments, with the truth behind it.

    `values` and `counts`, both ``(occurring,)``, are the values that occur and how often, to within `width`, the width
    of the full histogram's bins; `groups` is the bin of each.
    `bins` are the bins' counts as told. `hidden` is how many values are missing, where neither that nor the number of
    known values is told; they are counted in bin `folded`, or in none.
    """

    values: Floats
    counts: Floats
    groups: NDArray[np.int64]
    width: float
    bins: Sequence[int | None]
    hidden: int | None
    folded: int | None


@dataclass(frozen=True)
class Rounded:
    """A number rounded to a multiple of `step` (0: not rounded); `value` is None if it is not told."""

    value: float | None
    step: float

    def interval(self, truth: float) -> tuple[float, float]:
        """From where to where the number may lie, relative to the truth."""
        if self.value is None or not self.step:
            return 0.0, 0.0
        return self.value - self.step / 2 - truth, self.value + self.step / 2 - truth


class Teller:
    """Rounds the moments of one column, to no more than `coarsest` (a standard deviation, if None)."""

    def __init__(self, told: Told, floor: int, mean: float, deviation: float, *, coarsest: float | None = None) -> None:
        self._told, self._floor = told, floor
        self._coarsest = max(deviation, told.width) if coarsest is None else coarsest
        self._known = float(told.counts.sum())
        self._mean, self._deviation = mean, deviation
        centre = float((told.values * told.counts).sum() / self._known)
        self._unit = max(float(np.abs(told.values - centre).max()), 1e-300)
        self._away = (told.values - centre) / self._unit
        self._spread = math.sqrt(float((self._away**2 * told.counts).sum()) / max(1.0, self._known - 1))
        self._equal, self._equal_to, self._truth, self._targets = self._system()
        # The count that an attempt may well fail at is looked at first: the farthest value, then where one did fail.
        small = [place for place in self._targets if place < len(told.counts)]
        self._failed = max(small, key=lambda place: float(abs(self._away[place])), default=None)

    def mean(self) -> Rounded:
        """The mean as it may be told. `deviation` only says from where on rounding makes no sense."""
        return self._first(self._mean, lambda one: self._rows_of_mean(one))

    def deviation(self, mean: Rounded) -> Rounded:
        """The standard deviation as it may be told beside the mean."""
        if mean.value is None:
            return mean
        beside = self._rows_of_mean(mean)
        return self._first(self._deviation, lambda one: beside + self._rows_of_deviation(one))

    def _first(self, truth: float, rows: Callable[[Rounded], _Below]) -> Rounded:
        """The finest rounding at which nothing can be computed back."""
        for step in self._steps():
            one = Rounded(float(f"{round(truth / step) * step:.12g}") if step else float(truth), step)
            if self._holds(rows(one)):
                return one
        return Rounded(None, 0.0)

    def _steps(self) -> Iterator[float]:
        if self._told.hidden is None:
            yield 0.0
        values = np.unique(self._told.values)
        gap = max(self._told.width, float(np.diff(values).min()) if len(values) > 1 else 0.0)
        least = self._floor * gap / self._known
        power = math.floor(math.log10(least))
        while True:
            for factor in (1, 2, 5):
                step = factor * 10.0**power
                if step > self._coarsest:
                    return
                if step >= least:
                    yield step
            power += 1

    def _holds(self, rows: _Below) -> bool:
        """Whether every count that is not told stays uncertain, given these inequalities as well."""
        width = self._equal.shape[1]
        below = csr_array(np.array([row for row, _ in rows]).reshape(len(rows), width))
        programs = Programs(
            self._truth, self._equal, self._equal_to, below, np.array([limit for _, limit in rows]), whole=False
        )
        if self._failed is not None and not programs.is_wide(self._failed, self._floor):
            return False
        for bundle in self._bundles():  # many at once: one of each bin
            for sign in (1.0, -1.0):
                direction = np.zeros(width)
                direction[bundle] = sign
                programs.widen(direction)
        for place in self._targets:
            if not programs.is_wide(place, self._floor):
                self._failed = place
                return False
        return True

    def _bundles(self) -> Iterator[list[int]]:
        by_bin: dict[int, list[int]] = {}
        for place in self._targets:
            if place < len(self._told.counts):
                by_bin.setdefault(int(self._told.groups[place]), []).append(place)
        for turn in range(max((len(places) for places in by_bin.values()), default=0)):
            yield [places[turn] for places in by_bin.values() if turn < len(places)]

    def _system(self) -> tuple[csr_array, Floats, Floats, list[int]]:
        """Unknown: how often each value occurs, how many are missing, and each bin that is not told."""
        told, occurring = self._told, len(self._told.counts)
        unknown_bins = [place for place, count in enumerate(told.bins) if count is None]
        missing = occurring if told.hidden is not None else None
        first_bin = occurring + (told.hidden is not None)
        width = first_bin + len(unknown_bins)
        rows, limits = [], []
        truth = np.concatenate([told.counts, [] if told.hidden is None else [told.hidden], np.zeros(len(unknown_bins))])
        for place, count in enumerate(told.bins):
            row = np.zeros(width)
            row[:occurring] = told.groups == place
            if missing is not None and told.folded == place:
                row[missing] = 1
            if count is None:
                own = first_bin + unknown_bins.index(place)
                truth[own] = row @ truth
                row[own] = -1
            rows.append(row)
            limits.append(float(count or 0))
        everyone = np.zeros(width)
        everyone[:first_bin] = 1
        rows.append(everyone)
        limits.append(float(everyone @ truth))
        small = [place for place, count in enumerate(told.counts) if count < self._floor]
        targets = [*range(occurring, width), *small]
        return csr_array(np.array(rows)), np.array(limits), truth, targets

    def _rows_of_mean(self, one: Rounded) -> _Below:
        """low · n ≤ Σ (x − centre) ≤ high · n, in units."""
        low, high = (end / self._unit for end in one.interval(self._mean))
        return [(self._row(self._away - high), 0.0), (self._row(low - self._away), 0.0)]

    def _rows_of_deviation(self, one: Rounded) -> _Below:
        """low² · (n − 1) ≤ Σ (x − centre)² ≤ high² · (n − 1), in units."""
        low, high = (
            (max(0.0, 1 + end / self._deviation) * self._spread) ** 2 if self._deviation else 0.0
            for end in one.interval(self._deviation)
        )
        squares = self._away**2
        return [(self._row(squares - high), -high), (self._row(low - squares), low)]

    def _row(self, of_values: Floats) -> Floats:
        row = np.zeros(self._equal.shape[1])
        row[: len(of_values)] = of_values
        return row
