from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics

from isthmus.horizontal.metrics import (
    CURVE_POINTS,
    auc,
    auc_gain,
    auc_interval,
    binary_metrics,
    c_index,
    calibration_curve,
    outcome_metrics,
    r2,
    regression_metrics,
    roc_curve,
    survival_metrics,
)

LABEL = np.array([0, 0, 1, 1], np.float32)
SCORE = np.array([0.1, 0.4, 0.35, 0.8])


def sample(rows: int = 400, seed: int = 2, noise: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    label = (generator.random(rows) < 0.3).astype(np.float32)
    score = 1 / (1 + np.exp(-(label * 2 - 1 + noise * generator.normal(size=rows))))
    return label, score


def named(label: np.ndarray, score: np.ndarray) -> dict[str, float]:
    return {metric.name: metric.value for metric in binary_metrics(label, score)}


def test_the_auc_is_the_share_of_pairs_in_the_right_order():
    assert auc(LABEL, SCORE) == 3 / 4


def test_a_tied_pair_counts_half_in_the_auc():
    # (positive, negative): (.5, .5) half, (.5, .2) one, (.9, .5) one, (.9, .2) one
    assert auc(np.array([0, 0, 1, 1]), np.array([0.5, 0.2, 0.5, 0.9])) == pytest.approx(3.5 / 4)


def test_equal_scores_for_all_are_an_auc_of_a_half():
    assert auc(LABEL, np.full(4, 0.3)) == 0.5


def test_an_auc_needs_both_outcomes():
    with pytest.raises(ValueError, match="both outcomes"):
        auc(np.zeros(4), SCORE)


def test_the_metrics_of_four_patients_worked_out_by_hand():
    found = named(LABEL, SCORE)
    # by falling score: .8 (1), .4 (0), .35 (1), .1 (0): precision 1 at recall 1/2, 2/3 at recall 1
    assert found["average_precision"] == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    expected_loss = -(math.log(0.9) + math.log(0.6) + math.log(0.35) + math.log(0.8)) / 4
    assert found["log_loss"] == pytest.approx(expected_loss)
    assert found["brier"] == pytest.approx((0.01 + 0.16 + 0.4225 + 0.04) / 4)
    assert found["accuracy"] == 3 / 4
    assert found["prevalence"] == 1 / 2


def test_a_score_of_exactly_a_half_counts_as_positive():
    assert named(np.array([1, 0]), np.array([0.5, 0.49]))["accuracy"] == 1.0


def test_a_certain_and_wrong_score_has_a_finite_log_loss():
    assert named(np.array([0.0, 1.0]), np.array([1.0, 0.0]))["log_loss"] == pytest.approx(-math.log(1e-7), rel=1e-3)


def test_float32_scores_judge_like_float64_ones():
    label, score = sample()
    single = np.round(score, 3).astype(np.float32)
    assert named(label, single) == pytest.approx(named(label, single.astype(np.float64)), abs=1e-9)


def test_the_metrics_are_sklearns():
    label, score = sample()
    rounded = np.round(score, 1)  # with many ties
    found = named(label, rounded)
    assert found["auc"] == sklearn_metrics.roc_auc_score(label, rounded)
    assert found["average_precision"] == sklearn_metrics.average_precision_score(label, rounded)
    assert found["brier"] == pytest.approx(np.mean((rounded - label) ** 2), abs=1e-6)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 6)), min_size=2, max_size=40))
def test_the_auc_with_any_ties_is_the_count_of_pairs(rows: list[tuple[bool, int]]):
    positive = [score for outcome, score in rows if outcome]
    negative = [score for outcome, score in rows if not outcome]
    if not positive or not negative:
        return
    pairs = [1.0 if one > other else 0.5 if one == other else 0.0 for one in positive for other in negative]
    label, score = np.array([float(outcome) for outcome, _ in rows]), np.array([float(score) for _, score in rows])
    assert auc(label, score) == pytest.approx(sum(pairs) / len(pairs))
    low, high = auc_interval(label, score)
    assert -1e-9 <= low <= high <= 1 + 1e-9


@pytest.mark.parametrize("noise", [0.1, 1.0, 4.0])
def test_the_interval_holds_the_auc_and_lies_between_0_and_1(noise: float):
    label, score = sample(noise=noise)
    low, high = auc_interval(label, score)
    assert 0 <= low <= auc(label, score) <= high <= 1


def test_the_interval_is_as_wide_as_theory_says():
    label, score = sample(rows=1000)
    value, low, high = auc(label, score), *auc_interval(label, score)
    positive, negative = int(label.sum()), int(len(label) - label.sum())
    # Hanley and McNeil 1982
    q1, q2 = value / (2 - value), 2 * value**2 / (1 + value)
    variance = value * (1 - value) + (positive - 1) * (q1 - value**2) + (negative - 1) * (q2 - value**2)
    assert high - low == pytest.approx(2 * 1.96 * math.sqrt(variance / (positive * negative)), rel=0.2)


def test_perfect_scores_have_an_interval_of_one_point():
    assert auc_interval(np.array([0, 0, 1, 1]), np.array([0.1, 0.2, 0.8, 0.9])) == (1.0, 1.0)


