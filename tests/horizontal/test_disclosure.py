"""The small-cell rule, attacked: what is kept back cannot be computed from everything that is told."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from isthmus.horizontal.disclosure import TOTAL, Counts, suppressed_counts
from isthmus.horizontal.moments import Rounded, Teller, Told
from isthmus.horizontal.release import _add_table

Table = np.ndarray[Any, np.dtype[np.float64]]


def counts_of(*tables: tuple[Table, tuple[str, ...]]) -> Counts:
    counts = Counts()
    for table, columns in tables:
        _add_table(counts, np.asarray(table, dtype=np.float64), columns)
    return counts


def told_table(table: Sequence[Sequence[int]], floor: int) -> list[list[int | None]]:
    """A two-way table as it is told, with its row sums, column sums and total."""
    array = np.array(table, dtype=np.float64)
    told = counts_of((array, ("row", "column"))).told(floor)
    rows, columns = array.shape
    found = [
        [told[frozenset({("row", row), ("column", column)})] for column in range(columns)]
        + [told[frozenset({("row", row)})]]
        for row in range(rows)
    ]
    return [*found, [*(told[frozenset({("column", column)})] for column in range(columns)), told[TOTAL]]]


def attacked(joint: Table, views: Sequence[Sequence[int]], told: dict[Any, int | None], columns: Sequence[str]) -> None:
    """Attack tables that are views of one joint table, by linear programs over the joint table's own cells.

    The programs know nothing of margins and equations: every told count is a sum of cells that nobody knows.
    """
    size = joint.size
    places = np.arange(size).reshape(joint.shape)
    rows: dict[Any, Table] = {}
    for view in views:
        for kept in itertools.chain.from_iterable(itertools.combinations(view, n) for n in range(len(view) + 1)):
            for groups in np.ndindex(*(joint.shape[axis] for axis in kept)):
                row = np.zeros(size)
                index = tuple(groups[kept.index(axis)] if axis in kept else slice(None) for axis in range(joint.ndim))
                row[places[index].ravel()] = 1
                rows[frozenset((columns[axis], group) for axis, group in zip(kept, groups, strict=True))] = row
    known = [(row, told[key]) for key, row in rows.items() if told[key] is not None]
    for key, row in rows.items():
        if told[key] is not None:
            continue
        ends = []
        for sign in (1, -1):
            equal = {"A_eq": np.array([one for one, _ in known]), "b_eq": [value for _, value in known]}
            found = linprog(sign * row, **(equal if known else {}), bounds=(0, None))
            ends.append(np.inf if found.status == 3 else sign * found.fun)
        assert abs(ends[1]) - ends[0] >= FLOOR - 1e-6, (key, ends)


FLOOR = 5


def test_small_counts_and_what_would_give_them_away_are_kept_back() -> None:
    table = [[20, 3, 30], [15, 25, 35], [40, 50, 60]]
    assert told_table(table, 5) == [
        [None, None, 30, 53],
        [None, None, 35, 75],
        [40, 50, 60, 150],
        [75, 78, 125, 278],
    ]


def test_zero_is_a_small_count() -> None:
    assert told_table([[20, 0], [30, 40]], 5) == [[None, None, 20], [None, None, 70], [50, 40, 90]]


def test_two_small_counts_with_a_small_sum_are_not_protected_by_each_other() -> None:
    told = told_table([[1, 2, 30, 40], [50, 60, 70, 80]], 5)
    assert told[0] == [None, None, None, 40, 73]


def test_a_total_of_two_is_not_told_through_its_parts() -> None:
    counts = Counts()
    for key, value in ((TOTAL, 100), ("known", 98), ("missing", 2)):
        counts.add(key, value)
    counts.total(TOTAL, ["known", "missing"])
    assert counts.told(5) == {TOTAL: 100, "known": None, "missing": None}


def test_without_a_floor_everything_is_told() -> None:
    assert told_table([[0, 1], [2, 3]], 1) == [[0, 1, 1], [2, 3, 5], [2, 4, 6]]


def test_a_margin_of_two_tables_is_one_count() -> None:
    counts = counts_of((np.array([[9, 9], [9, 9]]), ("a", "b")), (np.array([[10, 8], [7, 11]]), ("a", "c")))
    assert len(counts.values) == 1 + 3 * 2 + 2 * 4
    with pytest.raises(ValueError, match="two values"):
        counts_of((np.array([[9, 9]]), ("a", "b")), (np.array([[9, 8]]), ("a", "c")))


def test_the_choice_is_the_same_every_time() -> None:
    table = np.random.default_rng(1).poisson(7, (12, 6))
    counts = [counts_of((table, ("a", "b"))) for _ in range(3)]
    assert len({suppressed_counts(one, 5) for one in counts}) == 1


small = st.integers(0, 12)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.lists(small, min_size=3, max_size=3), min_size=2, max_size=4))
def test_no_count_of_a_table_can_be_narrowed_down(table: list[list[int]]) -> None:
    joint = np.array(table, dtype=np.float64)
    told = counts_of((joint, ("a", "b"))).told(FLOOR)
    attacked(joint, [(0, 1)], told, ("a", "b"))


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(0, 9), min_size=18, max_size=18))
def test_no_count_can_be_narrowed_down_across_tables_that_share_margins(cells: list[int]) -> None:
    joint = np.array(cells, dtype=np.float64).reshape(3, 2, 3)
    names = ("a", "b", "c")
    views = [(0, 1), (1, 2), (0, 2)]
    tables = [
        (joint.sum(axis=next(axis for axis in range(3) if axis not in view)), tuple(names[axis] for axis in view))
        for view in views
    ]
    told = counts_of(*tables).told(FLOOR)
    attacked(joint, views, told, names)


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(0, 9), min_size=12, max_size=12))
def test_no_count_can_be_narrowed_down_in_a_table_of_three_columns(cells: list[int]) -> None:
    joint = np.array(cells, dtype=np.float64).reshape(2, 2, 3)
    told = counts_of((joint, ("a", "b", "c"))).told(FLOOR)
    attacked(joint, [(0, 1, 2)], told, ("a", "b", "c"))


def tables_with(rows: Sequence[int | None], columns: Sequence[int | None], told: Sequence[int | None]) -> Iterator[Any]:
    """Every 2 × 3 table of whole numbers that agrees with what is told, by trying them all."""
    for cells in itertools.product(*(range(16) if value is None else (value,) for value in told)):
        table = np.array(cells).reshape(2, 3)
        if all(known in (None, sums) for known, sums in zip(rows, table.sum(axis=1), strict=True)) and all(
            known in (None, sums) for known, sums in zip(columns, table.sum(axis=0), strict=True)
        ):
            yield table


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(0, 10), min_size=6, max_size=6))
def test_trying_all_whole_numbers_narrows_no_count_down(cells: list[int]) -> None:
    table = np.array(cells).reshape(2, 3)
    *body, last = told_table(table.tolist(), 3)
    told = [value for row in body for value in row[:3]]
    if sum(value is None for value in told) > 4:
        return  # too many to try
    found = list(tables_with([row[3] for row in body], last[:3], told))
    total = last[3]
    possible = [one for one in found if total is None or one.sum() == total]
    for place, value in enumerate(told):
        values = [one.ravel()[place] for one in possible]
        assert cells[place] in values
        assert value is not None or max(values) - min(values) >= 3


def test_a_year_of_weeks_by_region_takes_seconds() -> None:
    generator = np.random.default_rng(1)
    table = generator.poisson(8.4 * generator.gamma(2, 0.5, (52, 1)), (52, 8))
    counts = counts_of((table, ("week", "region")))
    start = time.process_time()
    suppressed = suppressed_counts(counts, 5)
    assert time.process_time() - start < 60  # about 0.2 s; whoever makes it slow will notice
    small_ones = {place for place, value in enumerate(counts.values) if value < 5}
    assert small_ones <= suppressed and len(suppressed) < len(small_ones) + 40


# --- means, deviations and histograms beside the counts --------------------------------------------------------------


def told_of(
    values: Sequence[float], counts: Sequence[int], groups: Sequence[int], **more: Any
) -> tuple[Told, float, float]:
    """What is told of a column with these values, with its mean and standard deviation."""
    value, count, group = (np.array(one) for one in (values, counts, groups))
    bins: list[int | None] = [int(count[group == place].sum()) for place in range(group.max() + 1)]
    hidden, folded = more.get("hidden"), more.get("folded")
    if folded is not None:
        bins[folded] += hidden
    every = np.repeat(value, count)
    told = Told(value.astype(float), count.astype(float), group, more.get("width", 0.01), bins, hidden, folded)
    return told, float(every.mean()), float(every.std(ddof=1))


def test_the_mean_of_a_rare_flag_does_not_tell_how_many_have_it() -> None:
    told, mean, deviation = told_of([0, 1], [998, 2], [0, 0])
    found = Teller(told, 5, mean, deviation).mean()
    assert found.value is not None and found.step > 0
    ones = [n for n in range(1001) if abs(n / 1000 - found.value) <= found.step / 2 + 1e-12]
    assert max(ones) - min(ones) >= 5


def test_the_mean_of_a_common_flag_is_exact() -> None:
    told, mean, deviation = told_of([0, 1], [600, 400], [0, 1])
    assert Teller(told, 5, mean, deviation).mean() == Rounded(0.4, 0.0)


def test_a_mean_does_not_tell_two_scores_apart_that_are_one_bin() -> None:
    counts = [50, 60, 40, 30, 20, 10, 8, 7, 3, 2]  # of the scores 1 to 10; 9 and 10 are told as one
    told, mean, deviation = told_of(range(1, 11), counts, [*range(8), 8, 8])
    found = Teller(told, 5, mean, deviation).mean()
    rest = sum(score * count for score, count in zip(range(1, 9), counts, strict=False))
    tens = [
        tens
        for tens in range(6)
        if abs((rest + 9 * (5 - tens) + 10 * tens) / 230 - found.value) <= found.step / 2 + 1e-12
    ]
    assert max(tens) - min(tens) >= 5


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10_000), st.integers(0, 4))
def test_a_mean_has_no_single_denominator_where_the_number_of_values_is_not_told(seed: int, missing: int) -> None:
    ages = np.random.default_rng(seed).integers(18, 100, 400)
    values, counts = np.unique(ages, return_counts=True)
    groups = np.minimum(np.arange(len(values)) // 4, len(values) // 4 - 1)
    middle = int(groups[np.argmin(np.abs(values - ages.mean()))])
    told, mean, deviation = told_of(values, counts, groups, hidden=missing, folded=middle, width=0.2)
    teller = Teller(told, 5, mean, deviation)
    found = teller.mean()
    assert found.value is not None and 0 < found.step < deviation / 10
    low, high = found.value - found.step / 2, found.value + found.step / 2
    total = 400 + missing
    fits = [known for known in range(total - 4, total + 1) if math.ceil(low * known) <= math.floor(high * known)]
    assert fits == list(range(total - 4, total + 1))
    assert Fraction(found.value).limit_denominator(450) != Fraction(mean) or Fraction(mean).denominator < 50
    spread = teller.deviation(found)
    assert spread.value is not None and abs(spread.value - deviation) <= spread.step / 2


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000), st.integers(3, 8))
def test_mean_and_deviation_together_narrow_no_small_count_down(seed: int, floor: int) -> None:
    """An attacker who knows which values occur, by programs of their own over them."""
    generator = np.random.default_rng(seed)
    scores = generator.binomial(8, generator.uniform(0.1, 0.6), 300)
    values, counts = np.unique(scores, return_counts=True)
    groups, held = [], 0
    for count in counts.tolist():
        groups.append(groups[-1] + (held >= floor) if groups else 0)
        held = count if held >= floor else held + count
    groups = [min(group, groups[-1] - (held < floor and groups[-1] > 0)) for group in groups]
    told, mean, deviation = told_of(values, counts, groups)
    teller = Teller(told, floor, mean, deviation)
    shown = teller.mean()
    spread = teller.deviation(shown)
    equal = [[float(group == place) for group in groups] for place in range(max(groups) + 1)]
    below: list[Any] = []
    limits: list[float] = []
    if shown.value is not None:
        low, high = (shown.value + sign * shown.step / 2 for sign in (-1, 1))
        below += [values, -values]
        limits += [300 * high + 1e-7, -300 * low + 1e-7]
    if spread.value is not None:
        low, high = (max(0.0, spread.value + sign * spread.step / 2) for sign in (-1, 1))
        squares = (values - mean) ** 2
        below += [squares, -squares]
        limits += [299 * high**2 + 1e-7, -299 * low**2 + 1e-7]
    for place in np.flatnonzero(counts < floor):
        ends = []
        for sign in (1.0, -1.0):
            direction = np.zeros(len(values))
            direction[place] = sign
            found = linprog(direction, A_ub=below or None, b_ub=limits or None, A_eq=equal, b_eq=told.bins)
            ends.append(sign * found.fun)
        assert ends[1] - ends[0] >= floor - 1e-3
