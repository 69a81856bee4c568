"""What a party does on its own within a round."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from isthmus.horizontal.local import BatchReport, LocalTraining
from isthmus.horizontal.objective import Objective
from isthmus.horizontal.plan import RoundsPlan
from isthmus.horizontal.vector import Layout


def training(problem: Any, *, party: str = "north", on_batch: Any = None, **changes: Any) -> LocalTraining:
    plan = RoundsPlan(**{"batch_size": 4, "learning_rate": 0.1, **changes})
    return LocalTraining(problem, plan, plan.scope.layout(problem.module), party, on_batch)


def one_weight(rows_problem: Any, targets: list[float]) -> Any:
    """y = w: the loss of a batch is the mean of (w - y)², its gradient 2 (w - mean of y)."""
    module = nn.Linear(1, 1, bias=False)
    ones = np.ones((len(targets), 1), np.float32)
    return rows_problem(module, ones, np.array(targets, np.float32))


class Watched:
    """Remembers which rows each batch held."""

    def __init__(self, inner: Any) -> None:
        self.module, self.train_rows, self._inner = inner.module, inner.train_rows, inner
        self.seen: list[list[int]] = []

    def loss(self, index: torch.Tensor) -> torch.Tensor:
        self.seen.append(index.tolist())
        return self._inner.loss(index)  # type: ignore[no-any-return]

    def reseed(self, round: int) -> None:
        pass


def test_an_epoch_sees_every_row_once_and_each_epoch_in_an_order_of_its_own(rows_problem: Any) -> None:
    problem = Watched(one_weight(rows_problem, [0.0] * 10))
    training(problem, local_epochs=2).run(0, np.zeros(1, np.float32))
    assert [len(batch) for batch in problem.seen] == [4, 4, 2, 4, 4, 2]
    first, second = ([row for batch in part for row in batch] for part in (problem.seen[:3], problem.seen[3:]))
    assert sorted(first) == sorted(second) == list(range(10)) and first != second


def test_local_steps_run_on_over_as_many_passes_as_they_need(rows_problem: Any) -> None:
    problem = Watched(one_weight(rows_problem, [0.0] * 10))
    training(problem, local_epochs=None, local_steps=7).run(0, np.zeros(1, np.float32))
    assert [len(batch) for batch in problem.seen] == [4, 4, 2, 4, 4, 2, 4]


def test_batches_differ_by_round_and_by_party_and_by_nothing_else(rows_problem: Any) -> None:
    def seen(party: str, round: int) -> list[list[int]]:
        problem = Watched(one_weight(rows_problem, [0.0] * 10))
        training(problem, party=party).run(round, np.zeros(1, np.float32))
        return problem.seen

    assert seen("north", 0) == seen("north", 0)
    assert seen("north", 0) != seen("south", 0) and seen("north", 0) != seen("north", 1)


def test_a_last_batch_of_one_row_joins_the_one_before_where_it_would_have_no_variance(rows_problem: Any) -> None:
    module = nn.Sequential(nn.Linear(1, 2), nn.BatchNorm1d(2), nn.Linear(2, 1))
    inputs = np.random.default_rng(1).normal(size=(9, 1)).astype("f4")
    problem = Watched(rows_problem(module, inputs, inputs[:, 0]))
    shared = RoundsPlan().scope.split(module)[0]
    training(problem).run(0, Layout.of(shared).flatten(shared))
    assert [len(batch) for batch in problem.seen] == [4, 5]


def test_sgd_steps_by_hand(rows_problem: Any) -> None:
    # full batch, mean of y = 2: w = 0 → 0 + .1·4 = .4 → .4 + .1·2·1.6 = .72; losses: mean of (w - y)² = w² - 4w + 5
    problem = one_weight(rows_problem, [1.0, 3.0])
    found = training(problem, batch_size=0, local_epochs=2).run(0, np.zeros(1, np.float32))
    np.testing.assert_allclose(found.update, [0.72], rtol=1e-6)
    assert found.loss == pytest.approx((5 + (0.16 - 1.6 + 5)) / 2)


def test_fedprox_pulls_back_by_hand(rows_problem: Any) -> None:
    # step 1 as plain: .4; step 2: gradient 2(.4 - 2) + .5·.4 = -3
    problem = one_weight(rows_problem, [1.0, 3.0])
    objective = Objective("proximal", mu=0.5)
    found = training(problem, batch_size=0, local_epochs=2, objective=objective).run(0, np.zeros(1, np.float32))
    np.testing.assert_allclose(found.update, [0.7], rtol=1e-6)


def test_scaffold_corrects_every_step_by_hand(rows_problem: Any) -> None:
    # c - c_k = .5 - (-1) = 1.5: gradients -4 + 1.5, then 2(.25 - 2) + 1.5 = -2: w = .25, .45
    # change of c_k: (0 - .45)/(2·.1) - .5 = -2.75
    problem = one_weight(rows_problem, [1.0, 3.0])
    zero = np.zeros(1, np.float32)
    found = training(problem, batch_size=0, local_epochs=2, objective=Objective("scaffold")).run(
        0, zero, zero + np.float32(0.5), zero - np.float32(1.0)
    )
    np.testing.assert_allclose(found.update, [0.45], rtol=1e-6)
    assert found.control_change is not None
    np.testing.assert_allclose(found.control_change, [-2.75], rtol=1e-6)


def test_dittos_personal_model_by_hand(rows_problem: Any) -> None:
    # shared: 0 → .4. personal from 1, drawn to 0 by mu = 2: gradient 2(1 - 2) + 2·1 = 0: stays.
    problem = one_weight(rows_problem, [1.0, 3.0])
    objective = Objective("ditto", mu=2.0)
    found = training(problem, batch_size=0, objective=objective).run(
        0, np.zeros(1, np.float32), personal=np.ones(1, np.float32)
    )
    np.testing.assert_allclose(found.update, [0.4], rtol=1e-6)
    assert found.personal is not None and found.personal.tolist() == [1.0]
    np.testing.assert_allclose(problem.module.weight.item(), 0.4, rtol=1e-6)  # the module holds the shared one


def test_every_batch_is_told(rows_problem: Any) -> None:
    told: list[BatchReport] = []
    problem = one_weight(rows_problem, [0.0] * 10)
    training(problem, on_batch=told.append, rounds=5).run(2, np.zeros(1, np.float32))
    assert told == [BatchReport(3, 5, batch, 3) for batch in (1, 2, 3)]
