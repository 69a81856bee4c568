"""What one party trains and judges, as the rounds see it: a model, the party's rows, and a loss."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..parties.errors import InputError
from .losses import TargetTensors
from .metrics import MetricValue
from .models import Scorer
from .splits import LEAST_TRAIN_ROWS, Parts, check_rows
from .tabular import Encoded
from .targets import Target, predictions

SCORING_ROWS = 4096  # at a time, so that activations stay small


class Validation(NamedTuple):
    """How a model does on a party's validation rows.

    `loss` is their mean loss. `score` is the AUC, R² or C-index, which stands for `scored` rows: all of them, or none
    where it is undefined (only one outcome, say) and given as 0. Without validation rows everything is 0.
    """

    rows: int
    loss: float
    score: float
    scored: int


class LocalProblem(Protocol):
    """What the rounds need to know of a party's training."""

    module: nn.Module
    train_rows: int

    def loss(self, index: Tensor) -> Tensor:
        """Mean loss of the training rows at positions `index` (0 … `train_rows` - 1), in the module's own mode."""

    def validation(self) -> Validation:
        """Judge the module on the validation rows."""

    def reseed(self, round: int) -> None:
        """Begin a round's dropout, so that a resumed round draws what an uninterrupted one drew."""


class TabularProblem:
    """Encoded rows, a target and a model: a `LocalProblem` over one party's dataset.

    `rows` and `target` hold all of the party's rows, `parts` positions among them; `private_seed` is the party's own,
    for dropout. Raises `InputError` ``data.few_rows``.
    """

    def __init__(
        self,
        module: nn.Module,
        rows: Encoded,
        target: Target,
        parts: Parts,
        *,
        party: str,
        private_seed: int,
        least_rows: int = LEAST_TRAIN_ROWS,
    ) -> None:
        check_rows(parts, party, least_rows)
        self.module, self.rows, self.target, self.parts, self.party = module, rows, target, parts, party
        self.train_rows = len(parts.train)
        self._scorer = Scorer(module, private_seed, party=party)
        self._train_rows, self._train_target = self._part(parts.train)
        self._validation_target = TargetTensors.of(target[parts.validation])
        self._round = 0

    def loss(self, index: Tensor) -> Tensor:
        """Mean loss of the training rows at positions `index`, in the module's own mode.

        Raises `InputError` ``model.invalid`` when a user's own model fails.
        """
        return self._train_target.loss(self._scorer(self._train_rows[index]), index)

    def validation(self) -> Validation:
        """Judge the module on the validation rows, without dropout; its mode is put back.

        Raises `InputError` ``train.diverged`` when the model gives what is no number.
        """
        if not len(self.parts.validation):
            return Validation(0, 0.0, 0.0, 0)
        outputs = self._outputs(self.parts.validation)
        everything = torch.arange(len(outputs))
        loss = self._validation_target.loss(torch.from_numpy(outputs), everything).item()
        if not np.isfinite(loss):
            raise InputError("train.diverged", epoch=self._round)
        score = self.target[self.parts.validation].score(predictions(self.target.task, outputs))
        return Validation(len(outputs), loss, score or 0.0, 0 if score is None else len(outputs))

    def reseed(self, round: int) -> None:
        """Begin a round's dropout: what is drawn depends on the private seed and the round alone."""
        self._round = round
        self._scorer.reseed(round)

    def scores(self, positions: NDArray[np.int64]) -> NDArray[np.float64]:
        """Probabilities, numbers or logs of hazard ratios of the rows at `positions`, ``(len(positions),)``.

        Raises `InputError` ``train.diverged`` when the model gives what is no number.
        """
        return predictions(self.target.task, self._outputs(positions))

    def metrics(self, positions: NDArray[np.int64]) -> list[MetricValue]:
        """All metrics of the rows at `positions`; those that these rows leave undefined are left out."""
        return self.target[positions].metrics(self.scores(positions))

    def _outputs(self, positions: NDArray[np.int64]) -> NDArray[np.float32]:
        found = [np.zeros(0, np.float32)]
        with _judging(self.module):
            for start in range(0, len(positions), SCORING_ROWS):
                chunk = torch.from_numpy(positions[start : start + SCORING_ROWS])
                found.append(self._scorer(self.rows[chunk]).numpy())
        outputs = np.concatenate(found)
        if not np.isfinite(outputs).all():
            raise InputError("train.diverged", epoch=self._round)
        return outputs

    def _part(self, positions: NDArray[np.int64]) -> tuple[Encoded, TargetTensors]:
        return self.rows[torch.from_numpy(positions)], TargetTensors.of(self.target[positions])


@contextmanager
def _judging(module: nn.Module) -> Iterator[None]:
    """Neither dropout nor gradients; afterwards the module is in the mode that it was in."""
    training = module.training
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        module.train(training)
