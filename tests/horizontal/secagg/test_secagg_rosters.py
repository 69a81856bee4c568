"""Which keys and shares of others a party refuses under secure aggregation, whoever passes them on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from isthmus.horizontal.masks import KeyPair
from isthmus.horizontal.secagg import PublicKeys, offer_statement, sum_digest
from isthmus.parties.errors import PeerFailure
from isthmus.parties.network.message import Step

from .attacks import Change, Fields, attack, on, refusal

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
    refusal(attack(make_world(4), Step.ROSTER, change)["amber"], "secagg.signature", party="amber", peer="birch")


def test_a_party_whose_key_is_not_the_pinned_one_is_refused(make_world: Any) -> None:
    world = make_world(3)
    world.keys["birch"] = bytes(reversed(world.keys["birch"]))
    session = world.session()
    assert session.sum(world.values()).survivors == ()
    ends = session.close()
    for name in ("amber", "cedar"):
        refusal(ends[name], "secagg.signature", party=name, peer="birch")


def test_foreign_keys_in_the_own_name_are_refused_though_they_were_signed_once(make_world: Any) -> None:
    world = make_world(4)

    def mine_of_another_start(fields: Fields) -> None:
        one = session.offers[1][0]
        keys = PublicKeys(KeyPair().public, KeyPair().public, bytes(32))
        signature = world.identities["amber"].sign(offer_statement(sum_digest(one), "amber", keys))
        fields["roster"] = {**fields["roster"], "amber": [*keys, signature]}

    session = world.session()
    session.channels["amber"].before = on(Step.ROSTER, mine_of_another_start)
    session.sum(world.values(), deadline_s=5.0)
    refusal(session.close()["amber"], "secagg.signature", party="amber", peer="amber")


@pytest.mark.parametrize("what", ["the sum before", "the attempt before", "another job", "other parties"])
def test_an_offer_of_another_sum_is_refused(make_world: Any, what: str) -> None:
    world = make_world(4)
    session, old = world.session(), list[Any]()
    session.channels["amber"].before = on(Step.ROSTER, lambda fields: old.append(fields["roster"]["birch"]))
    changes = {"another job": {"job": "7" * 64}, "other parties": {"parties": world.names[:3]}}.get(what, {})
    session.sum(world.values(), strict=False, **changes)
    if what != "the sum before":
        session.close()
        session = world.session(attempt=2 if what == "the attempt before" else 1)
    session.channels["amber"].before = on(
        Step.ROSTER, lambda fields: fields.update(roster={**fields["roster"], "birch": old[0]})
    )
    session.sum(world.values(), number=2 if what == "the sum before" else 1, strict=False, deadline_s=5.0)
    refusal(session.close()["amber"], "secagg.signature", party="amber", peer="birch")


def test_a_roster_of_too_few_is_refused(make_world: Any) -> None:
    def without(fields: Fields) -> None:
        fields["roster"] = {name: entry for name, entry in fields["roster"].items() if name not in ("birch", "cedar")}

    refusal(attack(make_world(5), Step.ROSTER, without)["amber"], "secagg.too_few", count=3, allowed=4)


@pytest.mark.parametrize("change", [{"roster": None}, {"roster": {}}, {"sum": 7}, {"sum": None}])
def test_a_roster_that_is_none_is_refused(make_world: Any, change: Fields) -> None:
    ends = attack(make_world(3), Step.ROSTER, lambda fields: fields.update(change))
    refusal(ends["amber"], "peer.protocol", peer="coordinator")


def test_a_stranger_in_the_roster_is_refused(make_world: Any) -> None:
    def stranger(fields: Fields) -> None:
        fields["roster"] = {**fields["roster"], "mallory": fields["roster"]["birch"]}

    refusal(attack(make_world(3), Step.ROSTER, stranger)["amber"], "peer.protocol")


def _signed_anew(world: Any, session: Any, name: str, keys: Callable[[list[bytes]], list[bytes]]) -> Any:
    """What a party does that announces whatever keys it likes."""

    def change(fields: Fields) -> None:
        chosen = PublicKeys(*keys(fields["keys"]))
        giving = session[0].givings[name]
        giving._own = replace(giving._own, public=chosen)
        statement = offer_statement(sum_digest(session[0].offers[1][0]), name, chosen)
        fields.update(keys=list(chosen), signature=world.identities[name].sign(statement))

    return on(Step.OFFER, change)


@pytest.mark.parametrize("place", [0, 1])
def test_a_key_of_small_order_is_refused_and_its_owner_named(make_world: Any, place: int) -> None:
    world, session = make_world(4), list[Any]()
    weak = _signed_anew(world, session, "birch", lambda keys: [bytes(32) if i == place else keys[i] for i in range(3)])
    session.append(world.session(before={"birch": weak}))
    assert session[0].sum(world.values()).survivors == ()
    refusal(session[0].close()["amber"], "peer.shares", party="amber", peer="birch")


def test_a_key_that_stands_twice_in_the_roster_is_refused(make_world: Any) -> None:
    world, session = make_world(4), list[Any]()
    twice = _signed_anew(world, session, "birch", lambda keys: [keys[0], keys[0], keys[2]])
    session.append(world.session(before={"birch": twice}))
    assert session[0].sum(world.values()).survivors == ()
    refusal(session[0].close()["amber"], "peer.protocol")


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
    ends = attack(make_world(4), Step.INBOX, change)
    assert isinstance(ends["amber"], PeerFailure)
    refusal(ends["amber"], "peer.shares", party="amber", peer="birch")


def test_a_share_for_another_party_is_refused(make_world: Any) -> None:
    world = make_world(4)
    session, boxes = world.session(), dict[str, Any]()
    session.channels["amber"].before = on(Step.INBOX, lambda fields: boxes.update(fields["sealed"]))
    session.channels["birch"].before = on(
        Step.INBOX, lambda fields: fields.update(sealed={**fields["sealed"], "cedar": boxes["cedar"]})
    )
    session.sum(world.values(), deadline_s=5.0)
    refusal(session.close()["birch"], "peer.shares", party="birch", peer="cedar")


def test_an_inbox_of_too_few_is_refused(make_world: Any) -> None:
    def few(fields: Fields) -> None:
        fields["sealed"] = {name: box for name, box in fields["sealed"].items() if name not in ("birch", "cedar")}

    refusal(attack(make_world(5), Step.INBOX, few)["amber"], "secagg.too_few", count=3, allowed=4)


def test_an_inbox_of_strangers_is_refused(make_world: Any) -> None:
    def stranger(fields: Fields) -> None:
        fields["sealed"] = {**fields["sealed"], "mallory": b""}

    refusal(attack(make_world(3), Step.INBOX, stranger)["amber"], "peer.protocol")
