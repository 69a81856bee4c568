"""What a party keeps for itself, round by round."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from isthmus.horizontal.local import Trained
from isthmus.horizontal.objective import Objective
from isthmus.horizontal.plan import RoundsPlan
from isthmus.horizontal.private import Private
from isthmus.horizontal.scope import Scope
from isthmus.horizontal.transform import Packing, Transform


def private(**plan: Any) -> tuple[Private, nn.Module]:
    module = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False))
    chosen = RoundsPlan(**{"secure": False, **plan})
    layout = chosen.scope.layout(module)
    return Private(module, chosen, layout, Packing(chosen.transforms, layout.size)), module


def vector(*values: float) -> Any:
    return np.array(values, np.float32)


def test_a_party_without_anything_of_its_own_has_nothing_to_keep() -> None:
    assert not private()[0].needed
    assert private(scope=Scope(head=True))[0].needed
    assert private(objective=Objective("scaffold"))[0].needed
    assert private(objective=Objective("ditto", mu=0.1))[0].needed
    assert private(transforms=(Transform("int8"),))[0].needed
    assert not private(transforms=(Transform("fp16"),))[0].needed


def test_a_control_changes_only_once_the_update_is_known_to_be_in_the_sum() -> None:
    state, _ = private(objective=Objective("scaffold"))
    for counted, wanted in ((1, [1.0, 2.0]), (1, [1.0, 2.0]), (3, [2.0, 4.0])):
        state.trained(state.label, Trained(vector(0, 0), 0.0, control_change=vector(1, 2)))
        state.settle(counted, 0)
        assert state.control is not None and state.control.tolist() == wanted
    state.settle(3, 0)  # nothing is taken in twice
    assert state.control.tolist() == [2.0, 4.0]


def test_a_residual_goes_back_to_what_it_was_if_the_update_was_left_out() -> None:
    state, _ = private(transforms=(Transform("int8"),))
    state.trained(0, Trained(vector(0, 0), 0.0))
    state.left_over(vector(5, 6))
    state.settle(0, 0)
    assert state.residual is not None and state.residual.tolist() == [0.0, 0.0]
    state.trained(1, Trained(vector(0, 0), 0.0))
    state.left_over(vector(7, 8))
    state.settle(2, 0)
    assert state.residual.tolist() == [7.0, 8.0]


def test_everything_goes_through_a_checkpoint() -> None:
    state, module = private(scope=Scope(head=True), transforms=(Transform("int8"),))
    state.settle(0, -1)
    state.note(0)
    state.trained(0, Trained(vector(0), 0.0))
    state.left_over(vector(3))
    with torch.no_grad():
        module[1].weight.fill_(4.0)  # type: ignore[operator, union-attr]
    arrays, meta = state.content()
    other, its_module = private(scope=Scope(head=True), transforms=(Transform("int8"),))
    other.load(arrays, meta)
    assert other.label == 1 and its_module[1].weight.item() == 4.0  # type: ignore[operator, union-attr]
    mine, theirs = state.content(), other.content()
    assert mine[1] == theirs[1] and mine[0].keys() == theirs[0].keys()
    assert all(np.array_equal(mine[0][name], theirs[0][name]) for name in mine[0])


def test_what_is_private_is_remembered_as_it_was_when_the_best_model_was_judged() -> None:
    state, module = private(scope=Scope(head=True))
    for round, best in enumerate((-1, 0, 1, 1)):
        state.settle(round, best)
        with torch.no_grad():
            module[1].weight.fill_(10.0 + round)  # type: ignore[operator, union-attr]
        state.note(round)
        state.trained(round, Trained(vector(0), 0.0))
    state.restore(1)
    assert module[1].weight.item() == 11.0  # type: ignore[operator, union-attr]
