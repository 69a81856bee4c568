"""The way between two processes as vaults have it on one machine: a socket whose every byte is sealed."""

from __future__ import annotations

import socket

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from isthmus.parties.network.local import SocketCarrier
from isthmus.parties.network.sealed import SealedCarrier
from isthmus.parties.network.session import Binding, Handshake


def sealed_way(descriptor: int, me: str, peer: str) -> SealedCarrier:
    """This end of a socket pair; the session is made at the first message."""
    key = Ed25519PrivateKey.generate()
    handshake = Handshake(
        key.sign,
        key.public_key().public_bytes_raw(),
        me=me,
        peer=peer,
        peer_key=None,
        binding=Binding("", "bench"),
        attempt=1,
        job="0" * 64,
    )
    return SealedCarrier(SocketCarrier(socket.socket(fileno=descriptor)), handshake, me=me, peer=peer)
