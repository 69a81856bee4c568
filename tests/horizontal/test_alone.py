"""The model of one party alone, against the same steps in plain torch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from isthmus.horizontal.alone import AloneOutcome, train_alone
from isthmus.horizontal.local import BatchReport
from isthmus.horizontal.objective import Objective
from isthmus.horizontal.order import shuffled
from isthmus.horizontal.plan import RoundsPlan
from isthmus.horizontal.problem import Validation
from isthmus.horizontal.scope import Scope
from isthmus.parties.errors import InputError

ROWS = 20
PLAN = RoundsPlan(rounds=4, batch_size=8, learning_rate=0.1, seed=3, secure=False)


class Squares:
    """A linear problem whose validation losses are given, or those of its training rows."""

    def __init__(self, losses: list[float] | None = None, *, validation_rows: int = 5) -> None:
        generator = torch.Generator().manual_seed(1)
        self.x = torch.randn(ROWS, 2, generator=generator)
        self.y = self.x @ torch.tensor([1.0, -2.0]) + 0.5
        self.module: nn.Module = nn.Linear(2, 1)
        with torch.no_grad():
            for value in self.module.parameters():
                value.zero_()
        self.train_rows = ROWS
        self._losses, self._rows = losses, validation_rows
        self.models: list[list[float]] = []

    def loss(self, index: Tensor) -> Tensor:
        return ((self.module(self.x[index]).squeeze(1) - self.y[index]) ** 2).mean()

    def validation(self) -> Validation:
        self.models.append(self.weights())
        if not self._rows:
            return Validation(0, 0.0, 0.0, 0)
        with torch.no_grad():
            loss = self._losses[len(self.models) - 1] if self._losses else self.loss(torch.arange(ROWS)).item()
        return Validation(self._rows, loss, 0.0, 0)

    def reseed(self, round: int) -> None:
        """No dropout here."""

    def weights(self) -> list[float]:
        return [number for value in self.module.parameters() for number in value.detach().reshape(-1).tolist()]


def test_its_steps_are_those_of_plain_torch_in_the_order_of_the_jobs_seed():
    problem, other = Squares(), Squares()
    assert train_alone(problem, PLAN, "north") == AloneOutcome(best_round=4, rounds=4)
    optimizer = torch.optim.SGD(other.module.parameters(), lr=0.1)
    for round in range(4):
        order = shuffled(np.arange(ROWS), f"round {PLAN.seed} north {round} 0")
        for start in range(0, ROWS, 8):
            optimizer.zero_grad()
            other.loss(torch.from_numpy(order[start : start + 8])).backward()
            optimizer.step()
    assert problem.weights() == pytest.approx(other.weights(), abs=1e-6)


def test_the_model_with_the_lowest_validation_loss_is_kept_and_patience_ends_training():
    problem = Squares([5.0, 2.0, 3.0, 2.0, 9.0])
    assert train_alone(problem, replace(PLAN, patience=2), "north") == AloneOutcome(best_round=1, rounds=3)
    assert problem.weights() == problem.models[1]


def test_the_initial_model_is_kept_when_no_round_does_better():
    problem = Squares([1.0, 2.0, 3.0, 4.0, 5.0])
    assert train_alone(problem, PLAN, "north") == AloneOutcome(best_round=0, rounds=4)
    assert problem.weights() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize(("rows", "keep"), [(0, "best"), (5, "last")])
def test_the_last_model_is_kept_where_the_plan_says_so_or_nothing_is_validated(rows: int, keep: str):
    problem = Squares([1.0, 2.0, 3.0, 4.0, 5.0], validation_rows=rows)
    plan = replace(PLAN, keep=keep, patience=3 if not rows else None)  # type: ignore[arg-type]
    assert train_alone(problem, plan, "north") == AloneOutcome(best_round=4, rounds=4)
    assert problem.weights() == problem.models[-1] != problem.models[0]


def test_what_has_no_meaning_without_others_is_left_out():
    plain, other = Squares(), Squares()
    train_alone(plain, PLAN, "north")
    train_alone(other, replace(PLAN, objective=Objective("ditto", mu=0.5), scope=Scope(private=("bias",))), "north")
    assert plain.weights() == other.weights()


def test_a_model_that_runs_away_is_said_to_have_diverged():
    problem = Squares(validation_rows=0)
    with pytest.raises(InputError) as caught:
        train_alone(problem, replace(PLAN, rounds=60, learning_rate=50.0), "north")
    assert caught.value.code == "train.diverged"


def test_it_tells_how_far_it_is():
    told: list[BatchReport] = []
    train_alone(Squares(), replace(PLAN, rounds=2), "north", on_batch=told.append)
    assert told[0] == BatchReport(1, 2, 1, 3)
    assert told[-1] == BatchReport(2, 2, 3, 3)
