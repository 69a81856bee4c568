"""The exchange: a relay that members connect out to. It is blind, keeps nothing on disk, and may be restarted.

1. A member opens a stream a lane, over TLS with its pinned certificate (`tls`), and says in metadata: protocol version,
   room (which run), lane, epoch (the attempt of this member at this run).
2. The exchange looks the certificate up in the roster: the member's name comes from there, never from what it says.
   It refuses a revoked, expired or unknown one, and an epoch that is older than the one connected; an older stream of
   the same room, member and lane is cut. It answers with empty initial metadata: accepted.
3. Frames pass from stream to stream of the same room and lane, by the destination in their header, if the source is
   the certificate's member. A frame for somebody who is not connected is dropped: whoever sealed it sends it again.
4. Each stream has an outbox bounded by bytes. When it is full, the exchange stops reading from those who send to it.
5. The roster is read again every few seconds; whoever is no longer in it, or no longer valid, is cut.

**Who learns what**: the exchange sees who speaks to whom, in which room and lane, when and how much; the payloads are
sealed from vault to vault (`session`), and it holds no key to them. It could drop, repeat, reorder or alter frames:
the vaults detect that and never obey it.

**Adversary here**: a member that pretends to be another, floods, never reads, or keeps old streams; anybody without a
pinned certificate. What each of them can reach is its own streams' end, and memory up to an outbox a stream.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import re
import socket
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeAlias

import grpc
from cryptography import x509

from ..errors import InputError
from .frame import HEADER_NBYTES, MAX_FRAME_NBYTES, NAME_NBYTES
from .metrics import LANES, Figures
from .tls import server_credentials, server_options

VERSION = "1"
SERVICE, METHOD = "isthmus.Exchange", "Relay"
_DESTINATION, _SOURCE = slice(8, 8 + NAME_NBYTES), slice(40, 40 + NAME_NBYTES)
_FRAME_NBYTES = 128  # about what a frame costs beside its bytes: many small ones count too
_ROOM = re.compile(r"[0-9a-f]{32}")
_EPOCH = re.compile(r"[0-9]{1,18}")
_ABORT_S = 2.0  # a stream that takes no status in this time, because it does not read, is reset

Context: TypeAlias = "grpc.aio.ServicerContext[bytes, bytes]"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Admitted:
    """Who may use the exchange: members' certificates by name, PEM, and which of them are revoked."""

    members: Mapping[str, bytes]
    revoked: frozenset[str] = frozenset()
    version: int | None = None  # of the roster, if there is one


class Refused(Exception):
    """Why a stream is not opened, or is cut: a status and the word that goes with it."""

    def __init__(self, code: grpc.StatusCode, word: str) -> None:
        super().__init__(word)
        self.code, self.word = code, word


def _denied(word: str) -> Refused:
    return Refused(grpc.StatusCode.PERMISSION_DENIED, word)


def _invalid(word: str) -> Refused:
    return Refused(grpc.StatusCode.INVALID_ARGUMENT, word)


class _Roster:
    """`Admitted`, ready to be looked up."""

    def __init__(self, admitted: Admitted) -> None:
        self.admitted = admitted
        certificates = {name: x509.load_pem_x509_certificate(pem) for name, pem in admitted.members.items()}
        self.names = {certificate: name for name, certificate in certificates.items()}
        self.padded = {_padded(name) for name in (*admitted.members, *admitted.revoked)}

    def member(self, certificate: x509.Certificate) -> str:
        """Whose certificate this is, if it is valid now; raises `Refused`."""
        name = self.names.get(certificate)
        if name is None:
            raise _denied("unknown")
        if name in self.admitted.revoked:
            raise _denied("revoked")
        if certificate.not_valid_after_utc < datetime.now(UTC):
            raise _denied("expired")
        return name


@dataclass(eq=False)
class _Connection:
    """One stream of a member, and what waits to be written to it."""

    member: str
    certificate: x509.Certificate
    room: str
    lane: str
    epoch: int
    cut: asyncio.Future[Refused] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    outbox: deque[bytes] = field(default_factory=deque)
    waiting_nbytes: int = 0
    closed: bool = False
    more: asyncio.Future[None] | None = None  # the writer waits for a frame
    room_made: list[asyncio.Future[None]] = field(default_factory=list)  # senders wait for the writer
    sent: int = 0
    dropped: int = 0

    def is_open(self) -> bool:
        return not self.closed

    def put(self, frame: bytes) -> None:
        self.outbox.append(frame)
        self.waiting_nbytes += len(frame) + _FRAME_NBYTES
        if self.more is not None:
            self.more.set_result(None)
            self.more = None

    def taken(self, frame: bytes) -> None:
        self.waiting_nbytes -= len(frame) + _FRAME_NBYTES
        self.wake_senders()

    def wake_senders(self) -> None:
        if self.room_made:
            woken, self.room_made = self.room_made, []
            for sender in woken:
                if not sender.done():  # the sender itself may be gone
                    sender.set_result(None)

    def end(self, why: Refused) -> None:
        """Cut the stream: its frames are let go, and whoever waits to send to it goes on."""
        self.close()
        if not self.cut.done():
            self.cut.set_result(why)

    def close(self) -> None:
        self.closed = True
        self.outbox.clear()
        self.waiting_nbytes = 0
        self.wake_senders()


