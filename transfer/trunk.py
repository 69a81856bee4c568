"""One network that learns from a source's rows: a trunk, whose output is the embedding, and a head that is its teacher.

Supervised, the head is one logit for the source's own label, and what is minimised is the binary cross-entropy. Without
a label the head is a decoder: it rebuilds the row from the embedding of the same row under **swap noise**, each value
replaced with a fixed probability by the same column's value of another row of the batch, and what is minimised is the
mean squared error. Swapped values are real values, so that nothing but how columns go together tells them apart.

The trunk is `vertical.models.Bottom`, so that split training can go on from it.

**Papers**: Loshchilov and Hutter, "Decoupled weight decay regularization" (AdamW), 2019; Yoon et al., "VIME: extending
the success of self- and semi-supervised learning to tabular domain", 2020; Jahrer's denoising autoencoder with swap
noise (first place of Porto Seguro's Safe Driver Prediction, 2017).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, mse_loss, one_hot

from ..horizontal.order import batches, shuffled
from ..horizontal.tabular import Encoded, TabularEncoder, linear, private_generator
from ..parties.table import Column
from ..vertical.models import Bottom, SplitPlan
from ..vertical.training import check_finite, chunks


@dataclass(frozen=True)
class PretrainPlan:
    """The public hyperparameters of what a source learns from all its own rows.

    The last of `hidden` is the width of the embedding; `swap_noise` is the share of values that is swapped, without a
    label; `folds` the number of models that see all shared rows but a part; `seed` orders folds and batches.
    """

    how: Literal["supervised", "self_supervised"] = "supervised"
    hidden: tuple[int, ...] = (64, 32)
    dropout: float = 0.1
    epochs: int = 12
    batch_size: int = 128
    learning_rate: float = 0.001
    weight_decay: float = 0.01
    swap_noise: float = 0.3
    folds: int = 5
    seed: int = 7

    @property
    def bottom(self) -> SplitPlan:
        """The plan of the trunk alone."""
        return SplitPlan(kind="network", bottom=self.hidden, dropout=self.dropout)

    @property
    def width(self) -> int:
        """Numbers of an embedding."""
        return self.hidden[-1]


class Network(nn.Module):
    """A trunk and its head, with the encoder of the rows. `private_seed` draws weights, dropout and swap noise."""

    def __init__(self, plan: PretrainPlan, encoder: TabularEncoder, private_seed: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.bottom = Bottom(plan.bottom, encoder, private_seed, bias=True)
        self._supervised = plan.how == "supervised"
        self._levels = [levels for levels, _ in encoder.embeddings]
        outputs = 1 if self._supervised else encoder.dense_width + sum(self._levels)
        self.head = linear(plan.width, outputs, private_generator(private_seed, "pretraining head weights"))
        self._swap = SwapNoise(encoder, plan.swap_noise, private_generator(private_seed, "swap noise"))

    def loss(self, rows: Encoded, label: Tensor | None) -> Tensor:
        """The mean loss of a batch."""
        if self._supervised:
            assert label is not None
            return binary_cross_entropy_with_logits(self.head(self.bottom(rows)).squeeze(1), label)
        return mse_loss(self.head(self.bottom(self._swap(rows))), self._clean(rows))

    def embed(self, columns: Sequence[Column]) -> NDArray[np.float32]:
        """The embedding of all rows of the columns, without dropout: ``(rows, width)``."""
        count = len(columns[0].values)
        rows = self.encoder.transform(columns, count)
        self.eval()
        with torch.no_grad():
            found = [self.bottom(rows[torch.from_numpy(chunk)]).numpy() for chunk in chunks(np.arange(count))]
        return np.concatenate(found) if found else np.zeros((0, self.head.in_features), np.float32)

    def score(self, embedding: NDArray[np.float32]) -> NDArray[np.float32]:
        """The logit of a supervised head for embedded rows: ``(rows, 1)``."""
        with torch.no_grad():
            logits: NDArray[np.float32] = self.head(torch.from_numpy(embedding)).numpy()
        return logits

    def _clean(self, rows: Encoded) -> Tensor:
        """What is to be rebuilt: the dense columns, and large categories as one-hot ones."""
        codes = [one_hot(rows.codes[:, place], levels) for place, levels in enumerate(self._levels)]
        return torch.cat([rows.dense, *codes], dim=1)


def train_trunk(
    columns: Sequence[Column],
    label: NDArray[np.float32] | None,
    rows: NDArray[np.int64],
    plan: PretrainPlan,
    *,
    private_seed: int,
    on_epoch: Callable[[int], None],
) -> Network:
    """Learn from some `rows` of the columns and of `label`, and from no others.

    Raises `InputError` ``train.diverged``.
    """
    encoder = _encoder(columns, rows)
    network = Network(plan, encoder, private_seed)
    encoded = encoder.transform(columns, len(columns[0].values))
    outcome = None if label is None else torch.from_numpy(label)
    rate, decay = plan.learning_rate, plan.weight_decay
    adam = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=decay, fused=True)
    network.train()
    for epoch in range(1, plan.epochs + 1):
        for batch in batches(shuffled(rows, f"pretraining {plan.seed} {epoch}"), plan.batch_size):
            index = torch.from_numpy(batch)
            loss = network.loss(encoded[index], None if outcome is None else outcome[index])
            check_finite(loss.item(), epoch)
            loss.backward()  # type: ignore[no-untyped-call]
            adam.step()
            adam.zero_grad(set_to_none=True)
        on_epoch(epoch)
    check_finite(np.concatenate([value.detach().numpy().ravel() for value in network.parameters()]), plan.epochs)
    return network


def _encoder(columns: Sequence[Column], rows: NDArray[np.int64]) -> TabularEncoder:
    """Means and scales of the training rows. Which levels there are and which columns have gaps is asked of all rows.

    So all networks of a source have the same parameters, and one private seed gives all the same initial weights.
    """
    fitted, whole = (TabularEncoder.fit(columns, some) for some in (rows, np.arange(len(columns[0].values))))
    numbers = [
        replace(mine, indicator=known.indicator) for mine, known in zip(fitted.numbers, whole.numbers, strict=True)
    ]
    return TabularEncoder(numbers, whole.categories)


class SwapNoise:
    """Replaces each value, with probability `rate`, by the same column's value of another row of the batch.

    A number and its indicator of missing are one value, and so are all one-hot columns of a category.
    """

    def __init__(self, encoder: TabularEncoder, rate: float, generator: torch.Generator) -> None:
        self._rate, self._generator = rate, generator
        dense: list[int] = []
        codes: list[int] = []
        for column, number in enumerate(encoder.numbers):
            dense += [column] * (1 + number.indicator)
        for column, category in enumerate(encoder.categories, len(encoder.numbers)):
            if category.embedded:
                codes.append(column)
            else:
                dense += [column] * (len(category.levels) + 1)
        self._columns = len(encoder.numbers) + len(encoder.categories)
        self._dense = torch.tensor(dense, dtype=torch.int64)
        self._codes = torch.tensor(codes, dtype=torch.int64)

    def __call__(self, rows: Encoded) -> Encoded:
        """A batch with values swapped."""
        count, shape = len(rows), (len(rows), self._columns)
        own = torch.arange(count)[:, None]
        swapped = torch.rand(shape, generator=self._generator) < self._rate
        # Never the row itself, unless it is the only one.
        others = own + 1 + torch.randint(max(count - 1, 1), shape, generator=self._generator)
        giver = torch.where(swapped, others % count, own)
        return Encoded(rows.dense.gather(0, giver[:, self._dense]), rows.codes.gather(0, giver[:, self._codes]))
