"""Which survivors and signatures a party does not unmask for; no party ever gives both shares of another."""

from __future__ import annotations

import time
from typing import Any

import pytest

from isthmus.horizontal.secagg import sum_digest
from isthmus.parties.network.message import Step

from .attacks import TIMEOUT_S, TOPIC, Fields, attack, on, refusal


@pytest.mark.parametrize(
    "survivors",
    [
        ["amber", "birch", "cedar", "delta", "mallory"],
        ["amber", "birch", "cedar", "delta", "delta"],
        ["ember", "delta", "cedar", "birch", "amber"],
        ["birch", "cedar", "delta", "ember"],  # amber is asked, and not in it
        ["amber", "birch", "cedar", "delta", 7],
        "amber birch cedar delta",
        None,
    ],
)
def test_survivors_that_were_not_in_the_sum_are_refused(make_world: Any, survivors: Any) -> None:
    ends = attack(make_world(5), Step.SURVIVORS, lambda fields: fields.update(survivors=survivors))
    refusal(ends["amber"], "secagg.survivors", party="amber")


def test_survivors_of_whom_there_are_too_few_are_refused(make_world: Any) -> None:
    ends = attack(make_world(5), Step.SURVIVORS, lambda fields: fields.update(survivors=["amber", "birch", "cedar"]))
    refusal(ends["amber"], "secagg.too_few", count=3, allowed=4)


def test_parties_that_are_told_of_different_survivors_unmask_nothing(make_world: Any) -> None:
    world = make_world(10)
    without = [name for name in world.names if name != "jetty"]
    ends = attack(world, Step.SURVIVORS, lambda fields: fields.update(survivors=without), victims=5)
    for name in world.names[:-1]:  # 5 signed the one list, 5 the other, and 7 have to sign the same
        refusal(ends[name], "secagg.consent", party=name, count=5, allowed=7)


def test_signatures_for_another_sum_do_not_count(make_world: Any) -> None:
    world = make_world(4)
    session, old = world.session(), dict[str, Any]()
    session.channels["amber"].before = on(Step.SIGNATURES, lambda fields: old.update(fields["signatures"]))
    session.sum(world.values())
    session.channels["amber"].before = on(Step.SIGNATURES, lambda fields: fields.update(signatures=old))
    session.sum(world.values(), number=2, content="5" * 60 + world.content[:4], deadline_s=5.0)
    refusal(session.close()["amber"], "secagg.consent", party="amber", count=0, allowed=3)


@pytest.mark.parametrize("count", [0, 2])
def test_fewer_signatures_than_the_threshold_do_not_unmask(make_world: Any, count: int) -> None:
    def few(fields: Fields) -> None:
        fields["signatures"] = dict(list(fields["signatures"].items())[:count])

    refusal(attack(make_world(4), Step.SIGNATURES, few)["amber"], "secagg.consent", count=count, allowed=3)


def test_signatures_of_strangers_and_what_is_no_signature_do_not_count(make_world: Any) -> None:
    def padded(fields: Fields) -> None:
        first = dict(list(fields["signatures"].items())[:2])
        fields["signatures"] = {**first, "cedar": first["birch"], "delta": 7, "mallory": first["birch"]}

    refusal(attack(make_world(4), Step.SIGNATURES, padded)["amber"], "secagg.consent", count=2, allowed=3)


def _ask_again(session: Any, name: str, survivors: list[str]) -> None:
    """Name the survivors of the last sum once more, and wait for the answer."""
    one = session.offers[1][0]
    fields = {"id": sum_digest(one), "survivors": survivors}
    session.members.tell([name], TOPIC, Step.SURVIVORS, 1, fields)
    session.members.hear([name], TOPIC, Step.CONSENT, 1, deadline=time.monotonic() + TIMEOUT_S)


def test_a_second_list_of_survivors_for_one_sum_is_refused_so_that_no_party_gives_both_shares(make_world: Any) -> None:
    world = make_world(5)
    session = world.session()
    assert session.sum(world.values()).survivors == world.names
    _ask_again(session, "amber", list(world.names[:4]))  # now claim that ember had dropped out
    refusal(session.close()["amber"], "secagg.survivors", party="amber")
    (unmask,) = session.received("amber", Step.UNMASK)
    assert (set(unmask.fields["seeds"]), unmask.fields["keys"]) == (set(world.names), {})


def test_one_share_of_each_party_leaves_and_never_both(make_world: Any, kill: Any) -> None:
    world = make_world(5)
    session = world.session(before={"birch": kill(Step.MASKED)})
    session.sum(world.values())
    session.close()
    for name in ("amber", "cedar", "delta", "ember"):
        (unmask,) = session.received(name, Step.UNMASK)
        assert (set(unmask.fields["seeds"]), set(unmask.fields["keys"])) == (set(world.names) - {"birch"}, {"birch"})


def test_the_same_list_again_gets_the_same_answer(make_world: Any) -> None:
    world = make_world(3)
    session = world.session()
    session.sum(world.values())
    _ask_again(session, "amber", list(world.names))
    session.close()
    first, second = session.received("amber", Step.CONSENT)
    assert first.fields["signature"] == second.fields["signature"]
