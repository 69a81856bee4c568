"""What the party does in each phase of a finetune job, inside its vault. It sends nothing: there is nobody to send to.

::

    agree     policy judges; the model to start from is found by its digest; columns and label are read
    train     the model is tuned, another is trained alone, the gate keeps the best on validation rows, which is saved
    evaluate  all three are judged on held-out rows

Training is short and begins anew when the job was stopped: from the run's private seed, to the same model bit for bit.
The half of it that learns is `learning`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ....horizontal.splits import Parts, SplitRule
from ....horizontal.targets import Target
from ....parties.errors import InputError
from ....parties.events import Count, Difference, HeldOut
from ...phases import Phases
from .job import FinetuneJob

if TYPE_CHECKING:
    from .learning import Learning
    from .own_data import OwnColumns


class FinetunePhases(Phases[FinetuneJob]):
    """The party's side of one attempt at a finetune job."""

    own: OwnColumns
    split: SplitRule
    target: Target
    parts: Parts
    _learning: Learning

    def look_at_own(self) -> None:
        """Find the model, read what the job names, and compare."""
        from .own_data import read_columns, read_rows, split_of  # with torch

        self.own = read_columns(self.home, self.job)
        for one in self.own.differences:
            self.tell(Difference(column=one.column, what=one.what))
        if self.own.differences:
            raise InputError("schema.differs", count=1)
        self.split, by = split_of(self.job, self.own.start)
        self.target, self.parts = read_rows(self.own, self.job, self.split)
        if len(self.own.row_ids) >= self.grant.cohort:
            self.tell(Count(name="rows", value=len(self.own.row_ids)))
        self.tell(Count(name="columns", value=len(self.own.columns)))
        self.tell(HeldOut(by=by))

    def train(self) -> None:
        """Tune, choose and save."""
        from .learning import Learning

        self._learning = Learning(self)
        self._learning.train()

    def evaluate(self) -> None:
        """Judge what was compared."""
        self._learning.evaluate()


phases_of = FinetunePhases
