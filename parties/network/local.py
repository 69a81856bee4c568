"""Carriers without a network: in memory for tests, a socket pair between processes of one machine."""

from __future__ import annotations

import contextlib
import queue
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Sequence

from .channel import CarrierClosedError, CarrierTimeoutError
from .message import MAX_NBYTES, Buffer, MalformedMessageError, Topic

_LENGTH = struct.Struct("<Q")
_GATHER = 64  # buffers in one system call
_BUFFER_NBYTES = 1024 * 1024


class MemoryCarrier:
    """One end of a pair within a process."""

    def __init__(self, inbox: queue.Queue[bytearray | None], outbox: queue.Queue[bytearray | None]) -> None:
        self._inbox, self._outbox = inbox, outbox
        self._closed = False

    def send(
        self, topic: Topic | None, buffers: Sequence[Buffer], timeout_s: float, on_blocked: Callable[[], None]
    ) -> None:
        """Hand over one frame; memory is never full."""
        if self._closed:
            raise CarrierClosedError
        self._outbox.put(bytearray().join(buffers))

    def receive(self, timeout_s: float) -> bytearray:
        """Wait for the next frame."""
        try:
            frame = self._inbox.get(timeout=timeout_s)
        except queue.Empty as failure:
            raise CarrierTimeoutError from failure
        if frame is None:
            self._inbox.put(None)  # for whoever asks again
            raise CarrierClosedError
        return frame

    def close(self, *, linger_s: float = 0.0) -> None:
        """Wake both ends up: neither receives any more."""
        if not self._closed:
            self._closed = True
            self._outbox.put(None)
            self._inbox.put(None)


def memory_pair() -> tuple[MemoryCarrier, MemoryCarrier]:
    """Two ends in one process."""
    left: queue.Queue[bytearray | None] = queue.Queue()
    right: queue.Queue[bytearray | None] = queue.Queue()
    return MemoryCarrier(left, right), MemoryCarrier(right, left)


class SocketCarrier:
    """One end of a socket pair: length-prefixed frames."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._socket.setblocking(False)
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):  # a batch fits in, so that a send seldom waits
            self._socket.setsockopt(socket.SOL_SOCKET, option, _BUFFER_NBYTES)
        self._sending = threading.Lock()  # topics share the one way
        self._frame = bytearray(_LENGTH.size)  # being read: the length first, then what it announces
        self._filled = 0
        self._in_length = True

    def send(
        self, topic: Topic | None, buffers: Sequence[Buffer], timeout_s: float, on_blocked: Callable[[], None]
    ) -> None:
        """Write one frame; `CarrierTimeoutError` when the peer does not take the whole of it in time."""
        with self._sending:
            self._send(buffers, timeout_s, on_blocked)

    def _send(self, buffers: Sequence[Buffer], timeout_s: float, on_blocked: Callable[[], None]) -> None:
        deadline = time.monotonic() + timeout_s
        pending = [memoryview(_LENGTH.pack(sum(len(buffer) for buffer in buffers)))]
        pending += [memoryview(buffer) for buffer in buffers if len(buffer)]
        while pending:
            try:
                sent = self._socket.sendmsg(pending[:_GATHER])
            except BlockingIOError:
                on_blocked()
                self._wait(select.POLLOUT, deadline)
                continue
            except OSError as failure:
                raise CarrierClosedError from failure
            while sent:
                step = min(sent, len(pending[0]))
                pending[0] = pending[0][step:]
                sent -= step
                if not pending[0]:
                    del pending[0]

    def receive(self, timeout_s: float) -> bytearray:
        """Read one frame.

        Raises `CarrierClosedError` at the end of the stream and `MalformedMessageError` for a length that cannot be.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            self._fill(deadline)
            whole, self._filled = self._frame, 0
            if self._in_length:
                (nbytes,) = _LENGTH.unpack(whole)
                if nbytes > MAX_NBYTES:
                    raise MalformedMessageError("message length")
                self._frame, self._in_length = bytearray(nbytes), False
            else:
                self._frame, self._in_length = bytearray(_LENGTH.size), True
                return whole

    def _fill(self, deadline: float) -> None:
        view = memoryview(self._frame)
        while self._filled < len(view):
            try:
                got = self._socket.recv_into(view[self._filled :])
            except BlockingIOError:
                self._wait(select.POLLIN, deadline)
                continue
            except OSError as failure:
                raise CarrierClosedError from failure
            if not got:
                raise CarrierClosedError
            self._filled += got

    def _wait(self, event: int, deadline: float) -> None:
        left_s = deadline - time.monotonic()
        poll = select.poll()
        try:
            poll.register(self._socket, event)
        except ValueError as failure:  # closed in the meantime
            raise CarrierClosedError from failure
        if left_s <= 0 or not poll.poll(1000 * left_s):
            raise CarrierTimeoutError

    def close(self, *, linger_s: float = 0.0) -> None:
        """End both directions, which also wakes up a blocked `receive`."""
        with contextlib.suppress(OSError):  # the peer was faster
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


def socket_pair() -> tuple[socket.socket, socket.socket]:
    """Two connected sockets whose ends can be given to two processes."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
