"""The window of one topic: room, acknowledgements, going back, and what happens when a write fails."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.parties.network import window as module
from isthmus.parties.network.channel import CarrierClosedError, CarrierTimeoutError
from isthmus.parties.network.window import Outgoing

from .ways import Beside, until


class Sender:
    """A window of 10 bytes whose writes are kept in a list."""

    def __init__(self, window_nbytes: int = 10) -> None:
        self.written: list[bytes] = []
        self.blocked = 0
        self.fails: Exception | None = None
        self.window = Outgoing(self._write, window_nbytes, lambda: "exchange.down")

    def _write(self, frame: bytes, timeout_s: float, on_blocked: Callable[[], None]) -> None:
        if self.fails is not None:
            raise self.fails
        self.written.append(frame)

    def push(self, frame: bytes, timeout_s: float = 0.02) -> None:
        self.window.push(len(frame), lambda: frame, timeout_s, self._on_blocked)

    def _on_blocked(self) -> None:
        self.blocked += 1

    def kept(self) -> tuple[int, int]:
        return self.window.first, self.window.end


@pytest.fixture
def sender() -> Sender:
    return Sender()


def test_frames_are_written_at_once_and_kept_until_the_peer_has_them(sender: Sender) -> None:
    for frame in (b"one", b"two", b"six!"):
        sender.push(frame)
    assert sender.written == [b"one", b"two", b"six!"]
    assert sender.kept() == (0, 3)
    sender.window.acknowledge(2)
    assert sender.kept() == (2, 3)
    assert not sender.window.has_arrived
    sender.window.acknowledge(3)
    assert sender.window.has_arrived


def test_a_full_window_takes_no_more_and_says_whose_fault_it_is(sender: Sender) -> None:
    sender.push(b"12345")
    sender.push(b"67890")
    with pytest.raises(CarrierTimeoutError) as caught:
        sender.push(b"x")
    assert caught.value.code == "exchange.down"
    assert sender.blocked == 1
    assert sender.kept() == (0, 2)
    assert sender.written == [b"12345", b"67890"]


def test_a_frame_larger_than_the_window_goes_alone(sender: Sender) -> None:
    sender.push(b"more than ten bytes")
    with pytest.raises(CarrierTimeoutError):
        sender.push(b"x")
    sender.window.acknowledge(1)
    sender.push(b"x")
    assert sender.written == [b"more than ten bytes", b"x"]


def test_a_frame_is_sealed_only_once_there_is_room(sender: Sender) -> None:
    sender.push(b"0123456789")
    sealed = []
    with pytest.raises(CarrierTimeoutError):
        sender.window.push(1, lambda: sealed.append(1) or b"x", 0.02, lambda: None)  # type: ignore[func-returns-value]
    assert sealed == []


def test_an_acknowledgement_wakes_up_whoever_waits_for_room(sender: Sender) -> None:
    sender.push(b"0123456789")
    pushing = Beside(sender.push, b"next", 10)
    until(lambda: sender.blocked == 1)
    assert sender.written == [b"0123456789"]
    sender.window.acknowledge(1)
    pushing.result()
    assert sender.written == [b"0123456789", b"next"]


def test_the_deadline_counts_from_the_last_acknowledgement(sender: Sender) -> None:
    for _ in range(10):
        sender.push(b"x")
    pushing = Beside(sender.push, b"0123456789", 0.4)  # needs all ten to be acknowledged
    for number in range(1, 11):
        time.sleep(0.06)  # together beyond the deadline
        sender.window.acknowledge(number)
    pushing.result()
    assert sender.blocked == 10  # said again after every step


def test_who_waits_for_room_is_told_when_the_peer_takes_no_more(sender: Sender) -> None:
    sender.push(b"0123456789")
    pushing = Beside(sender.push, b"next", 10)
    until(lambda: sender.blocked == 1)
    sender.window.end_here()
    with pytest.raises(CarrierClosedError) as caught:
        pushing.result()
    assert caught.value.code == "peer.gone"


def test_nothing_is_sent_to_a_peer_that_takes_no_more(sender: Sender) -> None:
    sender.window.end_here()
    with pytest.raises(CarrierClosedError):
        sender.push(b"x")
    assert sender.written == []
    assert sender.window.has_arrived


@pytest.mark.parametrize("number", [0, 1, 4, 2**63, 2**64 - 1])
def test_an_acknowledgement_of_what_is_known_or_was_never_sent_says_nothing(sender: Sender, number: int) -> None:
    for frame in (b"a", b"b", b"c"):
        sender.push(frame)
    sender.window.acknowledge(1)
    sender.window.acknowledge(number)
    assert sender.kept() == (1, 3)


def test_going_back_writes_again_what_is_kept_from_there_and_the_same_bytes(sender: Sender) -> None:
    for frame in (b"a", b"b", b"c"):
        sender.push(frame)
    assert sender.window.go_back(1)
    assert not sender.window.pump(1.0)
    assert sender.written == [b"a", b"b", b"c", b"b", b"c"]
    assert sender.kept() == (1, 3)


@pytest.mark.parametrize("number", [0, 3, 4, 2**64 - 1])
def test_nothing_is_due_when_the_peer_asks_for_what_it_has_or_what_was_never_sent(sender: Sender, number: int) -> None:
    for frame in (b"a", b"b", b"c"):
        sender.push(frame)
    sender.window.acknowledge(1)
    assert not sender.window.go_back(number)
    sender.window.pump(1.0)
    assert sender.written == [b"a", b"b", b"c"]


def test_asked_again_for_the_same_frame_it_goes_back_once_in_a_while(
    sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "AGAIN_S", 0.2)
    sender.push(b"a")
    sender.push(b"b")
    assert sender.window.go_back(0)
    sender.window.pump(1.0)
    assert sender.window.owed_at is None
    assert not sender.window.go_back(0)
    assert not sender.window.go_back(0)
    due = sender.window.owed_at
    assert due is not None  # it was asked for, so it is done, only later
    time.sleep(max(0.0, due - time.monotonic()))
    assert sender.window.go_back(0)
    assert sender.window.owed_at is None
    sender.window.pump(1.0)
    assert sender.written == [b"a", b"b", b"a", b"b", b"a", b"b"]


def test_going_back_is_owed_no_more_once_the_frame_has_come(sender: Sender) -> None:
    sender.push(b"a")
    sender.push(b"b")
    assert sender.window.go_back(0)
    sender.window.pump(1.0)
    sender.window.go_back(0)
    assert sender.window.owed_at is not None
    sender.window.acknowledge(1)
    assert sender.window.owed_at is None


def test_another_frame_is_gone_back_to_at_once(sender: Sender) -> None:
    for frame in (b"a", b"b", b"c"):
        sender.push(frame)
    for number in (0, 1, 2):
        assert sender.window.go_back(number)
        sender.window.pump(1.0)
    assert sender.written == [b"a", b"b", b"c", b"a", b"b", b"c", b"b", b"c", b"c"]


def test_after_an_outage_all_that_is_kept_is_written_again(sender: Sender) -> None:
    assert not sender.window.rewind()
    for frame in (b"a", b"b", b"c"):
        sender.push(frame)
    sender.window.acknowledge(1)
    assert sender.window.rewind()
    sender.window.pump(1.0)
    assert sender.written == [b"a", b"b", b"c", b"b", b"c"]


def test_a_push_after_an_outage_writes_what_is_due_first(sender: Sender) -> None:
    sender.push(b"a")
    sender.push(b"b")
    sender.window.rewind()
    sender.push(b"c")
    assert sender.written == [b"a", b"b", b"a", b"b", b"c"]


def test_what_could_not_be_written_is_written_later(sender: Sender) -> None:
    sender.push(b"a")
    sender.fails = CarrierTimeoutError("peer.deadline")
    with pytest.raises(CarrierTimeoutError):
        sender.push(b"b")
    assert sender.kept() == (0, 2)
    sender.window.rewind()
    assert sender.window.pump(0.01)  # more is due
    assert sender.written == [b"a"]
    sender.fails = None
    assert not sender.window.pump(1.0)
    assert sender.written == [b"a", b"a", b"b"]


def test_what_could_not_be_written_is_due_when_the_peer_asks_for_it(sender: Sender) -> None:
    sender.push(b"a")
    sender.fails = CarrierTimeoutError("peer.deadline")
    with pytest.raises(CarrierTimeoutError):
        sender.push(b"b")
    sender.fails = None
    assert sender.window.go_back(1)  # b was never written
    assert not sender.window.pump(1.0)
    assert sender.written == [b"a", b"b"]


def test_a_closed_way_ends_a_push(sender: Sender) -> None:
    sender.fails = CarrierClosedError("exchange.fenced")
    with pytest.raises(CarrierClosedError) as caught:
        sender.push(b"a")
    assert caught.value.code == "exchange.fenced"


def test_a_pump_does_not_wait_long_for_another_that_writes() -> None:
    entered, leave = threading.Event(), threading.Event()

    def write(frame: bytes, timeout_s: float, on_blocked: Callable[[], None]) -> None:
        entered.set()
        assert leave.wait(10)

    window = Outgoing(write, 100, lambda: "peer.deadline")
    pushing = Beside(window.push, 1, lambda: b"a", 10, lambda: None)
    assert entered.wait(10)
    assert window.pump(0.01)  # it comes back, and says that more may be due
    leave.set()
    pushing.result()
    assert not window.pump(1.0)


def test_a_pump_stops_when_its_time_is_over() -> None:
    sender = Sender(1000)
    for number in range(50):
        sender.push(bytes([number]))
    sender.window.rewind()
    assert sender.window.pump(0.0)
    assert len(sender.written) == 51


def test_a_frame_that_is_gone_back_to_while_it_is_written_is_written_again() -> None:
    written: list[bytes] = []

    def write(frame: bytes, timeout_s: float, on_blocked: Callable[[], None]) -> None:
        written.append(frame)
        if written == [b"a", b"b"]:
            window.rewind()  # an outage just now

    window = Outgoing(write, 100, lambda: "peer.deadline")
    for frame in (b"a", b"b"):
        window.push(1, lambda frame=frame: frame, 1.0, lambda: None)  # type: ignore[misc]
    assert written == [b"a", b"b", b"a", b"b"]


ACTIONS = st.lists(
    st.one_of(
        st.just(("push", 0)),
        st.tuples(st.sampled_from(["acknowledge", "go_back", "rewind"]), st.integers(0, 12)),
    ),
    max_size=40,
)


@given(ACTIONS)
def test_whatever_happens_what_is_kept_is_what_was_not_acknowledged_and_no_more_than_the_window(
    actions: list[tuple[str, int]],
) -> None:
    sender, first, end = Sender(4), 0, 0
    for action, number in actions:
        written = len(sender.written)
        if action == "push" and end - first < 4:
            sender.push(bytes([end]))
            end += 1
            assert sender.written[-1] == bytes([end - 1])
        elif action == "acknowledge":
            sender.window.acknowledge(number)
            first = number if first < number <= end else first
        elif action == "go_back":
            sender.window.go_back(number)
            first = number if first < number <= end else first
            sender.window.pump(1.0)
        elif action == "rewind":
            sender.window.rewind()
            sender.window.pump(1.0)
            assert sender.written[written:] == [bytes([each]) for each in range(first, end)]
        assert sender.kept() == (first, end)
        assert sender.window.has_arrived == (first == end)
    last = [frame[0] for frame in sender.written]
    assert sorted(set(last)) == list(range(end))
    assert all(after <= before + 1 for before, after in pairwise(last))  # in order, or back
