"""The finetune job: one party goes on from a model that was trained elsewhere, such as by rounds over many parties."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from ....parties.events import Phase
from ....parties.policy import ALL, Terms
from ...jobs import Form, Job, Name
from ..horizontal.job import LabelForm, NetworkModel, Split
from ..star import PartyInStar
from .start import newest_model


class Start(Form):
    """The model to go on from: a file in the party's own home, named by its digest and never by its path."""

    digest: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = Field(
        default=None,
        title="Digest",
        description="SHA-256 of a file below models/ in the party's home; a report names it, and so does `sha256sum`.",
    )
    job: Name | None = Field(
        default=None,
        title="Job",
        description="Without a digest: the party's model of the newest finished run of the training with this name.",
        examples=["five-hospitals"],
    )

    @model_validator(mode="after")
    def _names_one(self) -> Self:
        if self.digest is None and self.job is None:
            raise ValueError("start names a model by its digest, or by the job that made it")
        return self


class Tuning(Form):
    """How the model is trained further: public, as all of it is."""

    trunk: Literal["frozen", "tuned"] = Field(
        default="tuned", title="Trunk", description="Whether what was learnt elsewhere stays as it is."
    )
    head: tuple[str, ...] = Field(
        default=("output.*",),
        min_length=1,
        max_length=16,
        title="Head",
        description="Parameters that begin afresh, by pattern; the others are the trunk.",
        examples=[["output.*", "body.3.*"]],
    )
    epochs: int = Field(default=60, ge=1, le=10_000, title="Epochs", description="At most so many.")
    batch_size: int = Field(default=32, ge=0, le=65_536, title="Batch size", description="Rows a step; 0 for all.")
    learning_rate: float = Field(default=0.001, gt=0, le=10, title="Learning rate", description="Of Adam.")
    patience: int | None = Field(
        default=6, ge=1, title="Patience", description="Stop after so many epochs without a better validation loss."
    )
    seed: int = Field(default=7, ge=0, lt=2**63, title="Seed", description="Orders batches and splits.")


class FinetuneJob(Job):
    """One party goes on from a model trained elsewhere: a trunk that is frozen or tuned, and a new head."""

    model_config = ConfigDict(title="Finetune job")
    phases: ClassVar[tuple[Phase, ...]] = (Phase.AGREE, Phase.TRAIN, Phase.EVALUATE, Phase.CLOSE)
    units: ClassVar[Mapping[Phase, str]] = {Phase.TRAIN: "model"}

    kind: Literal["finetune"] = Field(default="finetune", title="Kind", description="The kind of job.")
    party: PartyInStar = Field(title="Party", description="Who tunes the model, on its own rows.")
    columns: tuple[str, ...] = Field(
        min_length=1,
        max_length=1000,
        title="Columns",
        description="The columns of the model; their kinds and levels are in its file.",
        examples=[["age", "sex"]],
    )
    label: LabelForm = Field(title="Label", description="What the model learns to tell.")
    model: NetworkModel = Field(
        default_factory=NetworkModel, title="Model", description="That of the training which it comes from."
    )
    start: Start = Field(title="Start", description="The model to go on from.")
    tuning: Tuning = Field(default_factory=Tuning, title="Tuning", description="How it is trained further.")
    split: Split = Field(
        default_factory=Split,
        title="Split",
        description="What is held out; a model that the party itself has trained brings its own split.",
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if ALL in self.columns:
            raise ValueError("columns are those of the model, each by its name")
        if len(set(self.columns)) < len(self.columns):
            raise ValueError("two columns have the same name")
        if both := [name for name in self.label.columns if name in self.columns]:
            raise ValueError(f"the label {both[0]!r} cannot be a column as well")
        if self.split.column is not None and self.split.column in {*self.columns, *self.label.columns}:
            raise ValueError("the split's column cannot be a column of the model")
        if self.split.column is None and self.split.validation_share == 0:
            raise ValueError("the gate goes by validation rows: set split.validation_share")
        if problem := _head_problem(self.model.hidden, self.tuning.head):
            raise ValueError(problem)
        return self

    @property
    def task(self) -> Literal["binary", "regression", "survival"]:
        """What is learnt."""
        return "survival" if self.label.duration is not None else self.label.task

    @property
    def members(self) -> tuple[str, ...]:
        """The party alone."""
        return (self.party.name,)

    @property
    def links(self) -> tuple[tuple[str, str], ...]:
        """It speaks to nobody."""
        return ()

    def role(self, name: str) -> str:
        """A party."""
        return "party"

    def dataset(self, name: str) -> str:
        """The dataset that the party brings."""
        return self.party.dataset

    def completed(self, runs: Path) -> Self:
        """With the digest of its start, which the party is asked to agree to, out of the newest finished run of the
        training that it names.

        Raises `InputError` ``start.unknown``.
        """
        if self.start.digest is not None:
            return self
        assert self.start.job is not None
        digest = newest_model(runs, self.start.job, self.party.name)
        content = self.canonical()
        return type(self).model_validate({**content, "start": {**content["start"], "digest": digest}})

    def terms(self, name: str) -> Terms:
        """What the party's policy judges."""
        split = () if self.split.column is None else (self.split.column,)
        return Terms(
            kind=self.kind,
            purpose=self.purpose,
            party=name,
            peers=(),
            dataset=self.party.dataset,
            columns=self.columns + split,
            labels=self.label.columns,
            cohort=1,
            epochs=self.tuning.epochs,
        )

    def aliases(self) -> frozenset[str]:
        """All names that the job itself holds: the only ones that may leave a vault."""
        optional = {self.split.column, self.start.job} - {None}
        names = {self.kind, self.party.name, self.party.dataset, *self.columns, *self.label.columns}
        return frozenset(names | {str(name) for name in optional})


def network_parts(hidden: int) -> list[str]:
    """The parameters of a network with so many hidden layers, beside the embeddings below `input.`."""
    layers = [f"body.{3 * place}" for place in range(hidden)] + ["output"]  # between them ReLU and dropout
    return [f"{layer}.{what}" for layer in layers for what in ("weight", "bias")]


def _head_problem(hidden: tuple[int, ...], head: tuple[str, ...]) -> str | None:
    """Why these patterns are no head of a network, in one sentence; None if they are one."""
    names = network_parts(len(hidden))
    for pattern in head:
        if not pattern.startswith("input.") and not any(fnmatchcase(name, pattern) for name in names):
            return f"tuning.head: {pattern!r} names no parameter of the model: there are {', '.join(names)}"
    if all(any(fnmatchcase(name, pattern) for pattern in head) for name in names):
        return "tuning.head leaves nothing of the model to start from"
    return None


JOB = FinetuneJob
