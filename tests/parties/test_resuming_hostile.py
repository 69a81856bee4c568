"""Carriers that resume, over a way whose owner drops, repeats, reorders, cuts, changes and replays frames.

Whatever it does: what arrives is what was sent, once, in its topic's order; nothing else is ever accepted.
"""

from __future__ import annotations

import contextlib
import random
import threading
from collections import Counter, deque
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from isthmus.parties.errors import PeerFailure
from isthmus.parties.network import minder as minder_module
from isthmus.parties.network import resuming as module
from isthmus.parties.network import sealed as sealed_module
from isthmus.parties.network import window as window_module
from isthmus.parties.network.channel import CarrierTimeoutError, Channel, CountingLog
from isthmus.parties.network.frame import FIRST, LAST, Header, Kind, parse
from isthmus.parties.network.message import MalformedMessageError, Step, Topic
from isthmus.parties.network.resuming import ResumingCarrier

from .ways import Beside, Way, acquaint, handshake, hear, noise, nothing, resuming_pair, say, until, untouched, ways

Ends = tuple[Way, Way, ResumingCarrier, ResumingCarrier]
REASONS = {"early", "handshake", "version", "malformed", "stray", "repeated", "ahead", "seal", "control"}


@pytest.fixture(autouse=True)
def short_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything that a carrier waits for comes soon."""
    for name, value in {"ACK_S": 0.005, "ASK_S": 0.005}.items():
        monkeypatch.setattr(minder_module, name, value)
    for name, value in {"IDLE_S": 0.03, "GOODBYE_S": 1.0}.items():
        monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(window_module, "AGAIN_S", 0.01)
    monkeypatch.setattr(ResumingCarrier, "retry_s", 0.03)


@pytest.fixture
def ends() -> Iterator[Ends]:
    """The ends of a way, the insurer and the lab."""
    left, right = ways()
    insurer, lab = resuming_pair(left, right)
    yield left, right, insurer, lab
    for carrier in (insurer, lab):
        carrier.close()


@pytest.fixture
def met(ends: Ends) -> Ends:
    """The same, acquainted, and with nothing left to acknowledge."""
    _, _, insurer, lab = ends
    acquaint(insurer, lab)
    until(lambda: insurer._all_has_arrived() and lab._all_has_arrived())
    return ends


class Meddler:
    """Does to the frames of one direction what a script says; what the script no longer covers passes."""

    def __init__(self, script: Sequence[str], seed: int = 0) -> None:
        self._script = deque(script)
        self._random = random.Random(seed)
        self._late: deque[tuple[int, bytes]] = deque()
        self._count = 0
        self._lock = threading.Lock()

    def __call__(self, header: Header, frame: bytes) -> list[bytes]:
        with self._lock:
            self._count += 1
            passed = self._meddled(self._script.popleft() if self._script else "pass", frame)
            while self._late and self._late[0][0] <= self._count:
                passed.append(self._late.popleft()[1])
            return passed

    def _meddled(self, what: str, frame: bytes) -> list[bytes]:
        if what == "drop":
            return []
        if what == "repeat":
            return [frame, frame]
        if what == "delay":
            self._late.append((self._count + self._random.randint(1, 5), frame))
            return []
        if what == "cut":
            return [frame[: self._random.randrange(len(frame))]]
        if what == "flip":
            altered = bytearray(frame)
            altered[self._random.randrange(len(frame))] ^= 1 << self._random.randrange(8)
            return [bytes(altered)]
        return [frame]


TOPICS = (Topic.TRAIN, Topic.SETUP)


def _converse(ends: Ends, count: int) -> None:
    """Send messages both ways, on two topics, while somebody meddles; all arrive, once and in order."""
    _, _, insurer, lab = ends
    sent = {
        carrier: {topic: [topic.value.encode() + noise(1 + 7 * number) for number in range(count)] for topic in TOPICS}
        for carrier in (insurer, lab)
    }

    def send_all(carrier: ResumingCarrier) -> None:
        for number in range(count):
            for topic in TOPICS:
                say(carrier, sent[carrier][topic][number], topic, 20.0)

    def hear_all(carrier: ResumingCarrier) -> dict[Topic, list[bytes]]:
        came: dict[Topic, list[bytes]] = {topic: [] for topic in TOPICS}
        for _ in range(count * len(TOPICS)):
            message = hear(carrier, 20.0)
            came[next(topic for topic in TOPICS if message.startswith(topic.value.encode()))].append(message)
        return came

    sending = [Beside(send_all, carrier) for carrier in (insurer, lab)]
    hearing = {carrier: Beside(hear_all, carrier) for carrier in (lab, insurer)}
    assert hearing[lab].result() == sent[insurer]
    assert hearing[insurer].result() == sent[lab]
    for each in sending:
        each.result()
    for each in [Beside(carrier.close, linger_s=20.0) for carrier in (insurer, lab)]:
        each.result()
    assert set(insurer.refused) | set(lab.refused) <= REASONS


# --- meddling --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["drop", "repeat", "delay", "cut", "flip"])
@pytest.mark.parametrize(
    "places",
    [[0], [1], [2, 3], [5], range(0, 40, 2), range(1, 40, 2), range(30)],
    ids=["first", "second", "third and fourth", "sixth", "even", "odd", "thirty"],
)
def test_whatever_befalls_some_frames_all_messages_arrive(ends: Ends, what: str, places: Sequence[int]) -> None:
    left, right, _, _ = ends
    script = [what if number in places else "pass" for number in range(40)]
    left.meddle, right.meddle = Meddler(script, 1), Meddler(script, 2)
    _converse(ends, 6)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.sampled_from(["pass", "drop", "repeat", "delay", "cut", "flip"]), max_size=25),
    st.lists(st.sampled_from(["pass", "drop", "repeat", "delay", "cut", "flip"]), max_size=25),
    st.integers(0, 2**32),
)
def test_whatever_the_script_all_messages_arrive(onward: list[str], back: list[str], seed: int) -> None:
    left, right = ways()
    insurer, lab = resuming_pair(left, right)
    left.meddle, right.meddle = Meddler(onward, seed), Meddler(back, seed + 1)
    try:
        _converse((left, right, insurer, lab), 4)
    finally:
        insurer.close()
        lab.close()


def test_messages_of_many_pieces_arrive_through_a_bad_way(met: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    left, right, insurer, lab = met
    monkeypatch.setattr(sealed_module, "MAX_PIECE_NBYTES", 100)
    chance = random.Random(7)
    choices = ["pass"] * 14 + ["drop", "repeat", "delay", "cut", "flip", "flip"]
    left.meddle = Meddler(chance.choices(choices, k=300), 3)
    right.meddle = Meddler(chance.choices(choices, k=300), 4)
    sent = [noise(1234) for _ in range(10)]
    saying = Beside(lambda: [say(insurer, message) for message in sent])
    assert [hear(lab, 20.0) for _ in sent] == sent
    saying.result()
    assert lab.refused["seal"] + lab.refused["malformed"] + lab.refused["stray"] > 0


@pytest.mark.parametrize("mask", [0x01, 0x80])
def test_a_frame_with_any_byte_changed_is_refused_and_changes_nothing(met: Ends, mask: int) -> None:
    left, right, insurer, lab = met
    left.up = False
    say(insurer, b"!")
    left.up = True
    frame = next(frame for frame in reversed(left.sent) if frame[1] == Kind.DATA)
    expected: Counter[str] = Counter()
    before = Counter(lab.refused)
    for offset in range(len(frame)):
        altered = bytearray(frame)
        altered[offset] ^= mask
        with lab._taking:
            assert lab._take(bytes(altered)) is None
        expected[_reason(offset, bytes(altered))] += 1
    assert lab.refused - before == expected
    right.deliver(frame)
    assert hear(lab) == b"!"


def _reason(offset: int, altered: bytes) -> str:
    """What is wrong with a DATA frame, changed at one byte, as the header's layout says."""
    try:
        header = parse(altered)
    except MalformedMessageError:
        return "malformed"
    if (header.source, header.destination) != ("insurer", "lab"):
        return "malformed"
    if offset == 1:
        return {Kind.AUTH: "handshake", Kind.HELLO: "handshake", Kind.BYE: "seal"}.get(header.kind, "stray")
    if 72 <= offset < 88:
        return "stray"
    if 88 <= offset < 96:
        return "repeated" if header.sequence < 1 else "ahead"
    return "seal"


