"""Bytes that are nearly right: what a fuzzer makes of genuine inputs."""

from __future__ import annotations

import random
import struct
from collections.abc import Sequence

HEADER_NBYTES = 96  # of a frame: many splices exchange just what stands behind it
_EDGES = (0, 1, 0x7F, 0x80, 0xFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 2**53, 2**63 - 1, 2**63, 2**64 - 1)


def mutated(rng: random.Random, genuine: Sequence[bytes]) -> bytes:
    """One of the genuine inputs with bits flipped, cut, lengthened, joined with another, or nothing of them at all."""
    one = rng.choice(genuine)
    return rng.choice(_WAYS)(rng, one, genuine)


def _flipped(rng: random.Random, one: bytes, _: Sequence[bytes]) -> bytes:
    changed = bytearray(one)
    for _bit in range(rng.choice((1, 1, 1, 2, 4, 16))):
        changed[rng.randrange(len(one))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _flipped_near_the_start(rng: random.Random, one: bytes, _: Sequence[bytes]) -> bytes:
    changed = bytearray(one)
    changed[rng.randrange(min(len(one), HEADER_NBYTES))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _edged(rng: random.Random, one: bytes, _: Sequence[bytes]) -> bytes:
    """A number of 1, 2, 4 or 8 bytes becomes one of those at which programs err."""
    nbytes = rng.choice((1, 2, 4, 8))
    number = struct.pack(rng.choice(("<Q", ">Q")), rng.choice(_EDGES))
    number = number[:nbytes] if rng.random() < 0.5 else number[-nbytes:]
    at = rng.randrange(min(len(one), rng.choice((16, HEADER_NBYTES + 16, len(one)))))
    return one[:at] + number + one[at + nbytes :]


def _cut(rng: random.Random, one: bytes, _: Sequence[bytes]) -> bytes:
    return one[: rng.randrange(len(one))]


def _cut_in_front(rng: random.Random, one: bytes, _: Sequence[bytes]) -> bytes:
    return one[rng.randrange(1, len(one) + 1) :]


def _lengthened(rng: random.Random, one: bytes, _: Sequence[bytes]) -> bytes:
    more = rng.choice((rng.randbytes(rng.randrange(1, 64)), bytes(rng.randrange(1, 64)), one))
    return one + more if rng.random() < 0.8 else more + one


def _spliced(rng: random.Random, one: bytes, genuine: Sequence[bytes]) -> bytes:
    other = rng.choice(genuine)
    return one[: rng.randrange(len(one))] + other[rng.randrange(len(other)) :]


def _spliced_in_place(rng: random.Random, one: bytes, genuine: Sequence[bytes]) -> bytes:
    other = rng.choice(genuine)
    at = rng.choice((HEADER_NBYTES, rng.randrange(len(one))))
    return one[:at] + other[at:]


def _repeated_inside(rng: random.Random, one: bytes, _: Sequence[bytes]) -> bytes:
    start, end = sorted((rng.randrange(len(one)), rng.randrange(len(one))))
    return one[:end] + one[start:end] + one[end:]


def _noise(rng: random.Random, one: bytes, _: Sequence[bytes]) -> bytes:
    return rng.randbytes(rng.choice((len(one), rng.randrange(0, 2048))))


def _noise_behind_a_header(rng: random.Random, one: bytes, _: Sequence[bytes]) -> bytes:
    return one[:HEADER_NBYTES] + rng.randbytes(max(0, len(one) - HEADER_NBYTES))


def _as_it_is(_rng: random.Random, one: bytes, _: Sequence[bytes]) -> bytes:
    """Genuine: skipped where it is due, and an attack (replayed, too early, of another session) where it is not."""
    return one


_WAYS = (
    *(3 * (_flipped, _flipped_near_the_start, _edged)),
    *(2 * (_spliced_in_place, _spliced)),
    _cut,
    _cut_in_front,
    _lengthened,
    _repeated_inside,
    _noise,
    _noise_behind_a_header,
    _as_it_is,
)
