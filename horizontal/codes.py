"""What is learnt of a column, so that it can be encoded: plain values, which need no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass

MAX_ONE_HOT = 16  # categories with more levels are embedded


@dataclass(frozen=True)
class NumberCode:
    """A number: standardised with the training rows' mean and scale; missing is 0, with an indicator where needed."""

    name: str
    mean: float
    scale: float
    indicator: bool


@dataclass(frozen=True)
class CategoryCode:
    """A category: its levels; code 0 stands for missing and for what is none of them.

    With many levels it is embedded, unless `embed` is False.
    """

    name: str
    levels: tuple[str, ...]
    embed: bool = True

    @property
    def embedded(self) -> bool:
        """Whether it is embedded rather than one-hot."""
        return self.embed and len(self.levels) > MAX_ONE_HOT

    @property
    def width(self) -> int:
        """The width of its embedding."""
        return min(16, 1 + round(math.sqrt(len(self.levels))))
