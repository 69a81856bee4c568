"""A party's own training within a round: batches in an order that the job's seed gives, and one objective.

Nothing of the local optimiser outlives the round: each begins with a fresh one, so that rounds depend on the model and
the round's number alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count, islice

import numpy as np
import torch

from .objective import Vector, add_correction, add_proximal, control_change
from .order import Rows, batches, shuffled
from .plan import RoundsPlan
from .problem import LocalProblem
from .scope import has_batch_norm
from .vector import Layout

Nudge = Callable[[], None]
Tell = Callable[[int, int], None]  # batch, batches


@dataclass(frozen=True)
class BatchReport:
    """How far a party is: `batch` of `batches` in `round` of `rounds`, rounds counted from 1."""

    round: int
    rounds: int
    batch: int
    batches: int


OnBatch = Callable[[BatchReport], None]


@dataclass(frozen=True)
class Trained:
    """What a round of local training came to. Vectors have the layout's size."""

    update: Vector
    loss: float  # mean a row
    control_change: Vector | None = None  # SCAFFOLD
    personal: Vector | None = None  # Ditto


class LocalTraining:
    """One party's training. `layout` is of the module's shared tensors, which a round begins by setting."""

    def __init__(
        self, problem: LocalProblem, plan: RoundsPlan, layout: Layout, party: str, on_batch: OnBatch | None = None
    ) -> None:
        self._problem, self._plan, self._layout, self._party = problem, plan, layout, party
        self._tell = on_batch or (lambda report: None)
        self._shared = plan.scope.split(problem.module)[0]
        self._parameters = [one for one in problem.module.parameters() if one.requires_grad]
        named = {name: one for name, one in problem.module.named_parameters() if one.requires_grad}
        self._held = [named[name] for name in layout.names if name in named]  # trained and shared
        self._held_names = [name for name in layout.names if name in named]
        self._single = has_batch_norm(problem.module)

    def set(self, model: Vector) -> None:
        """Load a shared model ``(size,)`` into the module."""
        self._layout.load(model, self._shared)

    def run(
        self,
        round: int,
        start: Vector,
        control: Vector | None = None,
        own_control: Vector | None = None,
        personal: Vector | None = None,
    ) -> Trained:
        """Train the shared model `start` in a round (from 0).

        SCAFFOLD's controls, the common and the party's own, and Ditto's personal model are vectors ``(size,)``.
        """
        self._problem.reseed(round)
        self.set(start)
        objective, nudge = self._plan.objective, None
        if objective.kind == "proximal":
            nudge = self._towards(start)
        if objective.kind == "scaffold":
            assert control is not None and own_control is not None
            nudge = self._corrected(control - own_control)
        loss, steps = self._train(round, "", nudge, self._report(round))
        end = self._layout.flatten(self._shared)
        update = end - start
        change = None
        if control is not None:
            change = self._trained_only(control_change(start, end, control, steps, self._plan.learning_rate))
        if objective.kind == "ditto":
            assert personal is not None
            self.set(personal)
            self._train(round, "personal ", self._towards(start), lambda batch, batches: None)
            personal = self._layout.flatten(self._shared)
            self.set(end)
        return Trained(update, loss, change, personal)

    def _train(self, round: int, purpose: str, nudge: Nudge | None, tell: Tell) -> tuple[float, int]:
        """Train the module as it is; the mean loss a row, and how many batches there were."""
        problem, optimizer = self._problem, self._optimizer()
        problem.module.train()
        total, rows, order = 0.0, 0, list(self._batches(round, purpose))
        for number, batch in enumerate(order, 1):
            optimizer.zero_grad(set_to_none=True)
            loss = problem.loss(torch.from_numpy(batch))
            loss.backward()  # type: ignore[no-untyped-call]
            if nudge is not None:
                nudge()
            optimizer.step()
            total += loss.item() * len(batch)
            rows += len(batch)
            tell(number, len(order))
        return total / rows, len(order)

    def _optimizer(self) -> torch.optim.Optimizer:
        plan = self._plan
        rate, decay = plan.learning_rate, plan.weight_decay
        if plan.local_optimizer == "adam":
            return torch.optim.Adam(self._parameters, lr=rate, weight_decay=decay, fused=True)
        return torch.optim.SGD(self._parameters, lr=rate, momentum=plan.momentum, weight_decay=decay, fused=True)

    def _batches(self, round: int, purpose: str) -> Iterator[Rows]:
        """The round's batches: so many passes, or as many passes as the steps need."""
        plan, passes = self._plan, count()
        if plan.local_epochs is not None:
            return (one for epoch in range(plan.local_epochs) for one in self._pass(round, epoch, purpose))
        return islice((one for epoch in passes for one in self._pass(round, epoch, purpose)), plan.local_steps)

    def _pass(self, round: int, epoch: int, purpose: str) -> list[Rows]:
        rows = np.arange(self._problem.train_rows)
        if self._plan.batch_size == 0:
            return [rows]
        order = shuffled(rows, f"round {purpose}{self._plan.seed} {self._party} {round} {epoch}")
        found = list(batches(order, self._plan.batch_size))
        if self._single and len(found) > 1 and len(found[-1]) == 1:  # one row has no variance to normalise by
            found[-2:] = [np.concatenate(found[-2:])]
        return found

    def _towards(self, anchor: Vector) -> Nudge:
        mu, values = self._plan.objective.mu, self._layout.unflatten(anchor)
        return lambda: add_proximal(self._held, [values[name] for name in self._held_names], mu)

    def _corrected(self, correction: Vector) -> Nudge:
        values = self._layout.unflatten(correction)
        return lambda: add_correction(self._held, [values[name] for name in self._held_names])

    def _trained_only(self, vector: Vector) -> Vector:
        """Zero for what no gradient moves, such as running means."""
        values = self._layout.unflatten(vector)
        for name in self._layout.names:
            if name not in self._held_names:
                values[name].zero_()
        return vector

    def _report(self, round: int) -> Tell:
        return lambda batch, batches: self._tell(BatchReport(round + 1, self._plan.rounds, batch, batches))
