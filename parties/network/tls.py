"""TLS between a member and an exchange: both sides show the certificate that the roster pins, and trust no other.

The adversary is whoever stands between the two, or opens a connection to an exchange without being a member. No
authority signs anything: each side's trust anchors are the very certificates of the roster (`certificate`). What passes
inside is sealed once more, from vault to vault; TLS only decides who may use an exchange.

Who holds a pinned key could sign further certificates with it, which TLS would let pass as well: so the exchange looks
up the certificate that was shown, as a whole, before it believes who somebody is (`exchange`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import grpc

from ..certificate import TLS_NAME

KEEPALIVE_S = 10
# A frame has little more than 1 MiB; what is longer than this ends its stream before it is read.
MAX_MESSAGE_NBYTES = 2 * 1024 * 1024
# How much may be on its way before the other end has read it: what 40 ms at 200 MB/s need.
_WINDOW_NBYTES = 8 * 1024 * 1024
_DEAD_AFTER_S = 20
_HANDSHAKE_S = 5  # whoever connects and says nothing holds a connection for so long

Options = tuple[tuple[str, int | str], ...]

_BOTH: Options = (
    ("grpc.keepalive_time_ms", 1000 * KEEPALIVE_S),
    ("grpc.keepalive_timeout_ms", 1000 * KEEPALIVE_S),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.max_receive_message_length", MAX_MESSAGE_NBYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_NBYTES),
    ("grpc.http2.lookahead_bytes", _WINDOW_NBYTES),
)


def channel_credentials(exchange_certificate: bytes, certificate: bytes, key: bytes) -> grpc.ChannelCredentials:
    """A member's end: it shows its own certificate and takes no exchange but the pinned one. All PEM."""
    return grpc.ssl_channel_credentials(exchange_certificate, key, certificate)


def channel_options() -> Options:
    """The options of a member's channel, beside those that a `lane` has of its own."""
    return (
        *_BOTH,
        ("grpc.ssl_target_name_override", TLS_NAME),
        ("grpc.use_local_subchannel_pool", 1),  # a connection a lane: small messages do not wait behind bulk
        ("grpc.enable_retries", 0),
        ("grpc.service_config_disable_resolution", 1),
    )


def server_credentials(
    certificate: bytes, key: bytes, fetch_roots: Callable[[], Iterable[bytes]]
) -> grpc.ServerCredentials:
    """An exchange's end: it shows its certificate, PEM, and takes no member but those that `fetch_roots` gives.

    `fetch_roots` is called for every new connection, in a thread of gRPC's, and gives PEM certificates.
    """
    pairs = [(key, certificate)]
    known: list[bytes] = []

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        roots = b"".join(fetch_roots())
        if known == [roots]:
            return None  # as before
        known[:] = [roots]
        # With no member at all the exchange trusts its own certificate, whose key nobody else has.
        return grpc.ssl_server_certificate_configuration(pairs, roots or certificate)

    first = fetch()
    assert first is not None
    return grpc.dynamic_ssl_server_credentials(first, fetch, require_client_authentication=True)  # type: ignore[arg-type]


def server_options(streams_per_connection: int) -> Options:
    """The options of an exchange's server."""
    return (
        *_BOTH,
        ("grpc.so_reuseport", 0),  # or two exchanges would share a port, each with half of the members
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 500 * KEEPALIVE_S),
        ("grpc.http2.max_ping_strikes", 0),
        ("grpc.max_concurrent_streams", streams_per_connection),
        ("grpc.server_handshake_timeout_ms", 1000 * _HANDSHAKE_S),
        # When a member that is dead without a word is let go of; see `lane` for why this and not the keepalive's own.
        ("grpc.http2.ping_timeout_ms", 1000 * _DEAD_AFTER_S),
    )
