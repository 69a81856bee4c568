"""Peers that break the protocol, close or fall silent: a clear error, soon, and never an abort or a hang."""

from __future__ import annotations

import time
from concurrent.futures import Executor

import numpy as np
import pytest

from isthmus.parties.network.message import Step, Topic
from isthmus.psi import align_as_initiator, align_as_responder
from isthmus.psi import cipher as cipher_module
from isthmus.psi.cipher import MAX_ELEMENTS, Cipher
from isthmus.psi.linkage import Linkage

JOB = "5" * 64
COUNT = 20
KEYS = [str(number) for number in range(COUNT)]


class Peer:
    """The other side by hand: it keeps to the protocol where it is not told otherwise."""

    def __init__(self, channel, executor):
        self.channel = channel
        self.cipher = Cipher(executor)
        self.points = np.concatenate(list(self.cipher.encipher([f"their {key}" for key in KEYS])))

    def say(self, step, fields=None, **arrays):
        self.channel.send(Topic.ALIGN, step, fields, arrays)

    def hear(self, step):
        return self.channel.receive(Topic.ALIGN, step)

    def hear_points(self):
        return np.concatenate(list(self.channel.receive_chunks(Topic.ALIGN, Step.POINTS)))

    def sizes(self, size=COUNT):
        self.say(Step.POINTS, {"pass": 1, "size": size, "any": True})
        self.hear(Step.POINTS)

    def give(self, step, *chunks):
        self.channel.send_chunks(Topic.ALIGN, step, chunks)

    def double(self, points):
        return np.concatenate(list(self.cipher.encipher_again([points], len(points))))[:, 1:17]


@pytest.fixture
def meet(link, together, executor, identifiers):
    """An honest side meets a peer by hand; gives the honest side's error and the seconds it took."""

    def run(align, script, timeout_s=20.0):
        between = link(timeout_s=timeout_s)
        seconds = []

        def honest():
            start = time.monotonic()
            try:
                return align(between.left, identifiers(id=KEYS), [["id"]], floor=1, job_digest=JOB, executor=executor)
            finally:
                seconds.append(time.monotonic() - start)
                between.left.close()

        outcome, _ = together(honest, lambda: script(Peer(between.right, executor)))
        return outcome, seconds[0]

    return run


def with_row(points, row):
    spoiled = points.copy()
    spoiled[3] = row
    return spoiled


