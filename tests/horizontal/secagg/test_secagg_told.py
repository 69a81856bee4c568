"""A coordinator that tells parties different things, or asks few of them, so that one party's numbers stand out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from isthmus.horizontal.secagg_party import SecureGiving
from isthmus.parties.errors import PolicyRefusal
from isthmus.parties.network.message import MAX_HEADER_NBYTES, Step, Topic

TOPIC = Topic.TRAIN


def _hold_to(world: Any, fewest: int) -> None:
    """Let every party hold to a quorum."""
    world.giving = lambda name, channel: SecureGiving(
        channel, TOPIC, world.identities[name], world.keys, world.memory(name), fewest=fewest
    )


def test_a_sum_over_fewer_parties_than_the_quorum_is_refused_before_anything_leaves(make_world: Any) -> None:
    world = make_world(10)
    _hold_to(world, 7)
    session = world.session()
    asked = world.names[:3]  # birch and cedar may help the coordinator: it would know all but amber's numbers
    assert session.sum(world.values(), parties=asked).survivors == ()
    ends = session.close()
    for name in asked:
        assert isinstance(ends[name], PolicyRefusal)
        assert ends[name].code == "secagg.too_few" and ends[name].facts["allowed"] == 7
        assert not session.carriers[name].frames


def test_fewer_survivors_than_the_quorum_get_no_signature(make_world: Any, kill: Callable[..., Any]) -> None:
    world = make_world(5)
    _hold_to(world, 5)
    session = world.session(before={"birch": kill(Step.MASKED)})
    assert session.sum(world.values()).survivors == ()  # four of five would do for the threshold
    ends = session.close()
    for name in ("amber", "cedar", "delta", "ember"):
        assert ends[name].code == "secagg.too_few", ends[name]
        assert not session.received(name, Step.CONSENT)


@pytest.mark.parametrize("strict", [True, False])
def test_parties_that_were_told_different_things_come_to_no_sum(make_world: Any, strict: bool) -> None:
    world = make_world(4)
    told = dict(zip(world.names, ["another weight", *["this weight"] * 3], strict=True))
    giving_of = world.giving

    def giving(name: str, channel: Any) -> Any:
        found = giving_of(name, channel)
        offer = found.offer
        found.offer = lambda one, *rest, **more: offer(replace(one, terms=told[name]), *rest, **more)
        return found

    world.giving = giving
    session = world.session()
    one = replace(session.ask(world.values(), strict=strict), terms="this weight")
    encoding = session.offers[1][1]
    found = session.gathering.gather(session.members, TOPIC, one, 5, encoding, deadline_s=5.0)
    assert found.survivors == ()
    ends = session.close()
    assert {ends[name].code for name in world.names} == {"secagg.signature"}
    for name in world.names:
        assert not session.received(name, Step.MASKED)


def test_a_party_cannot_make_the_coordinator_send_more_than_a_message_holds(make_world: Any) -> None:
    world = make_world(5)

    def huge(step: Step, fields: dict[str, Any]) -> None:
        if step is Step.SHARES:
            boxes = dict.fromkeys(fields["sealed"], b"")
            fields["sealed"] = {**boxes, "amber": bytes(MAX_HEADER_NBYTES - 200)}

    session = world.session(before={"birch": huge})
    assert session.sum(world.values()).survivors == ("amber", "cedar", "delta", "ember")
    assert session.members.gone["birch"].code == "peer.protocol"
    session.close()