# --- replays ---------------------------------------------------------------------------------------------------------


def test_all_frames_of_the_session_once_more_bring_nothing(met: Ends) -> None:
    left, right, insurer, lab = met
    for text in (b"one", b"two"):
        say(insurer, text)
        say(lab, text)
        assert hear(lab) == text
        assert hear(insurer) == text
    until(lambda: insurer._all_has_arrived() and lab._all_has_arrived())
    recorded = list(left.sent), list(right.sent)
    for way, frames in zip((right, left), recorded, strict=True):
        for frame in frames:
            way.deliver(frame)
    for carrier in (insurer, lab):
        with pytest.raises(CarrierTimeoutError):
            hear(carrier, 0.05)
        assert carrier.refused["repeated"] == 3
        assert carrier.refused["control"] > 0
    say(insurer, b"three")
    assert hear(lab) == b"three"


def test_frames_sent_back_to_where_they_came_from_bring_nothing(met: Ends) -> None:
    left, _, insurer, lab = met
    for frame in list(left.sent):
        left.deliver(frame)
    with pytest.raises(CarrierTimeoutError):
        hear(insurer, 0.05)
    assert insurer.refused["malformed"] >= 3
    say(lab, b"mine")
    assert hear(insurer) == b"mine"


@pytest.mark.parametrize("when", ["before", "within", "after"])
def test_an_earlier_session_played_to_a_new_one_brings_nothing(when: str) -> None:
    left, right = ways()
    old = resuming_pair(left, right)
    acquaint(*old)
    say(old[0], b"an old secret")
    assert hear(old[1]) == b"an old secret"
    for each in [Beside(carrier.close, linger_s=2.0) for carrier in old]:
        each.result()
    onward, back = list(left.sent), list(right.sent)

    left, right = ways()
    insurer = ResumingCarrier(left, handshake("insurer", "lab", attempt=2), me="insurer", peer="lab")
    lab = ResumingCarrier(right, handshake("lab", "insurer", attempt=2), me="lab", peer="insurer")

    def play() -> None:
        for frame in onward:
            right.deliver(frame)
        for frame in back:
            left.deliver(frame)

    if when == "before":
        play()
        for carrier in (insurer, lab):
            with pytest.raises(CarrierTimeoutError):
                hear(carrier, 0.02)
    if when == "within":
        played: list[int] = []

        def meddle(header: Header, frame: bytes) -> list[bytes]:
            if header.kind is Kind.AUTH and not played:
                played.append(1)
                for each in onward:
                    right.deliver(each)
            return [frame]

        left.meddle = meddle
    hearing = Beside(hear, lab)
    say(insurer, b"a new secret", timeout_s=10.0)
    assert hearing.result() == b"a new secret"
    if when == "after":
        play()
    for carrier in (lab, insurer):
        with pytest.raises(CarrierTimeoutError):
            hear(carrier, 0.05)
        assert set(carrier.refused) <= {"handshake", "early", "stray", "control", "seal"}
    say(lab, b"still the new one")
    assert hear(insurer) == b"still the new one"
    assert insurer._session is not None
    assert insurer._session.peer_attempt == 2
    for carrier in (insurer, lab):
        carrier.close()


