"""A trained model as a file at one party: trainings write it, and a later one may start from it.

It is a safetensors file: the module's tensors by name, and beside them as JSON what they can be used by. It holds the
encoder, so means and scales of number columns and levels of categories: it stays at the party unless somebody carries
it elsewhere by hand. Whoever reads it may have got it from somebody else, so all of it is checked, and before what it
says is built: it takes no more memory than a few times its own size, which is bounded.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import nn

from ..parties.checkpoint import parse_tensors, write_tensors
from .model_spec import ModelKind, ModelSpec
from .splits import SplitRule
from .tabular import TabularEncoder
from .targets import Task

MOST_BYTES = 1 << 30  # of a file; eight layers of 4,096 have half of it
MOST_HEADER_BYTES = 1 << 23  # with names and levels, which take twenty times as much once they are read


@dataclass(frozen=True)
class Seen:
    """Which rows of a party a model has seen: all that `split` does not hold out, with the outcomes that the columns of
    `label` give.
    """

    label: tuple[str, ...]
    split: SplitRule


@dataclass(frozen=True)
class SavedModel:
    """A model with what it takes to use it, and to hold out again what it was not trained on.

    `seen` are the parties whose rows have shaped it, each with its own split: a model that was tuned has also seen what
    its start had. `party` is the one whose part this is, `round` the one that was kept. `arrays` are the module's
    tensors by name.
    """

    party: str
    seen: Mapping[str, Seen]
    round: int
    task: Task
    spec: ModelSpec
    encoder: TabularEncoder
    arrays: Mapping[str, NDArray[Any]]

    def save(self, path: Path, *, party: str) -> None:
        """Write the file, wholly or not at all; raises `InputError` ``disk.full`` or ``disk.denied`` of `party`."""
        meta = {
            "party": self.party,
            "seen": {party: {"label": list(one.label), "split": asdict(one.split)} for party, one in self.seen.items()},
            "round": self.round,
            "task": self.task,
            "model": asdict(self.spec),
            "encoder": self.encoder.to_dict(),
        }
        write_tensors(path, self.arrays, meta, party=party)

    @classmethod
    def parse(cls, content: bytes) -> Self:
        """Read the content of a file that `save` wrote; raises `ValueError` for any other."""
        try:
            arrays, meta = parse_tensors(content, most_header_bytes=MOST_HEADER_BYTES)
            spec = ModelSpec(**{**meta["model"], "hidden": tuple(meta["model"]["hidden"])})
            encoder = TabularEncoder.from_dict(meta["encoder"])
            found = cls(meta["party"], _seen(meta), meta["round"], meta["task"], spec, encoder, arrays)
            whole = found._is_whole()
        except _MALFORMED as failure:
            raise ValueError("this file is no model of a training") from failure
        if not whole:
            raise ValueError("this file says of its model what cannot be")
        return found

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that it takes, numbers first."""
        numbers, categories = self.encoder.numbers, self.encoder.categories
        return (*(code.name for code in numbers), *(code.name for code in categories))

    def write_into(self, module: nn.Module) -> None:
        """Give a module these tensors; raises `ValueError` unless it has just these, of the same shapes."""
        own = module.state_dict()
        if {name: (tuple(one.shape), one.numpy().dtype) for name, one in own.items()} != {
            name: (array.shape, array.dtype) for name, array in self.arrays.items()
        }:
            raise ValueError("the tensors are not those of the module")
        module.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in self.arrays.items()})

    def _is_whole(self) -> bool:
        """Whether everything is of its kind: what is wrong is found here, and not in the midst of a training.

        Many levels that are not embedded would be one-hot: a matrix of their square. True is no 1, nor is 3e7 true.
        """
        numbers = [value for code in self.encoder.numbers for value in (code.mean, code.scale)]
        levels = [level for code in self.encoder.categories for level in code.levels]
        labels = [name for one in self.seen.values() for name in one.label]
        names = [self.party, *self.seen, *labels, *self.columns, *levels]
        return (
            all(isinstance(name, str) for name in names)
            and len(set(self.columns)) == len(self.columns)
            and all(len(set(code.levels)) == len(code.levels) for code in self.encoder.categories)
            and all(type(code.embed) is bool for code in self.encoder.categories)
            and all(code.embed == self.spec.embeds for code in self.encoder.categories)
            and all(type(code.indicator) is bool for code in self.encoder.numbers)
            and type(self.round) is int
            and self.round >= 0
            and self.task in get_args(Task)
            and self.spec.kind in get_args(ModelKind)
            and all(type(width) is int for width in self.spec.hidden)
            and all(type(value) in (int, float) and math.isfinite(value) for value in numbers)
            and all(code.scale > 0 for code in self.encoder.numbers)
            and all(_is_rule(one.split) for one in self.seen.values())
            and all(np.isfinite(array).all() for array in self.arrays.values())
        )


def _seen(meta: Mapping[str, Any]) -> dict[str, Seen]:
    """Of each party; older files have one label and one split for all."""
    if "seen" not in meta:
        return dict.fromkeys(meta["parties"], Seen(tuple(meta["label"]), SplitRule(**meta["split"])))
    return {party: Seen(tuple(one["label"]), SplitRule(**one["split"])) for party, one in meta["seen"].items()}


def _is_rule(split: SplitRule) -> bool:
    shares = (split.validation_share, split.test_share)
    return (
        all(type(share) in (int, float) and share >= 0 for share in shares)
        and sum(shares) < 1
        and type(split.seed) is int
        and isinstance(split.column, str | None)
    )


_MALFORMED = (  # whatever reading a file raises that somebody has made to make it raise
    SafetensorError,
    LookupError,
    TypeError,
    AttributeError,
    ValueError,
    OverflowError,
    RecursionError,
)


def arrays_of(module: nn.Module) -> dict[str, NDArray[Any]]:
    """The tensors of a module by name, as a file holds them."""
    return {name: value.detach().numpy() for name, value in module.state_dict().items()}