def off_curve(points):
    spoiled = points.copy()
    spoiled[3] = np.frombuffer(bytes([2]) + (5).to_bytes(32, "big"), dtype=np.uint8)  # 5 has no y on P-256
    b = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B
    prime = 2**256 - 2**224 + 2**192 + 2**96 - 1
    x = next(x for x in range(1, 99) if pow(x**3 - 3 * x + b, prime // 2, prime) == prime - 1)
    spoiled[3, 1:] = np.frombuffer(x.to_bytes(32, "big"), dtype=np.uint8)
    return spoiled


SPOILED = {
    "length": lambda points: points[:, :32],
    "dtype": lambda points: points.astype("<u4"),
    "prefix": lambda points: with_row(points, [4, *points[3, 1:]]),
    "x not below p": lambda points: with_row(points, [2] + [255] * 32),
    "off the curve": off_curve,
    "repeat": lambda points: with_row(points, points[7]),
    "negated repeat": lambda points: with_row(points, [points[7, 0] ^ 1, *points[7, 1:]]),
    "fewer": lambda points: points[:-1],
    "more": lambda points: np.concatenate([points, points]),
}


@pytest.mark.parametrize("align", [align_as_initiator, align_as_responder])
@pytest.mark.parametrize("name", SPOILED)
def test_points_that_break_a_guard_end_the_alignment_at_once(meet, align, name):
    def script(peer):
        peer.sizes()
        peer.give(Step.POINTS, SPOILED[name](peer.points))

    outcome, seconds = meet(align, script)
    assert outcome.code == "peer.protocol"
    assert seconds < 5


@pytest.mark.parametrize("align", [align_as_initiator, align_as_responder])
@pytest.mark.parametrize(
    "fields",
    [
        {"pass": 1, "size": MAX_ELEMENTS + 1, "any": True},
        {"pass": 1, "size": -1, "any": True},
        {"pass": 1, "size": True, "any": True},
        {"pass": 2, "size": 5, "any": True},
        {"pass": 1, "size": 5},
        {},
    ],
)
def test_sizes_that_cannot_be_are_refused_before_any_point_is_sent(meet, align, fields):
    outcome, seconds = meet(align, lambda peer: peer.say(Step.POINTS, fields))
    assert outcome.code == "peer.protocol"
    assert seconds < 5


DOUBLED = {
    "a repeated value": lambda values: np.concatenate([values[:-1], values[:1]]),
    "short values": lambda values: values[:, :15],
    "too few values": lambda values: values[:-1],
    "too many values": lambda values: np.concatenate([values, values + 1]),
}


@pytest.mark.parametrize("name", DOUBLED)
def test_the_initiator_refuses_a_list_that_is_not_its_own(meet, name):
    def script(peer):
        peer.sizes()
        peer.give(Step.POINTS, peer.points)
        values = peer.double(peer.hear_points())
        peer.say(Step.DOUBLED, {"size": COUNT})
        peer.give(Step.DOUBLED, DOUBLED[name](values))

    assert meet(align_as_initiator, script)[0].code == "peer.protocol"


SEEDS = {
    "short": ({"enough": True}, {"seed": np.zeros(31, np.uint8)}),
    "missing": ({"enough": True}, {}),
    "with a no": ({"enough": False}, {"seed": np.zeros(32, np.uint8)}),
}


@pytest.mark.parametrize("name", SEEDS)
def test_the_initiator_refuses_a_seed_that_cannot_be(meet, identifiers, name):
    def script(peer):
        linkage = Linkage(identifiers(id=KEYS), [["id"]])
        peer.sizes()
        peer.give(Step.POINTS, *peer.cipher.encipher(linkage.keys(1, np.arange(COUNT)).keys))
        peer.say(Step.DOUBLED, {"size": COUNT})
        peer.give(Step.DOUBLED, peer.double(peer.hear_points()))
        assert peer.hear(Step.SIZE).fields == {"enough": True, "size": COUNT}
        fields, arrays = SEEDS[name]
        peer.say(Step.SEED, fields, **arrays)

    outcome, _ = meet(align_as_initiator, script)
    assert outcome.code == "peer.protocol"


MATCHES = {
    "a bitmap of another length": {"bitmap": np.zeros(9, np.uint8), "places": np.array([0, 1], "<u4")},
    "a bitmap with other matches": {"bitmap": np.array([128, 0, 0], np.uint8), "places": np.array([0, 1], "<u4")},
    "a bit beyond the set": {"bitmap": np.array([128, 0, 1], np.uint8), "places": np.array([0, 1], "<u4")},
    "a place beyond the list": {"bitmap": np.array([192, 0, 0], np.uint8), "places": np.array([0, COUNT], "<u4")},
    "a repeated place": {"bitmap": np.array([192, 0, 0], np.uint8), "places": np.array([1, 1], "<u4")},
    "signed places": {"bitmap": np.array([192, 0, 0], np.uint8), "places": np.array([0, 1], "<i4")},
    "places missing": {"bitmap": np.array([192, 0, 0], np.uint8)},
}


@pytest.mark.parametrize("name", MATCHES)
def test_the_responder_refuses_matches_that_cannot_be(meet, name):
    def script(peer):
        peer.sizes()
        peer.give(Step.POINTS, peer.points)
        peer.hear_points()
        while peer.hear(Step.DOUBLED).fields.get("end") is None:
            pass
        peer.say(Step.SIZE, {"enough": True, "size": 2})
        peer.hear(Step.SEED)
        peer.say(Step.MATCHES, None, **MATCHES[name])

    assert meet(align_as_responder, script)[0].code == "peer.protocol"


@pytest.mark.parametrize(
    "fields", [{"enough": True, "size": COUNT + 1}, {"enough": True, "size": -1}, {"enough": False, "size": 3}, {}]
)
def test_the_responder_refuses_a_size_that_cannot_be(meet, fields):
    def script(peer):
        peer.sizes()
        peer.give(Step.POINTS, peer.points)
        peer.hear_points()
        while peer.hear(Step.DOUBLED).fields.get("end") is None:
            pass
        peer.say(Step.SIZE, fields)

    assert meet(align_as_responder, script)[0].code == "peer.protocol"


@pytest.mark.parametrize("align", [align_as_initiator, align_as_responder])
@pytest.mark.parametrize("words", [0, 1, 2, 3])
def test_a_peer_that_closes_midway_is_gone(meet, align, words):
    def script(peer):
        if words > 0:
            peer.sizes()
        if words > 1:
            peer.say(Step.POINTS, {"chunk": 0}, items=peer.points)
        if words > 2:
            peer.say(Step.POINTS, {"end": 1})
        peer.channel.close()

    outcome, seconds = meet(align, script)
    assert outcome.code == "peer.gone"
    assert seconds < 5


@pytest.mark.parametrize("align", [align_as_initiator, align_as_responder])
def test_a_silent_peer_ends_at_the_deadline(meet, align):
    outcome, seconds = meet(align, lambda peer: peer.sizes(), timeout_s=0.5)
    assert outcome.code == "peer.deadline"
    assert seconds < 3


def test_a_peer_that_works_for_longer_than_the_deadline_says_so_and_is_waited_for(meet):
    def script(peer):
        peer.sizes()
        peer.give(Step.POINTS, peer.points)
        points = peer.hear_points()
        for _ in range(6):
            peer.say(Step.DOUBLED, {"working": True})
            time.sleep(0.15)
        peer.say(Step.DOUBLED, {"size": COUNT})
        peer.give(Step.DOUBLED, peer.double(points))
        peer.hear(Step.SIZE)

    assert meet(align_as_initiator, script, timeout_s=0.5)[0].code == "align.none"


class SlowExecutor(Executor):
    """Runs what it is given at once, and late."""

    def __init__(self, inner):
        self._inner = inner

    def submit(self, work, *arguments, **named):
        def late():
            time.sleep(0.05)
            return work(*arguments, **named)

        return self._inner.submit(late)


def test_a_slow_party_keeps_its_peer_waiting_past_the_deadline(link, together, executor, identifiers, monkeypatch):
    monkeypatch.setattr(cipher_module, "CHUNK", COUNT)
    between = link(timeout_s=0.75)
    ours = identifiers(id=[str(number) for number in range(30 * COUNT)])  # 60 tasks of 50 ms for two threads
    sides = [(align_as_initiator, between.left, ours), (align_as_responder, between.right, identifiers(id=KEYS))]
    lab, insurer = together(
        *(
            lambda side=side: side[0](
                side[1], side[2], [["id"]], floor=1, job_digest=JOB, executor=SlowExecutor(executor)
            )
            for side in sides
        )
    )
    assert lab.digest == insurer.digest
    assert {"working": True} in [message.fields for message in between.right_sent]


@pytest.mark.parametrize("broken", ["encipher", "encipher_again"])
def test_a_fault_of_our_own_ends_both_sides(link, together, executor, identifiers, monkeypatch, broken):
    between = link()
    real = getattr(Cipher, f"_{broken}_chunk")
    faults = [MemoryError()]

    def fails_once(self, items):
        try:
            fault = faults.pop()
        except IndexError:
            return real(self, items)
        raise fault

    monkeypatch.setattr(Cipher, f"_{broken}_chunk", fails_once)
    start = time.monotonic()
    outcomes = together(
        *(
            lambda align=align, channel=channel: align(
                channel, identifiers(id=KEYS), [["id"]], floor=1, job_digest=JOB, executor=executor
            )
            for align, channel in [(align_as_initiator, between.left), (align_as_responder, between.right)]
        )
    )
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["MemoryError", "PeerFailure"]
    assert time.monotonic() - start < 5


def test_a_party_without_a_single_key_says_so_and_its_peer_does_not_hang(link, together, executor, identifiers):
    between = link()
    lab, insurer = together(
        lambda: align_as_initiator(
            between.left, identifiers(id=[None, "-"]), [["id"]], floor=1, job_digest=JOB, executor=executor
        ),
        lambda: align_as_responder(
            between.right, identifiers(id=KEYS), [["id"]], floor=1, job_digest=JOB, executor=executor
        ),
    )
    assert lab.code == "align.no_keys"
    assert lab.facts == {"party": "lab"}
    assert insurer.code == "peer.gone"
