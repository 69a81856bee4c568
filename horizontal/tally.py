"""What a party says of a round beside its update: rows, losses, scores; and how they fit into a masked sum.

Under secure aggregation they travel in the vector itself. Its words hold numbers below 2⁷, and a mean squared error may
be a million: so each figure is written as `DIGITS` digits to the base 64, and the digits are summed. Digits are divided
by a power of two that is no less than the number of parties, which keeps their sums below 64 and costs no bit of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

BASE, DIGITS = 64, 7
_MOST = math.nextafter(float(BASE**DIGITS), 0.0)  # 4·10¹²: a sum of losses beyond that is told as that
_LARGEST = 1e100  # of a sum of losses that is told as it is


class Tally(NamedTuple):
    """Sums over rows: of one party, or of all that are in a round."""

    rows: float = 0.0  # that were trained on
    loss: float = 0.0  # training loss × rows
    validation_rows: float = 0.0
    validation_loss: float = 0.0  # × validation rows
    scored: float = 0.0  # rows that a score stands for
    score: float = 0.0  # × those

    @classmethod
    def of(cls, values: object) -> Tally | None:
        """From a message: six numbers, counts whole and not below zero; None if it is something else.

        Nothing is so large that the sum of all parties' would be infinite.
        """
        if not isinstance(values, list) or len(values) != len(cls._fields):
            return None
        if not all(type(value) in (int, float) for value in values):
            return None
        found = cls(*map(float, values))
        counts = (found.rows, found.validation_rows, found.scored)
        if not all(0 <= count <= _MOST and count.is_integer() for count in counts):
            return None
        return found if all(abs(value) <= _LARGEST for value in found) else None

    def __add__(self, other: object) -> Tally:  # not strung together as tuples are
        assert isinstance(other, Tally)
        return Tally(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))

    def means(self) -> tuple[float | None, float | None, float | None]:
        """Training loss, validation loss and score a row; None where there is no row."""
        pairs = ((self.loss, self.rows), (self.validation_loss, self.validation_rows), (self.score, self.scored))
        loss, validation_loss, score = (total / rows if rows > 0 else None for total, rows in pairs)
        return loss, validation_loss, score


TALLY_SIZE = len(Tally._fields) * DIGITS


def spread(values: Sequence[float], parties: int) -> Floats:
    """Finite figures as digits, ``(figures × DIGITS,)``, each below 64 divided by the power of two."""
    found = np.zeros((len(values), DIGITS))
    for place, value in enumerate(values):
        size = min(abs(value), _MOST)
        whole = int(size)
        digits = [(whole // BASE**power) % BASE for power in range(DIGITS)]
        found[place] = np.copysign(digits, value)
        found[place, 0] += math.copysign(size - whole, value)
    return found.reshape(-1) / _share(parties)


def gathered(total: Floats, parties: int) -> list[float]:
    """The figures whose digits were summed over the parties."""
    powers = float(BASE) ** np.arange(DIGITS)
    sums: list[float] = (total.reshape(-1, DIGITS) @ powers * _share(parties)).tolist()
    return sums


def _share(parties: int) -> int:
    return 1 << (parties - 1).bit_length()
