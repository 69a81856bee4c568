"""The carrier between processes: whole frames, or a clear end."""

from __future__ import annotations

import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from isthmus.parties.errors import PeerFailure
from isthmus.parties.network.channel import CarrierClosedError, CarrierTimeoutError, Channel, CountingLog
from isthmus.parties.network.local import SocketCarrier, socket_pair
from isthmus.parties.network.message import MAX_NBYTES, MalformedMessageError, Step, Topic


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    one, other = socket_pair()
    with one, other:
        yield one, other


def test_a_frame_is_its_length_and_its_buffers(ends: tuple[socket.socket, socket.socket]) -> None:
    SocketCarrier(ends[0]).send(Topic.TRAIN, [b"ab", b"", bytearray(b"c"), memoryview(b"de")], 5, lambda: None)
    assert ends[1].recv(100) == struct.pack("<Q", 5) + b"abcde"


def test_more_buffers_than_one_system_call_takes_arrive_whole(ends: tuple[socket.socket, socket.socket]) -> None:
    buffers = [bytes([number % 256]) * number for number in range(1000)]
    sender = threading.Thread(target=SocketCarrier(ends[0]).send, args=(Topic.TRAIN, buffers, 10, lambda: None))
    sender.start()
    assert SocketCarrier(ends[1]).receive(20) == b"".join(buffers)
    sender.join()


def test_a_frame_that_comes_byte_by_byte_arrives_whole(ends: tuple[socket.socket, socket.socket]) -> None:
    def drip() -> None:
        for byte in struct.pack("<Q", 3) + b"abc":
            ends[0].sendall(bytes([byte]))

    sender = threading.Thread(target=drip)
    sender.start()
    assert SocketCarrier(ends[1]).receive(20) == b"abc"
    sender.join()


@pytest.mark.parametrize("nbytes", [MAX_NBYTES + 1, 2**63, 2**64 - 1])
def test_a_length_that_cannot_be_is_no_frame(ends: tuple[socket.socket, socket.socket], nbytes: int) -> None:
    ends[0].sendall(struct.pack("<Q", nbytes))
    with pytest.raises(MalformedMessageError):
        SocketCarrier(ends[1]).receive(20)


def test_to_a_channel_such_a_length_breaks_the_protocol(ends: tuple[socket.socket, socket.socket]) -> None:
    ends[0].sendall(struct.pack("<Q", 2**40))
    channel = Channel(SocketCarrier(ends[1]), me="lab", peer="insurer", log=CountingLog(), timeout_s=5)
    with pytest.raises(PeerFailure) as caught:
        channel.receive(Topic.TRAIN, Step.FORWARD)
    assert caught.value.code == "peer.protocol"
    channel.close()


def test_a_peer_that_takes_nothing_is_late(ends: tuple[socket.socket, socket.socket]) -> None:
    with pytest.raises(CarrierTimeoutError):
        SocketCarrier(ends[0]).send(Topic.TRAIN, [bytes(20_000_000)], 0.1, lambda: None)


def test_a_peer_that_takes_a_little_now_and_then_is_late_too(ends: tuple[socket.socket, socket.socket]) -> None:
    stop = threading.Event()

    def sip() -> None:
        while not stop.wait(0.05):
            ends[1].recv(50_000)

    sipper = threading.Thread(target=sip)
    sipper.start()
    started = time.monotonic()
    with pytest.raises(CarrierTimeoutError):
        SocketCarrier(ends[0]).send(Topic.TRAIN, [bytes(20_000_000)], 0.4, lambda: None)
    assert time.monotonic() - started < 10
    stop.set()
    sipper.join()


def test_a_send_waits_no_shorter_than_it_may(ends: tuple[socket.socket, socket.socket]) -> None:
    """A time-out of whole seconds is no time-out of none."""
    nbytes, took = 20_000_000, []

    def take_late() -> None:
        time.sleep(0.3)
        took.append(len(SocketCarrier(ends[1]).receive(20)))

    taker = threading.Thread(target=take_late)
    taker.start()
    SocketCarrier(ends[0]).send(Topic.TRAIN, [bytes(nbytes)], 30.0, lambda: None)
    taker.join()
    assert took == [nbytes]


