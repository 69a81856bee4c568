"""Channels: order, deadlines, ends, and the ledger before everything."""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.parties.errors import InputError, InternalError, PeerFailure
from isthmus.parties.network import channel as module
from isthmus.parties.network.channel import Carrier, Channel, CountingLog
from isthmus.parties.network.local import MemoryCarrier, SocketCarrier, memory_pair, socket_pair
from isthmus.parties.network.message import Buffer, Message, Step, Topic, encode

Pair = tuple[Channel, Channel]
TRAIN, ALIGN, FORWARD, BACKWARD, POINTS = Topic.TRAIN, Topic.ALIGN, Step.FORWARD, Step.BACKWARD, Step.POINTS


def _channels(carriers: tuple[Carrier, Carrier], timeout_s: float = 5.0, log: Any = None) -> Pair:
    lab = Channel(carriers[0], me="lab", peer="insurer", log=log or CountingLog(), timeout_s=timeout_s)
    return lab, Channel(carriers[1], me="insurer", peer="lab", log=CountingLog(), timeout_s=timeout_s)


def _socket_carriers() -> tuple[Carrier, Carrier]:
    one, other = socket_pair()
    return SocketCarrier(one), SocketCarrier(other)


@pytest.fixture(params=["memory", "socket"])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    both = _channels(memory_pair() if request.param == "memory" else _socket_carriers())
    yield both
    for channel in both:
        channel.close()


@pytest.fixture
def sockets() -> Iterator[Pair]:
    both = _channels(_socket_carriers())
    yield both
    for channel in both:
        channel.close()


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """No thread and no file descriptor outlives a test."""
    threads, files = threading.active_count(), len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc") else 0
    yield
    limit = time.monotonic() + 5
    while threading.active_count() > threads and time.monotonic() < limit:
        time.sleep(0.01)
    assert threading.active_count() == threads
    assert not files or len(os.listdir("/proc/self/fd")) == files


def _refused(code: str, call: Any) -> PeerFailure:
    with pytest.raises(PeerFailure) as caught:
        call()
    assert caught.value.code == code, caught.value.text()
    return caught.value


def test_messages_arrive_in_the_order_they_were_sent(pair: Pair) -> None:
    lab, insurer = pair
    for number in range(100):
        lab.send(TRAIN, FORWARD, {"batch": number}, {"x": np.full(number, number, dtype=np.float32)})
    for number in range(100):
        message = insurer.receive(TRAIN, FORWARD)
        assert message.fields == {"batch": number}
        np.testing.assert_array_equal(message.arrays["x"], np.full(number, number, dtype=np.float32))


def test_topics_do_not_wait_for_each_other(pair: Pair) -> None:
    lab, insurer = pair
    lab.send(ALIGN, POINTS, {"first": 1})
    lab.send(TRAIN, FORWARD, {"second": 2})
    assert insurer.receive(TRAIN, FORWARD).fields == {"second": 2}
    assert insurer.receive(ALIGN, POINTS).fields == {"first": 1}


def test_bytes_are_counted_by_topic_on_both_sides(pair: Pair) -> None:
    lab, insurer = pair
    lab.send(ALIGN, POINTS, {}, {"x": np.zeros(1000, dtype=np.uint8)})
    lab.send(TRAIN, FORWARD)
    insurer.receive(ALIGN, POINTS)
    insurer.receive(TRAIN, FORWARD)
    nbytes = sum(map(len, encode(Message(ALIGN, POINTS, {}, {"x": np.zeros(1000, dtype=np.uint8)}))))
    assert lab.sent[ALIGN] == insurer.received[ALIGN] == nbytes
    assert lab.sent[TRAIN] == insurer.received[TRAIN] == sum(map(len, encode(Message(TRAIN, FORWARD))))


def test_a_message_that_is_not_due_breaks_the_protocol(pair: Pair) -> None:
    lab, insurer = pair
    lab.send(TRAIN, BACKWARD)
    assert "train" in _refused("peer.protocol", lambda: insurer.receive(TRAIN, FORWARD)).what


def test_silence_ends_at_the_deadline_and_names_peer_topic_and_step(pair: Pair) -> None:
    error = _refused("peer.deadline", lambda: pair[1].receive(TRAIN, FORWARD, timeout_s=0.05))
    assert error.facts == {"party": "insurer", "peer": "lab", "topic": "train", "step": "forward", "seconds": 0}
    assert "insurer waited 0 s for lab, topic 'train', step 'forward'" in error.text()


