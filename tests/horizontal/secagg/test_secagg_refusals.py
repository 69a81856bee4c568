"""What a party refuses under secure aggregation. The coordinator of these tests does what it likes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from isthmus.horizontal.fixed_point import FLOAT32
from isthmus.horizontal.masks import KeyPair
from isthmus.horizontal.secagg import PublicKeys, offer_statement, sum_digest
from isthmus.parties.errors import InputError, IsthmusError, PeerFailure, PolicyRefusal
from isthmus.parties.network.message import Step, Topic

TOPIC, TIMEOUT_S = Topic.TRAIN, 30.0
Fields = dict[str, Any]
Change = Callable[[Fields], None]


def _on(step: Step, change: Change) -> Callable[[Step, Fields], None]:
    """Change the fields of one step's messages before they are sent."""

    def before(sent: Step, fields: Fields) -> None:
        if sent is step:
            change(fields)

    return before


def _attack(world: Any, step: Step, change: Change, *, victims: int = 1) -> dict[str, Any]:
    """How the parties end when the coordinator changes what it sends to the first of them."""
    session = world.session()
    for name in world.names[:victims]:
        session.channels[name].before = _on(step, change)
    session.sum(world.values(), deadline_s=5.0)
    for name in world.names[:victims]:
        assert not session.received(name, Step.UNMASK)
    return dict(session.close())


def _refusal(found: Any, code: str, **facts: Any) -> None:
    assert isinstance(found, IsthmusError), found
    assert found.code == code, (found, found.detail)
    assert {name: found.facts.get(name) for name in facts} == facts


# --- before anything leaves ------------------------------------------------------------------------------------------


def test_two_parties_are_too_few_for_the_coordinator_and_for_a_party(make_world: Any) -> None:
    world = make_world(3)
    session = world.session()
    with pytest.raises(PolicyRefusal) as caught:
        session.sum(world.values(), parties=world.names[:2])
    _refusal(caught.value, "secagg.too_few", count=2, allowed=3)
    ends = session.close()
    for name in world.names[:2]:
        _refusal(ends[name], "secagg.too_few", count=2, allowed=3)
        assert not session.carriers[name].frames


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_none_does_not_leave(make_world: Any, value: float) -> None:
    world = make_world(3)
    session, values = world.session(), world.values()
    values["amber"][2] = value
    assert session.sum(values).survivors == ()
    _refusal(session.close()["amber"], "update.not_finite", party="amber")
    assert not session.carriers["amber"].frames


@pytest.mark.parametrize("value", [128.0, -128.0, 1e30])
def test_a_number_beyond_the_encoding_does_not_leave(make_world: Any, value: float) -> None:
    world = make_world(3)
    session, values = world.session(), world.values()
    values["amber"][2] = value
    assert session.sum(values).survivors == ()
    _refusal(session.close()["amber"], "update.too_large", party="amber")
    assert not session.carriers["amber"].frames


def test_a_peer_without_a_pinned_key_is_not_added_up_with(make_world: Any) -> None:
    world = make_world(3)
    del world.keys["birch"]
    session = world.session()
    assert session.sum(world.values()).survivors == ()
    ends = session.close()
    for name in ("amber", "cedar"):
        assert isinstance(ends[name], InputError)
        _refusal(ends[name], "home.key_unknown", party=name, peer="birch")


@pytest.mark.parametrize("parties", [("birch", "cedar", "delta"), ("amber", "birch", "birch")])
def test_a_sum_without_the_party_or_with_one_twice_is_refused(make_world: Any, parties: tuple[str, ...]) -> None:
    world = make_world(4)
    session = world.session()
    one = session.ask(world.values(), parties=world.names)
    session.offers[2] = (type(one)(one.job, 1, 2, one.content, parties), FLOAT32, {})
    session.values[2] = session.values[1]
    session.members.tell(["amber"], TOPIC, Step.ROUND, 2)
    _refusal(session.close()["amber"], "peer.protocol")


def test_a_number_that_does_not_rise_is_refused(make_world: Any) -> None:
    world = make_world(3)
    session = world.session()
    session.sum(world.values())
    session.ask(world.values(), number=1, content="3" * 64)
    ends = session.close()
    for name in world.names:
        _refusal(ends[name], "peer.protocol", peer="coordinator")


# --- the roster ------------------------------------------------------------------------------------------------------


def _forged(fields: Fields) -> None:
    entry = fields["roster"]["birch"]
    fields["roster"] = {**fields["roster"], "birch": [*entry[:-1], entry[-1][:-1] + bytes([entry[-1][-1] ^ 1])]}


