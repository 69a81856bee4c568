"""From sums over all parties to what may be told of them: `StatisticsResult`.

Everything that is told goes through one system of counts (`disclosure`): totals, tables with all their margins, levels,
known and missing values, bins of histograms. So a count that stands in two places is kept back in both, and one that
follows from others is seen to. Three things keep the number of gaps small, and give nothing away:

- fewer other and missing values than the floor are counted with the largest level of a category, or with the bin of a
  number that holds the mean, everywhere: then all totals still agree, and there is no small count to protect;
- small neighbouring bins are told as one (`quantiles`), and bins never cross the bands of a table;
- curves of strata whose number of patients is kept back are kept back.

Mean and standard deviation are told as exactly as the counts allow (`moments`), and histograms as finely as mean and
deviation allow.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from .counting import Range
from .disclosure import TOTAL, Counts, Key
from .findings import (
    CategorySummary,
    Cell,
    CountedTable,
    NumberSummary,
    StatisticsResult,
    Stratum,
    SurvivalCurves,
)
from .number_column import NumberColumn
from .request import MISSING, OTHER, CountTable, Curve, StatisticsRequest
from .schema import ColumnSpec
from .survival import steps_of, stretches, told_curves

Floats = NDArray[np.float64]
Parts = Mapping[str, Floats]


@dataclass(frozen=True)
class _Groups:
    """The groups of a table's column: their names, and with which one the few others are counted."""

    names: tuple[str, ...]
    folded: int | None

    def of(self, counts: Floats, axis: int) -> Floats:
        """Counts by these groups from counts with those of no group last."""
        last = counts.shape[axis] - 1
        groups, rest = np.split(counts, [last], axis=axis)
        if self.folded is not None:
            inner = [slice(None)] * counts.ndim
            inner[axis] = slice(self.folded, self.folded + 1)
            groups = groups.copy()
            groups[tuple(inner)] += rest
        return groups if len(self.names) == last else counts


