"""What a target knows of the patients that it learns from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..parties.table import Column

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Patients:
    """A target's patients: first those that it shares with the source, then further ones of its own.

    `own` are its columns, each ``(rows,)``; `given` float64 ``(shared, width)`` is what the source tells of the shared
    ones; `label` float64 ``(rows,)`` is 0 or 1, NaN where the outcome is not known.
    """

    own: tuple[Column, ...]
    given: Floats
    label: Floats

    @property
    def shared(self) -> int:
        """How many of them are shared."""
        return len(self.given)

    @property
    def labelled(self) -> Patients:
        """Those whose outcome is known."""
        return self.take(np.flatnonzero(~np.isnan(self.label)))

    @property
    def of_shared(self) -> Patients:
        """The shared ones alone."""
        return self.take(np.arange(self.shared))

    @property
    def judged(self) -> Indices:
        """Positions of the shared ones whose outcome is known: on them alone all candidates can be compared."""
        return np.flatnonzero(~np.isnan(self.label[: self.shared]))

    def take(self, rows: Indices) -> Patients:
        """Those at the positions `rows`, of which the shared ones come first."""
        shared = rows[rows < self.shared]
        order = np.concatenate([shared, rows[rows >= self.shared]])
        own = tuple(Column(column.name, column.kind, column.values[order]) for column in self.own)
        return Patients(own, self.given[shared], self.label[order])

    def without(self, rows: Indices) -> Patients:
        """All but those at the positions `rows`."""
        return self.take(np.setdiff1d(np.arange(len(self.label)), rows))
