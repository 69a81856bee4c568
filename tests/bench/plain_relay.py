"""What anybody would write with gRPC alone: a relay that forwards by destination, and its clients.

The server is grpc.aio, the clients are synchronous with one stream each in both directions, messages are bytes: 32
bytes that name the destination, then the payload. TLS is mutual, with the certificates and the channel options that
isthmus has. Nothing is sealed, numbered, acknowledged, bounded by more than gRPC's own flow control, or written down.

`plain_relay.py CERTIFICATE KEY ROOTS` prints its port.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path
from queue import Queue

import grpc
import numpy as np

from isthmus.parties.network.message import Array
from isthmus.parties.network.tls import channel_credentials, channel_options, server_options

METHOD = "/plain.Relay/Relay"
NAME_NBYTES = 32


async def serve(certificate: bytes, key: bytes, roots: bytes) -> None:
    """Forward, until killed."""
    members: dict[bytes, grpc.aio.ServicerContext[bytes, bytes]] = {}

    async def relay(_: object, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
        (me,) = (value for key, value in context.invocation_metadata() or () if key == "me")
        members[str(me).encode().ljust(NAME_NBYTES, b"\0")] = context
        await context.send_initial_metadata(())
        while (message := await context.read()) is not grpc.aio.EOF:
            assert isinstance(message, bytes)
            await members[message[:NAME_NBYTES]].write(message)

    server = grpc.aio.server(options=server_options(64))
    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.stream_stream_rpc_method_handler(relay)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("plain.Relay", {"Relay": handler}),))
    pair = [(key, certificate)]
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials(pair, roots, True))
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


class PlainEnd:
    """One client of the relay and its peer. At most eight messages wait to be sent."""

    def __init__(self, address: str, relay: bytes, certificate: bytes, key: bytes, *, me: str, peer: str) -> None:
        self._destination = peer.encode().ljust(NAME_NBYTES, b"\0")
        self._outbox: Queue[bytes | None] = Queue(maxsize=8)
        self._channel = grpc.secure_channel(address, channel_credentials(relay, certificate, key), channel_options())
        stream: grpc.StreamStreamMultiCallable[bytes, bytes] = self._channel.stream_stream(METHOD)
        self._call = stream(self._messages(), metadata=(("me", me),), wait_for_ready=True)
        self._call.initial_metadata()

    def _messages(self) -> Iterator[bytes]:
        while (message := self._outbox.get()) is not None:
            yield message

    def send(self, array: Array) -> None:
        """Send an array's bytes."""
        self._outbox.put(b"".join((self._destination, array.data.cast("B"))))

    def receive(self) -> Array:
        """Wait for the next array, float32."""
        return np.frombuffer(next(self._call), dtype="<f4", offset=NAME_NBYTES)

    def close(self) -> None:
        """End the stream."""
        self._outbox.put(None)
        self._channel.close()


if __name__ == "__main__":
    asyncio.run(serve(*(Path(path).read_bytes() for path in sys.argv[1:])))
