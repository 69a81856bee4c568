"""How well a model does: scores, intervals, and the two curves that a report shows of a binary one.

Intervals are percentiles of a bootstrap over patients (Efron 1979), stratified by outcome so that every resample can be
judged, with a fixed seed: the same scores give the same interval.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

MetricName = Literal[
    "auc", "auc_gain", "average_precision", "log_loss", "brier", "accuracy", "prevalence",
    "rmse", "mae", "r2", "c_index",
]  # fmt: skip
Floats = NDArray[np.float64]
RESAMPLES = 1000
CURVE_POINTS = 101
CALIBRATION_BINS = 10
CALIBRATION_LEAST = 5  # patients in a bin
_SEED = 20240229


class MetricValue(NamedTuple):
    """A metric with its 95 % interval, where it has one."""

    name: MetricName
    value: float
    low: float | None = None
    high: float | None = None


def binary_metrics(label: NDArray[Any], score: NDArray[Any]) -> list[MetricValue]:
    """All metrics of scores (probabilities) against labels 0 and 1, both ``(rows,)``.

    Raises `ValueError` unless both outcomes are there.
    """
    low, high = auc_interval(label, score)
    return [
        MetricValue("auc", auc(label, score), low, high),
        MetricValue("average_precision", float(_scikit_learn().average_precision_score(label, score))),
        *_always_defined(label, score),
    ]


def outcome_metrics(label: NDArray[Any], score: NDArray[Any]) -> list[MetricValue]:
    """As `binary_metrics`, of any rows: what needs both outcomes is left out where there is but one."""
    if len(np.unique(label)) == 2:
        return binary_metrics(label, score)
    return _always_defined(label, score)


def regression_metrics(target: NDArray[Any], predicted: NDArray[Any]) -> list[MetricValue]:
    """Errors of predicted numbers, both ``(rows,)``, in the target's unit; R² only where the target varies."""
    error = predicted.astype(np.float64) - target
    found = [
        MetricValue("rmse", float(np.sqrt(np.mean(error**2)))),
        MetricValue("mae", float(np.mean(np.abs(error)))),
    ]
    return [*found, MetricValue("r2", r2(target, predicted))] if len(np.unique(target)) > 1 else found


def r2(target: NDArray[Any], predicted: NDArray[Any]) -> float:
    """The share of the target's variance that is told; raises `ValueError` where it has none."""
    if len(np.unique(target)) < 2:
        raise ValueError("R² needs a target that varies")
    wide = target.astype(np.float64)
    return float(1 - np.sum((predicted - wide) ** 2) / np.sum((wide - wide.mean()) ** 2))


def survival_metrics(duration: NDArray[Any], event: NDArray[Any], hazard: NDArray[Any]) -> list[MetricValue]:
    """The C-index of logs of hazard ratios, or nothing where no two patients can be compared."""
    try:
        return [MetricValue("c_index", c_index(duration, event, hazard))]
    except ValueError:
        return []


def c_index(duration: NDArray[Any], event: NDArray[Any], hazard: NDArray[Any]) -> float:
    """Harrell's C-index (Harrell et al. 1996): the share of comparable pairs in which who died first had the higher
    hazard, ties counting half. Three arrays ``(rows,)``.

    Raises `ValueError` where no two patients can be compared.
    """
    from lifelines.utils import concordance_index  # takes a second, and only survival needs it

    try:
        return float(concordance_index(duration, -hazard, event))
    except ZeroDivisionError:
        raise ValueError("a C-index needs two patients that can be compared") from None


def auc(label: NDArray[Any], score: NDArray[Any]) -> float:
    """Area under the ROC curve; raises `ValueError` unless both outcomes are there."""
    if len(np.unique(label)) < 2:  # scikit-learn only warns
        raise ValueError("an AUC needs both outcomes")
    return float(_scikit_learn().roc_auc_score(label, score))


def log_loss(label: NDArray[Any], score: NDArray[Any]) -> float:
    """Mean cross entropy of probabilities, which are kept from 0 and 1 by a ten-millionth."""
    probability = np.clip(score.astype(np.float64), 1e-7, 1 - 1e-7)
    return float(_scikit_learn().log_loss(label, probability, labels=[0, 1]))


