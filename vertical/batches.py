"""Aligned rows → parts and batches that every party derives for itself: indices never travel.

Orders come from raw 64-bit words of PCG64, seeded through SHA-256 of a labelled text and sorted stably. NumPy promises
the raw stream of a bit generator for good, but not what its `Generator` makes of it, and parties may run different
versions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Parts:
    """Positions within the alignment."""

    train: Rows
    validation: Rows
    test: Rows


def split_rows(count: int, validation_share: float, test_share: float, seed: int, alignment_digest: str) -> Parts:
    """Split aligned rows at random into parts, each sorted. The digest makes the split one of this alignment alone."""
    order = shuffled(np.arange(count), f"split {seed} {alignment_digest}")
    test, validation = round(count * test_share), round(count * validation_share)
    return Parts(
        train=np.sort(order[test + validation :]),
        validation=np.sort(order[test : test + validation]),
        test=np.sort(order[:test]),
    )


def epoch_order(rows: Rows, seed: int, epoch: int) -> Rows:
    """The order of the training rows in one epoch (from 1)."""
    return shuffled(rows, f"epoch {seed} {epoch}")


def batches(order: Rows, size: int) -> Iterator[Rows]:
    """Consecutive batches; the last may be smaller."""
    return (order[start : start + size] for start in range(0, len(order), size))


def shuffled(rows: Rows, label: str) -> Rows:
    """A permutation of rows that depends on the label alone."""
    seed = int.from_bytes(hashlib.sha256(f"isthmus {label}".encode()).digest(), "little")
    keys = np.random.PCG64(seed).random_raw(len(rows))
    return rows[np.argsort(keys, kind="stable")]
