"""Secure aggregation equals the plain sum, whoever drops out where, and the coordinator sees nothing but the sum."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

from isthmus.horizontal.fixed_point import EXACT, FLOAT32, FLOAT64, Encoding
from isthmus.horizontal.masks import KeyPair, Masks, derived
from isthmus.horizontal.secagg import pair_mask_use, self_mask_use, sum_digest, threshold
from isthmus.horizontal.shamir import Combiner
from isthmus.parties.network.message import Step, Topic

TOPIC, TIMEOUT_S = Topic.TRAIN, 30.0
PHASES = [Step.OFFER, Step.SHARES, Step.MASKED, Step.CONSENT, Step.UNMASK]


def _plain(values: Any, names: Any, encoding: Encoding = FLOAT32) -> Any:
    """The sum of the words without masks, which is what comes out to the last bit."""
    words = sum(encoding.encode(values[name], name) for name in names)
    return encoding.decode(words, len(next(iter(values.values()))))


@pytest.mark.parametrize(("parties", "allowed"), [(3, 3), (4, 3), (5, 4), (6, 5), (7, 5), (9, 7), (10, 7), (64, 43)])
def test_more_than_two_thirds_have_to_be_left(parties: int, allowed: int) -> None:
    assert threshold(parties) == allowed


@pytest.mark.parametrize("encoding", [FLOAT32, FLOAT64, EXACT], ids=lambda encoding: encoding.name)
@pytest.mark.parametrize("parties", [3, 5, 10])
def test_the_masked_sum_is_the_plain_sum_to_the_last_bit(make_world: Any, parties: int, encoding: Encoding) -> None:
    world = make_world(parties)
    session, values = world.session(), world.values()
    gathered = session.sum(values, encoding=encoding)
    assert gathered.survivors == world.names
    assert np.array_equal(gathered.total, _plain(values, world.names, encoding))
    assert set(session.close().values()) == {None}


@pytest.mark.parametrize("step", PHASES)
@pytest.mark.parametrize(("parties", "dropouts"), [(5, 1), (10, 1), (10, 3)])
def test_as_many_as_are_allowed_may_drop_out_in_each_phase(
    make_world: Any, kill: Any, parties: int, dropouts: int, step: Step
) -> None:
    world = make_world(parties)
    lost = world.names[1 : 1 + dropouts]
    session, values = world.session(before=dict.fromkeys(lost, kill(step))), world.values()
    gathered = session.sum(values)
    in_the_sum = step in (Step.CONSENT, Step.UNMASK)  # their numbers had come by then
    left = world.names if in_the_sum else tuple(name for name in world.names if name not in lost)
    assert gathered.survivors == left
    assert np.array_equal(gathered.total, _plain(values, left))
    session.close()


@pytest.mark.parametrize("step", PHASES)
@pytest.mark.parametrize(("parties", "dropouts"), [(3, 1), (5, 2), (10, 4)])
def test_with_one_more_dropout_there_is_no_sum(
    make_world: Any, kill: Any, parties: int, dropouts: int, step: Step
) -> None:
    world = make_world(parties)
    session = world.session(before=dict.fromkeys(world.names[:dropouts], kill(step)))
    gathered = session.sum(world.values())
    assert (gathered.survivors, gathered.total.tolist()) == ((), [0.0] * 5)
    session.close()


def test_some_may_drop_out_in_one_phase_and_others_in_another(make_world: Any, kill: Any) -> None:
    world = make_world(10)
    before = dict(zip(world.names, [kill(Step.SHARES), kill(Step.MASKED), kill(Step.CONSENT)], strict=False))
    session, values = world.session(before=before), world.values()
    gathered = session.sum(values)
    assert gathered.survivors == world.names[2:]
    assert np.array_equal(gathered.total, _plain(values, world.names[2:]))
    session.close()


@pytest.mark.parametrize(("encoding", "bits"), [(FLOAT32, 24), (FLOAT64, 40)], ids=["float32", "float64"])
@pytest.mark.parametrize(("parties", "dropouts"), [(3, 0), (5, 1), (10, 3)])
def test_a_weighted_mean_is_off_by_no_more_than_half_a_unit_a_party_over_the_weights(
    make_world: Any, kill: Any, parties: int, dropouts: int, encoding: Encoding, bits: int
) -> None:
    world = make_world(parties)
    weights = {name: (place + 1) / 64 for place, name in enumerate(world.names)}
    updates = world.values(size=400)
    values = {name: np.append(weights[name] * updates[name], weights[name]) for name in world.names}
    session = world.session(before=dict.fromkeys(world.names[:dropouts], kill(Step.MASKED)))
    gathered = session.sum(values, encoding=encoding)
    left = world.names[dropouts:]
    assert gathered.survivors == left
    whole = sum(weights[name] for name in left)
    plain = sum(weights[name] * updates[name] for name in left) / whole
    mean = gathered.total[:-1] / gathered.total[-1]
    assert gathered.total[-1] == whole
    assert np.abs(mean - plain).max() <= len(left) * 2.0 ** -(bits + 1) / whole + 1e-15
    session.close()


def test_a_vector_of_several_chunks_comes_out_whole(make_world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("isthmus.horizontal.members.CHUNK_ITEMS", 999)
    monkeypatch.setattr("isthmus.horizontal.masks._PIECE_NBYTES", 400)
    world = make_world(3)
    session, values = world.session(), world.values(size=10_001)
    assert np.array_equal(session.sum(values).total, _plain(values, world.names))
    session.close()


def test_a_party_that_is_late_is_left_out_and_takes_part_in_the_next_sum(make_world: Any) -> None:
    world, gate = make_world(5), threading.Event()

    def wait(step: Step, fields: dict[str, Any]) -> None:
        if step is Step.SHARES and fields["sum"] == 1:
            gate.wait(TIMEOUT_S)

    session, values = world.session(before={"birch": wait}), world.values()
    assert session.sum(values, deadline_s=0.5).survivors == ("amber", "cedar", "delta", "ember")
    gate.set()
    assert session.sum(values, number=2, content="2" * 60 + world.content[:4]).survivors == world.names
    assert set(session.close().values()) == {None}


def test_only_some_of_the_parties_may_be_asked(make_world: Any) -> None:
    world = make_world(5)
    session, values, asked = world.session(), world.values(), ("amber", "cedar", "ember")
    gathered = session.sum(values, parties=asked)
    assert gathered.survivors == asked
    assert np.array_equal(gathered.total, _plain(values, asked))
    session.close()


# --- what the coordinator sees ---------------------------------------------------------------------------------------


def _shared_secret(session: Any, names: Any, field: str, owner: str) -> bytes:
    """What all answers together give."""
    places = {name: place + 1 for place, name in enumerate(session.world.names)}
    answers = {name: session.received(name, Step.UNMASK) for name in names}
    shares = {places[name]: found[0].fields[field][owner] for name, found in answers.items() if found}
    secret = Combiner(list(shares)).combine(shares)
    assert secret is not None
    return secret


def test_nothing_that_the_coordinator_receives_holds_a_plain_update(make_world: Any) -> None:
    world = make_world(5)
    session, values = world.session(), world.values(size=64)
    one = session.ask(values)
    session.gathering.gather(session.members, TOPIC, one, 64, FLOAT32, deadline_s=TIMEOUT_S)
    session.close()
    for name, carrier in session.carriers.items():
        words = FLOAT32.encode(values[name], name)
        plain = [words, values[name], values[name].astype("<f4"), words.view("<i4").astype("<i8")]
        received = b"".join(carrier.frames)
        for numbers in plain:
            raw = numbers.tobytes()
            for start in range(0, len(raw), numbers.itemsize):
                piece = raw[start : start + max(8, numbers.itemsize)]
                assert len(piece) < 8 or piece not in received
        (masked,) = (message.arrays["values"] for message in session.received(name, Step.MASKED))
        assert not (masked == words).any()
        # and without the party's own mask, which the coordinator can take away, the masks of the pairs are left
        seed = _shared_secret(session, world.names, "seeds", name)
        Masks([(derived(seed, *self_mask_use(sum_digest(one), name)), False)], "<u4").apply(masked)
        assert not (masked == words).any()


def test_the_words_of_a_party_that_was_late_stay_hidden_though_its_masks_of_the_pairs_are_known(
    make_world: Any,
) -> None:
    world, gate = make_world(5), threading.Event()

    def wait(step: Step, fields: dict[str, Any]) -> None:
        if step is Step.MASKED:
            gate.wait(TIMEOUT_S)

    session, values = world.session(before={"birch": wait}), world.values(size=64)
    one = session.ask(values)
    gathered = session.gathering.gather(session.members, TOPIC, one, 64, FLOAT32, deadline_s=0.5)
    assert gathered.survivors == ("amber", "cedar", "delta", "ember")
    gate.set()
    session.close()
    (late,) = (message.arrays["values"].copy() for message in session.received("birch", Step.MASKED))
    known = KeyPair(_shared_secret(session, gathered.survivors, "keys", "birch"))
    masks = []
    for place, name in enumerate(world.names):
        if name != "birch":
            public = session.received(name, Step.OFFER)[0].fields["keys"][1]
            use = pair_mask_use(sum_digest(one), name, "birch")
            masks.append((derived(known.agree(public), *use), place < world.names.index("birch")))
    Masks(masks, "<u4").apply(late)
    assert not (late == FLOAT32.encode(values["birch"], "birch")).any()
    assert all("birch" not in session.received(name, Step.UNMASK)[0].fields["seeds"] for name in gathered.survivors)


def test_every_sum_has_fresh_keys_and_masks(make_world: Any) -> None:
    world = make_world(3)
    session, values = world.session(), world.values()
    session.sum(values)
    session.sum(values, number=2, content="2" * 60 + world.content[:4])
    session.close()
    for name in world.names:
        first, second = session.received(name, Step.OFFER)
        assert not set(first.fields["keys"]) & set(second.fields["keys"])
        masked, again = (message.arrays["values"] for message in session.received(name, Step.MASKED))
        assert not (masked == again).any()
