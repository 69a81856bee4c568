from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from isthmus.horizontal.aggregate import Aggregator
from isthmus.horizontal.objective import Objective
from isthmus.horizontal.optimizer import ServerOptimizer
from isthmus.horizontal.plan import STRATEGIES, RoundsPlan, impossible
from isthmus.horizontal.scope import Scope
from isthmus.horizontal.transform import Transform

PLAIN = {"secure": False}


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_can_be_carried_out_as_it_stands(name: str) -> None:
    pieces = STRATEGIES[name]
    plan = RoundsPlan(
        secure=pieces.aggregator.linear,
        objective=pieces.objective,
        aggregator=pieces.aggregator,
        optimizer=pieces.optimizer,
        scope=pieces.scope,
    )
    assert impossible(plan, 5) is None


def test_the_strategies_are_those_of_the_readme() -> None:
    assert set(STRATEGIES) == {
        "fedavg", "fedprox", "scaffold", "ditto", "fedadam", "fedyogi", "fedadagrad", "fedbn", "fedper",
        "krum", "multi_krum", "trimmed_mean", "median", "geometric_median",
    }  # fmt: skip


SCAFFOLD, DITTO = Objective("scaffold"), Objective("ditto", mu=0.1)
CASES: list[tuple[dict[str, Any], int, str]] = [
    ({"aggregator": Aggregator("median")}, 5, "median has to see each update"),
    ({"transforms": (Transform("fp16"),)}, 5, "save nothing under secure aggregation"),
    ({"transforms": (Transform("int8"),)}, 5, "save nothing under secure aggregation"),
    ({"transforms": (Transform("top_k", share=0.1),)}, 5, "save nothing under secure aggregation"),
    ({}, 2, "needs 3 parties"),
    ({"sample": 2}, 5, "needs 3 parties"),
    ({"sample": 4}, 5, "no sample under secure aggregation"),
    ({"quorum": 3}, 5, "the quorum cannot be 3"),
    ({"quorum": 6}, 5, "more than the 5 parties"),
    ({"quorum": 0, **PLAIN}, 5, "at least one party"),
    ({"bits": 16}, 5, "32 or 64 bits"),
    ({"aggregator": Aggregator("krum", byzantine=2), **PLAIN}, 6, "Krum needs 7"),
    ({"aggregator": Aggregator("krum", byzantine=1), "quorum": 4, **PLAIN}, 9, "may be left with 4"),
    ({"aggregator": Aggregator("multi_krum", byzantine=1), **PLAIN}, 4, "Krum needs 5"),
    ({"aggregator": Aggregator("multi_krum", byzantine=1, selected=3), **PLAIN}, 5, "can average 1 to 2 of 5"),
    ({"aggregator": Aggregator("krum", byzantine=1, selected=3), **PLAIN}, 5, "only Multi-Krum"),
    ({"aggregator": Aggregator("trimmed_mean", byzantine=2), **PLAIN}, 4, "needs 5 parties"),
    ({"aggregator": Aggregator("median", byzantine=2), **PLAIN}, 5, "no number of byzantine"),
    ({"aggregator": Aggregator("krum", byzantine=-1), **PLAIN}, 5, "fewer than no"),
    ({"aggregator": Aggregator("median"), "transforms": (Transform("top_k", share=0.1),), **PLAIN}, 5, "zero"),
    ({"objective": SCAFFOLD, "optimizer": ServerOptimizer("adam")}, 5, "plain SGD"),
    ({"objective": SCAFFOLD, "optimizer": ServerOptimizer("yogi")}, 5, "plain SGD"),
    ({"objective": SCAFFOLD, "optimizer": ServerOptimizer("adagrad")}, 5, "plain SGD"),
    ({"objective": SCAFFOLD, "optimizer": ServerOptimizer(momentum=0.9)}, 5, "plain SGD"),
    ({"objective": SCAFFOLD, "aggregator": Aggregator("krum", byzantine=1), **PLAIN}, 5, "krum would not keep"),
    ({"objective": SCAFFOLD, "local_optimizer": "adam"}, 5, "plain local SGD"),
    ({"objective": SCAFFOLD, "momentum": 0.9}, 5, "plain local SGD"),
    ({"objective": SCAFFOLD, "transforms": (Transform("clip", norm=1.0),)}, 5, "arrive as they are"),
    ({"objective": DITTO, "scope": Scope(head=True)}, 5, "whole personal model"),
    ({"objective": Objective("plain", mu=0.1)}, 5, "no mu"),
    ({"sample": 6}, 5, "cannot ask 6 of 5"),
    ({"sample": 3, "quorum": 4, **PLAIN}, 5, "can never reach the quorum of 4"),
    ({"transforms": (Transform("fp16"), Transform("int8")), **PLAIN}, 5, "exclude each other"),
    ({"transforms": (Transform("int8"), Transform("clip", norm=1.0)), **PLAIN}, 5, "in the order"),
    ({"transforms": (Transform("clip"),)}, 5, "a norm above zero"),
    ({"transforms": (Transform("top_k", share=1.5),), **PLAIN}, 5, "a share above 0"),
    ({"local_steps": 5}, 5, "name one of the two"),
    ({"local_epochs": None}, 5, "name one of the two"),
    ({"local_epochs": 0}, 5, "at least one local epoch"),
    ({"rounds": 0}, 5, "at least one round"),
    ({"batch_size": -1}, 5, "fewer than no rows"),
    ({"learning_rate": 0.0}, 5, "above zero"),
    ({"learning_rate": float("nan")}, 5, "above zero"),
    ({"momentum": 1.0}, 5, "below 1"),
    ({"weight_decay": -0.1}, 5, "below zero"),
    ({"optimizer": ServerOptimizer("adam", tau=0.0)}, 5, "tau above zero"),
    ({"optimizer": ServerOptimizer("adam", momentum=0.5)}, 5, "beta1"),
    ({"optimizer": ServerOptimizer("yogi", bias_correction=True)}, 5, "bias correction"),
    ({"local_optimizer": "adam", "momentum": 0.5}, 5, "local SGD"),
    ({"patience": 0}, 5, "at least one round"),
    ({"deadline_s": 0.0}, 5, "above zero seconds"),
]


