"""Carriers without a network: in memory for tests, a socket pair between processes of one machine."""

from __future__ import annotations

import contextlib
import queue
import socket
import struct
import time
from collections.abc import Sequence

from .channel import CarrierClosedError, CarrierTimeoutError
from .message import MAX_NBYTES, Buffer, MalformedMessageError

_LENGTH = struct.Struct("<Q")
_GATHER = 8  # buffers in one system call
_PIECE_NBYTES = 256 * 1024  # of a buffer in one call: in a longer one the kernel starts its time-out again and again


class MemoryCarrier:
    """One end of a pair within a process."""

    def __init__(self, inbox: queue.Queue[bytearray | None], outbox: queue.Queue[bytearray | None]) -> None:
        self._inbox, self._outbox = inbox, outbox
        self._closed = False

    def send(self, buffers: Sequence[Buffer], timeout_s: float) -> None:
        """Hand over one frame."""
        if self._closed:
            raise CarrierClosedError
        self._outbox.put(bytearray().join(buffers), timeout=timeout_s)

    def receive(self) -> bytearray:
        """Wait for the next frame; `CarrierClosedError` when an end was closed."""
        frame = self._inbox.get()
        if frame is None:
            raise CarrierClosedError
        return frame

    def close(self) -> None:
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
        self._socket.setblocking(True)

    def send(self, buffers: Sequence[Buffer], timeout_s: float) -> None:
        """Write one frame; `CarrierTimeoutError` when the peer does not take it in time."""
        # A send time-out of the kernel: a Python time-out would make the file non-blocking for the reader as well.
        seconds, fraction = divmod(timeout_s, 1)
        limit = struct.pack("ll", int(seconds), int(1e6 * fraction) or int(not seconds))  # none at all means no limit
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
        deadline = time.monotonic() + timeout_s  # of the whole frame: a peer that takes it byte by byte is late too
        pending = [memoryview(_LENGTH.pack(sum(len(buffer) for buffer in buffers)))]
        for whole in buffers:
            buffer = memoryview(whole)
            pending += [buffer[at : at + _PIECE_NBYTES] for at in range(0, len(buffer), _PIECE_NBYTES)]
        try:
            while pending:
                sent = self._socket.sendmsg(pending[:_GATHER])
                late = time.monotonic() > deadline
                while sent:
                    step = min(sent, len(pending[0]))
                    pending[0] = pending[0][step:]
                    sent -= step
                    if not pending[0]:
                        del pending[0]
                if late and pending:
                    raise CarrierTimeoutError
        except BlockingIOError as failure:
            raise CarrierTimeoutError from failure
        except CarrierTimeoutError:
            raise
        except OSError as failure:
            raise CarrierClosedError from failure

    def receive(self) -> bytearray:
        """Read one frame.

        Raises `CarrierClosedError` at the end of the stream and `MalformedMessageError` for a length that cannot be.
        """
        (nbytes,) = _LENGTH.unpack(self._exactly(_LENGTH.size))
        if nbytes > MAX_NBYTES:
            raise MalformedMessageError("message length")
        return self._exactly(nbytes)

    def _exactly(self, nbytes: int) -> bytearray:
        frame = bytearray(nbytes)
        view = memoryview(frame)
        try:
            while view:
                got = self._socket.recv_into(view)
                if not got:
                    raise CarrierClosedError
                view = view[got:]
        except OSError as failure:
            raise CarrierClosedError from failure
        return frame

    def close(self) -> None:
        """End both directions, which also wakes up a blocked `receive`."""
        with contextlib.suppress(OSError):  # the peer was faster
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


def socket_pair() -> tuple[socket.socket, socket.socket]:
    """Two connected sockets whose ends can be given to two processes."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