def _keys_of_the_coordinator(fields: Fields) -> None:
    entry = fields["roster"]["birch"]
    fields["roster"] = {**fields["roster"], "birch": [entry[0], KeyPair().public, *entry[2:]]}


def _signature_of_another(fields: Fields) -> None:
    roster = fields["roster"]
    fields["roster"] = {**roster, "birch": [*roster["birch"][:-1], roster["cedar"][-1]]}


def _entry_of_another(fields: Fields) -> None:
    fields["roster"] = {**fields["roster"], "birch": fields["roster"]["cedar"]}


def _no_signature(fields: Fields) -> None:
    fields["roster"] = {**fields["roster"], "birch": fields["roster"]["birch"][:-1]}


def _no_entry(fields: Fields) -> None:
    fields["roster"] = {**fields["roster"], "birch": []}


@pytest.mark.parametrize(
    "change",
    [_forged, _keys_of_the_coordinator, _signature_of_another, _entry_of_another, _no_signature, _no_entry],
    ids=lambda change: change.__name__,
)
def test_keys_that_their_owner_has_not_signed_are_refused(make_world: Any, change: Change) -> None:
    _refusal(_attack(make_world(4), Step.ROSTER, change)["amber"], "secagg.signature", party="amber", peer="birch")


def test_a_party_whose_key_is_not_the_pinned_one_is_refused(make_world: Any) -> None:
    world = make_world(3)
    world.keys["birch"] = bytes(reversed(world.keys["birch"]))
    session = world.session()
    assert session.sum(world.values()).survivors == ()
    ends = session.close()
    for name in ("amber", "cedar"):
        _refusal(ends[name], "secagg.signature", party=name, peer="birch")


def test_foreign_keys_in_the_own_name_are_refused_though_they_were_signed_once(make_world: Any) -> None:
    world = make_world(4)

    def mine_of_another_start(fields: Fields) -> None:
        one = session.offers[1][0]
        keys = PublicKeys(KeyPair().public, KeyPair().public, bytes(32))
        signature = world.identities["amber"].sign(offer_statement(sum_digest(one), "amber", keys))
        fields["roster"] = {**fields["roster"], "amber": [*keys, signature]}

    session = world.session()
    session.channels["amber"].before = _on(Step.ROSTER, mine_of_another_start)
    session.sum(world.values(), deadline_s=5.0)
    _refusal(session.close()["amber"], "secagg.signature", party="amber", peer="amber")


@pytest.mark.parametrize("what", ["the sum before", "the attempt before", "another job", "other parties"])
def test_an_offer_of_another_sum_is_refused(make_world: Any, what: str) -> None:
    world = make_world(4)
    session, old = world.session(), list[Any]()
    session.channels["amber"].before = _on(Step.ROSTER, lambda fields: old.append(fields["roster"]["birch"]))
    changes = {"another job": {"job": "7" * 64}, "other parties": {"parties": world.names[:3]}}.get(what, {})
    session.sum(world.values(), strict=False, **changes)
    if what != "the sum before":
        session.close()
        session = world.session(attempt=2 if what == "the attempt before" else 1)
    session.channels["amber"].before = _on(
        Step.ROSTER, lambda fields: fields.update(roster={**fields["roster"], "birch": old[0]})
    )
    session.sum(world.values(), number=2 if what == "the sum before" else 1, strict=False, deadline_s=5.0)
    _refusal(session.close()["amber"], "secagg.signature", party="amber", peer="birch")


def test_a_roster_of_too_few_is_refused(make_world: Any) -> None:
    def without(fields: Fields) -> None:
        fields["roster"] = {name: entry for name, entry in fields["roster"].items() if name not in ("birch", "cedar")}

    _refusal(_attack(make_world(5), Step.ROSTER, without)["amber"], "secagg.too_few", count=3, allowed=4)


@pytest.mark.parametrize("change", [{"roster": None}, {"roster": {}}, {"sum": 7}, {"sum": None}])
def test_a_roster_that_is_none_is_refused(make_world: Any, change: Fields) -> None:
    ends = _attack(make_world(3), Step.ROSTER, lambda fields: fields.update(change))
    _refusal(ends["amber"], "peer.protocol", peer="coordinator")


def test_a_stranger_in_the_roster_is_refused(make_world: Any) -> None:
    def stranger(fields: Fields) -> None:
        fields["roster"] = {**fields["roster"], "mallory": fields["roster"]["birch"]}

    _refusal(_attack(make_world(3), Step.ROSTER, stranger)["amber"], "peer.protocol")


