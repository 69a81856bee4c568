"""Ways between two members within one process: what a sealed carrier is tested over."""

from __future__ import annotations

import queue
import secrets
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

    lossy = True
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


def noise(nbytes: int) -> bytes:
    return secrets.token_bytes(nbytes)
