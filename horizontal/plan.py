"""What the parties and the coordinator of a training must hold alike: its rounds, and the pieces that make a strategy.

A round is `select → broadcast → local objective → transforms → aggregate → server optimiser`. A strategy is a choice of
pieces: FedProx changes the objective, FedAdam the optimiser, FedBN the scope, Krum the aggregator. What cannot be
combined is said by `impossible`, before anything runs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from .aggregate import Aggregator
from .fixed_point import FLOAT32, FLOAT64, Encoding
from .objective import Objective
from .optimizer import ServerOptimizer
from .scope import Scope
from .secagg import FEWEST, threshold
from .transform import Transform, out_of_order


@dataclass(frozen=True)
class Strategy:
    """The pieces that a strategy's name stands for."""

    objective: Objective = field(default_factory=Objective)
    aggregator: Aggregator = field(default_factory=Aggregator)
    optimizer: ServerOptimizer = field(default_factory=ServerOptimizer)
    scope: Scope = field(default_factory=Scope)


STRATEGIES = {
    "fedavg": Strategy(),
    "fedprox": Strategy(objective=Objective("proximal", mu=0.01)),
    "scaffold": Strategy(objective=Objective("scaffold")),
    "ditto": Strategy(objective=Objective("ditto", mu=0.1)),
    "fedadam": Strategy(optimizer=ServerOptimizer("adam", learning_rate=0.01)),
    "fedyogi": Strategy(optimizer=ServerOptimizer("yogi", learning_rate=0.01)),
    "fedadagrad": Strategy(optimizer=ServerOptimizer("adagrad", learning_rate=0.1)),
    "fedbn": Strategy(scope=Scope(batch_norm=True)),
    "fedper": Strategy(scope=Scope(head=True)),
    "krum": Strategy(aggregator=Aggregator("krum", byzantine=1)),
    "multi_krum": Strategy(aggregator=Aggregator("multi_krum", byzantine=1)),
    "trimmed_mean": Strategy(aggregator=Aggregator("trimmed_mean", byzantine=1)),
    "median": Strategy(aggregator=Aggregator("median")),
    "geometric_median": Strategy(aggregator=Aggregator("geometric_median")),
}


@dataclass(frozen=True)
class RoundsPlan:
    """How a model is trained over parties.

    A party trains `local_epochs` passes over its rows, or `local_steps` batches, each round. `quorum` is the fewest
    parties whose updates make a round (None: all that are asked), `sample` how many are asked (None: all). `patience`
    ends training after that many rounds without a better validation loss (None: never). `weighted` is by training
    rows; otherwise, and under robust aggregators, all parties count alike.
    """

    rounds: int = 30
    local_epochs: int | None = 1
    local_steps: int | None = None
    batch_size: int = 32  # 0: all rows at once
    learning_rate: float = 0.05
    momentum: float = 0.0
    weight_decay: float = 0.0
    local_optimizer: Literal["sgd", "adam"] = "sgd"
    objective: Objective = field(default_factory=Objective)
    transforms: tuple[Transform, ...] = ()
    aggregator: Aggregator = field(default_factory=Aggregator)
    optimizer: ServerOptimizer = field(default_factory=ServerOptimizer)
    scope: Scope = field(default_factory=Scope)
    quorum: int | None = None
    sample: int | None = None
    deadline_s: float = 300.0  # for a party's answer, of each kind
    patience: int | None = None
    keep: Literal["best", "last"] = "best"
    seed: int = 0  # orders batches and draws samples, and nothing else
    secure: bool = True
    bits: Literal[32, 64] = 32
    weighted: bool = True

    def asked(self, parties: int) -> int:
        """How many of `parties` are asked in a round."""
        return parties if self.sample is None else self.sample

    def fewest(self, parties: int) -> int:
        """The fewest parties whose updates make a round."""
        return self.asked(parties) if self.quorum is None else self.quorum

    @property
    def encoding(self) -> Encoding:
        """How numbers are written under secure aggregation."""
        return FLOAT32 if self.bits == 32 else FLOAT64

    def digest(self) -> str:
        """SHA-256 of all fields, as 64 hex digits."""
        content: dict[str, Any] = asdict(self)
        return hashlib.sha256(f"isthmus rounds {json.dumps(content, sort_keys=True)}".encode()).hexdigest()


def impossible(plan: RoundsPlan, parties: int) -> str | None:
    """Why a plan cannot be carried out by so many parties, in one sentence; None if it can."""
    return next(_reasons(plan, parties), None)


def _reasons(plan: RoundsPlan, parties: int) -> Iterator[str]:
    yield from _numbers(plan)
    yield from _parties(plan, parties)
    yield from _transforms(plan)
    if plan.secure:
        yield from _secure(plan, plan.asked(parties), plan.fewest(parties))
    yield from _robust(plan, plan.fewest(parties))
    yield from _objective(plan)


