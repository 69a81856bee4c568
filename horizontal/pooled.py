"""How well a model does on all parties' patients together, from sums: no score leaves its party.

::

    k→C  for all patients, and for each subgroup:
           an outcome   how many of each outcome are in each of 512 equal bins of the probability, and the sums of
                        squared error, log loss and right answers
           a number     rows, and the sums of the target, its square, the squared and the absolute error
           survival     rows, events, and the C-index times the rows that it stands for

Most metrics are exact. The **AUC** takes patients of one bin for tied: it can be off by at most half the share of
(positive, negative) pairs that are in the same bin, which is given beside it (`auc_error`). Its interval is that of
DeLong et al. 1988 on the binned scores. The **C-index** is the mean of the parties' own, weighted by their rows, so
patients of two hospitals are never compared; Cox's likelihood (`cox`) does not compare them either.

**Who learns what**: under secure aggregation the coordinator sees the sums alone, but all of them. What `judge` returns
may be shown to anybody: a group is told of only when it holds `floor` patients of each outcome (of a number: patients;
of survival: patients and events), and so must all that is withheld of its column together, else it could be had by
subtraction. A curve's points stand for at least `floor` patients each. A job should not name two subgroup columns of
which one refines the other: differences across columns are not looked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..parties.errors import PeerFailure
from ..parties.table import Column
from .metrics import CALIBRATION_BINS, CURVE_POINTS, MetricValue
from .schema import ColumnSpec
from .targets import Target, Task

BINS = 512
_SURE = 1e-7  # a probability is kept as far from 0 and 1, so that its log loss is a number
_Z95 = 1.959963984540054
_SIZE_OF_A_GROUP: Mapping[Task, int] = {"binary": 2 * BINS + 3, "regression": 5, "survival": 4}
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class GroupMetrics:
    """A group of patients, and how well the model does on them.

    The group of all has no `column`; that of missing and other values has no `level`. A group that is withheld has
    neither `rows` nor metrics.
    """

    column: str | None
    level: str | None
    rows: int | None = None
    metrics: tuple[MetricValue, ...] = ()
    auc_error: float | None = None


@dataclass(frozen=True)
class PooledMetrics:
    """All patients, each level of each subgroup column, and of an outcome two curves ``(x, y)``.

    The ROC curve is that of 101 evenly spaced false-positive rates. The calibration curve has the mean probability (by
    the middle of its bin) and the observed rate in up to ten groups by rising probability.
    """

    overall: GroupMetrics
    subgroups: tuple[GroupMetrics, ...]
    roc: tuple[Floats, Floats] | None = None
    calibration: tuple[Floats, Floats] | None = None


def size(task: Task, subgroups: Sequence[ColumnSpec]) -> int:
    """How many numbers `values_of` gives."""
    return _SIZE_OF_A_GROUP[task] * (1 + sum(len(spec.levels) + 1 for spec in subgroups))


def values_of(target: Target, scores: Floats, subgroups: Sequence[ColumnSpec], columns: Sequence[Column]) -> Floats:
    """What a party gives to the sum: numbers ``(size(task, subgroups),)``, to be summed exactly (`EXACT`).

    `target`, `scores` (`TabularProblem.scores`) and `columns`, which hold those that `subgroups` names, are over the
    rows to be judged, perhaps none.
    """
    found = [_values(target, scores)]
    values = {column.name: column.values for column in columns}
    for spec in subgroups:
        code = _codes(values[spec.name], spec.levels)
        for number in (*range(len(spec.levels)), -1):
            rows = np.flatnonzero(code == number)
            found.append(_values(target[rows], scores[rows]))
    return np.concatenate(found)


def judge(task: Task, total: Floats, subgroups: Sequence[ColumnSpec], floor: int) -> PooledMetrics:
    """Pooled metrics from the sum of what the parties gave. `floor` is the highest of the job's and the parties'.

    Raises `PeerFailure` ``sum.impossible`` for a sum that no rows could have given: some party does not play fair.
    """
    if total.shape != (size(task, subgroups),):
        raise ValueError("a sum of another size")
    group_size, floor = _SIZE_OF_A_GROUP[task], max(1, floor)
    groups = [total[start : start + group_size] for start in range(0, len(total), group_size)]
    if not all(_is_possible(task, group) for group in groups):
        raise PeerFailure("sum.impossible")
    everyone = groups[0]
    if not _enough(_counts(task, everyone), floor):
        hidden = [GroupMetrics(spec.name, level) for spec in subgroups for level in (*spec.levels, None)]
        return PooledMetrics(GroupMetrics(None, None), tuple(hidden))
    found, start = [], 1
    for spec in subgroups:
        levels = (*spec.levels, None)
        mine = groups[start : start + len(levels)]
        start += len(levels)
        told = _told([_counts(task, group) for group in mine], floor)
        for level, group, shown in zip(levels, mine, told, strict=True):
            found.append(_group(task, spec.name, level, group) if shown else GroupMetrics(spec.name, level))
    overall = _group(task, None, None, everyone)
    if task != "binary":
        return PooledMetrics(overall, tuple(found))
    positive, negative = everyone[:BINS], everyone[BINS : 2 * BINS]
    return PooledMetrics(overall, tuple(found), _roc(positive, negative, floor), _calibrated(positive, negative, floor))


# --- below: at the party ----------------------------------------------------------------------------------------------


def _values(target: Target, scores: Floats) -> Floats:
    if target.event is not None:
        index = target.score(scores) if len(target) else None
        scored = 0 if index is None else len(target)
        return np.array([len(target), target.event.sum(dtype=np.float64), scored, scored * (index or 0.0)])
    values = target.values.astype(np.float64)
    error = scores - values
    if target.task == "regression":
        return np.array([len(values), values.sum(), (values**2).sum(), (error**2).sum(), np.abs(error).sum()])
    positive = values > 0.5
    place = np.clip((scores * BINS).astype(np.int64), 0, BINS - 1)
    sure = np.clip(scores, _SURE, 1 - _SURE)
    log_loss = -np.log(np.where(positive, sure, 1 - sure)).sum()
    return np.concatenate(
        [
            np.bincount(place[positive], minlength=BINS),
            np.bincount(place[~positive], minlength=BINS),
            [(error**2).sum(), log_loss, ((scores >= 0.5) == positive).sum()],
        ]
    ).astype(np.float64)


def _codes(values: NDArray[Any], levels: Sequence[str]) -> NDArray[np.int64]:
    place = {level: number for number, level in enumerate(levels)}
    return np.array([place.get(value, -1) for value in values.tolist()], dtype=np.int64)


# --- below: what may be told ------------------------------------------------------------------------------------------


def _counts(task: Task, group: Floats) -> Floats:
    """The counts of a group that have to reach the floor."""
    if task == "binary":
        return np.array([group[:BINS].sum(), group[BINS : 2 * BINS].sum()])
    return group[:2] if task == "survival" else group[:1]


def _is_possible(task: Task, group: Floats) -> bool:
    """Whether some rows could have given such sums: else a metric would be no number."""
    if task == "binary":
        return bool((group >= 0).all() and group[-1] <= group[: 2 * BINS].sum())
    if task == "survival":
        rows, events, scored, weighted = group.tolist()
        return bool((group >= 0).all() and events <= rows and weighted <= scored * (1 + 1e-9))
    return bool((group[[0, 2, 3, 4]] >= 0).all() and (group[0] > 0 or not group.any()))


def _enough(counts: Floats, floor: int) -> bool:
    return bool((counts >= floor).all())


def _told(counts: Sequence[Floats], floor: int) -> list[bool]:
    """Which groups of a column may be told of, so that what is withheld is nobody, or enough patients together."""
    told = [_enough(one, floor) for one in counts]
    while any(told):
        rest = sum((one for one, shown in zip(counts, told, strict=True) if not shown), np.zeros_like(counts[0]))
        if not rest.any() or _enough(rest, floor):
            break
        smallest = min((place for place, shown in enumerate(told) if shown), key=lambda place: counts[place].sum())
        told[smallest] = False
    return told


# --- below: metrics of sums -------------------------------------------------------------------------------------------


def _group(task: Task, column: str | None, level: str | None, group: Floats) -> GroupMetrics:
    if task == "survival":
        rows, _, scored, weighted = group.tolist()
        index = (MetricValue("c_index", weighted / scored),) if scored else ()
        return GroupMetrics(column, level, round(rows), index)
    if task == "regression":
        return GroupMetrics(column, level, round(group[0]), tuple(_regression(*group.tolist())))
    positive, negative = group[:BINS], group[BINS : 2 * BINS]
    rows = float(positive.sum() + negative.sum())
    squared, log_loss, right = group[2 * BINS :].tolist()
    auc, low, high, error = _auc(positive, negative)
    found = (
        MetricValue("auc", auc, low, high),
        MetricValue("log_loss", log_loss / rows),
        MetricValue("brier", squared / rows),
        MetricValue("accuracy", right / rows),
        MetricValue("prevalence", float(positive.sum()) / rows),
    )
    return GroupMetrics(column, level, round(rows), found, error)


def _regression(rows: float, total: float, squares: float, squared: float, absolute: float) -> list[MetricValue]:
    found = [MetricValue("rmse", float(np.sqrt(squared / rows))), MetricValue("mae", absolute / rows)]
    spread = squares - total**2 / rows
    varies = spread > 1e-12 * squares  # else the difference is but rounding
    return [*found, MetricValue("r2", 1 - squared / spread)] if varies else found


def _auc(positive: Floats, negative: Floats) -> tuple[float, float | None, float | None, float]:
    """The AUC of binned scores, its 95 % interval (none with fewer than two of an outcome), what it may be off by."""
    positives, negatives = positive.sum(), negative.sum()
    beaten = (np.cumsum(negative) - negative / 2) / negatives  # by a positive of this bin: share of the negatives
    beating = 1 - (np.cumsum(positive) - positive / 2) / positives  # a negative of this bin: share of the positives
    auc = float((positive * beaten).sum() / positives)
    error = float((positive * negative).sum() / (2 * positives * negatives))
    if min(positives, negatives) < 2:
        return auc, None, None, error
    of_positives = (positive * (beaten - auc) ** 2).sum() / (positives - 1)
    of_negatives = (negative * (beating - auc) ** 2).sum() / (negatives - 1)
    reach = _Z95 * float(np.sqrt(of_positives / positives + of_negatives / negatives))
    return auc, max(0.0, auc - reach), min(1.0, auc + reach), error


def _merged(positive: Floats, negative: Floats, least: float) -> list[slice]:
    """Runs of bins, from low to high, each of at least `least` patients; what is left joins the last one."""
    starts, held = [0], 0.0
    for place, count in enumerate((positive + negative).tolist()):
        if held >= least and count:
            starts.append(place)
            held = 0.0
        held += count
    if held < least and len(starts) > 1:
        starts.pop()
    return [slice(start, end) for start, end in zip(starts, [*starts[1:], len(positive)], strict=True)]


def _roc(positive: Floats, negative: Floats, floor: int) -> tuple[Floats, Floats]:
    runs = _merged(positive, negative, floor)[::-1]  # from the highest scores down
    true = np.cumsum([0.0, *(positive[run].sum() for run in runs)]) / positive.sum()
    false = np.cumsum([0.0, *(negative[run].sum() for run in runs)]) / negative.sum()
    grid = np.linspace(0, 1, CURVE_POINTS)
    return grid, np.interp(grid, false, true)


def _calibrated(positive: Floats, negative: Floats, floor: int) -> tuple[Floats, Floats]:
    count = positive + negative
    middle = (np.arange(BINS) + 0.5) / BINS
    runs = _merged(positive, negative, max(floor, count.sum() / CALIBRATION_BINS))
    x = [(count[run] * middle[run]).sum() / count[run].sum() for run in runs]
    return np.array(x), np.array([positive[run].sum() / count[run].sum() for run in runs])
