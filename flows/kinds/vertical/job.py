"""The vertical job: same patients, other columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from ....parties.events import Phase
from ....parties.policy import Terms
from ...jobs import Form, Width
from ..aligned import Align, AlignedJob, PartyInJob, SplitTraining, check_parties


class NetworkModel(Form):
    """A network split between the parties: a bottom at each, a top at the active party."""

    model_config = ConfigDict(title="Network")

    kind: Literal["network"] = Field(default="network", title="Kind", description="A split neural network.")
    bottom: tuple[Width, ...] = Field(
        default=(64, 32),
        min_length=1,
        max_length=8,
        title="Bottom widths",
        description="Layers of each party's bottom model; the last is the cut layer, which leaves the passive parties.",
    )
    top: tuple[Width, ...] = Field(
        default=(32,), max_length=8, title="Top widths", description="Hidden layers above the merge."
    )
    merge: Literal["concat", "sum", "mean"] = Field(
        default="concat", title="Merge", description="How the cut layers of the parties are put together."
    )
    dropout: float = Field(default=0.1, ge=0, lt=1, title="Dropout", description="In the bottoms and the top.")


class LogisticModel(Form):
    """Logistic regression over the columns of all parties."""

    model_config = ConfigDict(title="Logistic regression")

    kind: Literal["logistic"] = Field(default="logistic", title="Kind", description="Logistic regression.")


class Training(SplitTraining):
    """Public hyperparameters. The seed orders batches and splits and nothing else: every party knows it."""

    weight_decay: float = Field(default=0.0, ge=0, le=1, title="Weight decay", description="Of Adam (L2).")
    seed: int = Field(default=7, ge=0, lt=2**63, title="Seed", description="Orders batches and splits.")


class VerticalJob(AlignedJob):
    """Same patients, other columns: align the parties' rows, then train one split model."""

    model_config = ConfigDict(title="Vertical job")
    phases: ClassVar[tuple[Phase, ...]] = (Phase.AGREE, Phase.ALIGN, Phase.TRAIN, Phase.EVALUATE, Phase.CLOSE)
    units: ClassVar[Mapping[Phase, str]] = {Phase.ALIGN: "pass", Phase.TRAIN: "epoch"}

    kind: Literal["vertical"] = Field(default="vertical", title="Kind", description="The kind of job.")
    parties: tuple[PartyInJob, ...] = Field(
        min_length=2, max_length=16, title="Parties", description="Who takes part and with what."
    )
    align: Align = Field(title="Alignment", description="How the shared patients are found.")
    # Not a factory: the form in the UI shows no other default of a union.
    model: NetworkModel | LogisticModel = Field(default=NetworkModel(), title="Model", description="What is trained.")
    training: Training = Field(default_factory=Training, title="Training", description="How it is trained.")

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        check_parties(self.parties)
        labelled = [party.name for party in self.parties if party.label is not None]
        if len(labelled) != 1:
            raise ValueError(f"exactly one party must have a label, not {len(labelled)}")
        for party in self.parties:
            if party.label is None and not party.columns:
                raise ValueError(f"party {party.name} brings neither columns nor a label")
        return self

    @property
    def active(self) -> PartyInJob:
        """The party that holds the label."""
        return next(party for party in self.parties if party.label is not None)

    @property
    def leader(self) -> str:
        """The active party."""
        return self.active.name

    @property
    def passive(self) -> tuple[PartyInJob, ...]:
        """The parties that hold features only, in the job's order."""
        return tuple(party for party in self.parties if party.label is None)

    def party(self, name: str) -> PartyInJob:
        """The entry of one party."""
        return next(party for party in self.parties if party.name == name)

    @property
    def members(self) -> tuple[str, ...]:
        """The parties, in the job's order."""
        return tuple(party.name for party in self.parties)

    def role(self, name: str) -> str:
        """Active or passive."""
        return "active" if name == self.active.name else "passive"

    def terms(self, name: str) -> Terms:
        """What one party's policy judges."""
        mine = self.party(name)
        return Terms(
            kind=self.kind,
            purpose=self.purpose,
            party=name,
            peers=tuple(party.name for party in self.parties if party.name != name),
            dataset=mine.dataset,
            columns=mine.columns,
            labels=(mine.label,) if mine.label is not None else (),
            at_least=self.align.at_least,
            # A passive party learns which of its patients all parties share, and so that every other one has them too.
            membership_learners=tuple(party.name for party in self.parties if party.name != name),
            epochs=self.training.epochs,
        )


JOB = VerticalJob
