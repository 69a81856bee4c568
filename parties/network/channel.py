"""Channel: ordered, typed messages between two parties within one job.

Algorithms see four verbs: `send`, `receive`, `send_chunks`, `receive_chunks`. Each has a deadline whose error names the
peer, the topic and the step. What moves the bytes is a `Carrier`; what notes that they left is a `StreamLog`, asked
**before** the first byte of every topic: if it cannot write, nothing leaves (DESIGN, section 10).

A thread a channel reads what comes in, so that two parties which both send a lot never block each other. It stops
reading while more than `INBOX_NBYTES` wait, which is what holds a fast sender back. Once a send has failed, half a
frame may be on its way: nothing is sent after it.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Protocol

from ..errors import InternalError, PeerFailure
from .message import Array, Buffer, MalformedMessageError, Message, Step, Topic, Value, decode, encode

TIMEOUT_S = 60.0
INBOX_NBYTES = 64 * 1024 * 1024
_MESSAGE_NBYTES = 1024  # about what the objects of a message cost beside its bytes: many small ones count too


class CarrierClosedError(ConnectionError):
    """The other end is gone."""


class CarrierTimeoutError(TimeoutError):
    """The other end does not take what is sent."""


class Carrier(Protocol):
    """Moves whole frames between two ends, in order. `send` may run beside `receive`, in another thread.

    Both raise `CarrierClosedError` when an end was closed. `send` raises `CarrierTimeoutError`; `receive` raises
    `MalformedMessageError` for bytes that cannot be a frame.
    """

    def send(self, buffers: Sequence[Buffer], timeout_s: float) -> None: ...  # noqa: D102

    def receive(self) -> bytearray: ...  # noqa: D102

    def close(self) -> None: ...  # noqa: D102


class Stream(Protocol):
    """The ledger's open row for one topic."""

    def add(self, buffers: Sequence[Buffer]) -> None:
        """Count bytes that are about to leave."""

    def close(self) -> None:
        """Write the row's end: bytes and digest."""


class StreamLog(Protocol):
    """What notes that bytes leave: the ledger."""

    def open(self, peer: str, topic: Topic) -> Stream:
        """Write the row's beginning, or raise."""


