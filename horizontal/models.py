"""What a horizontal job can train: the tabular network, a linear model, a model of the user's own.

Every one gives one number a row: the logit of a binary outcome, the value of a regression, the log of a hazard ratio
(Cox 1972). The last knows no constant: it would cancel out of the partial likelihood, so there is no bias for it.

**A model of one's own** is a `torch.nn.Module` that is installed at every party and at the coordinator; a job names it
by its dotted path and its code is never sent. Importing it runs that code, so it is imported only once the party's
policy has allowed it.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..parties.errors import InputError
from .model_spec import ModelSpec
from .tabular import Encoded, TabularEncoder, TabularInput, linear, multilayer, private_generator
from .targets import Task

_GLOBAL_RANDOMNESS = threading.RLock()  # parties that share a process share torch's global generator


class TabularNetwork(nn.Module):
    """Hidden layers over encoded columns, or none: one number a row."""

    def __init__(
        self, encoder: TabularEncoder, hidden: tuple[int, ...], dropout: float, private_seed: int, *, bias: bool
    ) -> None:
        super().__init__()
        weights = private_generator(private_seed, "weights")
        self.noise = private_generator(private_seed, "dropout 0")
        self.input = TabularInput(encoder, weights)
        self.body = multilayer(self.input.width, hidden, dropout, weights, self.noise)
        self.output = linear(hidden[-1] if hidden else self.input.width, 1, weights, bias=bias)

    def forward(self, rows: Encoded) -> Tensor:
        """Scores ``(rows,)``."""
        scores: Tensor = self.output(self.body(self.input(rows)))
        return scores.squeeze(1)


def build(spec: ModelSpec, encoder: TabularEncoder, private_seed: int, task: Task, *, party: str) -> nn.Module:
    """Make the model, with initial weights of `private_seed`; `party` is named by errors.

    Raises `InputError` ``model.unknown`` and ``model.invalid`` for a model of one's own.
    """
    if spec.kind == "own":
        return _build_own(spec, encoder, private_seed, party)
    hidden, dropout = (spec.hidden, spec.dropout) if spec.kind == "network" else ((), 0.0)
    return TabularNetwork(encoder, hidden, dropout, private_seed, bias=task != "survival")


def network_shapes(spec: ModelSpec, encoder: TabularEncoder, task: Task) -> dict[str, tuple[int, ...]]:
    """The shapes of all parameters that `build` would make of a network or a linear model, without making them.

    Raises `ValueError` for a model of one's own.
    """
    if spec.kind == "own":
        raise ValueError("the shapes of a model of one's own are known to its code alone")
    shapes: dict[str, tuple[int, ...]] = {
        f"input.embeddings.{place}.weight": embedding for place, embedding in enumerate(encoder.embeddings)
    }
    inputs = encoder.dense_width + sum(width for _, width in encoder.embeddings)
    for place, width in enumerate(spec.hidden if spec.kind == "network" else ()):
        layer = f"body.{3 * place}"  # between them ReLU and dropout
        shapes |= {f"{layer}.weight": (width, inputs), f"{layer}.bias": (width,)}
        inputs = width
    return shapes | {"output.weight": (1, inputs)} | ({} if task == "survival" else {"output.bias": (1,)})


class Scorer:
    """Runs a model, with dropout that is the party's own.

    The network draws from a generator of its own, and what a user's model draws from torch's global generator is drawn
    from one of the party's instead, so that neither does a party's randomness get out nor another's code get in.
    """

    def __init__(self, module: nn.Module, private_seed: int, *, party: str) -> None:
        self.module = module
        self._private_seed, self._party = private_seed, party
        self._noise = torch.Generator()
        self.reseed(0)

    def reseed(self, round: int) -> None:
        """Begin a round's dropout: what is drawn depends on the private seed and the round alone."""
        fresh = private_generator(self._private_seed, f"dropout {round}")
        if isinstance(self.module, TabularNetwork):
            self.module.noise.set_state(fresh.get_state())
        self._noise = fresh

    def __call__(self, rows: Encoded) -> Tensor:
        """Scores ``(rows,)``. Raises `InputError` ``model.invalid`` when the user's own model fails."""
        if isinstance(self.module, TabularNetwork):
            scores: Tensor = self.module(rows)
            return scores
        with _drawing_from(self._noise), _own_code(self._party):
            return _one_a_row(self.module(rows.dense), len(rows))


# --- below: models of one's own ---------------------------------------------------------------------------------------


def _build_own(spec: ModelSpec, encoder: TabularEncoder, private_seed: int, party: str) -> nn.Module:
    if encoder.embeddings:
        raise ValueError("a model of one's own takes its categories one-hot")
    kind = _load(spec.path, party)
    with _drawing_from(private_generator(private_seed, "weights")), _own_code(party):
        module = kind(encoder.dense_width, **spec.options)
        module.eval()  # batch norm takes no part in this trial
        with torch.no_grad():
            _one_a_row(module(torch.zeros(2, encoder.dense_width)), 2)
        module.train()
        kinds = {value.dtype for value in module.parameters()}
        if kinds != {torch.float32}:
            raise TypeError(f"its parameters have to be float32, and are {kinds or 'none'}")
    return module


def _load(path: str, party: str) -> type[nn.Module]:
    module_name, _, name = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module_name), name)
    except (Exception, SystemExit) as failure:  # whatever the user's module does when it is imported
        raise InputError("model.unknown", party=party, detail=f"{path}: {failure!r}") from failure
    if not isinstance(found, type) or not issubclass(found, nn.Module):
        raise InputError("model.invalid", party=party, detail=f"{path} is not a torch.nn.Module")
    if found.__module__ != module_name:  # the digest would be that of another file
        raise InputError("model.invalid", party=party, detail=f"name it where it is defined: {found.__module__}")
    return found


def _one_a_row(scores: Any, rows: int) -> Tensor:
    if not isinstance(scores, Tensor) or tuple(scores.shape) not in ((rows,), (rows, 1)):
        raise TypeError(f"it gives {tuple(getattr(scores, 'shape', ()))} for {rows} rows")
    return scores.reshape(rows)


@contextmanager
def _own_code(party: str) -> Iterator[None]:
    """Whatever the user's code raises is the user's, and its text stays in the party's log."""
    try:
        yield
    except Exception as failure:
        raise InputError("model.invalid", party=party, detail=repr(failure)) from failure


@contextmanager
def _drawing_from(generator: torch.Generator) -> Iterator[None]:
    """Let torch's global generator be this one for a while."""
    with _GLOBAL_RANDOMNESS, torch.random.fork_rng(devices=[]):
        torch.set_rng_state(generator.get_state())
        yield
        generator.set_state(torch.get_rng_state())
