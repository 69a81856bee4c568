"""The transfer job: few shared patients, other columns; a target with few labels learns from a source with many."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from ....parties.events import Phase
from ....parties.policy import Terms
from ...jobs import Form, Width
from ..aligned import Align, AlignedJob, PartyInJob, SplitTraining, check_parties


class Pretraining(Form):
    """How the source learns from all its own rows."""

    how: Literal["supervised", "self_supervised"] = Field(
        default="supervised",
        title="How",
        description="By the source's own label, or without one: rows are rebuilt out of rows with swapped values.",
    )
    hidden: tuple[Width, ...] = Field(
        default=(64, 32),
        min_length=1,
        max_length=8,
        title="Hidden widths",
        description="Layers of the source's network; the last is the embedding.",
    )
    dropout: float = Field(default=0.1, ge=0, lt=1, title="Dropout", description="In that network.")
    epochs: int = Field(default=12, ge=1, le=1_000, title="Epochs", description="Passes over the source's rows.")
    batch_size: int = Field(default=128, ge=2, le=65_536, title="Batch size", description="Rows a step.")
    learning_rate: float = Field(default=0.001, gt=0, le=1, title="Learning rate", description="Of AdamW.")
    weight_decay: float = Field(default=0.01, ge=0, le=1, title="Weight decay", description="Of AdamW.")
    swap_noise: float = Field(
        default=0.3, gt=0, lt=1, title="Swap noise", description="Self-supervised: the share of values that is swapped."
    )
    folds: int = Field(
        default=5,
        ge=2,
        le=20,
        title="Folds",
        description="So many models are trained, each without a part of the shared patients, who are told of by the "
        "model that has not seen them.",
    )

    @property
    def width(self) -> int:
        """Numbers of the last layer: of an embedding, and of what split tuning sends."""
        return self.hidden[-1]


class Fit(Form):
    """The target's regularised logistic regression on its own columns and what the source gives."""

    c: float = Field(
        default=0.05, gt=0, le=1_000, title="C", description="Of own columns and embedding: smaller is smoother."
    )
    c_score: float = Field(
        default=0.5, gt=0, le=1_000, title="C of the score", description="Of a source's score, which is one number."
    )


def _at_least_first(schema: dict[str, Any]) -> None:
    """In the form, whether to tune at all comes before how."""
    fields = schema["properties"]
    schema["properties"] = {"at_least": fields.pop("at_least"), **fields}


class SplitTuning(SplitTraining):
    """Split training of both sides on the shared patients, from what the source has learnt: for large overlaps."""

    model_config = ConfigDict(json_schema_extra=_at_least_first)

    at_least: int | None = Field(
        default=None,
        ge=50,
        title="At least",
        description="Tune when so many patients are shared, each with an outcome at the target; never without a "
        "number. Below 1,000 it can hardly pay; the report says whether it did. Gradients tell the source the target's "
        "labels.",
    )
    top: tuple[Width, ...] = Field(default=(32,), max_length=8, title="Top widths", description="Above the merge.")
    dropout: float = Field(default=0.3, ge=0, lt=1, title="Dropout", description="In the target's parts.")


class TransferJob(AlignedJob):
    """Few shared patients, other columns: a target with few labelled patients learns from a source with many."""

    model_config = ConfigDict(title="Transfer job")
    phases: ClassVar[tuple[Phase, ...]] = (
        Phase.AGREE, Phase.ALIGN, Phase.PREPARE, Phase.TRAIN, Phase.EVALUATE, Phase.CLOSE,
    )  # fmt: skip
    units: ClassVar[Mapping[Phase, str]] = {Phase.ALIGN: "pass", Phase.PREPARE: "model", Phase.TRAIN: "epoch"}

    kind: Literal["transfer"] = Field(default="transfer", title="Kind", description="The kind of job.")
    source: PartyInJob = Field(
        title="Source", description="Who has many rows, with a label of its own unless it learns without one."
    )
    target: PartyInJob = Field(
        title="Target", description="Who learns; its label may be null for some patients, or be left out to distil."
    )
    align: Align = Field(title="Alignment", description="How the shared patients are found.")
    give: Literal["score", "embedding"] = Field(
        default="score",
        title="Give",
        description="What the source tells of each shared patient: one number, or the last layer of its network.",
    )
    pretraining: Pretraining = Field(
        default_factory=Pretraining, title="Pretraining", description="How the source learns."
    )
    fit: Fit = Field(default_factory=Fit, title="Fit", description="How the target learns.")
    distill: bool = Field(
        default=True, title="Distil", description="Also make a model that the target runs without the source."
    )
    split: SplitTuning = Field(
        default_factory=SplitTuning, title="Split tuning", description="Whether both sides then train on together."
    )
    seed: int = Field(default=7, ge=0, lt=2**63, title="Seed", description="Orders folds, batches and splits.")

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        check_parties((self.source, self.target))
        for party in (self.source, self.target):
            if not party.columns:
                raise ValueError(f"party {party.name} brings no columns")
        supervised = self.pretraining.how == "supervised"
        if supervised and self.source.label is None:
            raise ValueError(
                f"{self.source.name} learns from a label and none is named: set `source.label`, or "
                "`pretraining.how: self_supervised` with `give: embedding`"
            )
        if not supervised and self.source.label is not None:
            raise ValueError("a self-supervised source learns without a label: leave `source.label` out")
        if not supervised and self.give == "score":
            raise ValueError("without a label there is no score: set `give: embedding`")
        if self.target.label is None and not (self.distill and self.give == "score"):
            raise ValueError(
                f"{self.target.name} has no label to learn from: set `target.label`, or `distill: true` with "
                "`give: score`, which passes on what the source's score says"
            )
        if self.target.label is None and self.split.at_least is not None:
            raise ValueError("split tuning needs a label at the target")
        return self

    @property
    def width(self) -> int:
        """Numbers that the source gives of each shared patient."""
        return 1 if self.give == "score" else self.pretraining.width

    @property
    def members(self) -> tuple[str, ...]:
        """Source and target."""
        return (self.source.name, self.target.name)

    @property
    def leader(self) -> str:
        """The target: it learns the size of the intersection first."""
        return self.target.name

    def party(self, name: str) -> PartyInJob:
        """The entry of one party."""
        return self.source if name == self.source.name else self.target

    def role(self, name: str) -> str:
        """Source or target."""
        return "source" if name == self.source.name else "target"

    def terms(self, name: str) -> Terms:
        """What one party's policy judges."""
        mine = self.party(name)
        peer = self.target.name if mine is self.source else self.source.name
        tuned = self.split.at_least is not None
        cut = self.pretraining.width if tuned else 0  # split tuning sends it for every shared patient
        return Terms(
            kind=self.kind,
            purpose=self.purpose,
            party=name,
            peers=(peer,),
            dataset=mine.dataset,
            columns=mine.columns,
            labels=(mine.label,) if mine.label is not None else (),
            at_least=self.align.at_least,
            membership_learners=(peer,),
            cohort=1,  # of patients that the target tells numbers of, and of each of the source's folds
            epochs=max(self.pretraining.epochs if mine is self.source else 0, self.split.epochs if tuned else 0),
            embedding=max(self.width, cut) if mine is self.source else 0,
        )


JOB = TransferJob