def _signed_anew(world: Any, session: Any, name: str, keys: Callable[[list[bytes]], list[bytes]]) -> Any:
    """What a party does that announces whatever keys it likes."""

    def change(fields: Fields) -> None:
        chosen = PublicKeys(*keys(fields["keys"]))
        giving = session[0].givings[name]
        giving._own = replace(giving._own, public=chosen)
        statement = offer_statement(sum_digest(session[0].offers[1][0]), name, chosen)
        fields.update(keys=list(chosen), signature=world.identities[name].sign(statement))

    return _on(Step.OFFER, change)


@pytest.mark.parametrize("place", [0, 1])
def test_a_key_of_small_order_is_refused_and_its_owner_named(make_world: Any, place: int) -> None:
    world, session = make_world(4), list[Any]()
    weak = _signed_anew(world, session, "birch", lambda keys: [bytes(32) if i == place else keys[i] for i in range(3)])
    session.append(world.session(before={"birch": weak}))
    assert session[0].sum(world.values()).survivors == ()
    _refusal(session[0].close()["amber"], "peer.shares", party="amber", peer="birch")


def test_a_key_that_stands_twice_in_the_roster_is_refused(make_world: Any) -> None:
    world, session = make_world(4), list[Any]()
    twice = _signed_anew(world, session, "birch", lambda keys: [keys[0], keys[0], keys[2]])
    session.append(world.session(before={"birch": twice}))
    assert session[0].sum(world.values()).survivors == ()
    _refusal(session[0].close()["amber"], "peer.protocol")


# --- the inbox -------------------------------------------------------------------------------------------------------


def _altered(fields: Fields) -> None:
    box = fields["sealed"]["birch"]
    fields["sealed"] = {**fields["sealed"], "birch": box[:-1] + bytes([box[-1] ^ 1])}


def _swapped(fields: Fields) -> None:
    fields["sealed"] = {**fields["sealed"], "birch": fields["sealed"]["cedar"]}


def _cut(fields: Fields) -> None:
    fields["sealed"] = {**fields["sealed"], "birch": b"short"}


def _no_bytes(fields: Fields) -> None:
    fields["sealed"] = {**fields["sealed"], "birch": 7}


@pytest.mark.parametrize("change", [_altered, _swapped, _cut, _no_bytes], ids=lambda change: change.__name__)
def test_a_share_that_was_tampered_with_is_refused_and_its_sender_named(make_world: Any, change: Change) -> None:
    ends = _attack(make_world(4), Step.INBOX, change)
    assert isinstance(ends["amber"], PeerFailure)
    _refusal(ends["amber"], "peer.shares", party="amber", peer="birch")


def test_a_share_for_another_party_is_refused(make_world: Any) -> None:
    world = make_world(4)
    session, boxes = world.session(), dict[str, Any]()
    session.channels["amber"].before = _on(Step.INBOX, lambda fields: boxes.update(fields["sealed"]))
    session.channels["birch"].before = _on(
        Step.INBOX, lambda fields: fields.update(sealed={**fields["sealed"], "cedar": boxes["cedar"]})
    )
    session.sum(world.values(), deadline_s=5.0)
    _refusal(session.close()["birch"], "peer.shares", party="birch", peer="cedar")


def test_an_inbox_of_too_few_is_refused(make_world: Any) -> None:
    def few(fields: Fields) -> None:
        fields["sealed"] = {name: box for name, box in fields["sealed"].items() if name not in ("birch", "cedar")}

    _refusal(_attack(make_world(5), Step.INBOX, few)["amber"], "secagg.too_few", count=3, allowed=4)


def test_an_inbox_of_strangers_is_refused(make_world: Any) -> None:
    def stranger(fields: Fields) -> None:
        fields["sealed"] = {**fields["sealed"], "mallory": b""}

    _refusal(_attack(make_world(3), Step.INBOX, stranger)["amber"], "peer.protocol")


# --- the survivors ---------------------------------------------------------------------------------------------------


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
    ends = _attack(make_world(5), Step.SURVIVORS, lambda fields: fields.update(survivors=survivors))
    _refusal(ends["amber"], "secagg.survivors", party="amber")


def test_survivors_of_whom_there_are_too_few_are_refused(make_world: Any) -> None:
    ends = _attack(make_world(5), Step.SURVIVORS, lambda fields: fields.update(survivors=["amber", "birch", "cedar"]))
    _refusal(ends["amber"], "secagg.too_few", count=3, allowed=4)


