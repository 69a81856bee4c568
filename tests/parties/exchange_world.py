"""An exchange in a thread of the test, its members, and links to it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterator

import grpc

from isthmus.parties.certificate import Certificate, make_certificate
from isthmus.parties.network.exchange import METHOD, SERVICE, Admitted, Exchange
from isthmus.parties.network.frame import Header, Kind
from isthmus.parties.network.link import Access, Link, LinkEnd
from isthmus.parties.network.message import Topic
from isthmus.parties.network.tls import channel_credentials, channel_options

ROOM = "0123456789abcdef" * 2


def frame(source: str, destination: str, content: bytes = b"", kind: Kind = Kind.DATA) -> bytes:
    """A frame whose payload nobody has sealed: a link does not look."""
    return Header(kind, destination, source).pack() + content


def content(whole: bytes) -> bytes:
    """What `frame` was given."""
    return whole[len(frame("x", "y")) :]


def put(end: LinkEnd, whole: bytes, topic: Topic | None = Topic.TRAIN, timeout_s: float = 10.0) -> None:
    """Send one frame."""
    end.send(topic, [whole], timeout_s, lambda: None)


def wait_until(is_so: Callable[[], bool], timeout_s: float = 20.0) -> None:
    """Wait for what must come to be; a failure if it does not."""
    until = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < until, "it did not come to be in time"
        time.sleep(0.01)


class World:
    """An exchange that can be stopped and started again on its port; its members are lab, clinic and insurer."""

    def __init__(self, own: Certificate | None = None) -> None:
        self.certificates = {name: make_certificate() for name in ("lab", "clinic", "insurer")}
        self.own = own or make_certificate()
        self._version = 1
        self._revoked: frozenset[str] = frozenset()
        self.port = 0
        self.exchange: Exchange | None = None
        self._links: list[Link] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.start()

    def start(self) -> None:
        """Serve, on the same port as before."""

        async def started() -> tuple[Exchange, int]:
            exchange = Exchange(
                listen=f"127.0.0.1:{self.port}",
                certificate=self.own.certificate,
                key=self.own.key,
                admitted=self._admitted,
                check_every_s=0.1,
            )
            return exchange, await exchange.start()

        self.exchange, self.port = asyncio.run_coroutine_threadsafe(started(), self._loop).result(20)

    def stop(self) -> None:
        """End all streams and listen no more."""
        if self.exchange is not None:
            asyncio.run_coroutine_threadsafe(self.exchange.stop(0), self._loop).result(20)
            self.exchange = None

    def link(
        self,
        name: str,
        *,
        epoch: int = 1,
        address: str = "",
        exchange_certificate: bytes = b"",
        own: Certificate | None = None,
        on_state: Callable[[bool], None] | None = None,
        wait: bool = True,
    ) -> Link:
        """A member's link; waits until it is up. `close` closes it."""
        own = own or self.certificates[name]
        access = Access(
            address=address or f"127.0.0.1:{self.port}",
            exchange_certificate=exchange_certificate or self.own.certificate,
            certificate=own.certificate,
            key=own.key,
        )
        link = Link(access, me=name, room=ROOM, epoch=epoch, on_state=on_state)
        self._links.append(link)
        if wait:
            wait_until(lambda: link.trouble is None)
        return link

    def pair(self, **options: str) -> tuple[LinkEnd, LinkEnd]:
        """The ends of lab and clinic, connected."""
        return self.link("lab", **options).end("clinic"), self.link("clinic").end("lab")  # type: ignore[arg-type]

    @contextlib.contextmanager
    def stream(self, name: str, lane: str, *, epoch: int = 1) -> Iterator[None]:
        """A stream of a member without a link, as another process of it would open."""
        own = self.certificates[name]
        credentials = channel_credentials(self.own.certificate, own.certificate, own.key)
        done = threading.Event()
        said = {"version": "1", "room": ROOM, "lane": lane, "epoch": str(epoch)}
        metadata = tuple((f"isthmus-{key}", value) for key, value in said.items())
        with grpc.secure_channel(f"127.0.0.1:{self.port}", credentials, channel_options()) as channel:
            relay: grpc.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(f"/{SERVICE}/{METHOD}")
            call = relay(_nothing_until(done), metadata=metadata)
            call.initial_metadata()
            yield
            done.set()
            call.cancel()

    def close_links(self) -> None:
        """Close every link that was made."""
        for link in self._links:
            link.close()
        self._links.clear()

    def close(self) -> None:
        """End it all."""
        self.close_links()
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def admit(self, certificates: dict[str, Certificate], revoked: frozenset[str] = frozenset()) -> None:
        """Change who may use the exchange, and wait until it knows."""
        self.certificates, self._revoked = certificates, revoked
        self._version += 1
        if self.exchange is not None:
            figures = self.exchange.figures
            wait_until(lambda: figures.roster_version == self._version)

    def _admitted(self) -> Admitted:
        version = self._version
        members = {name: own.certificate for name, own in self.certificates.items()}
        return Admitted(members, self._revoked, version=version)


def _nothing_until(done: threading.Event) -> Iterator[bytes]:
    done.wait(60)
    yield from ()
