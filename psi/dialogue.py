"""How the two sides of an alignment talk: at the same time, with checked fields, and never in silence.

While one thread of a party receives and enciphers, another sends. And a party that has to work for long before its
next message says so now and then (``{"working": true}``), so that the peer's deadline measures silence, not the size
of a data set.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from ..parties.network.channel import Channel
from ..parties.network.message import Array, Message, Step, Topic

OnProgress = Callable[[int, int, int, int], None]

_WORKING = {"working": True}
_BEATS_PER_DEADLINE = 3


@contextmanager
def speaking(channel: Channel, chunks: Iterable[Array] | None = None, *, then: Step) -> Iterator[None]:
    """Send chunks as `Step.POINTS` beside the body of the `with`; then beats, until the body is done.

    `then` is the step that the peer waits for next. Whatever fails first, here or in the body, is raised; and the
    channel is closed, which at once ends the other of the two and the peer's waiting.
    """
    done = threading.Event()
    failures: list[BaseException] = []

    def speak() -> None:
        try:
            if chunks is not None:
                channel.send_chunks(Topic.ALIGN, Step.POINTS, chunks)
            while not done.wait(channel.timeout_s / _BEATS_PER_DEADLINE):
                channel.send(Topic.ALIGN, then, _WORKING)
        except BaseException as failure:  # raised again below, in the thread of the caller
            failures.append(failure)
            channel.close()

    thread = threading.Thread(target=speak, name=f"speaking-{channel.peer}", daemon=True)
    thread.start()
    try:
        yield
    except BaseException:
        first = failures[0] if failures else None  # looked up before closing makes the other thread fail as well
        channel.close()
        done.set()
        thread.join()
        if first is not None:
            raise first from None
        raise
    done.set()
    thread.join()
    if failures:
        raise failures[0]


def await_step(channel: Channel, step: Step, /, *arrays: str, **kinds: type) -> Message:
    """Wait for a step, over the beats. It must hold exactly these arrays, and fields of these names and types."""
    message = _after_beats(channel, step)
    _expect(channel, message, arrays, kinds)
    return message


def await_verdict(channel: Channel, step: Step, /, *arrays: str, **kinds: type) -> Message | None:
    """Wait for a step that says ``enough``: true with these arrays and fields, or false alone, which gives None."""
    message = _after_beats(channel, step)
    if dict(message.fields) == {"enough": False} and not message.arrays:
        return None
    _expect(channel, message, arrays, {"enough": bool, **kinds})
    if not message.fields["enough"]:
        raise channel.refuse(Topic.ALIGN, f"{step} says no and more")
    return message


def _after_beats(channel: Channel, step: Step) -> Message:
    while True:
        message = channel.receive(Topic.ALIGN, step)
        if dict(message.fields) != _WORKING or message.arrays:
            return message


def _expect(channel: Channel, message: Message, arrays: Sequence[str], kinds: Mapping[str, type]) -> None:
    # Exact types: True is an int as well.
    if {name: type(value) for name, value in message.fields.items()} != kinds or set(message.arrays) != set(arrays):
        raise channel.refuse(Topic.ALIGN, f"{message.step} holds other fields than it should")


class Progress:
    """Counts the work of both threads of a pass, and tells it in order."""

    def __init__(self, number: int, passes: int, total: int, told: OnProgress | None) -> None:
        self._place, self._total, self._told = (number, passes), total, told
        self._lock = threading.Lock()
        self._done = 0

    def over(self, chunks: Iterable[Array]) -> Iterator[Array]:
        """Let chunks pass and count their elements."""
        for chunk in chunks:
            if self._told is not None:
                with self._lock:
                    self._done += len(chunk)
                    self._told(*self._place, self._done, self._total)
            yield chunk
