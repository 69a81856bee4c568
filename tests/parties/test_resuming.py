"""Sealed carriers over a way that may lose frames: what is acknowledged, asked for, sent again, and how it ends."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from isthmus.parties.errors import PeerFailure
from isthmus.parties.network import minder as minder_module
from isthmus.parties.network import resuming as module
from isthmus.parties.network import window as window_module
from isthmus.parties.network.channel import CarrierClosedError, CarrierTimeoutError, Channel, CountingLog
from isthmus.parties.network.frame import Kind
from isthmus.parties.network.message import Step, Topic
from isthmus.parties.network.resuming import ResumingCarrier

from .ways import Beside, Way, acquaint, hear, kinds, losing, noise, nothing, resuming_pair, say, until, untouched, ways

NEVER_S = 60.0
Ends = tuple[Way, Way, ResumingCarrier, ResumingCarrier]


@pytest.fixture(autouse=True)
def short_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything that a carrier waits for comes soon; a test puts back what must not help it."""
    for name, value in {"ACK_S": 0.02, "ASK_S": 0.02}.items():
        monkeypatch.setattr(minder_module, name, value)
    for name, value in {"IDLE_S": 0.1, "GOODBYE_S": 0.5}.items():
        monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(window_module, "AGAIN_S", 0.05)
    monkeypatch.setattr(ResumingCarrier, "retry_s", 0.05)


@pytest.fixture
def ends() -> Iterator[Ends]:
    """The ends of a way, the insurer and the lab; afterwards no thread is left."""
    left, right = ways()
    insurer, lab = resuming_pair(left, right)
    yield left, right, insurer, lab
    for carrier in (insurer, lab):
        carrier.close()
    until(lambda: not any(thread.name.startswith("resuming-") for thread in threading.enumerate()))


@pytest.fixture
def met(ends: Ends) -> Ends:
    """The same, acquainted, and with nothing left to acknowledge."""
    left, right, insurer, lab = ends
    acquaint(insurer, lab)
    until(lambda: all(kinds(way.sent, Kind.CONTROL) for way in (left, right)))
    return ends


def _outage(*both: Way) -> None:
    for way in both:
        way.up = False


def _reconnect(*both: Way) -> None:
    for way in both:
        way.up = True
    for way in both:
        way.on_reconnect()


# --- messages --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("nbytes", [0, 1, 2**20 - 112, 2**20 - 111, 3 * 2**20])
def test_a_message_of_any_size_arrives_as_it_was_sent(ends: Ends, nbytes: int) -> None:
    _, _, insurer, lab = ends
    message = noise(nbytes)
    saying = Beside(say, insurer, message)
    assert hear(lab) == message
    saying.result()


def test_topics_both_ways_at_once_arrive_in_their_order(ends: Ends) -> None:
    _, _, insurer, lab = ends
    sent = {topic: [topic.value.encode() + noise(number * 20_000) for number in range(8)] for topic in Topic}

    def send_all(carrier: ResumingCarrier, topic: Topic) -> None:
        for message in sent[topic]:
            say(carrier, message, topic)

    def hear_all(carrier: ResumingCarrier) -> dict[Topic, list[bytes]]:
        came: dict[Topic, list[bytes]] = {topic: [] for topic in Topic}
        for _ in range(8 * len(Topic)):
            message = hear(carrier)
            came[next(topic for topic in Topic if message.startswith(topic.value.encode()))].append(message)
        return came

    saying = [Beside(send_all, carrier, topic) for carrier in (insurer, lab) for topic in Topic]
    hearing = [Beside(hear_all, carrier) for carrier in (insurer, lab)]
    assert [each.result() for each in hearing] == [sent, sent]
    for each in saying:
        each.result()
    assert not insurer.refused["control"] + lab.refused["control"]