def test_parties_that_are_told_of_different_survivors_unmask_nothing(make_world: Any) -> None:
    world = make_world(10)
    without = [name for name in world.names if name != "jetty"]
    ends = _attack(world, Step.SURVIVORS, lambda fields: fields.update(survivors=without), victims=5)
    for name in world.names[:-1]:  # 5 signed the one list, 5 the other, and 7 have to sign the same
        _refusal(ends[name], "secagg.consent", party=name, count=5, allowed=7)


def test_signatures_for_another_sum_do_not_count(make_world: Any) -> None:
    world = make_world(4)
    session, old = world.session(), dict[str, Any]()
    session.channels["amber"].before = _on(Step.SIGNATURES, lambda fields: old.update(fields["signatures"]))
    session.sum(world.values())
    session.channels["amber"].before = _on(Step.SIGNATURES, lambda fields: fields.update(signatures=old))
    session.sum(world.values(), number=2, content="5" * 60 + world.content[:4], deadline_s=5.0)
    _refusal(session.close()["amber"], "secagg.consent", party="amber", count=0, allowed=3)


@pytest.mark.parametrize("count", [0, 2])
def test_fewer_signatures_than_the_threshold_do_not_unmask(make_world: Any, count: int) -> None:
    def few(fields: Fields) -> None:
        fields["signatures"] = dict(list(fields["signatures"].items())[:count])

    _refusal(_attack(make_world(4), Step.SIGNATURES, few)["amber"], "secagg.consent", count=count, allowed=3)


def test_signatures_of_strangers_and_what_is_no_signature_do_not_count(make_world: Any) -> None:
    def padded(fields: Fields) -> None:
        first = dict(list(fields["signatures"].items())[:2])
        fields["signatures"] = {**first, "cedar": first["birch"], "delta": 7, "mallory": first["birch"]}

    _refusal(_attack(make_world(4), Step.SIGNATURES, padded)["amber"], "secagg.consent", count=2, allowed=3)


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
    _refusal(session.close()["amber"], "secagg.survivors", party="amber")
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


# --- orders out of turn ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [Step.ROSTER, Step.INBOX, Step.SIGNATURES])
def test_an_order_before_any_sum_is_refused(make_world: Any, step: Step) -> None:
    session = make_world(3).session()
    session.members.tell(["amber"], TOPIC, step, 1, {"id": b"", "roster": {}, "sealed": {}, "signatures": {}})
    _refusal(session.close()["amber"], "peer.protocol", peer="coordinator")


@pytest.mark.parametrize("step", [Step.INBOX, Step.SIGNATURES])
def test_an_order_before_its_turn_is_refused(make_world: Any, step: Step) -> None:
    world = make_world(3)
    session = world.session()
    one = session.ask(world.values())
    fields = {"id": sum_digest(one), "sealed": {}, "signatures": {}}
    session.members.tell(["amber"], TOPIC, step, 1, fields)
    _refusal(session.close()["amber"], "peer.protocol", peer="coordinator")


def test_a_second_roster_is_refused(make_world: Any) -> None:
    world = make_world(3)
    session, sent = world.session(), list[Fields]()
    session.channels["amber"].before = _on(Step.ROSTER, lambda fields: sent.append(fields))

    def roster_again(fields: Fields) -> None:
        session.channels["amber"].before = None
        session.channels["amber"].send(TOPIC, Step.ROSTER, sent[0])

    session.channels["birch"].before = _on(Step.ROSTER, roster_again)
    session.sum(world.values(), deadline_s=5.0)
    _refusal(session.close()["amber"], "peer.protocol", peer="coordinator")


# --- a party that lies to the coordinator -----------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["seeds", "keys"])
def test_a_wrong_share_ends_the_sum_with_the_name_of_the_one_it_is_of(make_world: Any, kill: Any, field: str) -> None:
    world = make_world(5)

    def lie(fields: Fields) -> None:
        owner = "ember" if field == "seeds" else "birch"
        fields[field] = {**fields[field], owner: bytes(65) + b"\x01"}

    session = world.session(before={"birch": kill(Step.MASKED), "amber": _on(Step.UNMASK, lie)})
    with pytest.raises(PeerFailure) as caught:
        session.sum(world.values())
    _refusal(caught.value, "peer.shares", party="coordinator", peer="ember" if field == "seeds" else "birch")
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
    session = world.session(before={"birch": _on(step, lambda fields: fields.update(change))})
    survivors = session.sum(world.values()).survivors
    assert set(world.names) - set(survivors) == ({"birch"} if step in (Step.OFFER, Step.SHARES) else set())
    assert session.members.gone["birch"].code == "peer.protocol"
    session.close()
