"""Two members that can shake hands, and one that should not be able to."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from isthmus.parties.network.session import Binding, Handshake

KEYS = {name: Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32) for n, name in enumerate(("insurer", "lab", "eve"))}
PUBLIC = {name: key.public_key().public_bytes_raw() for name, key in KEYS.items()}
JOB, OTHER_JOB = "ab" * 32, "cd" * 32
BINDING = Binding("north", "readmission-1")


def side(
    me: str,
    peer: str,
    *,
    signer: str | None = None,
    pinned: str | None = "",
    binding: Binding = BINDING,
    attempt: int = 1,
    job: str = JOB,
) -> Handshake:
    """`pinned` names whose key this side believes in: the peer's own ("") unless told; None takes any."""
    key, public = KEYS[signer or me], PUBLIC[signer or me]
    peer_key = None if pinned is None else PUBLIC[pinned or peer]
    return Handshake(key.sign, public, me=me, peer=peer, peer_key=peer_key, binding=binding, attempt=attempt, job=job)


def pair(**changes: object) -> tuple[Handshake, Handshake]:
    """The lower and the higher name; `changes` are for the lower."""
    return side("insurer", "lab", **changes), side("lab", "insurer")  # type: ignore[arg-type]


def meet(lower: Handshake, higher: Handshake) -> None:
    auth = lower.on_hello(higher.hello)
    assert auth is not None and higher.on_hello(lower.hello) is None
    answer = higher.on_auth(auth)
    assert answer is not None and lower.on_auth(answer) is None
    assert lower.session is not None and higher.session is not None


def flipped(payload: bytes, place: int) -> bytes:
    """The payload with one bit of one byte changed."""
    return payload[:place] + bytes([payload[place] ^ 1 << place % 8]) + payload[place + 1 :]
