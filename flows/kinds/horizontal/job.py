"""The horizontal job: same columns, other patients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from ....parties.events import Phase
from ....parties.policy import Terms
from ...jobs import Form, Width
from ..star import StarJob
from .strategy import Strategy, StrategyForm

TASKS = {"logistic": "binary", "linear": "regression", "cox": "survival"}


class LabelForm(Form):
    """What the model learns to tell: an outcome of 0 and 1, a number, or a survival time with its event."""

    column: str | None = Field(default=None, title="Column", description="An outcome or a number.", examples=["died"])
    task: Literal["binary", "regression"] = Field(
        default="binary", title="Task", description="What the column holds: 0 and 1, or numbers."
    )
    duration: str | None = Field(default=None, title="Duration", description="Survival: the time under observation.")
    event: str | None = Field(default=None, title="Event", description="Survival: 1 if the event came, 0 if not.")

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        survival = (self.duration is not None, self.event is not None)
        if (self.column is not None) == any(survival) or any(survival) != all(survival):
            raise ValueError("a label is a column, or a duration with its event")
        return self

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that a party's policy has to release as labels."""
        return tuple(name for name in (self.column, self.duration, self.event) if name is not None)


class NetworkModel(Form):
    """Hidden layers over the encoded columns."""

    model_config = ConfigDict(title="Network")

    kind: Literal["network"] = Field(default="network", title="Kind", description="A neural network.")
    hidden: tuple[Width, ...] = Field(default=(32, 16), max_length=8, title="Hidden widths", description="Its layers.")
    dropout: float = Field(default=0.1, ge=0, lt=1, title="Dropout", description="After each hidden layer.")


class LinearModel(Form):
    """A weighted sum of the encoded columns."""

    model_config = ConfigDict(title="Linear")

    kind: Literal["logistic", "linear", "cox"] = Field(
        title="Kind", description="Logistic regression, linear regression, or Cox's proportional hazards."
    )


class OwnModel(Form):
    """A torch.nn.Module of the user's own, installed at every member and never sent."""

    model_config = ConfigDict(title="Your own")

    kind: Literal["own"] = Field(title="Kind", description="A torch.nn.Module of one's own.")
    path: str = Field(
        pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)+$",
        max_length=200,
        title="Path",
        description="The class's dotted path: every policy has to list it. It is made from (inputs, **options).",
        examples=["hospital_models.Net"],
    )
    options: dict[str, int | float | str | bool] = Field(
        default_factory=dict, title="Options", description="Keyword arguments for the class."
    )


class Rounds(Form):
    """How the model is trained: public, as all of it is."""

    count: int = Field(default=30, ge=1, le=10_000, title="Rounds", description="At most so many.")
    local_epochs: int | None = Field(default=None, ge=1, title="Local epochs", description="Passes a round (1).")
    local_steps: int | None = Field(default=None, ge=1, title="Local steps", description="Batches a round instead.")
    batch_size: int = Field(default=32, ge=0, le=65_536, title="Batch size", description="Rows a step; 0 for all.")
    learning_rate: float = Field(default=0.05, gt=0, le=10, title="Learning rate", description="Of the parties.")
    local_optimizer: Literal["sgd", "adam"] = Field(
        default="sgd", title="Local optimizer", description="The parties' own."
    )
    momentum: float = Field(default=0.0, ge=0, lt=1, title="Momentum", description="Of the parties' SGD.")
    weight_decay: float = Field(default=0.0, ge=0, le=1, title="Weight decay", description="Of the parties (L2).")
    weighted: bool = Field(default=True, title="Weighted", description="By rows; otherwise all parties count alike.")
    quorum: int | None = Field(
        default=None,
        ge=1,
        title="Quorum",
        description="Rounds go on while so many parties are left; without it, all are needed.",
    )
    sample: int | None = Field(default=None, ge=1, title="Sample", description="How many parties a round asks; all.")
    deadline_s: float = Field(
        default=300.0, gt=0, le=86_400, title="Deadline", description="Seconds that a round waits for a straggler."
    )
    patience: int | None = Field(
        default=None, ge=1, title="Patience", description="Stop after so many rounds without a better validation loss."
    )
    keep: Literal["best", "last"] = Field(
        default="best", title="Keep", description="The round with the best validation loss, or the last."
    )
    seed: int = Field(default=7, ge=0, lt=2**63, title="Seed", description="Orders batches, splits and samples.")


