"""What a statistics job has told, named again: events name groups by their places, and the job knows their names.

`restored` gives the shape of `horizontal.findings.StatisticsResult.to_dict`. Columns, tables and curves of which no
event came are left out: whose policy withholds them, the report says.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations, pairwise, product
from math import prod
from typing import Any

from ....horizontal.request import MISSING, OTHER
from ....parties.released import CategorySummary, Cells, NumberSummary, Steps
from ...journal import Journal
from ...report import count_of
from ..star import ColumnInStar
from .job import CurveForm, GroupingForm, StatisticsJob, TableForm

Told = dict[str, Any]


def restored(job: StatisticsJob, journal: Journal) -> Told:
    """All that was told. `floor` is the job's own; policies may have asked for more."""
    numbers = {event.column: event for _, event in journal.of(NumberSummary)}
    categories = {event.column: event for _, event in journal.of(CategorySummary)}
    named = [column.name for column in job.columns]
    apart = {name: _apart(event.with_others, event.missing) for name, event in numbers.items()}
    apart |= {name: _apart(event.with_others, event.rest) for name, event in categories.items()}
    return {
        "floor": job.at_least,
        "parties": list(job.names),
        "patients": count_of(journal, "patients", job.coordinator),
        "numbers": [_number(job, numbers[name]) for name in named if name in numbers],
        "categories": [_category(one, categories[one.name]) for one in job.columns if one.name in categories],
        "tables": [
            table for place, form in enumerate(job.tables) if (table := _table(job, journal, place, form, apart))
        ],
        "curves": [curve for place, form in enumerate(job.curves) if (curve := _curve(job, journal, place, form))],
    }


def bands(edges: Sequence[float]) -> tuple[str, ...]:
    """The names of the bands that a table counts a number by."""
    inner = [f"{low:g} to {high:g}" for low, high in pairwise(edges)]
    return (f"below {edges[0]:g}", *inner, f"{edges[-1]:g} and above")


def _apart(with_others: int | None, rest: int | None) -> bool:
    """Whether other and missing values have a group of their own in tables: if they are not counted with another one.

    Without a floor that group is left out where there are none; above it there cannot be none without a home.
    """
    return with_others is None and rest != 0


def _number(job: StatisticsJob, event: NumberSummary) -> Told:
    one = event.model_dump(exclude={"event", "column", "quantiles", "histogram"})
    return {
        "name": event.column,
        **one,
        "quantiles": [
            {"probability": probability, "low": low, "high": high, "value": value}
            for probability, (low, high, value) in zip(job.quantiles, event.quantiles, strict=False)
        ],
        "histogram": [{"low": low, "high": high, "count": count} for low, high, count in event.histogram],
    }


def _category(column: ColumnInStar, event: CategorySummary) -> Told:
    one = event.model_dump(exclude={"event", "column", "with_others", "counts"})
    folded = None if event.with_others is None else column.levels[event.with_others]
    return {
        "name": column.name,
        "levels": list(column.levels),
        "counts": list(event.counts),
        **one,
        "with_others": folded,
    }


def _table(job: StatisticsJob, journal: Journal, place: int, form: TableForm, apart: dict[str, bool]) -> Told | None:
    counts: dict[int, int | None] = {}
    for _, event in journal.of(Cells):
        if event.table == place:
            counts |= dict(enumerate(event.counts, event.first))
    names = _groups(job, form.by, apart, len(counts))
    if names is None:
        return None
    cells = [{"groups": groups, "count": counts.get(number)} for number, groups in enumerate(_margins(names))]
    return {"name": form.name, "columns": [by.column for by in form.by], "cells": cells}


def _groups(
    job: StatisticsJob, by: Sequence[GroupingForm], apart: dict[str, bool], cells: int
) -> list[tuple[str, ...]] | None:
    """The names of the groups of each column; None if no cell, or not so many, came.

    Where a column's own summary is withheld, the number of cells tells whether it has a group for the others.
    """
    own = [_own_groups(job, one) for one in by]
    may_be = [(apart[one.column],) if one.column in apart else (True, False) for one in by]
    for which in product(*may_be):
        names = [
            (*groups, OTHER if not one.edges else MISSING) if there else groups
            for one, groups, there in zip(by, own, which, strict=True)
        ]
        if prod(len(groups) + 1 for groups in names) == cells:
            return names
    return None


def _own_groups(job: StatisticsJob, one: GroupingForm) -> tuple[str, ...]:
    column = next(column for column in job.columns if column.name == one.column)
    return bands(one.edges) if one.edges else column.levels


def _margins(names: Sequence[tuple[str, ...]]) -> Iterable[list[str | None]]:
    """The groups of all cells in their order: the finest first, then every margin, the total last."""
    axes = range(len(names))
    for dimensions in range(len(names), -1, -1):
        for kept in combinations(axes, dimensions):
            yield from map(list, product(*(names[axis] if axis in kept else (None,) for axis in axes)))


def _curve(job: StatisticsJob, journal: Journal, place: int, form: CurveForm) -> Told | None:
    told: dict[int, list[Steps]] = {}
    for _, event in journal.of(Steps):
        if event.curve == place:
            told.setdefault(event.stratum, []).append(event)
    if not told:
        return None
    levels = {column.name: column.levels for column in job.columns}
    strata: list[tuple[str | None, str | None]] = [(None, None)]
    strata += [(name, level) for name in form.by for level in levels[name]]
    names = ("time", "at_risk", "events", "censored", "survival", "low", "high")
    return {
        "name": form.name,
        "unit": form.unit,
        "until": form.until,
        "strata": [
            {
                "column": column,
                "level": level,
                "patients": told[number][0].patients,
                "steps": [dict(zip(names, step, strict=True)) for part in told[number] for step in part.steps],
            }
            for number, (column, level) in enumerate(strata)
            if number in told
        ],
    }