@pytest.mark.parametrize(("changes", "parties", "words"), CASES)
def test_what_cannot_be_combined_is_said_in_one_sentence(changes: dict[str, Any], parties: int, words: str) -> None:
    reason = impossible(RoundsPlan(**changes), parties)
    assert reason is not None and words in reason and "\n" not in reason


@pytest.mark.parametrize(
    ("changes", "parties"),
    [
        ({}, 3),
        ({"quorum": 4}, 5),
        ({"quorum": 7, "bits": 64}, 10),
        ({"transforms": (Transform("clip", norm=1.0),)}, 3),
        ({"secure": False}, 1),
        ({"secure": False, "sample": 2, "transforms": (Transform("top_k", share=0.1), Transform("int8"))}, 5),
        ({"secure": False, "aggregator": Aggregator("multi_krum", byzantine=2, selected=3)}, 7),
        ({"local_epochs": None, "local_steps": 100, "batch_size": 4}, 4),
        ({"objective": SCAFFOLD, "scope": Scope(batch_norm=True)}, 4),
    ],
)
def test_what_can_be_combined_is_let_through(changes: dict[str, Any], parties: int) -> None:
    assert impossible(RoundsPlan(**changes), parties) is None


def test_the_digest_covers_every_field() -> None:
    plan = RoundsPlan()
    others = [replace(plan, scope=Scope(head=True)), replace(plan, seed=1), replace(plan, secure=False)]
    assert len({one.digest() for one in (plan, *others)}) == 4 and plan.digest() == RoundsPlan().digest()
