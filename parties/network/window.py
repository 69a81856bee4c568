"""What of one topic is on its way to a peer over a way that may lose it, and how much that may be.

A frame is sealed once and kept until the peer says that it has come: to send it again is to send the same bytes. The
window bounds what is kept, and so what an exchange ever holds for a peer that does not read.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

from .channel import CarrierClosedError, CarrierTimeoutError

Write = Callable[[bytes, float, Callable[[], None]], None]  # one frame, seconds, what to call when the way is full
AGAIN_S = 1.0  # a peer that asks again and again from the same frame on is answered once in this time


class Outgoing:
    """The frames of one topic: numbered from 0, kept until acknowledged, written in their order.

    `late` gives the code of a deadline that passes. `first` is the oldest frame that is kept, `end` the next number.
    """

    def __init__(self, write: Write, window_nbytes: int, late: Callable[[], str]) -> None:
        self._write, self._window, self._late = write, window_nbytes, late
        self._frames: deque[bytes] = deque()
        self._nbytes = 0
        self.first = self.end = 0
        self._cursor = 0  # the next to be written
        self._writing = threading.Lock()
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._gone = False
        self._went_back = (-1, 0.0)  # to which frame, and when
        self._owed_at: float | None = None

    def push(self, nbytes: int, seal: Callable[[], bytes], timeout_s: float, on_blocked: Callable[[], None]) -> None:
        """Send the next frame, which `seal` makes, once there is room for its `nbytes`.

        Raises `CarrierTimeoutError` when the peer has acknowledged nothing for `timeout_s`, and `CarrierClosedError`
        when it has said that it takes no more.
        """
        self._wait_for_room(nbytes, timeout_s, on_blocked)
        with self._writing:
            frame = seal()
            with self._lock:
                number = self.end
                self._frames.append(frame)
                self._nbytes += len(frame)
                self.end = number + 1
                is_next = self._cursor == number
                if is_next:
                    self._cursor = number + 1
            if is_next:
                self._write_as(number, frame, timeout_s, on_blocked)
            while self._cursor < self.end and self._write_next(timeout_s, on_blocked):
                pass

    def _wait_for_room(self, nbytes: int, timeout_s: float, on_blocked: Callable[[], None]) -> None:
        with self._lock:
            while not self._gone and self._frames and self._nbytes + nbytes > self._window:
                on_blocked()
                first = self.first
                if not self._changed.wait_for(lambda: self._gone or self.first != first, timeout_s):  # noqa: B023
                    raise CarrierTimeoutError(self._late())
            if self._gone:
                raise CarrierClosedError

    def pump(self, timeout_s: float) -> bool:
        """Write what is due, for about `timeout_s`; whether more may be due, as when another thread writes."""
        until = time.monotonic() + timeout_s
        if not self._writing.acquire(timeout=timeout_s):
            return True
        try:
            while self._write_next(timeout_s, lambda: None):
                if time.monotonic() >= until:
                    return True
            return False
        except CarrierTimeoutError:
            return True
        finally:
            self._writing.release()

    def _write_next(self, timeout_s: float, on_blocked: Callable[[], None]) -> bool:
        """Write the next frame that is due; False if there was none. The caller holds `_writing`."""
        with self._lock:
            self._cursor = max(self._cursor, self.first)
            if self._cursor == self.end:
                return False
            number = self._cursor
            frame = self._frames[number - self.first]
            self._cursor += 1
        self._write_as(number, frame, timeout_s, on_blocked)
        return True

    def _write_as(self, number: int, frame: bytes, timeout_s: float, on_blocked: Callable[[], None]) -> None:
        try:
            self._write(frame, timeout_s, on_blocked)
        except CarrierTimeoutError:
            with self._lock:
                self._cursor = min(self._cursor, number)
            raise

    def acknowledge(self, number: int) -> None:
        """Forget the frames before `number`: the peer has them. A number that was not sent yet says nothing."""
        with self._lock:
            if not self.first < number <= self.end:
                return
            for _ in range(number - self.first):
                self._nbytes -= len(self._frames.popleft())
            self.first = number
            self._changed.notify_all()

    def go_back(self, number: int) -> bool:
        """The peer asks for all from `number` on; whether anything is now due."""
        self.acknowledge(number)
        with self._lock:
            last, at = self._went_back
            now = time.monotonic()
            if self.first <= number < self._cursor:
                if number == last and now - at < AGAIN_S:
                    self._owed_at = at + AGAIN_S
                else:
                    self._went_back, self._cursor, self._owed_at = (number, now), number, None
            return self._cursor < self.end

    @property
    def owed_at(self) -> float | None:
        """When to go back to `first`, since the peer asked for it a second time and it has not come since."""
        with self._lock:
            return self._owed_at if self._went_back[0] == self.first < self.end else None

    def rewind(self) -> bool:
        """All that is kept may have been lost; whether anything is now due."""
        with self._lock:
            self._cursor = self.first
            return self.first < self.end

    @property
    def has_arrived(self) -> bool:
        """Whether the peer has said that it has everything."""
        with self._changed:
            return self.first == self.end

    def end_here(self) -> None:
        """The peer takes no more: wake up whoever waits for room."""
        with self._lock:
            self._gone = True
            self._changed.notify_all()