def test_a_late_message_can_still_be_received(pair: Pair) -> None:
    lab, insurer = pair
    _refused("peer.deadline", lambda: insurer.receive(TRAIN, FORWARD, timeout_s=0.01))
    lab.send(TRAIN, FORWARD, {"a": 1})
    assert insurer.receive(TRAIN, FORWARD).fields == {"a": 1}


def test_what_was_sent_before_the_peer_closed_is_still_received(pair: Pair) -> None:
    lab, insurer = pair
    lab.send(TRAIN, FORWARD, {"a": 1})
    lab.send(TRAIN, FORWARD, {"a": 2})
    insurer.receive(TRAIN, FORWARD)
    lab.close()
    assert insurer.receive(TRAIN, FORWARD).fields == {"a": 2}
    _refused("peer.gone", lambda: insurer.receive(TRAIN, FORWARD))
    _refused("peer.gone", lambda: insurer.receive(ALIGN, POINTS))


def test_a_peer_that_closes_wakes_who_waits_for_it(pair: Pair) -> None:
    lab, insurer = pair
    timer = threading.Timer(0.1, lab.close)
    timer.start()
    _refused("peer.gone", lambda: insurer.receive(TRAIN, FORWARD, timeout_s=60))
    timer.join()


def test_closing_wakes_who_waits_on_the_same_side(pair: Pair) -> None:
    timer = threading.Timer(0.1, pair[1].close)
    timer.start()
    _refused("peer.gone", lambda: pair[1].receive(TRAIN, FORWARD, timeout_s=60))
    timer.join()


def test_closing_twice_does_nothing_more(pair: Pair) -> None:
    for channel in (*pair, *pair):
        channel.close()


def test_nothing_is_sent_over_a_closed_channel(pair: Pair) -> None:
    lab, _ = pair
    lab.close()
    _refused("peer.gone", lambda: lab.send(TRAIN, FORWARD))
    assert not lab.sent
    assert isinstance(lab._log, CountingLog)
    assert not lab._log.opened


def test_sending_to_a_peer_that_is_gone_says_so(sockets: Pair) -> None:
    lab, insurer = sockets
    insurer.close()
    _refused("peer.gone", lambda: [lab.send(TRAIN, FORWARD, {}, {"x": np.zeros(100_000)}) for _ in range(3)])


class _Scripted:
    """A carrier that brings what it was given, and notes what it is to take away."""

    def __init__(self, *frames: bytes, when_sending: Exception | None = None) -> None:
        self.inbox: queue.Queue[bytes | None] = queue.Queue()
        self.sent: list[bytes] = []
        self._when_sending = when_sending
        for frame in frames:
            self.inbox.put(frame)

    def send(
        self, topic: Topic | None, buffers: Sequence[Buffer], timeout_s: float, on_blocked: Callable[[], None]
    ) -> None:
        self.sent.append(b"".join(buffers))
        if self._when_sending is not None:
            raise self._when_sending

    def receive(self, timeout_s: float) -> bytearray:
        try:
            frame = self.inbox.get(timeout=timeout_s)
        except queue.Empty as failure:
            raise module.CarrierTimeoutError from failure
        if frame is None:
            raise module.CarrierClosedError
        return bytearray(frame)

    def close(self, *, linger_s: float = 0.0) -> None:
        self.inbox.put(None)


def _alone(carrier: _Scripted, log: Any = None) -> Channel:
    return Channel(carrier, me="lab", peer="insurer", log=log or CountingLog(), timeout_s=5)


def test_a_frame_that_is_no_message_ends_the_channel_after_what_came_before_it() -> None:
    good = b"".join(encode(Message(TRAIN, FORWARD, {"a": 1})))
    channel = _alone(_Scripted(good, b"garbage", good))
    assert channel.receive(TRAIN, FORWARD).fields == {"a": 1}
    error = _refused("peer.protocol", lambda: channel.receive(TRAIN, FORWARD))
    assert "garbage" not in error.text() + error.detail
    channel.close()


