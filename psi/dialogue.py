"""How the two sides of an alignment talk: with checked fields, and counting what both threads of a side do.

While one thread of a party receives and enciphers, another sends, and a party that has to work for long says so
(`parties.network.beats`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from ..parties.network.beats import after_beats
from ..parties.network.channel import Channel
from ..parties.network.message import Array, Message, Step, Topic

OnProgress = Callable[[int, int, int, int], None]


def await_step(channel: Channel, step: Step, /, *arrays: str, **kinds: type) -> Message:
    """Wait for a step, over the beats. It must hold exactly these arrays, and fields of these names and types."""
    message = after_beats(channel, Topic.ALIGN, step)
    _expect(channel, message, arrays, kinds)
    return message


def await_verdict(channel: Channel, step: Step, /, *arrays: str, **kinds: type) -> Message | None:
    """Wait for a step that says ``enough``: true with these arrays and fields, or false alone, which gives None."""
    message = after_beats(channel, Topic.ALIGN, step)
    if dict(message.fields) == {"enough": False} and not message.arrays:
        return None
    _expect(channel, message, arrays, {"enough": bool, **kinds})
    if not message.fields["enough"]:
        raise channel.refuse(Topic.ALIGN, f"{step} says no and more")
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