def test_a_goodbye_of_another_session_ends_nothing(met: Ends) -> None:
    _, right, insurer, lab = met
    left_other, right_other = ways()
    other = resuming_pair(left_other, right_other)
    acquaint(*other)
    for carrier in other:
        carrier.close()
    goodbye = next(frame for frame in left_other.sent if frame[1] == Kind.BYE)
    right.deliver(goodbye)
    say(insurer, b"not gone")
    assert hear(lab) == b"not gone"
    assert lab.refused["seal"] == 1


# --- frames of others, and a peer that does not keep to the rules ----------------------------------------------------


def test_frames_of_no_use_are_counted_by_what_is_wrong_with_them(met: Ends) -> None:
    _, right, insurer, lab = met
    channel = insurer._sealers[Topic.TRAIN].channel
    for frame in (
        b"",
        bytes(50),
        Header(Kind.DATA, "lab", "hub", channel, 1).pack() + bytes(20),
        Header(Kind.DATA, "hub", "insurer", channel, 1).pack() + bytes(20),
        Header(Kind.DATA, "lab", "insurer", bytes(16), 1).pack() + bytes(20),
        Header(Kind.DATA, "lab", "insurer", channel, 0).pack() + bytes(20),
        Header(Kind.DATA, "lab", "insurer", channel, 2).pack() + bytes(20),
        Header(Kind.DATA, "lab", "insurer", channel, 2**64 - 1).pack() + bytes(20),
        Header(Kind.DATA, "lab", "insurer", channel, 1, FIRST | LAST, 4).pack() + bytes(20),
        Header(Kind.DATA, "lab", "insurer", channel, 1, LAST, 9).pack() + bytes(20),
        Header(Kind.DATA, "lab", "insurer", channel, 1).pack(),
        Header(Kind.BYE, "lab", "insurer", channel, 0).pack() + bytes(112),
        Header(Kind.AUTH, "lab", "insurer").pack() + bytes(144),
        Header(Kind.HELLO, "lab", "insurer").pack() + bytes(73),
    ):
        right.deliver(frame)
    say(insurer, b"through it all")
    assert hear(lab) == b"through it all"
    assert lab.refused == {"malformed": 4, "stray": 1, "repeated": 1, "ahead": 2, "seal": 4, "handshake": 1}


