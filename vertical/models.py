"""Bottoms, merge and top: what a vertical job can name.

A bottom turns one party's columns into its cut layer, ``(rows, cut width)``; the merge puts the parties' cut layers
together, the active party's own first, then the passive ones in the job's order; the top turns that into one logit a
row. Logistic regression is the `sum` of bottoms of width 1 without a top; its only bias is the active party's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..horizontal.tabular import Encoded, TabularEncoder, TabularInput, linear, multilayer, private_generator
from ..parties.table import Column


@dataclass(frozen=True)
class SplitPlan:
    """The public hyperparameters of one split training: every party holds the same."""

    kind: Literal["network", "logistic"] = "network"
    bottom: tuple[int, ...] = (64, 32)
    top: tuple[int, ...] = (32,)
    merge: Literal["concat", "sum", "mean"] = "concat"
    dropout: float = 0.1
    epochs: int = 30
    batch_size: int = 64
    learning_rate: float = 0.001
    weight_decay: float = 0.0
    patience: int = 5
    seed: int = 7
    validation_share: float = 0.2
    test_share: float = 0.2

    @property
    def cut_width(self) -> int:
        """Numbers a row that leave a passive party."""
        return 1 if self.kind == "logistic" else self.bottom[-1]


class Bottom(nn.Module):
    """One party's part below the cut layer."""

    def __init__(self, plan: SplitPlan, encoder: TabularEncoder, private_seed: int, *, bias: bool) -> None:
        super().__init__()
        weights = private_generator(private_seed, "bottom weights")
        self.noise = private_generator(private_seed, "bottom dropout")
        self.input = TabularInput(encoder, weights)
        self.body: nn.Module
        if plan.kind == "logistic":
            self.body = linear(self.input.width, 1, weights, bias=bias)
        else:
            self.body = multilayer(self.input.width, plan.bottom, plan.dropout, weights, self.noise)

    def forward(self, rows: Encoded) -> Tensor:
        """The cut layer ``(rows, cut width)``."""
        cut: Tensor = self.body(self.input(rows))
        return cut


Trunk = tuple[TabularEncoder, Bottom]  # what a passive party's training begins with, if not with random weights


def passive_bottom(
    columns: Sequence[Column], train: NDArray[np.int64], plan: SplitPlan, private_seed: int, trunk: Trunk | None
) -> Trunk:
    """A passive party's encoder and bottom before its first step.

    With a `trunk` both have learnt from other rows already: the encoder is taken as it is and the weights are copied.
    Dropout is the plan's either way, and draws from this party's private seed.
    """
    encoder = TabularEncoder.fit(columns, train) if trunk is None else trunk[0]
    bottom = Bottom(plan, encoder, private_seed, bias=False)
    if trunk is not None:
        bottom.load_state_dict(trunk[1].state_dict())
    return encoder, bottom


class Top(nn.Module):
    """The active party's part above the merge: one logit a row, ``(rows,)``."""

    def __init__(self, plan: SplitPlan, cuts: int, private_seed: int) -> None:
        super().__init__()
        self._merge = "sum" if plan.kind == "logistic" else plan.merge
        weights = private_generator(private_seed, "top weights")
        self.noise = private_generator(private_seed, "top dropout")
        self.body: nn.Module = nn.Identity()
        if plan.kind == "network":
            width = plan.cut_width * (cuts if plan.merge == "concat" else 1)
            hidden = multilayer(width, plan.top, plan.dropout, weights, self.noise)
            self.body = nn.Sequential(hidden, linear(plan.top[-1] if plan.top else width, 1, weights))

    def forward(self, cuts: Sequence[Tensor]) -> Tensor:
        """Merge the cut layers and score them."""
        logits: Tensor = self.body(self._merged(cuts))
        return logits.squeeze(1)

    def _merged(self, cuts: Sequence[Tensor]) -> Tensor:
        if self._merge == "concat":
            return torch.cat(list(cuts), dim=1)
        total = cuts[0]
        for cut in cuts[1:]:
            total = total + cut
        return total / len(cuts) if self._merge == "mean" else total


class ActiveModel(nn.Module):
    """The active party's part: a bottom, unless it has no columns of its own, and the top."""

    def __init__(self, plan: SplitPlan, encoder: TabularEncoder, passive: int, private_seed: int) -> None:
        super().__init__()
        # Logistic regression keeps a bottom without columns: it holds the bias.
        self.bottom = (
            Bottom(plan, encoder, private_seed, bias=True)
            if encoder.dense_width or encoder.embeddings or plan.kind == "logistic"
            else None
        )
        self.top = Top(plan, passive + (self.bottom is not None), private_seed)

    def own_cut(self, rows: Encoded) -> list[Tensor]:
        """The own cut layer, as a list that is empty without one."""
        return [] if self.bottom is None else [self.bottom(rows)]


class ComposedNetwork(nn.Module):
    """All parts in one process: what the split network computes."""

    def __init__(self, active: ActiveModel, passive: Mapping[str, Bottom]) -> None:
        super().__init__()
        self.active = active
        self.passive = nn.ModuleDict(passive)

    def forward(self, active: Encoded, passive: Mapping[str, Encoded]) -> Tensor:
        """Logits ``(rows,)``."""
        logits: Tensor = self.active.top(
            self.active.own_cut(active) + [bottom(passive[name]) for name, bottom in self.passive.items()]
        )
        return logits


def generators(module: nn.Module) -> dict[str, torch.Generator]:
    """The private generators of dropout in a part, by the name of what draws from them."""
    return {name: part.noise for name, part in module.named_modules() if isinstance(part, (Bottom, Top))}