def test_after_a_send_that_failed_nothing_more_is_sent() -> None:
    carrier = _Scripted(when_sending=module.CarrierTimeoutError())
    channel = _alone(carrier)
    _refused("peer.deadline", lambda: channel.send(TRAIN, FORWARD))
    _refused("peer.deadline", lambda: channel.send(ALIGN, POINTS))
    assert len(carrier.sent) == 1
    channel.close()


def test_a_message_that_we_could_not_read_ourselves_is_our_fault_and_is_not_sent() -> None:
    carrier = _Scripted()
    channel = _alone(carrier)
    with pytest.raises(InternalError) as caught:
        channel.send(TRAIN, FORWARD, {}, {"x": np.array([np.nan])})
    assert caught.value.code == "internal"
    assert not carrier.sent
    assert not channel.sent
    channel.close()


class _Log:
    """A ledger that notes what was on its way when it was asked."""

    def __init__(self, carrier: _Scripted, refuse: str = "") -> None:
        self.carrier, self.refuse = carrier, refuse
        self.events: list[tuple[str, Topic, int]] = []

    def open(self, peer: str, topic: Topic) -> _LogStream:
        if self.refuse == "open":
            raise InputError("disk.full", party="lab")
        self.events.append(("open", topic, len(self.carrier.sent)))
        return _LogStream(topic)

    def close(self, streams: Sequence[_LogStream]) -> None:
        self.events += [("close", stream.topic, stream.nbytes) for stream in streams]


class _LogStream:
    def __init__(self, topic: Topic) -> None:
        self.topic, self.nbytes = topic, 0

    def add(self, buffers: Sequence[Buffer]) -> None:
        self.nbytes += sum(map(len, buffers))


def test_the_ledger_is_asked_before_the_first_byte_of_every_topic_and_closed_with_all_of_them() -> None:
    carrier = _Scripted()
    log = _Log(carrier)
    channel = _alone(carrier, log)
    for topic in (TRAIN, ALIGN, TRAIN):
        channel.send(topic, FORWARD)
    channel.close()
    channel.close()
    nbytes = [len(frame) for frame in carrier.sent]
    assert log.events == [
        ("open", TRAIN, 0),
        ("open", ALIGN, 1),
        ("close", TRAIN, nbytes[0] + nbytes[2]),
        ("close", ALIGN, nbytes[1]),
    ]


def test_no_byte_leaves_when_the_ledger_cannot_write() -> None:
    carrier = _Scripted()
    channel = _alone(carrier, _Log(carrier, refuse="open"))
    with pytest.raises(InputError):
        channel.send(TRAIN, FORWARD)
    assert not carrier.sent
    assert not channel.sent
    channel.close()


def test_the_ledger_is_closed_even_when_the_peer_is_gone() -> None:
    carrier = _Scripted(when_sending=module.CarrierClosedError())
    log = _Log(carrier)
    channel = _alone(carrier, log)
    _refused("peer.gone", lambda: channel.send(TRAIN, FORWARD))
    channel.close()
    assert [event[:2] for event in log.events] == [("open", TRAIN), ("close", TRAIN)]


# --- chunks ----------------------------------------------------------------------------------------------------------


@settings(max_examples=10, deadline=None)
@given(st.lists(st.integers(0, 50), max_size=6))
def test_a_stream_of_chunks_arrives_as_it_was_sent(sizes: list[int]) -> None:
    lab, insurer = _channels(memory_pair())
    lab.send_chunks(ALIGN, POINTS, (np.full(size, size, dtype=np.uint8) for size in sizes))
    assert [chunk.tolist() for chunk in insurer.receive_chunks(ALIGN, POINTS)] == [[size] * size for size in sizes]
    lab.close()
    insurer.close()


ITEMS = {"items": np.zeros(2, dtype=np.uint8)}
BAD_CHUNKS: list[tuple[str, list[tuple[dict[str, Any], dict[str, Any]]]]] = [
    ("starts at 1", [({"chunk": 1}, ITEMS)]),
    ("repeats", [({"chunk": 0}, ITEMS), ({"chunk": 0}, ITEMS)]),
    ("skips", [({"chunk": 0}, ITEMS), ({"chunk": 2}, ITEMS)]),
    ("ends too early", [({"chunk": 0}, ITEMS), ({"end": 0}, {})]),
    ("ends too late", [({"chunk": 0}, ITEMS), ({"end": 2}, {})]),
    ("ends with an array", [({"end": 0}, ITEMS)]),
    ("no number", [({}, ITEMS)]),
    ("no items", [({"chunk": 0}, {})]),
    ("other items", [({"chunk": 0}, {"things": ITEMS["items"]})]),
    ("more fields", [({"chunk": 0, "more": 1}, ITEMS)]),
]


