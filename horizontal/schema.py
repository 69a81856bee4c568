"""Whether a party's data are what the job's columns say, and how far they lie from the others' data.

The job names its columns: a data dictionary that all parties agree on, and that all of them know. Each party compares
its own data with it before any training.

**Who learns what**: of differences, the names of the job's own columns and one of four words for each, never a value or
a unit of the party's. Of drift, how far the party's mean lies from the pooled one and the share of missing values, each
only where it stands for as many patients as the cohort floor says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..parties.table import Column, ColumnKind
from .codes import NumberCode

DifferenceKind = Literal["missing", "type", "unit", "levels"]
_STEPS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)  # of a drift, in pooled scales
MOST_OUTSIDE = 0.5  # of a category's known values; the job's levels may leave out rare ones


@dataclass(frozen=True)
class ColumnSpec:
    """One column of a job: what every party brings. A category has its levels, a number may have its unit."""

    name: str
    kind: ColumnKind
    levels: tuple[str, ...] = ()
    unit: str | None = None


@dataclass(frozen=True)
class Difference:
    """What a party's data lack: the column, its kind, its unit, or values among the job's levels."""

    column: str
    what: DifferenceKind


@dataclass(frozen=True)
class Drift:
    """How far a party's column lies from the pooled one.

    `smd` is the standardised mean difference (party's mean − pooled mean) / pooled scale, of numbers alone; `missing`
    the share of missing values. Each is None where it stands for fewer patients than the floor. With a floor the
    difference is rounded: an exact mean of 0 and 1 would count the ones.
    """

    column: str
    smd: float | None
    missing: float | None


def differences(
    specs: Sequence[ColumnSpec],
    kinds: Mapping[str, ColumnKind | None],
    columns: Sequence[Column],
    units: Mapping[str, str],
) -> list[Difference]:
    """What differs, at most one thing a column, in the job's order.

    `kinds` are those of the party's dataset (`Store.kinds`), `units` what its `party.yaml` declares. `columns` are the
    values of those that `readable` names; without them, levels are not compared.
    """
    values = {column.name: column for column in columns}
    found = []
    for spec in specs:
        if spec.name not in kinds:
            found.append(Difference(spec.name, "missing"))
        elif kinds[spec.name] != spec.kind:
            found.append(Difference(spec.name, "type"))
        elif spec.unit is not None and units.get(spec.name) != spec.unit:
            found.append(Difference(spec.name, "unit"))
        elif spec.name in values and _other_levels(spec, values[spec.name]):
            found.append(Difference(spec.name, "levels"))
    return found


def readable(specs: Sequence[ColumnSpec], kinds: Mapping[str, ColumnKind | None]) -> list[str]:
    """The job's columns that the dataset has and that are of the right kind."""
    return [spec.name for spec in specs if kinds.get(spec.name) == spec.kind]


def drift(columns: Sequence[Column], numbers: Sequence[NumberCode], floor: int) -> list[Drift]:
    """How far the party's columns lie from the pooled means and scales, which `numbers` hold.

    A share of missing values times the rows is a count, so it is told only where `floor` patients have the value and
    `floor` lack it: none at all is a small count too.
    """
    pooled = {code.name: code for code in numbers}
    found = []
    for column in columns:
        missing = _missing(column)
        known, lacking = int((~missing).sum()), int(missing.sum())
        smd = None
        if column.name in pooled and known >= max(1, floor):
            code = pooled[column.name]
            smd = _rounded(column.values[~missing].astype(np.float64), code, floor)
        told = known >= floor and lacking >= floor and len(missing) > 0
        found.append(Drift(column.name, smd, lacking / len(missing) if told else None))
    return found


def _rounded(values: NDArray[np.float64], code: NumberCode, floor: int) -> float | None:
    """The standardised mean difference, so rounded that no value's count can be told to within the floor.

    If `floor` patients had the value next to theirs, the mean would move by floor · gap / known, with the gap between
    two values; that has to be told as the same. Where all have one value, the other one is that of a column of two
    values with the pooled mean and scale. None where it would be rounded to more than a scale.
    """
    away = float(values.mean()) - code.mean
    if floor <= 1:
        return away / code.scale
    least, most = float(values.min()), float(values.max())
    if least == most:
        if not away:
            return None
        other = least - away - code.scale**2 / away
        least, most = min(least, other), max(most, other)
    gaps = np.diff(np.unique([*values, least, most]))
    moved = floor * float(gaps.min()) / len(values)
    others = [one for one in (away - moved, away + moved) if least <= one + code.mean <= most]
    for step in _STEPS:
        told = round(away / code.scale / step)
        if any(round(one / code.scale / step) == told for one in others):
            return float(f"{told * step:.12g}")
    return None


def _missing(column: Column) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    if column.kind == "number":
        return np.asarray(np.isnan(column.values))
    return np.array([value is None for value in column.values], dtype=bool)


def _other_levels(spec: ColumnSpec, column: Column) -> bool:
    if spec.kind != "category":
        return False
    levels = frozenset(spec.levels)
    known = [value for value in column.values.tolist() if value is not None]
    return sum(value not in levels for value in known) > MOST_OUTSIDE * len(known)
