"""Messages over a way that nobody has to trust: each is cut into pieces, and each piece sealed into one frame.

::

    me, peer   HELLO, AUTH   the session (`session`), at the first message of either
    me→peer    DATA          a piece of a message, sealed with the key of its topic, numbered from 0

Every frame is checked, opened and put in its place, or refused: nothing that this end did not seal for that end, in
that session, on that topic, in that place, ever becomes part of a message. A message takes 4 MiB at most
before its first piece has opened, and then twice what has opened. `SealedCarrier` is for a way that keeps frames and
their order (a socket pair of one machine), so that a frame out of place is a breach; `resuming.ResumingCarrier` is for
one that may lose them.

Adversary: whoever carries the frames. It sees who speaks to whom, when and how many bytes (sizes and pace of messages
are not hidden), and can keep frames back; it learns no content and can change none unnoticed.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from .channel import CarrierClosedError, CarrierTimeoutError
from .frame import FIRST, HEADER_NBYTES, LAST, MAX_FRAME_NBYTES, MAX_PIECE_NBYTES, TAG_NBYTES, Header, Kind, parse
from .message import Buffer, MalformedMessageError, Topic
from .session import Handshake, IdentityError, NotForUsError, Opener, Session, VersionError

AT_ONCE_NBYTES = 4 * MAX_FRAME_NBYTES  # of a message, for which memory is taken before its first piece has opened
Frame = bytes | bytearray
_log = logging.getLogger("isthmus.network")


class FrameCarrier(Protocol):
    """What moves frames: a `channel.Carrier` whose units are frames."""

    def send(  # noqa: D102
        self, topic: Topic | None, buffers: Sequence[Buffer], timeout_s: float, on_blocked: Callable[[], None]
    ) -> None: ...

    def receive(self, timeout_s: float) -> Frame: ...  # noqa: D102

    def close(self) -> None: ...  # noqa: D102


def pieces(buffers: Sequence[Buffer]) -> Iterator[tuple[Buffer, int]]:
    """Cut a message into what one frame holds, with the flags of each; what lies whole in one buffer is not copied."""
    if sum(map(len, buffers)) <= MAX_PIECE_NBYTES:
        yield b"".join(buffers), FIRST | LAST
        return
    pending = deque(memoryview(buffer) for buffer in buffers if len(buffer))
    flags = FIRST
    while True:
        taken: list[memoryview] = []
        room = MAX_PIECE_NBYTES
        while pending and room:
            part = pending[0][:room]
            taken.append(part)
            room -= len(part)
            pending[0] = pending[0][len(part) :]
            if not len(pending[0]):
                pending.popleft()
        flags |= 0 if pending else LAST
        yield (taken[0] if len(taken) == 1 else b"".join(taken)), flags
        if flags & LAST:
            return
        flags = 0


@dataclass
class Incoming:
    """What has come of one topic: the number of the next frame, and the message that is being put together."""

    topic: Topic
    opener: Opener
    expected: int = 0
    _message: bytearray | None = None  # it grows with what has opened: a peer may announce more than it ever sends
    _size: int = 0  # of the whole message
    _filled: int = 0

    def take(self, header: Header, frame: Frame) -> bytearray | None:
        """Open the next frame; returns the message if this was its last piece.

        Raises `NotForUsError` for a frame that does not open, which changes nothing, and `MalformedMessageError` for
        one that opens and breaks the rules: then the peer itself does not keep to them.
        """
        nbytes = len(frame) - HEADER_NBYTES - TAG_NBYTES
        first, last = bool(header.flags & FIRST), bool(header.flags & LAST)
        filled = 0 if first else self._filled
        end = filled + nbytes
        size = header.total if self._message is None else self._size
        due = min(size - filled, MAX_PIECE_NBYTES)  # as `pieces` cuts: nobody can send empty ones for ever
        if first != (self._message is None) or header.total != size or nbytes != due or last != (end == size):
            self.opener.open(header.sequence, frame)
            raise MalformedMessageError("pieces of a message")
        message = self._message
        if message is None:
            message = bytearray(min(size, AT_ONCE_NBYTES))
        elif end > len(message):
            message.extend(bytes(min(size, 2 * len(message)) - len(message)))
        self.opener.open_into(header.sequence, frame, memoryview(message)[filled:end])
        self._message, self._size = message, size
        self.expected += 1
        self._filled = end
        if not last:
            return None
        whole, self._message, self._filled = self._message, None, 0
        return whole


class SealedCarrier:
    """A `channel.Carrier` of messages over a carrier of frames that keeps them all, and their order.

    The session is made at the first `send` or `receive`. Errors beside those of the carrier below: code
    ``peer.identity`` for a peer that does not hold the key that is pinned for it.
    """

    retry_s: float | None = None  # after which what makes the session is said again, on a way that may lose it

    def __init__(self, way: FrameCarrier, handshake: Handshake, *, me: str, peer: str) -> None:
        self.me, self.peer = me, peer
        self.refused: Counter[str] = Counter()  # frames that were not accepted, by the reason
        self._way, self._handshake = way, handshake
        self._meeting = threading.Lock()
        self._has_greeted = False
        self._session: Session | None = None
        self._incoming: dict[bytes, Incoming] = {}
        self._taking = threading.Lock()

    # --- the session -------------------------------------------------------------------------------------------------

    def _meet(self, timeout_s: float) -> Session:
        """The session; made first, if there is none yet."""
        if self._session is not None:
            return self._session
        deadline = time.monotonic() + timeout_s
        if not self._meeting.acquire(timeout=max(0.0, timeout_s)):
            raise CarrierTimeoutError
        try:
            if self._session is None:
                session = self._shake_hands(deadline)
                self._begin(session)
                self._session = session
            return self._session
        finally:
            self._meeting.release()

    def _shake_hands(self, deadline: float) -> Session:
        if not self._has_greeted or self.retry_s is not None:
            self._send_plain(Kind.HELLO, self._handshake.hello)
            self._has_greeted = True  # on a way that keeps it, a second one would come where a message is due
        sent = time.monotonic()
        while (session := self._handshake.session) is None:
            left_s = deadline - time.monotonic()
            again_s = left_s if self.retry_s is None else sent + self.retry_s - time.monotonic()
            try:
                self._answer(self._way.receive(max(0.001, min(left_s, again_s))))
            except CarrierTimeoutError as failure:
                if time.monotonic() >= deadline:
                    raise CarrierTimeoutError(*self._other_version() or (failure.code,)) from failure
            if time.monotonic() >= deadline and self._handshake.session is None:  # much came, and nothing of the peer
                raise CarrierTimeoutError(*self._other_version())
            if self.retry_s is not None and time.monotonic() - sent > self.retry_s:
                self._send_plain(Kind.HELLO, self._handshake.hello)
                sent = time.monotonic()
        return session

    def _other_version(self) -> tuple[str, ...]:
        """The code of a deadline at which the peer, or somebody in its name, has spoken another version."""
        return ("peer.version",) if self.refused["version"] else ()

    def _answer(self, frame: Frame) -> None:
        """Take in what makes a session, and say what is due in turn. Anything else is refused."""
        try:
            header = self._parsed(frame)
            payload = bytes(memoryview(frame)[HEADER_NBYTES:])
            if header.kind is Kind.HELLO:
                answer = self._handshake.on_hello(payload)
            elif header.kind is Kind.AUTH:
                answer = self._handshake.on_auth(payload)
            else:
                self.refused["early"] += 1
                return
        except IdentityError as failure:
            _log.error("%s is answered for by somebody without its key: %s", self.peer, failure)
            raise CarrierClosedError("peer.identity") from failure
        except VersionError:
            self.refused["version"] += 1
            return
        except (NotForUsError, MalformedMessageError):
            self.refused["handshake"] += 1
            return
        if answer is not None:
            self._send_plain(Kind.AUTH, answer)

    def _begin(self, session: Session) -> None:
        """Make the keys of every topic."""
        self._sealers = {topic: session.sealer(topic.value) for topic in Topic}
        self._numbers = dict.fromkeys(Topic, 0)
        for topic in Topic:
            opener = session.opener(topic.value)
            self._incoming[opener.channel] = Incoming(topic, opener)

    def _send_plain(self, kind: Kind, payload: bytes) -> None:
        header = Header(kind, self.peer, self.me)
        self._way.send(None, [header.pack(), payload], 5.0, _nothing)

    def _parsed(self, frame: Frame) -> Header:
        header = parse(frame)
        if (header.source, header.destination) != (self.peer, self.me):
            raise MalformedMessageError("frame names")
        return header

    # --- messages ----------------------------------------------------------------------------------------------------

    def send(
        self, topic: Topic | None, buffers: Sequence[Buffer], timeout_s: float, on_blocked: Callable[[], None]
    ) -> None:
        """Send one message of a topic. No two at once of the same topic: the channel sees to it."""
        assert topic is not None
        self._meet(timeout_s)
        total = sum(map(len, buffers))
        for piece, flags in pieces(buffers):
            self._send_piece(topic, piece, flags, total, timeout_s, on_blocked)

    def _send_piece(
        self, topic: Topic, piece: Buffer, flags: int, total: int, timeout_s: float, on_blocked: Callable[[], None]
    ) -> None:
        self._way.send(topic, [self._seal(topic, piece, flags, total)], timeout_s, on_blocked)

    def _seal(self, topic: Topic, piece: Buffer, flags: int, total: int) -> bytes:
        """The next frame of a topic."""
        sealer, number = self._sealers[topic], self._numbers[topic]
        self._numbers[topic] = number + 1
        header = Header(Kind.DATA, self.peer, self.me, sealer.channel, number, flags, total)
        return sealer.seal(number, piece, header.pack())

    def receive(self, timeout_s: float) -> bytearray:
        """Wait for the next whole message, of any topic."""
        deadline = time.monotonic() + timeout_s
        self._meet(timeout_s)
        while True:
            frame = self._next_frame(deadline)
            with self._taking:
                message = self._take(frame)
            if message is not None:
                return message
            if time.monotonic() >= deadline:  # frames come without an end, and make no message
                raise CarrierTimeoutError

    def _next_frame(self, deadline: float) -> Frame:
        return self._way.receive(deadline - time.monotonic())

    def _take(self, frame: Frame) -> bytearray | None:
        """Put a frame in its place; returns the message if that made one whole."""
        header = self._parsed(frame)
        incoming = self._incoming.get(header.channel)
        if header.kind is not Kind.DATA or incoming is None or header.sequence != incoming.expected:
            raise MalformedMessageError("a frame that is not due")
        try:
            return incoming.take(header, frame)
        except NotForUsError as failure:
            raise MalformedMessageError("a broken seal") from failure

    def close(self, *, linger_s: float = 0.0) -> None:
        """Close the way."""
        self._way.close()


def _nothing() -> None:
    """For what is too small to find a way full."""
