"""The parsers of what comes over the network, each as a `Target` of `attack_mutations`."""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable, Sequence

import msgpack
import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from target import ACCEPTED, PASSED_ON, REFUSED, Target

from isthmus.parties.network import frame, message
from isthmus.parties.network.channel import CarrierClosedError, CarrierTimeoutError
from isthmus.parties.network.frame import FIRST, HEADER_NBYTES, LAST, MAX_PIECE_NBYTES, TAG_NBYTES, Header, Kind
from isthmus.parties.network.message import Buffer, MalformedMessageError, Message, Step, Topic
from isthmus.parties.network.resuming import ResumingCarrier
from isthmus.parties.network.sealed import SealedCarrier
from isthmus.parties.network.session import Binding, Handshake, IdentityError, NotForUsError, Session

LOWER, HIGHER = "insurer", "lab"
_SIGNING = {name: Ed25519PrivateKey.generate() for name in (LOWER, HIGHER)}
_PUBLIC = {name: key.public_key().public_bytes_raw() for name, key in _SIGNING.items()}


def handshake(me: str, run: str = "run") -> Handshake:
    peer = HIGHER if me == LOWER else LOWER
    return Handshake(
        _SIGNING[me].sign,
        _PUBLIC[me],
        me=me,
        peer=peer,
        peer_key=_PUBLIC[peer],
        binding=Binding("north", run),
        attempt=1,
        job="ab" * 32,
    )


def met() -> tuple[Handshake, Handshake, bytes, bytes]:
    """The lower and the higher name in one session, and the AUTH that each has sent."""
    lower, higher = handshake(LOWER), handshake(HIGHER)
    auth = lower.on_hello(higher.hello)
    higher.on_hello(lower.hello)
    assert auth is not None
    answer = higher.on_auth(auth)
    assert answer is not None
    lower.on_auth(answer)
    return lower, higher, auth, answer


def sealed_frame(session: Session, topic: Topic, number: int, piece: bytes, flags: int, total: int) -> bytes:
    sealer = session.sealer(topic.value)
    header = Header(Kind.DATA, HIGHER, LOWER, sealer.channel, number, flags, total)
    return sealer.seal(number, piece, header.pack())


def _session() -> Session:
    session = met()[0].session
    assert session is not None
    return session


# --- frames and messages ----------------------------------------------------------------------------------------------


def frame_parse() -> Target:
    session = _session()
    genuine = [sealed_frame(session, topic, 0, bytes(50), FIRST | LAST, 50) for topic in Topic]
    genuine += [Header(kind, HIGHER, LOWER).pack() + bytes(20) for kind in Kind]
    genuine.append(Header(Kind.HELLO, "a" * 32, "b").pack())

    def attempt(data: bytes) -> str:
        # A header that `pack` makes is legal, whoever made it: its seal is what tells. Any other must not parse.
        return PASSED_ON if frame.parse(data).pack() == data[:HEADER_NBYTES] else ACCEPTED

    oversize = Header(Kind.DATA, HIGHER, LOWER).pack() + bytes(frame.MAX_FRAME_NBYTES)
    return Target(genuine, attempt, (MalformedMessageError,), bombs=[oversize])


def message_decode() -> Target:
    rows = np.arange(24, dtype="<f4").reshape(6, 4)
    messages = [
        Message(Topic.AGREE, Step.JOB, {"digest": "ab" * 32, "version": "1", "n": 2**40, "x": 0.5, "none": None}),
        Message(Topic.ALIGN, Step.POINTS, {"chunk": 3}, {"items": np.arange(66, dtype="|u1").reshape(2, 33)}),
        Message(Topic.TRAIN, Step.FORWARD, {"step": 7}, {"h": rows, "present": np.ones(6, "|b1")}),
        Message(Topic.SETUP, Step.SETUP, {"list": [1, [2, {"a": b"bytes"}]]}, {"empty": np.zeros((0, 3), "<i8")}),
    ]
    genuine = [b"".join(message.encode(one)) for one in messages]

    def attempt(data: bytes) -> str:
        decoded = message.decode(bytearray(data))
        try:
            message.encode(decoded)
        except MalformedMessageError:
            return ACCEPTED  # what a sender could not have made
        return PASSED_ON

    def whole(header: bytes) -> bytes:
        start = struct.pack("<I", len(header)) + header
        return start + bytes(-len(start) % 16)

    front = b"\x95\x01" + msgpack.packb("agree") + msgpack.packb("job")
    bombs = [
        whole(front + b"\xdf" + b"\xff" * 4 + b"\x90"),  # a map of 2**32 - 1 entries
        whole(front + b"\x80\xdd" + b"\xff" * 4),  # as many arrays
        whole(front + b"\x80" + msgpack.packb([["a", "<f8", [2**28, 2**28, 2**28, 0]]])),
        whole(front + b"\x81\xa1a" + b"\xc6" + b"\xff" * 4),  # bytes that are not there
        whole(front + b"\x81\xa1a" + b"\x91" * 1_000_000 + b"\x90\x90"),  # arrays in arrays in arrays
        whole(front + b"\x81\xa1a\x9f" + 15 * (b"\xdc\xff\xff" + b"\x90" * 65_535) + b"\x90"),  # a million empty arrays
        b"\xff\xff\xff\xff" + bytes(100),
    ]
    return Target(genuine, attempt, (MalformedMessageError,), bombs=bombs)


