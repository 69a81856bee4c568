"""What a party minimises in a round: the loss of its rows, and what holds it near the others.

- ``plain``: the loss alone (FedAvg; McMahan et al., AISTATS 2017)
- ``proximal``: and ``mu/2 · ‖w - w_round‖²`` (FedProx; Li et al., MLSys 2020)
- ``scaffold``: each gradient is corrected by ``c - c_k``, what all parties' gradients have over this party's
  (Karimireddy et al., ICML 2020). After K steps of size η the party sets ``c_k ← c_k - c + (w_round - w)/(K η)``,
  their option II
- ``ditto``: plain, and beside it a personal model on the party's own loss and ``mu/2 · ‖v - w_round‖²`` (Li et al.,
  ICML 2021, where mu is λ)

Each adds to gradients that are there already, so that any optimiser can follow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # a plan is read without torch
    from torch import Tensor, nn

Vector = NDArray[np.float32]
ObjectiveKind = Literal["plain", "proximal", "scaffold", "ditto"]


@dataclass(frozen=True)
class Objective:
    """What a party minimises; `mu` is how strongly it is held (FedProx's μ, Ditto's λ)."""

    kind: ObjectiveKind = "plain"
    mu: float = 0.0


def add_proximal(parameters: Sequence[nn.Parameter], anchor: Sequence[Tensor], mu: float) -> None:
    """Add the gradient of ``mu/2 · ‖w - anchor‖²`` to the parameters' gradients."""
    for parameter, value in zip(parameters, anchor, strict=True):
        if parameter.grad is not None:
            parameter.grad.add_(parameter.detach() - value, alpha=mu)


def add_correction(parameters: Sequence[nn.Parameter], correction: Sequence[Tensor]) -> None:
    """Add SCAFFOLD's ``c - c_k`` to the parameters' gradients."""
    for parameter, value in zip(parameters, correction, strict=True):
        if parameter.grad is not None:
            parameter.grad.add_(value)


def control_change(start: Vector, end: Vector, control: Vector, steps: int, learning_rate: float) -> Vector:
    """How c_k changes (option II): ``-c + (w_round - w)/(K η)``, ``(size,)``."""
    return ((start - end) / np.float32(steps * learning_rate) - control).astype(np.float32)