def test_both_calls_say_when_the_other_end_is_closed(ends: tuple[socket.socket, socket.socket]) -> None:
    ends[0].close()
    with pytest.raises(CarrierClosedError):
        SocketCarrier(ends[1]).receive(20)
    with pytest.raises(CarrierClosedError):
        SocketCarrier(ends[1]).send(Topic.TRAIN, [b"x"], 1, lambda: None)


def test_a_receive_that_timed_out_goes_on_where_it_was(ends: tuple[socket.socket, socket.socket]) -> None:
    carrier = SocketCarrier(ends[1])
    frame = struct.pack("<Q", 3) + b"abc"
    for piece in (frame[:5], frame[5:9], b""):
        ends[0].sendall(piece)
        with pytest.raises(CarrierTimeoutError):
            carrier.receive(0.01)
    ends[0].sendall(frame[9:])
    assert carrier.receive(5) == b"abc"


def test_a_send_that_has_to_wait_says_so(ends: tuple[socket.socket, socket.socket]) -> None:
    said: list[int] = []
    with pytest.raises(CarrierTimeoutError):
        SocketCarrier(ends[0]).send(Topic.TRAIN, [bytes(20_000_000)], 0.1, lambda: said.append(1))
    assert said


def test_closing_wakes_a_receive_that_waits(ends: tuple[socket.socket, socket.socket]) -> None:
    carrier = SocketCarrier(ends[1])
    timer = threading.Timer(0.1, carrier.close)
    timer.start()
    with pytest.raises(CarrierClosedError):
        carrier.receive(20)
    timer.join()
    carrier.close()


PEER = """
import os, socket, sys, time
import numpy as np
from isthmus.parties.network.channel import Channel, CountingLog
from isthmus.parties.network.local import SocketCarrier
from isthmus.parties.network.message import Message, Step, Topic, encode
end = socket.socket(fileno=int(sys.argv[1]))
if sys.argv[2] == "talks":
    channel = Channel(SocketCarrier(end), me="insurer", peer="lab", log=CountingLog(), timeout_s=20)
    message = channel.receive(Topic.TRAIN, Step.FORWARD)
    channel.send(Topic.TRAIN, Step.BACKWARD, message.fields, {"x": 2 * message.arrays["x"]})
    channel.receive(Topic.TRAIN, Step.EPOCH)
    channel.close()
else:
    frame = b"".join(encode(Message(Topic.TRAIN, Step.BACKWARD, {}, {"x": np.zeros(1000)})))
    whole = len(frame).to_bytes(8, "little") + frame
    end.sendall(whole)
    end.sendall(whole[: int(sys.argv[3])])
    os.kill(os.getpid(), 9)
"""


def _peer(*words: str) -> tuple[Channel, subprocess.Popen[bytes]]:
    ours, theirs = socket_pair()
    process = subprocess.Popen([sys.executable, "-c", PEER, str(theirs.fileno()), *words], pass_fds=[theirs.fileno()])
    theirs.close()
    return Channel(SocketCarrier(ours), me="lab", peer="insurer", log=CountingLog(), timeout_s=20), process


def test_two_processes_talk() -> None:
    import numpy as np

    channel, process = _peer("talks")
    with process:
        channel.send(Topic.TRAIN, Step.FORWARD, {"batch": 1}, {"x": np.arange(200_000.0)})
        message = channel.receive(Topic.TRAIN, Step.BACKWARD)
        assert message.fields == {"batch": 1}
        np.testing.assert_array_equal(message.arrays["x"], 2 * np.arange(200_000.0))
        channel.send(Topic.TRAIN, Step.EPOCH)
    channel.close()


@pytest.mark.parametrize("nbytes", ["0", "3", "8", "5000"])
def test_a_process_that_dies_in_mid_frame_is_gone_and_its_half_frame_is_no_message(nbytes: str) -> None:
    channel, process = _peer("dies", nbytes)
    with process:
        channel.receive(Topic.TRAIN, Step.BACKWARD)
        with pytest.raises(PeerFailure) as caught:
            channel.receive(Topic.TRAIN, Step.BACKWARD)
        assert caught.value.code == "peer.gone"
    channel.close()
