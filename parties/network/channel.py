"""Channel: ordered, typed messages between two parties within one job.

Algorithms see four verbs: `send`, `receive`, `send_chunks`, `receive_chunks`. Each has a deadline whose error names the
peer, the topic and the step. What moves the bytes is a `Carrier`; what notes that they left is a `StreamLog`, asked
**before** the first byte of every topic: if it cannot write, nothing leaves (DESIGN, section 10).

Whoever waits for a message reads the carrier: no other thread stands between the bytes and the algorithm. Only when a
send finds the way full does a thread begin to read beside it, so that two parties which both send a lot never block
each other; it pauses while more than `INBOX_NBYTES` wait, which is what holds a fast sender back. Once a send has
failed, half a frame may be on its way: nothing is sent after it.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Protocol

from ..errors import InternalError, PeerFailure
from .message import Array, Buffer, MalformedMessageError, Message, Step, Topic, Value, decode, encode

TIMEOUT_S = 60.0
INBOX_NBYTES = 64 * 1024 * 1024
_MESSAGE_NBYTES = 1024  # about what the objects of a message cost beside its bytes: many small ones count too


class CarrierClosedError(ConnectionError):
    """The way is closed for good; `code` of the catalogue says why."""

    def __init__(self, code: str = "peer.gone") -> None:
        super().__init__(code)
        self.code = code


class CarrierTimeoutError(TimeoutError):
    """Nothing comes, or nothing is taken, within the time; `code` of the catalogue says why."""

    def __init__(self, code: str = "peer.deadline") -> None:
        super().__init__(code)
        self.code = code


class Carrier(Protocol):
    """Moves whole units of bytes (messages, or the frames that seal them) between two ends, in the order of each topic.

    `send` may run beside `receive`, and beside a `send` of another topic, in other threads. Both raise
    `CarrierClosedError` when an end was closed and `CarrierTimeoutError` after `timeout_s`; a `receive` that timed out
    may be called again and goes on where it was. `send` calls `on_blocked` when the other end does not take the bytes
    at once. `receive` raises `MalformedMessageError` for bytes that cannot be such a unit.
    """

    def send(  # noqa: D102
        self, topic: Topic | None, buffers: Sequence[Buffer], timeout_s: float, on_blocked: Callable[[], None]
    ) -> None: ...

    def receive(self, timeout_s: float) -> bytearray: ...  # noqa: D102

    def close(self, *, linger_s: float = 0.0) -> None:
        """Close this end; for `linger_s` see first that what was sent has arrived, where a way can lose it."""


class Stream(Protocol):
    """The ledger's open row for one topic: it counts what leaves."""

    def add(self, buffers: Sequence[Buffer]) -> None:
        """Count bytes that are about to leave."""


class StreamLog(Protocol):
    """What notes that bytes leave: the ledger."""

    def open(self, peer: str, topic: Topic) -> Stream:
        """Write the row's beginning, or raise."""

    def close(self, streams: Sequence[Stream]) -> None:
        """Write the ends of rows, with bytes and digests, at once."""