class Split(Form):
    """How each party holds rows out: by shares, at random, or as a column of its own says."""

    validation_share: float = Field(
        default=0.2, ge=0, lt=0.5, title="Validation share", description="To choose the best round by."
    )
    test_share: float = Field(default=0.2, gt=0, lt=0.5, title="Test share", description="Held out for the report.")
    column: str | None = Field(
        default=None,
        title="Column",
        description="A column that says train, validation or test in every row, instead of shares.",
    )


class HorizontalJob(StarJob):
    """Same columns, other patients: train one model by rounds, with a coordinator that sees no row."""

    model_config = ConfigDict(title="Horizontal job")
    phases: ClassVar[tuple[Phase, ...]] = (Phase.AGREE, Phase.PREPARE, Phase.TRAIN, Phase.EVALUATE, Phase.CLOSE)
    units: ClassVar[Mapping[Phase, str]] = {
        Phase.PREPARE: "pass", Phase.TRAIN: "round", Phase.EVALUATE: "alone, round",
    }  # fmt: skip

    kind: Literal["horizontal"] = Field(default="horizontal", title="Kind", description="The kind of job.")
    label: LabelForm = Field(title="Label", description="What the model learns to tell.")
    model: NetworkModel | LinearModel | OwnModel = Field(
        default=NetworkModel(),  # not a factory: the form in the UI shows no other default of a union
        title="Model",
        description="What is trained.",
    )
    strategy: Strategy = Field(
        default_factory=StrategyForm, title="Strategy", description="A name, or the pieces by name."
    )
    rounds: Rounds = Field(default_factory=Rounds, title="Rounds", description="How it is trained.")
    split: Split = Field(default_factory=Split, title="Split", description="What each party holds out.")
    standardise: Literal["pooled", "own"] = Field(
        default="pooled",
        title="Standardise",
        description="Numbers by the mean and scale of all parties' rows, or by each party's own.",
    )
    subgroups: tuple[str, ...] = Field(
        default=(), max_length=16, title="Subgroups", description="Categories for whose levels the model is judged."
    )
    alone: bool = Field(
        default=True, title="Alone", description="Each party also trains on its own rows alone, to compare."
    )
    secure_bits: Literal[32, 64] = Field(
        default=32, title="Secure bits", description="Of the masked numbers: 32 are enough unless updates are large."
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        columns = {column.name: column for column in self.columns}
        if both := [name for name in self.label.columns if name in columns]:
            raise ValueError(f"the label {both[0]!r} cannot be a column as well")
        if wrong := [name for name in self.subgroups if name not in columns or columns[name].kind != "category"]:
            raise ValueError(f"subgroups are categories among the columns, which {wrong[0]!r} is not")
        if isinstance(self.model, LinearModel) and TASKS[self.model.kind] != self.task:
            raise ValueError(f"the {self.model.kind} model does not fit a {self.task} label")
        if self.split.column is not None and self.split.column in {*columns, *self.label.columns}:
            raise ValueError("the split's column cannot be a column of the model")
        if self.split.column is None and self.split.validation_share == 0 and self.rounds.patience is not None:
            raise ValueError("patience goes by the validation loss, and nothing is held out for it")
        from .plan import problem_of  # which knows the pieces: with NumPy and torch

        if problem := problem_of(self):
            raise ValueError(problem)
        return self

    @property
    def task(self) -> Literal["binary", "regression", "survival"]:
        """What is learnt."""
        return "survival" if self.label.duration is not None else self.label.task

    @property
    def essential(self) -> frozenset[str]:
        """Without a quorum nobody can be missing; with one, only the coordinator cannot."""
        return frozenset({self.coordinator} if self.rounds.quorum is not None else self.members)

    @property
    def fewest(self) -> int:
        """The quorum; without one, all that a round asks."""
        from .plan import plan_of

        return plan_of(self).fewest(len(self.parties))

    def terms(self, name: str) -> Terms:
        """What one member's policy judges."""
        common: dict[str, Any] = {
            "kind": self.kind,
            "purpose": self.purpose,
            "party": name,
            "peers": self.others(name),
            "rounds": self.rounds.count,
            "model": self.model.path if isinstance(self.model, OwnModel) else None,
            "dataset": self.dataset(name),
        }
        if name == self.coordinator:
            return Terms(**common)
        split = () if self.split.column is None else (self.split.column,)
        return Terms(
            **common,
            columns=tuple(column.name for column in self.columns) + split,
            labels=self.label.columns,
            cohort=1,
            plain_updates=not self.secure_aggregation,
        )

    def aliases(self) -> frozenset[str]:
        """All names that the job itself holds: the only ones that may leave a vault."""
        split = {self.split.column} if self.split.column is not None else set()
        return frozenset(self.star_aliases() | set(self.label.columns) | split)


JOB = HorizontalJob
