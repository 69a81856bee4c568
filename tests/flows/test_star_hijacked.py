"""A coordinator that somebody else has taken over: what it gets from parties that keep to their jobs."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from isthmus.horizontal import secagg_party, statistics
from isthmus.horizontal.members import Members
from isthmus.horizontal.secagg_party import SecureGiving
from isthmus.parties.errors import IsthmusError
from isthmus.parties.events import Phase, Started
from isthmus.parties.network.message import Step, Topic


def test_a_coordinator_cannot_leave_a_party_out_of_a_sum(
    make_star: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four of five suffice for the threshold; but the job names no quorum, so what is asked of four is refused."""
    star = make_star(tmp_path, parties=("north", "south", "east", "west", "mid"))
    refused: list[IsthmusError] = []
    offer = SecureGiving.offer

    def watched(giving: Any, *arguments: Any, **options: Any) -> None:
        try:
            offer(giving, *arguments, **options)
        except IsthmusError as error:
            refused.append(error)
            raise

    monkeypatch.setattr(SecureGiving, "offer", watched)
    names = Members.names.fget
    monkeypatch.setattr(Members, "names", property(lambda self: names(self)[:4]))
    with pytest.raises(IsthmusError):
        star.run_inside()
    assert {error.code for error in refused} == {"secagg.too_few"}
    assert {(error.facts["count"], error.facts["allowed"]) for error in refused} == {(4, 5)}


@pytest.mark.parametrize("phase", [Phase.PREPARE, Phase.TRAIN, Phase.EVALUATE])
def test_a_flow_cannot_command_what_no_policy_has_judged(star: Any, phase: Phase) -> None:
    with pytest.raises(IsthmusError) as caught:
        star.run_inside(phases=(phase,))
    assert caught.value.code == "internal"
    assert not any(isinstance(event, Started) for _, event in star.journal.events)


def _masked(monkeypatch: pytest.MonkeyPatch, topic: Topic) -> list[str]:
    """Which parties send masked words of a topic."""
    sent: list[str] = []
    send = secagg_party.send_vector

    def watched(channel: Any, of: Topic, *rest: Any) -> None:
        if of is topic:
            sent.append(channel.me)
        send(channel, of, *rest)

    monkeypatch.setattr(secagg_party, "send_vector", watched)
    return sent


def test_a_coordinator_cannot_make_all_but_one_partys_columns_vanish(
    star: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Divided by 10³⁰ the others' columns are 0, and so is what they add to the weights of the first layer."""
    sent = _masked(monkeypatch, Topic.TRAIN)

    def tell(asking: Any, result: Any) -> None:
        for name in asking.parties:
            codes = [[c[0], c[1], c[2] if name == "north" else 1e30, c[3]] for c in result["codes"]]
            text = np.frombuffer(json.dumps({"codes": codes}).encode(), dtype=np.uint8)
            asking._members.tell(
                [name], Topic.STATISTICS, Step.RESULT, asking._number, arrays={"result": text}, answer=False
            )

    monkeypatch.setattr(statistics._Asking, "tell", tell)
    with pytest.raises(IsthmusError) as caught:
        star.run_inside(timeout_s=5.0)
    assert caught.value.code in ("job.not_agreed", "secagg.signature"), caught.value
    assert not sent


def test_a_coordinator_cannot_have_all_but_one_party_judge_a_model_of_noughts(
    star: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whose scores are all one half is in one bin of the sum; what is in the others is the one party's."""
    sent, tell_vector = _masked(monkeypatch, Topic.EVALUATE), Members.tell_vector

    def hijacked(members: Any, names: Any, topic: Any, step: Step, number: int, vector: Any, *rest: Any, **more: Any):
        for name in names:
            model = vector * 0 if step is Step.RESULT and name != "north" else vector
            tell_vector(members, [name], topic, step, number, model, *rest, **more)

    monkeypatch.setattr(Members, "tell_vector", hijacked)
    with pytest.raises(IsthmusError) as caught:
        star.run_inside(timeout_s=5.0)
    assert caught.value.code == "secagg.signature", caught.value
    assert not sent