class Channel:
    """One party's end of the way to one peer.

    Errors: `PeerFailure` with the codes ``peer.gone`` (the other end closed), ``peer.deadline`` (silence) and
    ``peer.protocol`` (bytes that are no message, or a message that is not due).
    """

    def __init__(self, carrier: Carrier, *, me: str, peer: str, log: StreamLog, timeout_s: float = TIMEOUT_S) -> None:
        self.me, self.peer, self.timeout_s = me, peer, timeout_s
        self._carrier, self._log = carrier, log
        self._streams: dict[Topic, Stream] = {}
        self._send_lock = threading.Lock()
        self._changed = threading.Condition()
        self._inbox: defaultdict[Topic, deque[tuple[int, Message]]] = defaultdict(deque)
        self._waiting_nbytes = 0
        self._ended: str | None = None  # the error code once nothing more can come
        self._closed = False
        self._send_failed: PeerFailure | None = None
        self.sent: defaultdict[Topic, int] = defaultdict(int)
        self.received: defaultdict[Topic, int] = defaultdict(int)
        self._reader = threading.Thread(target=self._read, name=f"channel-{peer}", daemon=True)
        self._reader.start()

    def send(
        self,
        topic: Topic,
        step: Step,
        fields: Mapping[str, Value] | None = None,
        arrays: Mapping[str, Array] | None = None,
    ) -> None:
        """Send one message of a topic."""
        try:
            buffers = encode(Message(topic, step, fields or {}, arrays or {}))
        except MalformedMessageError as failure:
            raise InternalError("internal", party=self.me, detail=f"{topic}/{step}: {failure}") from failure
        with self._send_lock:
            if self._closed:
                raise self._failure("peer.gone", topic, "the channel was closed here")
            if self._send_failed is not None:
                raise self._send_failed.afresh()
            if topic not in self._streams:
                self._streams[topic] = self._log.open(self.peer, topic)
            self._streams[topic].add(buffers)
            self.sent[topic] += sum(len(buffer) for buffer in buffers)
            try:
                self._carrier.send(buffers, self.timeout_s)
            except CarrierTimeoutError as failure:
                self._send_failed = self._deadline(topic, step, self.timeout_s)
                raise self._send_failed from failure
            except CarrierClosedError as failure:
                self._send_failed = self._failure("peer.gone", topic)
                raise self._send_failed from failure

    def receive(self, topic: Topic, step: Step, *, timeout_s: float | None = None) -> Message:
        """Wait for the next message of a topic, which must be this step."""
        limit_s = self.timeout_s if timeout_s is None else timeout_s
        ready = lambda: self._inbox[topic] or self._ended or self._closed  # noqa: E731
        with self._changed:
            if not self._changed.wait_for(ready, limit_s):
                raise self._deadline(topic, step, limit_s)
            if not self._inbox[topic]:
                raise self._failure(self._ended or "peer.gone", topic)
            nbytes, message = self._inbox[topic].popleft()
            self._waiting_nbytes -= nbytes
            self._changed.notify_all()
        if message.step is not step:
            raise self._failure("peer.protocol", topic, f"{message.step} came where {step} was due")
        return message

    def send_chunks(self, topic: Topic, step: Step, chunks: Iterable[Array]) -> None:
        """Send arrays one after the other, then the end."""
        count = 0
        for chunk in chunks:
            self.send(topic, step, {"chunk": count}, {"items": chunk})
            count += 1
        self.send(topic, step, {"end": count})

    def receive_chunks(self, topic: Topic, step: Step) -> Iterator[Array]:
        """Yield the arrays of the other side's `send_chunks`; the deadline holds for each."""
        count = 0
        while True:
            message = self.receive(topic, step)
            if message.fields == {"end": count} and not message.arrays:
                return
            if message.fields != {"chunk": count} or list(message.arrays) != ["items"]:
                raise self._failure("peer.protocol", topic, f"chunk {count} of {step} is not in order")
            count += 1
            yield message.arrays["items"]

    def refuse(self, topic: Topic, detail: str) -> PeerFailure:
        """The error to raise for a message whose content breaks the protocol; `detail` is for our own log."""
        return self._failure("peer.protocol", topic, detail)

    def close(self) -> None:
        """Close the carrier and the ledger's rows. Safe to call twice."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._changed.notify_all()
        self._carrier.close()
        self._reader.join(timeout=5)
        with self._send_lock:
            for stream in self._streams.values():
                stream.close()

    def _read(self) -> None:
        while True:
            try:
                frame = self._carrier.receive()
                message = decode(frame)
            except CarrierClosedError:
                return self._end("peer.gone")
            except MalformedMessageError:
                return self._end("peer.protocol")
            with self._changed:
                self.received[message.topic] += len(frame)
                nbytes = len(frame) + _MESSAGE_NBYTES
                self._inbox[message.topic].append((nbytes, message))
                self._waiting_nbytes += nbytes
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._waiting_nbytes < INBOX_NBYTES or self._closed)
                if self._closed:
                    return None

    def _end(self, code: str) -> None:
        with self._changed:
            self._ended = code
            self._changed.notify_all()

    def _failure(self, code: str, topic: Topic, detail: str = "") -> PeerFailure:
        return PeerFailure(code, party=self.me, peer=self.peer, topic=topic.value, detail=detail)

    def _deadline(self, topic: Topic, step: Step, limit_s: float) -> PeerFailure:
        return PeerFailure(
            "peer.deadline", party=self.me, peer=self.peer, topic=topic.value, step=step.value, seconds=round(limit_s)
        )


class CountingLog:
    """A stream log that writes nothing down: for tests and benchmarks of algorithms alone."""

    def __init__(self) -> None:
        self.opened: list[tuple[str, Topic, float]] = []

    def open(self, peer: str, topic: Topic) -> Stream:
        """Remember that a stream began."""
        self.opened.append((peer, topic, time.time()))
        return _NoStream()


class _NoStream:
    def add(self, buffers: Sequence[Buffer]) -> None:
        pass

    def close(self) -> None:
        pass
