"""What a party counts in its own rows: the vectors that statistics add up over all parties.

A vector is a row of parts, whose names and shapes follow from the request and from what the coordinator has announced;
never from the party's own data. `counted`, `binned` and `spread` are the three vectors of `statistics`.

Numbers are first counted by magnitude: sign, power of two, quarter. That needs to know nothing about them, and gives a
range for the histogram without anyone's least or greatest value.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..parties.errors import InputError
from ..parties.table import Column
from .request import Curve, StatisticsRequest
from .survival import grid_counts

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]
Shapes = dict[str, tuple[int, ...]]

_POSITIVE = [math.ldexp(1 + quarter / 4, power) for power in range(-40, 40) for quarter in range(4)]
_ZERO_WIDTH = 2 * _POSITIVE[0]  # a range no wider holds zeros alone, or next to zero
_MOST_UNITS = 2.0**40  # squares of that many, of 16,000 patients, still fit the sum's words
MAGNITUDES: Floats = np.array([-edge for edge in reversed(_POSITIVE)] + [0.0, *_POSITIVE])  # edges between the counts


@dataclass(frozen=True)
class Range:
    """Where the histogram of a number column lies, and the unit that sums of it are counted in: public."""

    low: float
    high: float

    @property
    def asked(self) -> bool:
        """Whether anything more is asked of the column; nothing is where too few values are known."""
        return self.low < self.high

    @property
    def unit(self) -> float:
        """A power of two: dividing by it loses nothing, and squares of what is left fit the sum's words."""
        width = self.high - self.low
        return 2.0 ** math.ceil(math.log2(width)) if width > _ZERO_WIDTH else 1.0

    def cuts(self, bins: int, edges: Sequence[float] = ()) -> Floats:
        """The inner edges of `bins` equal bins, and those of the bands that a table counts by, wherever they lie."""
        if not self.asked or not bins:
            return np.zeros(0)
        equal = self.low + np.arange(1, bins) * ((self.high - self.low) / bins)
        return np.unique(np.concatenate([equal, np.array(edges, dtype=np.float64)]))


class OwnRows:
    """One party's columns, coded. `times` holds duration and event of each curve, both ``(rows,)``.

    Raises `InputError` ``data.column_unknown`` for a column of the request that is not there, and ``data.too_large``
    for a value so large beside the others that a sum of squares could not hold it.
    """

    def __init__(
        self,
        request: StatisticsRequest,
        columns: Sequence[Column],
        times: Mapping[str, tuple[NDArray[Any], NDArray[Any]]],
        rows: int,
        *,
        party: str,
    ) -> None:
        found = {column.name: column for column in columns}
        for name in (spec.name for spec in request.columns):
            if name not in found:
                raise InputError("data.column_unknown", party=party, column=name)
        self._request, self._rows, self._party = request, rows, party
        self._times = {curve.name: times[curve.name] for curve in request.curves}
        self._numbers: dict[str, Floats] = {
            spec.name: found[spec.name].values.astype(np.float64) for spec in request.numbers
        }
        self._codes = {
            spec.name: _codes(found[spec.name].values, spec.levels) for spec in request.categories
        }  # levels, other, missing
        self._known = {name: values[~np.isnan(values)] for name, values in self._numbers.items()}

    def digest(self) -> str:
        """SHA-256 of all that is counted here, as hex: the same rows give the same numbers, in whatever order."""
        parts = [*self._numbers.values(), *(code.astype(np.float64) for code in self._codes.values())]
        parts += [one.astype(np.float64) for pair in self._times.values() for one in pair]
        table = np.stack(parts, axis=1) if parts else np.zeros((self._rows, 0))
        table = np.where(np.isnan(table), np.inf, table) + 0.0  # one zero, one way to be missing
        table = table[np.lexsort(table.T[::-1])] if parts else table
        return hashlib.sha256(f"{table.shape}".encode() + table.astype("<f8").tobytes()).hexdigest()

    def counted(self) -> Floats:
        """The first vector, see `counted_shapes`."""
        parts: list[Floats] = [np.array([float(self._rows)])]
        for name in self._numbers:
            places = np.searchsorted(MAGNITUDES, self._known[name], side="right")
            parts.append(_count(places, len(MAGNITUDES) + 1))
            parts.append(np.array([float(self._rows - len(self._known[name]))]))
        for spec in self._request.categories:
            parts.append(_count(self._codes[spec.name], len(spec.levels) + 2))
        for table in self._request.tables:
            sizes = [self._request.groups(by.column) + 1 for by in table.by]
            place = np.zeros(self._rows, dtype=np.int64)
            for by, size in zip(table.by, sizes, strict=True):
                place = place * size + np.minimum(self._groups(by.column), size - 1)
            parts.append(_count(place, math.prod(sizes)))
        for curve in self._request.curves:
            parts.append(self._curve(curve))
        return np.concatenate(parts)

    def binned(self, ranges: Sequence[Range]) -> Floats:
        """The second vector, see `binned_shapes`."""
        parts: list[Floats] = []
        for (name, known), one in zip(self._known.items(), ranges, strict=True):
            cuts = one.cuts(self._request.bins, self._request.edges.get(name, ()))
            places = np.searchsorted(cuts, known, side="right")
            parts.append(_count(places, len(cuts) + 1) if one.asked else np.zeros(len(cuts) + 1))
            parts.append(np.array([math.fsum(self._units(name, known, one))]))
        return np.concatenate([np.zeros(1), *parts])

    def spread(self, ranges: Sequence[Range], centres: Sequence[float]) -> Floats:
        """The third vector: of each number the sums of (x − centre) / unit and of its square."""
        found = [0.0]
        for (name, known), one, centre in zip(self._known.items(), ranges, centres, strict=True):
            away = self._units(name, known - centre, one)
            found += [math.fsum(away), math.fsum(away * away)]
        return np.array(found)

    def _units(self, name: str, values: Floats, one: Range) -> Floats:
        """Values in units; none if nothing is asked."""
        if not one.asked:
            return np.zeros(0)
        found = values / one.unit
        if found.size and not np.abs(found).max() < _MOST_UNITS:
            raise InputError("data.too_large", party=self._party, column=name)
        return found

    def _groups(self, name: str) -> Codes:
        """The groups of a table's column; what belongs to none comes last."""
        if name in self._codes:
            return self._codes[name]
        values, edges = self._numbers[name], self._request.edges[name]
        places = np.searchsorted(np.array(edges), np.nan_to_num(values), side="right").astype(np.int64)
        return np.where(np.isnan(values), len(edges) + 1, places)

    def _curve(self, curve: Curve) -> Floats:
        durations, events = self._times[curve.name]
        parts = [grid_counts(durations, events, curve)]
        for name in curve.by:
            levels = len(self._request.spec(name).levels)
            code = np.minimum(self._codes[name], levels)
            parts += [
                grid_counts(durations[code == level], events[code == level], curve) for level in range(levels + 1)
            ]
        return np.concatenate([part.reshape(-1) for part in parts])