def test_a_small_message_arrives_while_a_large_one_of_another_topic_goes(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BULK_WINDOW_NBYTES", 2**20)
    _, _, insurer, lab = ends
    sender, receiver = (
        Channel(carrier, me=carrier.me, peer=carrier.peer, log=CountingLog(), timeout_s=30)
        for carrier in (insurer, lab)
    )
    large, small = np.frombuffer(noise(2**23), dtype=np.uint8), np.frombuffer(noise(2**14), dtype=np.uint8)
    receiving = Beside(receiver.receive, Topic.TRAIN, Step.FORWARD)
    training = Beside(sender.send, Topic.TRAIN, Step.FORWARD, None, {"x": large})
    for number in range(20):
        sender.send(Topic.SETUP, Step.SETUP, {"number": number}, {"x": small})
    for number in range(20):
        message = receiver.receive(Topic.SETUP, Step.SETUP)
        assert message.fields == {"number": number}
        np.testing.assert_array_equal(message.arrays["x"], small)
    np.testing.assert_array_equal(receiving.result().arrays["x"], large)
    training.result()
    sender.close()
    receiver.close()


# --- the meeting -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lost", list(itertools.product([0, 1], repeat=4)))
def test_a_session_comes_about_whatever_of_the_handshake_is_lost(ends: Ends, lost: tuple[int, ...]) -> None:
    left, right, insurer, lab = ends
    left.meddle = losing((Kind.HELLO, lost[0]), (Kind.AUTH, lost[1]))
    right.meddle = losing((Kind.HELLO, lost[2]), (Kind.AUTH, lost[3]))
    saying = Beside(say, insurer, b"good day")
    assert hear(lab) == b"good day"
    saying.result()
    say(lab, b"to you, too")
    assert hear(insurer) == b"to you, too"


def test_what_came_before_the_session_is_asked_for_once_there_is_one(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, right, insurer, lab = ends
    monkeypatch.setattr(module, "IDLE_S", NEVER_S)
    right.meddle = losing((Kind.AUTH, 1))  # so that what the lab sends reaches an insurer without a session
    hearing = Beside(hear, insurer)
    say(lab, b"too early")
    listening = Beside(lab.receive, 5.0)
    assert hearing.result() == b"too early"
    assert insurer.refused["early"] > 0
    say(insurer, b"thank you")
    assert listening.result() == b"thank you"


class Flood(Way):
    """A way on which a frame that is of no use comes whenever there is no other."""

    junk = b""

    def receive(self, timeout_s: float) -> bytes:
        if self.junk and self.inbox.empty():
            return self.junk
        return super().receive(timeout_s)


@pytest.mark.parametrize("kind", [Kind.DATA, Kind.BYE, Kind.HELLO, Kind.AUTH])
def test_a_flood_does_not_keep_anybody_beyond_the_deadline(kind: Kind) -> None:
    left, right = Flood(), Flood()
    left.other, right.other = right, left
    insurer, lab = resuming_pair(left, right)
    acquaint(insurer, lab)
    say(insurer, b"again and again")
    assert hear(lab) == b"again and again"
    right.junk = next(frame for frame in left.sent if frame[1] == (kind if kind is not Kind.BYE else Kind.DATA))
    if kind is Kind.BYE:
        right.junk = right.junk[:1] + bytes([Kind.BYE]) + right.junk[2:]
    with pytest.raises(CarrierTimeoutError):
        hear(lab, 0.05)
    say(insurer, b"news")
    assert hear(lab) == b"news"
    closing = [Beside(carrier.close, linger_s=5.0) for carrier in (lab, insurer)]
    for each in closing:
        each.result()


# --- acknowledgements ------------------------------------------------------------------------------------------------


def test_a_quarter_of_the_window_is_acknowledged_at_once(met: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    _left, right, insurer, lab = met
    monkeypatch.setattr(minder_module, "ACK_S", NEVER_S)
    monkeypatch.setattr(module, "BULK_WINDOW_NBYTES", 4 * 4 * (1000 + 112))
    before = len(kinds(right.sent, Kind.CONTROL))
    lab._unacknowledged[Topic.TRAIN] = 0
    for _ in range(8):
        say(insurer, noise(1000))
    for number in range(1, 9):
        hear(lab)
        assert len(kinds(right.sent, Kind.CONTROL)) - before == number // 4


def test_less_is_acknowledged_after_a_short_time(met: Ends) -> None:
    _, right, insurer, lab = met
    before = len(kinds(right.sent, Kind.CONTROL))
    say(insurer, b"a little")
    assert hear(lab) == b"a little"
    until(lambda: len(kinds(right.sent, Kind.CONTROL)) > before)
    until(insurer._all_has_arrived)


def test_control_frames_count_for_themselves_and_none_is_taken_twice(met: Ends) -> None:
    left, right, insurer, lab = met
    for _ in range(5):
        before = len(kinds(right.sent, Kind.CONTROL))
        say(insurer, b"more")
        hear(lab)
        until(lambda before=before: len(kinds(right.sent, Kind.CONTROL)) > before)  # type: ignore[misc]
    frames = [frame for frame in right.sent if frame[1] == Kind.CONTROL]
    assert [header.sequence for header in kinds(frames, Kind.CONTROL)] == list(range(len(frames)))
    assert not insurer.refused
    for frame in frames:
        left.on_control(frame)
    assert insurer.refused == {"control": len(frames)}


def test_an_acknowledgement_of_what_was_never_sent_is_ignored(met: Ends) -> None:
    left, _, insurer, lab = met
    say(insurer, b"one")
    kept = insurer._outgoing[Topic.TRAIN]
    for kind, number in itertools.product((module._ACK, module._RESUME), (kept.end + 1, 2**40, 2**63, 2**64 - 1)):
        plain = module._CONTROL.pack(kind, *[number] * len(Topic))
        with lab._sends_control:
            header = module.Header(Kind.CONTROL, "insurer", "lab", lab._control_sealer.channel, lab._control_number)
            frame = lab._control_sealer.seal(lab._control_number, plain, header.pack())
            lab._control_number += 1
        left.on_control(frame)
    assert not insurer.refused
    assert kept.end - kept.first == 1
    assert hear(lab) == b"one"


def test_control_frames_that_are_none_are_refused(met: Ends) -> None:
    left, right, insurer, _ = met
    frame = next(frame for frame in right.sent if frame[1] == Kind.CONTROL)
    later = bytearray(frame)
    later[88:96] = (2**20).to_bytes(8, "little")
    for bad in (frame[:100], bytes(later), frame[:72] + bytes(16) + frame[88:], b"", bytes(2000)):
        left.on_control(bad)
    assert insurer.refused == {"control": 5}
    say(insurer, b"still here")
    assert hear(met[3]) == b"still here"


def test_who_sends_keeps_no_more_than_the_window(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    left, _, insurer, lab = ends
    monkeypatch.setattr(module, "BULK_WINDOW_NBYTES", 50_000)
    acquaint(insurer, lab)
    until(insurer._all_has_arrived)
    before = len(left.sent)
    blocked = threading.Event()
    sent = [noise(5_000) for _ in range(40)]

    def send_all() -> None:
        for message in sent:
            insurer.send(Topic.TRAIN, [message], 10.0, blocked.set)

    sending = Beside(send_all)
    assert blocked.wait(10)
    time.sleep(0.1)
    ahead = [frame for frame in left.sent[before:] if frame[1] == Kind.DATA]
    assert len(ahead) == 50_000 // 5_112
    assert [hear(lab) for _ in sent] == sent
    sending.result()


def test_a_sender_ends_when_its_peer_takes_nothing(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    left, _, insurer, lab = ends
    monkeypatch.setattr(module, "FAST_WINDOW_NBYTES", 10_000)
    acquaint(insurer, lab)
    until(insurer._all_has_arrived)
    left.trouble = "exchange.down"
    say(insurer, noise(9_000), Topic.SETUP)
    with pytest.raises(CarrierTimeoutError) as caught:
        say(insurer, noise(9_000), Topic.SETUP, 0.05)
    assert caught.value.code == "exchange.down"


# --- what was lost ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lost", range(6))
def test_any_one_frame_is_sent_again(met: Ends, lost: int) -> None:
    left, _, insurer, lab = met
    numbers = itertools.count()
    left.meddle = lambda header, frame: [] if header.kind is Kind.DATA and next(numbers) == lost else [frame]
    sent = [noise(100) for _ in range(6)]
    for message in sent:
        say(insurer, message)
    assert [hear(lab) for _ in sent] == sent
    with pytest.raises(CarrierTimeoutError):
        hear(lab, 0.05)


def test_after_an_outage_both_ways_go_on_without_waiting_for_silence(
    met: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    left, right, insurer, lab = met
    monkeypatch.setattr(module, "IDLE_S", NEVER_S)
    sent = [noise(1000) for _ in range(10)]
    hearing = [Beside(lambda each=each: [hear(each) for _ in sent]) for each in (insurer, lab)]
    for number, message in enumerate(sent):
        if number == 3:
            _outage(left, right)
        say(insurer, message)
        say(lab, message)
    _reconnect(left, right)
    assert [each.result() for each in hearing] == [sent, sent]


@pytest.mark.parametrize("who", ["the sender", "the receiver"])
def test_one_side_that_has_reconnected_is_enough(met: Ends, monkeypatch: pytest.MonkeyPatch, who: str) -> None:
    left, right, insurer, lab = met
    monkeypatch.setattr(module, "IDLE_S", NEVER_S)
    _outage(left, right)
    say(insurer, b"lost")
    left.up = right.up = True
    (left if who == "the sender" else right).on_reconnect()
    assert hear(lab) == b"lost"


def test_what_is_asked_for_again_too_soon_is_sent_a_little_later(met: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    left, right, insurer, lab = met
    monkeypatch.setattr(module, "IDLE_S", NEVER_S)
    monkeypatch.setattr(window_module, "AGAIN_S", 0.3)
    _outage(left)
    say(insurer, b"lost")
    left.up = True
    left.meddle = losing((Kind.DATA, 1))  # what the first request brings: the lane for it is not up yet
    right.on_reconnect()
    until(lambda: len(kinds(left.sent, Kind.DATA)) == 3)
    right.on_reconnect()
    assert hear(lab) == b"lost"


def test_what_cannot_be_written_after_an_outage_is_written_once_it_can(
    met: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    left, right, insurer, lab = met
    monkeypatch.setattr(module, "IDLE_S", NEVER_S)
    sent = [noise(100) for _ in range(5)]
    _outage(left, right)
    for message in sent:
        say(insurer, message)
    full = 20

    def meddle(header: Any, frame: bytes) -> list[bytes]:
        nonlocal full
        if full and header.kind in (Kind.DATA, Kind.CONTROL):
            full -= 1
            time.sleep(0.01)
            raise CarrierTimeoutError  # the lane is full
        return [frame]

    left.meddle = meddle
    _reconnect(left, right)
    assert [hear(lab) for _ in sent] == sent


def test_an_acknowledgement_that_was_lost_comes_again_though_nobody_receives(met: Ends) -> None:
    _left, right, insurer, lab = met
    right.meddle = losing((Kind.CONTROL, 1))
    say(insurer, b"once")
    assert hear(lab) == b"once"
    until(lambda: right.sent[-1][1] == Kind.CONTROL)
    insurer.close(linger_s=10.0)  # asks, since nothing comes


# --- the end ---------------------------------------------------------------------------------------------------------


def test_after_the_last_message_the_peer_has_gone(met: Ends) -> None:
    _, _, insurer, lab = met
    for text in (b"one", b"two"):
        say(insurer, text)
    insurer.close()
    assert [hear(lab), hear(lab)] == [b"one", b"two"]
    for _ in range(2):
        with pytest.raises(CarrierClosedError) as caught:
            hear(lab, 10.0)
        assert caught.value.code == "peer.gone"


def test_a_goodbye_that_overtakes_messages_ends_nothing_before_they_are_there(
    met: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "IDLE_S", NEVER_S)
    left, right, insurer, lab = met
    kept: list[bytes] = []
    left.meddle = lambda header, frame: kept.append(frame) or [] if header.kind is Kind.DATA else [frame]  # type: ignore[func-returns-value]
    say(insurer, b"by the slow lane")
    insurer.close()
    for _ in range(5):
        with pytest.raises(CarrierTimeoutError):
            hear(lab, 0.002)
    right.deliver(kept[0])
    assert hear(lab) == b"by the slow lane"
    with pytest.raises(CarrierClosedError):
        hear(lab)


def test_what_is_missing_after_a_goodbye_is_not_waited_for_long(met: Ends) -> None:
    left, _, insurer, lab = met
    left.meddle = losing((Kind.DATA, 1))
    for text in (b"lost", b"after it"):
        say(insurer, text)
    left.meddle = lambda header, frame: [frame] if header.kind is Kind.BYE else []
    insurer.close()
    with pytest.raises(CarrierClosedError):
        hear(lab, 20.0)


def test_a_goodbye_that_was_lost_is_said_again(met: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    left, _, insurer, lab = met
    monkeypatch.setattr(module, "GOODBYE_S", NEVER_S)
    left.meddle = losing((Kind.BYE, 1))
    say(insurer, b"the last")
    closing = Beside(insurer.close, linger_s=20.0)
    assert hear(lab) == b"the last"
    with pytest.raises(CarrierClosedError):  # asks, since nothing comes
        hear(lab, 20.0)
    lab.close(linger_s=5.0)
    closing.result()


def test_a_goodbye_lost_for_good_ends_at_the_deadline(met: Ends) -> None:
    left, _, insurer, lab = met
    left.meddle = lambda header, frame: []
    insurer.close()
    with pytest.raises(CarrierTimeoutError) as caught:
        hear(lab, 0.3)
    assert caught.value.code == "peer.deadline"


def test_who_has_ended_waits_for_its_peer_while_nobody_can_be_reached(met: Ends) -> None:
    left, right, insurer, lab = met
    say(lab, b"the last")
    _outage(left)  # with it goes the acknowledgement
    assert hear(insurer) == b"the last"
    _outage(right)
    left.trouble = right.trouble = "exchange.down"
    closing = [Beside(carrier.close, linger_s=20.0) for carrier in (insurer, lab)]
    time.sleep(1.5 * module.GOODBYE_S)
    assert all(one.is_running for one in closing)
    left.trouble = right.trouble = "peer.deadline"
    _reconnect(left, right)
    for one in closing:
        one.result()


def test_who_lingers_has_seen_everything_arrive(met: Ends) -> None:
    left, _, insurer, lab = met
    left.meddle = losing((Kind.DATA, 3))
    sent = [noise(100) for _ in range(5)]
    for message in sent:
        say(insurer, message)
    closing = Beside(insurer.close, linger_s=10.0)
    assert [hear(lab) for _ in sent] == sent
    closing.result()


@pytest.mark.parametrize("trouble", ["peer.deadline", "exchange.down"])
def test_who_lingers_in_vain_is_told_so(met: Ends, trouble: str) -> None:
    left, _, insurer, _ = met
    left.trouble = trouble
    say(insurer, b"nobody reads this")
    with pytest.raises(CarrierTimeoutError) as caught:
        insurer.close(linger_s=0.1)
    assert caught.value.code == trouble


def test_a_channel_that_lingers_in_vain_is_told_so(met: Ends) -> None:
    _, _, insurer, _ = met
    channel = Channel(insurer, me="insurer", peer="lab", log=CountingLog(), timeout_s=5)
    channel.send(Topic.AGREE, Step.CLOSE)
    with pytest.raises(PeerFailure) as caught:
        channel.close(linger_s=0.1)
    assert caught.value.code == "peer.deadline"


def test_who_lingers_still_answers_a_peer_that_has_no_session_yet(ends: Ends) -> None:
    _, right, insurer, lab = ends
    right.meddle = losing((Kind.AUTH, 2))
    saying = Beside(say, lab, b"before you knew me")
    with pytest.raises(CarrierTimeoutError):
        insurer.receive(0.02)
    saying.result()
    closing = Beside(lab.close, linger_s=10.0)
    assert hear(insurer) == b"before you knew me"
    insurer.close(linger_s=5.0)
    closing.result()


def test_a_goodbye_tells_who_lingers_what_has_arrived(met: Ends) -> None:
    _, right, insurer, lab = met
    right.meddle = lambda header, frame: [] if header.kind is Kind.CONTROL else [frame]
    say(insurer, b"read, and never acknowledged")
    assert hear(lab) == b"read, and never acknowledged"
    closing = Beside(insurer.close, linger_s=10.0)
    lab.close()
    closing.result()


def test_both_close_at_once_and_neither_waits(met: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    _, _, insurer, lab = met
    monkeypatch.setattr(module, "GOODBYE_S", NEVER_S)
    for each in [Beside(carrier.close, linger_s=NEVER_S) for carrier in (insurer, lab)]:
        each.result()


def test_a_goodbye_that_another_thread_received_ends_the_wait_for_it(
    met: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, _, insurer, lab = met
    monkeypatch.setattr(module, "GOODBYE_S", NEVER_S)
    hearing = [Beside(lab.receive, NEVER_S) for _ in range(3)]
    closing = Beside(lab.close, linger_s=NEVER_S)
    insurer.close(linger_s=NEVER_S)
    closing.result()
    for each in hearing:
        with pytest.raises(CarrierClosedError):
            each.result()


def test_what_comes_while_one_closes_has_not_arrived(met: Ends) -> None:
    _, _, insurer, lab = met
    say(lab, b"unread")
    for each in [Beside(carrier.close, linger_s=0.2) for carrier in (lab, insurer)]:
        with contextlib.suppress(CarrierTimeoutError, CarrierClosedError):
            each.result()
    assert insurer._incoming[lab._sealers[Topic.TRAIN].channel].expected == 1  # of the acquaintance alone


def test_who_lingers_for_a_peer_that_has_gone_without_the_last_message_is_told_so(met: Ends) -> None:
    left, _, insurer, lab = met
    left.meddle = lambda header, frame: [] if header.kind is Kind.DATA else [frame]  # an exchange that keeps it back
    say(insurer, b"the last")
    lab.close()
    with pytest.raises(CarrierClosedError):
        insurer.close(linger_s=NEVER_S)


def test_a_channel_whose_peer_has_closed_says_so_while_it_waits(met: Ends) -> None:
    _, _, insurer, lab = met
    channel = Channel(lab, me="lab", peer="insurer", log=CountingLog(), timeout_s=NEVER_S)
    waiting = Beside(channel.receive, Topic.TRAIN, Step.FORWARD)
    insurer.close()
    with pytest.raises(PeerFailure) as caught:
        waiting.result()
    assert caught.value.code == "peer.gone"
    channel.close()


def test_who_waits_for_room_is_told_that_the_peer_has_gone(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    _, _, insurer, lab = ends
    monkeypatch.setattr(module, "BULK_WINDOW_NBYTES", 1000)
    acquaint(insurer, lab)
    channel = Channel(insurer, me="insurer", peer="lab", log=CountingLog(), timeout_s=NEVER_S)

    def send_all() -> None:
        while True:
            channel.send(Topic.TRAIN, Step.FORWARD, {"x": b"x" * 400})

    sending = Beside(send_all)
    until(lambda: channel._reader is not None)
    lab.close()
    with pytest.raises(PeerFailure) as caught:
        sending.result()
    assert caught.value.code == "peer.gone"
    channel.close()


def test_closing_twice_and_closing_what_never_met_is_quiet(ends: Ends) -> None:
    _, _, insurer, lab = ends
    insurer.close(linger_s=5.0)
    insurer.close()
    with pytest.raises(CarrierTimeoutError):
        hear(lab, 0.05)
    lab.close()
    lab.close(linger_s=5.0)


# --- threads ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pause_s", [0.0, 0.0005, 0.001, 0.002, 0.003, 0.005] * 3)
def test_closing_beside_a_meeting_leaves_no_thread(ends: Ends, pause_s: float) -> None:
    _, _, insurer, lab = ends
    calls: list[tuple[Callable[..., Any], tuple[Any, ...]]] = [(say, (insurer, b"x")), (hear, (lab, 0.2))]
    running = [Beside(call, *arguments) for call, arguments in calls]
    time.sleep(pause_s)
    closing = [Beside(carrier.close, linger_s=linger_s) for carrier, linger_s in ((insurer, 0.05), (lab, 0.0))]
    for each in running + closing:
        with contextlib.suppress(CarrierClosedError, CarrierTimeoutError):
            each.result()


def test_much_traffic_both_ways_with_small_windows_refuses_nothing(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    _, _, insurer, lab = ends
    monkeypatch.setattr(minder_module, "ACK_S", 0.001)
    monkeypatch.setattr(module, "BULK_WINDOW_NBYTES", 2000)
    monkeypatch.setattr(module, "FAST_WINDOW_NBYTES", 2000)
    topics, each_nbytes, count = (Topic.TRAIN, Topic.ALIGN, Topic.SETUP), 100, 150

    def send_all(carrier: ResumingCarrier, topic: Topic) -> None:
        for _ in range(count):
            carrier.send(topic, [bytes(each_nbytes)], 10.0, nothing)

    sending = [Beside(send_all, carrier, topic) for carrier in (insurer, lab) for topic in topics]
    hearing = [Beside(lambda carrier=carrier: [hear(carrier) for _ in range(3 * count)]) for carrier in (insurer, lab)]
    for each in sending + hearing:
        each.result()
    for each in [Beside(carrier.close, linger_s=10.0) for carrier in (insurer, lab)]:
        each.result()
    assert not insurer.refused + lab.refused


def test_a_way_that_nobody_meddles_with_keeps_all(met: Ends) -> None:
    left, _, insurer, lab = met
    left.meddle = untouched
    say(insurer, b"all is well")
    assert hear(lab) == b"all is well"
    for each in [Beside(carrier.close, linger_s=10.0) for carrier in (insurer, lab)]:
        each.result()
    assert not insurer.refused + lab.refused
