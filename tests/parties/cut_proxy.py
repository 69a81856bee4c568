"""A TCP proxy that a test can stall, slow down and cut: the way between two processes as networks sometimes are."""

from __future__ import annotations

import contextlib
import queue
import socket
import struct
import threading
import time
from typing import Literal, Self

Direction = Literal["up", "down"]  # from the client to the target, and back
BOTH: tuple[Direction, Direction] = ("up", "down")
_CHUNK_NBYTES = 256 * 1024
_RESET = struct.pack("ii", 1, 0)  # of SO_LINGER: close with a reset, as a host that has forgotten the connection


class CutProxy:
    """Listens on a loopback port and forwards to `target` (``host:port``).

    `delay_s` and `rate` (bytes a second, None for no limit) hold for each direction and may be changed at any time.
    `buffer_nbytes` is what a direction of one connection may hold: what is on its way, or stalled.
    """

    def __init__(
        self, target: str, *, delay_s: float = 0.0, rate: float | None = None, buffer_nbytes: int = 16 * 1024 * 1024
    ) -> None:
        host, _, port = target.rpartition(":")
        self.target = (host, int(port))
        self.delay_s: dict[Direction, float] = dict.fromkeys(BOTH, delay_s)
        self.rate: dict[Direction, float | None] = dict.fromkeys(BOTH, rate)
        self.accepted = 0  # connections so far
        self._buffer_chunks = max(1, buffer_nbytes // _CHUNK_NBYTES)
        self._flows = {direction: threading.Event() for direction in BOTH}
        self.resume()
        self._lock = threading.Lock()
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._closing = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"
        self._start(self._accept)

    def pause(self, direction: Direction | None = None) -> None:
        """Let nothing through, in one direction or in both; connections stay open, new ones are accepted and hang."""
        for each in BOTH if direction is None else (direction,):
            self._flows[each].clear()

    def resume(self) -> None:
        """Let everything through again, what was stalled first."""
        for flow in self._flows.values():
            flow.set()

    def cut(self) -> None:
        """Reset every connection; new ones are accepted."""
        with self._lock:
            ends, self._open = self._open, []
        for end in ends:
            with contextlib.suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def close(self) -> None:
        """Reset every connection and listen no more."""
        self._closing.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        self.resume()
        for thread in list(self._threads):
            thread.join(timeout=5)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()

    def _start(self, call: object, *arguments: object) -> None:
        thread = threading.Thread(target=call, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads = [each for each in self._threads if each.is_alive()] + [thread]
        thread.start()

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.adopt(client)

    def adopt(self, client: socket.socket) -> None:
        """Forward what comes by a socket that somebody else has accepted."""
        try:
            server = socket.create_connection(self.target, timeout=5)
        except OSError:
            client.close()
            return
        for end in (client, server):
            end.settimeout(None)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._lock:
            self.accepted += 1
            self._open += [client, server]
        if self._closing.is_set():
            self.cut()
        for source, sink, direction in ((client, server, "up"), (server, client, "down")):
            chunks: queue.Queue[tuple[float, bytes]] = queue.Queue(self._buffer_chunks)
            self._start(self._read, source, chunks)
            self._start(self._write, sink, chunks, direction)

    def _read(self, source: socket.socket, chunks: queue.Queue[tuple[float, bytes]]) -> None:
        while True:
            try:
                chunk = source.recv(_CHUNK_NBYTES)
            except OSError:
                chunk = b""
            chunks.put((time.monotonic(), chunk))
            if not chunk:
                return

    def _write(self, sink: socket.socket, chunks: queue.Queue[tuple[float, bytes]], direction: Direction) -> None:
        broken = False
        while True:
            came, chunk = chunks.get()
            if broken and chunk:
                continue  # what nobody takes any more, until its end
            time.sleep(max(0.0, came + self.delay_s[direction] - time.monotonic()))
            self._flows[direction].wait()
            rate = self.rate[direction]
            if rate is not None:
                time.sleep(len(chunk) / rate)
            try:
                if chunk:
                    sink.sendall(chunk)
                else:
                    sink.shutdown(socket.SHUT_WR)
            except OSError:
                broken = True
            if not chunk:
                return
