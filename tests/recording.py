"""A carrier between two sides in one process that keeps what went over it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from isthmus.parties.network.local import MemoryCarrier, memory_pair
from isthmus.parties.network.message import Buffer, Message, Topic, decode


class RecordingCarrier:
    """A carrier that keeps every frame that was sent through it."""

    def __init__(self, inner: MemoryCarrier) -> None:
        self._inner, self.frames = inner, list[bytes]()

    def send(
        self, topic: Topic | None, buffers: Sequence[Buffer], timeout_s: float, on_blocked: Callable[[], None]
    ) -> None:
        self.frames.append(b"".join(bytes(buffer) for buffer in buffers))
        self._inner.send(topic, buffers, timeout_s, on_blocked)

    def receive(self, timeout_s: float) -> bytearray:
        return self._inner.receive(timeout_s)

    def close(self, *, linger_s: float = 0.0) -> None:
        self._inner.close()

    def messages(self) -> list[Message]:
        """The frames, read."""
        return [decode(bytearray(frame)) for frame in self.frames]


def recording_pair() -> tuple[RecordingCarrier, RecordingCarrier]:
    """Both ends of a way."""
    left, right = memory_pair()
    return RecordingCarrier(left), RecordingCarrier(right)