def counted_shapes(request: StatisticsRequest) -> Shapes:
    """Rows; of each number its counts by magnitude and its missing values; of each category its levels, other and
    missing values; all tables; of each curve the events and censorings by time, of all and of each stratum."""
    shapes: Shapes = {"rows": (1,)}
    for spec in request.numbers:
        shapes[f"magnitudes {spec.name}"] = (len(MAGNITUDES) + 1,)
        shapes[f"missing {spec.name}"] = (1,)
    for spec in request.categories:
        shapes[f"levels {spec.name}"] = (len(spec.levels) + 2,)
    for table in request.tables:
        shapes[f"table {table.name}"] = tuple(request.groups(by.column) + 1 for by in table.by)
    for curve in request.curves:
        strata = 1 + sum(len(request.spec(name).levels) + 1 for name in curve.by)
        shapes[f"curve {curve.name}"] = (strata, 2, curve.times)
    return shapes


def binned_shapes(request: StatisticsRequest, ranges: Sequence[Range]) -> Shapes:
    """Of each number its histogram and its sum in units."""
    shapes: Shapes = {"nothing": (1,)}  # a vector is never empty
    for spec, one in zip(request.numbers, ranges, strict=True):
        shapes[f"bins {spec.name}"] = (len(one.cuts(request.bins, request.edges.get(spec.name, ()))) + 1,)
        shapes[f"sum {spec.name}"] = (1,)
    return shapes


def spread_shapes(request: StatisticsRequest) -> Shapes:
    """Of each number two sums."""
    nothing: Shapes = {"nothing": (1,)}
    return nothing | {f"spread {spec.name}": (2,) for spec in request.numbers}


def size_of(shapes: Shapes) -> int:
    """The length of a vector of these parts."""
    return sum(math.prod(shape) for shape in shapes.values())


def parts_of(vector: Floats, shapes: Shapes) -> dict[str, Floats]:
    """Take a vector apart."""
    found, start = {}, 0
    for name, shape in shapes.items():
        found[name] = vector[start : start + math.prod(shape)].reshape(shape)
        start += math.prod(shape)
    return found


def _codes(values: NDArray[Any], levels: Sequence[str]) -> Codes:
    """The place of each value's level; then those that are none, then missing ones."""
    place = {level: index for index, level in enumerate(levels)}
    missing = len(levels) + 1
    found = (missing if value is None else place.get(value, len(levels)) for value in values.tolist())
    return np.array(list(found), dtype=np.int64)


def _count(places: Codes, size: int) -> Floats:
    return np.bincount(places, minlength=size).astype(np.float64)