class Exchange:
    """The relay. `admitted` is called at the start and every `check_every_s`; `listen` is ``host:port``.

    `outbox_nbytes` bounds what waits for one stream, `connections_per_member` how many streams one member may have.
    """

    def __init__(
        self,
        *,
        listen: str,
        certificate: bytes,
        key: bytes,
        admitted: Callable[[], Admitted],
        check_every_s: float = 5.0,
        outbox_nbytes: int = 64 * 1024 * 1024,
        connections_per_member: int = 64,
    ) -> None:
        self._listen, self._certificate, self._key = listen, certificate, key
        self._admitted, self._check_every_s = admitted, check_every_s
        self._outbox_nbytes, self._connections_per_member = outbox_nbytes, connections_per_member
        self._roster = _Roster(admitted())
        self._routes: dict[tuple[str, str], dict[bytes, _Connection]] = {}  # (room, lane) → padded name → stream
        self._streams: Counter[str] = Counter()  # by member
        self.figures = Figures()
        for lane, figures in self.figures.lanes.items():
            figures.waiting_nbytes = lambda lane=lane: self._waiting_nbytes(lane)  # type: ignore[misc]
        self._checked_at = 0.0

    async def start(self) -> int:
        """Listen and serve; gives the port. Raises `InputError` ``exchange.port_taken`` and ``exchange.invalid``."""
        self._server = grpc.aio.server(options=server_options(self._connections_per_member))
        handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.stream_stream_rpc_method_handler(self._relay)
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {METHOD: handler}),))
        roots = server_credentials(self._certificate, self._key, lambda: self._roster.admitted.members.values())
        try:
            port = self._server.add_secure_port(self._listen, roots)
        except RuntimeError as failure:
            raise _no_port(self._listen, str(failure)) from failure
        await self._server.start()
        self._follow()
        self._following = asyncio.create_task(self._keep_following())
        return port

    async def stop(self, grace_s: float = 1.0) -> None:
        """Cut all streams and stop; streams that take longer than `grace_s` to end are reset."""
        self._following.cancel()
        for connection in self._connections():
            connection.end(Refused(grpc.StatusCode.UNAVAILABLE, "stopping"))
        await self._server.stop(grace_s)

    async def serve_until(self, stopped: Awaitable[object], grace_s: float = 1.0) -> None:
        """Serve until `stopped` is done, then stop."""
        try:
            await stopped
        finally:
            await self.stop(grace_s)

    def healthy(self) -> bool:
        """Whether the loop that serves is alive: it has looked at the roster not long ago. For any thread."""
        return time.monotonic() - self._checked_at < 3 * self._check_every_s + 1

    async def _relay(self, _: object, context: Context) -> None:
        try:
            connection = self._accept(context)
        except Refused as refused:
            self.figures.refused[refused.word] += 1
            await context.abort(refused.code, refused.word)
        reader = writer = None
        try:
            await context.send_initial_metadata(())
            reader = asyncio.create_task(self._read(connection, context))
            writer = asyncio.create_task(self._write(connection, context))
            ends: set[asyncio.Future[Any]] = {reader, writer, connection.cut}
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if connection.cut.done():
                why = connection.cut.result()
                self.figures.refused[why.word] += 1
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(context.abort(why.code, why.word), _ABORT_S)
        finally:
            self._forget(connection)
            for task in (reader, writer):
                if task is not None:
                    task.cancel()

    def _accept(self, context: Context) -> _Connection:
        """Check certificate and metadata, and take the stream into the table; raises `Refused`."""
        (pem,) = context.auth_context()["x509_pem_cert"]
        certificate = x509.load_pem_x509_certificate(pem)
        member = self._roster.member(certificate)
        room, lane, epoch = _introduction(context)
        routes = self._routes.setdefault((room, lane), {})
        older = routes.get(_padded(member))
        if older is not None:
            if epoch < older.epoch:
                raise Refused(grpc.StatusCode.FAILED_PRECONDITION, "fenced")
            older.end(Refused(grpc.StatusCode.ABORTED, "replaced"))
            self._forget(older)
            routes = self._routes.setdefault((room, lane), {})
        elif self._streams[member] >= self._connections_per_member:
            if not routes:
                del self._routes[room, lane]
            raise Refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "connections")
        connection = routes[_padded(member)] = _Connection(member, certificate, room, lane, epoch)
        self._streams[member] += 1
        self.figures.lanes[lane].connections += 1
        _log.info("%s connected: room %s, lane %s, epoch %d", member, room, lane, epoch)
        return connection

    def _forget(self, connection: _Connection) -> None:
        """Take a stream out of the table; safe to call twice."""
        connection.close()
        place = connection.room, connection.lane
        routes = self._routes.get(place, {})
        if routes.get(_padded(connection.member)) is not connection:
            return
        del routes[_padded(connection.member)]
        if not routes:
            del self._routes[place]
        self._streams[connection.member] -= 1
        self.figures.lanes[connection.lane].connections -= 1
        told = connection.member, *place, connection.sent, connection.dropped
        _log.info("%s gone: room %s, lane %s; frames sent %d, of them dropped %d", *told)

    async def _read(self, connection: _Connection, context: Context) -> None:
        """Pass on what a member sends, until it ends or breaks a rule."""
        source, routes = _padded(connection.member), self._routes[connection.room, connection.lane]
        figures = self.figures.lanes[connection.lane]
        while connection.is_open():
            frame = await context.read()
            if not isinstance(frame, bytes) or not connection.is_open():  # the stream's end, or it was cut meanwhile
                return
            if not HEADER_NBYTES <= len(frame) <= MAX_FRAME_NBYTES:
                return connection.end(_invalid("frame"))
            if frame[_SOURCE] != source:
                return connection.end(_invalid("source"))
            destination = frame[_DESTINATION]
            connection.sent += 1
            receiver = routes.get(destination)
            while receiver is not None and receiver.waiting_nbytes >= self._outbox_nbytes:
                made = asyncio.get_running_loop().create_future()
                receiver.room_made.append(made)
                await made
                if not connection.is_open():
                    return
                receiver = routes.get(destination)
            if receiver is None or receiver is connection:
                if receiver is connection or destination not in self._roster.padded:
                    return connection.end(_invalid("frame"))
                self.figures.dropped["absent"] += 1
                connection.dropped += 1
                continue
            receiver.put(frame)
            figures.frames += 1
            figures.nbytes += len(frame)

    async def _write(self, connection: _Connection, context: Context) -> None:
        """Write what waits for a member, frame by frame, and keep none of it."""
        outbox = connection.outbox
        while connection.is_open():
            while outbox:
                frame = outbox.popleft()
                await context.write(frame)
                if not connection.is_open():
                    return
                connection.taken(frame)
            connection.more = asyncio.get_running_loop().create_future()
            await connection.more

    async def _keep_following(self) -> None:
        while True:
            await asyncio.sleep(self._check_every_s)
            self._follow()

    def _follow(self) -> None:
        """Read the roster again and cut whoever may no longer be here."""
        try:
            admitted = self._admitted()
            if admitted != self._roster.admitted:
                self._roster = _Roster(admitted)
        except Exception:  # whatever is wrong with it, the exchange goes on with what it has
            _log.exception("the roster cannot be read; the one before stays")
        self.figures.roster_version = self._roster.admitted.version
        for connection in self._connections():
            try:
                if self._roster.member(connection.certificate) != connection.member:
                    raise _denied("unknown")
            except Refused as refused:
                _log.warning("%s cut: %s", connection.member, refused.word)
                connection.end(refused)
        self._checked_at = time.monotonic()

    def _connections(self) -> list[_Connection]:
        return [connection for routes in list(self._routes.values()) for connection in list(routes.values())]

    def _waiting_nbytes(self, lane: str) -> int:
        return sum(connection.waiting_nbytes for connection in self._connections() if connection.lane == lane)


