"""A party's identity: the Ed25519 key that it signs with (RFC 8032).

The private half stays in `identity.key` of the party's home: nothing of ours copies the file, and no error, log or
`repr` shows what it holds. The public half is what its peers pin: in the roster of their `consortium`, or, on one
machine and without one, under `keys:` in their own `party.yaml`. They verify with `signature`.
"""

from __future__ import annotations

from collections.abc import Mapping

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from .errors import InputError
from .home import PartyHome


class Identity:
    """What one party signs with. `public` is the raw public key, 32 bytes; people see it as hex.

    A home that has never had a roster gets its key at first use; elsewhere one that is gone is not replaced, since the
    others would take its signatures for a stranger's. Raises `InputError` ``home.no_identity``, ``home.invalid``,
    ``home.key_mode``, ``disk.full`` and ``disk.denied``.
    """

    def __init__(self, home: PartyHome) -> None:
        if not home.has_had_a_roster():
            home.make_identity_key()
        self.name = home.name
        self._private = Ed25519PrivateKey.from_private_bytes(home.identity_key())
        self.public = self._private.public_key().public_bytes_raw()

    def __repr__(self) -> str:
        return f"Identity({self.name!r}, public={self.public.hex()!r})"

    def sign(self, message: bytes) -> bytes:
        """The signature of a message, 64 bytes; the same each time."""
        return self._private.sign(message)


def key_of(keys: Mapping[str, bytes], peer: str, *, party: str) -> bytes:
    """The public key that `party` has pinned for a peer; raises `InputError` ``home.key_unknown``."""
    if peer not in keys:
        raise InputError("home.key_unknown", party=party, peer=peer)
    return keys[peer]
