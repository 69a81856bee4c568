"""What a member does in each phase of a horizontal job, inside its vault, beside what every star has.

::

    agree     the target and the split are read; the code of an own model is compared
    prepare   pooled means and scales through sums; how far each party's columns lie from them
    train     rounds; every party saves the model
    evaluate  each party judges the model on its own held-out rows, and what it reaches alone; pooled metrics by sums

The half of it that learns is `learning`, which needs torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ....horizontal.codes import NumberCode
from ....horizontal.counting import OwnRows
from ....horizontal.model_spec import code_digest
from ....horizontal.schema import drift
from ....horizontal.splits import Parts
from ....horizontal.statistics import standardise, standards_request
from ....horizontal.statistics_party import StatisticsParty
from ....horizontal.targets import Target
from ....parties.events import Drift, Phase
from ....parties.home import PartyHome
from ....parties.network.message import Topic
from ....parties.table import Column
from ...phases import Opening, digest_of_rows
from ...publisher import Publisher
from ..star_phases import StarCoordinatorPhases, StarPartyPhases, specs_of
from .job import HorizontalJob, OwnModel
from .own_data import read_parts, read_target, split_of

if TYPE_CHECKING:
    from .learning import CoordinatorLearning, PartyLearning

INITIAL_FILE = "initial.safetensors"  # in the coordinator's folder of a run: the model that it began with


def phases_of(
    home: PartyHome, job: HorizontalJob, opening: Opening, tell: Publisher
) -> HorizontalPartyPhases | HorizontalCoordinatorPhases:
    """One member's side of a horizontal job."""
    kind = HorizontalCoordinatorPhases if home.name == job.coordinator else HorizontalPartyPhases
    return kind(home, job, opening, tell)


class HorizontalPartyPhases(StarPartyPhases[HorizontalJob]):
    """One party's side of one attempt at a horizontal job."""

    target: Target
    parts: Parts
    _numbers: tuple[NumberCode, ...]
    _learning: PartyLearning

    def code(self) -> str:
        """The digest of the code of a model of one's own."""
        return code_of(self.job, self.me)

    def read_more(self) -> None:
        """The target, and which rows are held out."""
        # A hospital where nobody had the outcome, or everybody, takes part all the same.
        self.target = read_target(self.store, self.job.label, self.row_ids, may_be_constant=True)
        self.parts = read_parts(self.store, split_of(self.job), self.me, self.row_ids, self.target)

    def digest_of_data(self) -> str:
        """SHA-256 over columns, target and split."""
        parts = (self.parts.train, self.parts.validation, self.parts.test)
        return digest_of_rows(self.columns, self.target.values, self.target.event, *parts)

    def prepare(self) -> None:
        """Pooled means and scales of the training rows, and how far this party's columns lie from them."""
        train = self.parts.train
        learnt_from = [Column(one.name, one.kind, one.values[train]) for one in self.columns]
        request = standards_request(specs_of(self.job), self.floor)
        self._numbers = StatisticsParty(
            self.channel,
            self.giving(Topic.STATISTICS),
            request,
            OwnRows(request, learnt_from, {}, len(train), party=self.me),
            parties=self.job.names,
            job_digest=self.digest,
            attempt=self.attempt,
            floor=self.floor,
            dataset=self.store.name,
            wait_s=self.job.rounds.deadline_s + self.channel.timeout_s,
        ).standardisation()
        for one in drift(learnt_from, self._numbers, self.floor):
            self.tell(Drift(column=one.column, smd=one.smd, missing=one.missing))

    def train(self) -> None:
        """Take part in the rounds."""
        from .learning import PartyLearning  # with torch

        self._learning = PartyLearning(self, self._numbers)
        self._learning.train()

    def evaluate(self) -> None:
        """Judge the model."""
        self._learning.evaluate()


class HorizontalCoordinatorPhases(StarCoordinatorPhases[HorizontalJob]):
    """The coordinator's side of one attempt at a horizontal job."""

    _numbers: tuple[NumberCode, ...]
    _learning: CoordinatorLearning

    def code(self) -> str:
        """The digest of the code of a model of one's own."""
        return code_of(self.job, self.me)

    def start_over(self) -> None:
        """Forget what earlier attempts learnt, the model they began with as well."""
        super().start_over()
        (self.home.run_folder(self.opening.run) / INITIAL_FILE).unlink(missing_ok=True)

    def prepare(self) -> None:
        """Add up means and scales."""
        self._numbers = standardise(
            self.members,
            self.gathering(),
            standards_request(specs_of(self.job), self.floor),
            job_digest=self.digest,
            attempt=self.attempt,
            floor=self.floor,
            quorum=self.job.fewest,
            deadline_s=self.job.rounds.deadline_s,
            on_pass=self.tell_sums(Phase.PREPARE),
        )

    def train(self) -> None:
        """Lead the rounds."""
        from .learning import CoordinatorLearning

        self._learning = CoordinatorLearning(self, self._numbers)
        self._learning.train()

    def evaluate(self) -> None:
        """Add up how well the model does."""
        self._learning.evaluate()


def code_of(job: HorizontalJob, member: str) -> str:
    """The digest of the code of the job's own model at this member; empty where there is none."""
    return code_digest(job.model.path, party=member) if isinstance(job.model, OwnModel) else ""
