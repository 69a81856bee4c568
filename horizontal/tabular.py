"""Columns → tensors, and the tabular network that they go into.

What an encoder learns (means, scales, categories) it learns from the training rows alone. Initial weights and dropout
draw from a private `torch.Generator`: a party's randomness is its own, and can be kept in a checkpoint.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..parties.table import Column
from .codes import CategoryCode, NumberCode

_TWISTER_WORDS, _TWISTER_OFFSET = 624, 24  # within the state of a CPU generator


@dataclass(frozen=True)
class Encoded:
    """Rows as tensors: `dense` float32 ``(rows, width)``, `codes` int64 ``(rows, embedded categories)``."""

    dense: Tensor
    codes: Tensor

    def __getitem__(self, rows: Tensor) -> Encoded:
        return Encoded(self.dense.index_select(0, rows), self.codes.index_select(0, rows))

    def __len__(self) -> int:
        return len(self.dense)


class TabularEncoder:
    """What was learnt of the columns of one party."""

    def __init__(self, numbers: Sequence[NumberCode], categories: Sequence[CategoryCode]) -> None:
        self.numbers, self.categories = tuple(numbers), tuple(categories)

    @classmethod
    def fit(cls, columns: Sequence[Column], rows: NDArray[np.int64], *, embed: bool = True) -> TabularEncoder:
        """Learn from the training rows of the columns; large categories are embedded only with `embed`."""
        numbers, categories = [], []
        for column in columns:
            values = column.values[rows]
            if column.kind == "category":
                levels = sorted({str(value) for value in values if value is not None})
                categories.append(CategoryCode(column.name, tuple(levels), embed))
                continue
            known = values[~np.isnan(values)]
            mean = float(known.mean()) if len(known) else 0.0
            scale = float(known.std()) if len(known) else 0.0
            scale = scale if scale > 1e-12 * max(1.0, abs(mean)) else 1.0  # a constant column stays 0
            numbers.append(NumberCode(column.name, mean, scale, indicator=len(known) < len(values)))
        return cls(numbers, categories)

    @property
    def dense_width(self) -> int:
        """Columns of `Encoded.dense`."""
        one_hot = sum(len(code.levels) + 1 for code in self.categories if not code.embedded)
        return len(self.numbers) + sum(code.indicator for code in self.numbers) + one_hot

    @property
    def embeddings(self) -> list[tuple[int, int]]:
        """(levels with the unknown one, width) of each embedded category."""
        return [(len(code.levels) + 1, code.width) for code in self.categories if code.embedded]

    def transform(self, columns: Sequence[Column], rows: int) -> Encoded:
        """Encode all `rows` of columns with the names that were fitted; no column gives ``(rows, 0)``."""
        found = {column.name: column.values for column in columns}
        dense: list[NDArray[np.float32]] = []
        codes: list[NDArray[np.int64]] = []
        for number in self.numbers:
            values = found[number.name]
            missing = np.isnan(values)
            with np.errstate(over="ignore"):  # by a scale out of a file that somebody else made: `finetune` sees it
                scaled = np.where(missing, 0.0, (values - number.mean) / number.scale).astype(np.float32)
            dense.append(scaled[:, None])
            if number.indicator:
                dense.append(missing.astype(np.float32)[:, None])
        for category in self.categories:
            place = {level: index for index, level in enumerate(category.levels, 1)}
            code = np.array([place.get(value, 0) for value in found[category.name].tolist()], dtype=np.int64)
            if category.embedded:
                codes.append(code)
            else:
                dense.append(np.eye(len(category.levels) + 1, dtype=np.float32)[code])
        return Encoded(
            torch.from_numpy(np.concatenate(dense, axis=1) if dense else np.zeros((rows, 0), np.float32)),
            torch.from_numpy(np.stack(codes, axis=1) if codes else np.zeros((rows, 0), np.int64)),
        )

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON, to be kept beside the weights: it holds levels of categories, so it stays at the party."""
        return {
            "numbers": [asdict(code) for code in self.numbers],
            "categories": [asdict(code) | {"levels": list(code.levels)} for code in self.categories],
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> TabularEncoder:
        """Read what `to_dict` made."""
        return cls(
            [NumberCode(**code) for code in content["numbers"]],
            [
                CategoryCode(code["name"], tuple(code["levels"]), code.get("embed", True))
                for code in content["categories"]
            ],
        )


def private_generator(seed: int, purpose: str) -> torch.Generator:
    """A generator of one party's own randomness, apart for each purpose.

    `manual_seed` keeps 32 bits of a seed, and 2³² initial weights can be tried by whoever sees a cut layer. So the
    whole state of the Mersenne twister is filled instead.
    """
    words = hashlib.shake_256(f"isthmus {purpose} {seed}".encode()).digest(4 * _TWISTER_WORDS)
    generator = torch.Generator().manual_seed(0)
    state = generator.get_state()
    wide = torch.from_numpy(np.frombuffer(words, dtype="<u4").astype("<u8").view(np.uint8))
    state[_TWISTER_OFFSET : _TWISTER_OFFSET + len(wide)] = wide
    generator.set_state(state)
    return generator


class PrivateDropout(nn.Module):
    """Dropout (Srivastava et al. 2014) that draws from a generator of its own instead of the global one."""

    def __init__(self, rate: float, generator: torch.Generator) -> None:
        super().__init__()
        self.rate, self.generator = rate, generator

    def forward(self, values: Tensor) -> Tensor:
        """Drop each value with probability `rate` and scale the others up, in training only."""
        if not self.training or self.rate == 0.0:
            return values
        kept = torch.rand(values.shape, generator=self.generator) >= self.rate
        return values * kept.to(values.dtype).div_(1.0 - self.rate)


class TabularInput(nn.Module):
    """Dense columns beside the embeddings of the large categories: ``(rows, width)``."""

    def __init__(self, encoder: TabularEncoder, generator: torch.Generator) -> None:
        super().__init__()
        self.embeddings = nn.ModuleList()
        for levels, width in encoder.embeddings:
            weight = torch.empty(levels, width).normal_(generator=generator)
            self.embeddings.append(nn.Embedding(levels, width, _weight=weight))
        self.width = encoder.dense_width + sum(width for _, width in encoder.embeddings)

    def forward(self, rows: Encoded) -> Tensor:
        """Encoded rows as one matrix."""
        embedded = [embedding(rows.codes[:, place]) for place, embedding in enumerate(self.embeddings)]
        return torch.cat([rows.dense, *embedded], dim=1) if embedded else rows.dense


def linear(inputs: int, outputs: int, generator: torch.Generator, *, bias: bool = True) -> nn.Linear:
    """A linear layer with torch's own initial distribution (He et al. 2015, a = √5), drawn from `generator`."""
    layer = _Linear(inputs, outputs, bias=bias)
    bound = 1 / math.sqrt(inputs) if inputs else 0.0
    with torch.no_grad():
        layer.weight.uniform_(-bound, bound, generator=generator)
        if bias:
            layer.bias.uniform_(-bound, bound, generator=generator)
    return layer


class _Linear(nn.Linear):
    """Is made empty: torch's own would draw from the global generator."""

    def reset_parameters(self) -> None:
        """Leave the weights to the caller."""


def multilayer(
    inputs: int, widths: Sequence[int], dropout: float, weights: torch.Generator, noise: torch.Generator
) -> nn.Sequential:
    """Linear layers of the given widths, each followed by ReLU and dropout."""
    layers: list[nn.Module] = []
    for width in widths:
        layers += [linear(inputs, width, weights), nn.ReLU(), PrivateDropout(dropout, noise)]
        inputs = width
    return nn.Sequential(*layers)
