"""The model of Fed-Heart-Disease, as a user brings one of their own: `bench_heart.py` names it by its dotted path."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Baseline(nn.Module):
    """Logistic regression that begins with what torch gives a `Linear` after `torch.manual_seed(seed)`.

    That is where the published figures begin, and they hang on it: at such small learning rates the first weights are
    never quite forgotten.
    """

    def __init__(self, inputs: int, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.linear = nn.Linear(inputs, 1)

    def forward(self, rows: Tensor) -> Tensor:
        """Logits ``(rows, 1)`` of ``(rows, inputs)``."""
        logits: Tensor = self.linear(rows)
        return logits
