"""One lane of a link: a stream of frames to the exchange that comes back after every failure.

A lane lives in a thread that connects, reads, and connects again: after 0.1 s at first, after 2 s at most. Every try is
a gRPC channel of its own, so nothing of a broken way lives on in the next: whatever waited to be sent when a stream
broke is dropped, and no frame is ever sent twice. A lane is up from the moment when the exchange has accepted it, which
its first metadata tell, until the stream ends.

A way that is dead without a word is noticed within 20 s (`_OPTIONS`: a ping after 6 s, 13 s for its answer).
"""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from queue import SimpleQueue
from typing import Protocol

os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # read when gRPC starts; what it would print, a lane turns into a code

import grpc

from ..certificate import expires
from .channel import CarrierTimeoutError
from .tls import channel_credentials, channel_options

METHOD = "/isthmus.Exchange/Relay"
VERSION = "1"
OUTBOX_NBYTES = 4 * 1024 * 1024
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 2.0
STEADY_S = 5.0  # a stream that was up for so long was no failed try: the next pause is short again
REPLACED_WITHIN_S, REPLACED_TIMES = 60.0, 3

_CODES = {  # what the exchange says when it refuses for good
    (grpc.StatusCode.FAILED_PRECONDITION, "fenced"): "exchange.fenced",
    (grpc.StatusCode.PERMISSION_DENIED, "revoked"): "exchange.revoked",
    (grpc.StatusCode.PERMISSION_DENIED, "expired"): "exchange.expired",
    (grpc.StatusCode.PERMISSION_DENIED, "unknown"): "exchange.refused",
    (grpc.StatusCode.INVALID_ARGUMENT, "metadata"): "exchange.refused",
}
_PING_AFTER_S, _PING_TIMEOUT_S = 6, 13  # together: when a dead way is noticed
_OPTIONS = (
    ("grpc.min_reconnect_backoff_ms", 10_000),  # how long a try to connect may take
    ("grpc.keepalive_time_ms", 1000 * _PING_AFTER_S),
    # The keepalive's own timeout never fires (grpc/grpc#39239): that of pings does, which is a minute otherwise. It is
    # long, since on a slow way the answer to a ping comes behind all the bulk that is on its way. For the same reason
    # nothing is pinged while data come in, which shows well enough that the way lives: no probes of its bandwidth.
    ("grpc.http2.ping_timeout_ms", 1000 * _PING_TIMEOUT_S),
    ("grpc.http2.bdp_probe", 0),
)
_REPLACED = (grpc.StatusCode.ABORTED, "replaced")
_random = secrets.SystemRandom()


@dataclass(frozen=True)
class Access:
    """Where the exchange is (``host:port``), its certificate, and our own with its key; all PEM."""

    address: str
    exchange_certificate: bytes
    certificate: bytes
    key: bytes = field(repr=False)


class Owner(Protocol):
    """Whom a lane tells what happens; always from the lane's own thread, which it must not block."""

    def frame_came(self, lane: Lane, frame: bytes) -> None:
        """A frame, of whatever content, came from the exchange."""

    def lane_changed(self, lane: Lane) -> None:
        """The lane came up, went down, or failed to come up."""

    def lane_ended(self, code: str) -> None:
        """The lane will not come back, by this code of the catalogue."""


