"""A sealed carrier over a way that may lose frames: what is between two members and an exchange.

::

    me→peer   DATA              numbered a topic from 0; at most a window of bytes without an acknowledgement
    peer→me   CONTROL ACK       the next number that the peer expects, of every topic: at a quarter of the window or
                                after 50 ms
              CONTROL RESUME    the same, and: send again from there, and say what you have; after a gap, a reconnect,
                                or when nothing comes
    both      BYE               no more will come than these numbers; again with every CONTROL that follows it

TCP delivers in order, so only reconnects lose frames: each side that has reconnected sends again what is not
acknowledged, byte for byte, and asks for what it misses. Control frames have a key and a counter of their own, and are
never sent twice.

Adversary: as of `sealed`. An exchange that drops, repeats, reorders, cuts or changes frames is found out, since only
the very frame that is due opens; the rest is counted in `refused` and asked for again, and whoever gets nothing ends at
its deadline.
"""

from __future__ import annotations

import logging
import struct
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from typing import Protocol

from .channel import CarrierClosedError, CarrierTimeoutError
from .frame import FAST_TOPICS, HEADER_NBYTES, TAG_NBYTES, Header, Kind
from .message import Buffer, MalformedMessageError, Topic
from .minder import ACK_S, ASK_S, Minder
from .sealed import Frame, FrameCarrier, Incoming, SealedCarrier
from .session import Handshake, NotForUsError, Session
from .window import Outgoing

BULK_WINDOW_NBYTES = 32 * 1024 * 1024  # at 40 ms between members, 4 MiB gives 42 MB/s and this 199
FAST_WINDOW_NBYTES = 1024 * 1024
IDLE_S = 3.0  # without a frame, after which one asks whether something was lost
LOOK_S = 0.01  # how often one that waits for the end looks whether it is there
GOODBYE_S = 5.0  # for which one that has ended still answers a peer that has not
_ACK, _RESUME = 1, 2
_CONTROL = struct.Struct(f"<B{len(Topic)}Q")
_BYE = struct.Struct(f"<{2 * len(Topic)}Q")
_log = logging.getLogger("isthmus.network")


class LossyCarrier(FrameCarrier, Protocol):
    """A carrier of frames that may lose some: `link.LinkEnd`."""

    on_control: Callable[[bytes], None]
    on_reconnect: Callable[[], None]

    @property
    def trouble(self) -> str:
        """The code of a deadline that passes now: whether the peer is silent, or nobody can be reached at all."""


