"""Numbers as unsigned words whose sum wraps around: the arithmetic of secure aggregation.

`FLOAT32` and `FLOAT64` hold a number in one word, with 24 and 40 fractional bits: the sum of all parties must stay
below 2⁷ and 2²³, which each party sees to by refusing what is not below its own share of that. `EXACT` holds one in
five 64-bit words of 32 bits each, with 64 fractional bits and 95 before the point: a sum of 2³¹ numbers is exact.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..parties.errors import InputError
from ..parties.network.message import Array

_LIMB_BITS, _LIMBS, _EXACT_FRACTION = 32, 5, 64
_CHUNK = 1 << 18  # numbers at a time, so that the float64 copies stay small


@dataclass(frozen=True)
class Encoding:
    """How numbers become words. `limit` bounds the absolute value of a sum, and so of each number in it."""

    name: str
    dtype: str  # of the words: little-endian unsigned
    fraction: int  # bits after the point
    limit: float
    per_number: int = 1

    def words(self, size: int) -> int:
        """How many words `size` numbers take."""
        return size * self.per_number

    def encode(self, values: NDArray[np.floating], party: str) -> Array:
        """Numbers ``(size,)`` as words; halves are rounded to even.

        Raises `InputError` ``update.not_finite`` and ``update.too_large``: under masks nobody else would see them.
        """
        if self.per_number > 1:
            self._require(values, values, self.limit, party)
            return _limbs(values)
        found = np.empty(len(values), dtype=self.dtype)
        for start in range(0, len(values), _CHUNK):
            with np.errstate(over="ignore"):  # what becomes infinite here is too large
                part = np.multiply(values[start : start + _CHUNK], 2.0**self.fraction, dtype=np.float64)
            np.rint(part, out=part)
            self._require(values, part, self.limit * 2.0**self.fraction, party)
            found[start : start + _CHUNK] = part.astype(np.int64)  # and from there modulo the word
        return found

    def decode(self, words: Array, size: int) -> NDArray[np.float64]:
        """The numbers that words stand for, ``(size,)``."""
        if self.per_number > 1:
            return _from_limbs(words, size)
        found = words.view(words.dtype.str.replace("u", "i")).astype(np.float64)
        found /= 2.0**self.fraction
        return found

    def _require(self, values: NDArray[np.floating], part: NDArray[np.floating], limit: float, party: str) -> None:
        """Raise unless this part of the values is below the limit; a NaN is below nothing."""
        if part.size and not (part.max() < limit and -part.min() < limit):
            finite = np.isfinite(values).all()
            raise InputError("update.too_large" if finite else "update.not_finite", party=party)


FLOAT32 = Encoding("float32", "<u4", 24, 2.0**7)
FLOAT64 = Encoding("float64", "<u8", 40, 2.0**23)
EXACT = Encoding("exact", "<u8", _EXACT_FRACTION, 2.0**94, per_number=_LIMBS)
ENCODINGS = {encoding.name: encoding for encoding in (FLOAT32, FLOAT64, EXACT)}


def _limbs(values: NDArray[np.floating]) -> Array:
    found = np.zeros((len(values), _LIMBS), dtype="<u8")
    for place, value in enumerate(values.tolist()):
        mantissa, exponent = math.frexp(value)
        whole = int(mantissa * 2**53)
        shift = exponent - 53 + _EXACT_FRACTION
        fixed = whole << shift if shift >= 0 else _rounded(whole, -shift)
        sign = -1 if fixed < 0 else 1
        for limb in range(_LIMBS):
            part = (abs(fixed) >> (_LIMB_BITS * limb)) & (2**_LIMB_BITS - 1)
            found[place, limb] = (sign * part) % 2**64
    return found.reshape(-1)


def _from_limbs(words: Array, size: int) -> NDArray[np.float64]:
    signed = words.view("<i8").reshape(size, _LIMBS).tolist()
    sums = (sum(part << (_LIMB_BITS * limb) for limb, part in enumerate(row)) for row in signed)
    return np.array([_divided(fixed) for fixed in sums], dtype=np.float64)


def _rounded(whole: int, shift: int) -> int:
    """`whole` / 2^`shift`, halves to even."""
    low = whole & ((1 << shift) - 1)
    found, half = whole >> shift, 1 << (shift - 1)
    return found + (low > half or (low == half and bool(found & 1)))


def _divided(fixed: int) -> float:
    return fixed / (1 << _EXACT_FRACTION)  # Python divides integers exactly, and rounds once
