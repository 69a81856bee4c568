"""What a resuming carrier has to do beside sending and receiving, in a thread of its own, each at its time.

Acknowledge what has come, ask for what has not, and write what is due again. None of it may wait for whoever sends or
receives: they may be waiting for just that.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress

from .channel import CarrierClosedError, CarrierTimeoutError
from .message import Topic
from .window import Outgoing

ACK_S = 0.05
ASK_S = 0.2  # between two requests to go back


class Minder:
    """The chores of one carrier. `control` sends a frame that says what has come and, if it is given True, asks for
    what has not; what it cannot send is as good as lost, and due again later.
    """

    def __init__(self, name: str, outgoing: Mapping[Topic, Outgoing], control: Callable[[bool], None]) -> None:
        self._outgoing, self._control = outgoing, control
        self._duty = threading.Condition()
        self._ack_at: float | None = None
        self._ask_at: float | None = None
        self._asked_at = 0.0
        self._to_pump: set[Topic] = set()
        self._over = False
        self._thread = threading.Thread(target=self._mind, name=name, daemon=True)

    def start(self) -> None:
        """Begin: `outgoing` holds every topic from now on."""
        self._thread.start()

    def acknowledge_soon(self) -> None:
        """Say within `ACK_S` what has come."""
        if self._ack_at is None:
            with self._duty:
                self._ack_at = time.monotonic() + ACK_S
                self._duty.notify()

    def ask(self) -> None:
        """Ask for what is missing, as soon as that may be asked again."""
        if self._ask_at is None:
            with self._duty:
                self._ask_at = max(time.monotonic(), self._asked_at + ASK_S)
                self._duty.notify()

    def pump_soon(self, topic: Topic) -> None:
        """Write what of a topic is due again."""
        with self._duty:
            self._to_pump.add(topic)
            self._duty.notify()

    def stop(self) -> None:
        """End the thread, for which it does not wait: see `join`."""
        with self._duty:
            self._over = True
            self._duty.notify()

    def join(self) -> None:
        """Wait a second at most until the thread, if it was started, has ended."""
        if self._thread.ident is not None:
            self._thread.join(timeout=1)

    def _mind(self) -> None:
        while True:
            with self._duty:
                while not self._over and not self._to_pump:
                    due = min(self._due(), default=None)
                    left_s = None if due is None else due - time.monotonic()
                    if left_s is not None and left_s <= 0:
                        break
                    self._duty.wait(left_s)
                if self._over:
                    return
                now = time.monotonic()
                asks = self._ask_at is not None and self._ask_at <= now
                acknowledges = self._ack_at is not None and self._ack_at <= now
                topics, self._to_pump = self._to_pump, set()
                if asks:
                    self._ask_at, self._asked_at = None, now
                if asks or acknowledges:
                    self._ack_at = None
            if asks or acknowledges:
                with suppress(CarrierTimeoutError, CarrierClosedError):
                    self._control(asks)
            for topic, outgoing in self._outgoing.items():
                if (at := outgoing.owed_at) is not None and at <= now and outgoing.go_back(outgoing.first):
                    topics.add(topic)
            for topic in topics:
                with suppress(CarrierTimeoutError, CarrierClosedError):
                    if self._outgoing[topic].pump(ACK_S):
                        self.pump_soon(topic)

    def _due(self) -> Iterable[float]:
        """The times at which something is to be done."""
        times = [self._ack_at, self._ask_at, *(outgoing.owed_at for outgoing in self._outgoing.values())]
        return (at for at in times if at is not None)
