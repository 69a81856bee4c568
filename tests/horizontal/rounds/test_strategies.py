"""What each objective and scope does over rounds, by hand where two parties with one weight are enough."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from torch import nn

from isthmus.horizontal.objective import Objective
from isthmus.horizontal.optimizer import ServerOptimizer
from isthmus.horizontal.plan import RoundsPlan
from isthmus.horizontal.problem import Validation
from isthmus.horizontal.scope import Scope
from isthmus.horizontal.transform import Transform
from isthmus.parties.network.message import Step


def _two(make_world: Callable[..., Any], rows_problem: Any, **plan: Any) -> Any:
    """Two parties with the loss mean (w - y)²: p0 with y = 1 (one row), p1 with y = 4 (three rows); w begins at 0."""
    chosen = {"rounds": 1, "secure": False, "batch_size": 0, "learning_rate": 0.1, "keep": "last", "deadline_s": 10.0}
    world = make_world(RoundsPlan(**{**chosen, **plan}), sizes=(1, 3), module=lambda _: nn.Linear(3, 1, bias=False))
    world.initial = np.zeros(1, np.float32)
    for name, count, target in (("p0", 1, 1.0), ("p1", 3, 4.0)):
        ones = np.ones((count, 1), np.float32)
        world.problems[name] = rows_problem(nn.Linear(1, 1, bias=False), ones, np.full(count, target, np.float32))
    return world


def test_two_rounds_of_scaffold_by_hand(make_world: Any, rows_problem: Any) -> None:
    world = _two(make_world, rows_problem, objective=Objective("scaffold"), local_epochs=2, rounds=2).run()
    # Round 1, c = c_k = 0, two steps of w ← w - .2(w - y):
    #   p0: 0 → .2 → .36, c_0 = -.36/.2 = -1.8;   p1: 0 → .8 → 1.44, c_1 = -7.2
    #   x = .25·.36 + .75·1.44 = 1.17, c = .25·(-1.8) + .75·(-7.2) = -5.85
    # Round 2 from 1.17, w ← w - .1(2(w - y) + c - c_k):
    #   p0: c - c_0 = -4.05: 1.17 - .1(.34 - 4.05) = 1.541 → 1.541 - .1(1.082 - 4.05) = 1.8378
    #   p1: c - c_1 = 1.35: 1.17 - .1(-5.66 + 1.35) = 1.601 → 1.601 - .1(-4.798 + 1.35) = 1.9458
    #   x = .25·1.8378 + .75·1.9458
    np.testing.assert_allclose(world.result.model, [0.25 * 1.8378 + 0.75 * 1.9458], rtol=1e-5)
    controls = [m.arrays["values"] for m in world.carriers["p0"][0].messages() if m.step is Step.ROUND]
    # Its third is what all have after round 2: c += mean of ((x - y)/(K η) - c).
    np.testing.assert_allclose([values[1] for values in controls[:2]], [0, -5.85], rtol=1e-5)
    change = 0.25 * ((1.17 - 1.8378) / 0.2 + 5.85) + 0.75 * ((1.17 - 1.9458) / 0.2 + 5.85)
    np.testing.assert_allclose(controls[2][1], -5.85 + change, rtol=1e-4)


def test_weights_are_training_rows_or_all_alike(make_world: Any, rows_problem: Any) -> None:
    # One step: p0 .2, p1 .8
    assert _two(make_world, rows_problem).run().result.model[0] == pytest.approx(0.25 * 0.2 + 0.75 * 0.8)
    assert _two(make_world, rows_problem, weighted=False, seed=1).run().result.model[0] == pytest.approx(0.5)


def test_the_server_optimiser_steps_along_the_mean_change(make_world: Any, rows_problem: Any) -> None:
    optimizer = ServerOptimizer("adam", learning_rate=0.1, tau=0.01)
    found = _two(make_world, rows_problem, optimizer=optimizer).run().result.model[0]
    change = 0.25 * 0.2 + 0.75 * 0.8
    assert found == pytest.approx(0.1 * 0.1 * change / ((0.001 * change**2) ** 0.5 + 0.01), rel=1e-5)


def test_ditto_keeps_a_personal_model_near_the_common_one(make_world: Any, rows_problem: Any) -> None:
    # Ten rounds of five steps: the common model goes to 3.25, p0's own towards 1, held by mu.
    ends = {}
    for mu in (0.1, 2.0):
        world = _two(
            make_world, rows_problem, objective=Objective("ditto", mu=mu), local_epochs=5, rounds=10, seed=int(mu)
        )
        world.run()
        assert world.result.model[0] == pytest.approx(3.25, abs=0.05)
        ends[mu] = world.outcomes["p0"].personal[0]
    # (w - 1)² + mu/2 (w - 3.25)² is least where 2(w - 1) + mu (w - 3.25) = 0
    assert ends[0.1] == pytest.approx((2 + 0.1 * 3.25) / 2.1, abs=0.05)
    assert ends[2.0] == pytest.approx((2 + 2 * 3.25) / 4, abs=0.05)


def test_fedbn_keeps_batch_normalisation_at_home(make_world: Any, make_network: Any) -> None:
    plan = RoundsPlan(rounds=3, secure=False, batch_size=8, deadline_s=10.0, scope=Scope(batch_norm=True))
    world = make_world(plan, module=lambda seed: make_network(seed, batch_norm=True)).run()
    modules = [problem.module for problem in world.problems.values()]
    assert world.result.model.size == 3 * 4 + 4 + 4 + 1  # no place for it
    for name in ("weight", "running_mean", "running_var"):
        values = [getattr(module[1], name).detach().numpy().tobytes() for module in modules]
        assert len(set(values)) == 3, name
    assert len({module[0].weight.detach().numpy().tobytes() for module in modules}) == 1


def test_shared_running_means_are_averaged_whatever_the_server_optimiser(make_world: Any, make_network: Any) -> None:
    plan = RoundsPlan(rounds=1, secure=False, batch_size=0, deadline_s=10.0, weighted=False, keep="last")
    optimizer = ServerOptimizer("adam", learning_rate=0.5)
    found = {}
    for name, chosen in (("sgd", plan), ("adam", replace(plan, optimizer=optimizer))):
        world = make_world(chosen, name, module=lambda seed: make_network(seed, batch_norm=True)).run()
        layout = chosen.scope.layout(world.problems["p0"].module)
        found[name] = layout.unflatten(world.result.model)
    assert found["sgd"]["1.running_var"].tolist() == found["adam"]["1.running_var"].tolist()
    assert found["sgd"]["0.weight"].tolist() != found["adam"]["0.weight"].tolist()


@pytest.mark.parametrize("pieces", [{"scope": Scope(head=True)}, {"objective": Objective("ditto", mu=0.1)}])
def test_what_is_private_goes_back_to_the_round_whose_model_is_kept(make_world: Any, pieces: Any) -> None:
    plan = RoundsPlan(rounds=5, secure=False, batch_size=8, deadline_s=10.0, **pieces)
    best = make_world(plan, "best")
    for problem in best.problems.values():
        losses = iter([3.0, 2.0, 1.0, 2.0, 3.0, 4.0])
        problem.validation = lambda losses=losses: Validation(1, next(losses), 0.0, 0)
    assert best.run().result.round == 2
    short = make_world(replace(plan, rounds=2, keep="last"), "short").run()
    for name in best.parties:
        assert best.weights(name) == short.weights(name)
        mine, theirs = best.outcomes[name].personal, short.outcomes[name].personal
        assert mine is theirs is None or mine.tobytes() == theirs.tobytes()


@pytest.mark.parametrize(
    "transforms",
    [
        (Transform("clip", norm=0.05),),
        (Transform("fp16"),),
        (Transform("int8"),),
        (Transform("top_k", share=0.3), Transform("int8")),
    ],
)
def test_transforms_still_lead_downhill(make_world: Any, transforms: Any) -> None:
    plan = RoundsPlan(rounds=10, secure=False, batch_size=8, deadline_s=10.0, transforms=transforms)
    history = make_world(plan).run().result.history
    assert history[-1].validation_loss < 0.8 * history[0].validation_loss


def test_a_sample_is_drawn_by_the_jobs_seed(make_world: Any) -> None:
    plan = RoundsPlan(rounds=6, secure=False, batch_size=8, deadline_s=10.0, sample=2, seed=3)
    world = make_world(plan, sizes=(20, 12, 30, 16)).run()
    drawn = [report.survivors for report in world.result.history[1:]]
    assert all(len(one) == 2 for one in drawn) and len(set(drawn)) > 2
    again = make_world(plan, "again", sizes=(20, 12, 30, 16)).run()
    assert again.result.history == world.result.history


def test_patience_ends_a_training_early(make_world: Any) -> None:
    plan = RoundsPlan(rounds=50, secure=False, batch_size=8, deadline_s=10.0, learning_rate=0.6, patience=2)
    outcome = make_world(plan).run().result
    assert len(outcome.history) < 50
    assert outcome.history[-1].round - outcome.round == 2


def test_without_validation_rows_the_last_model_is_kept(make_world: Any) -> None:
    plan = RoundsPlan(rounds=3, secure=False, batch_size=8, deadline_s=10.0, patience=1)
    outcome = make_world(plan, held_out=0).run().result
    assert outcome.round == 3 and [one.validation_loss for one in outcome.history] == [None] * 4


@pytest.mark.parametrize(
    "pieces",
    [
        {"objective": Objective("scaffold")},
        {"weighted": False},
        {"transforms": (Transform("clip", norm=0.3),)},
        {"optimizer": ServerOptimizer(momentum=0.5), "patience": 1},
        {"scope": Scope(batch_norm=True)},
    ],
)
def test_under_masks_a_training_is_the_same_to_the_bound_of_fixed_point(
    make_world: Any, make_network: Any, pieces: Any
) -> None:
    results = []
    for secure in (True, False):
        plan = RoundsPlan(rounds=3, secure=secure, batch_size=8, deadline_s=10.0, keep="last", **pieces)
        batch_norm = plan.scope.batch_norm
        world = make_world(
            plan,
            str(secure),
            sizes=(20, 12, 30, 9),
            module=lambda seed, bn=batch_norm: make_network(seed, batch_norm=bn),
        )
        results.append(world.run(secure=secure).result)
    masked, plain = results
    np.testing.assert_allclose(masked.model, plain.model, rtol=0, atol=2e-5)
    assert [one.survivors for one in masked.history] == [one.survivors for one in plain.history]
