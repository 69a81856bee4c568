"""What an alignment is: the shared patients, in an order that every party has, and a digest of it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..parties.network.message import Array

_CONTEXT = b"isthmus alignment 1"


@dataclass(frozen=True)
class PassCounts:
    """What became of this party's rows in one pass: numbers of rows.

    `null` lacked a value, `repeated` shared their key with another row of this party, `used` took part, `matched`
    were found at the peer. The peer learns `used` and `matched`.
    """

    linkage_pass: int
    null: int
    repeated: int
    used: int
    matched: int


@dataclass(frozen=True)
class Alignment:
    """The shared patients as one party sees them.

    `rows` (shared,) are the positions of this party's own rows in the common order. `digest` (64 hex digits) is equal
    at all parties and says nothing about the patients. `passes` are in their order; at the active party of several
    passive ones, those with the first come first.
    """

    rows: NDArray[np.int64]
    digest: str
    passes: tuple[PassCounts, ...]


def pairwise_digest(job_digest: str, passes: Iterable[tuple[int, Array]]) -> str:
    """SHA-256 over the job, and each pass's number and doubly enciphered values (matched, 16) in the common order."""
    digest = hashlib.sha256(_CONTEXT + _framed(job_digest))
    for number, values in passes:
        digest.update(number.to_bytes(4, "big") + len(values).to_bytes(8, "big"))
        digest.update(np.ascontiguousarray(values).data)
    return digest.hexdigest()


def common_leaf(pairwise: str, positions: NDArray[np.uint32]) -> str:
    """SHA-256 over one passive party's part of a common alignment: its pairwise digest and the positions within it."""
    return hashlib.sha256(_CONTEXT + b" part" + _framed(pairwise) + positions.astype("<u4").tobytes()).hexdigest()


def common_digest(job_digest: str, leaves: Iterable[str]) -> str:
    """SHA-256 over the job and the parts of all passive parties: what a common alignment is known by."""
    return hashlib.sha256(_CONTEXT + b" whole" + b"".join(map(_framed, (job_digest, *leaves)))).hexdigest()


def _framed(text: str) -> bytes:
    encoded = text.encode()
    return len(encoded).to_bytes(4, "big") + encoded
