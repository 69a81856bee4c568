"""An exchange in a thread of its own loop, and members that speak to it by plain gRPC streams."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc

from isthmus.parties.certificate import Certificate, make_certificate
from isthmus.parties.network.exchange import METHOD, SERVICE, Admitted, Exchange
from isthmus.parties.network.frame import HEADER_NBYTES, Header, Kind
from isthmus.parties.network.tls import channel_credentials, channel_options

ROOM, OTHER_ROOM = "0123456789abcdef" * 2, "f" * 32
DEADLINE_S = 20.0


def frame(source: str, destination: str, payload: bytes = b"") -> bytes:
    return Header(Kind.DATA, destination, source).pack() + payload


def eventually(is_so: Callable[[], bool], timeout_s: float = DEADLINE_S) -> None:
    until = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < until, "it did not come to be in time"
        time.sleep(0.01)


class Stream:
    """One stream of a member. What comes is read into memory by a thread, unless `reads` is False."""

    def __init__(self, channel: grpc.Channel, metadata: tuple[tuple[str, str], ...], *, reads: bool = True) -> None:
        self._out: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._in: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self.channel = channel
        relay: Any = channel.stream_stream(f"/{SERVICE}/{METHOD}")
        self.call = relay(iter(self._out.get, None), metadata=metadata, timeout=60)
        self._thread = threading.Thread(target=self._keep_reading, daemon=True)
        if reads:
            self._thread.start()

    def accepted(self) -> Stream:
        """Wait for the exchange's initial metadata; fails if it refused."""
        self.call.initial_metadata()
        assert self.call.is_active(), self.call.details()
        return self

    def send(self, whole: bytes) -> None:
        self._out.put(whole)

    def unsent(self) -> int:
        return self._out.qsize()

    def receive(self, timeout_s: float = DEADLINE_S) -> bytes:
        """The payload of the next frame."""
        return self._in.get(timeout=timeout_s)[HEADER_NBYTES:]

    def silent(self) -> bool:
        return self._in.empty()

    def status(self) -> tuple[grpc.StatusCode, str]:
        """How the stream ended, once it has."""
        eventually(self.call.done)
        return self.call.code(), self.call.details()

    def leave(self) -> None:
        """Go away without a word."""
        self.call.cancel()

    def finish(self) -> None:
        self._out.put(None)

    def read_on(self) -> None:
        self._thread.start()

    def _keep_reading(self) -> None:
        with contextlib.suppress(grpc.RpcError):
            for whole in self.call:
                self._in.put(whole)


class RelayWorld:
    """An exchange and three members; what the roster says may be changed."""

    def __init__(self, **options: Any) -> None:
        self.own = make_certificate()
        self.certificates = {name: make_certificate() for name in ("lab", "clinic", "insurer")}
        self.members = {name: own.certificate for name, own in self.certificates.items()}
        self.revoked: frozenset[str] = frozenset()
        self.expired: frozenset[str] = frozenset()
        self.broken = False
        self._streams: list[Stream] = []
        self._options = {"check_every_s": 0.2, **options}
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()
        self.port = 0
        self.start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        self.exchange = self.run(self._made)
        self.port = self.run(self.exchange.start)

    def run(self, make: Callable[[], Any]) -> Any:
        """Await something in the exchange's own loop."""
        return asyncio.run_coroutine_threadsafe(make(), self.loop).result(DEADLINE_S)

    def admitted(self) -> Admitted:
        if self.broken:
            raise RuntimeError("this roster cannot be read")
        return Admitted(dict(self.members), self.revoked, self.expired)

    def channel(self, own: Certificate, exchange: bytes = b"", **more: int) -> grpc.Channel:
        """A connection of its own, whose options may be changed (`lookahead_bytes=…`)."""
        changed = {
            f"grpc.{key}" if key.startswith("max") else f"grpc.http2.{key}": value for key, value in more.items()
        }
        kept = tuple(option for option in channel_options() if option[0] not in changed)
        credentials = channel_credentials(exchange or self.own.certificate, own.certificate, own.key)
        return grpc.secure_channel(self.address, credentials, (*kept, *changed.items()))

    def stream(
        self,
        member: str | Certificate,
        *,
        room: str = ROOM,
        lane: str = "fast",
        epoch: int | str = 1,
        reads: bool = True,
        changed: dict[str, str] | None = None,
        **options: int,
    ) -> Stream:
        """A stream, accepted or not; `changed` replaces metadata."""
        own = member if isinstance(member, Certificate) else self.certificates[member]
        said = {"version": "1", "room": room, "lane": lane, "epoch": str(epoch), **(changed or {})}
        metadata = tuple((f"isthmus-{key}", value) for key, value in said.items())
        stream = Stream(self.channel(own, **options), metadata, reads=reads)
        self._streams.append(stream)
        return stream

    def join(self, member: str, **options: Any) -> Stream:
        """A stream that the exchange has accepted."""
        return self.stream(member, **options).accepted()

    def waiting_nbytes(self) -> int:
        return sum(figures.waiting_nbytes() for figures in self.exchange.figures.lanes.values())

    def connections(self) -> int:
        return sum(figures.connections for figures in self.exchange.figures.lanes.values())

    def close(self) -> None:
        for stream in self._streams:
            stream.finish()
            stream.call.cancel()
            stream.channel.close()
        self.run(lambda: self.exchange.stop(1.0))
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10)
        self.loop.close()

    async def _made(self) -> Exchange:
        own = self.own
        options = {"listen": f"127.0.0.1:{self.port}", **self._options}
        return Exchange(certificate=own.certificate, key=own.key, admitted=self.admitted, **options)


@contextlib.contextmanager
def relay_world(**options: Any) -> Iterator[RelayWorld]:
    world = RelayWorld(**options)
    try:
        yield world
    finally:
        world.close()