@pytest.mark.parametrize("flags", [0, FIRST, LAST])
def test_a_peer_whose_own_pieces_make_no_message_breaks_the_protocol(met: Ends, flags: int) -> None:
    _, _, insurer, lab = met
    channel = Channel(lab, me="lab", peer="insurer", log=CountingLog(), timeout_s=5)
    insurer._send_piece(Topic.TRAIN, b"abc", flags, 3, 1.0, nothing)
    with pytest.raises(PeerFailure) as caught:
        channel.receive(Topic.TRAIN, Step.FORWARD)
    assert caught.value.code == "peer.protocol"
    channel.close()


def test_a_way_that_swallows_everything_ends_at_the_deadline(met: Ends) -> None:
    left, _, insurer, lab = met
    left.meddle = lambda header, frame: []
    channel = Channel(lab, me="lab", peer="insurer", log=CountingLog(), timeout_s=0.1)
    say(insurer, b"swallowed")
    with pytest.raises(PeerFailure) as caught:
        channel.receive(Topic.TRAIN, Step.FORWARD)
    assert caught.value.code == "peer.deadline"
    left.meddle = untouched
    channel.close()


# --- the scheduler as an adversary -----------------------------------------------------------------------------------


def test_the_same_control_frame_from_two_lanes_at_once_is_taken_once(met: Ends) -> None:
    left, right, insurer, lab = met
    kept: list[bytes] = []
    right.meddle = lambda header, frame: kept.append(frame) or [] if header.kind is Kind.CONTROL else [frame]  # type: ignore[func-returns-value]
    for number in range(20):
        say(insurer, b"x")
        hear(lab)
        until(lambda number=number: len(kept) > number)  # type: ignore[misc]
    before = insurer.refused["control"]
    start = threading.Barrier(4)

    def deliver() -> None:
        for frame in kept:
            start.wait(10)
            left.on_control(frame)

    for each in [Beside(deliver) for _ in range(4)]:
        each.result()
    assert insurer.refused["control"] - before == 3 * len(kept)
    assert insurer._all_has_arrived()


@pytest.mark.parametrize("seed", range(6))
def test_outages_at_any_time_lose_nothing(ends: Ends, seed: int) -> None:
    left, right, insurer, lab = ends
    chance = random.Random(seed)
    over = threading.Event()

    def break_and_mend() -> None:
        while not over.wait(chance.uniform(0.0, 0.02)):
            broken = chance.sample([left, right], chance.randint(1, 2))
            for way in broken:
                way.up = False
            over.wait(chance.uniform(0.0, 0.01))
            for way in broken:
                way.up = True
            for way in broken:
                way.on_reconnect()

    breaking = Beside(break_and_mend)
    try:
        sent = [noise(50 * number) for number in range(80)]
        sending = [
            Beside(lambda carrier=carrier: [say(carrier, message, timeout_s=20.0) for message in sent])
            for carrier in (insurer, lab)
        ]
        hearing = [Beside(lambda carrier=carrier: [hear(carrier, 20.0) for _ in sent]) for carrier in (insurer, lab)]
        for each in hearing:
            assert each.result() == sent
        for each in sending:
            each.result()
    finally:
        over.set()
        breaking.result()
    for each in [Beside(carrier.close, linger_s=20.0) for carrier in (insurer, lab)]:
        each.result()


@pytest.mark.parametrize("seed", range(12))
def test_closing_at_any_time_beside_channels_that_talk_leaves_nothing_running(ends: Ends, seed: int) -> None:
    _, _, insurer, lab = ends
    chance = random.Random(seed)
    channels = [Channel(each, me=each.me, peer=each.peer, log=CountingLog(), timeout_s=20) for each in (insurer, lab)]

    def talk(channel: Channel) -> None:
        while True:
            channel.send(Topic.TRAIN, Step.FORWARD)
            channel.receive(Topic.TRAIN, Step.FORWARD)

    talking = [Beside(talk, channel) for channel in channels]
    threading.Event().wait(chance.uniform(0.0, 0.03))
    closing = [Beside(channel.close, linger_s=chance.choice([0.0, 0.05])) for channel in channels]
    for each in closing + talking:
        with contextlib.suppress(PeerFailure):
            each.result()
    until(lambda: not any(thread.name.startswith("resuming-") for thread in threading.enumerate()))
