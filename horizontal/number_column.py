"""One number column on its way from sums to a summary: its bins, its moments, and how they hang with the tables."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from .counting import MAGNITUDES, Range
from .disclosure import TOTAL, Counts, Key
from .findings import NumberSummary, Quantile
from .moments import Rounded, Teller, Told
from .quantiles import bounds, coarser, merged, quantiles, told_bins
from .request import StatisticsRequest

Floats = NDArray[np.float64]
ToldCounts = Mapping[Key, int | None]
_FACTORS = (1, 2, 4, 8, 16)  # so many bins may be told as one for the sake of mean and deviation
_PRECISIONS = (50, 10)  # to this part of a deviation, if there is a way, else to that


@dataclass(frozen=True)
class NumberColumn:
    """What the sums say about a column, none of it for telling as it is.

    `fine` are the counts of the full histogram with inner edges `cuts`; `total` is the sum of the values.
    """

    name: str
    range: Range
    magnitudes: Floats
    missing: int
    cuts: Floats
    fine: Floats
    total: float
    edges: tuple[float, ...]
    probabilities: tuple[float, ...]
    floor: int
    _means: dict[str, Rounded] = field(default_factory=dict, compare=False)

    @classmethod
    def of(
        cls,
        name: str,
        request: StatisticsRequest,
        floor: int,
        one: Range,
        counted: Mapping[str, Floats],
        binned: Mapping[str, Floats],
    ) -> NumberColumn:
        """Read a column's parts of the first two sums."""
        edges = request.edges.get(name, ())
        return cls(
            name=name,
            range=one,
            magnitudes=np.rint(counted[f"magnitudes {name}"]),
            missing=round(float(counted[f"missing {name}"][0])),
            cuts=one.cuts(request.bins, edges),
            fine=np.rint(binned[f"bins {name}"]),
            total=float(binned[f"sum {name}"][0]) * one.unit,
            edges=edges,
            probabilities=request.quantiles,
            floor=floor,
        )

    @cached_property
    def known(self) -> int:
        """How many values are known."""
        return round(float(self.magnitudes.sum()))

    @property
    def exact_mean(self) -> float:
        """The mean."""
        return self.total / self.known

    @cached_property
    def groups(self) -> list[tuple[int, int]]:
        """The bins of the full histogram that are told as one.

        Beside a histogram in which most bins hold one value, mean and deviation would have to be rounded a lot. So the
        bins are told more coarsely where that makes these precise.
        """
        if not self.range.asked:
            return []
        finest = merged(self.fine, self.cuts, self.edges, self.floor)
        if self.floor <= 1:
            return finest
        for precision in _PRECISIONS:
            for factor in _FACTORS:
                groups = coarser(finest, factor, self.cuts, self.edges)
                if self._are_told(groups, precision):
                    return groups
                if len(groups) <= len(self.edges) + 1:
                    break
        return finest

    def _are_told(self, groups: list[tuple[int, int]], precision: int) -> bool:
        """Whether mean and deviation can be told to so small a part of the deviation beside these bins."""
        folded, deviation = self._nearest(groups), self._binned_deviation
        sums = self._sums(groups, folded)
        bins = [count if count >= self.floor else None for count in sums]
        beside = self._beside(groups, bins, folded, hidden=folded is not None)
        teller = Teller(beside, self.floor, self.exact_mean, deviation, coarsest=deviation / precision)
        return teller.deviation(teller.mean()).value is not None

    @cached_property
    def folded(self) -> int | None:
        """The bin with which missing values are counted, if they are few."""
        return self._nearest(self.groups) if self.floor > 1 and self.range.asked else None

    def _nearest(self, groups: list[tuple[int, int]]) -> int | None:
        """The bin of the values nearest to the mean: it hardly depends on how many missing values are counted there."""
        if self.missing >= self.floor:
            return None
        values, counts, places = self._occurring
        number = np.searchsorted([end for _, end in groups], places, side="right")
        held = np.bincount(number, counts, minlength=len(groups))
        centre = np.bincount(number, counts * values, minlength=len(groups)) / np.maximum(held, 1)
        return int(np.argmin(np.where(held > 0, np.abs(centre - self.exact_mean), np.inf)))

    def _sums(self, groups: list[tuple[int, int]], folded: int | None) -> list[int]:
        sums = [round(float(self.fine[start:end].sum())) for start, end in groups]
        if folded is not None:
            sums[folded] += self.missing
        return sums

    @property
    def folded_band(self) -> int | None:
        """The band of a table with which they are counted."""
        return None if self.folded is None else self._band(self.folded)

    @property
    def bands(self) -> tuple[str, ...]:
        """The names of the bands that a table counts by."""
        if not self.edges:
            return ()
        names = [f"{low:g} to {high:g}" for low, high in zip(self.edges, self.edges[1:], strict=False)]
        return (f"below {self.edges[0]:g}", *names, f"{self.edges[-1]:g} and above")

    def state(self, counts: Counts) -> None:
        """Add the column's counts and equations. A table that groups by it has added its bands already."""
        if self.folded is None:
            counts.add((self.name, "known"), self.known)
            counts.add(self._missing_key, self.missing)
            counts.total(TOTAL, [(self.name, "known"), self._missing_key])
        sums = self._sums(self.groups, self.folded)
        for place, value in enumerate(sums):
            counts.add((self.name, "bin", place), value)
        everyone: Key = (self.name, "known") if self.folded is None else TOTAL
        bands: list[Key] = [frozenset({(self.name, band)}) for band in range(len(self.edges) + 1)]
        if self.edges and self.folded is None:
            counts.total(everyone, bands)
        for band, key in enumerate(bands if self.edges else [everyone]):
            inside = [place for place in range(len(sums)) if not self.edges or self._band(place) == band]
            if inside:
                counts.total(key, [(self.name, "bin", place) for place in inside])

    def mean(self, told: ToldCounts) -> Rounded:
        """The mean as it is told."""
        if self.name not in self._means:
            self._means[self.name] = self._mean(told)
        return self._means[self.name]

    def _mean(self, told: ToldCounts) -> Rounded:
        if not self.range.asked:
            return Rounded(None, 0.0)
        if self.floor <= 1:
            return Rounded(self.exact_mean, 0.0)
        return Teller(self._beside_told(told), self.floor, self.exact_mean, self._binned_deviation).mean()

    def summary(self, told: ToldCounts, centre: float, spread: Floats) -> NumberSummary:
        """All that is told; `spread` holds the sums of (x − centre) / unit and of its square."""
        if not self.range.asked:
            return self.withheld(told.get((self.name, "known")), told.get(self._missing_key))
        bins = told_bins(self.groups, self.cuts, self.range, self._bins(told))
        known = told.get((self.name, "known"))
        mean, deviation = self.mean(told), self._deviation(told, spread)
        low, high = bounds(bins, self.floor)
        return NumberSummary(
            name=self.name,
            known=known,
            missing=self.missing if self.floor <= 1 else told.get(self._missing_key),
            mean=mean.value,
            mean_step=mean.step,
            standard_deviation=deviation.value,
            deviation_step=deviation.step,
            low=low,
            high=high,
            quantiles=quantiles(bins, self.probabilities, self._known_between(told), self.folded, self.floor),
            histogram=tuple(bins),
            with_others=self.folded,
        )

    def withheld(self, known: int | None = None, missing: int | None = None) -> NumberSummary:
        """A summary that tells of counts at most."""
        nothing = tuple(Quantile(probability, None, None, None) for probability in self.probabilities)
        return NumberSummary(self.name, known, missing, None, 0.0, None, 0.0, None, None, nothing, (), None)

    @property
    def _missing_key(self) -> Key:
        return frozenset({(self.name, len(self.edges) + 1)}) if self.edges else (self.name, "missing")

    def _band(self, group: int) -> int:
        start = self.groups[group][0]
        return int(np.searchsorted(self.edges, self.cuts[start - 1], side="right")) if start and self.edges else 0

    def _bins(self, told: ToldCounts) -> list[int | None]:
        return [told[(self.name, "bin", place)] for place in range(len(self.groups))]

    def _known_between(self, told: ToldCounts) -> tuple[int, int]:
        """What is told of how many values are known."""
        everyone = self.known + self.missing
        if self.folded is not None:
            return everyone - self.floor + 1, everyone
        known = told.get((self.name, "known"))
        return (sum(count or 0 for count in self._bins(told)), everyone) if known is None else (known, known)

    def _deviation(self, told: ToldCounts, spread: Floats) -> Rounded:
        mean = self.mean(told)
        if mean.value is None or self.known < 2:
            return Rounded(None, 0.0)
        first, second = (float(value) for value in spread)
        squares = max(0.0, second - first * first / self.known)
        deviation = math.sqrt(squares / (self.known - 1)) * self.range.unit
        if self.floor <= 1:
            return Rounded(deviation, 0.0)
        if deviation < 1e-12 * max(1.0, abs(self.exact_mean)):  # constant: what is left is rounding
            deviation = 0.0
        return Teller(self._beside_told(told), self.floor, self.exact_mean, deviation).deviation(mean)

    def _beside_told(self, told: ToldCounts) -> Told:
        hidden = self.folded is not None or told.get((self.name, "known")) is None
        return self._beside(self.groups, self._bins(told), self.folded, hidden=hidden)

    def _beside(
        self, groups: list[tuple[int, int]], bins: list[int | None], folded: int | None, *, hidden: bool
    ) -> Told:
        """What is told beside the moments, and the values that occur behind it."""
        values, counts, places = self._occurring
        return Told(
            values=values,
            counts=counts,
            groups=np.searchsorted([end for _, end in groups], places, side="right"),
            width=(self.range.high - self.range.low) / (len(self.cuts) + 1),
            bins=bins,
            hidden=self.missing if hidden else None,
            folded=folded,
        )

    @cached_property
    def _binned_deviation(self) -> float:
        values, counts, _ = self._occurring
        centre = float((values * counts).sum() / counts.sum())
        return math.sqrt(float((counts * (values - centre) ** 2).sum()) / max(1.0, counts.sum() - 1))

    @cached_property
    def _occurring(self) -> tuple[Floats, Floats, NDArray[np.int64]]:
        """Values that occur, to within a bin; how often; and their bins. Those beyond the range by their magnitude."""
        edges = np.concatenate([[self.range.low], self.cuts, [self.range.high]])
        inside = np.maximum(edges[1:], edges[:-1]) / 2 + np.minimum(edges[1:], edges[:-1]) / 2
        left = self.fine.copy()
        values: list[float] = []
        counts: list[float] = []
        places: list[int] = []
        outer = np.concatenate([[2 * MAGNITUDES[0]], MAGNITUDES, [2 * MAGNITUDES[-1]]])
        for bucket in np.flatnonzero(self.magnitudes):
            if self.range.low <= outer[bucket] and outer[bucket + 1] <= self.range.high:
                continue
            value = (outer[bucket] + outer[bucket + 1]) / 2
            place = int(np.searchsorted(self.cuts, value, side="right"))
            count = min(self.magnitudes[bucket], left[place])
            left[place] -= count
            if count:
                values, counts, places = [*values, value], [*counts, count], [*places, place]
        occurring = np.flatnonzero(left)
        return (
            np.concatenate([inside[occurring], values]),
            np.concatenate([left[occurring], counts]),
            np.concatenate([occurring, np.array(places, dtype=np.int64)]),
        )
