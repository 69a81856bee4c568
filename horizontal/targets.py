"""What a model learns to tell: an outcome, a number or a survival time; its loss, and how well it is told.

The score of validation rows, which rounds are judged by, is the AUC, R² or Harrell's C-index: higher is better.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, mse_loss

from . import metrics
from .cox import cox_loss
from .metrics import MetricValue
from .models import Task


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


@dataclass(frozen=True)
class TargetTensors:
    """A target as tensors, to learn from."""

    task: Task
    values: Tensor
    event: Tensor | None

    @classmethod
    def of(cls, target: Target) -> TargetTensors:
        """Take over a target's values."""
        event = None if target.event is None else torch.from_numpy(target.event)
        return cls(target.task, torch.from_numpy(target.values), event)

    def loss(self, outputs: Tensor, index: Tensor) -> Tensor:
        """Mean loss of rows at `index`, to which the model gave `outputs` ``(len(index),)``.

        Binary cross-entropy of logits, squared error, or Cox's partial likelihood a row (`cox`).
        """
        values = self.values.index_select(0, index)
        if self.event is not None:
            return cox_loss(outputs, values, self.event.index_select(0, index))
        if self.task == "binary":
            return binary_cross_entropy_with_logits(outputs, values)
        return mse_loss(outputs, values)


def predictions(task: Task, outputs: NDArray[np.float32]) -> NDArray[np.float64]:
    """What a model's outputs stand for: probabilities, numbers, or logs of hazard ratios; float64 ``(rows,)``."""
    wide = outputs.astype(np.float64)
    if task != "binary":
        return wide
    with np.errstate(over="ignore"):  # exp(-x) of a large negative logit: the probability is 0
        found: NDArray[np.float64] = 1 / (1 + np.exp(-wide))
    return found