class Channel:
    """One party's end of the way to one peer.

    Errors: `PeerFailure` with the codes ``peer.gone`` (the other end closed), ``peer.deadline`` (silence) and
    ``peer.protocol`` (bytes that are no message, or a message that is not due).
    """

    def __init__(self, carrier: Carrier, *, me: str, peer: str, log: StreamLog, timeout_s: float = TIMEOUT_S) -> None:
        self.me, self.peer, self.timeout_s = me, peer, timeout_s
        self._carrier, self._log = carrier, log
        self._streams: dict[Topic, Stream] = {}
        # One a topic: a small message does not wait for a large one of another topic.
        self._sending = {topic: threading.Lock() for topic in Topic}
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._inbox: defaultdict[Topic, deque[tuple[int, Message]]] = defaultdict(deque)
        self._waiting_nbytes = 0
        self._receivers = 0  # that wait for another one to read
        self._ended: str | None = None  # the error code once nothing more can come
        self._late = "peer.deadline"  # the code of the next deadline that passes
        self._closed = False
        self._send_failed: PeerFailure | None = None
        self._reading = threading.Lock()  # held by the one who reads the carrier
        self._reader: threading.Thread | None = None
        self.sent: defaultdict[Topic, int] = defaultdict(int)
        self.received: defaultdict[Topic, int] = defaultdict(int)

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
        with self._sending[topic]:
            if self._closed:
                raise self._failure("peer.gone", topic, "the channel was closed here")
            if self._send_failed is not None:
                raise self._send_failed.afresh()
            stream = self._streams.get(topic)
            if stream is None:
                stream = self._streams[topic] = self._log.open(self.peer, topic)
            stream.add(buffers)
            self.sent[topic] += sum(map(len, buffers))
            try:
                self._carrier.send(topic, buffers, self.timeout_s, self._read_beside)
            except CarrierTimeoutError as failure:
                self._send_failed = self._deadline(topic, step, self.timeout_s, failure.code)
                raise self._send_failed from failure
            except CarrierClosedError as failure:
                self._send_failed = self._failure(failure.code, topic)
                raise self._send_failed from failure

    def receive(self, topic: Topic, *steps: Step, timeout_s: float | None = None) -> Message:
        """Wait for the next message of a topic, which must be this step, or one of these."""
        limit_s = self.timeout_s if timeout_s is None else timeout_s
        deadline = time.monotonic() + limit_s
        while (message := self._take(topic)) is None:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise self._deadline(topic, steps[0], limit_s, self._late)
            if self._waiting_nbytes > INBOX_NBYTES:  # we wait, and all that comes is something else
                raise self._failure("peer.protocol", topic, "too much came that was not due")
            if self._reading.acquire(blocking=False):
                try:
                    self._read_one(left_s)
                finally:
                    self._reading.release()
                    if self._receivers:
                        self._notify()
            else:
                self._wait_for_reader(topic, left_s)
        if message.step not in steps:
            due = " or ".join(steps)
            raise self._failure("peer.protocol", topic, f"{message.step} came where {due} was due")
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

    def close(self, *, linger_s: float = 0.0) -> None:
        """Close the carrier and the ledger's rows. Safe to call twice.

        For `linger_s` it waits until all that was sent has arrived; raises `PeerFailure` if it has not.
        """
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._changed.notify_all()
        try:
            self._carrier.close(linger_s=linger_s)
        except CarrierTimeoutError as failure:
            raise self._deadline(Topic.AGREE, Step.CLOSE, linger_s, failure.code) from failure
        except CarrierClosedError as failure:
            raise self._failure(failure.code, Topic.AGREE) from failure
        finally:
            if self._reader is not None:
                self._reader.join(timeout=5)
            with ExitStack() as stack:
                for lock in self._sending.values():
                    stack.enter_context(lock)
                self._log.close(tuple(self._streams.values()))

    def _take(self, topic: Topic) -> Message | None:
        """The next message of a topic that has come in; None if there may yet be one."""
        with self._lock:
            if self._inbox[topic]:
                nbytes, message = self._inbox[topic].popleft()
                self._waiting_nbytes -= nbytes
                if self._reader is not None:
                    self._changed.notify_all()
                return message
            if self._ended or self._closed:
                raise self._failure(self._ended or "peer.gone", topic)
            return None

    def _wait_for_reader(self, topic: Topic, timeout_s: float) -> None:
        """Wait until there is news, or nobody reads: who has read notifies if it finds `_receivers` counted."""
        with self._lock:
            self._receivers += 1
            try:
                self._changed.wait_for(lambda: self._is_news(topic) or not self._reading.locked(), timeout_s)
            finally:
                self._receivers -= 1

    def _is_news(self, topic: Topic) -> bool:
        return bool(self._inbox[topic] or self._ended or self._closed)

    def _read_one(self, timeout_s: float) -> None:
        """Read one frame into the inbox, or note why no more can come. The caller holds `_reading`."""
        try:
            frame = self._carrier.receive(timeout_s)
            message = decode(frame)
        except CarrierTimeoutError as failure:
            self._late = failure.code
            return
        except CarrierClosedError as failure:
            self._ended = self._ended or failure.code
            return
        except MalformedMessageError:
            self._ended = "peer.protocol"
            return
        with self._lock:
            self.received[message.topic] += len(frame)
            nbytes = len(frame) + _MESSAGE_NBYTES
            self._inbox[message.topic].append((nbytes, message))
            self._waiting_nbytes += nbytes

    def _read_beside(self) -> None:
        """Start to read in a thread: a send found the way full, and so may the other side."""
        if self._reader is None:
            self._reader = threading.Thread(target=self._keep_reading, name=f"channel-{self.peer}", daemon=True)
            self._reader.start()

    def _keep_reading(self) -> None:
        while not (self._ended or self._closed):
            with self._reading:
                self._read_one(self.timeout_s)
            with self._lock:
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._waiting_nbytes < INBOX_NBYTES or self._closed)

    def _notify(self) -> None:
        with self._lock:
            self._changed.notify_all()

    def _failure(self, code: str, topic: Topic, detail: str = "") -> PeerFailure:
        return PeerFailure(code, party=self.me, peer=self.peer, topic=topic.value, detail=detail)

    def _deadline(self, topic: Topic, step: Step, limit_s: float, code: str) -> PeerFailure:
        return PeerFailure(
            code, party=self.me, peer=self.peer, topic=topic.value, step=step.value, seconds=round(limit_s)
        )


class CountingLog:
    """A stream log that writes nothing down: for tests and benchmarks of algorithms alone."""

    def __init__(self) -> None:
        self.opened: list[tuple[str, Topic, float]] = []

    def open(self, peer: str, topic: Topic) -> Stream:
        """Remember that a stream began."""
        self.opened.append((peer, topic, time.time()))
        return _NoStream()

    def close(self, streams: Sequence[Stream]) -> None:
        """Nothing was written down."""


class _NoStream:
    def add(self, buffers: Sequence[Buffer]) -> None:
        pass
