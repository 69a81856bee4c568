"""A member's end of the way to the exchange: two lanes, and a carrier of frames to each peer.

::

    LinkEnd of lab ──┐            ┌── lane fast: agreement, setup, handshakes, acknowledgements
                     ├── Link ────┤                                                              ──► the exchange
    LinkEnd of peer ─┘            └── lane bulk: everything else

A small frame never waits behind a large one of the other lane. Order holds within a lane. A link loses frames and never
repeats one: what is sent while a lane is down is dropped, and so is what waited when it broke. Who uses it numbers
the frames, resends them, and checks them (`sealed`): a link believes nothing that the exchange says, it only drops what
is no frame, or is from or for somebody else.

Proxies: gRPC goes by ``grpc_proxy``, ``https_proxy`` or ``http_proxy``, the first that is set, in small letters, and
asks it to CONNECT; ``http://user:password@proxy:3128`` gives it Basic credentials. ``no_grpc_proxy`` or ``no_proxy``
lists the hosts that are reached without. TLS is end to end through the proxy, which sees the exchange's address alone.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from queue import Empty, Queue, SimpleQueue

from .channel import CarrierClosedError, CarrierTimeoutError
from .frame import FAST_TOPICS, Kind, parse
from .lane import Access, Lane
from .memory import keep_freed_memory
from .message import Buffer, MalformedMessageError, Topic

__all__ = ["Access", "Link", "LinkEnd"]

INBOX_NBYTES = 256 * 1024 * 1024  # of one peer; the windows of `sealed` keep an honest one far below
LINGER_S = 0.5
_FRAME_NBYTES = 128  # about what the objects of a frame cost beside its bytes


class Link:
    """A member's connections to one exchange for one run; `end` gives the way to each peer.

    Parameters
    ----------
    me: the member's name, as its certificate is known to the exchange.
    room: 32 hexadecimal digits, which run this is.
    epoch: the attempt of this party at this run; a process with a higher one takes over from all with a lower one.
    on_state: told whether the exchange can be reached (both lanes are up), once a change, in a thread of the link.

    It connects at once, in threads of its own, and for ever: until `close`, or a refusal for good, which every end's
    `send` and `receive` raise as `CarrierClosedError` with the codes ``exchange.fenced``, ``exchange.revoked``,
    ``exchange.expired`` or ``exchange.refused``.
    """

    def __init__(
        self, access: Access, *, me: str, room: str, epoch: int, on_state: Callable[[bool], None] | None = None
    ) -> None:
        keep_freed_memory()
        self.dropped = 0  # frames that came and were nobody's
        self._me, self._on_state = me, on_state
        self._lock = threading.Lock()
        self._ends: dict[str, LinkEnd] = {}
        self._ended: str | None = None  # the code, once the link is over
        self._closed = False
        self._reachable: bool | None = None  # as it was last told
        self._news: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._teller = threading.Thread(target=self._tell, name="link-news", daemon=True)
        self._teller.start()
        self.lanes = [Lane(name, access, room=room, epoch=epoch, owner=self) for name in ("fast", "bulk")]
        for lane in self.lanes:
            lane.start()

    def end(self, peer: str) -> LinkEnd:
        """The way to a peer. A second one for the same peer closes the first."""
        fast, bulk = self.lanes
        end = LinkEnd(self, peer, fast=fast, bulk=bulk)
        with self._lock:
            earlier = self._ends.get(peer)
            self._ends[peer] = end
            over = self._ended is not None
        if earlier is not None:
            earlier.close()
        if over:
            end.finish()
        return end

    def close(self) -> None:
        """Send what waits to be sent, for half a second at most, and end all. Safe to call twice."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._finish("peer.gone")
        until = time.monotonic() + LINGER_S
        for lane in self.lanes:
            lane.finish()
        for lane in self.lanes:
            lane.join(until - time.monotonic())
        for lane in self.lanes:
            lane.cancel()
        for lane in self.lanes:
            lane.join(LINGER_S)
        self._news.put(None)
        if self._teller is not threading.current_thread():
            self._teller.join(LINGER_S)

    @property
    def ended(self) -> str | None:
        """The code of the catalogue that says why the link is over; None while it is not."""
        return self._ended

    @property
    def trouble(self) -> str | None:
        """The code of the catalogue that says why the exchange cannot be reached now; None while it can."""
        return self._ended or next((lane.trouble for lane in self.lanes if not lane.up), None)

    def forget(self, end: LinkEnd) -> None:
        """Drop what comes for an end that was closed."""
        with self._lock:
            if self._ends.get(end.peer) is end:
                del self._ends[end.peer]

    def frame_came(self, lane: Lane, frame: bytes) -> None:
        """Hand a frame to the end of the peer that it names as its source. In the lane's thread."""
        try:
            header = parse(frame)
        except MalformedMessageError:
            self.dropped += 1
            return
        end = self._ends.get(header.source)
        if end is None or header.destination != self._me:
            self.dropped += 1
        elif header.kind is Kind.CONTROL:
            end.on_control(frame)
        elif not end.take(lane, frame):
            self.dropped += 1

    def lane_changed(self, lane: Lane) -> None:
        """Let those who asked for it know. In the lane's thread, which must not wait for them."""
        with self._lock:
            reachable = all(each.up for each in self.lanes)
            news = reachable or not lane.up  # not that one lane is up and the other not yet
            if news and reachable is not self._reachable and not self._closed:
                self._reachable = reachable
                if self._on_state is not None:
                    self._news.put(partial(self._on_state, reachable))
            if lane.up:
                for end in self._ends.values():
                    self._news.put(end.reconnected)

    def lane_ended(self, code: str) -> None:
        """A lane will not come back: the other goes as well. In the lane's thread."""
        if self._closed:
            return  # the other may still have something to send
        self._finish(code)
        for each in self.lanes:
            each.cancel()

    def _finish(self, code: str) -> None:
        with self._lock:
            if self._ended is None:
                self._ended = code
            ends = list(self._ends.values())
        for end in ends:
            end.finish()

    def _tell(self) -> None:
        while (news := self._news.get()) is not None:
            news()


