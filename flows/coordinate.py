"""The coordinating flows: one a kind of job, and the steps that a data engineer puts into a flow of their own.

A coordinating flow starts one party flow per party, watches, cancels the rest at the first failure, and makes the
report from what the vaults published. It knows names and numbers, no rows.
"""

# No `from __future__ import annotations` here: Prefect reads the flows' annotations, and would look strings up in the
# module of the decorator that wraps them.
import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect import flow, task
from prefect.artifacts import acreate_markdown_artifact, acreate_progress_artifact, aupdate_progress_artifact
from prefect.cache_policies import NO_CACHE

from ..parties.errors import InputError, IsthmusError
from ..parties.events import Fingerprint, Finished, Phase, Progress, PublicEvent
from ..parties.starts import Start
from .jobs import Job
from .journal import Journal, Listener
from .kinds.aligned import ALIGN_PHASES
from .kinds.finetune.job import FinetuneJob
from .kinds.horizontal.job import HorizontalJob
from .kinds.statistics.job import StatisticsJob
from .kinds.transfer.job import TransferJob
from .kinds.vertical.baselines import Baselines, may_pool, run_baselines
from .kinds.vertical.job import VerticalJob
from .launch import Here, together
from .party import HERE, party_flow, sealed
from .report import markdown, summarise, write_report
from .runs import OpenRun, Status, open_run

HOMES_VARIABLE, RUNS_VARIABLE = "ISTHMUS_HOMES", "ISTHMUS_RUNS"
PROGRESS_EVERY_S = 1.0
LISTENERS: ContextVar[tuple[Listener, ...]] = ContextVar("isthmus_listeners", default=())
START: ContextVar[Start | None] = ContextVar("isthmus_start", default=None)  # who has signed the job


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
async def vertical(job: VerticalJob, fresh: bool = False, baselines: bool = False) -> Model:
    """Align the parties' rows, train one split model on the shared patients, and report.

    Args:
        job: The job that all parties agree to.
        fresh: Start over even if an earlier attempt at this job can be resumed.
        baselines: Simulations only: also train what each party could do alone, and pooled. Every policy must allow it.
    """
    return await _whole(job, fresh=fresh, baselines=baselines)


@flow(name="align", flow_run_name="align {job.name}", persist_result=False)
@sealed
async def align(job: VerticalJob | TransferJob) -> Shared:
    """Find the shared patients; each party keeps its own order of them."""
    done = await _attempt(job, ALIGN_PHASES)
    return Shared(done.run, done.summary["digests"]["alignment"], done.summary["shared"])


@flow(name="train-vertical", flow_run_name="train {job.name}", persist_result=False)
@sealed
async def train_vertical(job: VerticalJob, shared: Shared) -> Model:
    """Train on the patients that `align` found; stops before training if the parties no longer share the same ones."""
    return await _attempt(job, job.phases, alignment=shared.digest)


@flow(name="transfer", flow_run_name="{job.name}", persist_result=False)
@sealed
async def transfer(job: TransferJob, fresh: bool = False) -> Model:
    """Align the parties' rows, give the target what the source has learnt about the shared patients, and report.

    Args:
        job: The job that both parties agree to.
        fresh: Start over even if an earlier attempt at this job can be resumed.
    """
    return await _whole(job, fresh=fresh)


@flow(name="train-transfer", flow_run_name="train {job.name}", persist_result=False)
@sealed
async def train_transfer(job: TransferJob, shared: Shared) -> Model:
    """Transfer to the target by the patients that `align` found; stops if the parties no longer share the same ones."""
    return await _attempt(job, job.phases, alignment=shared.digest)


@flow(name="finetune", flow_run_name="{job.name}", persist_result=False)
@sealed
async def finetune(job: FinetuneJob, fresh: bool = False) -> Model:
    """Tune a model that was trained elsewhere on one party's rows, and report; nothing leaves the party.

    Args:
        job: The job; where it names no digest, the model is that of the newest run of the job which it names.
        fresh: Start over even if an earlier attempt at this job can be resumed.
    """
    return await _whole(job, fresh=fresh)


@flow(name="horizontal", flow_run_name="{job.name}", persist_result=False)
@sealed
async def horizontal(job: HorizontalJob, fresh: bool = False) -> Model:
    """Train one model on the rows of all parties, by rounds, and report.

    Args:
        job: The job that all parties agree to.
        fresh: Start over even if an earlier attempt at this job can be resumed.
    """
    return await _whole(job, fresh=fresh)


@flow(name="train-horizontal", flow_run_name="train {job.name}", persist_result=False)
@sealed
async def train_horizontal(job: HorizontalJob) -> Model:
    """Train one model on the rows of all parties; each party keeps it, and the coordinator no row of theirs."""
    return await _attempt(job, job.phases)


@flow(name="statistics", flow_run_name="{job.name}", persist_result=False)
@sealed
async def statistics(job: StatisticsJob, fresh: bool = False) -> Model:
    """Count and describe the rows of all parties, and report.

    Args:
        job: The job that all parties agree to.
        fresh: Start over even if an earlier attempt at this job can be resumed.
    """
    return await _whole(job, fresh=fresh)


