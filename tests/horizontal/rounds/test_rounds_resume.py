"""A training that was killed goes on to the same model, bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from isthmus.horizontal.objective import Objective
from isthmus.horizontal.optimizer import ServerOptimizer
from isthmus.horizontal.plan import RoundsPlan
from isthmus.horizontal.scope import Scope
from isthmus.horizontal.transform import Transform
from isthmus.parties.network.message import Step

COORDINATOR = "coordinator"
PIECES: dict[str, dict[str, Any]] = {
    "plain": {},
    "proximal": {"objective": Objective("proximal", mu=0.1)},
    "scaffold": {"objective": Objective("scaffold")},
    "ditto": {"objective": Objective("ditto", mu=0.1)},
    "feedback": {"transforms": (Transform("top_k", share=0.3), Transform("int8"))},
    "adam": {"optimizer": ServerOptimizer("adam", learning_rate=0.05)},
    "momentum": {"optimizer": ServerOptimizer("sgd", momentum=0.5), "momentum": 0.9},
    "fedbn": {"scope": Scope(batch_norm=True)},
    "fedper": {"scope": Scope(head=True)},
}
KILLS = {
    "a party before it offers": ("p1", Step.OFFER, 2),
    "a party before it gives": ("p2", Step.VALUES, 3),
    "the coordinator as it begins a round": (COORDINATOR, Step.ROUND, 5),
    "the coordinator before it takes an update": (COORDINATOR, Step.GIVE, 8),
    "the coordinator before the result": (COORDINATOR, Step.RESULT, 2),
}


def _world(make_world: Callable[..., Any], make_network: Any, name: str, pieces: str, **plan: Any) -> Any:
    batch_norm = pieces in ("fedbn",)
    chosen = {"rounds": 4, "secure": False, "batch_size": 8, "seed": 7, "deadline_s": 10.0, "learning_rate": 0.02}
    return make_world(
        RoundsPlan(**{**chosen, **PIECES[pieces], **plan}),
        name,
        module=lambda seed: make_network(seed, batch_norm=batch_norm, dropout=0.3),
    )


_WHOLE: dict[tuple[str, str, bool], Any] = {}


def _whole(make_world: Any, make_network: Any, pieces: str, *, keep: str = "best", secure: bool = False) -> Any:
    """The uninterrupted training, run once."""
    key = pieces, keep, secure
    if key not in _WHOLE:
        world = _world(make_world, make_network, "whole", pieces, keep=keep, secure=secure)
        _WHOLE[key] = world.run(secure=secure)
    return _WHOLE[key]


def _same(found: Any, wanted: Any) -> None:
    assert found.result.model.tobytes() == wanted.result.model.tobytes()
    assert found.result.round == wanted.result.round
    assert found.result.history == wanted.result.history
    for name in wanted.parties:
        assert found.weights(name) == wanted.weights(name), name
        mine, theirs = found.outcomes[name].personal, wanted.outcomes[name].personal
        assert (mine is None) == (theirs is None)
        assert mine is None or mine.tobytes() == theirs.tobytes()


@pytest.mark.parametrize("killed", KILLS)
def test_a_killed_training_ends_as_an_uninterrupted_one(
    make_world: Any, make_network: Any, kill: Any, killed: str
) -> None:
    wanted = _whole(make_world, make_network, "scaffold")
    who, step, count = KILLS[killed]
    stopped = _world(make_world, make_network, "killed", "scaffold").run(before={who: kill(step, count)})
    assert isinstance(stopped.outcomes[who], BaseException)
    again = _world(make_world, make_network, "killed", "scaffold").run(attempt=2)
    assert 0 not in again.problems["p0"].rounds  # it went on, and did not begin again
    _same(again, wanted)


@pytest.mark.parametrize(
    ("pieces", "keep"), [*((pieces, "best") for pieces in PIECES), ("ditto", "last"), ("fedbn", "last")]
)
def test_a_training_can_be_killed_many_times(
    make_world: Any, make_network: Any, kill: Any, pieces: str, keep: str
) -> None:
    wanted = _whole(make_world, make_network, pieces, keep=keep)
    for attempt, (who, step, _) in enumerate(KILLS.values(), 1):
        stopped = _world(make_world, make_network, "killed", pieces, keep=keep)
        stopped.run(attempt=attempt, before={who: kill(step, 2)})
        assert isinstance(stopped.outcomes[who], BaseException)
    again = _world(make_world, make_network, "killed", pieces, keep=keep).run(attempt=9)
    _same(again, wanted)


def test_rounds_of_earlier_attempts_are_told_again(make_world: Any, make_network: Any, kill: Any) -> None:
    _world(make_world, make_network, "killed", "plain").run(before={"p1": kill(Step.OFFER, 3)})
    reports: list[Any] = []
    _world(make_world, make_network, "killed", "plain").run(attempt=2, on_round=reports.append)
    assert [one.round for one in reports] == [0, 1, 2, 3, 4]
    assert [one.resumed_from for one in reports] == [None, 2, None, None, None]


SECURE_KILLS = {
    "a party before its masked words": ("p1", Step.MASKED, 3),
    "a party before it consents": ("p1", Step.CONSENT, 3),
    "a party before its shares": ("p1", Step.UNMASK, 3),
    "the coordinator while it asks for the rows": (COORDINATOR, Step.ASK, 2),
    "the coordinator while it unmasks the rows": (COORDINATOR, Step.SIGNATURES, 2),
    "the coordinator as it begins a round": (COORDINATOR, Step.ROUND, 8),
    "the coordinator before it names the survivors": (COORDINATOR, Step.SURVIVORS, 7),
    "the coordinator while it unmasks": (COORDINATOR, Step.SIGNATURES, 8),
    "the coordinator while it unmasks what the last model is judged by": (COORDINATOR, Step.SIGNATURES, 17),
    "the coordinator before the result": (COORDINATOR, Step.RESULT, 1),
}


@pytest.mark.parametrize(
    ("killed", "pieces"),
    [*((killed, "plain") for killed in SECURE_KILLS), ("the coordinator while it unmasks", "scaffold")],
)
def test_a_killed_training_under_masks_ends_as_an_uninterrupted_one(
    make_world: Any, make_network: Any, kill: Any, killed: str, pieces: str
) -> None:
    wanted = _whole(make_world, make_network, pieces, secure=True)
    who, step, count = SECURE_KILLS[killed]
    stopped = _world(make_world, make_network, "killed", pieces, secure=True)
    stopped.run(secure=True, before={who: kill(step, count)})
    assert isinstance(stopped.outcomes[who], BaseException)
    again = _world(make_world, make_network, "killed", pieces, secure=True).run(secure=True, attempt=2)
    _same(again, wanted)
