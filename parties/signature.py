"""Whether a signature is good: Ed25519 (RFC 8032), and no key under which anybody can sign.

`identity` makes them.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

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