class Release:
    """Decides what is told. `counted` and `binned` are the parts of the first two sums (see `counting`)."""

    def __init__(
        self, request: StatisticsRequest, floor: int, ranges: Mapping[str, Range], counted: Parts, binned: Parts
    ) -> None:
        self._request, self._floor, self._counted = request, floor, counted
        self._patients = round(float(counted["rows"][0]))
        self._numbers = [
            NumberColumn.of(spec.name, request, floor, ranges[spec.name], counted, binned) for spec in request.numbers
        ]
        self._groups = {name: self._groups_of(name) for name in self._grouped()}
        self._told = self._system().told(floor) if self.enough else {}

    @property
    def enough(self) -> bool:
        """Whether there are as many patients as the floor asks."""
        return self._patients >= self._floor

    @cached_property
    def centres(self) -> list[float]:
        """What the deviations are taken from: each number's mean, as exactly as it is told."""
        return [number.mean(self._told).value or 0.0 if self.enough else 0.0 for number in self._numbers]

    def result(self, spread: Parts, parties: tuple[str, ...]) -> StatisticsResult:
        """All that is told, with the third sum's parts."""
        request = self._request
        return StatisticsResult(
            floor=self._floor,
            parties=parties,
            patients=self._patients if self.enough else None,
            numbers=tuple(self._number(place, spread) for place in range(len(self._numbers))),
            categories=tuple(self._category(spec) for spec in request.categories),
            tables=tuple(self._table(table) for table in request.tables),
            curves=tuple(self._curves(curve) for curve in request.curves),
        )

    def _grouped(self) -> list[str]:
        return [spec.name for spec in self._request.categories] + list(self._request.edges)

    def _groups_of(self, name: str) -> _Groups:
        spec = self._request.spec(name)
        if spec.kind == "number":
            number = next(one for one in self._numbers if one.name == name)
            bands, folded = number.bands, number.folded_band
            rest, label = number.missing, MISSING
        else:
            counts = self._counted[f"levels {name}"]
            bands, rest, label = spec.levels, round(float(counts[-2:].sum())), OTHER
            few = self._floor > 1 and rest < self._floor
            folded = int(np.argmax(counts[: len(bands)])) if few else None
        apart = folded is None and (rest > 0 or self._floor > 1)
        return _Groups((*bands, label) if apart else tuple(bands), folded)

    def _system(self) -> Counts:
        counts = Counts()
        counts.add(TOTAL, self._patients)
        for spec in self._request.categories:
            groups = self._groups[spec.name]
            raw = self._counted[f"levels {spec.name}"]
            found = groups.of(np.append(raw[:-2], raw[-2:].sum()), 0)
            _add_table(counts, found, (spec.name,))
            if groups.folded is None and len(found) > len(spec.levels) and min(raw[-2:]) >= self._floor:
                for key, value in zip((OTHER, MISSING), raw[-2:], strict=True):
                    counts.add((spec.name, key), round(float(value)))
                counts.total(_key({spec.name: len(spec.levels)}), [(spec.name, OTHER), (spec.name, MISSING)])
        for table in self._request.tables:
            _add_table(counts, self._folded(table), tuple(by.column for by in table.by))
        for number in self._numbers:
            number.state(counts)
        return counts

    def _folded(self, table: CountTable) -> Floats:
        found = self._counted[f"table {table.name}"]
        for axis, by in enumerate(table.by):
            found = self._groups[by.column].of(found, axis)
        return found

    def _number(self, place: int, spread: Parts) -> NumberSummary:
        number = self._numbers[place]
        if not self.enough:
            return number.withheld()
        return number.summary(self._told, self.centres[place], spread[f"spread {number.name}"])

    def _category(self, spec: ColumnSpec) -> CategorySummary:
        groups = self._groups[spec.name]
        counts = tuple(self._told.get(_key({spec.name: place})) for place in range(len(spec.levels)))
        other, missing = (self._told.get((spec.name, key)) for key in (OTHER, MISSING))
        if self._floor <= 1:
            other, missing = (round(float(value)) for value in self._counted[f"levels {spec.name}"][-2:])
        rest = None if groups.folded is not None else self._told.get(_key({spec.name: len(spec.levels)}))
        if self._floor <= 1:
            rest = (other or 0) + (missing or 0)
        folded = None if groups.folded is None or not self.enough else spec.levels[groups.folded]
        return CategorySummary(spec.name, spec.levels, counts, other, missing, rest, folded)

    def _table(self, table: CountTable) -> CountedTable:
        columns = tuple(by.column for by in table.by)
        if not self.enough:
            return CountedTable(table.name, columns, ())
        names = [self._groups[column].names for column in columns]
        cells = []
        for kept, places in _margins(tuple(len(one) for one in names)):
            at = dict(zip(kept, places, strict=True))
            groups = tuple(names[axis][at[axis]] if axis in at else None for axis in range(len(columns)))
            cells.append(Cell(groups, self._told[_key({columns[axis]: place for axis, place in at.items()})]))
        return CountedTable(table.name, columns, tuple(cells))

    def _curves(self, curve: Curve) -> SurvivalCurves:
        counts = self._counted[f"curve {curve.name}"]
        if not self.enough:
            return SurvivalCurves(curve.name, curve.unit, curve.until, (Stratum(None, None, None, ()),))
        everyone, start, floor = counts[0], 1, self._floor
        happened = np.flatnonzero(everyone[0]).tolist()
        ends = happened if floor <= 1 else stretches([everyone], range(curve.times), floor)
        strata = [Stratum(None, None, self._patients, steps_of(everyone, ends, curve.unit))]
        for column in curve.by:
            levels = self._request.spec(column).levels
            found = self._groups[column].of(counts[start : start + len(levels) + 1], 0)
            start += len(levels) + 1
            patients = {level: self._told[_key({column: place})] for place, level in enumerate(levels)}
            visible = [level for level, count in patients.items() if count is not None]
            steps = told_curves(everyone, dict(zip(levels, found, strict=False)), visible, ends, floor, curve.unit)
            strata += [Stratum(column, level, patients[level], steps.get(level, ())) for level in levels]
        return SurvivalCurves(curve.name, curve.unit, curve.until, tuple(strata))


def _key(groups: Mapping[str, int]) -> Key:
    """A count of a table, whichever: the patients in one group of each of some columns."""
    return frozenset(groups.items())


def _margins(sizes: tuple[int, ...]) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """The finest cells first, then every margin, the total last: (axes that are kept, groups on them)."""
    for dimensions in range(len(sizes), -1, -1):
        for kept in combinations(range(len(sizes)), dimensions):
            for places in np.ndindex(*(sizes[axis] for axis in kept)):
                yield kept, places


def _add_table(counts: Counts, table: Floats, columns: tuple[str, ...]) -> None:
    """A table's cells and margins, and that each margin is the sum over one more column."""
    for kept, places in _margins(table.shape):
        at = tuple(places[kept.index(axis)] if axis in kept else slice(None) for axis in range(table.ndim))
        groups = {columns[axis]: place for axis, place in zip(kept, places, strict=True)}
        counts.add(_key(groups), round(float(table[at].sum())))
    for kept, places in _margins(table.shape):
        groups = {columns[axis]: place for axis, place in zip(kept, places, strict=True)}
        for axis in set(range(table.ndim)) - set(kept):
            parts = [_key({**groups, columns[axis]: place}) for place in range(table.shape[axis])]
            counts.total(_key(groups), parts)