class ResumingCarrier(SealedCarrier):
    """A `channel.Carrier` of messages, each of which arrives once and in its topic's order, or not at all."""

    retry_s = 0.5

    def __init__(self, way: LossyCarrier, handshake: Handshake, *, me: str, peer: str) -> None:
        super().__init__(way, handshake, me=me, peer=peer)
        self._lossy = way
        self._outgoing: dict[Topic, Outgoing] = {}
        self._unacknowledged = dict.fromkeys(Topic, 0)
        self._peer_ends: dict[Topic, int] | None = None  # after its BYE: how many frames of each topic it has sent
        self._sends_control = threading.Lock()
        self._takes_control = threading.Lock()
        self._control_number = self._control_expected = 0
        self._quiet_since = 0.0
        self._ending = threading.Lock()
        self._closing = False
        self._goodbye: bytes | None = None
        self._minder = Minder(f"resuming-{peer}", self._outgoing, self._control)
        way.on_control, way.on_reconnect = self._on_control, self._on_reconnect

    def _begin(self, session: Session) -> None:
        super()._begin(session)
        self._control_sealer, self._control_opener = session.sealer("control"), session.opener("control")
        self._bye_sealer, self._bye_opener = session.sealer("bye"), session.opener("bye")
        for topic in Topic:
            self._outgoing[topic] = Outgoing(self._writer(topic), _window(topic), lambda: self._lossy.trouble)
        self._quiet_since = time.monotonic()
        self._minder.start()
        if self.refused["early"]:
            self._minder.ask()  # what overtook the peer's AUTH

    def _writer(self, topic: Topic) -> Callable[[bytes, float, Callable[[], None]], None]:
        return lambda frame, timeout_s, on_blocked: self._way.send(topic, [frame], timeout_s, on_blocked)

    # --- sending -----------------------------------------------------------------------------------------------------

    def _send_piece(
        self, topic: Topic, piece: Buffer, flags: int, total: int, timeout_s: float, on_blocked: Callable[[], None]
    ) -> None:
        nbytes = HEADER_NBYTES + len(piece) + TAG_NBYTES
        self._outgoing[topic].push(nbytes, lambda: self._seal(topic, piece, flags, total), timeout_s, on_blocked)

    def _control(self, asks: bool) -> None:
        """Say what has come so far, and perhaps ask for what has not."""
        with self._sends_control:  # until it is sent: the peer takes none that comes after a later one
            expected = {incoming.topic: incoming.expected for incoming in self._incoming.values()}
            header = Header(Kind.CONTROL, self.peer, self.me, self._control_sealer.channel, self._control_number)
            plain = _CONTROL.pack(_RESUME if asks else _ACK, *(expected[topic] for topic in Topic))
            frame = self._control_sealer.seal(self._control_number, plain, header.pack())
            self._control_number += 1
            self._way.send(None, [frame], ACK_S, _nothing)
            if self._goodbye is not None:
                self._way.send(None, [self._goodbye], ACK_S, _nothing)

    # --- receiving ---------------------------------------------------------------------------------------------------

    def _next_frame(self, deadline: float) -> Frame:
        while True:
            if self._all_has_come():
                raise CarrierClosedError
            try:
                frame = self._way.receive(min(deadline - time.monotonic(), IDLE_S))
            except CarrierTimeoutError:
                if self._is_quiet() and self._peer_ends is not None:
                    raise CarrierClosedError from None  # it has gone, and what is missing will not come
                if time.monotonic() >= deadline:
                    raise
            else:
                self._quiet_since = time.monotonic()
                return frame

    def _is_quiet(self) -> bool:
        """Whether nothing has come for long; then ask whether something was lost."""
        now = time.monotonic()
        if now - self._quiet_since < IDLE_S:
            return False
        self._quiet_since = now
        self._minder.ask()
        return True

    def _all_has_come(self) -> bool:
        ends = self._peer_ends
        return ends is not None and all(one.expected >= ends[one.topic] for one in self._incoming.values())

    def _take(self, frame: Frame) -> bytearray | None:
        try:
            header = self._parsed(frame)
        except MalformedMessageError:
            self.refused["malformed"] += 1
            return None
        if header.kind in (Kind.HELLO, Kind.AUTH):
            self._answer(frame)  # it did not hear us
            return None
        if header.kind is Kind.BYE:
            self._on_bye(header, frame)
            return None
        incoming = self._incoming.get(header.channel)
        if header.kind is not Kind.DATA or incoming is None:
            self.refused["stray"] += 1
            return None
        if self._closing and header.sequence >= incoming.expected:
            return None  # nobody waits for it any more, so it has not arrived
        if header.sequence != incoming.expected:
            if header.sequence < incoming.expected:
                self.refused["repeated"] += 1
                self._minder.acknowledge_soon()  # it does not know that this has come
            else:
                self.refused["ahead"] += 1
                self._minder.ask()
            return None
        try:
            message = incoming.take(header, frame)
        except NotForUsError:
            self.refused["seal"] += 1
            self._minder.ask()
            return None
        self._count(incoming, len(frame))
        return message

    def _count(self, incoming: Incoming, nbytes: int) -> None:
        topic = incoming.topic
        self._unacknowledged[topic] += nbytes
        if self._unacknowledged[topic] < _window(topic) // 4:
            self._minder.acknowledge_soon()
            return
        self._unacknowledged[topic] = 0
        with _ignored():
            self._control(False)

    def _on_control(self, frame: bytes) -> None:
        """Take in a control frame, in the thread that reads the way: nobody has to wait for it."""
        if self._session is None:
            return
        with self._takes_control:
            self._take_control(frame)

    def _take_control(self, frame: bytes) -> None:
        try:
            header = self._parsed(frame)
            if header.channel != self._control_opener.channel or header.sequence < self._control_expected:
                raise MalformedMessageError("a control frame that is not due")
            kind, *numbers = _CONTROL.unpack(self._control_opener.open(header.sequence, frame))
        except (NotForUsError, MalformedMessageError, struct.error):
            self.refused["control"] += 1
            return
        self._control_expected = header.sequence + 1
        for topic, number in zip(Topic, numbers, strict=True):
            if kind != _RESUME:
                self._outgoing[topic].acknowledge(number)
            elif self._outgoing[topic].go_back(number):
                self._minder.pump_soon(topic)
        if kind == _RESUME:
            self._minder.acknowledge_soon()

    def _on_bye(self, header: Header, frame: Frame) -> None:
        try:
            numbers = _BYE.unpack(self._bye_opener.open(header.sequence, frame))
        except (NotForUsError, struct.error):
            self.refused["seal"] += 1
            return
        ends, expected = numbers[: len(Topic)], numbers[len(Topic) :]
        self._peer_ends = dict(zip(Topic, ends, strict=True))
        for topic, number in zip(Topic, expected, strict=True):
            self._outgoing[topic].acknowledge(number)
            self._outgoing[topic].end_here()

    def _on_reconnect(self) -> None:
        """The way was down: send again what may be lost, and ask for what may be."""
        if self._session is None:
            return
        for topic, outgoing in self._outgoing.items():
            if outgoing.rewind():
                self._minder.pump_soon(topic)
        self._minder.ask()

    # --- the end -----------------------------------------------------------------------------------------------------

    def close(self, *, linger_s: float = 0.0) -> None:
        """Say goodbye and close the way. Safe to call twice.

        For `linger_s` it first waits until the peer has all that was sent, and then, for a few seconds in which the way
        is there, for the peer's own goodbye, so that either may lose the way at the very end. Raises
        `CarrierTimeoutError` where the peer has not said that it has all, and `CarrierClosedError` where it has gone
        without: an exchange that kept back the last message must not make one side believe that all went well.
        """
        with self._ending:
            if self._closing:
                return
            self._closing = True
        arrived, late = True, ""
        if self._session is not None:
            deadline = time.monotonic() + linger_s
            self._see(lambda: self._all_has_arrived() or self._peer_ends is not None, deadline)
            arrived = self._all_has_arrived()
            late = self._lossy.trouble
            with _ignored():
                self._goodbye = self._bye()
                self._way.send(None, [self._goodbye], ASK_S, _nothing)
            if linger_s and arrived:
                self._see_goodbye(linger_s)
        self._minder.stop()
        for outgoing in self._outgoing.values():
            outgoing.end_here()
        self._way.close()
        self._minder.join()
        if self.refused:
            _log.warning("frames from %s that were not accepted: %s", self.peer, dict(self.refused))
        if linger_s and not arrived:
            raise CarrierTimeoutError(late) if self._peer_ends is None else CarrierClosedError

    def _all_has_arrived(self) -> bool:
        return all(outgoing.has_arrived for outgoing in self._outgoing.values())

    def _bye(self) -> bytes:
        expected = {incoming.topic: incoming.expected for incoming in self._incoming.values()}
        ends = [self._outgoing[topic].end for topic in Topic]
        header = Header(Kind.BYE, self.peer, self.me, self._bye_sealer.channel, 0)
        return self._bye_sealer.seal(0, _BYE.pack(*ends, *(expected[topic] for topic in Topic)), header.pack())

    def _see_goodbye(self, linger_s: float) -> None:
        """Wait a little for the peer's goodbye; while nobody can be reached, that time does not begin."""
        began = time.monotonic()
        until = began + GOODBYE_S

        def done() -> bool:
            nonlocal until
            now = time.monotonic()
            if self._lossy.trouble != "peer.deadline":  # it is not the peer that is silent
                until = now + GOODBYE_S
            return self._peer_ends is not None or now >= until

        self._see(done, began + linger_s)

    def _see(self, done: Callable[[], bool], deadline: float) -> bool:
        """Wait until something is done, still answering the peer; whether it is."""
        while not done():
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return False
            try:
                # In short steps: it may be another thread, in `receive`, that gets the frame which ends this.
                frame = self._way.receive(min(left_s, LOOK_S))
                self._quiet_since = time.monotonic()
                with self._taking:
                    self._take(frame)
            except CarrierTimeoutError:
                self._is_quiet()
            except CarrierClosedError:
                return done()
        return True


def _window(topic: Topic) -> int:
    return FAST_WINDOW_NBYTES if topic in FAST_TOPICS else BULK_WINDOW_NBYTES


def _ignored() -> AbstractContextManager[None]:
    """A frame that cannot be sent now is as good as lost, and will be asked for."""
    return suppress(CarrierTimeoutError, CarrierClosedError)


def _nothing() -> None:
    """For what is too small to find a way full."""
