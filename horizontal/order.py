"""Orders that every party derives for itself from a label: indices never travel.

They come from raw 64-bit words of PCG64, seeded through SHA-256 of a labelled text and sorted stably. NumPy promises
the raw stream of a bit generator for good, but not what its `Generator` makes of it, and parties may run different
versions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]


def batches(order: Rows, size: int) -> Iterator[Rows]:
    """Consecutive batches; the last may be smaller."""
    return (order[start : start + size] for start in range(0, len(order), size))


def shuffled(rows: Rows, label: str) -> Rows:
    """A permutation of rows that depends on the label alone."""
    seed = int.from_bytes(hashlib.sha256(f"isthmus {label}".encode()).digest(), "little")
    keys = np.random.PCG64(seed).random_raw(len(rows))
    return rows[np.argsort(keys, kind="stable")]
