"""The exchange: a relay that members connect out to. It is blind, keeps nothing on disk, and may be restarted.

1. A member opens a stream a lane, over TLS with its pinned certificate (`tls`), and says in metadata: protocol version,
   room (which run), lane, epoch (the attempt of this member at this run).
2. The exchange looks the certificate up in the roster: the member's name comes from there, never from what it says.
   It refuses a revoked, expired or unknown one, and an epoch that is older than the one connected; an older stream of
   the same room, member and lane is cut. It answers with empty initial metadata: accepted.
3. Frames pass from stream to stream of the same room and lane, by the destination in their header, if the source is
   the certificate's member. A frame for somebody who is not connected is dropped: whoever sealed it sends it again.
4. Each stream has an outbox bounded by bytes. When it is full, the exchange stops reading from those who send to it; a
   stream that holds others back so and takes next to nothing for 10 s is cut, since those have other peers as well.
   What waits for one member on all its streams is bounded too: beyond it, frames are dropped.
5. The roster is read again every few seconds; whoever is no longer in it, or no longer valid, is cut.

**Who learns what**: the exchange sees who speaks to whom, in which room and lane, when and how much; the payloads are
sealed from vault to vault (`session`), and it holds no key to them. It could drop, repeat, reorder or alter frames:
the vaults detect that and never obey it.

**Adversary here**: a member that pretends to be another, floods, never reads, or keeps old streams; anybody without a
pinned certificate. What each of them can reach is its own streams' end, and memory up to an outbox a stream.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import re
import socket
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import grpc
from cryptography import x509

from ..errors import InputError
from .admission import Admitted, Directory, RefusedError, denied, introduction, invalid, padded
from .connection import Connection, Routes
from .frame import HEADER_NBYTES, MAX_FRAME_NBYTES, NAME_NBYTES
from .memory import keep_freed_memory
from .metrics import Figures
from .tls import server_credentials, server_options

__all__ = ["METHOD", "SERVICE", "Admitted", "Exchange"]

SERVICE, METHOD = "isthmus.Exchange", "Relay"
_DESTINATION, _SOURCE = slice(8, 8 + NAME_NBYTES), slice(40, 40 + NAME_NBYTES)
_ADDRESS = re.compile(r"([^:\[\]]+|\[[0-9a-fA-F:]+\]):([0-9]{1,5})")
_FULL_STREAMS = 4  # as many full outboxes are held for one member

Context: TypeAlias = "grpc.aio.ServicerContext[bytes, bytes]"
_log = logging.getLogger(__name__)


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
        self._directory = Directory(admitted())
        self._routes: dict[tuple[str, str], Routes] = {}  # by room and lane
        self._open: Counter[str] = Counter()  # streams by member
        self._holding: Counter[str] = Counter()  # bytes that wait for each member, in all its outboxes
        self._handled: Counter[str] = Counter()  # the same, with those that were cut and have not ended yet
        self.figures = Figures()
        for lane, figures in self.figures.lanes.items():
            figures.waiting_nbytes = lambda lane=lane: self._waiting_nbytes(lane)  # type: ignore[misc]
        self._checked_at = 0.0

    async def start(self) -> int:
        """Listen and serve; gives the port. Raises `InputError` ``exchange.port_taken`` and ``exchange.invalid``."""
        address = _ADDRESS.fullmatch(self._listen)
        if not address or int(address[2]) > 65535:  # gRPC would choose a port
            raise _not_ours(self._listen)
        keep_freed_memory()
        self._server = grpc.aio.server(options=server_options(self._connections_per_member))
        handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.stream_stream_rpc_method_handler(self._relay)
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {METHOD: handler}),))
        roots = server_credentials(self._certificate, self._key, lambda: self._directory.admitted.members.values())
        try:
            port = self._server.add_secure_port(self._listen, roots)
        except RuntimeError as failure:
            taken = _is_taken(self._listen)
            error = InputError("exchange.port_taken", address=self._listen) if taken else _not_ours(self._listen)
            raise error from failure
        await self._server.start()
        self._follow()
        self._following = asyncio.create_task(self._keep_following())
        return port

    async def stop(self, grace_s: float = 1.0) -> None:
        """Cut all streams and stop; streams that take longer than `grace_s` to end are reset."""
        self._following.cancel()
        for connection in self._connections():
            self._cut(connection, RefusedError(grpc.StatusCode.UNAVAILABLE, "stopping"))
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
        """One stream, from its beginning to its end."""
        try:
            connection = self._accept(context)
        except RefusedError as refused:
            self.figures.refused[refused.word] += 1
            await context.abort(refused.code, refused.word)
        passing: set[asyncio.Task[None]] = set()
        try:
            await context.send_initial_metadata(())
            passing = {asyncio.create_task(passes(connection, context)) for passes in (self._read, self._write)}
            for task in passing:
                task.add_done_callback(_log_failure)
            ends: set[asyncio.Future[Any]] = {*passing, connection.ended}
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            why = connection.ended.result() if connection.ended.done() else None
            self._forget(connection)
            if why is not None:
                await context.abort(why.code, why.word)
        finally:
            self._forget(connection)
            # Never cancelled, or gRPC would not let go of the frame that is being written. They end with the call; of a
            # member that takes nothing more, not even its status, that is with its connection, and counts until then.
            try:
                if passing:
                    await asyncio.wait(passing)
            finally:  # the member may go while we wait
                self._handled[connection.member] -= 1

    def _accept(self, context: Context) -> Connection:
        """Check certificate and metadata, and take the stream into the table; raises `RefusedError`."""
        (pem,) = context.auth_context()["x509_pem_cert"]
        try:
            certificate = x509.load_pem_x509_certificate(pem)
        except ValueError:  # TLS takes more than we do
            raise denied("unknown") from None
        member = self._directory.member(certificate)
        said = introduction(context.invocation_metadata() or ())
        older = self._routes.get(said[:2], {}).get(padded(member))
        if older is not None and said.epoch < older.epoch:
            raise RefusedError(grpc.StatusCode.FAILED_PRECONDITION, "fenced")
        most = self._connections_per_member
        if self._handled[member] >= 2 * most or (older is None and self._open[member] >= most):
            raise RefusedError(grpc.StatusCode.RESOURCE_EXHAUSTED, "connections")
        if older is not None:
            self._cut(older, RefusedError(grpc.StatusCode.ABORTED, "replaced"))
        connection = Connection(member, certificate, said, self._routes.setdefault(said[:2], {}), self._holding)
        connection.routes[connection.name] = connection
        self._open[member] += 1
        self._handled[member] += 1
        self.figures.lanes[said.lane].connections += 1
        _log.info("%s connected: room %s, lane %s, epoch %d", member, *said)
        return connection

    def _cut(self, connection: Connection, why: RefusedError) -> None:
        """End a stream from here."""
        _log.warning("%s cut: %s", connection.member, why.word)
        self.figures.refused[why.word] += 1
        self._forget(connection, why)

    def _forget(self, connection: Connection, why: RefusedError | None = None) -> None:
        """Take a stream out of the table; safe to call twice."""
        connection.end(why)
        place, routes = (connection.room, connection.lane), connection.routes
        if routes.get(connection.name) is not connection:
            return
        del routes[connection.name]
        if not routes:
            del self._routes[place]
        self._open[connection.member] -= 1
        self.figures.lanes[connection.lane].connections -= 1
        told = connection.member, *place, connection.sent, connection.dropped
        _log.info("%s gone: room %s, lane %s; frames sent %d, of them dropped %d", *told)

    async def _read(self, connection: Connection, context: Context) -> None:
        """Pass on what a member sends, until it ends or breaks a rule."""
        source, routes = connection.name, connection.routes
        figures = self.figures.lanes[connection.lane]
        while True:
            frame = await context.read()
            if not isinstance(frame, bytes) or not connection.is_open():  # the stream's end, or it was cut meanwhile
                return
            if not HEADER_NBYTES <= len(frame) <= MAX_FRAME_NBYTES:
                return self._cut(connection, invalid("frame"))
            if frame[_SOURCE] != source:
                return self._cut(connection, invalid("source"))
            connection.sent += 1
            destination = frame[_DESTINATION]
            if destination == source:
                return self._cut(connection, invalid("frame"))
            while (receiver := routes.get(destination)) is not None:
                if receiver.waiting_nbytes < self._outbox_nbytes:
                    break
                if not await receiver.room_made(connection, self._outbox_nbytes // 8) and receiver.is_open():
                    self._cut(receiver, RefusedError(grpc.StatusCode.UNAVAILABLE, "slow"))
                if not connection.is_open():
                    return
            if receiver is None:
                if destination not in self._directory.padded:
                    return self._cut(connection, invalid("frame"))
                connection.dropped += 1
                self.figures.dropped["absent"] += 1
                continue
            if self._holding[receiver.member] >= _FULL_STREAMS * self._outbox_nbytes:
                connection.dropped += 1
                self.figures.dropped["full"] += 1
                continue
            receiver.put(frame)
            figures.frames += 1
            figures.nbytes += len(frame)

    async def _write(self, connection: Connection, context: Context) -> None:
        """Write what waits for a member, frame by frame, and keep none of it."""
        outbox = connection.outbox
        while connection.is_open():
            while outbox:
                frame = outbox.popleft()
                await context.write(frame)
                if not connection.is_open():
                    return
                connection.written(frame)
            await connection.more()

    async def _keep_following(self) -> None:
        while True:
            await asyncio.sleep(self._check_every_s)
            self._follow()

    def _follow(self) -> None:
        """Read the roster again and cut whoever may no longer be here."""
        try:
            admitted = self._admitted()
            if admitted != self._directory.admitted:
                self._directory = Directory(admitted)
        except Exception:  # whatever is wrong with it, the exchange goes on with what it has
            _log.exception("the roster cannot be read; the one before stays")
        self.figures.roster_version = self._directory.admitted.version
        for connection in self._connections():
            try:
                if self._directory.member(connection.certificate) != connection.member:
                    raise denied("unknown")
            except RefusedError as refused:
                self._cut(connection, refused)
        self._checked_at = time.monotonic()

    def _connections(self) -> list[Connection]:
        return [connection for routes in list(self._routes.values()) for connection in list(routes.values())]

    def _waiting_nbytes(self, lane: str) -> int:
        return sum(connection.waiting_nbytes for connection in self._connections() if connection.lane == lane)


def _log_failure(task: asyncio.Task[None]) -> None:
    failure = None if task.cancelled() else task.exception()
    if not isinstance(failure, grpc.aio.BaseError | None):  # those say that the call has ended
        _log.error("a stream failed", exc_info=failure)


def _is_taken(listen: str) -> bool:
    """Whether another process listens at an address that gRPC could not listen at."""
    host, _, port = listen.rpartition(":")
    family = socket.AF_INET6 if "[" in host else socket.AF_INET
    try:
        socket.create_server((host.strip("[]"), int(port)), family=family).close()
    except OSError as failure:
        return failure.errno == errno.EADDRINUSE
    return False


def _not_ours(listen: str) -> InputError:
    problem = f"this machine cannot listen at '{listen}'; it has to be HOST:PORT, such as 0.0.0.0:9443"
    return InputError("exchange.invalid", field="listen", problem=problem)
