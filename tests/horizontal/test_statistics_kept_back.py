"""What is kept back of statistics cannot be computed from all that is told."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.optimize import linprog

from .statistics_cohort import REQUEST, make_cohort, number, run


@pytest.mark.parametrize(("rows", "seed", "few"), [(60, 0, False), (60, 1, False), (250, 2, False), (250, 3, True)])
def test_nothing_that_is_kept_back_can_be_computed_from_the_whole_result(rows: int, seed: int, few: bool) -> None:
    """An attacker with the result alone: tables, margins, levels, histograms; programs over the unknown cells."""
    floor = 5
    cohort = make_cohort(rows, seed=seed)
    if few:
        cohort.frame.loc[3:, "age"] = np.nan
    result = run(cohort, replace(REQUEST, floor=floor))["coordinator"]
    unknown: dict[Any, int] = {}
    equal: list[dict[int, float]] = []
    known: list[float] = []

    def place(key: Any) -> int:
        return unknown.setdefault(key, len(unknown))

    def state(parts: Sequence[Any], total: Any, count: int | None) -> None:
        """That parts add up to a total, and what is told of it."""
        equal.append({place(part): 1.0 for part in parts} | {place(total): -1.0})
        known.append(0.0)
        if count is not None:
            equal.append({place(total): 1.0})
            known.append(float(count))

    for table in result.tables:
        groups = [
            list(dict.fromkeys(cell.groups[axis] for cell in table.cells if cell.groups[axis])) for axis in range(2)
        ]
        for cell in table.cells:
            fixed = [[group] if group else groups[axis] for axis, group in enumerate(cell.groups)]
            inner = [(table.name, one) for one in itertools.product(*fixed)]
            named = frozenset((c, g) for c, g in zip(table.columns, cell.groups, strict=True) if g)
            state(inner, named, cell.count)
    age = number(result, "age")
    bands = [group for group in dict.fromkeys(cell.groups[0] for cell in result.tables[0].cells) if group]
    edges = [-np.inf, 40.0, 65.0, 80.0, np.inf]
    for band, (low, high) in zip(bands, itertools.pairwise(edges), strict=False):
        inside = [one for one in age.histogram if (one.low or -np.inf) >= low and (one.high or np.inf) <= high]
        if inside:
            state([("bin", one.low, one.high) for one in inside], frozenset({("age", band)}), None)
    for one in age.histogram:
        state([("bin", one.low, one.high)], ("told bin", one.low, one.high), one.count)
    for category in result.categories:
        for level, count in zip(category.levels, category.counts, strict=True):
            state([frozenset({(category.name, level)})], ("level", category.name, level), count)
    matrix = np.zeros((len(equal), len(unknown)))
    for row, places in enumerate(equal):
        for at, sign in places.items():
            matrix[row, at] += sign
    hidden = [
        key
        for table in result.tables
        for cell in table.cells
        if cell.count is None
        for key in [frozenset((c, g) for c, g in zip(table.columns, cell.groups, strict=True) if g)]
    ]
    assert rows > 100 or hidden
    for key in hidden:
        ends = []
        for sign in (1.0, -1.0):
            direction = np.zeros(len(unknown))
            direction[unknown[key]] = sign
            found = linprog(direction, A_eq=matrix, b_eq=known, bounds=(0, None))
            assert found.status == 0, found.message
            ends.append(sign * found.fun)
        assert ends[1] - ends[0] >= floor - 1e-6, (key, ends)
