"""What a party would reach on its own: the same model, trained on its own rows alone.

It is what federation is compared with, so all else is the same: rounds of as many local steps, the local optimiser
afresh in each, batches in the order of the job's seed, early stopping, here by the party's own validation rows. What
has no meaning without others is left out: objectives that hold on to a common model, private scopes, the server's
optimiser. Nothing leaves the party.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ..parties.errors import InputError
from .local import LocalTraining, OnBatch
from .objective import Objective
from .plan import RoundsPlan
from .problem import LocalProblem
from .scope import Scope
from .vector import Layout


@dataclass(frozen=True)
class AloneOutcome:
    """How it went: the round whose model was kept (0 is the initial one), and the rounds that were trained."""

    best_round: int
    rounds: int


def train_alone(
    problem: LocalProblem, plan: RoundsPlan, party: str, *, on_batch: OnBatch | None = None
) -> AloneOutcome:
    """Train the problem's module from the weights that it has; afterwards it holds the model that is kept.

    That is the one with the lowest validation loss, or the last one where the plan keeps the last or there are no
    validation rows. Raises `InputError` ``train.diverged``.
    """
    plan = replace(plan, objective=Objective(), scope=Scope())
    shared = plan.scope.split(problem.module)[0]
    layout = Layout.of(shared)
    training = LocalTraining(problem, plan, layout, party, on_batch)
    judged = problem.validation()
    choosing = plan.keep == "best" and judged.rows > 0
    model = layout.flatten(shared)
    best, best_loss, best_round, round = model, judged.loss, 0, 0
    while round < plan.rounds:
        model = model + training.run(round, model).update
        round += 1
        if not np.isfinite(model).all():
            raise InputError("train.diverged", epoch=round)
        training.set(model)
        loss = problem.validation().loss
        if loss < best_loss or not choosing:
            best, best_loss, best_round = model, loss, round
        if judged.rows and plan.patience is not None and round - best_round >= plan.patience:
            break
    training.set(best)
    return AloneOutcome(best_round, round)
