"""Masks: long pseudorandom vectors that two parties (or one) can make from a short secret, and the keys behind them.

Key agreement is X25519 (RFC 7748), keys are derived with HKDF-SHA-256 (RFC 5869), a mask is the key stream of AES-256
in counter mode, and what one party tells another through the coordinator is sealed with AES-256-GCM. Every derived key
names its use and the sum that it is for, so that no two masks and no two seals share one.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from ..parties.network.message import Array

KEY_NBYTES = 32
TAG_NBYTES = 16  # what a seal is longer by
_PIECE_NBYTES = 1 << 18  # of a mask at a time: it stays in the processor's cache
_ZEROS = bytes(_PIECE_NBYTES)
_BLOCK_NBYTES = 16


def framed(*parts: bytes | str) -> bytes:
    """Parts one after the other, each with its length before it, so that no two lists of parts look alike."""
    raw = [part.encode() if isinstance(part, str) else part for part in parts]
    return b"".join(len(part).to_bytes(8) + part for part in raw)


class KeyPair:
    """A fresh X25519 key pair, or the one of a private key of 32 bytes."""

    def __init__(self, private: bytes | None = None) -> None:
        self.private = secrets.token_bytes(KEY_NBYTES) if private is None else private
        self._key = X25519PrivateKey.from_private_bytes(self.private)
        self.public = self._key.public_key().public_bytes_raw()

    def agree(self, public: bytes) -> bytes:
        """The secret that the owners of both keys share; ValueError for a public key that gives away the secret."""
        return self._key.exchange(X25519PublicKey.from_public_bytes(public))


def derived(secret: bytes, *use: bytes | str) -> bytes:
    """A key of 32 bytes for one use of a secret."""
    return HKDF(SHA256(), KEY_NBYTES, salt=None, info=framed("isthmus secagg", *use)).derive(secret)


# Each key seals once, so the nonce may be the same.
_NONCE = bytes(12)


def seal(key: bytes, plain: bytes, context: bytes) -> bytes:
    """Encrypt with a key that is used for nothing else; `context` is what the receiver must hold it for."""
    return AESGCM(key).encrypt(_NONCE, plain, context)


def unseal(key: bytes, sealed: bytes, context: bytes) -> bytes | None:
    """What `seal` sealed; None if it is anything else."""
    try:
        return AESGCM(key).decrypt(_NONCE, sealed, context)
    except (InvalidTag, ValueError):  # ValueError: shorter than a tag
        return None


class Masks:
    """Masks that run along a vector of words, added or taken away in place, chunk after chunk."""

    def __init__(self, keys: Sequence[tuple[bytes, bool]], dtype: str) -> None:
        """`keys` holds the key of each mask with whether it is added; `dtype` is that of the words."""
        self._streams = [(Cipher(AES(key), CTR(bytes(_BLOCK_NBYTES))).encryptor(), added) for key, added in keys]
        self._dtype = np.dtype(dtype)
        self._stream = bytearray(_PIECE_NBYTES + _BLOCK_NBYTES - 1)  # what `update_into` asks for
        self._mask: Array = np.frombuffer(self._stream, dtype=self._dtype, count=_PIECE_NBYTES // self._dtype.itemsize)

    def apply(self, words: Array) -> None:
        """Mask the next words of the vector, modulo 2³² or 2⁶⁴."""
        for start in range(0, len(words), len(self._mask)):
            piece = words[start : start + len(self._mask)]
            mask, zeros = self._mask[: len(piece)], memoryview(_ZEROS)[: piece.nbytes]
            for stream, added in self._streams:
                stream.update_into(zeros, self._stream)
                (np.add if added else np.subtract)(piece, mask, out=piece)