def test_the_same_scores_give_the_same_interval():
    label, score = sample()
    assert auc_interval(label, score) == auc_interval(label, score)


def test_the_interval_of_a_gain_over_itself_is_nothing():
    label, score = sample()
    assert auc_gain(label, score, score) == ("auc_gain", 0.0, 0.0, 0.0)


def test_the_interval_of_a_gain_holds_it_and_turns_round_with_the_sides():
    label, score = sample()
    other = np.where(np.arange(len(score)) % 3 == 0, 0.5, score)
    _, gain, low, high = auc_gain(label, score, other)
    assert gain == pytest.approx(auc(label, score) - auc(label, other))
    assert 0 < low <= gain <= high
    assert auc_gain(label, other, score)[1:] == pytest.approx((-gain, -high, -low))


def test_a_paired_gain_has_a_narrower_interval_than_the_two_aucs_apart():
    label, score = sample()
    other = score + 0.05 * np.random.default_rng(3).normal(size=len(score))
    *_, low, high = auc_gain(label, score, other)
    apart = np.subtract(*reversed(auc_interval(label, score)))
    assert high - low < apart / 2


def test_the_roc_curve_of_four_patients_worked_out_by_hand():
    false, true = roc_curve(LABEL, SCORE)
    assert len(false) == len(true) == CURVE_POINTS
    assert (false[0], false[-1], true[-1]) == (0.0, 1.0, 1.0)
    # corners: (0, 0), (0, 1/2), (1/2, 1/2), (1/2, 1), (1, 1)
    assert true[25] == pytest.approx(0.5)
    assert true[75] == pytest.approx(1.0)
    assert np.all(np.diff(true) >= 0)


def test_the_area_under_the_curve_is_about_the_auc():
    label, score = sample(rows=2000)
    false, true = roc_curve(label, score)
    assert np.trapezoid(true, false) == pytest.approx(auc(label, score), abs=0.01)


def test_the_calibration_curve_of_fifty_patients_worked_out_by_hand():
    score = np.arange(50) / 50
    label = (np.arange(50) >= 25).astype(float)
    mean, rate = calibration_curve(label[::-1], score[::-1])
    assert mean == pytest.approx((np.arange(10) * 5 + 2) / 50)
    assert rate.tolist() == [0] * 5 + [1] * 5


@pytest.mark.parametrize(("patients", "points"), [(4, 0), (5, 1), (9, 1), (10, 2), (23, 4), (400, 10)])
def test_no_point_of_the_calibration_curve_stands_for_fewer_than_five_patients(patients: int, points: int):
    score = np.random.default_rng(0).random(patients)
    label = (np.arange(patients) % 2).astype(float)
    mean, rate = calibration_curve(label, score)
    assert len(mean) == len(rate) == points
    assert not set(mean.tolist()) & set(score.tolist())
    assert not np.isnan(mean).any()


def test_the_errors_of_three_predicted_numbers_worked_out_by_hand():
    found = {metric.name: metric.value for metric in regression_metrics(np.array([1, 2, 6]), np.array([2.0, 2, 4]))}
    assert found["rmse"] == pytest.approx(math.sqrt(5 / 3))
    assert found["mae"] == pytest.approx(1.0)
    assert found["r2"] == pytest.approx(1 - 5 / 14)  # around the mean of 3: 4 + 1 + 9


def test_a_target_that_does_not_vary_has_no_r2():
    assert [metric.name for metric in regression_metrics(np.ones(3), np.zeros(3))] == ["rmse", "mae"]
    with pytest.raises(ValueError, match="varies"):
        r2(np.ones(3), np.zeros(3))


def test_the_c_index_is_the_share_of_comparable_pairs_in_the_right_order():
    duration, event = np.array([1, 2, 3, 4]), np.array([1, 0, 1, 0])
    # comparable: (1, 2), (1, 3), (1, 4), (3, 4); the second had no event, so nobody is compared with it
    assert c_index(duration, event, np.array([2.0, 9, 3, 1])) == pytest.approx(2 / 4)
    assert c_index(duration, event, np.array([3.0, 3, 2, 1])) == pytest.approx(3.5 / 4)


def test_without_a_comparable_pair_there_is_no_c_index():
    with pytest.raises(ValueError, match="compared"):
        c_index(np.array([1, 2]), np.zeros(2), np.zeros(2))
    assert survival_metrics(np.array([1, 2]), np.zeros(2), np.zeros(2)) == []


def test_one_outcome_leaves_the_metrics_that_need_no_other():
    found = {metric.name: metric.value for metric in outcome_metrics(np.ones(2), np.array([0.5, 0.25]))}
    assert found == pytest.approx(
        {
            "log_loss": -(math.log(0.5) + math.log(0.25)) / 2,
            "brier": (0.25 + 0.5625) / 2,
            "accuracy": 0.5,
            "prevalence": 1.0,
        }
    )
    assert outcome_metrics(LABEL, SCORE) == binary_metrics(LABEL, SCORE)
