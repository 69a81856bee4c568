"""A party's identity: the Ed25519 key that it signs with (RFC 8032).

The private half stays in `identity.key` of the party's home: nothing of ours copies the file, and no error, log or
`repr` shows what it holds. The public half is what its peers pin: in the roster of their `consortium`, or, on one
machine and without one, under `keys:` in their own `party.yaml`.
"""

from __future__ import annotations

from collections.abc import Mapping

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from .errors import InputError
from .home import PartyHome

# The encodings (sign bit aside) of the eight points whose order divides 8, two of them also as numbers above p. OpenSSL
# takes them for keys, and then holds signatures good that anybody can make. Source: libsodium, ge25519_has_small_order.
_SMALL_ORDER = frozenset(
    bytes.fromhex(text)
    for text in (
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    )
)


class Identity:
    """What one party signs with. `public` is the raw public key, 32 bytes; people see it as hex.

    The key is made at first use. Raises `InputError` ``home.invalid``, ``home.key_mode``, ``disk.full`` and
    ``disk.denied``.
    """

    def __init__(self, home: PartyHome) -> None:
        self.name = home.name
        self._private = Ed25519PrivateKey.from_private_bytes(home.identity_key())
        self.public = self._private.public_key().public_bytes_raw()

    def __repr__(self) -> str:
        return f"Identity({self.name!r}, public={self.public.hex()!r})"

    def sign(self, message: bytes) -> bytes:
        """The signature of a message, 64 bytes; the same each time."""
        return self._private.sign(message)


def verify(public: bytes, signature: bytes, message: bytes) -> bool:
    """Whether the owner of a public key has signed this very message."""
    if is_everybodys(public):
        return False
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError):  # a key of another length, or no point of the curve
        return False
    return True


def is_everybodys(public: bytes) -> bool:
    """Whether a public key is a point of small order, under which anybody can sign."""
    return public[:-1] + bytes([public[-1] & 0x7F]) in _SMALL_ORDER if public else False


def key_of(keys: Mapping[str, bytes], peer: str, *, party: str) -> bytes:
    """The public key that `party` has pinned for a peer; raises `InputError` ``home.key_unknown``."""
    if peer not in keys:
        raise InputError("home.key_unknown", party=party, peer=peer)
    return keys[peer]
