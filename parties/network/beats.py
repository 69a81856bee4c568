"""A party that works for long before its next message says so now and then.

``{"working": true}``, under the step that the peer waits for: so the peer's deadline measures silence, not the size of
a data set.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .channel import Channel
from .message import Message, Step, Topic

_WORKING = {"working": True}
_BEATS_PER_DEADLINE = 3
MOST_S = 86_400.0  # that a peer may work towards one message


@contextmanager
def speaking(channel: Channel, topic: Topic, *, then: Step, first: Callable[[], None] | None = None) -> Iterator[None]:
    """Run `first`, which sends, beside the body of the `with`; then beat until the body is done.

    `then` is the step that the peer waits for next. Whatever fails first, here or in the body, is raised; and the
    channel is closed, which at once ends the other of the two and the peer's waiting.
    """
    done = threading.Event()
    failures: list[BaseException] = []

    def speak() -> None:
        try:
            if first is not None:
                first()
            while not done.wait(channel.timeout_s / _BEATS_PER_DEADLINE):
                channel.send(topic, then, _WORKING)
        except BaseException as failure:  # raised again below, in the thread of the caller
            failures.append(failure)
            channel.close()

    thread = threading.Thread(target=speak, name=f"speaking-{channel.peer}", daemon=True)
    thread.start()
    try:
        yield
    except BaseException:
        earlier = failures[0] if failures else None  # looked up before closing makes the other thread fail as well
        channel.close()
        done.set()
        thread.join()
        if earlier is not None:
            raise earlier from None
        raise
    done.set()
    thread.join()
    if failures:
        raise failures[0]


def after_beats(channel: Channel, topic: Topic, step: Step) -> Message:
    """Wait for a step while the peer says that it is working, for a day at most. Raises `PeerFailure`."""
    began = time.monotonic()
    while True:
        message = channel.receive(topic, step)
        if time.monotonic() - began > MOST_S:
            raise channel.refuse(topic, "still working after a day")
        if dict(message.fields) != _WORKING or message.arrays:
            return message
