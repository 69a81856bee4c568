"""The carriers that put messages together, each as a `Target` of `attack_mutations`."""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable, Sequence

from target import ACCEPTED, REFUSED, Target
from targets_session import HIGHER, LOWER, handshake, met, sealed_frame

from isthmus.parties.network import message
from isthmus.parties.network.channel import CarrierClosedError, CarrierTimeoutError
from isthmus.parties.network.frame import FIRST, HEADER_NBYTES, LAST, MAX_PIECE_NBYTES, Header, Kind
from isthmus.parties.network.message import Buffer, MalformedMessageError, Topic
from isthmus.parties.network.resuming import ResumingCarrier
from isthmus.parties.network.sealed import SealedCarrier


class Tape:
    """A way on which lies what the attacker has put there; what is sent goes nowhere."""

    trouble = "peer.deadline"

    def __init__(self) -> None:
        self.frames: deque[bytes] = deque()
        self.on_control: Callable[[bytes], None] = lambda _: None
        self.on_reconnect: Callable[[], None] = lambda: None

    def send(
        self, topic: Topic | None, buffers: Sequence[Buffer], timeout_s: float, on_blocked: Callable[[], None]
    ) -> None:
        """Lose it."""

    def receive(self, timeout_s: float) -> bytes:
        if not self.frames:
            raise CarrierTimeoutError
        return self.frames.popleft()

    def close(self, *, linger_s: float = 0.0) -> None:
        """Nothing is held."""


def sealed_receive() -> Target:
    return _receive(SealedCarrier)


def resuming_receive() -> Target:
    return _receive(ResumingCarrier)


def _receive(kind: type[SealedCarrier] | type[ResumingCarrier]) -> Target:
    """The receiver has had two messages of one topic and is in the midst of one of another."""
    lower, higher, auth, _ = met()
    tape = Tape()
    carrier = kind(tape, higher, me=HIGHER, peer=LOWER)
    assert lower.session is not None
    short = [
        sealed_frame(lower.session, Topic.ALIGN, number, bytes([number]) * 40, FIRST | LAST, 40) for number in range(6)
    ]
    body = [bytes([7]) * MAX_PIECE_NBYTES, bytes([8]) * MAX_PIECE_NBYTES, bytes([9]) * 500]
    flags = (FIRST, 0, LAST)
    long = [
        sealed_frame(lower.session, Topic.TRAIN, number, piece, flags[number], sum(map(len, body)))
        for number, piece in enumerate(body)
    ]
    sealer = lower.session.sealer("bye")
    bye = sealer.seal(0, struct.pack("<12Q", *range(12)), Header(Kind.BYE, HIGHER, LOWER, sealer.channel).pack())
    hello = Header(Kind.HELLO, HIGHER, LOWER).pack() + lower.hello
    again = Header(Kind.AUTH, HIGHER, LOWER).pack() + auth
    huge = [
        Header(Kind.DATA, HIGHER, LOWER, one[72:88], 2, FIRST, message.MAX_NBYTES).pack() + one[96:] for one in short
    ]

    def feed(data: bytes) -> bytearray | None:
        tape.frames.append(data)
        try:
            return carrier.receive(0.0)
        except CarrierTimeoutError:
            return None

    assert feed(short[0]) and feed(short[1]) and feed(long[0]) is feed(long[1]) is None

    def attempt(data: bytes) -> str:
        got = feed(data)
        left = getattr(carrier, "_peer_ends", None) is not None
        moved = any(carrier._incoming[one[72:88]].expected != 2 for one in (short[0], long[0]))
        return ACCEPTED if got is not None or left or moved else REFUSED

    def still_works() -> bool:
        return feed(short[2]) == bytes([2]) * 40 and feed(long[2]) == b"".join(body)

    genuine = [*short, long[2], long[2], bye, hello, again, huge[0]]
    documented = (MalformedMessageError,) if kind is SealedCarrier else ()
    due = {short[2], long[2], bye} if kind is ResumingCarrier else {short[2], long[2]}
    return Target(
        genuine, attempt, documented, is_due=due.__contains__, still_works=still_works, bombs=[*long[:2], *huge]
    )


def sealed_meeting() -> Target:
    """Frames of any kind at a carrier that has no session yet."""
    ours, peer = handshake(HIGHER), handshake(LOWER)
    tape = Tape()
    carrier = SealedCarrier(tape, ours, me=HIGHER, peer=LOWER)
    auth = peer.on_hello(ours.hello)
    assert auth is not None
    hello_frame = Header(Kind.HELLO, HIGHER, LOWER).pack() + peer.hello
    due = Header(Kind.AUTH, HIGHER, LOWER).pack() + auth
    lower, _, stale, _ = met()
    assert lower.session is not None
    genuine = [
        hello_frame,
        due,
        due,
        Header(Kind.AUTH, HIGHER, LOWER).pack() + stale,
        Header(Kind.HELLO, HIGHER, LOWER).pack() + lower.hello,
        sealed_frame(lower.session, Topic.TRAIN, 0, bytes(40), FIRST | LAST, 40),
    ]

    def is_due(data: bytes) -> bool:
        return data[HEADER_NBYTES:] == auth  # the header of an AUTH says nothing; only what it carries is proved

    def attempt(data: bytes) -> str:
        tape.frames.append(data)
        try:
            carrier.receive(0.0)
        except CarrierClosedError:  # `peer.identity`: it has opened
            return ACCEPTED
        except CarrierTimeoutError:
            return REFUSED
        return ACCEPTED

    def still_works() -> bool:
        if ours.session is not None:
            return False
        tape.frames.extend((hello_frame, due))
        try:
            carrier.receive(1.0)
        except CarrierTimeoutError:
            return ours.session is not None
        return False

    return Target(genuine, attempt, (), is_due=is_due, still_works=still_works)


def resuming_control() -> Target:
    """Acknowledgements and requests to go back, at a sender that has sent ten frames."""
    lower, higher, *_ = met()
    tape = Tape()
    carrier = ResumingCarrier(tape, higher, me=HIGHER, peer=LOWER)
    assert lower.session is not None
    for number in range(10):
        carrier.send(Topic.TRAIN, [bytes([number]) * 30], 1.0, lambda: None)
    sealer = lower.session.sealer("control")
    genuine = []
    for number in range(8):
        header = Header(Kind.CONTROL, HIGHER, LOWER, sealer.channel, number).pack()
        genuine.append(sealer.seal(number, struct.pack("<B6Q", 1 + number % 2, *(6 * [number])), header))
    tape.on_control(genuine[2])  # so that 0 to 2 are old
    outgoing = carrier._outgoing[Topic.TRAIN]
    assert outgoing.first == 2

    def attempt(data: bytes) -> str:
        tape.on_control(data)
        return REFUSED if (outgoing.first, carrier._control_expected) == (2, 3) else ACCEPTED

    def still_works() -> bool:
        tape.on_control(genuine[7])
        return (outgoing.first, carrier._control_expected) == (7, 8)

    return Target(genuine, attempt, (), is_due=set(genuine[3:]).__contains__, still_works=still_works)
