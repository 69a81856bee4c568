"""The coordinating flows: one a kind of job, and the steps that a data engineer puts into a flow of their own.

A coordinating flow starts one party's part per member, watches, cancels the rest at the first failure, and makes the
report from what the vaults published. It knows names and numbers, no rows: see `attempt`.

`signature` is what `isthmus sign` prints: the word of a member of the consortium that the job may be started. On one
machine, where homes belong to no consortium, there is none.
"""

# No `from __future__ import annotations` here: Prefect reads the flows' annotations, and would look strings up in the
# module of the decorator that wraps them.
from dataclasses import dataclass
from typing import Any

from prefect import flow, task
from prefect.artifacts import acreate_markdown_artifact
from prefect.cache_policies import NO_CACHE

from .attempt import attempt, runs_folder
from .jobs import Job
from .kinds.aligned import ALIGN_PHASES
from .kinds.finetune.job import FinetuneJob
from .kinds.horizontal.job import HorizontalJob
from .kinds.statistics.job import StatisticsJob
from .kinds.transfer.job import TransferJob
from .kinds.vertical.job import VerticalJob
from .party import sealed
from .progress import artifact_key
from .report import markdown


@dataclass(frozen=True)
class Shared:
    """The shared patients: a handle, never the identifiers. `count` is None where policies do not publish it."""

    run: str
    digest: str
    count: int | None


@dataclass(frozen=True)
class Model:
    """What a run came to, by name: the run, and every number of its report. A trained model is at the parties."""

    run: str
    summary: dict[str, Any]


@flow(name="vertical", flow_run_name="{job.name}", persist_result=False)
@sealed
async def vertical(job: VerticalJob, fresh: bool = False, baselines: bool = False, signature: str = "") -> Model:
    """Align the parties' rows, train one split model on the shared patients, and report.

    Args:
        job: The job that all parties agree to.
        fresh: Start over even if an earlier attempt at this job can be resumed.
        baselines: Simulations only: also train what each party could do alone, and pooled. Every policy must allow it.
        signature: In a consortium: the line that `isthmus sign` prints, if the coordinator does not sign such jobs.
    """
    return await _whole(job, fresh=fresh, baselines=baselines, signature=signature)


@flow(name="align", flow_run_name="align {job.name}", persist_result=False)
@sealed
async def align(job: VerticalJob | TransferJob, signature: str = "") -> Shared:
    """Find the shared patients; each party keeps its own order of them."""
    run, summary = await attempt(job, ALIGN_PHASES, signature=signature)
    return Shared(run, summary["digests"]["alignment"], summary["shared"])


@flow(name="train-vertical", flow_run_name="train {job.name}", persist_result=False)
@sealed
async def train_vertical(job: VerticalJob, shared: Shared, signature: str = "") -> Model:
    """Train on the patients that `align` found; stops before training if the parties no longer share the same ones."""
    return Model(*await attempt(job, job.phases, alignment=shared.digest, signature=signature))


@flow(name="transfer", flow_run_name="{job.name}", persist_result=False)
@sealed
async def transfer(job: TransferJob, fresh: bool = False, signature: str = "") -> Model:
    """Align the parties' rows, give the target what the source has learnt about the shared patients, and report.

    Args:
        job: The job that both parties agree to.
        fresh: Start over even if an earlier attempt at this job can be resumed.
        signature: In a consortium: the line that `isthmus sign` prints, if the coordinator does not sign such jobs.
    """
    return await _whole(job, fresh=fresh, signature=signature)


@flow(name="train-transfer", flow_run_name="train {job.name}", persist_result=False)
@sealed
async def train_transfer(job: TransferJob, shared: Shared, signature: str = "") -> Model:
    """Transfer to the target by the patients that `align` found; stops if the parties no longer share the same ones."""
    return Model(*await attempt(job, job.phases, alignment=shared.digest, signature=signature))


@flow(name="finetune", flow_run_name="{job.name}", persist_result=False)
@sealed
async def finetune(job: FinetuneJob, fresh: bool = False, signature: str = "") -> Model:
    """Tune a model that was trained elsewhere on one party's rows, and report; nothing leaves the party.

    Args:
        job: The job; where it names no digest, the model is that of the newest run of the job which it names.
        fresh: Start over even if an earlier attempt at this job can be resumed.
        signature: In a consortium: the line that `isthmus sign` prints, if the coordinator does not sign such jobs.
    """
    return await _whole(job, fresh=fresh, signature=signature)


@flow(name="horizontal", flow_run_name="{job.name}", persist_result=False)
@sealed
async def horizontal(job: HorizontalJob, fresh: bool = False, signature: str = "") -> Model:
    """Train one model on the rows of all parties, by rounds, and report.

    Args:
        job: The job that all parties agree to.
        fresh: Start over even if an earlier attempt at this job can be resumed.
        signature: In a consortium: the line that `isthmus sign` prints, if the coordinator does not sign such jobs.
    """
    return await _whole(job, fresh=fresh, signature=signature)


@flow(name="train-horizontal", flow_run_name="train {job.name}", persist_result=False)
@sealed
async def train_horizontal(job: HorizontalJob, signature: str = "") -> Model:
    """Train one model on the rows of all parties; each party keeps it, and the coordinator no row of theirs."""
    return Model(*await attempt(job, job.phases, signature=signature))


@flow(name="statistics", flow_run_name="{job.name}", persist_result=False)
@sealed
async def statistics(job: StatisticsJob, fresh: bool = False, signature: str = "") -> Model:
    """Count and describe the rows of all parties, and report.

    Args:
        job: The job that all parties agree to.
        fresh: Start over even if an earlier attempt at this job can be resumed.
        signature: In a consortium: the line that `isthmus sign` prints, if the coordinator does not sign such jobs.
    """
    return await _whole(job, fresh=fresh, signature=signature)


@flow(name="measure", flow_run_name="measure {job.name}", persist_result=False)
@sealed
async def measure(job: StatisticsJob, signature: str = "") -> Model:
    """Count and describe the rows of all parties: `Model.summary` holds what may be told."""
    return Model(*await attempt(job, job.phases, signature=signature))


def flow_of(kind: str) -> Any:
    """The flow that runs a kind of job from its beginning to its report."""
    flows = (vertical, horizontal, statistics, transfer, finetune)
    return next(one for one in flows if one.name == kind)


@task(name="report", cache_policy=NO_CACHE, persist_result=False)
@sealed
async def publish_report(job: Job, model: Model) -> None:
    """Show a run's report as a Prefect artifact, under the job's name."""
    key = f"{artifact_key(job.name)}-report"
    await acreate_markdown_artifact(markdown(model.summary), key=key, description=model.run)


async def _whole(job: Job, *, fresh: bool, baselines: bool = False, signature: str = "") -> Model:
    """A job from its beginning to its report."""
    job = job.completed(runs_folder())
    model = Model(*await attempt(job, job.phases, fresh=fresh, baselines=baselines, signature=signature))
    await publish_report(job, model)
    return model
