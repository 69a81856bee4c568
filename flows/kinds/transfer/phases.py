"""What a party does in each phase of a transfer job, beside what every job about shared patients has.

::

    prepare   the source trains on all its own rows, a model a fold; nothing leaves
    train     the source gives its frozen embedding of the shared patients once, out of fold; where the job asks for it
              and enough is shared, both then train on together
    evaluate  the target decides which model it keeps (`transfer.gate`), judges it, distils; every party saves its part

The half of it that learns is `source` and `target`, which need torch and scikit-learn.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ....parties.events import Phase, Progress, Resumed
from ....parties.network.channel import Channel
from ....parties.table import Identifier
from ..aligned_phases import AlignedPhases
from .job import TransferJob
from .own_data import look_at

if TYPE_CHECKING:
    from ....vertical import EpochReport
    from .source import SourceLearning
    from .target import TargetLearning


class TransferPhases(AlignedPhases[TransferJob]):
    """One party's side of one attempt at a transfer job."""

    _learning: SourceLearning | TargetLearning

    def read_own(self) -> dict[str, Identifier]:
        """Identifiers, columns and label. The source's floor rises: no fold may be smaller than its cohort."""
        if self.me == self.job.source.name:
            least = self.job.pretraining.folds * self.grant.cohort
            self.grant = replace(self.grant, at_least=max(self.grant.at_least, least))
        return look_at(self.store, self.job, self.me, self.grant.columns, self.all_row_ids)

    @property
    def channel(self) -> Channel:
        """The only channel: to the other party."""
        (channel,) = self.channels.values()
        return channel

    def tuning_options(self) -> dict[str, Any]:
        """What both sides of split tuning are told of this attempt."""
        assert self.run is not None
        return {
            "party": self.me,
            "job_digest": self.digest,
            "alignment_digest": self.aligned.digest,
            "private_seed": self.run.private_seed,
            "checkpoints": self.checkpoints,
            "on_epoch": self._train_progress,
        }

    def _train_progress(self, report: EpochReport) -> None:
        if report.resumed_from is not None:
            self.tell(Resumed(phase=Phase.TRAIN, epoch=report.resumed_from))
        self.tell(
            Progress(
                phase=Phase.TRAIN, index=report.epoch, units=report.epochs, done=report.batch, total=report.batches
            )
        )

    def prepare(self) -> None:
        """Learn from one's own rows."""
        if self.me == self.job.source.name:
            from .source import SourceLearning  # with torch, which what comes before does not wait for

            self._learning = SourceLearning(self)
        else:
            from .target import TargetLearning

            self._learning = TargetLearning(self)
        self._learning.prepare()

    def train(self) -> None:
        """Give the embedding, or learn from it."""
        self._learning.train()

    def evaluate(self) -> None:
        """Judge and save."""
        self._learning.evaluate()


phases_of = TransferPhases