class Lane:
    """One lane, `fast` or `bulk`.

    `up`: whether the exchange takes frames. `trouble`: the code of the catalogue that says why it does not.
    """

    def __init__(self, name: str, access: Access, *, room: str, epoch: int, owner: Owner) -> None:
        self.name, self.up, self.trouble = name, False, "exchange.down"
        self._access, self._owner = access, owner
        self._metadata = (
            ("isthmus-version", VERSION),
            ("isthmus-room", room),
            ("isthmus-lane", name),
            ("isthmus-epoch", str(epoch)),
        )
        self._outbox: Outbox | None = None  # of the stream that is up
        self._call: grpc.Call | None = None
        self._closing = threading.Event()
        self._lock = threading.Lock()  # of `_call` and `_closing`: no call begins unseen while the lane closes
        self._replaced: deque[float] = deque(maxlen=REPLACED_TIMES)
        self._thread = threading.Thread(target=self._run, name=f"link-{name}", daemon=True)

    def start(self) -> None:
        """Begin to connect."""
        self._thread.start()

    def send(
        self, frame: bytes, timeout_s: float, on_blocked: Callable[[], None], is_stopped: Callable[[], bool]
    ) -> None:
        """Hand one frame to the stream, or drop it while there is none.

        Raises `CarrierTimeoutError` when the exchange does not take what waits; `wake` makes it ask `is_stopped`.
        """
        outbox = self._outbox
        if outbox is not None:
            outbox.put(frame, timeout_s, on_blocked, is_stopped)

    def wake(self) -> None:
        """Make a blocked `send` look whether it should go on."""
        outbox = self._outbox
        if outbox is not None:
            outbox.wake()

    def finish(self) -> None:
        """End the stream behind what waits to be sent, and do not come back."""
        with self._lock:
            self._closing.set()
        outbox = self._outbox
        if outbox is None:
            self.cancel()
        else:
            outbox.end()

    def cancel(self) -> None:
        """End the stream at once, and do not come back."""
        with self._lock:
            self._closing.set()
            if self._call is not None:
                self._call.cancel()

    def join(self, timeout_s: float) -> None:
        """Wait for the lane's thread to end."""
        if self._thread is not threading.current_thread():
            self._thread.join(max(0.0, timeout_s))

    def _run(self) -> None:
        code = "peer.gone"  # also if something unforeseen ends this thread
        try:
            pause_s = FIRST_PAUSE_S
            while not self._closing.is_set():
                began = time.monotonic()
                refusal = self._stream()
                if refusal is not None:
                    code = refusal
                    return
                if time.monotonic() - began > STEADY_S:
                    pause_s = FIRST_PAUSE_S
                self._closing.wait(pause_s * _random.uniform(0.5, 1.0))
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
        finally:
            self._owner.lane_ended(code)

    def _stream(self) -> str | None:
        """One stream from its beginning to its end; the code of a refusal for good, None to try again."""
        outbox, refusal = Outbox(), None
        access = self._access
        credentials = channel_credentials(access.exchange_certificate, access.certificate, access.key)
        channel = grpc.secure_channel(access.address, credentials, _options())
        relay: grpc.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(METHOD)
        try:
            call = relay(outbox.frames(), metadata=self._metadata)
            with self._lock:
                self._call = call
                if self._closing.is_set():
                    call.cancel()
            call.initial_metadata()  # waits until the exchange has accepted, or the call has failed
            if call.is_active():
                self._outbox, self.up = outbox, True
                self._owner.lane_changed(self)
            frame_came = self._owner.frame_came
            for frame in call:
                frame_came(self, frame)
            self.trouble = "exchange.down"  # it ended the stream without a complaint
        except grpc.RpcError:
            refusal, self.trouble = self._judged(call.code(), call.details() or "")
        finally:
            self._outbox, self.up = None, False
            outbox.end()
            channel.close()
            self._owner.lane_changed(self)
        return refusal

    def _judged(self, status: grpc.StatusCode, words: str) -> tuple[str | None, str]:
        """What the end of a stream means: the code of a refusal for good or None, and what to tell meanwhile."""
        if (status, words) == _REPLACED:
            # By a newer process of ours, which fences us when we come again; or by an earlier try of our own that was
            # long on its way, and then we simply go on. A copy of us with the same epoch would take turns with us.
            self._replaced.append(time.monotonic())
            again = len(self._replaced) == REPLACED_TIMES
            if again and self._replaced[-1] - self._replaced[0] < REPLACED_WITHIN_S:
                return "exchange.fenced", "exchange.fenced"
            return None, "exchange.down"
        if (status, words) in _CODES:
            code = _CODES[status, words]
            return code, code
        if "CERTIFICATE_VERIFY_FAILED" in words:  # of the exchange, by us
            return None, "exchange.certificate"
        if "failed to connect" in words and "Socket closed" in words and "Handshake" not in words:
            # With TLS 1.3 our side of the handshake is done before the other judges our certificate and hangs up.
            over = expires(self._access.certificate) < datetime.now(UTC)
            return None, "exchange.expired" if over else "exchange.refused"
        return None, "exchange.down"


class Outbox:
    """What waits to be sent by one stream: bounded by bytes, though one frame always fits."""

    def __init__(self) -> None:
        self._frames: SimpleQueue[bytes | None] = SimpleQueue()
        self._room = threading.Condition(threading.Lock())
        self._nbytes = 0
        self._blocked = 0
        self._ended = False

    def put(
        self, frame: bytes, timeout_s: float, on_blocked: Callable[[], None], is_stopped: Callable[[], bool]
    ) -> None:
        """Put a frame in; wait for room if there is none, and raise `CarrierTimeoutError` if there comes none."""
        nbytes = len(frame)
        with self._room:
            if self._takes(nbytes):
                self._put(frame)
                return
        on_blocked()
        with self._room:
            self._blocked += 1
            try:
                if not self._room.wait_for(lambda: self._takes(nbytes) or is_stopped(), timeout_s):
                    raise CarrierTimeoutError
                if not is_stopped():
                    self._put(frame)
            finally:
                self._blocked -= 1

    def frames(self) -> Iterator[bytes]:
        """What gRPC sends: it asks for the next frame when the way has taken the last."""
        while (frame := self._frames.get()) is not None:
            with self._room:
                self._nbytes -= len(frame)
                if self._blocked:
                    self._room.notify_all()
            yield frame

    def end(self) -> None:
        """Let `frames` end behind what is in; what is put afterwards is dropped."""
        with self._room:
            self._ended = True
            self._frames.put(None)
            self._room.notify_all()

    def wake(self) -> None:
        """Make every `put` that waits look again."""
        with self._room:
            self._room.notify_all()

    def _takes(self, nbytes: int) -> bool:
        return self._ended or not self._nbytes or self._nbytes + nbytes <= OUTBOX_NBYTES

    def _put(self, frame: bytes) -> None:
        if not self._ended:
            self._nbytes += len(frame)
            self._frames.put(frame)


def _options() -> tuple[tuple[str, int | str], ...]:
    """The options of every channel of the house, and a lane's own instead of those of the same name."""
    return tuple({**dict(channel_options()), **dict(_OPTIONS)}.items())
