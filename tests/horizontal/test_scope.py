from __future__ import annotations

import torch
from torch import nn

from isthmus.horizontal.scope import Scope, has_batch_norm


def module() -> nn.Sequential:
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.ReLU(), nn.Linear(3, 1))


ALL = ["0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var", "3.weight", "3.bias"]


def test_all_that_is_a_real_number_is_shared_by_default() -> None:
    shared, private = Scope().split(module())
    assert list(shared) == ALL and list(private) == ["1.num_batches_tracked"]
    assert Scope().whole


def test_fedbn_keeps_batch_normalisation_private_with_its_statistics() -> None:
    shared, private = Scope(batch_norm=True).split(module())
    assert list(shared) == ["0.weight", "0.bias", "3.weight", "3.bias"]
    assert set(private) == {"1.weight", "1.bias", "1.running_mean", "1.running_var", "1.num_batches_tracked"}


def test_fedper_keeps_the_last_layer_private() -> None:
    shared, _ = Scope(head=True).split(module())
    assert list(shared) == ALL[:6]


def test_a_head_within_a_named_part_is_found() -> None:
    nested = nn.ModuleDict({"body": nn.Linear(2, 2), "top": nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))})
    assert list(Scope(head=True).split(nested)[1]) == ["top.1.weight", "top.1.bias"]


def test_patterns_name_what_is_private() -> None:
    shared, private = Scope(private=("*.bias", "1.running_*")).split(module())
    assert list(shared) == ["0.weight", "1.weight", "3.weight"]
    assert "1.running_var" in private and not Scope(private=("x",)).whole


def test_what_is_written_into_a_part_is_in_the_module() -> None:
    one = module()
    shared, _ = Scope().split(one)
    with torch.no_grad():
        shared["3.bias"].fill_(7.0)
    assert one[3].bias.item() == 7


def test_a_layout_holds_what_is_shared() -> None:
    assert Scope(batch_norm=True).layout(module()).names == ("0.weight", "0.bias", "3.weight", "3.bias")


def test_batch_normalisation_is_found() -> None:
    assert has_batch_norm(module()) and not has_batch_norm(nn.Linear(1, 1))