def _numbers(plan: RoundsPlan) -> Iterator[str]:
    if plan.rounds < 1:
        yield "there has to be at least one round"
    if (plan.local_epochs is None) == (plan.local_steps is None):
        yield "a round is a number of local epochs or of local steps: name one of the two"
    if (plan.local_epochs if plan.local_epochs is not None else plan.local_steps or 0) < 1:
        yield "a party has to make at least one local epoch or step"
    if plan.batch_size < 0:
        yield "a batch cannot have fewer than no rows (0 stands for all rows at once)"
    if not plan.learning_rate > 0 or not plan.optimizer.learning_rate > 0:
        yield "learning rates have to be above zero"
    if not 0 <= plan.momentum < 1 or not 0 <= plan.optimizer.momentum < 1:
        yield "momentum has to be at least 0 and below 1"
    if not plan.weight_decay >= 0 or not plan.objective.mu >= 0:
        yield "weight decay and the objective's mu cannot be below zero"
    if not (0 <= plan.optimizer.beta1 < 1 and 0 <= plan.optimizer.beta2 < 1 and plan.optimizer.tau > 0):
        yield "the server optimiser's betas have to be at least 0 and below 1, and its tau above zero"
    if plan.patience is not None and plan.patience < 1:
        yield "patience is at least one round"
    if not plan.deadline_s > 0:
        yield "the deadline has to be above zero seconds"
    if plan.local_optimizer == "adam" and plan.momentum:
        yield "momentum belongs to local SGD: Adam has its own"
    if plan.optimizer.adaptive and plan.optimizer.momentum:
        yield "momentum belongs to the server's SGD: the adaptive optimisers have beta1"
    if plan.optimizer.bias_correction and plan.optimizer.kind != "adam":
        yield "bias correction belongs to the server's Adam"


def _parties(plan: RoundsPlan, parties: int) -> Iterator[str]:
    asked, fewest = plan.asked(parties), plan.fewest(parties)
    if asked < 1 or asked > parties:
        yield f"a round cannot ask {asked} of {parties} parties"
    if fewest < 1:
        yield "the quorum is at least one party"
    if fewest > parties:
        yield f"the quorum of {fewest} is more than the {parties} parties there are"
    if fewest > asked:
        yield f"a sample of {asked} parties can never reach the quorum of {fewest}"


def _transforms(plan: RoundsPlan) -> Iterator[str]:
    kinds = [one.kind for one in plan.transforms]
    if "fp16" in kinds and "int8" in kinds:
        yield "fp16 and int8 exclude each other: name one"
    if out_of_order(plan.transforms):
        yield "transforms come in the order clip, top_k, then fp16 or int8, each at most once"
    for one in plan.transforms:
        if one.kind == "clip" and not one.norm > 0:
            yield "clip needs a norm above zero"
        if one.kind == "top_k" and not 0 < one.share <= 1:
            yield "top_k needs a share above 0 and at most 1"
    if "top_k" in kinds and plan.aggregator.kind in ("median", "trimmed_mean"):
        yield f"under top_k most places of an update are zero, and so would be their {plan.aggregator.kind}"


def _secure(plan: RoundsPlan, asked: int, fewest: int) -> Iterator[str]:
    if asked < FEWEST:
        yield f"secure aggregation needs {FEWEST} parties a round and there are {asked}: one of two knows the other's"
    if not plan.aggregator.linear:
        yield (
            f"{plan.aggregator.kind} has to see each update, and secure aggregation shows only their sum; with "
            "`secure_aggregation: false` every policy has to say `plain_updates: allow`"
        )
    if any(one.kind != "clip" for one in plan.transforms):
        yield "fp16, int8 and top_k save nothing under secure aggregation: its masks fill every place"
    if plan.sample is not None:
        yield "sums over changing parties come close to one party's update: no sample under secure aggregation"
    if fewest < threshold(asked):
        yield f"with {asked} parties a secure sum needs {threshold(asked)}, so the quorum cannot be {fewest}"
    if plan.bits not in (32, 64):
        yield "secure aggregation writes numbers with 32 or 64 bits"


def _robust(plan: RoundsPlan, fewest: int) -> Iterator[str]:
    f, selected = plan.aggregator.byzantine, plan.aggregator.selected
    if f < 0:
        yield "there cannot be fewer than no byzantine parties"
    match plan.aggregator.kind:
        case "krum" | "multi_krum" if fewest < 2 * f + 3:
            yield f"against {f} byzantine parties Krum needs {2 * f + 3}, and a round may be left with {fewest}"
        case "multi_krum" if selected is not None and not 1 <= selected <= fewest - f - 2:
            yield f"Multi-Krum can average 1 to {fewest - f - 2} of {fewest} updates here, not {selected}"
        case "trimmed_mean" if fewest <= 2 * f:
            yield f"a mean trimmed by {f} on each side needs {2 * f + 1} parties, and a round may be left with {fewest}"
        case "mean" | "median" | "geometric_median" if f:
            yield f"{plan.aggregator.kind} has no number of byzantine parties to set"
    if plan.aggregator.kind != "multi_krum" and selected is not None:
        yield "only Multi-Krum selects a number of updates"


def _objective(plan: RoundsPlan) -> Iterator[str]:
    kind = plan.objective.kind
    if kind in ("plain", "scaffold") and plan.objective.mu:
        yield f"the {kind} objective has no mu to set"
    if kind == "ditto" and not plan.scope.whole:
        yield "Ditto keeps a whole personal model beside the shared one, so nothing of that can be private"
    if kind != "scaffold":
        return
    if plan.optimizer.adaptive or plan.optimizer.momentum:
        yield "SCAFFOLD's controls take the server to add the mean change itself: its optimiser has to be plain SGD"
    if not plan.aggregator.linear:
        yield f"SCAFFOLD's controls are a mean over parties, which {plan.aggregator.kind} would not keep"
    if plan.local_optimizer != "sgd" or plan.momentum or plan.weight_decay:
        yield "SCAFFOLD's controls stand for the gradients of plain local SGD, without momentum and weight decay"
    if plan.transforms:
        yield "SCAFFOLD's controls travel with the update and have to arrive as they are, without transforms"
