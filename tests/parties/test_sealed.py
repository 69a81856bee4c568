"""Sealed carriers over a way that keeps frames and their order: messages, the meeting, and breaches."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.parties.errors import PeerFailure
from isthmus.parties.network import sealed as module
from isthmus.parties.network.channel import CarrierClosedError, CarrierTimeoutError, Channel, CountingLog
from isthmus.parties.network.frame import FIRST, HEADER_NBYTES, LAST, MAX_PIECE_NBYTES, Header, Kind, parse
from isthmus.parties.network.local import SocketCarrier, socket_pair
from isthmus.parties.network.message import MAX_NBYTES, Buffer, MalformedMessageError, Step, Topic
from isthmus.parties.network.sealed import SealedCarrier, pieces
from isthmus.parties.network.session import Binding

from .ways import Beside, Way, acquaint, handshake, hear, noise, nothing, say, sealed_pair, ways

Pair = tuple[SealedCarrier, SealedCarrier]
FULL = MAX_PIECE_NBYTES


@pytest.fixture
def pair() -> Iterator[Pair]:
    """The insurer and the lab, over sockets."""
    ends = [SocketCarrier(end) for end in socket_pair()]
    both = sealed_pair(*ends)
    yield both
    for carrier in both:
        carrier.close()


@pytest.fixture
def meddled() -> tuple[Way, SealedCarrier, SealedCarrier]:
    """The way from the insurer to the lab, and both; they have met."""
    left, right = ways()
    insurer, lab = sealed_pair(left, right)
    acquaint(insurer, lab)
    return left, insurer, lab


def _kept_back(way: Way, carrier: SealedCarrier, *messages: bytes, topic: Topic = Topic.TRAIN) -> list[bytes]:
    """The frames of messages, which do not arrive."""
    way.up, before = False, len(way.sent)
    for message in messages:
        say(carrier, message, topic)
    way.up = True
    return way.sent[before:]


def _refused(way: Way, carrier: SealedCarrier, frame: bytes) -> None:
    way.other.deliver(frame)
    with pytest.raises(MalformedMessageError):
        carrier.receive(0.01)


# --- messages --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("nbytes", [0, 1, FULL - 1, FULL, FULL + 1, 2 * FULL, 2 * FULL + 1, 3 * FULL + 17])
def test_a_message_of_any_size_arrives_as_it_was_sent(pair: Pair, nbytes: int) -> None:
    insurer, lab = pair
    message = noise(nbytes)
    saying = Beside(say, insurer, message)
    assert hear(lab) == message
    saying.result()


def test_buffers_of_every_kind_arrive_in_a_row(pair: Pair) -> None:
    insurer, lab = pair
    large = noise(FULL + 5)
    buffers: list[Buffer] = [b"", b"one", bytearray(b"two"), memoryview(b"three")[1:4], b"", memoryview(large), b"end"]
    saying = Beside(insurer.send, Topic.TRAIN, buffers, 5.0, nothing)
    assert hear(lab) == b"onetwohre" + large + b"end"
    saying.result()


def test_what_lies_whole_in_one_buffer_is_cut_without_a_copy() -> None:
    large = bytearray(2 * FULL + 1)
    cut = list(pieces([large]))
    assert [(len(piece), flags) for piece, flags in cut] == [(FULL, FIRST), (FULL, 0), (1, LAST)]
    assert all(isinstance(piece, memoryview) and piece.obj is large for piece, _ in cut)


@given(st.lists(st.binary(max_size=40), max_size=6), st.integers(1, 20))
def test_all_pieces_but_the_last_are_full_and_together_they_are_the_message(buffers: list[bytes], limit: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "MAX_PIECE_NBYTES", limit)
        cut = list(pieces(buffers))
    assert b"".join(bytes(piece) for piece, _ in cut) == b"".join(buffers)
    assert all(len(piece) == limit for piece, _ in cut[:-1])
    assert len(cut[-1][0]) > 0 or len(cut) == 1
    assert [flags for _, flags in cut] == [
        (FIRST if number == 0 else 0) | (LAST if number == len(cut) - 1 else 0) for number in range(len(cut))
    ]


def test_topics_that_several_threads_send_keep_their_order_each(pair: Pair) -> None:
    insurer, lab = pair
    sent = {topic: [topic.value.encode() + noise(number * 30_000) for number in range(12)] for topic in Topic}

    def send_all(topic: Topic) -> None:
        for message in sent[topic]:
            say(insurer, message, topic)

    saying = [Beside(send_all, topic) for topic in Topic]
    came: dict[Topic, list[bytes]] = {topic: [] for topic in Topic}
    for _ in range(12 * len(Topic)):
        message = hear(lab)
        came[next(topic for topic in Topic if message.startswith(topic.value.encode()))].append(message)
    assert came == sent
    for each in saying:
        each.result()


def test_who_carries_the_frames_sees_neither_content_nor_topic(meddled: Any) -> None:
    way, insurer, lab = meddled
    for topic in Topic:
        say(insurer, b"diagnosis" * 10, topic)
        assert hear(lab) == b"diagnosis" * 10
    frames = way.sent + way.other.sent
    assert not any(b"diagnosis" in frame or b"train" in frame for frame in frames)
    data = [parse(frame) for frame in frames if frame[1] == Kind.DATA]
    assert len({(header.source, header.channel) for header in data}) == len({header.channel for header in data}) == 7


# --- the meeting -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", [0, 1])
def test_the_session_is_made_when_either_sends_first(pair: Pair, first: int) -> None:
    hearing = Beside(hear, pair[1 - first])
    say(pair[first], b"good day")
    assert hearing.result() == b"good day"


def test_the_session_is_made_when_both_send_first(pair: Pair) -> None:
    for each in [Beside(say, carrier, b"after you") for carrier in pair]:
        each.result()
    assert [hear(carrier) for carrier in pair] == [b"after you"] * 2


def test_the_session_is_made_when_both_receive_first(pair: Pair) -> None:
    hearing = [Beside(hear, carrier) for carrier in pair]
    for carrier in pair:
        say(carrier, b"after you")
    assert [each.result() for each in hearing] == [b"after you"] * 2


def test_the_session_is_made_once_when_many_threads_want_it(pair: Pair) -> None:
    saying = [Beside(say, carrier, topic.value.encode(), topic) for topic in Topic for carrier in pair]
    for carrier in pair:
        assert {hear(carrier) for _ in Topic} == {topic.value.encode() for topic in Topic}
    for each in saying:
        each.result()


def test_who_has_waited_in_vain_for_a_peer_meets_it_later(pair: Pair) -> None:
    insurer, lab = pair
    for call in (insurer.receive, lab.receive, insurer.receive, lab.receive):
        with pytest.raises(CarrierTimeoutError):
            call(0.01)
    acquaint(insurer, lab)
    acquaint(lab, insurer)


def test_nobody_answers_within_the_deadline(pair: Pair) -> None:
    insurer, _ = pair
    calls = [Beside(say, insurer, b"good day", topic, 0.05) for topic in Topic] + [Beside(hear, insurer, 0.05)]
    for each in calls:
        with pytest.raises(CarrierTimeoutError) as caught:
            each.result()
        assert caught.value.code == "peer.deadline"


class Flood(Way):
    """A way on which frames never end, and none is of use."""

    def __init__(self, frame: bytes) -> None:
        super().__init__()
        self._frame = frame

    def send(self, *args: Any) -> None:
        pass

    def receive(self, timeout_s: float) -> bytes:
        return self._frame


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        bytes(200),
        Header(Kind.HELLO, "insurer", "lab").pack() + bytes(80),
        Header(Kind.AUTH, "insurer", "lab").pack() + bytes(80),
        Header(Kind.DATA, "insurer", "lab").pack() + bytes(80),
        Header(Kind.HELLO, "insurer", "hub").pack() + bytes(80),
    ],
)
def test_a_flood_of_frames_does_not_keep_a_meeting_beyond_its_deadline(frame: bytes) -> None:
    insurer = SealedCarrier(Flood(frame), handshake("insurer", "lab"), me="insurer", peer="lab")
    with pytest.raises(CarrierTimeoutError):
        insurer.receive(0.05)
    assert insurer.refused.total() > 1


@pytest.mark.parametrize("impostor", ["insurer", "lab"])
def test_somebody_who_does_not_hold_the_pinned_key_is_found_out(impostor: str) -> None:
    left, right = ways()
    carriers = {
        name: SealedCarrier(way, handshake(name, peer, signer="hub" if name == impostor else None), me=name, peer=peer)
        for way, name, peer in ((left, "insurer", "lab"), (right, "lab", "insurer"))
    }
    (honest,) = set(carriers) - {impostor}
    talking = Beside(hear, carriers[impostor], 0.5)
    with pytest.raises(CarrierClosedError) as caught:
        hear(carriers[honest])
    assert caught.value.code == "peer.identity"
    with pytest.raises(CarrierTimeoutError):
        talking.result()


@pytest.mark.parametrize("sends", [False, True])
def test_a_channel_says_that_somebody_else_answered(sends: bool) -> None:
    left, right = ways()
    insurer = SealedCarrier(left, handshake("insurer", "lab"), me="insurer", peer="lab")
    impostor = SealedCarrier(right, handshake("lab", "insurer", signer="hub"), me="lab", peer="insurer")
    talking = Beside(hear, impostor, 0.3)
    channel = Channel(insurer, me="insurer", peer="lab", log=CountingLog(), timeout_s=5)
    with pytest.raises(PeerFailure) as caught:
        if sends:
            channel.send(Topic.AGREE, Step.JOB)
        else:
            channel.receive(Topic.AGREE, Step.JOB)
    assert caught.value.code == "peer.identity"
    assert "lab" in caught.value.what
    with contextlib.suppress(CarrierTimeoutError):
        talking.result()
    channel.close()


def test_without_a_pinned_key_whatever_key_the_peer_proves_to_hold_is_taken() -> None:
    left, right = ways()
    insurer = SealedCarrier(left, handshake("insurer", "lab", peer_key=None), me="insurer", peer="lab")
    lab = SealedCarrier(right, handshake("lab", "insurer", signer="hub"), me="lab", peer="insurer")
    acquaint(insurer, lab)


@pytest.mark.parametrize("other", [Binding("study", "run-2"), Binding("another study", "run-1")])
def test_members_of_two_runs_or_consortia_never_meet(other: Binding) -> None:
    left, right = ways()
    insurer = SealedCarrier(left, handshake("insurer", "lab"), me="insurer", peer="lab")
    lab = SealedCarrier(right, handshake("lab", "insurer", binding=other), me="lab", peer="insurer")
    for each in [Beside(hear, carrier, 0.1) for carrier in (insurer, lab)]:
        with pytest.raises(CarrierTimeoutError):
            each.result()
    assert lab.refused["handshake"] == 1


def test_a_closed_end_closes_the_other(pair: Pair) -> None:
    insurer, lab = pair
    acquaint(insurer, lab)
    hearing = Beside(hear, lab)
    insurer.close()
    with pytest.raises(CarrierClosedError):
        hearing.result()
    with pytest.raises(CarrierClosedError):
        say(insurer, b"too late")


def test_closing_ends_a_meeting(pair: Pair) -> None:
    insurer, lab = pair
    hearing = Beside(hear, insurer)
    lab.close()
    with pytest.raises(CarrierClosedError):
        hearing.result()


# --- frames that are not as they were sealed -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "meddle",
    [
        lambda frames: frames[1:],
        lambda frames: [frames[0], frames[0], *frames[1:]],
        lambda frames: [frames[1], frames[0], *frames[2:]],
        lambda frames: [frames[0], frames[2]],
    ],
    ids=["lost", "repeated", "swapped", "one lost"],
)
def test_a_frame_out_of_place_breaks_the_protocol(meddled: Any, meddle: Callable[[list[bytes]], list[bytes]]) -> None:
    way, insurer, lab = meddled
    for frame in meddle(_kept_back(way, insurer, b"first", b"second", b"third")):
        way.other.deliver(frame)
    came: list[bytes] = []
    with pytest.raises(MalformedMessageError):
        while True:
            came.append(hear(lab, 0.1))
    assert came == [b"first", b"second", b"third"][: len(came)]
    assert len(came) < 2


def test_a_channel_says_that_the_protocol_was_broken(meddled: Any) -> None:
    way, insurer, lab = meddled
    sender, receiver = (
        Channel(carrier, me=carrier.me, peer=carrier.peer, log=CountingLog(), timeout_s=1) for carrier in (insurer, lab)
    )
    way.meddle = lambda header, frame: [frame[:-1] + bytes([frame[-1] ^ 1])]
    sender.send(Topic.TRAIN, Step.FORWARD)
    with pytest.raises(PeerFailure) as caught:
        receiver.receive(Topic.TRAIN, Step.FORWARD)
    assert caught.value.code == "peer.protocol"
    sender.close()
    receiver.close()


@pytest.mark.parametrize("mask", [0x01, 0x80, 0xFF])
def test_a_frame_with_any_byte_changed_is_refused_and_changes_nothing(meddled: Any, mask: int) -> None:
    way, insurer, lab = meddled
    (frame,) = _kept_back(way, insurer, b"!")
    assert len(frame) == 113
    for offset in range(len(frame)):
        altered = bytearray(frame)
        altered[offset] ^= mask
        _refused(way, lab, bytes(altered))
    way.other.deliver(frame)
    assert hear(lab) == b"!"


def test_a_frame_cut_or_prolonged_anywhere_is_refused(meddled: Any) -> None:
    way, insurer, lab = meddled
    (frame,) = _kept_back(way, insurer, b"!")
    for nbytes in range(len(frame)):
        _refused(way, lab, frame[:nbytes])
    for more in (b"\0", frame):
        _refused(way, lab, frame + more)
    way.other.deliver(frame)
    assert hear(lab) == b"!"


def test_a_frame_of_another_topic_peer_or_place_is_refused(meddled: Any) -> None:
    way, insurer, lab = meddled
    (frame,) = _kept_back(way, insurer, b"to train")
    (other,) = _kept_back(way, insurer, b"to align", topic=Topic.ALIGN)
    header, sealed = parse(frame), frame[HEADER_NBYTES:]
    for changes in (
        {"source": "lab", "destination": "insurer"},
        {"source": "hub"},
        {"destination": "hub"},
        {"channel": parse(other).channel, "sequence": 0},
        {"channel": bytes(16)},
        {"sequence": header.sequence + 1},
        {"sequence": 2**64 - 1},
        {"total": header.total + 1},
        {"total": MAX_NBYTES},
        {"total": 0},
        {"flags": FIRST},
        {"flags": LAST},
        {"flags": 0},
        {"kind": Kind.CONTROL},
        {"kind": Kind.BYE},
        {"kind": Kind.HELLO},
    ):
        altered: Header = dataclasses.replace(header, **changes)
        if altered.kind is Kind.CONTROL:
            way.other.inbox.put(altered.pack() + sealed)
            with pytest.raises(MalformedMessageError):
                lab.receive(0.01)
        else:
            _refused(way, lab, altered.pack() + sealed)
    _refused(way.other, insurer, frame)  # reflected
    for each in (frame, other):
        way.other.deliver(each)
    assert [hear(lab), hear(lab)] == [b"to train", b"to align"]


def test_a_forged_size_takes_no_memory(meddled: Any) -> None:
    way, insurer, lab = meddled
    header = parse(_kept_back(way, insurer, noise(FULL + 1))[0])
    forged = dataclasses.replace(header, total=MAX_NBYTES).pack() + noise(FULL + 16)
    tracemalloc.start()
    try:
        _refused(way, lab, forged)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 * 1024 * 1024


def test_a_peer_that_announces_more_than_it_sends_takes_little_memory(meddled: Any) -> None:
    _, insurer, lab = meddled
    acquaint(insurer, lab)
    tracemalloc.start()
    try:
        insurer._send_piece(Topic.TRAIN, noise(FULL), FIRST, MAX_NBYTES, 5.0, nothing)
        with pytest.raises(CarrierTimeoutError):
            lab.receive(0.3)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 16 * 1024 * 1024


BREACHES = {
    "a piece without a first": [(0, 3, b"abc")],
    "an end without a first": [(LAST, 3, b"abc")],
    "more than the whole": [(FIRST | LAST, 3, b"abcd")],
    "less than the whole": [(FIRST | LAST, 5, b"abcd")],
    "whole, and no end": [(FIRST, 4, b"abcd")],
    "empty, and no end": [(FIRST, 0, b"")],
    "a first piece that is empty": [(FIRST, 4, b"")],
    "a piece that is not full": [(FIRST, 12, b"abc")],
    "a first in the middle": [(FIRST, 12, b"abcdefgh"), (FIRST, 12, b"abcdefgh")],
    "a second message before the end of the first": [(FIRST, 12, b"abcdefgh"), (FIRST | LAST, 1, b"a")],
    "another size in the middle": [(FIRST, 12, b"abcdefgh"), (LAST, 13, b"ijkl")],
    "an empty piece in the middle": [(FIRST, 12, b"abcdefgh"), (0, 12, b"")],
    "the end too soon": [(FIRST, 20, b"abcdefgh"), (LAST, 20, b"abcdefgh")],
    "no end": [(FIRST, 12, b"abcdefgh"), (0, 12, b"abcd")],
    "beyond the end": [(FIRST, 12, b"abcdefgh"), (LAST, 12, b"abcde")],
}


@pytest.mark.parametrize("frames", BREACHES.values(), ids=BREACHES)
def test_a_peer_whose_own_pieces_make_no_message_breaks_the_protocol(
    meddled: Any, frames: list[tuple[int, int, bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, insurer, lab = meddled
    monkeypatch.setattr(module, "MAX_PIECE_NBYTES", 8)
    for flags, total, piece in frames:
        insurer._send_piece(Topic.TRAIN, piece, flags, total, 1.0, nothing)
    with pytest.raises(MalformedMessageError, match="pieces of a message"):
        lab.receive(0.1)


def test_a_message_in_small_pieces_arrives(meddled: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    _, insurer, lab = meddled
    monkeypatch.setattr(module, "MAX_PIECE_NBYTES", 8)
    for nbytes in range(40):
        message = noise(nbytes)
        say(insurer, message)
        assert hear(lab) == message


def test_no_thread_is_left(pair: Pair) -> None:
    before = threading.active_count()
    acquaint(*pair)
    for carrier in pair:
        carrier.close()
    assert threading.active_count() == before