def auc_interval(label: NDArray[Any], score: NDArray[Any]) -> tuple[float, float]:
    """The 95 % bootstrap interval of an AUC."""
    return _percentiles(_resampled_aucs(score, _resample(label)))


def auc_gain(label: NDArray[Any], score: NDArray[Any], other: NDArray[Any]) -> MetricValue:
    """AUC(score) - AUC(other) with its 95 % interval, each resample judging both on the same patients.

    Raises `ValueError` unless both outcomes are there.
    """
    gained = auc(label, score) - auc(label, other)
    weights = _resample(label)
    interval = _percentiles(_resampled_aucs(score, weights) - _resampled_aucs(other, weights))
    return MetricValue("auc_gain", gained, *interval)


def roc_curve(label: NDArray[Any], score: NDArray[Any]) -> tuple[Floats, Floats]:
    """True-positive rate at 101 evenly spaced false-positive rates: no point of it is a patient's."""
    false, true, _ = _scikit_learn().roc_curve(label, score)
    grid = np.linspace(0, 1, CURVE_POINTS)
    return grid, np.interp(grid, false, true)


def calibration_curve(label: NDArray[Any], score: NDArray[Any]) -> tuple[Floats, Floats]:
    """Mean score and observed rate in up to ten bins of equally many patients, by rising score.

    No bin is smaller than `CALIBRATION_LEAST`: a bin of one would publish that patient's score and outcome. With fewer
    patients than that there is no curve.
    """
    order = np.argsort(score, kind="stable")
    count = min(CALIBRATION_BINS, len(order) // CALIBRATION_LEAST)
    bins = np.array_split(order, count) if count else []
    return np.array([score[part].mean() for part in bins]), np.array([label[part].mean() for part in bins])


def _always_defined(label: NDArray[Any], score: NDArray[Any]) -> list[MetricValue]:
    probability = np.clip(score.astype(np.float64), 1e-7, 1 - 1e-7)
    return [
        MetricValue("log_loss", log_loss(label, score)),
        MetricValue("brier", float(np.mean((probability - label) ** 2))),
        MetricValue("accuracy", float(np.mean((score >= 0.5) == (label > 0.5)))),
        MetricValue("prevalence", float(np.mean(label))),
    ]


class _Weights(NamedTuple):
    """How often each patient is drawn in each resample, ``(resamples, rows)``, apart by outcome."""

    positive: Floats
    negative: Floats


def _resample(label: NDArray[Any]) -> _Weights:
    generator = np.random.default_rng(_SEED)
    weights = []
    for outcome in (1, 0):
        mine = (label > 0.5) == bool(outcome)
        count = int(mine.sum())
        drawn = np.zeros((RESAMPLES, len(label)))
        drawn[:, mine] = generator.multinomial(count, np.full(count, 1 / count), size=RESAMPLES)
        weights.append(drawn)
    return _Weights(*weights)


def _resampled_aucs(score: NDArray[Any], weights: _Weights) -> Floats:
    """The AUC of every resample: the share of (positive, negative) pairs in the right order, ties counting half."""
    order = np.argsort(score, kind="stable")
    ranked = score[order]
    starts = np.flatnonzero(np.concatenate([[True], ranked[1:] != ranked[:-1]]))  # of runs of equal scores
    positive = np.add.reduceat(weights.positive[:, order], starts, axis=1)
    negative = np.add.reduceat(weights.negative[:, order], starts, axis=1)
    below = np.cumsum(negative, axis=1) - negative
    right = (positive * (below + negative / 2)).sum(axis=1)
    found: Floats = right / (positive.sum(axis=1) * negative.sum(axis=1))
    return found


def _scikit_learn() -> Any:
    """Its metrics, imported when they are needed: that takes a second, and a passive party judges nothing."""
    from sklearn import metrics

    return metrics


def _percentiles(values: Floats) -> tuple[float, float]:
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)
