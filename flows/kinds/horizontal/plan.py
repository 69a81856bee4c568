"""A horizontal job → what the algorithms take: rounds and pieces, columns, the model."""

from __future__ import annotations

from ....horizontal.aggregate import Aggregator
from ....horizontal.model_spec import ModelSpec
from ....horizontal.objective import Objective
from ....horizontal.optimizer import ServerOptimizer
from ....horizontal.plan import STRATEGIES, RoundsPlan, Strategy, impossible
from ....horizontal.scope import Scope
from ....horizontal.transform import Transform
from .job import HorizontalJob, LinearModel, NetworkModel


def plan_of(job: HorizontalJob) -> RoundsPlan:
    """The rounds that a job asks for: the pieces of its strategy's name, and in their place those that it names."""
    form, rounds = job.strategy, job.rounds
    named = STRATEGIES[form.name]
    strategy = Strategy(
        objective=Objective(**form.objective.model_dump()) if form.objective else named.objective,
        aggregator=Aggregator(**form.aggregate.model_dump()) if form.aggregate else named.aggregator,
        optimizer=ServerOptimizer(**form.optimizer.model_dump()) if form.optimizer else named.optimizer,
        scope=Scope(**form.scope.model_dump()) if form.scope else named.scope,
    )
    epochs = rounds.local_epochs if rounds.local_epochs is not None or rounds.local_steps is not None else 1
    validated = job.split.column is not None or job.split.validation_share > 0
    return RoundsPlan(
        rounds=rounds.count,
        local_epochs=epochs,
        local_steps=rounds.local_steps,
        batch_size=rounds.batch_size,
        learning_rate=rounds.learning_rate,
        momentum=rounds.momentum,
        weight_decay=rounds.weight_decay,
        local_optimizer=rounds.local_optimizer,
        objective=strategy.objective,
        transforms=tuple(Transform(**one.model_dump()) for one in form.transforms),
        aggregator=strategy.aggregator,
        optimizer=strategy.optimizer,
        scope=strategy.scope,
        quorum=rounds.quorum,
        sample=rounds.sample,
        deadline_s=rounds.deadline_s,
        patience=rounds.patience,
        keep=rounds.keep if validated else "last",
        seed=rounds.seed,
        secure=job.secure_aggregation,
        bits=job.secure_bits,
        weighted=rounds.weighted,
    )


def problem_of(job: HorizontalJob) -> str | None:
    """Why the pieces of a job cannot be combined, in one sentence; None if they can."""
    return impossible(plan_of(job), len(job.parties))


def model_of(job: HorizontalJob) -> ModelSpec:
    """The model that a job names."""
    if isinstance(job.model, NetworkModel):
        return ModelSpec("network", job.model.hidden, job.model.dropout)
    if isinstance(job.model, LinearModel):
        return ModelSpec("linear")
    return ModelSpec("own", path=job.model.path, options=job.model.options)