def _introduction(context: Context) -> tuple[str, str, int]:
    """Room, lane and epoch out of a stream's metadata; raises `Refused`."""
    said = [(key, value) for key, value in context.invocation_metadata() or () if key.startswith("isthmus-")]
    facts = {key: str(value) for key, value in said}
    room, lane, epoch = (facts.get(f"isthmus-{name}", "") for name in ("room", "lane", "epoch"))
    if len(said) != len(facts) or facts.get("isthmus-version") != VERSION or lane not in LANES:
        raise _invalid("metadata")
    if not _ROOM.fullmatch(room) or not _EPOCH.fullmatch(epoch):
        raise _invalid("metadata")
    return room, lane, int(epoch)


def _padded(name: str) -> bytes:
    return name.encode("ascii").ljust(NAME_NBYTES, b"\0")


def _no_port(listen: str, detail: str) -> InputError:
    """The error of an address that gRPC could not listen on: taken by another process, or no address of ours."""
    host, _, port = listen.rpartition(":")
    try:
        with socket.create_server((host.strip("[]"), int(port)), reuse_port=False):
            pass
    except OSError as failure:
        if failure.errno == errno.EADDRINUSE:
            return InputError("exchange.port_taken", address=listen, detail=detail)
    except ValueError:  # no number, or none of a port
        pass
    return InputError(
        "exchange.invalid", field="listen", problem=f"this machine cannot listen on '{listen}'", detail=detail
    )
