"""Parties that are late, gone, different or dishonest; and a coordinator that is."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from torch import nn

from isthmus.horizontal.aggregate import Aggregator
from isthmus.horizontal.members import receive_vector, send_vector
from isthmus.horizontal.participant import join_rounds
from isthmus.horizontal.plan import RoundsPlan
from isthmus.horizontal.problem import Validation
from isthmus.horizontal.summing import PlainGiving
from isthmus.horizontal.tally import Tally
from isthmus.horizontal.transform import Transform
from isthmus.parties.checkpoint import Checkpoints
from isthmus.parties.errors import InputError, PeerFailure
from isthmus.parties.network.channel import Channel, CountingLog
from isthmus.parties.network.local import memory_pair
from isthmus.parties.network.message import Step, Topic

COORDINATOR = "coordinator"


def plain(**changes: Any) -> RoundsPlan:
    return RoundsPlan(**{"rounds": 3, "secure": False, "batch_size": 8, "seed": 7, "deadline_s": 10.0, **changes})


def _codes(world: Any) -> dict[str, str]:
    return {who: end.code for who, end in world.outcomes.items() if isinstance(end, (InputError, PeerFailure))}


# --- late and gone -----------------------------------------------------------------------------------------------


def _before_round(problem: Any, round: int, wait: Callable[[], object]) -> None:
    """Let a party wait for something before it trains in a round."""
    reseed = problem.reseed

    def waiting(now: int) -> None:
        if now == round:
            wait()
        reseed(now)

    problem.reseed = waiting


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("secure", [False, True])
def test_a_party_that_is_late_is_left_out_and_then_takes_part_again(make_world: Any, secure: bool) -> None:
    plan = plain(rounds=6, quorum=4, deadline_s=3.0, keep="last", secure=secure)
    world = make_world(plan, sizes=(20, 12, 30, 9, 14))
    went_on = threading.Event()
    _before_round(world.problems["p1"], 1, lambda: went_on.wait(30))
    # The rows of a masked sum are an exchange as well.
    _before_round(world.problems["p0"], 3, lambda: _until(lambda: world.count("p1", Step.OFFER) >= 2 + secure))
    world.run(secure=secure, on_round=lambda report: went_on.set() if report.round == 1 else None)
    survivors = [report.survivors for report in world.result.history[1:]]
    without, everyone = ("p0", "p2", "p3", "p4"), ("p0", "p1", "p2", "p3", "p4")
    assert survivors[:2] == [everyone, without] and survivors[-2:] == [everyone, everyone]
    assert not _codes(world)
    assert len({tuple(world.weights(name).items()) for name in world.parties}) == 1  # it got the result as well


@pytest.mark.parametrize(
    ("step", "secure"),
    [
        (Step.OFFER, False),
        (Step.VALUES, False),
        (Step.OFFER, True),
        (Step.SHARES, True),
        (Step.MASKED, True),
        (Step.CONSENT, True),
        (Step.UNMASK, True),
    ],
)
def test_a_party_that_drops_out_in_any_phase_leaves_the_others_above_the_quorum(
    make_world: Any, kill: Any, secure: bool, step: Step
) -> None:
    world = make_world(plain(secure=secure, quorum=4, deadline_s=2.0), sizes=(20, 12, 30, 9, 14))
    world.run(secure=secure, before={"p3": kill(step, 2)})
    survivors = [report.survivors for report in world.result.history[1:]]
    assert {"p0", "p1", "p2", "p4"} <= set(survivors[0]) and survivors[-1] == ("p0", "p1", "p2", "p4")


def test_below_the_quorum_a_training_stops_and_says_so(make_world: Any, kill: Any) -> None:
    world = make_world(plain(quorum=3), sizes=(20, 12, 30, 9))
    world.run(before={"p1": kill(Step.OFFER, 2), "p2": kill(Step.VALUES, 2)})
    failure = world.failure(COORDINATOR)
    assert isinstance(failure, PeerFailure) and failure.code == "rounds.quorum"
    assert (failure.facts["count"], failure.facts["allowed"]) == (2, 3)
    assert _codes(world)["p0"] == _codes(world)["p3"] == "peer.gone"


def test_a_party_that_is_late_below_the_quorum_stops_the_training(make_world: Any) -> None:
    world = make_world(plain(deadline_s=0.5))
    _before_round(world.problems["p1"], 1, lambda: _until(lambda: COORDINATOR in world.outcomes))
    assert _codes(world.run())[COORDINATOR] == "rounds.quorum"


def test_a_party_that_never_begins_is_left_out(make_world: Any) -> None:
    world = make_world(plain(quorum=2, deadline_s=2.0, keep="last"))
    world.run(instead={"p1": lambda channel: channel.receive(Topic.TRAIN, Step.ROUND)})
    assert [report.survivors for report in world.result.history[1:]] == [("p0", "p2")] * 3


# --- what is not alike ---------------------------------------------------------------------------------------------


def test_a_model_with_other_parameters_is_named_before_anything_is_trained(make_world: Any, make_network: Any) -> None:
    world = make_world(plain())
    world.problems["p1"].module = nn.Sequential(make_network(1), nn.Linear(1, 1))
    world.run()
    failure = world.failure(COORDINATOR)
    assert isinstance(failure, InputError) and failure.code == "model.parameters" and failure.facts["party"] == "p1"
    assert _codes(world)["p1"] == "model.parameters"
    assert all(not problem.rounds for problem in world.problems.values())


@pytest.mark.parametrize("what", ["plan", "job"])
def test_a_party_with_another_job_is_named(make_world: Any, what: str) -> None:
    world = make_world(plain())
    if what == "plan":
        world.run(plans={"p1": replace(world.plan, learning_rate=0.01)})
    else:
        world.run(jobs={"p1": "2" * 64})
    failure = world.failure(COORDINATOR)
    assert isinstance(failure, InputError) and failure.code == "job.not_agreed" and failure.facts["peer"] == "p1"
    assert _codes(world)["p1"] == "job.not_agreed"


# --- refused at the party ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("secure", [False, True])
def test_nan_in_an_update_is_refused_at_the_party_and_the_others_go_on(make_world: Any, secure: bool) -> None:
    world = make_world(plain(secure=secure, quorum=4, deadline_s=5.0), sizes=(20, 12, 30, 9, 14))
    problem = world.problems["p2"]
    loss = problem.loss
    problem.loss = lambda index: loss(index) * (float("nan") if problem.rounds[-1:] == [1] else 1.0)
    world.run(secure=secure)
    failure = world.failure("p2")
    assert isinstance(failure, InputError) and failure.code == "update.not_finite" and failure.facts["party"] == "p2"
    assert [len(report.survivors) for report in world.result.history[1:]] == [5, 4, 4]
    for message in world.carriers["p2"][1].messages():
        assert all(np.isfinite(array).all() for array in message.arrays.values() if array.dtype.kind == "f")


def test_an_update_beyond_the_masked_range_is_refused_at_the_party(make_world: Any) -> None:
    world = make_world(plain(secure=True, deadline_s=5.0, learning_rate=200.0, batch_size=0)).run(secure=True)
    assert "update.too_large" in {_codes(world)[name] for name in world.parties}


def test_losses_may_be_larger_than_the_masked_range(make_world: Any) -> None:
    world = make_world(plain(secure=True))
    for problem in world.problems.values():
        problem.validation = lambda: Validation(4, 1.5e6, 0.0, 0)
    history = world.run(secure=True).result.history
    assert [report.validation_loss for report in history] == [1.5e6] * 4
    assert [report.validation_score for report in history] == [None] * 4


# --- peers that do not keep to the protocol --------------------------------------------------------------------------


def liar(values: Callable[[int], Any], tally: Any = None) -> Callable[[Channel], None]:
    """A party that sends what it likes in place of an update."""

    def side(channel: Channel) -> None:
        first = channel.receive(Topic.SETUP, Step.SETUP)
        channel.send(Topic.SETUP, Step.READY, {**first.fields, "steps": None})
        channel.receive(Topic.TRAIN, Step.RESUME)
        while (order := channel.receive(Topic.TRAIN, Step.ROUND, Step.RESULT)).step is Step.ROUND:
            number = order.fields["sum"]
            model, _ = receive_vector(channel, Topic.TRAIN, Step.ROUND, order, len(order.arrays["values"]), "<f4")
            channel.send(Topic.TRAIN, Step.OFFER, {"sum": number})
            channel.receive(Topic.TRAIN, Step.GIVE)
            found = values(len(model)) if order.fields["train"] else np.zeros(0, np.float32)
            figures = list(Tally(10, 1.0, 4, 1.0, 0, 0.0)) if tally is None else tally
            for place, array in enumerate(found if isinstance(found, list) else [found]):
                send_vector(channel, Topic.TRAIN, Step.VALUES, number, array, {"tally": figures} if not place else {})

    return side


def f4(count: int) -> Any:
    return np.zeros(count, "<f4")


@pytest.mark.parametrize(
    ("values", "tally"),
    [
        (lambda size: f4(size - 1), None),
        (lambda size: f4(size + 1), None),
        (lambda size: f4(size).astype("<f8"), None),
        (f4, [1.0, 2.0]),
        (f4, ["a", 1, 1, 1, 1, 1]),
        (f4, [-5.0, 1, 1, 1, 1, 1]),
    ],
)
def test_an_update_that_cannot_be_one_is_left_out(make_world: Any, values: Any, tally: Any) -> None:
    world = make_world(plain(quorum=2, keep="last"))
    world.run(instead={"p1": liar(values, tally)})
    assert [report.survivors for report in world.result.history[1:]] == [("p0", "p2")] * 3


@pytest.mark.parametrize(
    "index", [[0, 0, 1, 2, 3, 4], [5, 4, 3, 2, 1, 0], [0, 1, 2, 3, 4, 21], [0, 1, 2, 3, 4, 2**32 - 1]]
)
def test_places_that_are_not_in_the_model_or_not_in_order_are_left_out(make_world: Any, index: list[int]) -> None:
    world = make_world(plain(quorum=2, keep="last", transforms=(Transform("top_k", share=0.3),)))
    lies = [np.ones(6, "<f4"), np.array(index, "<u4")]
    world.run(instead={"p1": liar(lambda size: lies)})
    assert [report.survivors for report in world.result.history[1:]] == [("p0", "p2")] * 3


def test_a_robust_aggregator_stands_a_party_that_sends_anything(make_world: Any) -> None:
    def loss(aggregator: Aggregator, name: str, **instead: Any) -> float:
        world = make_world(plain(rounds=6, aggregator=aggregator), name, sizes=(20, 12, 30, 18, 22))
        found = world.run(instead=instead).result.history[-1].validation_loss
        return float(found)

    lie = liar(lambda size: np.full(size, 3.0, "<f4"))
    assert loss(Aggregator(), "mean", p1=lie) > 5
    for kind in ("median", "geometric_median", "trimmed_mean", "krum", "multi_krum"):
        f = 0 if kind in ("median", "geometric_median") else 1
        assert loss(Aggregator(kind, byzantine=f), kind, p1=lie) < 2, kind


def _false_coordinator(make_world: Any, *orders: tuple[Step, dict[str, Any], Any], secure: bool = False) -> str:
    """What a party says to a coordinator that begins well and then sends these."""
    world = make_world(plain(secure=secure), "false")
    plan, layout = world.plan, world.plan.scope.layout(world.problems["p0"].module)
    setup = {"sum": 0, "job": "1" * 64, "plan": plan.digest(), "layout": layout.digest()}

    left, right = memory_pair()
    ours = Channel(left, me=COORDINATOR, peer="p0", log=CountingLog(), timeout_s=5.0)
    theirs = Channel(right, me="p0", peer=COORDINATOR, log=CountingLog(), timeout_s=5.0)
    ends: list[BaseException] = []

    def party() -> None:
        try:
            join_rounds(
                theirs, world.problems["p0"], plan, parties=world.parties, job_digest="1" * 64, attempt=1,
                checkpoints=Checkpoints(world.folder, party="p0"),
                giving=PlainGiving(theirs, Topic.TRAIN) if secure else None,
            )  # fmt: skip
        except PeerFailure as failure:
            ends.append(failure)

    thread = threading.Thread(target=party, daemon=True)
    thread.start()
    ours.send(Topic.SETUP, Step.SETUP, setup)
    ours.receive(Topic.SETUP, Step.READY)
    for step, fields, values in orders:
        ours.send(Topic.TRAIN, step, {"sum": 2, **fields}, {} if values is None else {"values": values})
    thread.join(10)
    ours.close()
    thread.join(10)
    (failure,) = ends
    assert isinstance(failure, PeerFailure)
    return failure.code


GOOD = {"round": 0, "train": True, "counted": 0, "best": -1, "parties": ["p0", "p1", "p2"], "rows": 62,
        "chunk": 0, "chunks": 1}  # fmt: skip
ROUND = f4(21)


@pytest.mark.parametrize(
    ("orders", "secure"),
    [
        ([(Step.ROUND, {**GOOD, "round": "0"}, ROUND)], False),
        ([(Step.ROUND, {**GOOD, "train": 1}, ROUND)], False),
        ([(Step.ROUND, GOOD, f4(20))], False),
        ([(Step.ROUND, {**GOOD, "parties": ["p0", "p1", "mallory"]}, ROUND)], True),
        ([(Step.ROUND, {**GOOD, "parties": ["p1", "p2"]}, ROUND)], True),
        ([(Step.ROUND, {**GOOD, "parties": None}, ROUND)], True),
        ([(Step.ROUND, {**GOOD, "rows": 3}, ROUND)], True),
        ([(Step.ROUND, {**GOOD, "rows": None}, ROUND)], True),
        ([(Step.ASK, {"parties": ["p0", "p1", "p2"]}, None)], False),
        ([(Step.GIVE, {}, None)], False),
        ([(Step.RESUME, {"step": -1}, None)], False),
        ([(Step.RESULT, {"chunk": 0, "chunks": 1}, ROUND)], False),
        ([(Step.FORWARD, {}, None)], False),
    ],
)
def test_a_coordinator_that_breaks_the_protocol_is_refused(make_world: Any, orders: Any, secure: bool) -> None:
    assert _false_coordinator(make_world, *orders, secure=secure) == "peer.protocol"
