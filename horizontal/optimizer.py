"""What the coordinator does with the parties' mean change: a step of its own optimiser.

Reddi et al., "Adaptive federated optimization", ICLR 2021, in the form of FLamby (Ogier du Terrail et al. 2022): the
change ``d`` is the mean of what the parties' models moved, and stands for a negative gradient::

    sgd       m = momentum · m + d                               x += lr · m
    adam      m = β1 m + (1 - β1) d   v = β2 v + (1 - β2) d²              x += lr · m / (√v + τ)
    yogi      m as above              v = v - (1 - β2) d² sign(v - d²)    the same step
    adagrad   m as above              v = v + d²                          the same step

``m`` and ``v`` start at zero. The paper corrects no bias; Flower's FedAdam does (Kingma and Ba 2015, algorithm 1),
which `bias_correction` switches on so that the two can be told apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float32]
Floats = NDArray[np.float64]
OptimizerKind = Literal["sgd", "adam", "yogi", "adagrad"]


@dataclass(frozen=True)
class ServerOptimizer:
    """The coordinator's optimiser. `momentum` is SGD's; the betas and `tau` belong to the adaptive ones."""

    kind: OptimizerKind = "sgd"
    learning_rate: float = 1.0
    momentum: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.999  # not Adagrad's
    tau: float = 1e-8
    bias_correction: bool = False

    @property
    def adaptive(self) -> bool:
        """Whether every coordinate has a step size of its own."""
        return self.kind != "sgd"


@dataclass
class ServerState:
    """What an optimiser remembers: how many steps it made, and its vectors ``(size,)``, once it has any."""

    count: int = 0
    first: Floats = field(default_factory=lambda: np.zeros(0))  # m
    second: Floats = field(default_factory=lambda: np.zeros(0))  # v

    def arrays(self) -> dict[str, NDArray[Any]]:
        """For a checkpoint."""
        return {"optimizer.first": self.first, "optimizer.second": self.second}

    @classmethod
    def load(cls, count: int, arrays: Mapping[str, NDArray[Any]]) -> ServerState:
        """What `arrays` gave."""
        return cls(count, arrays["optimizer.first"], arrays["optimizer.second"])


def step(optimizer: ServerOptimizer, model: Vector, change: Floats, state: ServerState) -> tuple[Vector, ServerState]:
    """The model ``(size,)`` after one step along a mean change ``(size,)``, and what to remember."""
    rate, count = optimizer.learning_rate, state.count + 1
    if optimizer.kind == "sgd":
        if optimizer.momentum == 0.0:
            return _moved(model, rate * change), ServerState(count)
        first = change if not len(state.first) else optimizer.momentum * state.first + change
        return _moved(model, rate * first), ServerState(count, first)
    beta1, beta2 = optimizer.beta1, optimizer.beta2
    first = (1 - beta1) * change if not len(state.first) else beta1 * state.first + (1 - beta1) * change
    second = state.second if len(state.second) else np.zeros_like(change)
    square = change * change
    match optimizer.kind:
        case "adam":
            second = beta2 * second + (1 - beta2) * square
        case "yogi":
            second = second - (1 - beta2) * square * np.sign(second - square)
        case "adagrad":
            second = second + square
    mean, scale = first, second
    if optimizer.bias_correction:
        mean, scale = first / (1 - beta1**count), second / (1 - beta2**count)
    return _moved(model, rate * mean / (np.sqrt(scale) + optimizer.tau)), ServerState(count, first, second)


def _moved(model: Vector, by: Floats) -> Vector:
    return (model + by).astype(np.float32)
