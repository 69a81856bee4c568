"""One stream of a member at the exchange: what waits to be written to it, and who waits for that.

A frame waits in the outbox of the stream that it is for. Who sends to a full one waits too; a receiver that keeps
senders waiting and hardly takes anything is found out by `room_made`.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from typing import Any, TypeAlias

from cryptography import x509

from .admission import Introduction, RefusedError, padded

HELD_BACK_S = 10.0  # for which a stream may hold senders back and take hardly anything
FRAME_NBYTES = 128  # about what a frame costs beside its bytes: many small ones count too


class Connection:
    """One stream of a member, and what waits to be written to it."""

    def __init__(
        self, member: str, certificate: x509.Certificate, said: Introduction, routes: Routes, holding: Counter[str]
    ) -> None:
        self.member, self.certificate = member, certificate
        self.room, self.lane, self.epoch = said
        self.name, self.routes = padded(member), routes
        self.outbox: deque[bytes] = deque()
        self.waiting_nbytes = 0
        self.holding = holding
        self.sent = self.dropped = 0
        self._taken_nbytes = 0
        self._held_back: tuple[float, int] | None = None  # since when it holds senders back, and what it had taken then
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[RefusedError | None] = self._loop.create_future()  # None: the member went
        self._more: asyncio.Future[None] | None = None  # the writer waits for a frame
        self._room_made: asyncio.Future[None] | None = None  # senders wait for the writer

    def is_open(self) -> bool:
        """Whether it has not ended."""
        return not self.ended.done()

    def put(self, frame: bytes) -> None:
        """Have a frame wait."""
        self.outbox.append(frame)
        self.waiting_nbytes += len(frame) + FRAME_NBYTES
        self.holding[self.member] += len(frame) + FRAME_NBYTES
        self._wake_writer()

    def written(self, frame: bytes) -> None:
        """A frame out of the outbox was taken."""
        self.waiting_nbytes -= len(frame) + FRAME_NBYTES
        self.holding[self.member] -= len(frame) + FRAME_NBYTES
        self._taken_nbytes += len(frame) + FRAME_NBYTES
        if not self.outbox:
            self._held_back = None
        self._wake_senders()

    async def more(self) -> None:
        """Wait until there is something in the outbox, or the end."""
        self._more = self._loop.create_future()
        await self._more

    async def room_made(self, sender: Connection, least_nbytes: int) -> bool:
        """Wait until the outbox was drained a little, or either of the two ends.

        False once it has held senders back for `HELD_BACK_S` and taken less than `least_nbytes` meanwhile.
        """
        if self._room_made is None:
            self._room_made = self._loop.create_future()
        if self._held_back is None:
            self._held_back = self._loop.time(), self._taken_nbytes
        since, taken = self._held_back
        ends: set[asyncio.Future[Any]] = {self._room_made, sender.ended}
        left_s = since + HELD_BACK_S - self._loop.time()
        await asyncio.wait(ends, timeout=max(0.0, left_s), return_when=asyncio.FIRST_COMPLETED)
        if self._loop.time() < since + HELD_BACK_S:
            return True
        self._held_back = None  # a new time begins
        return self._taken_nbytes - taken >= least_nbytes

    def end(self, why: RefusedError | None = None) -> None:
        """Its frames are let go, and whoever waits for it goes on."""
        if self.is_open():
            self.ended.set_result(why)
            self.outbox.clear()
            self.holding[self.member] -= self.waiting_nbytes
            self.waiting_nbytes = 0
            self._wake_writer()
            self._wake_senders()

    def _wake_writer(self) -> None:
        if self._more is not None and not self._more.done():  # cancelled, when the loop ends
            self._more.set_result(None)

    def _wake_senders(self) -> None:
        if self._room_made is not None:
            self._room_made.set_result(None)  # nobody cancels it: senders wait beside it
            self._room_made = None


Routes: TypeAlias = dict[bytes, Connection]  # who is in a room, on a lane: by their names as frames hold them
