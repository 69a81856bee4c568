"""Plain functions on doubly enciphered values: order them, compare them, find repeats.

A value is the first 16 bytes of the x coordinate of a doubly enciphered key, ``(rows, 16)`` uint8. Among ten million
values, two that are different agree in 128 bits with a probability of 10⁻²⁵.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from ..parties.network.message import Array

VALUE_NBYTES = 16
_ORDER = b"isthmus psi order 1"

Positions = NDArray[np.int64]


def match(ours: Array, theirs: Array) -> tuple[Positions, Positions]:
    """Positions in `ours` and in `theirs` of the values that both hold, in ascending order of the value.

    Neither side may hold a value twice (see `has_repeats`). Works in memory, 100 bytes a value: the place for a join
    out of core.
    """
    values = _numbers(np.concatenate([ours, theirs]))
    order = np.lexsort((values[:, 1], values[:, 0])).astype(np.int64)
    values = values[order]
    # Equal values lie side by side; lexsort is stable, so that ours comes first.
    first = np.flatnonzero((values[1:] == values[:-1]).all(axis=1))
    return order[first], order[first + 1] - len(ours)


def ascending(values: Array) -> Positions:
    """The positions that sort values (rows, 16) in ascending order, as `match` does."""
    numbers = _numbers(values)
    return np.lexsort((numbers[:, 1], numbers[:, 0])).astype(np.int64)


def has_repeats(values: Array) -> bool:
    """Whether a value (rows, 16) occurs twice."""
    numbers = _numbers(values)
    firsts = np.sort(numbers[:, 0])
    if not (firsts[1:] == firsts[:-1]).any():  # eight bytes settle it nearly always
        return False
    numbers = numbers[np.lexsort((numbers[:, 1], numbers[:, 0]))]
    return bool((numbers[1:] == numbers[:-1]).all(axis=1).any())


def permutation(seed: bytes, count: int) -> Positions:
    """A uniform order of `count` elements that only those who hold the 32-byte seed can tell: (count,).

    Each element draws 64 bits from SHAKE-256, and the draws are sorted. (Two draws of ten million are equal with a
    probability of 10⁻⁶; they then stay in order.) NumPy's generators are not used: their streams may change between
    versions, and the two parties need not run the same one.
    """
    draws = np.frombuffer(hashlib.shake_256(_ORDER + seed).digest(8 * count), dtype="<u8")
    return np.argsort(draws, kind="stable").astype(np.int64)


def _numbers(values: Array) -> NDArray[np.uint64]:
    """Each value as two numbers whose order is that of its bytes: (rows, 2)."""
    return np.ascontiguousarray(values).view(">u8").astype(np.uint64).reshape(-1, 2)
