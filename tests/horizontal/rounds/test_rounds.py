"""Whole trainings in rounds, against what they have to equal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.nn.functional import mse_loss

from isthmus.horizontal.objective import Objective
from isthmus.horizontal.plan import RoundsPlan
from isthmus.horizontal.summing import PlainGathering, PlainGiving
from isthmus.parties.network.message import Topic


def plain(**changes: Any) -> RoundsPlan:
    return RoundsPlan(**{"rounds": 3, "secure": False, "batch_size": 8, "seed": 7, "deadline_s": 10.0, **changes})


def test_one_full_batch_step_of_all_parties_is_one_step_of_centralised_sgd(
    make_world: Callable[..., Any], make_network: Callable[..., Any]
) -> None:
    world = make_world(plain(rounds=1, batch_size=0, learning_rate=0.1, keep="last")).run()
    module = make_network(99)
    pooled = [(one._inputs[: one.train_rows], one._target[: one.train_rows]) for one in world.problems.values()]
    inputs, target = (torch.cat(parts) for parts in zip(*pooled, strict=True))
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    mse_loss(module(inputs).squeeze(1), target).backward()
    optimizer.step()
    wanted = world.plan.scope.layout(module).flatten(dict(module.named_parameters()))
    np.testing.assert_allclose(world.result.model, wanted, rtol=0, atol=1e-6)
    assert np.abs(wanted - world.initial).max() > 1e-3  # it moved


def test_fedprox_with_mu_zero_is_fedavg_bit_for_bit(make_world: Callable[..., Any]) -> None:
    fedavg = make_world(plain(), "fedavg").run().result
    fedprox = make_world(plain(objective=Objective("proximal", mu=0.0)), "fedprox").run().result
    held = make_world(plain(objective=Objective("proximal", mu=0.5)), "held").run().result
    assert fedavg.model.tobytes() == fedprox.model.tobytes()
    assert fedavg.model.tobytes() != held.model.tobytes()


def test_training_lowers_the_loss_and_all_parties_end_with_the_best_model(make_world: Callable[..., Any]) -> None:
    reports: list[Any] = []
    world = make_world(plain(rounds=8)).run(on_round=reports.append)
    outcome = world.result
    assert reports == list(outcome.history) and [one.round for one in reports] == list(range(9))
    assert reports[0].loss is None and reports[-1].validation_loss < 0.5 * reports[0].validation_loss
    assert outcome.round == int(np.argmin([one.validation_loss for one in reports]))
    for name, problem in world.problems.items():
        shared = world.plan.scope.split(problem.module)[0]
        assert world.plan.scope.layout(problem.module).flatten(shared).tobytes() == outcome.model.tobytes()
        assert world.outcomes[name].round == outcome.round


def test_sums_in_fixed_point_give_the_plain_mean_to_their_bound(make_world: Callable[..., Any]) -> None:
    outcomes = {}
    for bits in (32, 64):
        world = make_world(plain(secure=True, bits=bits), f"bits {bits}")
        world.run(giving=lambda _, channel: PlainGiving(channel, Topic.TRAIN), gathering=PlainGathering())
        outcomes[bits] = world.result
    exact = make_world(plain(), "plain").run().result
    np.testing.assert_allclose(outcomes[64].model, exact.model, rtol=0, atol=2e-6)
    np.testing.assert_allclose(outcomes[32].model, exact.model, rtol=0, atol=2e-5)
    for mine, theirs in zip(outcomes[32].history, exact.history, strict=True):
        assert mine.survivors == theirs.survivors
        np.testing.assert_allclose(mine.validation_loss, theirs.validation_loss, atol=1e-4)
