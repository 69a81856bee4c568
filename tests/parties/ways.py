"""Ways between two members within one process: what a sealed carrier is tested over."""

from __future__ import annotations

import queue
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from isthmus.parties.network.channel import CarrierClosedError, CarrierTimeoutError
from isthmus.parties.network.frame import Header, Kind, parse
from isthmus.parties.network.message import Buffer, Topic
from isthmus.parties.network.resuming import ResumingCarrier
from isthmus.parties.network.sealed import SealedCarrier
from isthmus.parties.network.session import Binding, Handshake

JOB = "ab" * 32
Meddle = Callable[[Header, bytes], list[bytes]]  # what becomes of a frame on its way


class Way:
    """One end of a way whose frames somebody meddles with."""

    trouble = "peer.deadline"

    def __init__(self) -> None:
        self.inbox: queue.Queue[bytes | None] = queue.Queue()
        self.other: Way
        self.meddle: Meddle = lambda header, frame: [frame]
        self.sent: list[bytes] = []
        self.up = True
        self.on_control: Callable[[bytes], None] = lambda frame: None
        self.on_reconnect: Callable[[], None] = lambda: None

    def send(
        self, topic: Topic | None, buffers: Sequence[Buffer], timeout_s: float, on_blocked: Callable[[], None]
    ) -> None:
        frame = b"".join(bytes(buffer) for buffer in buffers)
        self.sent.append(frame)
        if self.up:
            for each in self.meddle(parse(frame), frame):
                self.other.deliver(each)

    def deliver(self, frame: bytes) -> None:
        if len(frame) > 1 and frame[1] == Kind.CONTROL:
            self.on_control(frame)
        else:
            self.inbox.put(frame)

    def receive(self, timeout_s: float) -> bytes:
        try:
            frame = self.inbox.get(timeout=max(0.0, timeout_s))
        except queue.Empty as failure:
            raise CarrierTimeoutError(self.trouble) from failure
        if frame is None:
            self.inbox.put(None)
            raise CarrierClosedError
        return frame

    def close(self) -> None:
        self.inbox.put(None)


def ways() -> tuple[Way, Way]:
    left, right = Way(), Way()
    left.other, right.other = right, left
    return left, right


KEYS = {name: Ed25519PrivateKey.from_private_bytes(name.encode().ljust(32, b".")) for name in ("insurer", "lab", "hub")}


def public(name: str) -> bytes:
    return KEYS[name].public_key().public_bytes_raw()


def handshake(me: str, peer: str, *, signer: str | None = None, **changes: Any) -> Handshake:
    """One side's handshake, pinned to the other's key."""
    key = KEYS[signer or me]
    facts = {"binding": Binding("study", "run-1"), "attempt": 1, "job": JOB, "peer_key": public(peer)} | changes
    return Handshake(key.sign, key.public_key().public_bytes_raw(), me=me, peer=peer, **facts)


def sealed_pair(left: Any, right: Any) -> tuple[SealedCarrier, SealedCarrier]:
    """Carriers over a way that loses nothing."""
    return (
        SealedCarrier(left, handshake("insurer", "lab"), me="insurer", peer="lab"),
        SealedCarrier(right, handshake("lab", "insurer"), me="lab", peer="insurer"),
    )


def resuming_pair(left: Any, right: Any) -> tuple[ResumingCarrier, ResumingCarrier]:
    """Carriers over a way that may lose frames."""
    return (
        ResumingCarrier(left, handshake("insurer", "lab"), me="insurer", peer="lab"),
        ResumingCarrier(right, handshake("lab", "insurer"), me="lab", peer="insurer"),
    )


class Beside:
    """Runs a call in a thread, at once: `result` waits for what it returned, or raises what it raised."""

    def __init__(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        self._outcome: list[Any] = []
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, args=(call, args, kwargs), daemon=True)
        self._thread.start()

    def _run(self, call: Callable[..., Any], args: Any, kwargs: Any) -> None:
        try:
            self._outcome.append(call(*args, **kwargs))
        except Exception as failure:
            self._failure = failure

    @property
    def is_running(self) -> bool:
        return self._thread.is_alive()

    def result(self) -> Any:
        self._thread.join(30)
        assert not self._thread.is_alive(), "it hangs"
        if self._failure is not None:
            raise self._failure
        return self._outcome[0]


def until(is_so: Callable[[], bool]) -> None:
    """Wait until something is so."""
    limit = time.monotonic() + 20
    while not is_so():
        assert time.monotonic() < limit, "it did not come to be"
        time.sleep(0.002)


def nothing() -> None:
    """For a send whose way is never full."""


def say(carrier: SealedCarrier, text: bytes, topic: Topic = Topic.TRAIN, timeout_s: float = 5.0) -> None:
    """Send a message of one buffer."""
    carrier.send(topic, [text], timeout_s, nothing)


def hear(carrier: SealedCarrier, timeout_s: float = 5.0) -> bytes:
    """Receive a message."""
    return bytes(carrier.receive(timeout_s))


def acquaint(left: SealedCarrier, right: SealedCarrier) -> None:
    """Make the session of two carriers, with a message each way."""
    hearing = Beside(hear, right)
    say(left, b"good day")
    assert hearing.result() == b"good day"
    say(right, b"to you, too")
    assert hear(left) == b"to you, too"


def noise(nbytes: int) -> bytes:
    return secrets.token_bytes(nbytes)


def kinds(frames: Sequence[bytes], kind: Kind) -> list[Header]:
    """The headers of those frames that are of a kind."""
    return [parse(frame) for frame in frames if frame[1] == kind]


def losing(*kinds_and_counts: tuple[Kind, int]) -> Meddle:
    """Lose the first so many frames of each kind."""
    left = dict(kinds_and_counts)

    def meddle(header: Header, frame: bytes) -> list[bytes]:
        if left.get(header.kind, 0) > 0:
            left[header.kind] -= 1
            return []
        return [frame]

    return meddle


def untouched(header: Header, frame: bytes) -> list[bytes]:
    """A way that nobody meddles with."""
    return [frame]
