"""Pooled metrics from sums against scikit-learn on the pooled rows; and what must not be told."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lifelines.utils import concordance_index
from sklearn import metrics as sklearn_metrics
from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score

from isthmus.horizontal.fixed_point import EXACT
from isthmus.horizontal.metrics import CURVE_POINTS
from isthmus.horizontal.pooled import BINS, GroupMetrics, PooledMetrics, judge, size, values_of
from isthmus.horizontal.schema import ColumnSpec
from isthmus.horizontal.targets import Target
from isthmus.parties.errors import PeerFailure
from isthmus.parties.table import Column

SEX = ColumnSpec("sex", "category", levels=("f", "m"))
WARD = ColumnSpec("ward", "category", levels=("a", "b", "c"))
SUBGROUPS = (SEX, WARD)


def ward_of(rows: int, generator: np.random.Generator) -> list[Column]:
    sex = np.array(generator.choice(["f", "m"], rows), dtype=object)
    ward = np.array(generator.choice(["a", "b", "c", "d"], rows), dtype=object)
    ward[::17] = None
    return [Column("sex", "category", sex), Column("ward", "category", ward)]


def outcomes(rows: int, seed: int) -> tuple[Target, np.ndarray, list[Column]]:
    generator = np.random.default_rng(seed)
    label = (generator.random(rows) < 0.35).astype(np.float32)
    score = 1 / (1 + np.exp(-(label * 1.5 - 1 + generator.normal(size=rows))))
    return Target("binary", label), score, ward_of(rows, generator)


def pooled(*parties: tuple[Target, np.ndarray, list[Column]], floor: int = 5) -> PooledMetrics:
    """Through the fixed point of the exact sum, as on the wire."""
    words = sum(
        EXACT.encode(values_of(target, scores, SUBGROUPS, columns), "north") for target, scores, columns in parties
    )
    task = parties[0][0].task
    return judge(task, EXACT.decode(words, size(task, SUBGROUPS)), SUBGROUPS, floor)


def named(group: GroupMetrics) -> dict[str, float]:
    return {metric.name: metric.value for metric in group.metrics}


def joined(*parties: tuple[Target, np.ndarray, list[Column]]) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    columns = {
        place: np.concatenate([party[2][number].values for party in parties])
        for number, place in enumerate(("sex", "ward"))
    }
    return np.concatenate([party[0].values for party in parties]), np.concatenate([p[1] for p in parties]), columns


PARTIES = [outcomes(rows, seed) for rows, seed in ((400, 1), (150, 2), (90, 3))]


def check_binary(group: GroupMetrics, label: np.ndarray, score: np.ndarray) -> None:
    found = named(group)
    assert group.rows == len(label)
    assert group.auc_error is not None
    assert abs(found["auc"] - sklearn_metrics.roc_auc_score(label, score)) <= group.auc_error < 0.01
    assert found["log_loss"] == pytest.approx(sklearn_metrics.log_loss(label, score, labels=[0, 1]), rel=1e-12)
    assert found["brier"] == pytest.approx(sklearn_metrics.brier_score_loss(label, score), rel=1e-12)
    assert found["accuracy"] == pytest.approx(sklearn_metrics.accuracy_score(label, score >= 0.5), rel=1e-12)
    assert found["prevalence"] == pytest.approx(label.mean(), rel=1e-12)


def test_the_metrics_of_an_outcome_are_those_of_the_pooled_rows():
    found, (label, score, columns) = pooled(*PARTIES), joined(*PARTIES)
    check_binary(found.overall, label, score)
    groups = {(group.column, group.level): group for group in found.subgroups}
    assert list(groups) == [("sex", "f"), ("sex", "m"), ("sex", None),
                            ("ward", "a"), ("ward", "b"), ("ward", "c"), ("ward", None)]  # fmt: skip
    for (column, level), group in groups.items():
        assert column is not None
        values = columns[column]
        mine = np.array([value == level if level else value in (None, "d") for value in values])
        if column == "sex" and level is None:
            assert group == GroupMetrics("sex", None)  # nobody
        else:
            check_binary(group, label[mine], score[mine])


def test_the_auc_of_binned_scores_is_that_of_scikit_learn_exactly():
    label, score, _ = joined(*PARTIES)
    binned = np.floor(score * BINS)
    assert named(pooled(*PARTIES).overall)["auc"] == pytest.approx(
        sklearn_metrics.roc_auc_score(label, binned), abs=1e-12
    )


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.floats(0, 1)), min_size=2, max_size=30))
def test_the_auc_is_never_off_by_more_than_is_said(rows: list[tuple[bool, float]]):
    label = np.array([one for one, _ in rows], np.float32)
    if len(np.unique(label)) < 2:
        return
    score = np.array([one for _, one in rows])
    total = values_of(Target("binary", label), score, (), ())
    found = judge("binary", total, (), 1).overall
    assert found.auc_error is not None
    assert abs(named(found)["auc"] - sklearn_metrics.roc_auc_score(label, score)) <= found.auc_error + 1e-12


def test_the_interval_of_the_auc_is_delongs():
    target, score, _ = outcomes(60, 7)
    binned, positive = np.floor(score * BINS), target.values > 0.5
    wins = np.array(
        [[(a > b) + (a == b) / 2 for b in binned[~positive]] for a in binned[positive]]
    )  # by its definition: every positive against every negative
    variance = wins.mean(1).var(ddof=1) / wins.shape[0] + wins.mean(0).var(ddof=1) / wins.shape[1]
    metric = judge("binary", values_of(target, score, (), ()), (), 1).overall.metrics[0]
    assert metric.low is not None and metric.high is not None
    assert metric.low == pytest.approx(wins.mean() - 1.959963984540054 * math.sqrt(variance), abs=1e-12)
    assert metric.high == pytest.approx(wins.mean() + 1.959963984540054 * math.sqrt(variance), abs=1e-12)


def test_the_curves_are_those_of_the_pooled_rows():
    found, (label, score, _) = pooled(*PARTIES, floor=1), joined(*PARTIES)
    assert found.roc is not None and found.calibration is not None
    false, true, _ = sklearn_metrics.roc_curve(label, score)
    grid, rate = found.roc
    assert len(grid) == CURVE_POINTS
    np.testing.assert_allclose(rate[1:], np.interp(grid, false, true)[1:], atol=0.02)
    assert (rate[0] <= np.interp(0.0, false, true) + 1e-12) and rate[-1] == 1.0
    x, y = found.calibration
    assert 8 <= len(x) <= 10
    assert (np.diff(x) > 0).all()
    assert (np.abs(y - x) < 0.25).all()


def test_no_point_of_a_curve_stands_for_fewer_than_the_floor():
    label, score = np.array([0, 1, 0, 1, 1, 0, 1], np.float32), np.array([0.1, 0.2, 0.3, 0.6, 0.7, 0.8, 0.9])
    found = judge("binary", values_of(Target("binary", label), score, (), ()), (), 3)
    assert found.calibration is not None and found.roc is not None
    # runs of at least three: the first three, and the last four since one alone is left over
    x, y = found.calibration
    np.testing.assert_allclose(x, [0.2, 0.75], atol=1 / BINS)
    np.testing.assert_allclose(y, [1 / 3, 3 / 4])
    grid, rate = found.roc
    np.testing.assert_allclose(rate, np.interp(grid, [0, 1 / 3, 1], [0, 3 / 4, 1]))


def numbers(rows: int, seed: int) -> tuple[Target, np.ndarray, list[Column]]:
    generator = np.random.default_rng(seed)
    target = generator.normal(100, 20, rows).astype(np.float32)
    return Target("regression", target), target + generator.normal(1, 8, rows), ward_of(rows, generator)


def test_the_errors_of_numbers_are_those_of_the_pooled_rows():
    parties = [numbers(200, 1), numbers(60, 2)]
    found, (target, predicted, columns) = pooled(*parties), joined(*parties)
    for group in (found.overall, found.subgroups[0]):
        mine = np.ones(len(target), bool) if group.column is None else columns["sex"] == "f"
        assert group.rows == mine.sum()
        assert named(group) == pytest.approx(
            {
                "rmse": math.sqrt(mean_squared_error(target[mine], predicted[mine])),
                "mae": mean_absolute_error(target[mine], predicted[mine]),
                "r2": r2_score(target[mine], predicted[mine]),
            },
            rel=1e-9,
        )
    assert found.roc is None and found.calibration is None


def test_numbers_that_do_not_vary_have_no_r2():
    total = values_of(Target("regression", np.full(9, 1.1, np.float32)), np.zeros(9), (), ())
    assert set(named(judge("regression", total, (), 1).overall)) == {"rmse", "mae"}


def survivals(rows: int, seed: int, events: float = 0.6) -> tuple[Target, np.ndarray, list[Column]]:
    generator = np.random.default_rng(seed)
    hazard = generator.normal(size=rows)
    time = np.ceil(20 * generator.exponential(np.exp(-hazard))).astype(np.float32)
    event = (generator.random(rows) < events).astype(np.float32)
    return Target("survival", time, event), hazard + generator.normal(size=rows), ward_of(rows, generator)


def test_the_c_index_is_the_mean_of_the_parties_weighted_by_their_rows():
    parties = [survivals(120, 1), survivals(40, 2), survivals(9, 3, events=0.0)]  # the last has no pair to compare
    found = pooled(*parties)
    each = [concordance_index(target.values, -score, target.event) for target, score, _ in parties[:2]]
    assert named(found.overall)["c_index"] == pytest.approx((120 * each[0] + 40 * each[1]) / 160, abs=1e-12)
    assert found.overall.rows == 169


def test_a_party_without_rows_changes_nothing():
    nobody = Target("binary", np.zeros(0, np.float32)), np.zeros(0), ward_of(0, np.random.default_rng(1))
    assert named(pooled(*PARTIES, nobody).overall) == named(pooled(*PARTIES).overall)
    assert pooled(nobody).overall == GroupMetrics(None, None)


# --- what may be told -------------------------------------------------------------------------------------------------


def of_counts(*counts: tuple[int, int]) -> PooledMetrics:
    """Groups a, b, c of a ward and all others, each with (positives, negatives); the floor is 5."""
    ward, label = [], []
    for level, (positives, negatives) in zip(("a", "b", "c", None), counts, strict=True):
        ward += [level] * (positives + negatives)
        label += [1] * positives + [0] * negatives
    generator = np.random.default_rng(1)
    target = Target("binary", np.array(label, np.float32))
    columns = [Column("ward", "category", np.array(ward, dtype=object))]
    total = values_of(target, generator.random(len(label)), (WARD,), columns)
    return judge("binary", total, (WARD,), 5)


def told(found: PooledMetrics) -> list[bool]:
    assert all((group.rows is None) == (not group.metrics) for group in found.subgroups)
    return [group.rows is not None for group in found.subgroups]


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ([(9, 9), (9, 9), (9, 9), (0, 0)], [True, True, True, False]),  # nobody is withheld
        ([(9, 9), (4, 90), (9, 9), (9, 9)], [False, False, True, True]),  # with b alone left out, b could be had
        ([(9, 9), (4, 90), (3, 90), (9, 9)], [True, False, False, True]),  # b and c together are enough
        ([(9, 9), (1, 0), (1, 0), (20, 20)], [False, False, False, True]),  # b and c together are too few
        ([(9, 9), (1, 0), (0, 0), (0, 0)], [False, False, False, False]),
        ([(4, 9), (0, 0), (0, 0), (0, 0)], [False, False, False, False]),
    ],
)
def test_a_group_below_the_floor_cannot_be_had_by_subtraction(counts: list[tuple[int, int]], expected: list[bool]):
    found = of_counts(*counts)
    assert told(found) == expected
    enough = sum(one for one, _ in counts) >= 5
    assert (found.overall.rows is not None) == (found.roc is not None) == (found.calibration is not None) == enough


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=4, max_size=4))
def test_whatever_is_withheld_of_a_column_is_nobody_or_reaches_the_floor_together(counts: list[tuple[int, int]]):
    found = of_counts(*counts)
    shown = told(found)
    for (positives, negatives), one in zip(counts, shown, strict=True):
        assert not one or min(positives, negatives) >= 5
    if found.overall.rows is not None and any(shown):
        rest = [sum(pair[side] for pair, one in zip(counts, shown, strict=True) if not one) for side in (0, 1)]
        assert rest == [0, 0] or min(rest) >= 5


@pytest.mark.parametrize(("events", "rows"), [(4, 100), (0, 3)])
def test_survival_is_told_of_enough_patients_and_events_alone(events: int, rows: int):
    time = np.arange(1, rows + 1, dtype=np.float32)
    event = (np.arange(rows) < events).astype(np.float32)
    total = values_of(Target("survival", time, event), np.zeros(rows), (), ())
    assert judge("survival", total, (), 5).overall == GroupMetrics(None, None)


def test_a_sum_of_another_size_is_no_sum_of_these():
    with pytest.raises(ValueError, match="size"):
        judge("binary", np.zeros(3), (), 1)


def test_sizes_are_those_of_the_values():
    for target, scores, columns in (PARTIES[0], numbers(20, 1), survivals(20, 1)):
        assert values_of(target, scores, SUBGROUPS, columns).shape == (size(target.task, SUBGROUPS),)
    assert (size("regression", SUBGROUPS), size("survival", ())) == (5 * 8, 4)


IMPOSSIBLE = [
    ("binary", {0: -1.0}),
    ("binary", {-1: 1e9}),  # more right answers than patients
    ("binary", {-3: -1.0}),
    ("regression", {3: -4.0}),
    ("regression", {0: 0.0}),
    ("survival", {1: 1e9}),
    ("survival", {3: 1e9}),
]


@pytest.mark.parametrize(("task", "changes"), IMPOSSIBLE)
def test_a_sum_that_no_rows_could_have_given_is_a_partys_fault_and_not_ours(task: str, changes: dict[int, float]):
    total = np.full(size(task, ()), 40.0)
    judge(task, total, (), 5)
    for place, value in changes.items():
        total[place] = value
    with pytest.raises(PeerFailure) as caught:
        judge(task, total, (), 5)
    assert caught.value.code == "sum.impossible"