@flow(name="measure", flow_run_name="measure {job.name}", persist_result=False)
@sealed
async def measure(job: StatisticsJob) -> Model:
    """Count and describe the rows of all parties: `Model.summary` holds what may be told."""
    return await _attempt(job, job.phases)


def flow_of(kind: str) -> Any:
    """The flow that runs a kind of job from its beginning to its report."""
    flows = (vertical, horizontal, statistics, transfer, finetune)
    return next(one for one in flows if one.name == kind)


@task(name="report", cache_policy=NO_CACHE, persist_result=False)
@sealed
async def publish_report(job: Job, model: Model) -> None:
    """Show a run's report as a Prefect artifact, under the job's name."""
    await acreate_markdown_artifact(markdown(model.summary), key=f"{_key(job.name)}-report", description=model.run)


async def _whole(job: Job, *, fresh: bool, baselines: bool = False) -> Model:
    """A job from its beginning to its report."""
    job = job.completed(runs_folder())
    model = await _attempt(job, job.phases, fresh=fresh, baselines=baselines)
    await publish_report(job, model)
    return model


async def _attempt(
    job: Job, phases: Sequence[Phase], *, fresh: bool = False, baselines: bool = False, alignment: str = ""
) -> Model:
    """One attempt at a run: vaults, party flows, report files. `alignment`: the digest that has to come out.

    `baselines` are of a vertical job.
    """
    homes = homes_folder()
    if baselines:
        assert isinstance(job, VerticalJob)
        may_pool(homes, job)  # said before anything starts
    with open_run(runs_folder(), job, fresh=fresh) as run:
        journal = Journal(run.name, listeners=[*LISTENERS.get(), _expecting(alignment)])
        status: Status = "unfinished"
        error: IsthmusError | None = None
        try:
            async with _progress_artifacts(job, journal):
                async with Here(job, homes, run.name, journal, fresh=fresh, start=START.get()) as here:
                    HERE.set(here)
                    names = [phase.value for phase in phases]
                    await together(job, lambda member: party_flow(job, member, names))
                summary = summarise(job, journal, run.record)
                write_report(run.folder, summary)
                if tuple(phases) == job.phases:
                    status = "finished"  # for the parties, whatever becomes of the comparison
                if baselines:
                    summary = summarise(job, journal, run.record, baselines=await compare(homes, run, journal))
                    write_report(run.folder, summary)
        except IsthmusError as failure:
            error = failure
            raise
        finally:
            run.save(status, error)
    return Model(run.name, summary)


def homes_folder() -> Path:
    """Where the parties' homes are: no parameter, since parameters are stored by the Prefect server."""
    return Path(os.environ.get(HOMES_VARIABLE, "homes"))


def runs_folder() -> Path:
    """Where runs and reports are written."""
    return Path(os.environ.get(RUNS_VARIABLE, "runs"))


@task(name="baselines", cache_policy=NO_CACHE, persist_result=False)
@sealed
async def compare(homes: Path, run: OpenRun, journal: Journal) -> Baselines:
    """Simulations only: what each party could do alone, by a process of its own that reads all homes."""
    return await run_baselines(homes, run.folder, run.name, run.record.job, journal)


def _expecting(alignment: str) -> Listener:
    def check(party: str, event: PublicEvent) -> None:
        if alignment and isinstance(event, Fingerprint) and event.name == "alignment" and event.value != alignment:
            raise InputError("run.realigned")

    return check


@asynccontextmanager
async def _progress_artifacts(job: Job, journal: Journal) -> AsyncIterator[None]:
    """Keep one progress artifact a phase up to date while the parties work."""
    artifacts: dict[Phase, UUID] = {}

    async def publish() -> None:
        for phase, share in _shares(job, journal).items():
            percent = round(100 * share, 1)
            if phase in artifacts:
                await aupdate_progress_artifact(artifacts[phase], percent)
            else:
                description = f"{phase.value}, run {journal.run}"
                artifacts[phase] = await acreate_progress_artifact(
                    percent, key=f"{_key(job.name)}-{phase.value}", description=description
                )

    async def keep_publishing() -> None:
        while True:
            await asyncio.sleep(PROGRESS_EVERY_S)
            await publish()

    publisher = asyncio.ensure_future(keep_publishing())
    try:
        yield
    finally:
        publisher.cancel()
        await asyncio.gather(publisher, return_exceptions=True)
    await publish()


def _shares(job: Job, journal: Journal) -> dict[Phase, float]:
    """How far each phase is, over all parties, 0 to 1."""
    shares: dict[Phase, dict[str, float]] = {}
    for party, event in journal.of(Progress):
        done = (event.index - 1 + (event.done / event.total if event.total else 1)) / event.units
        shares.setdefault(event.phase, {})[party] = done
    for party, ended in journal.of(Finished):  # training may stop early
        if ended.phase in shares:
            shares[ended.phase][party] = 1.0
    workers = {phase: 1 if phase is Phase.COMPARE else len(job.members) for phase in shares}
    return {phase: min(1.0, sum(of.values()) / workers[phase]) for phase, of in shares.items()}


def _key(name: str) -> str:
    """An artifact's key: lower case, digits and dashes."""
    return name.replace("_", "-")