@pytest.mark.parametrize("messages", [case[1] for case in BAD_CHUNKS], ids=[case[0] for case in BAD_CHUNKS])
def test_chunks_out_of_order_break_the_protocol(messages: list[Any]) -> None:
    lab, insurer = _channels(memory_pair())
    for fields, arrays in messages:
        lab.send(ALIGN, POINTS, fields, arrays)
    _refused("peer.protocol", lambda: list(insurer.receive_chunks(ALIGN, POINTS)))
    lab.close()
    insurer.close()


def test_a_stream_of_chunks_that_stops_is_no_whole_stream(pair: Pair) -> None:
    lab, insurer = pair
    lab.send(ALIGN, POINTS, {"chunk": 0}, ITEMS)
    chunks = insurer.receive_chunks(ALIGN, POINTS)
    assert next(chunks).tolist() == [0, 0]
    lab.close()
    _refused("peer.gone", lambda: next(chunks))


# --- a lot at once ---------------------------------------------------------------------------------------------------


def test_two_sides_that_both_send_a_lot_do_not_block_each_other(sockets: Pair) -> None:
    array = np.arange(1_000_000, dtype=np.float64)  # 8 MB, many times what a socket holds
    received = [0, 0]

    def talk(side: int) -> None:
        for _ in range(3):
            sockets[side].send(TRAIN, FORWARD, {}, {"x": array})
        for _ in range(3):
            received[side] += sockets[side].receive(TRAIN, FORWARD).arrays["x"].nbytes

    threads = [threading.Thread(target=talk, args=(side,)) for side in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert received == [3 * array.nbytes] * 2


def test_who_does_not_receive_holds_the_sender_back(sockets: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "INBOX_NBYTES", 500_000)
    lab, insurer = sockets
    lab.timeout_s = 0.2
    array = np.zeros(12_500)  # 100 kB
    error = _refused("peer.deadline", lambda: [lab.send(TRAIN, FORWARD, {}, {"x": array}) for _ in range(100)])
    assert error.facts["topic"] == "train"
    assert insurer.received[TRAIN] == 0
    assert lab.sent[TRAIN] < 9_000_000  # what the socket itself holds


def test_many_small_messages_fill_the_inbox_too(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "INBOX_NBYTES", 10 * 1024)
    lab, insurer = pair
    for _ in range(100):
        lab.send(TRAIN, FORWARD)
    time.sleep(0.1)
    assert insurer.received[TRAIN] < 30 * len(b"".join(encode(Message(TRAIN, FORWARD))))
    for _ in range(100):
        insurer.receive(TRAIN, FORWARD)


def test_who_floods_another_topic_breaks_the_protocol(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "INBOX_NBYTES", 100_000)
    lab, insurer = pair
    for _ in range(100):
        lab.send(TRAIN, FORWARD, {}, {"x": np.zeros(1000)})
    _refused("peer.protocol", lambda: insurer.receive(ALIGN, POINTS))
    assert insurer.received[TRAIN] < 200_000


def test_a_channel_closes_while_its_inbox_is_full(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "INBOX_NBYTES", 1)
    lab, insurer = pair
    for _ in range(3):
        lab.send(TRAIN, FORWARD)
    time.sleep(0.05)
    started = time.monotonic()
    insurer.close()
    assert time.monotonic() - started < 4


def test_a_channel_closes_while_it_is_sending(sockets: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "INBOX_NBYTES", 1)
    lab, _ = sockets
    lab.timeout_s = 60
    timer = threading.Timer(0.2, lab.close)
    timer.start()
    _refused("peer.gone", lambda: [lab.send(TRAIN, FORWARD, {}, {"x": np.zeros(100_000)}) for _ in range(9)])
    timer.join()


def test_a_carrier_in_memory_says_when_it_was_closed() -> None:
    left, right = memory_pair()
    assert isinstance(left, MemoryCarrier)
    left.close()
    with pytest.raises(module.CarrierClosedError):
        left.send(TRAIN, [b"x"], 1, lambda: None)
    with pytest.raises(module.CarrierClosedError):
        right.receive(1)
