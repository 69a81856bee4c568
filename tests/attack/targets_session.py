"""The parsers of frames, of messages and of what makes a session, each as a `Target` of `attack_mutations`."""

from __future__ import annotations

import struct

import msgpack
import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from target import ACCEPTED, PASSED_ON, Target

from isthmus.parties.network import frame, message
from isthmus.parties.network.frame import FIRST, HEADER_NBYTES, LAST, TAG_NBYTES, Header, Kind
from isthmus.parties.network.message import MalformedMessageError, Message, Step, Topic
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
