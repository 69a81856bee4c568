"""What a party does in each phase of a vertical job, inside its vault, beside what every job about shared patients has.

::

    train     split training; checkpoints; the party's own part of the model is saved
    evaluate  joint scoring of the held-out patients; only the active party sees scores
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ....parties.table import Identifier
from ..aligned_phases import AlignedPhases
from .job import VerticalJob
from .own_data import look_at

if TYPE_CHECKING:
    from .learning import Learning


class VerticalPhases(AlignedPhases[VerticalJob]):
    """One party's side of one attempt at a vertical job."""

    _learning: Learning | None = None

    def read_own(self) -> dict[str, Identifier]:
        """Identifiers, columns and label."""
        return look_at(self.store, self.job, self.me, self.grant.columns, self.all_row_ids)

    def train(self) -> None:
        """Train on the shared patients."""
        from .learning import Learning  # with torch, which what comes before does not wait for

        assert self.run is not None
        self._learning = Learning(self.home, self.job, self.run, self.channels, self.tell, self.aligned)
        self._learning.train()

    def evaluate(self) -> None:
        """Score the held-out patients together."""
        assert self._learning is not None
        self._learning.evaluate()


phases_of = VerticalPhases
