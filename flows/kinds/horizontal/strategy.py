"""The forms of a strategy: a name that stands for pieces, and the pieces themselves."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field

from ...jobs import Form

StrategyName = Literal[
    "fedavg", "fedprox", "scaffold", "ditto", "fedadam", "fedyogi", "fedadagrad", "fedbn", "fedper", "krum",
    "multi_krum", "trimmed_mean", "median", "geometric_median",
]  # fmt: skip


class ObjectiveForm(Form):
    """What a party minimises."""

    model_config = ConfigDict(title="Objective")

    kind: Literal["plain", "proximal", "scaffold", "ditto"] = Field(
        default="plain", title="Kind", description="Plain, FedProx, SCAFFOLD or Ditto."
    )
    mu: float = Field(default=0.0, ge=0, title="Mu", description="How strongly FedProx and Ditto hold a party's model.")


class TransformForm(Form):
    """What happens to an update on its way."""

    kind: Literal["clip", "top_k", "fp16", "int8"] = Field(title="Kind", description="In this order, each once.")
    norm: float = Field(default=0.0, ge=0, title="Norm", description="Of clip: the longest an update may be (L2).")
    share: float = Field(default=0.0, ge=0, le=1, title="Share", description="Of top_k: how many of the numbers go.")


class AggregateForm(Form):
    """How updates become one."""

    model_config = ConfigDict(title="Aggregate")

    kind: Literal["mean", "median", "trimmed_mean", "krum", "multi_krum", "geometric_median"] = Field(
        default="mean", title="Kind", description="The mean, or one that bears with lying parties."
    )
    byzantine: int = Field(default=0, ge=0, title="Byzantine", description="How many parties may lie.")
    selected: int | None = Field(default=None, ge=1, title="Selected", description="Of Multi-Krum: how many it keeps.")


class OptimizerForm(Form):
    """What the coordinator does with the mean change (Reddi et al. 2021)."""

    model_config = ConfigDict(title="Optimizer")

    kind: Literal["sgd", "adam", "yogi", "adagrad"] = Field(default="sgd", title="Kind", description="Its rule.")
    learning_rate: float = Field(default=1.0, gt=0, title="Learning rate", description="Of the coordinator.")
    momentum: float = Field(default=0.0, ge=0, lt=1, title="Momentum", description="Of SGD.")
    beta1: float = Field(default=0.9, ge=0, lt=1, title="Beta 1", description="Of Adam, Yogi and Adagrad.")
    beta2: float = Field(default=0.999, ge=0, lt=1, title="Beta 2", description="Of Adam and Yogi.")
    tau: float = Field(default=1e-8, gt=0, title="Tau", description="Added to the root of the second moment.")
    bias_correction: bool = Field(default=False, title="Bias correction", description="Of Adam; the paper has none.")


class ScopeForm(Form):
    """What a party keeps for itself."""

    model_config = ConfigDict(title="Scope")

    private: tuple[str, ...] = Field(
        default=(), title="Private", description="Parameters that stay, by pattern.", examples=[["output.*"]]
    )
    batch_norm: bool = Field(default=False, title="Batch norm", description="Batch normalisation stays (FedBN).")
    head: bool = Field(default=False, title="Head", description="The last layer stays (FedPer).")


class StrategyForm(Form):
    """A name, and pieces that take the place of the name's own."""

    name: StrategyName = Field(default="fedavg", title="Name", description="What the pieces are unless they are named.")
    objective: ObjectiveForm | None = Field(default=None, title="Objective", description="What a party minimises.")
    transforms: tuple[TransformForm, ...] = Field(
        default=(), max_length=4, title="Transforms", description="What happens to an update on its way."
    )
    aggregate: AggregateForm | None = Field(default=None, title="Aggregate", description="How updates become one.")
    optimizer: OptimizerForm | None = Field(default=None, title="Optimizer", description="The coordinator's step.")
    scope: ScopeForm | None = Field(default=None, title="Scope", description="What a party keeps for itself.")


def _short(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


Strategy = Annotated[StrategyForm, BeforeValidator(_short, json_schema_input_type=StrategyName | StrategyForm)]