class LinkEnd:
    """A carrier of frames to one peer, which may lose them while the exchange cannot be reached.

    The owner sets two callbacks. `on_control` gets every CONTROL frame of the peer in the thread that reads the lane:
    it must not block. `on_reconnect` is called, in another thread of the link, each time that a lane has come up, the
    first time included: what was sent before may be lost.

    The order is that in which the peer sent, within each lane. Two threads may receive at once, as at the end, where
    one waits for the goodbye while another still reads: each frame then goes to one of them.
    """

    def __init__(self, link: Link, peer: str, *, fast: Lane, bulk: Lane) -> None:
        self.peer = peer
        self.on_control: Callable[[bytes], None] = _ignore
        self.on_reconnect: Callable[[], None] = _nothing
        self._link, self._fast, self._bulk = link, fast, bulk
        # Not a SimpleQueue: where two threads wait in one with a timeout, CPython's may forget the timeout of either.
        self._inbox: Queue[bytes | None] = Queue()
        self._taking = threading.Lock()  # of `_taken`
        # Bytes that came by each lane, and that were taken out.
        self._came = {fast: 0, bulk: 0}
        self._taken = 0
        self._over = False  # nothing more is sent
        self._drained = False  # nothing more is received

    def send(
        self, topic: Topic | None, buffers: Sequence[Buffer], timeout_s: float, on_blocked: Callable[[], None]
    ) -> None:
        """Send one frame by the lane of its topic; while that is down, the frame is dropped.

        Raises `CarrierTimeoutError` when the lane's queue stays full, `CarrierClosedError` once all is over.
        """
        if self._over:
            raise CarrierClosedError(self._link.ended or "peer.gone")
        lane = self._fast if topic in FAST_TOPICS else self._bulk
        lane.send(b"".join(buffers), timeout_s, on_blocked, self._is_over)
        if self._over:
            raise CarrierClosedError(self._link.ended or "peer.gone")

    def receive(self, timeout_s: float) -> bytes:
        """Wait for the next frame of the peer that is not CONTROL, from either lane.

        Raises `CarrierTimeoutError`, whose code says whether the exchange or the peer is what was waited for, and
        `CarrierClosedError` once all is over.
        """
        frame = None
        if not self._drained:
            try:
                frame = self._inbox.get(timeout=max(0.0, timeout_s))
            except Empty:
                raise CarrierTimeoutError(self.trouble) from None
        if frame is None:
            self._drained = True
            raise CarrierClosedError(self._link.ended or "peer.gone")
        with self._taking:
            self._taken += len(frame) + _FRAME_NBYTES
        return frame

    @property
    def trouble(self) -> str:
        """The code of a deadline that passes now: why the exchange cannot be reached, else that the peer is silent."""
        return self._link.trouble or "peer.deadline"

    def close(self) -> None:
        """Wake up whoever sends or receives; what waits to be sent still goes."""
        self._link.forget(self)
        self.finish()

    def finish(self) -> None:
        """Nothing more is sent, and what has come in is the last."""
        self._over = True
        self._inbox.put(None)
        self._fast.wake()
        self._bulk.wake()

    def take(self, lane: Lane, frame: bytes) -> bool:
        """Keep a frame for `receive`; False if too much waits already. In the lane's thread."""
        if sum(self._came.values()) - self._taken > INBOX_NBYTES:
            return False
        self._came[lane] += len(frame) + _FRAME_NBYTES
        self._inbox.put(frame)
        return True

    def reconnected(self) -> None:
        """Tell the owner that a lane is up."""
        if not self._over:
            self.on_reconnect()

    def _is_over(self) -> bool:
        return self._over


def _ignore(frame: bytes) -> None:
    """Nobody has asked for control frames yet."""


def _nothing() -> None:
    """Nobody has asked to be told yet."""
