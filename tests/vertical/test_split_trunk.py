from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from isthmus.horizontal import TabularEncoder
from isthmus.vertical.models import Bottom, Trunk, passive_bottom

Make = Callable[..., Any]


def trunk_of(case: Any, party: str, seed: int = 99) -> Trunk:
    """An encoder of other rows and weights that no party's private seed gives."""
    encoder = TabularEncoder.fit(case.tables[party], np.arange(50))
    return encoder, Bottom(case.plan, encoder, seed, bias=False)


def test_split_training_from_a_trunk_is_central_training_from_it_bit_for_bit(
    make_case: Make, run_split: Make, assert_same: Make, tmp_path: Path
):
    case = make_case("lab", "clinic", epochs=12, patience=12)
    trunks = {"lab": trunk_of(case, "lab")}
    outcome, central = run_split(case, tmp_path, trunks=trunks), case.central(trunks=trunks)
    wanted = {f"{party}.{key}": value for party in case.tables for key, value in central.part(party).items()}
    assert_same(outcome.weights(), wanted)
    assert outcome.scores.tobytes() == central.scores(np.arange(len(case.label))).tobytes()
    assert outcome.scores.tobytes() != case.central().scores(np.arange(len(case.label))).tobytes()
    assert outcome.parts["lab"].encoder is trunks["lab"][0]


def test_a_trunk_of_the_weights_that_the_private_seed_gives_changes_nothing(
    make_case: Make, run_split: Make, assert_same: Make, tmp_path: Path
):
    case = make_case("lab")
    plain = run_split(case, tmp_path / "plain")
    same = plain.parts["lab"].encoder, Bottom(case.plan, plain.parts["lab"].encoder, 12, bias=False)
    assert_same(run_split(case, tmp_path / "trunk", trunks={"lab": same}).weights(), plain.weights())


def test_training_begins_with_the_weights_of_the_trunk_and_leaves_it_as_it_is(
    make_case: Make, run_split: Make, tmp_path: Path
):
    case = make_case("lab", learning_rate=1e-6, epochs=1)
    trunk = trunk_of(case, "lab")
    before = {name: value.clone() for name, value in trunk[1].state_dict().items()}
    found = run_split(case, tmp_path, trunks={"lab": trunk}).parts["lab"].model.state_dict()
    for name, value in trunk[1].state_dict().items():
        assert torch.equal(value, before[name])
        assert torch.allclose(found[name], value, atol=1e-4)
        assert not torch.equal(found[name], value)


def test_dropout_after_a_trunk_is_that_of_the_plan_and_of_the_private_seed(make_case: Make):
    case = make_case("lab")
    trunk = trunk_of(case, "lab")
    torch.rand(100, generator=trunk[1].noise)  # as its own training left it
    columns = case.tables["lab"]
    bottoms = [
        passive_bottom(columns, np.arange(9), case.plan, seed, start)[1] for seed, start in ((5, trunk), (5, None))
    ]
    assert torch.equal(*(torch.rand(8, generator=bottom.noise) for bottom in bottoms))


def test_a_training_from_a_trunk_that_was_stopped_ends_as_if_it_had_not_been(
    make_case: Make, run_split: Make, assert_same: Make, tmp_path: Path
):
    case = make_case("lab", epochs=4)
    trunks = {"lab": trunk_of(case, "lab")}

    def stop(report: Any) -> None:
        if report.epoch == 3 and report.batch == 4:
            raise ConnectionError

    run_split(case, tmp_path / "parts", trunks=trunks, on_epoch={"lab": stop})
    again = run_split(case, tmp_path / "parts", trunks=trunks)
    assert_same(again.weights(), run_split(case, tmp_path / "whole", trunks=trunks).weights())
