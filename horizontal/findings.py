"""What a statistics job finds out. Nothing in it has to be kept back: see `release`, which makes it.

None stands for what is withheld. Where a column has fewer other or missing values than the floor, they are counted with
one of its groups (`with_others`), so that no total gives them away.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class HistogramBin:
    """Patients whose value lies from `low` up to `high`; None for an end that is open.

    The first and the last bin hold the few whose value lies beyond as well.
    """

    low: float | None
    high: float | None
    count: int | None


@dataclass(frozen=True)
class Quantile:
    """The pooled quantile lies from `low` to `high`, one bin of the histogram; `value` is interpolated within it.

    All three are None where the bin is open to that side, or too few patients lie beyond.
    """

    probability: float
    low: float | None
    high: float | None
    value: float | None


@dataclass(frozen=True)
class NumberSummary:
    """One number column.

    `mean` is right to half of `mean_step` and `standard_deviation` (n − 1) to half of `deviation_step`; a step of 0
    says that it is exact. `low` and `high` are edges at or beyond which at least the floor's number of patients lie.
    """

    name: str
    known: int | None
    missing: int | None
    mean: float | None
    mean_step: float
    standard_deviation: float | None
    deviation_step: float
    low: float | None
    high: float | None
    quantiles: tuple[Quantile, ...]
    histogram: tuple[HistogramBin, ...]
    with_others: int | None  # the bin in which the few whose value is missing are counted


@dataclass(frozen=True)
class CategorySummary:
    """One category column: its levels in the job's order with their counts.

    `rest` counts values that are no level of the job (`other`) and missing ones together; the two apart are told where
    both may be.
    """

    name: str
    levels: tuple[str, ...]
    counts: tuple[int | None, ...]
    other: int | None
    missing: int | None
    rest: int | None
    with_others: str | None  # the level with which the few others are counted


@dataclass(frozen=True)
class Cell:
    """A count. `groups` has one group for each of the table's columns; None stands for all of them: a margin."""

    groups: tuple[str | None, ...]
    count: int | None


@dataclass(frozen=True)
class CountedTable:
    """All cells of a table and its margins, the finest first and the total last."""

    name: str
    columns: tuple[str, ...]
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class CurveStep:
    """A stretch of a curve up to `time`: what happened in it, and the survival at its end with its 95 % interval."""

    time: float
    at_risk: int  # at its beginning
    events: int
    censored: int
    survival: float
    low: float
    high: float


@dataclass(frozen=True)
class Stratum:
    """A curve: of all patients (`column` and `level` None), or of one level. No steps: withheld."""

    column: str | None
    level: str | None
    patients: int | None
    steps: tuple[CurveStep, ...]


@dataclass(frozen=True)
class SurvivalCurves:
    """The curves of one request."""

    name: str
    unit: float
    until: float
    strata: tuple[Stratum, ...]


@dataclass(frozen=True)
class StatisticsResult:
    """All that a job found. `patients` is None, and everything else withheld, where they are fewer than the floor."""

    floor: int
    parties: tuple[str, ...]
    patients: int | None
    numbers: tuple[NumberSummary, ...]
    categories: tuple[CategorySummary, ...]
    tables: tuple[CountedTable, ...]
    curves: tuple[SurvivalCurves, ...]

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> StatisticsResult:
        """Read what `to_dict` made, or JSON of it. Raises `KeyError` or `TypeError` for anything else."""
        return cls(
            floor=content["floor"],
            parties=tuple(content["parties"]),
            patients=content["patients"],
            numbers=tuple(_number(one) for one in content["numbers"]),
            categories=tuple(
                CategorySummary(**{**one, "levels": tuple(one["levels"]), "counts": tuple(one["counts"])})
                for one in content["categories"]
            ),
            tables=tuple(_table(one) for one in content["tables"]),
            curves=tuple(_curves(one) for one in content["curves"]),
        )


def _number(one: Mapping[str, Any]) -> NumberSummary:
    quantiles = tuple(Quantile(**quantile) for quantile in one["quantiles"])
    return NumberSummary(
        **{**one, "quantiles": quantiles, "histogram": tuple(HistogramBin(**item) for item in one["histogram"])}
    )


def _table(one: Mapping[str, Any]) -> CountedTable:
    cells = tuple(Cell(tuple(cell["groups"]), cell["count"]) for cell in one["cells"])
    return CountedTable(one["name"], tuple(one["columns"]), cells)


def _curves(one: Mapping[str, Any]) -> SurvivalCurves:
    strata = tuple(
        Stratum(**{**stratum, "steps": tuple(CurveStep(**step) for step in stratum["steps"])})
        for stratum in one["strata"]
    )
    return SurvivalCurves(one["name"], one["unit"], one["until"], strata)
