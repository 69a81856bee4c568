"""Jobs about shared patients: what the kinds have in common whose parties find them by private set intersection."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from typing import TYPE_CHECKING, Self

from pydantic import Field, model_validator

from ...parties.events import Phase
from ...parties.policy import ALL
from ..jobs import Form, Job, Name

ALIGN_PHASES = (Phase.AGREE, Phase.ALIGN, Phase.CLOSE)  # without training


class PartyInJob(Form):
    """What one party brings: a dataset of its own, columns of it, and a label where it has one to learn from."""

    name: Name = Field(title="Party", description="The party's name: that of its home.", examples=["lab"])
    dataset: str = Field(
        title="Dataset", description="A dataset that the party's party.yaml defines.", examples=["results"]
    )
    columns: tuple[str, ...] = Field(
        default=(ALL,),
        title="Columns",
        description='Features of that dataset; "*" stands for all that the party\'s policy releases.',
    )
    label: str | None = Field(
        default=None,
        title="Label",
        description="The outcome: in a vertical job at exactly one party, the active one; in a transfer job at the "
        "source, at the target, or at both.",
    )


class Align(Form):
    """How the shared patients are found."""

    passes: tuple[tuple[str, ...], ...] = Field(  # not "keys": Prefect takes a model with that name for a mapping
        min_length=1,
        max_length=16,
        title="Linkage passes",
        description="Passes from strong to weak; each is a list of identifiers that the parties' party.yaml define.",
        examples=[[["national_id"], ["names", "birth_date"]]],
    )
    at_least: int = Field(
        default=100,
        ge=1,
        le=1_000_000_000,
        title="At least",
        description="Stop when fewer patients are shared; policies may ask for more.",
    )

    @model_validator(mode="after")
    def _passes_name_something(self) -> Align:
        if not all(self.passes):
            raise ValueError("a pass of align.passes is empty")
        return self


class SplitTraining(Form):
    """Public hyperparameters of a split training on the shared patients."""

    epochs: int = Field(default=30, ge=1, le=10_000, title="Epochs", description="At most so many.")
    batch_size: int = Field(default=64, ge=1, le=65_536, title="Batch size", description="Rows a step.")
    learning_rate: float = Field(default=0.001, gt=0, le=1, title="Learning rate", description="Of Adam.")
    patience: int = Field(
        default=5,
        ge=1,
        le=10_000,
        title="Patience",
        description="Stop after so many epochs without a better validation AUC.",
    )
    validation_share: float = Field(
        default=0.2, gt=0, lt=0.5, title="Validation share", description="Of the shared patients, for early stopping."
    )
    test_share: float = Field(
        default=0.2, gt=0, lt=0.5, title="Test share", description="Of the shared patients, held out for the report."
    )

    @model_validator(mode="after")
    def _leaves_patients_to_train_on(self) -> Self:
        if self.validation_share + self.test_share > 0.8:
            raise ValueError("validation_share and test_share leave less than a fifth for training")
        return self


class AlignedJob(Job):
    """Fields come in each kind's own model, in the order of its form: among them `align`."""

    if TYPE_CHECKING:
        align: Align

    @property
    @abstractmethod
    def leader(self) -> str:
        """The party that speaks to all others, and learns the size of an intersection first."""

    @abstractmethod
    def party(self, name: str) -> PartyInJob:
        """The entry of one party."""

    @property
    def followers(self) -> tuple[str, ...]:
        """The other parties, in the job's order."""
        return tuple(name for name in self.members if name != self.leader)

    @property
    def links(self) -> tuple[tuple[str, str], ...]:
        """The leader speaks to all others, and no other party to another."""
        return tuple((self.leader, name) for name in self.followers)

    def dataset(self, name: str) -> str:
        """The dataset that a party brings."""
        return self.party(name).dataset

    def aliases(self) -> frozenset[str]:
        """All names that the job itself holds: the only ones that may leave a vault."""
        names: set[str] = {self.kind, *self.members}
        for party in map(self.party, self.members):
            names |= {party.dataset, *party.columns} | ({party.label} if party.label else set())
        for identifiers in self.align.passes:
            names |= set(identifiers)
        return frozenset(names - {ALL})


def check_parties(parties: Iterable[PartyInJob]) -> None:
    """Raise `ValueError` for parties that no job can have: two of a name, a label that is a column too."""
    names = [party.name for party in parties]
    if len(set(names)) < len(names):
        raise ValueError("two parties have the same name")
    for party in parties:
        if party.label is not None and party.label in party.columns:
            raise ValueError(f"the label {party.label!r} cannot be a column as well")
