"""What a party refuses under secure aggregation: bad numbers, sums and orders. And a party that lies to C."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from isthmus.horizontal.fixed_point import FLOAT32
from isthmus.horizontal.secagg import sum_digest
from isthmus.parties.errors import InputError, PeerFailure, PolicyRefusal
from isthmus.parties.network.message import Step

from .attacks import TOPIC, Fields, on, refusal

# --- before anything leaves ------------------------------------------------------------------------------------------


def test_two_parties_are_too_few_for_the_coordinator_and_for_a_party(make_world: Any) -> None:
    world = make_world(3)
    session = world.session()
    with pytest.raises(PolicyRefusal) as caught:
        session.sum(world.values(), parties=world.names[:2])
    refusal(caught.value, "secagg.too_few", count=2, allowed=3)
    ends = session.close()
    for name in world.names[:2]:
        refusal(ends[name], "secagg.too_few", count=2, allowed=3)
        assert not session.carriers[name].frames


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_none_does_not_leave(make_world: Any, value: float) -> None:
    world = make_world(3)
    session, values = world.session(), world.values()
    values["amber"][2] = value
    assert session.sum(values).survivors == ()
    refusal(session.close()["amber"], "update.not_finite", party="amber")
    assert not session.carriers["amber"].frames


@pytest.mark.parametrize("value", [128.0, -128.0, 1e30])
def test_a_number_beyond_the_encoding_does_not_leave(make_world: Any, value: float) -> None:
    world = make_world(3)
    session, values = world.session(), world.values()
    values["amber"][2] = value
    assert session.sum(values).survivors == ()
    refusal(session.close()["amber"], "update.too_large", party="amber")
    assert not session.carriers["amber"].frames


def test_a_peer_without_a_pinned_key_is_not_added_up_with(make_world: Any) -> None:
    world = make_world(3)
    del world.keys["birch"]
    session = world.session()
    assert session.sum(world.values()).survivors == ()
    ends = session.close()
    for name in ("amber", "cedar"):
        assert isinstance(ends[name], InputError)
        refusal(ends[name], "home.key_unknown", party=name, peer="birch")


@pytest.mark.parametrize("parties", [("birch", "cedar", "delta"), ("amber", "birch", "birch")])
def test_a_sum_without_the_party_or_with_one_twice_is_refused(make_world: Any, parties: tuple[str, ...]) -> None:
    world = make_world(4)
    session = world.session()
    one = session.ask(world.values(), parties=world.names)
    session.offers[2] = (type(one)(one.job, 1, 2, one.content, parties), FLOAT32, {})
    session.values[2] = session.values[1]
    session.members.tell(["amber"], TOPIC, Step.ROUND, 2)
    refusal(session.close()["amber"], "peer.protocol")


def test_a_number_that_does_not_rise_is_refused(make_world: Any) -> None:
    world = make_world(3)
    session = world.session()
    session.sum(world.values())
    session.ask(world.values(), number=1, content="3" * 64)
    ends = session.close()
    for name in world.names:
        refusal(ends[name], "peer.protocol", peer="coordinator")


# --- orders out of turn ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [Step.ROSTER, Step.INBOX, Step.SIGNATURES])
def test_an_order_before_any_sum_is_refused(make_world: Any, step: Step) -> None:
    session = make_world(3).session()
    session.members.tell(["amber"], TOPIC, step, 1, {"id": b"", "roster": {}, "sealed": {}, "signatures": {}})
    refusal(session.close()["amber"], "peer.protocol", peer="coordinator")


@pytest.mark.parametrize("step", [Step.INBOX, Step.SIGNATURES])
def test_an_order_before_its_turn_is_refused(make_world: Any, step: Step) -> None:
    world = make_world(3)
    session = world.session()
    one = session.ask(world.values())
    fields = {"id": sum_digest(one), "sealed": {}, "signatures": {}}
    session.members.tell(["amber"], TOPIC, step, 1, fields)
    refusal(session.close()["amber"], "peer.protocol", peer="coordinator")


def test_a_second_roster_is_refused(make_world: Any) -> None:
    world = make_world(3)
    session, sent = world.session(), list[Fields]()
    session.channels["amber"].before = on(Step.ROSTER, lambda fields: sent.append(fields))

    def roster_again(fields: Fields) -> None:
        session.channels["amber"].before = None
        session.channels["amber"].send(TOPIC, Step.ROSTER, sent[0])

    session.channels["birch"].before = on(Step.ROSTER, roster_again)
    session.sum(world.values(), deadline_s=5.0)
    refusal(session.close()["amber"], "peer.protocol", peer="coordinator")


# --- a party that lies to the coordinator -----------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["seeds", "keys"])
def test_a_wrong_share_ends_the_sum_with_the_name_of_the_one_it_is_of(make_world: Any, kill: Any, field: str) -> None:
    world = make_world(5)

    def lie(fields: Fields) -> None:
        owner = "ember" if field == "seeds" else "birch"
        fields[field] = {**fields[field], owner: bytes(65) + b"\x01"}

    session = world.session(before={"birch": kill(Step.MASKED), "amber": on(Step.UNMASK, lie)})
    with pytest.raises(PeerFailure) as caught:
        session.sum(world.values())
    refusal(caught.value, "peer.shares", party="coordinator", peer="ember" if field == "seeds" else "birch")
    session.close()


@pytest.mark.parametrize(
    ("step", "change"),
    [
        (Step.OFFER, {"keys": [b"1", b"2", b"3"]}),
        (Step.OFFER, {"signature": b"short"}),
        (Step.OFFER, {"keys": 7}),
        (Step.SHARES, {"sealed": {}}),
        (Step.SHARES, {"sealed": None}),
        (Step.CONSENT, {"signature": "text"}),
        (Step.UNMASK, {"seeds": {}}),
        (Step.UNMASK, {"keys": {"birch": bytes(66)}}),
    ],
)
def test_the_coordinator_goes_on_without_a_party_that_breaks_the_protocol(
    make_world: Any, step: Step, change: Fields
) -> None:
    world = make_world(5)
    session = world.session(before={"birch": on(step, lambda fields: fields.update(change))})
    survivors = session.sum(world.values()).survivors
    assert set(world.names) - set(survivors) == ({"birch"} if step in (Step.OFFER, Step.SHARES) else set())
    assert session.members.gone["birch"].code == "peer.protocol"
    session.close()
