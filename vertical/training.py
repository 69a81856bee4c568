"""What split and central training have in common: the learner, when to stop; and how a party tells how far it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from ..horizontal.metrics import auc
from ..parties.errors import InputError
from .batches import Parts
from .models import SplitPlan, generators

SCORING_ROWS = 4096


@dataclass(frozen=True)
class EpochReport:
    """How far training is: `batch` of `batches` in `epoch` of `epochs`; at an epoch's end the active party adds the
    figures.

    `resumed_from` is set once, on the first report of a training that goes on from a checkpoint after that epoch.
    """

    epoch: int
    epochs: int
    batch: int
    batches: int
    loss: float | None = None
    validation_auc: float | None = None
    resumed_from: int | None = None


OnEpoch = Callable[[EpochReport], None]


class Stopping:
    """Early stopping on the validation AUC (Prechelt 1998), and the history that it goes by."""

    def __init__(self, patience: int) -> None:
        self._patience = patience
        self.history: list[tuple[float, float]] = []  # (training loss, validation AUC) an epoch

    def note(self, loss: float, validation_auc: float) -> None:
        """Take in one epoch."""
        self.history.append((loss, validation_auc))

    @property
    def best_epoch(self) -> int:
        """The first epoch (from 1) with the highest validation AUC."""
        return 1 + int(np.argmax([score for _, score in self.history]))

    @property
    def is_best(self) -> bool:
        """Whether the last epoch is the best so far."""
        return self.best_epoch == len(self.history)

    @property
    def stop(self) -> bool:
        """Whether patience is at its end."""
        return bool(self.history) and len(self.history) - self.best_epoch >= self._patience


class Learner:
    """A module with its own Adam (Kingma and Ba 2015), its best weights so far, and all that a checkpoint needs."""

    def __init__(self, module: nn.Module, plan: SplitPlan) -> None:
        self.module = module
        self._parameters = list(module.parameters())
        self._adam = (
            torch.optim.Adam(self._parameters, lr=plan.learning_rate, weight_decay=plan.weight_decay, fused=True)
            if self._parameters
            else None
        )
        self._best: dict[str, Tensor] = {}

    def step(self) -> None:
        """Step along the gradients that were accumulated, and forget them."""
        if self._adam is not None:
            self._adam.step()
            self._adam.zero_grad(set_to_none=True)

    def keep_best(self) -> None:
        """Remember the weights as they are now."""
        self._best = {name: value.detach().clone() for name, value in self.module.state_dict().items()}

    def restore_best(self) -> None:
        """Go back to the weights remembered."""
        self.module.load_state_dict(self._best)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Weights, best weights, Adam's state and the generators, as arrays for a checkpoint."""
        found = {f"model.{name}": value for name, value in self.module.state_dict().items()}
        found |= {f"best.{name}": value for name, value in self._best.items()}
        for place, parameter in enumerate(self._parameters):
            state = self._adam.state.get(parameter, {}) if self._adam is not None else {}
            found |= {f"adam.{place}.{name}": value for name, value in state.items()}
        found |= {f"generator.{name}": one.get_state() for name, one in generators(self.module).items()}
        return {name: value.detach().numpy().copy() for name, value in found.items()}

    def load(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Take over what `arrays` gave."""
        groups: dict[str, dict[str, Tensor]] = {"model": {}, "best": {}, "adam": {}, "generator": {}}
        for name, value in arrays.items():
            group, rest = name.split(".", 1)
            groups[group][rest] = torch.from_numpy(value.copy())
        self.module.load_state_dict(groups["model"])
        self._best = groups["best"]
        if self._adam is not None:
            for place, parameter in enumerate(self._parameters):
                prefix = f"{place}."
                state = {n.removeprefix(prefix): v for n, v in groups["adam"].items() if n.startswith(prefix)}
                if state:
                    self._adam.state[parameter] = state
        for name, one in generators(self.module).items():
            one.set_state(groups["generator"][name])


class Teller:
    """Tells how far one party is in split training."""

    def __init__(self, plan: SplitPlan, parts: Parts, on_epoch: OnEpoch | None) -> None:
        self._epochs, self._batches = plan.epochs, -(-len(parts.train) // plan.batch_size)
        self._on_epoch = on_epoch or (lambda report: None)

    def batch(self, epoch: int, number: int) -> None:
        """Tell that a batch is done."""
        if number < self._batches:  # the last one is told by `ended`, after validation
            self._on_epoch(EpochReport(epoch, self._epochs, number, self._batches))

    def ended(self, epoch: int, stopping: Stopping | None, resumed_from: int | None = None) -> None:
        """Tell that an epoch is done, with its figures at the active party, which has `stopping`."""
        loss, score = stopping.history[epoch - 1] if stopping else (None, None)
        self._on_epoch(EpochReport(epoch, self._epochs, self._batches, self._batches, loss, score, resumed_from))

    def resumed(self, epoch: int, stopping: Stopping | None) -> None:
        """Tell the epochs of earlier attempts again, so that the report of this one is whole."""
        for earlier in range(1, epoch + 1):
            self.ended(earlier, stopping, resumed_from=epoch if earlier == epoch else None)


def loss_of(logits: Tensor, label: Tensor) -> Tensor:
    """Mean binary cross-entropy of a batch."""
    return binary_cross_entropy_with_logits(logits, label)


def check_finite(values: NDArray[np.float32] | float, epoch: int) -> None:
    """Raise `InputError` ``train.diverged`` when training has run away."""
    if not np.isfinite(values).all():
        raise InputError("train.diverged", epoch=epoch)


def check_parts(label: NDArray[Any], parts: Parts) -> None:
    """Raise `InputError` ``data.split`` unless every part holds both outcomes."""
    for name in ("train", "validation", "test"):
        if len(np.unique(label[getattr(parts, name)])) < 2:
            raise InputError("data.split", part=name)


def validation_auc(label: NDArray[Any], parts: Parts, logits: NDArray[Any]) -> float:
    """The AUC that decides on stopping."""
    return auc(label[parts.validation], logits)


def chunks(rows: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Rows to score, in chunks that bound a message's size."""
    return (rows[start : start + SCORING_ROWS] for start in range(0, len(rows), SCORING_ROWS))
