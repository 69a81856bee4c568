"""What a model learns to tell: an outcome, a number or a survival time; its loss, and how well it is told.

The score of validation rows, which rounds are judged by, is the AUC, R² or Harrell's C-index: higher is better.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from . import metrics
from .metrics import MetricValue

Task = Literal["binary", "regression", "survival"]


@dataclass(frozen=True)
class Target:
    """One task's target over all rows of a party, float32 ``(rows,)``.

    `values` are 0 and 1 (binary), numbers (regression) or durations above 0 (survival), which have `event` 0 or 1
    beside them.
    """

    task: Task
    values: NDArray[np.float32]
    event: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        if (self.event is not None) != (self.task == "survival"):
            raise ValueError("events belong to survival, and to nothing else")

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, rows: NDArray[np.int64]) -> Target:
        return Target(self.task, self.values[rows], None if self.event is None else self.event[rows])

    def stratum(self) -> NDArray[np.int64]:
        """What a split keeps in proportion: the outcome or the event, ``(rows,)``; one stratum for numbers."""
        outcome = self.values if self.task == "binary" else self.event
        return np.zeros(len(self.values), np.int64) if outcome is None else outcome.astype(np.int64)

    def may_be_told_of(self, floor: int) -> bool:
        """Whether these rows hold `floor` patients of each outcome (of a number: patients; of survival: patients and
        events): as `pooled` asks of a group. A prevalence beside the number of rows is a count of the outcomes.
        """
        outcome = self.values if self.task == "binary" else self.event
        counts: list[float] = [len(self)] if outcome is None else [float(outcome.sum()), len(self)]
        if self.task == "binary":
            counts.append(len(self) - counts[0])
        return min(counts) >= floor

    def metrics(self, predicted: NDArray[np.float64]) -> list[MetricValue]:
        """All metrics of what `predictions` gave, ``(rows,)``; those that these rows leave undefined are left out."""
        if not len(self):
            return []
        if self.event is not None:
            return metrics.survival_metrics(self.values, self.event, predicted)
        if self.task == "binary":
            return metrics.outcome_metrics(self.values, predicted)
        return metrics.regression_metrics(self.values, predicted)

    def score(self, predicted: NDArray[np.float64]) -> float | None:
        """AUC, R² or C-index, or None where these rows leave it undefined (one outcome, one value, no pair)."""
        try:
            if self.event is not None:
                return metrics.c_index(self.values, self.event, predicted)
            return (metrics.auc if self.task == "binary" else metrics.r2)(self.values, predicted)
        except ValueError:
            return None


def predictions(task: Task, outputs: NDArray[np.float32]) -> NDArray[np.float64]:
    """What a model's outputs stand for: probabilities, numbers, or logs of hazard ratios; float64 ``(rows,)``."""
    wide = outputs.astype(np.float64)
    if task != "binary":
        return wide
    with np.errstate(over="ignore"):  # exp(-x) of a large negative logit: the probability is 0
        found: NDArray[np.float64] = 1 / (1 + np.exp(-wide))
    return found