# --- the session ------------------------------------------------------------------------------------------------------


def _hellos(of: str) -> list[bytes]:
    return [handshake(of).hello, handshake(of).hello, handshake(HIGHER if of == LOWER else LOWER).hello]


def on_hello_lower() -> Target:
    return _on_hello(LOWER)


def on_hello_higher() -> Target:
    return _on_hello(HIGHER)


def _on_hello(me: str) -> Target:
    """A HELLO is authenticated by the AUTH alone: what is taken in must not fit the AUTH of the peer's own HELLO."""
    ours, peer = handshake(me), handshake(HIGHER if me == LOWER else LOWER)
    peer.on_hello(ours.hello)
    auth = ours.on_hello(peer.hello) or peer.on_hello(ours.hello)
    assert auth is not None
    theirs = peer.on_auth(auth) if me == LOWER else auth
    assert theirs is not None

    def attempt(data: bytes) -> str:
        ours.on_hello(data)
        try:
            ours.on_auth(theirs)
        except NotForUsError:
            return PASSED_ON
        return ACCEPTED

    def still_works() -> bool:
        try:
            ours.on_hello(peer.hello)
            ours.on_auth(theirs)  # of the lower name a new AUTH would be due, so this one is stale by now
        except NotForUsError:
            return me == LOWER
        return ours.session is not None

    return Target(
        [peer.hello, *_hellos(peer._me)],
        attempt,
        (NotForUsError,),
        is_due={peer.hello}.__contains__,
        still_works=still_works,
    )


def on_auth_lower() -> Target:
    return _on_auth(LOWER)


def on_auth_higher() -> Target:
    return _on_auth(HIGHER)


def _on_auth(me: str) -> Target:
    lower, higher = handshake(LOWER), handshake(HIGHER)
    due = lower.on_hello(higher.hello)
    higher.on_hello(lower.hello)
    assert due is not None
    ours = higher
    if me == LOWER:
        ours, answer = lower, higher.on_auth(due)
        assert answer is not None
        due = answer
    stale = [auth for _ in range(3) for auth in met()[2:]]  # of other sessions of the same two members

    def attempt(data: bytes) -> str:
        try:
            ours.on_auth(data)
        except IdentityError:
            return ACCEPTED  # it has opened
        return ACCEPTED

    def still_works() -> bool:
        if ours.session is not None:
            return False
        ours.on_auth(due)
        return ours.session is not None

    return Target([due, due, *stale], attempt, (NotForUsError,), is_due={due}.__contains__, still_works=still_works)


def opener_open() -> Target:
    lower, higher, *_ = met()
    assert lower.session and higher.session
    sizes = (0, 1, 20, 300, 2000)
    cut = [
        sealed_frame(lower.session, topic, number, bytes(2048), FIRST | LAST, 2048)[: HEADER_NBYTES + TAG_NBYTES]
        for number, topic in enumerate(Topic)
    ]
    whole = [
        sealed_frame(lower.session, topic, 10 + number, bytes(size), FIRST | LAST, size)
        for topic in (Topic.TRAIN, Topic.ALIGN)
        for number, size in enumerate(sizes)
    ]
    opener = higher.session.opener(Topic.TRAIN.value)
    of_topic = {one for one in whole if one[72:88] == opener.channel}
    target = memoryview(bytearray(frame.MAX_FRAME_NBYTES))

    def attempt(data: bytes) -> str:
        sequence = int.from_bytes(data[88:96], "little")
        try:
            opener.open_into(sequence, data, target[: max(0, len(data) - HEADER_NBYTES - TAG_NBYTES)])
        except NotForUsError:
            opener.open(sequence, data)
        return ACCEPTED

    def still_works() -> bool:
        return all(opener.open(int.from_bytes(one[88:96], "little"), one) is not None for one in of_topic)

    oversize = whole[0] + bytes(frame.MAX_FRAME_NBYTES)
    return Target(
        [*cut, *whole],
        attempt,
        (NotForUsError,),
        is_due=of_topic.__contains__,
        still_works=still_works,
        bombs=[oversize],
    )


# --- carriers ---------------------------------------------------------------------------------------------------------


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
