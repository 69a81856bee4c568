"""Shamir's secret sharing (Shamir 1979, "How to share a secret").

A secret is the value at 0 of a random polynomial of degree `threshold` - 1 over the integers modulo the prime 2⁵²¹ - 1;
a share is its value at another point. `threshold` shares give the secret, fewer say nothing at all about it. Nothing
here tells a wrong share from a right one: whoever combines has to check what comes out.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence

PRIME = 2**521 - 1
SECRET_NBYTES = 32
SHARE_NBYTES = 66


def split(secret: bytes, points: Sequence[int], threshold: int) -> dict[int, bytes]:
    """The share of 66 bytes for each point (distinct and above 0) of a secret of 32 bytes."""
    if len(secret) != SECRET_NBYTES or not 1 <= threshold <= len(set(points)) == len(points) or min(points) < 1:
        raise ValueError("a secret of 32 bytes, distinct points above 0, and at least as many as the threshold")
    coefficients = [secrets.randbelow(PRIME) for _ in range(threshold - 1)] + [int.from_bytes(secret)]
    return {point: _value(coefficients, point).to_bytes(SHARE_NBYTES) for point in points}


def _value(coefficients: Sequence[int], point: int) -> int:
    """A polynomial's value, by Horner's rule; the highest coefficient comes first."""
    value = 0
    for coefficient in coefficients:
        value = (value * point + coefficient) % PRIME
    return value


class Combiner:
    """Puts together secrets whose shares lie at the same points, of which there have to be as many as the threshold."""

    def __init__(self, points: Sequence[int]) -> None:
        self._weights = {}  # of Lagrange's interpolation at 0
        for point in points:
            above = below = 1
            for other in points:
                if other != point:
                    above = above * other % PRIME
                    below = below * (other - point) % PRIME
            self._weights[point] = above * pow(below, -1, PRIME) % PRIME

    def combine(self, shares: Mapping[int, bytes]) -> bytes | None:
        """The secret; None if these cannot be shares of one secret of 32 bytes."""
        secret = sum(weight * int.from_bytes(shares[point]) for point, weight in self._weights.items()) % PRIME
        return secret.to_bytes(SECRET_NBYTES) if secret.bit_length() <= 8 * SECRET_NBYTES else None
