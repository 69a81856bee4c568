"""What training minimises for each task: binary cross-entropy, squared error, Cox's partial likelihood."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, mse_loss

from .cox import cox_loss
from .targets import Target, Task


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
