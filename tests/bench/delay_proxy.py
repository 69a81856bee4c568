"""A TCP proxy that gives every byte back a fixed time later: `delay_proxy.py TARGET_PORT DELAY_MS` prints its port.

Linux here has no `netem`. Each direction of each connection has a thread that reads and one that writes what is due, so
that it delays and does not slow down: what is on its way waits here, as in a long cable, in `SLOTS` slots at most.
`measure` says what it moves without a delay.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from queue import SimpleQueue

SLOT_NBYTES, SLOTS = 256 * 1024, 512
HOST = "127.0.0.1"


class Delayed:
    """What is on its way in one direction, in slots that are used again: new ones cost page faults."""

    def __init__(self, source: socket.socket, target: socket.socket, delay_s: float) -> None:
        self._source, self._target, self._delay_s = source, target, delay_s
        self._free: list[memoryview] = []  # the last one given back is taken first: it is still in a cache
        self._slots = 0
        self._waiting: SimpleQueue[tuple[float, memoryview, int]] = SimpleQueue()
        for work in (self._read, self._write):
            threading.Thread(target=work, daemon=True).start()

    def _slot(self) -> memoryview:
        while not self._free and self._slots >= SLOTS:
            time.sleep(0.001)
        if self._free:
            return self._free.pop()
        self._slots += 1
        return memoryview(bytearray(SLOT_NBYTES))

    def _read(self) -> None:
        nbytes = 1
        while nbytes:
            slot = self._slot()
            try:
                nbytes = self._source.recv_into(slot)
            except OSError:
                nbytes = 0
            self._waiting.put((time.monotonic() + self._delay_s, slot, nbytes))

    def _write(self) -> None:
        while True:
            due, slot, nbytes = self._waiting.get()
            if (left_s := due - time.monotonic()) > 0:
                time.sleep(left_s)
            try:
                if not nbytes:
                    self._target.shutdown(socket.SHUT_WR)
                    return
                self._target.sendall(slot[:nbytes])
            except OSError:
                with contextlib.suppress(OSError):
                    self._source.shutdown(socket.SHUT_RDWR)
                return
            self._free.append(slot)


def serve(target_port: int, delay_s: float) -> None:
    """Pass on every connection, until killed."""
    with socket.create_server((HOST, 0)) as server:
        print(server.getsockname()[1], flush=True)
        while True:
            near, _ = server.accept()
            far = socket.create_connection((HOST, target_port))
            for one in (near, far):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            Delayed(near, far, delay_s)
            Delayed(far, near, delay_s)


@contextlib.contextmanager
def proxy(target_port: int, delay_s: float) -> Iterator[int]:
    """A proxy in a process of its own; its port."""
    process = subprocess.Popen(
        [sys.executable, __file__, str(target_port), str(1000 * delay_s)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        yield int(process.stdout.readline())
    finally:
        process.kill()
        process.communicate()


def measure(nbytes: int, delay_s: float) -> tuple[float, float]:
    """Bytes a second that a proxy moves from a socket to another, and the seconds of a round trip of one byte."""
    with contextlib.ExitStack() as ends:
        server = ends.enter_context(socket.create_server((HOST, 0)))
        port = ends.enter_context(proxy(server.getsockname()[1], delay_s))
        near = ends.enter_context(socket.create_connection((HOST, port)))
        far = ends.enter_context(server.accept()[0])
        began = time.monotonic()
        near.sendall(b"?")
        far.sendall(far.recv(1))
        near.recv(1)
        round_trip_s = time.monotonic() - began
        pouring = threading.Thread(target=near.sendall, args=(bytes(nbytes),))
        began = time.monotonic()
        pouring.start()
        left, target = nbytes, bytearray(SLOT_NBYTES)
        while left:
            left -= far.recv_into(target)
        pouring.join()
        return nbytes / (time.monotonic() - began), round_trip_s


if __name__ == "__main__":
    serve(int(sys.argv[1]), float(sys.argv[2]) / 1000)
